/*
 * The page file: variable-size extents, each written once, out of place and
 * with a checksum, and the space they take.  Knows nothing of keys.
 *
 * A place on disk is 64 bits: tag 2 (BFTI_TAG_DISK), grain number (36 bits,
 * 512 B each), length in grains (10 bits), seal (16 bits of the checksum).
 */
#ifndef BFTI_PAGEFILE_H
#define BFTI_PAGEFILE_H

#include "endian.h"
#include "env.h"
#include "vfs.h"

enum {
    BFTI_GRAIN = 512,
    BFTI_BLOCK = 4096,             /* the unit of reuse */
    BFTI_EXTENT_GRAINS_MAX = 1016, /* 127 blocks */
    BFTI_EXTENT_HEADER = 40,
};
#define BFTI_EXTENT_RAW_MAX \
    ((size_t)BFTI_EXTENT_GRAINS_MAX * BFTI_GRAIN - BFTI_EXTENT_HEADER)

/* Tags of a place word (bits 62 and 63).  An extent's place has tag 2; buffer/
 * gives the others a meaning. */
#define BFTI_TAG_SHIFT  62
#define BFTI_TAG_NONE   0u
#define BFTI_TAG_MEMORY 1u
#define BFTI_TAG_DISK   2u
#define BFTI_TAG_DELTA  3u

static inline unsigned bfti_place_tag(uint64_t place)
{
    return (unsigned)(place >> BFTI_TAG_SHIFT);
}
static inline uint64_t bfti_disk_place(uint64_t grain, unsigned grains,
                                       unsigned seal)
{
    return (uint64_t)BFTI_TAG_DISK << BFTI_TAG_SHIFT | grain << 26 |
           (uint64_t)grains << 16 | seal;
}
static inline uint64_t bfti_disk_grain(uint64_t place)
{
    return place >> 26 & 0xfffffffffu;
}
static inline unsigned bfti_disk_grains(uint64_t place)
{
    return (unsigned)(place >> 16 & 0x3ff);
}
static inline unsigned bfti_disk_seal(uint64_t place)
{
    return (unsigned)(place & 0xffff);
}

enum bfti_extent_type {
    BFTI_EXTENT_LEAF = 1,  /* a whole leaf: base page */
    BFTI_EXTENT_DELTA = 2, /* changes of a leaf; names what lies beneath */
    BFTI_EXTENT_INNER = 3, /* an inner node of a tree */
    BFTI_EXTENT_TABLE = 4, /* a part of the page table */
    BFTI_EXTENT_CATALOGUE = 5,
    BFTI_EXTENT_MAP = 6,        /* free-space map */
    BFTI_EXTENT_VALUE = 7,      /* bytes of a large value */
    BFTI_EXTENT_VALUE_LIST = 8, /* places of a large value's extents */
    BFTI_EXTENT_DICTIONARY =
        9, /* of zstd, for leaves of its tree; its number is
                                   the page id */
};

/* Extent header, format 1: the first 40 bytes of every extent. */
struct bfti_extent_header {
    le32 checksum;   /*  0  crc32c of the extent from byte 4 to stored_len */
    uint8_t type;    /*  4  enum bfti_extent_type */
    uint8_t codec;   /*  5  0 plain, 1 zstd */
    le16 dictionary; /*  6  number of the tree's dictionary, 0: none */
    le32 stored_len; /*  8  bytes in the file, header included */
    le32 raw_len;    /* 12  payload bytes once decompressed */
    le64 page_id;    /* 16  catches a write that went to the wrong place */
    le64 lsn;        /* 24  the log is durable past it before a superblock is */
    le32 tree_id;    /* 32 */
    le32 reserved;   /* 36  0 */
};
_Static_assert(sizeof(struct bfti_extent_header) == BFTI_EXTENT_HEADER,
               "format 1");

/* What the header says, for writers and readers. */
struct bfti_extent_info {
    enum bfti_extent_type type;
    uint32_t tree_id;
    uint64_t page_id;
    uint64_t lsn;
};

