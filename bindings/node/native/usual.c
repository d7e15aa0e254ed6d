/* See usual.h. */
#include "usual.h"

#include <string.h>

#include "long_strings.h"

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
    return TAKE(&r, "{\"encryptedChanges\":\"") &&
           take_string(&r, &usual->changes) && TAKE(&r, ",\"keyUsed\":\"") &&
           take_string(&r, &usual->key) && TAKE(&r, ",\"madeAt\":") &&
           take_number(&r, &usual->made_at) &&
           TAKE(&r, ",\"privacy\":\"private\"}") && r.at == r.end;
}
