/*
 * What the files of the page file share and nobody else sees: the page file
 * itself, its space, and the calls between extent.c, space.c, space_held.c
 * and space_map.c.
 */
#ifndef BFTI_PAGEFILE_INTERNAL_H
#define BFTI_PAGEFILE_INTERNAL_H

#include <stdatomic.h>

#include "codec_internal.h"
#include "pagefile.h"

enum {
    GROWTH_MIN = 256,   /* blocks: 1 MiB */
    GROWTH_MAX = 16384, /* 64 MiB */
    BLOCK_GRAINS = BFTI_BLOCK / BFTI_GRAIN,
    SUPERBLOCKS = 2,     /* blocks 0 and 1 are never allocated */
    CHUNK_BLOCKS = 4096, /* blocks described by one space chunk */
    CHUNK_WORDS = CHUNK_BLOCKS / 64,
    HELD_PER_NODE = 254,
};
/* 36 bits of grain number in a place word. */
#define BLOCKS_MAX ((uint64_t)1 << 33)

/* Every block of a 16 MiB stretch of the file.  An extent is allocated within
 * one chunk, never across two.  Under the space lock. */
struct space_chunk {
    uint64_t used[CHUNK_WORDS];
    uint64_t image[CHUNK_WORDS];
    uint64_t held[CHUNK_WORDS];   /* in a held list: used, no longer live */
    uint64_t young[CHUNK_WORDS];  /* see YOUNG_EPOCH */
    uint64_t copied[CHUNK_WORDS]; /* used since before the hold began; what a
                                     copy is made of lies among these */
    uint64_t hole[CHUNK_WORDS];   /* free, and given back to the file system */
    uint64_t young_epoch;         /* the young bits count only in this epoch */
    uint64_t *audit;              /* verify's marks; NULL when none runs */
    unsigned low;                 /* no free block below this one */
    unsigned run_bound;           /* no free run is longer */
};

/* Unlinked extents that may still be reached; there may be as many as the file
 * has leaves, so each is no more than its place. */
struct held_node {
    struct held_node *next;
    uint64_t epoch; /* cuts before they were unlinked */
    uint64_t lsn;   /* no log frame from it on names one */
    unsigned count;
    uint64_t place[HELD_PER_NODE];
};
/* Oldest first, and so in order of epoch. */
struct held_list {
    struct held_node *head, *tail;
};

/* A change to the image after the one that is being written. */
struct space_aside {
    uint64_t place;
    bool link;
};

/* A checkpoint that a superblock names. */
struct space_checkpoint {
    uint64_t cut; /* its number; 0: of before this handle */
    uint64_t redo_lsn;
};

/* The map written for the running checkpoint, until its fate is known. */
struct space_new_map {
    struct held_node *node; /* room to hold either list without allocating */
    uint64_t old[BFTI_MAP_PLACES], fresh[BFTI_MAP_PLACES];
    size_t old_count, fresh_count;
};

struct bfti_space {
    struct bfti_mutex lock; /* all below; never held across I/O */
    bool ready;             /* after _load or _reset */
    bool running;           /* between cut and finish or abandon */
    bool aside_lost;        /* the image is no longer known: no more maps */
    uint64_t epoch;         /* cuts so far */
    struct space_checkpoint on_disk[2]; /* [0] the older */
    bool holding;                       /* ... and HOLD counts like them */
    struct space_checkpoint hold;
    uint64_t kept_blocks; /* that the last release left for HOLD alone */

    struct space_chunk **chunk;
    size_t chunk_count, chunk_cap;
    uint64_t limit; /* allocation stays below this block */
    size_t cursor;  /* chunk where allocation goes on */
    _Atomic uint64_t
        ceiling; /* what lives above this block is to go; 0: none */
    uint64_t cleaned_end, cleaned_live; /* blocks, when the last pass began */
    unsigned cleaned_times;             /* passes since these were others */
    uint64_t used_blocks, held_blocks;
    uint64_t growth;       /* blocks that the next growth adds */
    uint64_t hole_blocks;  /* that we know of: made since the file was opened */
    uint64_t hole_floor;   /* blocks; fixed after open, but for tests */
    _Atomic bool no_holes; /* the file system has none */

