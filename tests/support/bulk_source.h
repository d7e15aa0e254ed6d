/* Records for bulk loads, made as they are asked for, and looked up
 * afterwards. */
#ifndef TEST_BULK_SOURCE_H
#define TEST_BULK_SOURCE_H

#include "engine_fixture.h"

enum bulk_keys {
    BULK_SHORT,  /* digits */
    BULK_RAGGED, /* and a tail of any length */
    BULK_LONG,   /* behind much that all have in common */
};
enum bulk_values {
    BULK_SMALL, /* 40 bytes */
    BULK_MIXED, /* none to 1.2 MB, some of them streamed */
};

struct bulk_source {
    uint64_t count;
    enum bulk_keys keys;
    enum bulk_values values;
    uint32_t leaf_bytes; /* of the tree: no key is too long for it */
    uint64_t bad_at;     /* the record that has the key of the one before;
                            0: none */
    uint64_t stop_at;    /* then answer STOP_WITH; 0: never */
    bft_status stop_with;
    /* Called before each record, 0.. */
    void (*each)(void *arg, uint64_t n);
    void *arg;
    /* Its own. */
    uint64_t n, at;
    uint8_t key[BFT_KEY_MAX];
    uint8_t *value;
};

/* Its NEXT, with it as CTX; from the first record on. */
void bulk_rewind(struct bulk_source *source);
bft_status bulk_next(void *ctx, bft_bulk_record *record);
void bulk_free(struct bulk_source *source);
/* Load it all, which has to succeed. */
void bulk_load(bft_tree *tree, struct bulk_source *source,
               unsigned fill_percent);
/* Try to, and return what that gives. */
bft_status bulk_try(bft_tree *tree, struct bulk_source *source);
/* How many records the tree has. */
uint64_t bulk_count(bft_tree *tree);
/* The tree has those records and no others. */
void bulk_expect(bft_tree *tree, struct bulk_source *source);

#endif
