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

    SHARE_STRIPES = 4,   /* threads that fill shared blocks at a time */
    SHARE_OPEN = 4,      /* blocks that each of them fills */
    SHARE_SMALL = 4,     /* grains: two such extents fit into a block */
    MAP_LISTS_MAX = 160, /* extents of a map besides its parts */
    MAP_LISTS_PART = MAP_LISTS_MAX / BFTI_MAP_PLACES,
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
    struct space_shares *shares;  /* NULL: no block of it was shared */
    unsigned low;                 /* no free block below this one */
    unsigned run_bound;           /* no free run is longer */
};

/*
 * Of a chunk's blocks those that extents share, a bit for each grain.  A block
 * that is used, but no grain of which is here, belongs to one extent as a
 * whole. A shared block is used while a grain of it is, in the image while one
 * is, and held when all that are used are.
 */
struct space_shares {
    uint8_t used[CHUNK_BLOCKS];
    uint8_t image[CHUNK_BLOCKS];
    uint8_t held[CHUNK_BLOCKS];
    uint64_t sparse[CHUNK_WORDS]; /* what lives in it is to go elsewhere */
    uint8_t *audit;               /* as the chunk's */
    unsigned count;               /* blocks */
};

/* A shared block that takes more extents, from the front on.  Its bytes are
 * those of its stripe. */
struct open_block {
    uint64_t block; /* 0: none */
    unsigned filled;
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
    uint64_t old[BFTI_MAP_PLACES + MAP_LISTS_MAX];
    uint64_t fresh[BFTI_MAP_PLACES + MAP_LISTS_MAX];
    size_t old_count, fresh_count;
    size_t parts; /* so many of FRESH, in front of its lists */
};

struct bfti_space {
    struct bfti_mutex lock; /* all below; never held across I/O */
    bool ready;             /* after _load or _reset */
    bool running;           /* between cut and finish or abandon */
    bool aside_lost;        /* until then the image has no map, or had it */
    uint64_t epoch;         /* cuts so far */
    struct space_checkpoint on_disk[2]; /* [0] the older */
    bool holding;                       /* ... and HOLD counts like them */
    struct space_checkpoint hold;
    uint64_t kept_grains; /* that the last release left for HOLD alone */

    struct space_chunk **chunk;
    size_t chunk_count, chunk_cap;
    uint64_t limit; /* allocation stays below this block */
    size_t cursor;  /* chunk where allocation goes on */
    _Atomic uint64_t
        ceiling; /* what lives above this block is to go; 0: none */
    uint64_t cleaned_end, cleaned_live; /* blocks, when the last pass began */
    unsigned cleaned_times;             /* passes since these were others */
    unsigned sparse_grains; /* that live in a block, at most: it is sparse */
    uint64_t clean_end;     /* a pass goes up to there */
    uint64_t used_blocks, held_blocks;
    uint64_t used_grains, held_grains; /* eight in a block that is not shared */
    struct open_block open[SHARE_STRIPES][SHARE_OPEN];
    unsigned small_seen;   /* extents that may fill what a longer one leaves */
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
    uint64_t lists[MAP_LISTS_MAX]; /* of the newest image's map */
    size_t list_count;
    bool auditing;

    /* A release cuts the file off here: nobody may allocate beyond the limit
     * until it is done, and who must waits for the word to go back to 0. */
    _Atomic uint32_t truncating;
    struct bfti_mutex release_lock; /* one release at a time; before LOCK */

    /* Copies of what the lock guards, as it was when it was last let go of. */
    _Atomic uint64_t live_seen, waiting_seen; /* grains */
    _Atomic uint64_t released;                /* sweeps so far.  [released] */
};

/* What one thread at a time fills shared blocks with. */
struct share_stripe {
    struct bfti_mutex lock; /* held across a write; before the space lock */
    uint8_t *bytes; /* of SHARE_OPEN blocks; NULL before the first use */
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
    const char *(*path_of)(void *ctx, uint64_t block, uint64_t blocks);
    void *path_of_ctx;
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