    struct space_aside *aside;
    size_t aside_count, aside_cap;
    size_t private_count; /* extents that may yet be linked: each has room
                           * in ASIDE, so that linking cannot fail */
    size_t apart_count;   /* those that are linked while no checkpoint runs, and
                           * so need no such room */

    struct held_list quick;    /* never in an image: only readers count */
    struct held_list replaced; /* by a checkpoint, while it ran: its image has
                                  them not, so they count as unlinked before it */
    struct held_list waiting;  /* for superblocks too */
    struct held_list logged;   /* and for the log */
    struct space_new_map map;
    bool auditing;

    /* A release cuts the file off here: nobody may allocate beyond the limit
     * until it is done, and who must waits for the word to go back to 0. */
    _Atomic uint32_t truncating;
    struct bfti_mutex release_lock; /* one release at a time; before LOCK */

    /* Copies of what the lock guards, as it was when it was last let go of. */
    _Atomic uint64_t live_seen, waiting_seen; /* blocks */
    _Atomic uint64_t released;                /* sweeps so far.  [released] */
};

struct write_buffer;
struct zstd_reader;

struct bfti_pagefile {
    const struct bfti_env *env; /* fixed after open, like all up to FILE */
    const struct bfti_env *space_env; /* for what says which blocks are used */
    struct bfti_vfs *vfs;
    char *path;
    bool compress;
    void (*unnamed)(void *ctx, uint64_t *places, size_t n);
    void *unnamed_ctx;
    struct bfti_file *file;

    /* One sync at a time: the system reports a lost write to one of several
     * callers only, and the others would take their success for true. */
    struct bfti_mutex sync_lock;
    _Atomic bool sync_failed;

    struct bfti_mutex pool_lock; /* the two free lists below */
    struct write_buffer *buffers;
    unsigned buffer_count;
    struct zstd_reader *readers;
    unsigned reader_count;

    /* Blocks that the file may have: no extent lies above.  Raised under the
     * space lock before the write, lowered by a release. */
    _Atomic uint64_t end;
    _Atomic uint64_t written_bytes, extents_written, extents_read,
        compressed_extents;

    struct bfti_codecs codecs;
    struct bfti_space space;
};

static inline uint64_t place_block(uint64_t place)
{
    return bfti_disk_grain(place) / BLOCK_GRAINS;
}

/* Blocks that the extent at PLACE occupies, also when it fills the last one
 * in part. */
static inline unsigned place_blocks(uint64_t place)
{
    return (bfti_disk_grains(place) + BLOCK_GRAINS - 1) / BLOCK_GRAINS;
}

/* Is PLACE a possible one, whatever lies there?  Grains of the superblocks
 * and runs that would share a block with another extent are not. */
bool bfti_place_valid(uint64_t place);

/* --- extent.c --- */

/* Free buffers and contexts of the pool, at close. */
void bfti_extent_pool_free(struct bfti_pagefile *pf);
/* Put one full-size buffer into the pool, at open. */
BFT_MUST_CHECK bft_status bfti_extent_pool_fill(struct bfti_pagefile *pf);

/* bfti_extent_write into blocks that the caller has allocated, plain. */
BFT_MUST_CHECK bft_status
bfti_extent_write_at(struct bfti_pagefile *pf, uint64_t block,
                     const struct bfti_extent_info *info, const void *raw,
                     size_t raw_len, uint64_t *place);

/* Is the extent that starts at BLOCK, of which AT holds the first LEN bytes (a
 * block at least), whole and its checksum right?  *STORED: bytes that it has;
 * when they are more than LEN, nothing but its header was looked at. */
BFT_MUST_CHECK bft_status bfti_extent_judge(const struct bfti_pagefile *pf,
                                            uint64_t block, const uint8_t *at,
                                            size_t len, size_t *stored);