/* Growable read buffer, one per reader; zero-initialised, freed by _free. */
struct bfti_scratch {
    void *stored;
    size_t stored_cap;
    void *raw;
    size_t raw_cap;
    _Atomic size_t *held; /* where its memory is counted, or NULL */
};
void bfti_scratch_free(const struct bfti_env *env, struct bfti_scratch *s);

struct bfti_pagefile;

struct bfti_pagefile_options {
    const struct bfti_env *env;
    struct bfti_vfs *vfs;
    const char *path; /* of the file; copied */
    bool create;
    bool read_only; /* it is opened so; not with CREATE */
    bool compress;  /* zstd where it saves space */
    uint64_t
        memory_bytes; /* a 16th of it is for dictionaries; 0: none is made */
    /* Called with N places that are about to be reused; clears (sets to 0) in
     * PLACES each one that no reader names any more and leaves the others.
     * NULL: nobody names places. */
    void (*unnamed)(void *ctx, uint64_t *places, size_t n);
    void *unnamed_ctx;
    /* Of a page file that several files make: what a text about the BLOCKS blocks
     * from BLOCK on names, valid until the next call.  NULL: PATH.  One thread. */
    const char *(*path_of)(void *ctx, uint64_t block, uint64_t blocks);
    void *path_of_ctx;
};

/* Open the file; its space is unknown until bfti_space_load or _reset. */
BFT_MUST_CHECK bft_status bfti_pagefile_open(
    const struct bfti_pagefile_options *options, struct bfti_pagefile **out);
void bfti_pagefile_close(struct bfti_pagefile *pf);
BFT_MUST_CHECK bft_status bfti_pagefile_sync(struct bfti_pagefile *pf);
/* A sync has failed: nothing that was written since the one before it is
 * certain, and no other one is tried. */
bool bfti_pagefile_poisoned(const struct bfti_pagefile *pf);
struct bfti_file *bfti_pagefile_file(struct bfti_pagefile *pf);
/* What is kept about its space comes from ENV, which outlives it.  Before _load
 * and _reset. */
void bfti_pagefile_set_heap(struct bfti_pagefile *pf,
                            const struct bfti_env *env);

/*
 * Write RAW as one extent into free space and give its place.  The extent is
 * private to the caller until linked; give it back by bfti_extent_discard.
 * Threads: any number.  Takes the space lock briefly, not across I/O.
 * Errors:  BFT_NO_SPACE, BFT_IO, BFT_TOO_BIG (raw_len over the limit).
 */
BFT_MUST_CHECK bft_status bfti_extent_write(struct bfti_pagefile *pf,
                                            const struct bfti_extent_info *info,
                                            const void *raw, size_t raw_len,
                                            uint64_t *place);
/* The same into blocks of its own, as the log may name it. */
BFT_MUST_CHECK bft_status bfti_extent_write_alone(
    struct bfti_pagefile *pf, const struct bfti_extent_info *info,
    const void *raw, size_t raw_len, uint64_t *place);

/* One of several extents that are written together. */
struct bfti_extent_source {
    struct bfti_extent_info info;
    const void *raw;
    size_t raw_len;
    uint64_t place; /* out */
};
/*
 * Write N extents, of at most BFTI_EXTENT_GRAINS_MAX together when each counts
 * with whole blocks: side by side in their order and by one call where there is
 * such a run of free space, else one by one.  They are private and set apart (see
 * bfti_extent_set_apart).  All of them or, on failure, none.
 * Threads, errors: as bfti_extent_write.
 */
BFT_MUST_CHECK bft_status bfti_extent_write_apart(
    struct bfti_pagefile *pf, struct bfti_extent_source *extents, size_t n);

/*
 * Read the extent at PLACE.  *RAW points into SCRATCH until its next use.
 * Checks bounds, seal, checksum and lengths: BFT_CORRUPT names path, offset
 * and what is wrong.  The caller has named PLACE in a hazard slot.
 */
BFT_MUST_CHECK bft_status bfti_extent_read(struct bfti_pagefile *pf,
                                           uint64_t place,
                                           struct bfti_scratch *scratch,
                                           struct bfti_extent_info *info,
                                           const void **raw, size_t *raw_len);

