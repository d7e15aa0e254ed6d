/*
 * A run: the records of a leaf, or of a part of it, sorted by key in one
 * contiguous image without pointers.  The same bytes serve as the sorted part
 * of a mini-page and as the payload of leaf and delta extents, so all numbers
 * are little-endian and every length is checked before use (bfti_run_check).
 *
 * Also lists: arrays of views of records in several runs, merged newest first,
 * from which new runs are built in one linear pass.
 */
#ifndef BFTI_RUN_H
#define BFTI_RUN_H

#include <assert.h>

#include "fileio/fileio.h"

/* Of a caller's key 1,024; histories of trees (index/) put a tree's number before
 * it, and what bounds a key alone has a byte more. */
enum { BFTI_KEY_MAX = 1029 };

enum bfti_op {
    BFTI_OP_PUT = 1,    /* dirty: the value, or a large value's reference */
    BFTI_OP_DELETE = 2, /* dirty: a tombstone */
    BFTI_OP_CACHED = 3, /* clean: a copy of what lies beneath */
    BFTI_OP_ABSENT = 4, /* clean: nothing lies beneath */
};
static inline bool bfti_op_is_dirty(uint8_t op)
{
    return op == BFTI_OP_PUT || op == BFTI_OP_DELETE;
}
static inline bool bfti_op_has_value(uint8_t op)
{
    return op == BFTI_OP_PUT || op == BFTI_OP_CACHED;
}

enum { BFTI_REC_LARGE = 1 }; /* flags: the value is a struct bfti_large */

/* Reference to a value outside the leaf: one VALUE extent, or, when longer
 * than one can be, a VALUE_LIST extent of le64 places of VALUE extents. */
struct bfti_large {
    le64 bytes; /* its length in the lower half; the upper half is index/'s */
    le64 place;
};
static inline uint64_t bfti_large_bytes(const struct bfti_large *large)
{
    return le64_get(large->bytes) & UINT32_MAX;
}

/*
 * Run image:
 *   struct bfti_run | slots[count] | dead[dead_count] | bytes: prefix, low
 *   fence, high fence, then key suffixes and values.
 * The prefix is common to all keys of the run and is left out of them.
 */
struct bfti_run {
    le32 bytes;      /*  0  of the whole image */
    le16 count;      /*  4  records */
    le16 dead_count; /*  6  references superseded in memory, still to unlink */
    le16 prefix_len; /*  8  */
    le16 low_len;    /* 10  0: no lower bound */
    le16 high_len;   /* 12  0: no upper bound */
    le16 flags;      /* 14  enum bfti_run_flag */
    le64 sibling;    /* 16  page id of the right neighbour, 0 none */
    le64 beneath;    /* 24  delta extents: what lies beneath, as the page
                           table's word (place.h): a base page or a delta;
                           else 0 */
    le32 tree_id;    /* 32  */
    le32 reserved;   /* 36  0 */
};
_Static_assert(sizeof(struct bfti_run) == 40, "format 1");

/* A leaf's disk content is a list: so many deltas at most, and a base page. */
enum { BFTI_DELTAS_MAX = 7 };

enum bfti_run_flag {
    BFTI_RUN_HAS_LARGE = 1
}; /* a record or dead ref is LARGE */

struct bfti_slot {
    le32 head;      /*  0  first four suffix bytes, compared as a number:
                           big-endian value of them, zero-padded */
    le16 offset;    /*  4  of the suffix from the run's start; value follows */
    le16 key_len;   /*  6  of the suffix */
    le16 value_len; /*  8  */
    uint8_t op;     /* 10 */
    uint8_t flags;  /* 11 */
};
_Static_assert(sizeof(struct bfti_slot) == 12, "format 1");

enum { BFTI_RUN_BYTES_MAX = 60 * 1024 }; /* offsets are 16 bits */

/* Is IMAGE of LEN bytes a well-formed run?  Walks it: every offset and length
 * in bounds, keys ascending, ops known, keys within the fences.  For bytes
 * from disk; NULL when fine, else a constant text that says what is wrong. */
