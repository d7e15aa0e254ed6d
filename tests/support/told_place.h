/* What a text of BFT_CORRUPT has to say: of which file, where, and in what. */
#ifndef TEST_TOLD_PLACE_H
#define TEST_TOLD_PLACE_H

#include <stddef.h>
#include <stdint.h>

/*
 * NULL: TEXT names the page file or a segment of the log, a byte of it, and what
 * lies there: a page of a tree, an inner node, a value, a part of the image, a
 * superblock or the log.  Else what it lacks.
 */
const char *told_place_lacks(const char *text);

/* What each text has to have while one byte is damaged. */
struct told_place {
    char byte[80], part[80];
};
/* Of the byte AT of the page file DATA, LEN bytes without damage, in which trees
 * have names that begin with "t". */
void told_place_of(const uint8_t *data, size_t len, size_t at,
                   struct told_place *want);

#endif