/* The same of one that has to be of TYPE: else BFT_CORRUPT. */
BFT_MUST_CHECK bft_status bfti_extent_read_as(
    struct bfti_pagefile *pf, uint64_t place, enum bfti_extent_type type,
    struct bfti_scratch *scratch, struct bfti_extent_info *info,
    const void **raw, size_t *raw_len);

/* Bytes of a buffer for the extent at PLACE, as it is stored. */
static inline size_t bfti_extent_stored_max(uint64_t place)
{
    return (size_t)bfti_disk_grains(place) * BFTI_GRAIN;
}

/* One of several extents whose bytes are read together. */
struct bfti_fetch {
    uint64_t place;
    void *stored;      /* bfti_extent_stored_max(place) bytes, the caller's */
    bft_status status; /* out; the text is that of the last that failed */
};
/*
 * Read the bytes of N extents: handed to the backend together, waited for once
 * where it works on several at a time, else announced and read in turn.  Each has
 * its own status, as bfti_extent_read of the reading itself; the bytes are not
 * looked at, which is bfti_extent_open's.
 * Memory:  allocates nothing but what a backend needs for the first time.
 * Threads: any number.  A place need not be named, if bfti_space_released says
 *          afterwards that it was in use all the time.
 */
void bfti_extents_fetch(struct bfti_pagefile *pf, struct bfti_fetch *fetch,
                        size_t n);
/* Would the calling thread wait once for several, and not for each in turn? */
bool bfti_extents_overlap(struct bfti_pagefile *pf);
/*
 * BFT_CORRUPT, with a text that names the file and the extent at PLACE: WHAT is
 * wrong with it, or, with WHAT NULL, what this thread's text says.  For those
 * who look into extents; that they are whole is found here.
 */
bft_status bfti_extent_wrong(const struct bfti_pagefile *pf, uint64_t place,
                             const char *what) __attribute__((cold));
#ifdef __clang_analyzer__
#define bfti_extent_wrong(pf, place, what) \
    ((void)(bfti_extent_wrong)(pf, place, what), BFT_CORRUPT)
#endif

/* As bfti_extent_read, of bytes that are there already: *RAW points into STORED,
 * or, decompressed, into SCRATCH. */
BFT_MUST_CHECK bft_status bfti_extent_open(struct bfti_pagefile *pf,
                                           uint64_t place, const void *stored,
                                           struct bfti_scratch *scratch,
                                           struct bfti_extent_info *info,
                                           const void **raw, size_t *raw_len);

enum { BFTI_ADVISED_MAX = 128 };
/* These N extents, BFTI_ADVISED_MAX at most, will be read soon: begin to bring them,
 * where the backend can.  A hint: they need not be named, or be extents any more. */
void bfti_extents_advise(struct bfti_pagefile *pf, const uint64_t *place,
                         size_t n);

/* Looking through the whole file for extents, whoever reaches them. */
struct bfti_extent_scan {
    struct bfti_pagefile *pf;
    uint64_t grain; /* to look at next */
    uint8_t *chunk; /* bytes of the file from BASE on */
    uint64_t base;
    size_t fill;
    bool filled;
};
BFT_MUST_CHECK bft_status bfti_extent_scan_begin(struct bfti_extent_scan *scan,
                                                 struct bfti_pagefile *pf);
/* The next extent that is whole, and its *PLACE: 0 when there is none.  It may
 * be live, or one that was left and not yet written over.  Results as of
 * bfti_extent_read. */
BFT_MUST_CHECK bft_status bfti_extent_scan_next(struct bfti_extent_scan *scan,
                                                struct bfti_scratch *scratch,
                                                uint64_t *place,
                                                struct bfti_extent_info *info,
                                                const void **raw,
                                                size_t *raw_len);
void bfti_extent_scan_end(struct bfti_extent_scan *scan);

/* The whole extent that begins at GRAIN, or *PLACE 0: none does, or it is
 * damaged.  Whoever owns it may give it back meanwhile: what is found is not to be
 * trusted, only to be looked for.  Results as of bfti_extent_read. */
BFT_MUST_CHECK bft_status bfti_extent_find(struct bfti_pagefile *pf,
                                           uint64_t grain,
                                           struct bfti_scratch *scratch,
                                           uint64_t *place,
                                           struct bfti_extent_info *info);