const char *bfti_run_check(const void *image, size_t len);

/* Fences.  A length of 0 means unbounded. */
bft_slice bfti_run_low(const struct bfti_run *run);
bft_slice bfti_run_high(const struct bfti_run *run);
static inline uint64_t bfti_run_sibling(const struct bfti_run *run)
{
    return le64_get(run->sibling);
}
static inline unsigned bfti_run_count(const struct bfti_run *run)
{
    return le16_get(run->count);
}
struct bfti_large bfti_run_dead(const struct bfti_run *run, unsigned i);

/* memcmp order of whole keys, shorter first when one is a prefix. */
int bfti_key_compare(bft_slice a, bft_slice b);
/* -1: KEY lies below the run's low fence; 1: at or above its high fence. */
int bfti_run_range(const struct bfti_run *run, bft_slice key);

/* A record somewhere else: its key in two parts.  Valid as long as the run. */
struct bfti_view {
    const uint8_t *prefix, *suffix, *value;
    uint16_t prefix_len, suffix_len;
    uint32_t value_len;
    uint8_t op, flags;
};
static inline size_t bfti_view_key_len(const struct bfti_view *v)
{
    return (size_t)v->prefix_len + v->suffix_len;
}
void bfti_view_key(const struct bfti_view *v, void *buf); /* copies it whole */
int bfti_view_compare(const struct bfti_view *a, const struct bfti_view *b);
int bfti_view_compare_key(const struct bfti_view *a, bft_slice key);

static inline const struct bfti_slot *bfti_run_slots(const struct bfti_run *run)
{
    return (const struct bfti_slot *)(run + 1);
}

/* The prefix: the first byte behind slots and dead references. */
static inline const uint8_t *bfti_run_prefix(const struct bfti_run *run)
{
    size_t skip = sizeof(struct bfti_slot) * le16_get(run->count) +
                  sizeof(struct bfti_large) * le16_get(run->dead_count);
    return (const uint8_t *)(run + 1) + skip;
}

/* The record of SLOT, whose offset counts from BASE. */
static inline struct bfti_view bfti_slot_view(const void *base,
                                              const struct bfti_slot *slot,
                                              const uint8_t *prefix,
                                              uint16_t prefix_len)
{
    const uint8_t *suffix = (const uint8_t *)base + le16_get(slot->offset);
    uint16_t suffix_len = le16_get(slot->key_len);
    return (struct bfti_view){
        .prefix = prefix,
        .suffix = suffix,
        .value = suffix + suffix_len,
        .prefix_len = prefix_len,
        .suffix_len = suffix_len,
        .value_len = le16_get(slot->value_len),
        .op = slot->op,
        .flags = slot->flags,
    };
}

/* Record I of the run. */
static inline struct bfti_view bfti_run_view(const struct bfti_run *run,
                                             unsigned i)
{
    assert(i < bfti_run_count(run));
    return bfti_slot_view(run, bfti_run_slots(run) + i, bfti_run_prefix(run),
                          le16_get(run->prefix_len));
}
/* The first record with a key >= KEY (count when none); *FOUND: equal. */
unsigned bfti_run_search(const struct bfti_run *run, bft_slice key,
                         bool *found);

/* --- lists --------------------------------------------------------------- */

struct bfti_list {
    struct bfti_view *view;
    size_t count, cap;
    /* References of LARGE puts that a newer record of the same key superseded
     * (and dead references met in the sources): still to unlink. */
    struct bfti_large *dead;
    size_t dead_count, dead_cap;
    _Atomic size_t *held; /* where its memory is counted, or NULL */
};

/* Room for COUNT views and DEAD references, so that nothing is allocated later
 * (under a latch). */
BFT_MUST_CHECK bft_status bfti_list_reserve(const struct bfti_env *env,
                                            struct bfti_list *list,
                                            size_t count, size_t dead);
