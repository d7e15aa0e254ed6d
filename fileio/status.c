/* Outcomes in words: a constant text for each status, and per thread the text
 * of its last failure. */
#include "error.h"

#undef bfti_fail
#undef bfti_fail_in

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Enough for a path of ordinary length and what went wrong there.  A longer text
 * loses its middle, never what it ends with: that says what is wrong. */
enum { TAIL_MAX = 400, WHOLE_MAX = 8192 };

static _Thread_local struct bfti_error_own own;

void bfti_error_swap(struct bfti_error_own *other)
{
    struct bfti_error_own kept = own;

    own = *other;
    *other = kept;
}

const char *bft_strerror(bft_status status)
{
    switch (status) {
#define STATUS_TEXT(name, number, words) \
    case BFT_##name:                     \
        return words;
        BFT_STATUS_MAP(STATUS_TEXT)
#undef STATUS_TEXT
    }
    return "a status this library does not know";
}

size_t bft_last_error(char *buf, size_t len)
{
    const char *from = own.constant != NULL ? own.constant : own.text;
    size_t whole = own.constant != NULL ? strlen(own.constant) : own.text_len;

    if (len > 0) {
        size_t copied = whole < len ? whole : len - 1;

        memcpy(buf, from, copied);
        buf[copied] = '\0';
    }
    return whole;
}

bft_status bfti_fail_plain(bft_status status, const char *words)
{
    assert(status != BFT_OK);
    own.constant = words;
    return status;
}

/* The beginning and the end of WHOLE, which is longer than text is. */
static void keep_both_ends(const char *whole, size_t len)
{
    static const char gap[] = " ... ";
    size_t head = BFTI_ERROR_MAX - TAIL_MAX - sizeof(gap);

    memcpy(own.text, whole, head);
    memcpy(own.text + head, gap, sizeof(gap) - 1);
    memcpy(own.text + head + sizeof(gap) - 1, whole + len - TAIL_MAX,
           TAIL_MAX + 1);
}

/* What FORMAT gives, as far as WHOLE has room.  Returns its length. */
static size_t write_out(char whole[WHOLE_MAX], const char *format, va_list args)
{
    int length = vsnprintf(whole, WHOLE_MAX, format, args);

    if (length < 0) {
        whole[0] = '\0';
        return 0;
    }
    return length < WHOLE_MAX ? (size_t)length : WHOLE_MAX - 1;
}

static void keep(const char *whole, size_t len)
{
    own.constant = NULL;
    if (len < BFTI_ERROR_MAX)
        memcpy(own.text, whole, len + 1);
    else
        keep_both_ends(whole, len);
    own.text_len = strlen(own.text);
}

bft_status bfti_fail(bft_status status, const char *format, ...)
{
    char whole[WHOLE_MAX];
    va_list args;
    size_t len;

    assert(status != BFT_OK);
    va_start(args, format);
    /* The analyzer does not see va_start() set ARGS. */
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized) */
    len = write_out(whole, format, args);
    va_end(args);
    keep(whole, len);
    return status;
}

bft_status bfti_fail_in(bft_status status, const char *format, ...)
{
    char whole[WHOLE_MAX + 2 + BFTI_ERROR_MAX];
    va_list args;
    size_t len;

    assert(status != BFT_OK);
    va_start(args, format);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): as above */
    len = write_out(whole, format, args);
    va_end(args);
    whole[len++] = ':';
    whole[len++] = ' ';
    len += bft_last_error(whole + len, BFTI_ERROR_MAX);
    keep(whole, len);
    return status;
}