/*
 * Space.  Every block has two bits: `used`, it may not be allocated; `image`,
 * the next checkpoint's image reaches it.  An extent is linked when a leaf's
 * in-memory state (or the image under construction) first reaches it, and
 * unlinked when the last reference in that leaf goes.  GATHERED is
 * the epoch of the checkpoint that has already taken its picture of the leaf,
 * or 0: while that one runs, the change belongs to the image after it and is
 * kept aside until _finish.
 * All calls are thread-safe; none does I/O but _release.
 */
#define BFTI_GATHERED_NOW UINT64_MAX /* by whichever checkpoint runs now */
void bfti_extent_link(struct bfti_pagefile *pf, uint64_t place,
                      uint64_t gathered);

/* LSN: a position in the last frame that may name it; the blocks are reused only
 * when redo of either superblock starts above it (0: no log frame names it). */
BFT_MUST_CHECK bft_status bfti_extent_unlink(struct bfti_pagefile *pf,
                                             uint64_t place, uint64_t gathered,
                                             uint64_t lsn);
/* Never linked, never visible to anyone: the blocks are free at once. */
void bfti_extent_discard(struct bfti_pagefile *pf, uint64_t place);
/* N private extents are not linked while a checkpoint runs, or (APART false) are
 * about to be linked or discarded after all.  While they are set apart nothing is
 * reserved for them, so that there may be millions. */
void bfti_extent_set_apart(struct bfti_pagefile *pf, bool apart, size_t n);
/* Recovery: a log frame names PLACE, it must not be allocated.
 * BFT_NO_MEMORY. */
BFT_MUST_CHECK bft_status bfti_extent_reserve(struct bfti_pagefile *pf,
                                              uint64_t place);

/* A checkpoint begins: from now GATHERED has a meaning.  Returns its epoch. */
uint64_t bfti_space_cut(struct bfti_pagefile *pf);
/* The checkpoint that began at the last cut was abandoned (no superblock). */
void bfti_space_abandon(struct bfti_pagefile *pf);

/*
 * Write the free-space map of the image: all blocks that it reaches, the
 * map's own extents included.  PLACES gets up to PLACES_MAX extents, *COUNT
 * their number (BFT_TOO_BIG when there are more).  The earlier map's extents
 * are given as OLD and unlinked.
 */
BFT_MUST_CHECK bft_status bfti_space_write(struct bfti_pagefile *pf,
                                           const uint64_t *old,
                                           size_t old_count, uint64_t *places,
                                           size_t places_max, size_t *count);

/* Has the map that was written last shared blocks?  Then its superblock says
 * BFTI_FEATURE_SHARED. */
bool bfti_space_shares(struct bfti_pagefile *pf);
/* The extents of the newest image's map that no superblock names: it does
 * itself. Up to N of them, from number FROM on; gives how many. */
size_t bfti_space_lists(struct bfti_pagefile *pf, size_t from, uint64_t *places,
                        size_t n);

/* The superblock of the last cut is durable; redo from it starts at REDO_LSN.
 * Applies what was kept aside. */
void bfti_space_finish(struct bfti_pagefile *pf, uint64_t redo_lsn);
/* The other superblock is durable, too, and names the image of the last _finish:
 * what only the image before it had is not kept any more.  No checkpoint runs. */
void bfti_space_twin(struct bfti_pagefile *pf);

/* Give held blocks back that no superblock, log frame or hazard slot reaches;
 * cut free blocks off the end of the file.  Not during an audit. */
BFT_MUST_CHECK bft_status bfti_space_release(struct bfti_pagefile *pf);

/* How often releases have begun to free blocks.  What was in use after a look at
 * it lies unchanged where it lay, as long as another look gives the same: no name
 * is needed until then.  [released] */
uint64_t bfti_space_released(const struct bfti_pagefile *pf);

/*
 * Give free space inside the file back to the file system, where that can do so:
 * up to HOLES holes, while the file has half more, and 1 MiB, than what lives in
 * it.  *MORE: it was not enough.  One call at a time works, beside all others.
 * Errors:  BFT_IO.  A file system without holes, or without room, is no failure.
 */
