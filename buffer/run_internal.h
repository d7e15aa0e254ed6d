/* What run.c, run_list.c, run_build.c and minipage.c share: slots and keys. */
#ifndef BFTI_RUN_INTERNAL_H
#define BFTI_RUN_INTERNAL_H

#include "run.h"

/* The first four bytes of a key or suffix as the number that slots hold. */
static inline uint32_t bfti_head(const uint8_t *at, size_t len)
{
    uint32_t head = 0;
    if (len >= 4)
        return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 |
               (uint32_t)at[2] << 8 | at[3];
    if (len > 0)
        head |= (uint32_t)at[0] << 24;
    if (len > 1)
        head |= (uint32_t)at[1] << 16;
    if (len > 2)
        head |= (uint32_t)at[2] << 8;
    return head;
}

/*
 * Order of two byte strings whose heads are equal.  Zero padding makes "a" and
 * "a\0" share a head, but then every byte of the shorter equals the other's:
 * length alone decides unless both are longer than a head.
 */
static inline int bfti_compare_beyond_head(const uint8_t *a, size_t a_len,
                                           const uint8_t *b, size_t b_len)
{
    size_t len = a_len < b_len ? a_len : b_len;
    if (len > 4) {
        int order = memcmp(a + 4, b + 4, len - 4);
        if (order != 0)
            return order;
    }
    return (a_len > b_len) - (a_len < b_len);
}

/* memcmp that takes NULL for no bytes. */
static inline int bfti_compare_bytes(const void *a, const void *b, size_t len)
{
    return len == 0 ? 0 : memcmp(a, b, len);
}

/* The reference in a LARGE record's value. */
static inline struct bfti_large bfti_view_large(const struct bfti_view *v)
{
    struct bfti_large large;
    memcpy(&large, v->value, sizeof large);
    return large;
}

/* Length of the longest common prefix of two keys. */
size_t bfti_view_common(const struct bfti_view *a, const struct bfti_view *b);

/*
 * NEWER's record replaced OLDER's of the same key in LIST: note OLDER's large
 * value as dead, if it is one that a put brought and NEWER does not hold it.
 */
void bfti_list_supersede(struct bfti_list *list, const struct bfti_view *newer,
                         const struct bfti_view *older);

#endif
