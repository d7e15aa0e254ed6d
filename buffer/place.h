/*
 * The page table: for each page id one word that says where the leaf is, and
 * one latch for its writers.
 *
 * Words: 0 free; tag NONE, else: a forward to the page id that absorbed the
 * leaf; tag MEMORY, a mini-page; tag DISK, a base page's extent; tag DELTA, a
 * delta's extent, which names what lies beneath it, and how many deltas the leaf
 * has.  A run's extent has fewer than 128 grains: the upper three of the ten bits
 * for that say how many deltas there are besides the first.
 */
#ifndef BFTI_PLACE_H
#define BFTI_PLACE_H

#include <assert.h>

#include "fileio/fileio.h"
#include "run.h"

enum { BFTI_PART_IDS = 512 }; /* ids in one part: 4 KiB of words on disk */
enum { BFTI_DELTAS_SHIFT = 23 };
_Static_assert((BFTI_RUN_BYTES_MAX + BFTI_EXTENT_HEADER) / BFTI_GRAIN < 127,
               "seven bits for the grains of a run's extent");
_Static_assert(BFTI_DELTAS_MAX <= 8, "three bits for deltas but the first");
#define BFTI_PAGE_ID_NONE UINT64_C(0)

struct bfti_entry {
    _Atomic uint64_t word;  /* [place] */
    _Atomic uint32_t latch; /* 0 free, 1 held, 2 held and awaited.  [latch] */
    _Atomic uint32_t seq;   /* changes published under the latch.  [seq] */
};

/* What a checkpoint has taken of a part. */
struct bfti_part {
    struct bfti_entry entry[BFTI_PART_IDS];
    _Atomic uint64_t state; /* epoch << 2 | skipped << 1 | dirty.  [part] */
    _Atomic uint64_t gathered[BFTI_PART_IDS / 64]; /* by id, when visited;
                               a bit changes under its leaf's latch */
    _Atomic uint64_t flushed[BFTI_PART_IDS / 64];  /* as GATHERED, of a flush */
    uint64_t *image; /* words of the image; checkpoint, while it runs */
    uint64_t place;  /* its extent in the last image; checkpoint only */
};

struct bfti_table;

BFT_MUST_CHECK bft_status bfti_table_create(const struct bfti_env *env,
                                            struct bfti_table **out);
void bfti_table_destroy(struct bfti_table *table);
size_t bfti_table_bytes(const struct bfti_table *table);
uint64_t bfti_table_ids(const struct bfti_table *table); /* next never used */
uint64_t bfti_table_leaves(const struct bfti_table *table); /* in use */

/* The entry of an id below bfti_table_ids. */
struct bfti_entry *bfti_table_entry(struct bfti_table *table, uint64_t id);
static inline uint64_t bfti_entry_word(const struct bfti_entry *entry)
{
    /* [place] acquire: pairs with bfti_entry_set; whoever sees a word sees
     * what was built behind it.  seq_cst, because the second read of a hazard
     * slot's protocol must not move before the slot's store. */
    return atomic_load(&entry->word);
}
static inline void bfti_entry_set(struct bfti_entry *entry, uint64_t word)
{
    atomic_store(&entry->word, word); /* [place] */
}

/* A forward's word is the page id itself. */
static inline bool bfti_word_forwards(uint64_t word)
{
    return word && bfti_place_tag(word) == BFTI_TAG_NONE;
}
static inline bool bfti_word_on_disk(uint64_t word)
{
    return word >> 63;
}
static inline bool bfti_word_in_memory(uint64_t word)
{
    return bfti_place_tag(word) == BFTI_TAG_MEMORY;
}
/* The extent of a word on disk: hazard slots and the page file know only it. */
static inline uint64_t bfti_word_extent(uint64_t word)
{
    if (bfti_place_tag(word) != BFTI_TAG_DELTA)
        return word;
    return word &
           ~(UINT64_C(1) << BFTI_TAG_SHIFT | UINT64_C(7) << BFTI_DELTAS_SHIFT);
}
/* How many deltas does it lead to? */
static inline unsigned bfti_word_deltas(uint64_t word)
{
    return bfti_place_tag(word) == BFTI_TAG_DELTA
               ? (unsigned)(word >> BFTI_DELTAS_SHIFT & 7) + 1
               : 0;
}
/* Of a delta's EXTENT with DELTAS - 1 others beneath. */
static inline uint64_t bfti_delta_word(uint64_t extent, unsigned deltas)
{
    assert(deltas >= 1 && deltas <= BFTI_DELTAS_MAX);
    return extent | UINT64_C(1) << BFTI_TAG_SHIFT |
           (uint64_t)(deltas - 1) << BFTI_DELTAS_SHIFT;
}