BFT_MUST_CHECK bft_status bfti_space_punch(struct bfti_pagefile *pf,
                                           unsigned holes, bool *more);

/*
 * Cleaning: the part of the file from *FROM, a grain, on is to become free, so
 * that a release can cut it off, or there are blocks from there on of which
 * little lives: while the file has half more, and 1 MiB, than what lives in it,
 * and no copy is made of it.  False: that is not the case, or did not help.
 * What lives there the caller copies, and unlinks; until _clean_end extents are
 * written below it where there is room.  One at a time.
 */
bool bfti_space_clean_begin(struct bfti_pagefile *pf, uint64_t *from);
void bfti_space_clean_end(struct bfti_pagefile *pf);
/* The first grain from GRAIN on of a linked extent that is to go elsewhere; 0:
 * there is none.  Ask bfti_extent_find what begins there. */
uint64_t bfti_space_clean_next(struct bfti_pagefile *pf, uint64_t grain);
/* Does PLACE reach into the part that is to become free, or lie in a block that
 * little lives in? */
bool bfti_space_is_high(struct bfti_pagefile *pf, uint64_t place);

/*
 * From now on, until _unhold, nothing is reused that the image of the newest
 * superblock reaches, nor what a log frame at or above its redo start names:
 * as if that superblock stayed on disk.  So the file grows by no more than what
 * is in use now.  One at a time (asserted), and after a _finish of this handle.  No checkpoint ends between the caller's look at
 * its superblock and this call.
 */
void bfti_space_hold(struct bfti_pagefile *pf);
void bfti_space_unhold(struct bfti_pagefile *pf);

/* Start with an empty space (a new database)... */
BFT_MUST_CHECK bft_status bfti_space_reset(struct bfti_pagefile *pf);
/* ... or with the one a checkpoint wrote. */
BFT_MUST_CHECK bft_status bfti_space_load(struct bfti_pagefile *pf,
                                          const uint64_t *places, size_t count,
                                          struct bfti_scratch *scratch);

struct bfti_space_stats {
    uint64_t file_bytes;
    uint64_t
        live_bytes; /* linked or private: grains of shared blocks, and whole
                            blocks of extents of their own */
    uint64_t held_bytes; /* unlinked, not yet reusable */
    uint64_t kept_bytes; /* of these, what at the last release nothing but a
                            _hold kept */
    uint64_t hole_bytes; /* of file_bytes, given back as holes by this handle */
    uint64_t written_bytes, extents_written, extents_read, compressed_extents;
    uint64_t private_extents; /* written or reserved, not yet linked */
};
void bfti_space_stats(struct bfti_pagefile *pf, struct bfti_space_stats *out);
/* About what _stats and _waiting say, at any time and without a lock. */
void bfti_space_glance(const struct bfti_pagefile *pf, uint64_t *live_bytes,
                       uint64_t *waiting_bytes);
/* Held bytes that a checkpoint may give back: not what only a _hold keeps. */
static inline uint64_t bfti_space_waiting(const struct bfti_space_stats *stats)
{
    return stats->held_bytes > stats->kept_bytes
               ? stats->held_bytes - stats->kept_bytes
               : 0;
}

/* For verify: is every block of PLACE marked used? */
bool bfti_space_is_used(struct bfti_pagefile *pf, uint64_t place);
/* For verify: start, mark what is reachable, then count blocks that are used
 * but were not marked and are not held (leaked). */
BFT_MUST_CHECK bft_status bfti_space_audit_begin(struct bfti_pagefile *pf);
/* False: a block or a grain of PLACE was marked before (two owners). */
bool bfti_space_audit_mark(struct bfti_pagefile *pf, uint64_t place);
uint64_t bfti_space_audit_end(struct bfti_pagefile *pf);

/* --- superblocks: blocks 0 and 1 of the page file ------------------------ */

enum { BFTI_MAP_PLACES = 16, BFTI_ROOT_PLACES = 8 };

