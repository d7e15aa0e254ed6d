/* Outcomes in words: a constant text for each status, and per thread the text
 * of its last failure. */
#include "error.h"

#undef bfti_fail

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

bft_status bfti_fail(bft_status status, const char *format, ...)
{
    char whole[WHOLE_MAX];
    va_list args;
    int length;

    assert(status != BFT_OK);
    va_start(args, format);
    /* The analyzer does not see va_start() set ARGS. */
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized) */
    length = vsnprintf(whole, sizeof(whole), format, args);
    va_end(args);
    own.constant = NULL;
    if (length < 0) {
        whole[0] = '\0';
        length = 0;
    }
    if (length >= WHOLE_MAX)
        length = WHOLE_MAX - 1;
    if (length < BFTI_ERROR_MAX)
        memcpy(own.text, whole, (size_t)length + 1);
    else
        keep_both_ends(whole, (size_t)length);
    own.text_len = strlen(own.text);
    return status;
}