void bfti_latch(const struct bfti_env *env, struct bfti_entry *entry);
bool bfti_latch_try(struct bfti_entry *entry);
/* Tries for about a microsecond: a parked holder must not stop who merges. */
static inline bool bfti_latch_briefly(struct bfti_entry *entry)
{
    for (int i = 0; i < 200; i++)
        if (bfti_latch_try(entry))
            return true;
    return false;
}
/* Wait for about NS at most. */
bool bfti_latch_within(const struct bfti_env *env, struct bfti_entry *entry,
                       uint64_t ns);
/* CHANGED: cursors look again. */
void bfti_unlatch(const struct bfti_env *env, struct bfti_entry *entry,
                  bool changed);

/* A free id, its word 0, its latch not taken; while a checkpoint runs, one that it
 * does not come to. */
BFT_MUST_CHECK bft_status bfti_id_alloc(struct bfti_table *table, uint64_t *id);
/* The same for a leaf to be split off another one, under whose latch
 * bfti_table_change() and bfti_table_inherit() tell the running checkpoint of it:
 * also one that it comes to. */
BFT_MUST_CHECK bft_status bfti_id_alloc_split(struct bfti_table *table,
                                              uint64_t *id);
/* The word is 0 already. */
void bfti_id_free(struct bfti_table *table, uint64_t id);

/*
 * Under ID's latch, before its word or its dirty content changes: note that the
 * next image differs there.  Returns the epoch of the running checkpoint if it
 * has taken the leaf already, else 0: what space.c calls GATHERED.
 */
uint64_t bfti_table_change(struct bfti_table *table, uint64_t id);
/* The same without noting a change. */
uint64_t bfti_table_gathered(struct bfti_table *table, uint64_t id);

/* A split gave ID to a part of LEFT's content, under LEFT's latch: it counts as
 * taken if LEFT does, else the running checkpoint will visit it. */
void bfti_table_inherit(struct bfti_table *table, uint64_t left, uint64_t id);

/* --- checkpoint's side (one at a time) ----------------------------------- */

/* Begin: parts changed since the last image are to be visited.  After a failure
 * too, bfti_table_finish is called. */
BFT_MUST_CHECK bft_status bfti_table_cut(struct bfti_table *table,
                                         uint64_t epoch);
size_t bfti_table_parts(const struct bfti_table *table);
struct bfti_part *bfti_table_part(struct bfti_table *table, size_t i);
/* Is the part visited by the running checkpoint (else its last image holds)? */
bool bfti_part_visited(const struct bfti_table *table,
                       const struct bfti_part *part);
/* Under the leaf's latch: its word in the image. */
void bfti_table_take(struct bfti_table *table, uint64_t id, uint64_t word);
/* The running checkpoint's epoch if its low bits are EPOCH, else 0. */
uint64_t bfti_table_running(struct bfti_table *table, uint32_t epoch);
/* By any thread, under the latches of all N leaves: the same for the running
 * checkpoint, if its epoch's low bits are EPOCH. */
void bfti_table_take_for(struct bfti_table *table, uint32_t epoch,
                         const uint64_t *ids, const uint64_t *words, size_t n);
/* Its word in the image of the running checkpoint is there (not left out). */
bool bfti_table_in_image(struct bfti_table *table, uint64_t id);
/* An id that a split added for the checkpoint to visit; 0: none.  A failure:
 * one could not be noted, the image would be incomplete. */
BFT_MUST_CHECK bft_status bfti_table_pop_extra(struct bfti_table *table,
                                               uint64_t *id);
/* End.  DONE false: parts taken count as changed again. */
void bfti_table_finish(struct bfti_table *table, bool done);

/* Did anything in the part change since the last image? */
bool bfti_part_changed(const struct bfti_part *part);

/* --- flushing (one at a time; images may come and go meanwhile) ----------- */

/* From now on, until _end, no leaf counts as flushed but by _set.  What a leaf
 * that does not count gives to another one, by a split or by being absorbed, makes
 * that one not count, and it is popped. */
void bfti_flush_begin(struct bfti_table *table);
void bfti_flush_end(struct bfti_table *table);
/* Under the leaf's latch. */
bool bfti_flush_has(struct bfti_table *table, uint64_t id);
void bfti_flush_set(struct bfti_table *table, uint64_t id);
/* As bfti_table_pop_extra. */
BFT_MUST_CHECK bft_status bfti_flush_pop(struct bfti_table *table,
                                         uint64_t *id);
/* Under both latches: FROM's records, or some of them, are TO's now. */
void bfti_flush_moved(struct bfti_table *table, uint64_t from, uint64_t to);

/* Recovery: make ids 0..IDS-1, part by part, from images.  WORDS NULL: of a part
 * there is none, so that all ids in it are free.  Directories had such parts that
 * were made while an image was written, behind the last leaf it has.
 * Errors: BFT_CORRUPT: a word that no image has. */
BFT_MUST_CHECK bft_status bfti_table_load(struct bfti_table *table, size_t part,
                                          const le64 *words, uint64_t place);
BFT_MUST_CHECK bft_status bfti_table_loaded(struct bfti_table *table,
                                            uint64_t ids);

#endif