struct bfti_superblock {
    uint16_t major, minor;
    uint64_t must_know, must_know_to_write, may_ignore; /* feature words */
    uint8_t database_id[16];
    uint32_t incarnation;
    uint64_t sequence; /* checkpoint number, grows by one */
    uint64_t redo_lsn;
    uint64_t durable_mark;
    uint64_t log_segment_bytes;
    uint64_t page_ids; /* next page id never used */
    uint32_t next_tree_id;
    uint32_t map_count; /* free-space map extents */
    uint64_t map[BFTI_MAP_PLACES];
    uint32_t root_count; /* what index/ wants to find again */
    uint64_t root[BFTI_ROOT_PLACES];
};

enum { BFTI_FORMAT_MAJOR = 1, BFTI_FORMAT_MINOR = 0 };
/* Of must_know. */
#define BFTI_FEATURE_DELTA_LISTS \
    UINT64_C(1)                         /* a leaf may have several deltas */
#define BFTI_FEATURE_EXPIRY UINT64_C(2) /* records of a tree may expire */
#define BFTI_FEATURE_TOMBS \
    UINT64_C(4) /* ranges of a tree may be deleted, their records still there */
#define BFTI_FEATURE_DICTIONARIES UINT64_C(8) /* leaves may need one of zstd */
#define BFTI_FEATURE_SHARED \
    UINT64_C(16) /* extents share blocks: its map says so */

/* Each slot's verdict: OK, NOT_FOUND (never written: all zero), CORRUPT, TOO_NEW,
 * or IO, when the system refuses to read it; then, unless one is TOO_NEW, this
 * thread's text is that of the read.  When neither can be read the call fails, and
 * there are no verdicts. */
BFT_MUST_CHECK bft_status bfti_superblock_read(struct bfti_pagefile *pf,
                                               struct bfti_superblock slot[2],
                                               bft_status verdict[2]);
/* Write into slot SLOT (0 or 1) and sync the file. */
BFT_MUST_CHECK bft_status bfti_superblock_write(
    struct bfti_pagefile *pf, unsigned slot, const struct bfti_superblock *sb);

/* --- copies of an image --------------------------------------------------- */

/* What a copy has come to. */
struct bfti_image_progress {
    uint64_t copied_bytes, total_bytes;
};

struct bfti_image_copying {
    /* Called before the first extent, every 1 MiB and behind the last: what it
     * returns ends the copy, unless it is BFT_OK. */
    bft_status (*progress)(void *ctx, const struct bfti_image_progress *now);
    /* NULL: all is wanted.  Are the first *N of BLOCKS blocks, which lie at
     * BLOCK, to be written?  Called again for those behind them. */
    bft_status (*choose)(void *ctx, uint64_t block, const uint8_t *bytes,
                         unsigned blocks, unsigned *n, bool *wanted);
    void *ctx;
};

/*
 * Copy every extent of the image whose free-space map is the COUNT extents at
 * MAP, which a _hold keeps, to the same offsets of TO, another page file that
 * nobody else uses.  Reads FROM in order, in pieces of up to 1 MiB, and checks
 * each extent's checksum before it writes what HOW wants of it; syncs nothing.
 *
 * An older extent that a lost write left whole in another's place is copied as
 * it is: only whoever knows the place sees that by the seal.
 *
 * Memory:  1 MiB, and the largest extent.
 * Threads: while others use FROM.
 * Errors:  BFT_CORRUPT: an extent of FROM is damaged, or its map is.  BFT_IO,
 *          BFT_NO_SPACE, BFT_NO_MEMORY, and what HOW's functions return.
 */
BFT_MUST_CHECK bft_status bfti_image_copy(struct bfti_pagefile *from,
                                          const uint64_t *map, size_t count,
                                          struct bfti_pagefile *to,
                                          const struct bfti_image_copying *how);
/* Copy the one extent at PLACE, by its seal too. */
BFT_MUST_CHECK bft_status bfti_extent_copy(struct bfti_pagefile *from,
                                           uint64_t place,
                                           struct bfti_scratch *scratch,
                                           struct bfti_pagefile *to);

/* crc32c (Castagnoli), of LEN bytes going on from CRC (start with 0). */
uint32_t bfti_crc32c(uint32_t crc, const void *data, size_t len);

#endif
