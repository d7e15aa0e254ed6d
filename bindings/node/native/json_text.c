/* See json_text.h. */
#include "json_text.h"

#include <stdlib.h>
#include <string.h>

enum { ROOM_MIN = 1024, NUMBER_MAX = 20 };

void bftn_text_reset(struct bftn_text *text, size_t keep)
{
    if (text->room > keep)
        bftn_text_free(text);
    text->len = 0;
    text->failed = false;
}

void bftn_text_free(struct bftn_text *text)
{
    free(text->bytes);
    *text = (struct bftn_text){0};
}

/* LEN more bytes at the end, or NULL. */
static char *text_room(struct bftn_text *text, size_t len)
{
    char *at;

    if (text->failed)
        return NULL;
    if (len > text->room - text->len) {
        size_t room = text->room < ROOM_MIN ? ROOM_MIN : text->room;
        char *bytes;

        while (room - text->len < len) {
            if (room > SIZE_MAX / 2) {
                text->failed = true;
                return NULL;
            }
            room *= 2;
        }
        bytes = realloc(text->bytes, room);
        if (bytes == NULL) {
            text->failed = true;
            return NULL;
        }
        text->bytes = bytes;
        text->room = room;
    }
    at = text->bytes + text->len;
    text->len += len;
    return at;
}

void bftn_text_add(struct bftn_text *text, const void *bytes, size_t len)
{
    char *at = text_room(text, len);

    if (at != NULL && len != 0)
        memcpy(at, bytes, len);
}

void bftn_text_put(struct bftn_text *text, const char *literal)
{
    bftn_text_add(text, literal, strlen(literal));
}

void bftn_text_number(struct bftn_text *text, uint64_t number)
{
    char digits[NUMBER_MAX];
    size_t at = sizeof(digits);

    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number != 0);
    bftn_text_add(text, digits + at, sizeof(digits) - at);
}

static bool needs_escape(unsigned char byte)
{
    return byte < 0x20 || byte == '"' || byte == '\\';
}

static void escaped(struct bftn_text *text, unsigned char byte)
{
    static const char hex[] = "0123456789abcdef";
    const char simple[] = {'\\', (const char)byte};
    const char code[] = {'\\', 'u', '0', '0', hex[byte >> 4], hex[byte & 15]};

    if (byte == '"' || byte == '\\')
        bftn_text_add(text, simple, sizeof(simple));
    else
        bftn_text_add(text, code, sizeof(code));
}

void bftn_text_string(struct bftn_text *text, const void *bytes, size_t len)
{
    const unsigned char *from = bytes;
    size_t start = 0;

    bftn_text_put(text, "\"");
    for (size_t i = 0; i < len; i++) {
        if (!needs_escape(from[i]))
            continue;
        bftn_text_add(text, from + start, i - start);
        escaped(text, from[i]);
        start = i + 1;
    }
    if (start < len)
        bftn_text_add(text, from + start, len - start);
    bftn_text_put(text, "\"");
}

void bftn_text_comma(struct bftn_text *text)
{
    const char *last;

    if (text->len == 0)
        return;
    last = text->bytes + text->len - 1;
    if (*last != '[' && *last != '{')
        bftn_text_put(text, ",");
}

void bftn_text_key(struct bftn_text *text, const char *key)
{
    bftn_text_comma(text);
    bftn_text_put(text, "\"");
    bftn_text_put(text, key);
    bftn_text_put(text, "\":");
}

void bftn_text_member(struct bftn_text *text, const char *key, uint64_t number)
{
    bftn_text_key(text, key);
    bftn_text_number(text, number);
}