    struct share_stripe stripe[SHARE_STRIPES];
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

/* Grains that an extent of so many bytes takes. */
static inline unsigned grains_of(size_t bytes)
{
    return (unsigned)((bytes + BFTI_GRAIN - 1) / BFTI_GRAIN);
}

/* A bit for each grain of its block that PLACE has: it lies in one. */
static inline uint8_t place_mask(uint64_t place)
{
    return (uint8_t)(((1u << bfti_disk_grains(place)) - 1)
                     << bfti_disk_grain(place) % BLOCK_GRAINS);
}

/* Is PLACE a possible one, whatever lies there?  Grains of the superblocks are
 * not, nor one within a block that goes on in the next. */
bool bfti_place_valid(uint64_t place);

/* --- extent.c --- */

/* The file to name that has the GRAINS grains from GRAIN on. */
const char *bfti_extent_path(const struct bfti_pagefile *pf, uint64_t grain,
                             uint64_t grains);

/* Free buffers and contexts of the pool, at close. */
void bfti_extent_pool_free(struct bfti_pagefile *pf);
/* Put one full-size buffer into the pool, at open. */
BFT_MUST_CHECK bft_status bfti_extent_pool_fill(struct bfti_pagefile *pf);

/* bfti_extent_write into blocks that the caller has allocated, plain. */
BFT_MUST_CHECK bft_status
bfti_extent_write_at(struct bfti_pagefile *pf, uint64_t block,
                     const struct bfti_extent_info *info, const void *raw,
                     size_t raw_len, uint64_t *place);

/* Is the extent that starts at GRAIN, of which AT holds the first LEN bytes (a
 * grain at least), whole and its checksum right?  *STORED: bytes that it has;
 * when they are more than LEN, nothing but its header was looked at. */
BFT_MUST_CHECK bft_status bfti_extent_judge(const struct bfti_pagefile *pf,
                                            uint64_t grain, const uint8_t *at,
                                            size_t len, size_t *stored);

/* --- extent_shared.c --- */

/* Write an extent of GRAINS grains, fewer than a block, into a block that
 * others are in or may come to.  BYTES: it and zeros up to the end of a block.
 * *GRAIN: where it begins; 0: it is to have a block of its own, and nothing was
 * done. */
BFT_MUST_CHECK bft_status bfti_share_write(struct bfti_pagefile *pf,
                                           const uint8_t *bytes,
                                           unsigned grains, uint64_t *grain);
/* No write that begins from here on goes to a block that has an extent from
 * before, and none that has begun is under way. */
void bfti_share_settle(struct bfti_pagefile *pf);
void bfti_share_end(struct bfti_pagefile *pf);

/* --- space_lists.c --- */

/* The lists of a part of the map, read one by one: which blocks of the image
 * are shared, and the grains of them that it reaches. */
struct share_reader {
    struct bfti_pagefile *pf;
    size_t part;
    uint64_t list[MAP_LISTS_PART];
    size_t count, next;
    uint64_t chunk_end; /* beyond those that there may be */
    uint64_t at_chunk;  /* the last that was given, plus one */
    struct bfti_scratch scratch;
    const uint8_t *at, *end;
};
/* What is said of a chunk: a bit for each block that is shared, and for each of
 * these a byte. */
struct share_record {
    uint64_t chunk; /* UINT64_MAX: there is no other one */
    uint64_t words[CHUNK_WORDS];
    const uint8_t *masks;
};
/* The next record, in the order of the file.  Ends when there are no bytes
 * left. */
BFT_MUST_CHECK bft_status bfti_share_read(struct share_reader *reader,
                                          struct share_record *record);
/* How many lists the part of the image that has the chunks from FIRST to END
 * needs, and the bytes of each. */
size_t bfti_share_measure(const struct bfti_space *space, size_t first,
                          size_t end, size_t bytes[MAP_LISTS_PART]);
/* Fill the N lists, one behind the other at AT. */
void bfti_share_fill(const struct bfti_space *space, size_t first, size_t end,
                     uint8_t *at);
enum {
    SHARE_LIST_ID = 1 << 16
}; /* times its number: page id, with the part's */

/* --- space_map.c --- */

/* Of a longer file a map cannot tell. */
uint64_t bfti_map_blocks_max(void);

/* Part PART of the map, or one of its lists, at PLACE is damaged:
 * BFT_CORRUPT. */
bft_status bfti_map_corrupt(const struct bfti_pagefile *pf, uint64_t place,
                            size_t part, const char *what)
    __attribute__((cold));
/* STATUS, with a text that says which part of the map it was. */
bft_status bfti_map_in(bft_status status, size_t part);

/* Part I of the COUNT extents of a map; *FIRST is the block that its first word
 * is about, *WORDS (little-endian) belong to SCRATCH.  *BLOCKS, that all parts
 * describe, is set by part 0 and compared by the others.  LISTS, zeros or of
 * the part before, is to be read from then on; the caller frees its scratch. */
BFT_MUST_CHECK bft_status bfti_map_part_read(
    struct bfti_pagefile *pf, uint64_t place, size_t i, size_t count,
    uint64_t *blocks, struct bfti_scratch *scratch, uint64_t *first,
    const uint8_t **words, size_t *word_count, struct share_reader *lists);

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
/* Give back a private extent. */
void bfti_space_give_place_locked(struct bfti_pagefile *pf, uint64_t place);
/* Free what an extent that was in a held list has. */
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
/* Room for one more private extent to be kept aside, and for EXTRA changes. */
BFT_MUST_CHECK bft_status bfti_space_aside_locked(struct bfti_pagefile *pf,
                                                  size_t extra);

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

/* --- space_share.c: the space lock is held --- */

/* Is BLOCK, which is below the limit, shared? */
static inline bool block_is_shared(const struct bfti_space *space,
                                   uint64_t block)
{
    const struct space_shares *shares = space_chunk_of(space, block)->shares;
    return shares != NULL && shares->used[block % CHUNK_BLOCKS] != 0;
}
/* Does the extent at PLACE, in use, share a block? */
static inline bool place_is_shared(const struct bfti_space *space,
                                   uint64_t place)
{
    return block_is_shared(space, place_block(place));
}
/* What PLACE, in use, counts as. */
static inline unsigned place_counts(const struct bfti_space *space,
                                    uint64_t place)
{
    return place_is_shared(space, place) ? bfti_disk_grains(place)
                                         : place_blocks(place) * BLOCK_GRAINS;
}

/* Where an extent goes that shares a block. */
struct share_spot {
    uint64_t block; /* 0: it is to have one of its own */
    unsigned first; /* grain of the block */
    unsigned open;  /* of the stripe's; SHARE_OPEN: nothing else comes to it */
};
BFT_MUST_CHECK bft_status bfti_share_alloc_locked(struct bfti_pagefile *pf,
                                                  unsigned stripe,
                                                  unsigned grains,
                                                  struct share_spot *spot);
/* The grains MASK of BLOCK, which is used, are; from now on it is shared.
 * False: there is no memory for that. */
bool bfti_share_take_locked(struct bfti_pagefile *pf, uint64_t block,
                            uint8_t mask);
/* The grains MASK of the shared BLOCK, which may be HELD, are free. */
void bfti_share_give_locked(struct bfti_space *space, uint64_t block,
                            uint8_t mask);
void bfti_share_hold_locked(struct bfti_space *space, uint64_t place);
void bfti_share_image_locked(struct bfti_space *space, uint64_t place,
                             bool value);
/* Are all grains of PLACE, of fewer than eight, used, and none held? */
bool bfti_share_lives_locked(const struct bfti_space *space, uint64_t place);
/* No block takes any more extents; or BLOCK does not. */
void bfti_share_close_locked(struct bfti_space *space);
void bfti_share_close_one_locked(struct bfti_space *space, uint64_t block);
bool bfti_share_is_open_locked(const struct bfti_space *space, uint64_t block);
/* Free what is kept of chunks none of whose blocks is shared any more. */
void bfti_share_trim_locked(struct bfti_pagefile *pf);
void bfti_share_free(struct bfti_pagefile *pf, struct space_chunk *chunk);

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