/* --- space_map.c --- */

/* Part I of the COUNT extents of a map; *FIRST is the block that its first
 * word is about, *WORDS (little-endian) belong to SCRATCH.  *BLOCKS, that all
 * parts describe, is set by part 0 and compared by the others. */
BFT_MUST_CHECK bft_status
bfti_map_part_read(struct bfti_pagefile *pf, uint64_t place, size_t i,
                   size_t count, uint64_t *blocks, struct bfti_scratch *scratch,
                   uint64_t *first, const uint8_t **words, size_t *word_count);

/* --- space.c: names that end in _locked want the space lock held --- */

void bfti_space_lock(struct bfti_pagefile *pf);
void bfti_space_unlock(struct bfti_pagefile *pf);

/* Find N free blocks side by side and mark them used; they count as one
 * private extent.  BFT_NO_SPACE, BFT_NO_MEMORY.  May let go of the lock and
 * take it again while a release cuts the file. */
BFT_MUST_CHECK bft_status bfti_space_alloc_locked(struct bfti_pagefile *pf,
                                                  unsigned n, uint64_t *block);
void bfti_space_give_locked(struct bfti_pagefile *pf, uint64_t block,
                            unsigned n);
/* Is every block of PLACE in use, and none in a held list? */
bool bfti_space_live_locked(const struct bfti_space *space, uint64_t place);
/* Free the blocks of an extent that was in a held list. */
void bfti_space_free_held_locked(struct bfti_pagefile *pf, uint64_t place);
/* Make chunks for all blocks below END. */
BFT_MUST_CHECK bft_status bfti_space_cover_locked(struct bfti_pagefile *pf,
                                                  uint64_t end);
/* Take all blocks from END on out of use; none of them is used. */
void bfti_space_shrink_locked(struct bfti_pagefile *pf, uint64_t end);
void bfti_space_set_image_locked(struct bfti_space *space, uint64_t place,
                                 bool value);
void bfti_space_set_used_locked(struct bfti_space *space, uint64_t block,
                                unsigned n);
/* N blocks that nobody reaches any more are free. */
void bfti_space_blocks_free_locked(struct bfti_space *space, uint64_t block,
                                   unsigned n);
/* Forget everything; the space is as after open. */
void bfti_space_clear(struct bfti_pagefile *pf);

static inline struct space_chunk *space_chunk_of(const struct bfti_space *space,
                                                 uint64_t block)
{
    return space->chunk[block / CHUNK_BLOCKS];
}

static inline bool bit_get(const uint64_t *words, uint64_t block)
{
    unsigned bit = (unsigned)(block % CHUNK_BLOCKS);
    return (words[bit / 64] >> (bit % 64) & 1) != 0;
}

static inline void bit_put(uint64_t *words, uint64_t block, bool value)
{
    unsigned bit = (unsigned)(block % CHUNK_BLOCKS);
    uint64_t mask = (uint64_t)1 << (bit % 64);
    words[bit / 64] = value ? words[bit / 64] | mask : words[bit / 64] & ~mask;
}

/* --- space_held.c --- */

/* Append PLACE, unlinked after EPOCH cuts; its blocks count as held from then
 * on.  LSN: no log frame from there on names it. */
void bfti_held_push_locked(struct bfti_pagefile *pf, struct held_list *list,
                           uint64_t place, uint64_t epoch, uint64_t lsn);
/* Append NODE with the COUNT places. */
void bfti_held_push_node_locked(struct bfti_pagefile *pf,
                                struct held_list *list, struct held_node *node,
                                uint64_t epoch, const uint64_t *places,
                                size_t count);
void bfti_held_free(struct bfti_pagefile *pf, struct held_list *list);

/* --- crc32c.c --- */

/* The form of bfti_crc32c for processors without an instruction for it; its
 * own name lets a test compare the two. */
uint32_t bfti_crc32c_table(uint32_t crc, const void *data, size_t len);

#endif
