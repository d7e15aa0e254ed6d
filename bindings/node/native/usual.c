/* See usual.h. */
#include "usual.h"

#include <string.h>

#include "long_strings.h"

#define BEFORE_CHANGES "{\"encryptedChanges\":\""
#define BEFORE_KEY     "\",\"keyUsed\":"
#define BEFORE_MADE_AT ",\"madeAt\":"
#define AFTER_MADE_AT  ",\"privacy\":\"private\"}"

enum { DIGITS_MAX = 15 }; /* 10^15 is below 2^53 */

/* What is left of the text. */
struct rest {
    const char *at, *end;
};

static bool take_literal(struct rest *r, const char *literal, size_t len)
{
    if ((size_t)(r->end - r->at) < len || memcmp(r->at, literal, len) != 0)
        return false;
    r->at += len;
    return true;
}

#define TAKE(rest, literal) take_literal(rest, literal, sizeof(literal) - 1)

/* All up to the next quote, which is taken too. */
static bool take_string(struct rest *r, bft_slice *string)
{
    const char *quote = memchr(r->at, '"', (size_t)(r->end - r->at));
    size_t len;

    if (quote == NULL)
        return false;
    len = (size_t)(quote - r->at);
    if (len >= BFTN_LONG_STRING || !bftn_is_plain(r->at, len) ||
        !bftn_is_ascii(r->at, len))
        return false;
    *string = (bft_slice){r->at, len};
    r->at = quote + 1;
    return true;
}

/* As JavaScript writes it: no zero leads. */
static bool take_number(struct rest *r, uint64_t *number)
{
    const char *start = r->at;

    *number = 0;
    while (r->at != r->end && *r->at >= '0' && *r->at <= '9' &&
           r->at - start < DIGITS_MAX)
        *number = *number * 10 + (uint64_t)(*r->at++ - '0');
    return r->at - start == 1 || (r->at != start && *start != '0');
}

bool bftn_usual_read(bft_slice json, struct bftn_usual *usual)
{
    struct rest r = {json.data, NULL};

    if (json.len == 0)
        return false;
    r.end = r.at + json.len;
    return TAKE(&r, BEFORE_CHANGES) && take_string(&r, &usual->changes) &&
           TAKE(&r, ",\"keyUsed\":\"") && take_string(&r, &usual->key) &&
           TAKE(&r, BEFORE_MADE_AT) && take_number(&r, &usual->made_at) &&
           TAKE(&r, AFTER_MADE_AT) && r.at == r.end;
}

static uint8_t *put_literal(uint8_t *at, const char *literal, size_t len)
{
    memcpy(at, literal, len);
    return at + len;
}

#define PUT(at, literal) put_literal(at, literal, sizeof(literal) - 1)

/* The digits of NUMBER, which takes all of them. */
static bool put_digits(uint8_t *at, uint64_t number)
{
    for (unsigned i = BFTN_MADE_AT_DIGITS; i-- > 0; number /= 10)
        at[i] = (uint8_t)('0' + number % 10);
    return number == 0 && at[0] != '0';
}

bool bftn_usual_complete(uint8_t *text, size_t room, size_t changes_len,
                         size_t key_len)
{
    const size_t around =
        sizeof(BEFORE_CHANGES BEFORE_KEY BEFORE_MADE_AT AFTER_MADE_AT) - 1 +
        BFTN_MADE_AT_DIGITS;
    uint64_t made_at = 0;
    uint8_t *at;

    if (room < around || changes_len > room - around ||
        key_len > room - around - changes_len)
        return false;
    at = PUT(text, BEFORE_CHANGES);
    if (!bftn_is_plain(at, changes_len))
        return false;
    at = PUT(at + changes_len, BEFORE_KEY);
    at = PUT(at + key_len, BEFORE_MADE_AT);
    for (unsigned i = sizeof(made_at); i-- > 0;)
        made_at = made_at << 8 | at[i];
    if (!put_digits(at, made_at))
        return false;
    (void)PUT(at + BFTN_MADE_AT_DIGITS, AFTER_MADE_AT);
    return true;
}