static inline bool bfti_list_fits(const struct bfti_list *list, size_t count,
                                  size_t dead)
{
    return list->view && list->cap >= count && list->dead_cap >= dead;
}
void bfti_list_free(const struct bfti_env *env, struct bfti_list *list);
/* All records of RUN in order, and its dead references.  Needs reserve. */
void bfti_list_from_run(struct bfti_list *list, const struct bfti_run *run);
/*
 * OUT = the union of NEWER and OLDER, NEWER's record where both have a key.
 * A superseded LARGE record whose op is PUT goes to OUT's dead, unless NEWER's
 * record holds the same place; both sources' dead references follow.  OUT is
 * neither source and needs reserve of both counts.
 */
void bfti_list_merge(struct bfti_list *out, const struct bfti_list *newer,
                     const struct bfti_list *older);
/*
 * OUT = NEWEST (NULL: nothing) over all records of COUNT runs, newest first; with
 * its dead references, as bfti_list_merge.  TMP and OTHER are room, and none is
 * NEWEST.  OUT needs reserve of all counts, OTHER too unless there is one run, TMP
 * that of any run.
 */
void bfti_list_runs(struct bfti_list *out, const struct bfti_list *newest,
                    const struct bfti_run *const *run, unsigned count,
                    struct bfti_list *tmp, struct bfti_list *other);
/* References that are dead in RUN's list, and those that may yet be by what is newer:
 * each record supersedes one at most. */
static inline size_t bfti_run_dead_max(const struct bfti_run *run)
{
    return le16_get(run->flags) & BFTI_RUN_HAS_LARGE
               ? (size_t)bfti_run_count(run) + le16_get(run->dead_count)
               : 0;
}
/* Records of COUNT runs, and what their lists come to at most in dead ones. */
size_t bfti_runs_records(const struct bfti_run *const *run, unsigned count);
size_t bfti_runs_dead(const struct bfti_run *const *run, unsigned count);
/* Drop what is only cached; drop what is deleted or absent. */
void bfti_list_keep_dirty(struct bfti_list *list);
void bfti_list_keep_values(struct bfti_list *list);
/* First view with key >= KEY. */
size_t bfti_list_search(const struct bfti_list *list, bft_slice key,
                        bool *found);

/* What a built run keeps of the views. */
enum bfti_keep {
    BFTI_KEEP_ALL,    /* a mini-page: everything */
    BFTI_KEEP_DIRTY,  /* a delta: puts and deletes, and dead references */
    BFTI_KEEP_VALUES, /* a base page: puts and cached, as PUT; no dead */
    BFTI_KEEP_CLEAN,  /* a mini-page whose content was just written beneath:
                        PUT becomes CACHED, DELETE becomes ABSENT; no dead */
};

struct bfti_run_spec {
    const struct bfti_view *view; /* sorted */
    size_t count;
    const struct bfti_large *dead;
    size_t dead_count;
    enum bfti_keep keep;
    bft_slice low, high; /* fences; len 0: unbounded */
    uint64_t sibling, beneath;
    uint32_t tree_id;
};
/* Bytes of the image that _build makes. */
size_t bfti_run_size(const struct bfti_run_spec *spec);
/* Build into BUF of at least that size; returns the size.  All bytes of it
 * are written (nothing uninitialised reaches a file). */
size_t bfti_run_build(void *buf, const struct bfti_run_spec *spec);

/*
 * Where to cut sorted VIEWS (base content: puts and cached count, as
 * BFTI_KEEP_VALUES) into runs of at most LEAF_BYTES each.  CUTS gets the index of
 * the first view of each run but the first, *PARTS the number of runs (1: no
 * cut).  Balanced by bytes; when ASCENDING (the newest records are at the end:
 * an append pattern) the left runs are filled to about 95% instead.
 * BFT_TOO_BIG: more than CUTS_MAX cuts.
 */
BFT_MUST_CHECK bft_status bfti_run_cuts(const struct bfti_run_spec *spec,
                                        size_t leaf_bytes, bool ascending,
                                        size_t *cuts, size_t cuts_max,
                                        size_t *parts);
/* The shortest key S with a < S <= b, for a < b, into BUF (BFTI_KEY_MAX);
 * returns its length. */
size_t bfti_key_separator(const struct bfti_view *a, const struct bfti_view *b,
                          void *buf);

#endif
