/* Inside fileio/: a tree's choice and dictionaries, and what extent.c asks. */
#ifndef BFTI_CODEC_INTERNAL_H
#define BFTI_CODEC_INTERNAL_H

#include <stdatomic.h>

#include "codec.h"

/* A dictionary, in memory until nobody can use it. */
struct bfti_dictionary {
    struct bfti_dictionary *older; /* fixed once it is found */
    const struct bfti_env *env;
    unsigned number;   /* in headers of the tree's extents, from 1 */
    uint32_t frame_id; /* zstd's, in each frame that it was used for */
    uint64_t place;    /* 0: of a file that is only read */
    bool named;        /* in an image */
    bool no_memory;    /* zstd was refused some */
    void *reader;      /* digested */
    void *writer; /* the same, of the newest; NULL: cannot be written with */
    size_t len;
    uint8_t raw[];
};

/* Digest RAW, to write with too if TO_WRITE.  BFT_NO_MEMORY; without a text,
 * BFT_CORRUPT.  A build without zstd only keeps it. */
BFT_MUST_CHECK bft_status bfti_dictionary_make(const struct bfti_env *env,
                                               unsigned number, const void *raw,
                                               size_t len, bool to_write,
                                               struct bfti_dictionary **out);
void bfti_dictionary_free(struct bfti_dictionary *dictionary);
size_t bfti_dictionary_bytes(const struct bfti_dictionary *dictionary);
/* Give up what writing takes; nobody writes with it any more. */
void bfti_dictionary_retire(struct bfti_dictionary *dictionary);
/* Train one of at most ROOM bytes AT from COUNT samples, one behind the other;
 * give its length, 0 when they have nothing in common. */
size_t bfti_dictionary_train(void *at, size_t room, const void *samples,
                             const size_t *lens, unsigned count);
/* The id of the dictionary that the frame AT was made with; 0: none. */
uint32_t bfti_frame_id(const void *at, size_t len);

enum {
    CODEC_BUCKETS = 64,
    CODEC_SHARE = 16, /* part of the memory budget */
    SAMPLES_MAX = 64,
};

/* What is known of one kind of a tree's extents. */
struct codec_measure {
    _Atomic uint32_t choice;  /* enum bfti_codec_choice */
    _Atomic uint32_t written; /* so far; it may begin again at 0 */
    unsigned looks;           /* under the lock, like what they came to: */
    uint64_t plain, zstd, dictionary; /* grains */
};

struct bfti_codec {
    struct bfti_codec *_Atomic next; /* in its bucket; of one that went, what it
                                        was */
    struct bfti_codec *gone; /* the one that went before it; fixed then */
    uint32_t tree_id;        /* fixed */
    struct codec_measure leaves, others;
    struct bfti_dictionary *_Atomic newest; /* [dictionary] */
    _Atomic uint32_t pins;         /* who may use one just now.  [dictionary] */
    _Atomic bool dropped;          /* [dictionary] */
    struct bfti_dictionary *left;  /* of a dropped tree, perhaps in use */
    _Atomic uint32_t count;        /* of dictionaries */
    _Atomic uint32_t collect_from; /* leaves written until samples are taken */
    unsigned attempts;             /* at a dictionary */
    _Atomic uint64_t raw_bytes, stored_bytes;
};

/* Leaves of one tree, to train a dictionary with.  Under the lock. */
struct codec_samples {
    struct bfti_codec *of; /* NULL: none are being collected */
    uint8_t *bytes;
    size_t cap, used;
    size_t len[SAMPLES_MAX];
    unsigned count;
    unsigned passed; /* of other trees, since one was added */
    bool full;
};

struct bfti_codecs {
    struct bfti_mutex lock;
    struct bfti_codec *_Atomic bucket[CODEC_BUCKETS];
    /* Of trees that went: threads have them still, and their figures count. */
    struct bfti_codec *_Atomic gone;
    struct codec_samples samples;
    _Atomic size_t bytes;
    uint64_t limit; /* of these, roughly; fixed after open */
    /* False, but for tests: dictionaries of few samples, whatever they save, also
     * for leaves of one block. */
    _Atomic bool eager;
};

struct write_buffer;

/*
 * Compress RAW into TO, of the size of a write buffer, if its tree's choice is so
 * and it saves space; give the number of bytes, 0 if not.  *DICTIONARY: the
 * number of the one it was made with, 0 for none.
 */
size_t bfti_codec_pack(struct bfti_pagefile *pf, struct write_buffer *buffer,
                       const struct bfti_extent_info *info, const void *raw,
                       size_t raw_len, void *to, unsigned *dictionary);
/* As bfti_decompress(), of what was made with dictionary NUMBER of the tree.
 * Without a text, also BFT_NOT_FOUND: there is no such, and BFT_GONE: the tree was
 * dropped. */
BFT_MUST_CHECK bft_status bfti_codec_unpack(struct bfti_pagefile *pf,
                                            uint32_t tree_id, unsigned number,
                                            void *raw, size_t raw_len,
                                            const void *at, size_t len);
void bfti_codecs_free(struct bfti_pagefile *pf);

#endif
