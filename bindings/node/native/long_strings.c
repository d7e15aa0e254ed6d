/* See long_strings.h. */
#include "long_strings.h"

#include <stdint.h>
#include <string.h>

bool bftn_is_plain(const void *bytes, size_t len)
{
    const uint8_t *b = bytes;
    uint8_t escaped = 0;

    /* Without a way out: the compiler makes it look at many at a time. */
    for (size_t i = 0; i < len; i++)
        escaped |= (uint8_t)((b[i] < 0x20) | (b[i] == '"') | (b[i] == '\\'));
    return escaped == 0;
}

bool bftn_is_ascii(const void *bytes, size_t len)
{
    const uint8_t *b = bytes;
    uint8_t seen = 0;

    for (size_t i = 0; i < len; i++)
        seen |= b[i];
    return seen < 0x80;
}

/* A place in the text. */
struct reader {
    const char *at, *end;
};

static bool take(struct reader *r, char wanted)
{
    if (r->at == r->end || *r->at != wanted)
        return false;
    r->at++;
    return true;
}

/* A string without escapes, for a backslash before its end ends the search. */
static bool take_string(struct reader *r, bft_slice *string)
{
    const char *quote;
    size_t len;

    if (!take(r, '"'))
        return false;
    quote = memchr(r->at, '"', (size_t)(r->end - r->at));
    if (quote == NULL)
        return false;
    len = (size_t)(quote - r->at);
    if (memchr(r->at, '\\', len) != NULL)
        return false;
    *string = (bft_slice){r->at, len};
    r->at = quote + 1;
    return true;
}

/* A number, true, false or null. */
static bool take_word(struct reader *r)
{
    const char *start = r->at;

    while (r->at != r->end && strchr("+-.0123456789eEtrufalsn", *r->at) &&
           *r->at != '\0')
        r->at++;
    return r->at != start;
}

bool bftn_long_string_find(bft_slice json, struct bftn_long_string *found)
{
    struct reader r = {json.data, NULL};

    if (json.len < BFTN_LONG_STRING)
        return false;
    r.end = r.at + json.len;
    if (!take(&r, '{'))
        return false;
    do {
        bft_slice value;

        if (!take_string(&r, &found->key) || !take(&r, ':'))
            return false;
        if (r.at == r.end)
            return false;
        if (*r.at != '"') {
            if (!take_word(&r))
                return false;
            continue;
        }
        if (!take_string(&r, &value))
            return false;
        if (value.len >= BFTN_LONG_STRING) {
            found->string = value;
            /* Control characters would make it no JSON: leave them to the
             * parser. */
            return bftn_is_plain(value.data, value.len);
        }
    } while (take(&r, ','));
    return false;
}
