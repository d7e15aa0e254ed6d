/*
 * Inside index/: the engine behind a database handle, its trees, and the
 * protocol of one leaf.
 */
#ifndef BFTI_ENGINE_H
#define BFTI_ENGINE_H

#include "bftree_backup.h"
#include "buffer/buffer.h"
#include "inner.h"

enum {
    BFTI_NAME_MAX = 255,
    BFTI_KEY_SHARE = 4,    /* a key takes at most 1/4 of a leaf, */
    BFTI_INLINE_PARTS = 3, /* a record in it 3/8: see bfti_is_large() */
    BFTI_LOGGED_VALUE_MAX = 1 << 20, /* longer values bypass the log */
    BFTI_QUEUE = 256,
    BFTI_ROOM_SHARE = 12, /* part of the pages' memory that is kept free */
};

/* Frame types; what each holds, frame.c says. */
enum {
    BFTI_FRAME_WRITE = 1,
    BFTI_FRAME_CREATE = 2,
    BFTI_FRAME_DROP = 3,
    BFTI_FRAME_TRUNCATE = 4,
    BFTI_FRAME_RENAME = 5,
    BFTI_FRAME_LOAD = 6,
    BFTI_FRAME_RANGE = 7,
    BFTI_FRAME_CLEAR = 8,
};

struct bfti_engine;

struct bfti_name {
    struct bfti_name *older;
    char text[];
};

struct bfti_tree {
    struct bfti_engine *engine; /* fixed */
    uint32_t id;                /* fixed, never reused */
    uint32_t leaf_bytes;        /* fixed */
    uint64_t ttl_ms; /* fixed: 0 records do not expire; else how long those live
                        that do not say, BFT_FOREVER for ever.  See expiry.h */
    bool history;    /* fixed: of no log, and recovery drops it */
    /* Of NAMES the first; read at any time, changed under trees_lock. */
    const char *_Atomic name; /* empty while it is being loaded */
    struct bfti_name *names;  /* all that it had, until close */
    /* The tree that was put in its place by a truncation, or NULL: set before
     * the root goes.  [successor] */
    struct bfti_tree *_Atomic successor;
    /* The root node's address, 0 once dropped; bit 0: the running checkpoint
     * has taken the tree's structure.  [root] */
    _Atomic uintptr_t root;
    _Atomic bool has_large; /* it has, or had, large values */
    /* Ranges that were deleted and whose records are there still; see tomb.h. */
    struct bfti_tombs *_Atomic tombs; /* NULL: none.  [tomb] */
    _Atomic uint64_t tombs_word;  /* number of the set that readers see, times
                                         2; bit 0: it has pieces.  [tomb] */
    _Atomic size_t tombs_bytes;   /* of its keys */
    _Atomic size_t tombs_count;   /* of its pieces */
    _Atomic uint32_t tombs_haste; /* readers that clearing gives way to */
    struct bfti_mutex tombs_lock; /* changes of the set, and what is logged with
                                     them */
    struct bfti_tomb_count *tomb_counts; /* under tombs_lock */
    uint8_t *tombs_image; /* for the catalogue; under checkpoint_lock */
    size_t tombs_image_len;
    /* No record that purge.c has not seen expires before; 0: not known. */
    _Atomic uint64_t expiry_due;
    uint64_t pass_begun; /* under purge.lock */
    /* Upper half: splits and absorptions so far; lower half: those under way,
     * times 2; bit 0: a drop waits for them, and no more begin.  [structure] */
    _Atomic uint64_t structure;
    /* Of a dropped tree, the leaves that are still to be taken away.  Under
     * checkpoint_lock. */
    uint64_t *left;
    size_t left_count;
    struct bfti_tree *next; /* under trees_lock */
};

enum { BFTI_ROOT_TAKEN = 1 };
/* The node that ROOT, a pointer with a mark in its lowest bit, names; or NULL. */
static inline struct bfti_inner *bfti_root_node(uintptr_t root)
{
    /* NOLINTNEXTLINE(performance-no-int-to-ptr) */
    return (struct bfti_inner *)(root & ~(uintptr_t)BFTI_ROOT_TAKEN);
}
static inline struct bfti_inner *bfti_tree_root(const struct bfti_tree *tree)
{
    return bfti_root_node(atomic_load(&tree->root)); /* [root] */
}
/* Can it be found: neither dropped nor still being loaded? */
static inline bool bfti_tree_is_there(const struct bfti_tree *tree)
{
    return bfti_tree_root(tree) && *atomic_load(&tree->name);
}
/* Marks the place of an inner node that its tree has left. */
#define BFTI_NODE_RETIRED UINT64_C(1)

/* A queue of leaves that background steps look at.  Hints: lost when full. */
struct bfti_queue {
    struct bfti_mutex lock;
    uint64_t id[BFTI_QUEUE];
    unsigned head, count;
};

/* Where a removal is: of what has expired, see purge.c, or of deleted ranges. */
struct bfti_purge {
    struct bfti_mutex lock; /* only tried */
    uint32_t tree;          /* of the pass under way, or the last one */
    bool under_way;
    uint64_t least;  /* when the first of what the pass has left expires */
    uint16_t at_len; /* where it goes on */
    uint8_t at[BFTI_KEY_MAX];
};

/* By subject; there is one, and its padding does not count. */
/* NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding) */
struct bfti_engine {
    struct bfti_buffer buffer; /* first: leaves know only it */
    const struct bfti_env *env;
    const struct bfti_env *heap; /* for inner nodes and other things that stay:
                                    ENV, or the pool's heap */
    struct bfti_vfs *vfs;
    struct bfti_vfs *below; /* of the files: VFS, or what that lies over when
                               they are only read */
    bool in_memory;         /* fixed: the files go with the process */
    char *path;
    struct bfti_file *lock_file;
    struct bfti_opened *opened; /* fixed; see registry.h */
    uint32_t fork_generation;
    struct bft_options options; /* as opened, defaults filled in */
    uint8_t database_id[16];

    struct bfti_mutex trees_lock;
    struct bfti_tree *trees;      /* that are there, or not yet cleared */
    struct bfti_tree *trees_gone; /* others, until close: who has found one may
                                       have been stopped.  Under checkpoint_lock */
    uint32_t next_tree_id;        /* under checkpoint_lock */
    _Atomic size_t inner_bytes;   /* of inner nodes in trees */
    _Atomic size_t load_bytes;    /* that bulk loads hold */
    _Atomic uint64_t hold_given_up; /* see gate.c */
    struct bfti_shared *shared;     /* under shared_lock */
    struct bfti_mutex shared_lock;

    /* Checkpoint; see checkpoint.c. */
    struct bfti_mutex checkpoint_lock; /* one checkpoint, tree creation, drop or
                                          verify at a time */
    struct bfti_superblock superblock; /* the newest; under checkpoint_lock */
    unsigned superblock_slot;          /* where it lies */
    bool superblock_cut;               /* the other slot's last write failed */
    _Atomic uint64_t redo_lsn;         /* of the newest superblock */
    bool redone; /* frames name what redo gave back: the next image has another
                    redo start.  Under checkpoint_lock */
    _Atomic uint64_t epoch;      /* of the running checkpoint, 0 none */
    _Atomic uint64_t held_after; /* bytes that the last one left waiting */
    struct bfti_scratch checkpoint_scratch;

    struct bfti_mutex backup_lock; /* one backup at a time; before the above */

    /* Snapshots; see snapshot.c and history.c. */
    struct bfti_mutex snapshots_lock;
    struct bft_snapshot *snapshots; /* open, newest first; under its lock */
    uint64_t snapshot_count;        /* so far; under its lock */
    unsigned snapshot_stops; /* who keeps new ones away; under its lock */
    _Atomic uint32_t snapshot_haste;   /* writers that those give way to */
    _Atomic uint32_t snapshot_word;    /* bumped when either have ended */
    _Atomic uint64_t snapshot_settled; /* those up to it are.  [settled] */
    _Atomic uint64_t snapshot_newest; /* number of the newest open one, 0: none.
                                         [publish] */
    _Atomic uint32_t reads_shown, reads_looking; /* see reads.c.  [reads] */
    struct bfti_epoch *_Atomic history; /* newest first; more are put in front.
                                           Changed under checkpoint_lock */
    struct bfti_epoch
        *history_gone; /* cut off from it, until close; likewise */
    _Atomic uint64_t apart_serial;
    _Atomic uint64_t clock_ms; /* the latest time seen; see expiry.h */

    struct bfti_thread *evictor, *checkpointer; /* of background.c only */
    _Atomic bool background; /* they are there, or are being started or ended */
    _Atomic uint32_t evictor_word, checkpointer_word; /* bumped to wake */
    _Atomic bool stopping, want_checkpoint;
    _Atomic bool want_space;         /* an image, for space that waits */
    _Atomic uint64_t space_given_up; /* see gate.c */
    struct bfti_queue merges;
    _Atomic uint32_t small_leaves; /* merges left so many; see sweep.c */
    uint32_t sweep_tree; /* where the sweep goes on.  One sweeper at a */
    uint16_t sweep_len;  /* time, by sweep_lock */
    uint8_t sweep_key[BFTI_KEY_MAX];
    uint32_t sweep_small; /* of small_leaves, what its round is for */
    struct bfti_mutex sweep_lock;
    struct bfti_mutex clean_lock; /* only tried; see clean.c */
    uint64_t clean_grain;    /* where its pass goes on, 0: there is none.  Under
                             clean_lock */
    uint64_t clean_after_ns; /* no step before; the checkpointer only */
    bool cleaning;           /* as of its last step; the checkpointer only */
    struct bfti_purge purge;
    _Atomic bool expires; /* a tree has, or had, records that do */
    _Atomic bool tombs;   /* a tree has, or had, tombstones of ranges */
    struct bfti_purge tombs_sweep; /* one at a time, none within one; at the
                                      start, or behind what cannot be read */
    _Atomic uint64_t tombs_made;   /* so far, twice; odd while one becomes
                                      visible.  [tomb] */
    struct bfti_mutex nodes_lock;  /* only tried; see nodes.c */
    uint32_t nodes_tree; /* where its clock goes on.  Under nodes_lock */
    uint16_t nodes_len;
    uint8_t nodes_key[BFTI_KEY_MAX];
    size_t nodes_bytes; /* that inner nodes should stay within; fixed */
    _Atomic uint32_t nodes_kept; /* who need that none is dropped */
    _Atomic uint32_t log_word; /* bumped when a checkpoint made room, or not */
    _Atomic uint32_t images_failed; /* checkpoints so far that could not */

    _Atomic uint32_t failed;      /* a bft_status: writes are refused with it */
    _Atomic uint64_t log_segment; /* that the log was last seen to be in */
    _Atomic uint64_t batch_number;
    uint64_t recovered_frames;
    uint32_t incarnation; /* fixed after recovery */

    /* Recovery only: extents that frames still to be applied name. */
    struct bfti_places log_named;
    bool recovering;
};

struct bft_tree {
    uint32_t magic;
    bft_db *db;
    struct bfti_tree *_Atomic tree; /* or one that this one has succeeded */
    struct bft_tree *next;
};

struct bfti_tree *bfti_handle_follow(struct bft_tree *handle);
/* The tree that HANDLE stands for now: one call works on one tree, and should
 * that be BFT_GONE, asks again. */
static inline struct bfti_tree *bfti_handle_tree(struct bft_tree *handle)
{
    struct bfti_tree *tree = atomic_load(&handle->tree);
    return atomic_load(&tree->successor) ? bfti_handle_follow(handle) : tree;
}
/* Did the call that worked on TREE, and ended with STATUS, come too late? */
static inline bool bfti_handle_moved(struct bft_tree *handle,
                                     const struct bfti_tree *tree,
                                     bft_status status)
{
    return status == BFT_GONE && bfti_handle_tree(handle) != tree;
}

struct bft_db {
    uint32_t magic;
    struct bfti_engine *engine; /* NULL once closed */
    struct bfti_mutex lock;
    struct bft_tree *trees; /* handles given out; under lock */
    unsigned pins; /* calls that keep it open; under the registry's lock */
    bool closing;  /* no more of these; the same */
    struct bfti_mutex feeds_lock;
    struct bft_feed *feeds; /* open ones; under feeds_lock */
    struct bft_db *next_closed;
};
enum { BFTI_MAGIC_DB = 0x62667464, BFTI_MAGIC_TREE = 0x62667474 };

/* --- gate: what every public call asks first (gate.c) -------------------- */

/* The engine of DB, or a failure: closed, forked. */
BFT_MUST_CHECK bft_status bfti_gate(bft_db *db, struct bfti_engine **engine);
BFT_MUST_CHECK bft_status bfti_gate_open(bft_tree *tree,
                                         struct bfti_engine **engine);
/* For a call that reads or writes: and the thread's record. */
BFT_MUST_CHECK bft_status bfti_gate_tree(bft_tree *tree,
                                         struct bfti_engine **engine,
                                         struct bfti_rec **rec);
/* Bytes of the log that the last image has not made needless. */
uint64_t bfti_log_used(const struct bfti_engine *engine);
/* Where a redo is to begin after an image that is begun behind the call. */
uint64_t bfti_redo_start(const struct bfti_engine *engine);
/* BFT_READ_ONLY, or fine. */
BFT_MUST_CHECK bft_status bfti_check_writable(const struct bfti_engine *engine);
/* May this engine be written, with about BYTES in the log?  Waits for room in
 * log and pool. */
BFT_MUST_CHECK bft_status bfti_gate_write(struct bfti_engine *engine,
                                          struct bfti_rec *rec, size_t bytes);
BFT_MUST_CHECK bft_status bfti_check_key(bft_slice key);
/* Is the key one that leaves of TREE can hold, and so long a value one at all? */
BFT_MUST_CHECK bft_status bfti_check_record(const struct bfti_tree *tree,
                                            bft_slice key,
                                            uint64_t value_bytes);
BFT_MUST_CHECK bft_status bfti_check_bound(bft_slice bound); /* len 0: none */
/* Bytes in use but for the pool's; and tell the pool. */
size_t bfti_memory_elsewhere(struct bfti_engine *engine);
/* What a batch, or a transaction, may hold.  A frame of the log takes 1 GiB. */
static inline uint64_t bfti_batch_most(const struct bfti_engine *engine)
{
    uint64_t share = engine->options.memory_bytes / 8;
    return share < 512 << 20 ? share : 512 << 20;
}
/* Refuse writes from now on. */
void bfti_engine_fail(struct bfti_engine *engine, bft_status status);

/* --- leaf.c: reading ----------------------------------------------------- */

/* What a reader holds while it looks at a leaf: pages and extents it named. */
struct bfti_reader {
    struct bfti_tree *tree;
    struct bfti_rec *rec;
    struct bfti_entry *entry;
    uint64_t id;
    uint64_t word;    /* the leaf's word */
    uint64_t pending; /* number of the batch that installed it, or 0 */
    const _Atomic uint64_t *pending_word;
    uint64_t place[3]; /* pages in memory, newest first */
    const struct bfti_minipage *page[3];
    unsigned pages;
    uint64_t head;      /* disk content beneath them, 0 none */
    bool complete;      /* nothing beneath need be asked */
    bool asks;          /* of a filter, where it would read: for a key */
    bool lacks;         /* HEAD, which is named, has not that key */
    bool fresh;         /* that was read, and since then a filter says so */
    uint64_t structure; /* of the tree, before the leaf was looked for */
    struct bfti_content disk; /* once bfti_reader_disk was called */
};

/* Find the leaf of KEY and name its pages.  BEFORE: the leaf with the keys just
 * below KEY (KEY.len 0: the last leaf).  BFT_GONE: the tree was dropped. */
BFT_MUST_CHECK bft_status bfti_reader_open(struct bfti_reader *reader,
                                           struct bfti_tree *tree,
                                           struct bfti_rec *rec, bft_slice key,
                                           bool before);
/* Do TREE's inner nodes lead from KEY to leaf ID? */
bool bfti_leaf_leads(struct bfti_tree *tree, struct bfti_rec *rec,
                     bft_slice key, bool before, uint64_t id);
/* They do, and it is not KEY's: BFT_CORRUPT, or what failed earlier. */
BFT_MUST_CHECK bft_status bfti_leaf_astray(const struct bfti_tree *tree,
                                           uint64_t id);
/* Begin to fetch what the leaves of N KEYS consist of in memory; IDS gets the
 * leaves, for bfti_reader_open_cached.  False: the tree was dropped. */
bool bfti_leaf_look_ahead(struct bfti_tree *tree, struct bfti_rec *rec,
                          const bft_slice *keys, size_t n, uint64_t *ids);
/* Leaf ID, to which the inner nodes led for KEY since the tree's STRUCTURE was read,
 * has nothing in memory, and a filter says that it has not KEY.  No reader is open. */
bool bfti_leaf_lacks(struct bfti_tree *tree, struct bfti_rec *rec,
                     bft_slice key, uint64_t id, uint64_t structure);
/* The same for who is about to latch them, and holds latches: N is at most
 * BFTI_LOOK_AHEAD, and no node is read. */
enum { BFTI_LOOK_AHEAD = 16 };
void bfti_leaf_look_ahead_latched(struct bfti_tree *tree, struct bfti_rec *rec,
                                  const bft_slice *keys, size_t n);
/* Announce the reading of those of N leaves that are on disk, if reads wait. */
void bfti_leaf_announce(struct bfti_engine *engine, struct bfti_rec *rec,
                        const uint64_t *ids, size_t n);
/* Bytes of the budget that may be read ahead for one purpose.  0: reads do not wait for
 * a device, or come one by one, or threads have much of the budget already. */
size_t bfti_fetch_bytes(const struct bfti_engine *engine,
                        const struct bfti_rec *rec);
/* Read for OWNER what N leaves have on disk, if reads wait for a device and come
 * several at a time.  Returns of how many; 0: announce them.  No reader is open. */
size_t bfti_leaf_fetch(struct bfti_engine *engine, struct bfti_rec *rec,
                       const void *owner, const uint64_t *ids, size_t n);
/* A scan is about to read the leaf that holds KEY or, if BACK, keys just below it, and
 * will come to LEAVES after, or before, it, but not behind that with BOUND (len 0:
 * none): have those of them announced or, for OWNER, read together with it, that must
 * be read.  FURTHER: it goes on behind them.  Returns how many after the first need no
 * more of this. */
size_t bfti_leaf_expect(struct bfti_tree *tree, struct bfti_rec *rec,
                        const void *owner, bft_slice key, bool back,
                        bft_slice bound, size_t leaves, bool further);
/* A scan is at the leaf of KEY, with AHEAD leaves after it announced, and goes on:
 * have more of them announced once there are few.  Returns how many are now. */
size_t bfti_leaf_expect_on(struct bfti_tree *tree, struct bfti_rec *rec,
                           bft_slice key, bool back, bft_slice bound,
                           size_t ahead);
/* Open leaf ID, if it is KEY's and has pages in memory. */
bool bfti_reader_open_cached(struct bfti_reader *reader, struct bfti_tree *tree,
                             struct bfti_rec *rec, bft_slice key, uint64_t id);
/* The pages had what was looked for: evict others first.  Not for a look that
 * they could not answer: in every leaf somebody looks for something. */
void bfti_reader_touch(const struct bfti_reader *reader);
/* Read the disk content.  *STABLE false: the leaf changed, open again. */
BFT_MUST_CHECK bft_status bfti_reader_disk(struct bfti_reader *r, bool *stable);
/* STATUS was met in this leaf: put page and tree before its text. */
bft_status bfti_reader_blame(const struct bfti_reader *r, bft_status status);
/* After naming more: is all that the reader saw still so? */
bool bfti_reader_still(void *reader);
void bfti_reader_close(struct bfti_reader *reader); /* clears hazard slots */
/* The same of the leaf with that id, whatever it is; pages 0 and head 0: it is
 * free or forwards. */
void bfti_reader_at(struct bfti_reader *reader, struct bfti_tree *tree,
                    struct bfti_rec *rec, uint64_t id);
/* Every extent that the leaf's content refers to, each once: of its own and of
 * large values, superseded ones included.  *STABLE false: it changed.
 * BFT_CORRUPT and *STABLE: some cannot be found, PLACES has the others, and those
 * that are damaged. */
BFT_MUST_CHECK bft_status bfti_leaf_extents(struct bfti_reader *reader,
                                            struct bfti_places *places,
                                            bool *stable);
/* Any of the leaf's runs, for its fences. */
const struct bfti_run *bfti_reader_run(const struct bfti_reader *reader);
/* As bfti_reader_find if the pages in memory can tell; false: ask that. */
bool bfti_reader_find_cached(struct bfti_reader *reader, bft_slice key,
                             bool *found, struct bfti_view *view);
/* The newest record of KEY in the open leaf, whose range it is in.  *FOUND
 * false: none, or deleted.  *STABLE false: the leaf changed, open it again. */
BFT_MUST_CHECK bft_status bfti_reader_find(struct bfti_reader *reader,
                                           bft_slice key, bool *found,
                                           struct bfti_view *view,
                                           bool *stable);
/* The newest record of KEY.  *FOUND false: none, or deleted.  VIEW is valid
 * until the reader is closed, which is the caller's to do on success. */
BFT_MUST_CHECK bft_status bfti_leaf_find(struct bfti_reader *reader,
                                         struct bfti_tree *tree,
                                         struct bfti_rec *rec, bft_slice key,
                                         bool *found, struct bfti_view *view);

/* --- get.c ---------------------------------------------------------------- */

/* BYTES that the caller of the library gives back with bft_free(), or NULL. */
void *bfti_give(const struct bfti_env *env, size_t bytes);

/* What to do with a value that was found. */
struct bfti_take {
    void *buf;
    size_t buf_len;
    size_t value_len; /* out */
    uint64_t offset;  /* a range: from here, at most buf_len */
    bool range;
    bool allocate; /* buf is to be given, from ENV, also in place of one */
    /* The tree's values have stamps, and those that expired by then are not found;
     * 0: stored values, as they are. */
    uint64_t now;
    const struct bfti_env *env;
};
/* Give TAKE the newest value of KEY.  BFT_TOO_SMALL: without a text. */
BFT_MUST_CHECK bft_status bfti_value_read(struct bfti_tree *tree,
                                          struct bfti_rec *rec, bft_slice key,
                                          struct bfti_take *take, bool *found);
/* Give TAKE this value, likewise. */
BFT_MUST_CHECK bft_status bfti_take_slice(struct bfti_take *take,
                                          bft_slice value);
/* What the caller of the library is answered. */
BFT_MUST_CHECK bft_status bfti_take_end(const struct bfti_take *take,
                                        bft_status status, bool found);

/* --- promote.c: what reading leaves in memory ---------------------------- */

/* Cache what a reader that went to disk found (VIEW NULL: absent), or all of
 * its leaf; a hint. */
void bfti_leaf_promote(const struct bfti_reader *reader, bft_slice key,
                       const struct bfti_view *view);
/* Is the leaf, now that it was read, to be cached?  Then call _list and
 * _promote_all. */
bool bfti_leaf_wanted(const struct bfti_reader *reader);
/* All of the leaf's records, newest of each key, in a list of the thread's; of
 * the pages' tails the first TAIL[i] records count. */
BFT_MUST_CHECK bft_status bfti_leaf_list(const struct bfti_reader *reader,
                                         const unsigned *tail,
                                         const struct bfti_list **list);
/* Put a page of all of LIST in the place of the reader's, of whose tail it has
 * TAIL records. */
void bfti_leaf_promote_all(const struct bfti_reader *reader,
                           const struct bfti_list *list, unsigned tail);

/* --- condition.c: what a conditional write expects ----------------------- */

struct bfti_condition {
    bool present; /* the key has a record, with VALUE; or none */
    bft_slice value;
    uint64_t now; /* of trees whose records expire: VALUE has no stamp, and a
                     record that expired by then is none; else 0 */
    bool expired; /* instead: the key has a record that expired by NOW */
    bool at_once; /* and nobody who has the leaf's latch is waited for: else
                     BFT_BUSY */
};
enum bfti_verdict { BFTI_HOLDS, BFTI_FAILS, BFTI_UNKNOWN };

/* What was found out without latch, while the hazard slots of a reader are in
 * use.  All zeros: nothing. */
struct bfti_evidence {
    bool open;
    bool disk;     /* as far as HEAD tells of the key the condition holds */
    uint64_t head; /* disk content beneath the pages */
    bool large;    /* a record that refers to this large value meets it */
    struct bfti_large value;
};

/* Under ENTRY's latch.  UNKNOWN: the answer needs what lies on disk, and the
 * evidence does not speak of it. */
enum bfti_verdict bfti_condition_check(const struct bfti_condition *condition,
                                       struct bfti_buffer *buffer,
                                       const struct bfti_entry *entry,
                                       bft_slice key,
                                       const struct bfti_evidence *evidence);
/* Not latched: look for the key.  *VERDICT is that of a read just now, HOLDS to
 * be confirmed under the latch with EVIDENCE. */
BFT_MUST_CHECK bft_status bfti_evidence_gather(
    const struct bfti_condition *condition, struct bfti_tree *tree,
    struct bfti_rec *rec, bft_slice key, struct bfti_evidence *evidence,
    enum bfti_verdict *verdict);
void bfti_evidence_drop(struct bfti_rec *rec, struct bfti_evidence *evidence);

/* --- write.c: writing one leaf ------------------------------------------- */

struct bfti_change {
    bft_slice key, value; /* value: bytes, or a struct bfti_large */
    uint8_t op;           /* PUT or DELETE */
    uint8_t flags;        /* BFTI_REC_LARGE */
    const struct bfti_places *extents; /* of a large value, to be linked */
};

/* A leaf that must not have changed. */
struct bfti_watch {
    const struct bfti_entry *entry;
    uint32_t seq; /* of it, before it was looked at.  [seq] */
};

/* What must hold when a change is published, with all latches held, and nobody is to
 * show that he has read it; if not, nothing is published and the answer is
 * BFTI_OVERTAKEN, or BFTI_HELD. */
struct bfti_guard {
    uint64_t saved; /* no snapshot newer than this is open: up to it histories
                       have what the change covers */
    struct bfti_reads *reads;         /* to be shown; or NULL */
    const struct bfti_epoch *history; /* is still the newest; NULL: any */
    uint64_t tombs_made;              /* with HISTORY: the engine's, before */
    const struct bfti_watch *watch;
    size_t watches;
    struct bfti_tomb_step *step; /* what clears a part of a deleted range, and
                                    nothing else; or NULL */
};
enum { BFTI_OVERTAKEN = 1, BFTI_HELD }; /* never seen outside index/ */
/* Of recovery and of histories themselves: what they cover nobody asks for. */
extern const struct bfti_guard bfti_unguarded;

struct bfti_writer {
    struct bfti_tree *tree;
    struct bfti_rec *rec;
    struct bfti_entry *entry; /* latched */
    uint64_t id;
    uint64_t reserve;         /* a block for what must be built, or 0 */
    size_t records, dead;     /* that lists lacked room for */
    size_t low_len, high_len; /* of a leaf that is on disk only */
    uint8_t low[BFTI_KEY_MAX], high[BFTI_KEY_MAX];
    uint64_t sibling; /* the same */
    bool latched;     /* other leaves, by the caller: nothing may be read */
    bool at_once;     /* no holder of the latch is waited for: BFT_BUSY */
    bool is_away;     /* the content of a node was: that of the key AWAY */
    uint16_t away_len;
    uint8_t away[BFTI_KEY_MAX];
};

enum bfti_room {
    BFTI_ROOM_OK,
    BFTI_ROOM_UNITS,
    BFTI_ROOM_MERGE,
    BFTI_ROOM_LISTS,
    BFTI_ROOM_NODE,
};

void bfti_writer_begin(struct bfti_writer *writer, struct bfti_tree *tree,
                       struct bfti_rec *rec);
/* Latch the leaf of KEY.  For who has LATCHED others: nothing is latched when a
 * node IS_AWAY. */
BFT_MUST_CHECK bft_status bfti_writer_latch(struct bfti_writer *writer,
                                            bft_slice key);
/* Have the node that was away in memory; no leaf is latched. */
BFT_MUST_CHECK bft_status bfti_writer_load(struct bfti_writer *writer);
void bfti_writer_unlatch(struct bfti_writer *writer, bool changed);
/* High fence of the latched leaf. */
bft_slice bfti_writer_low(const struct bfti_writer *writer);
bft_slice bfti_writer_high(const struct bfti_writer *writer);
uint64_t bfti_writer_sibling(const struct bfti_writer *writer);
void bfti_writer_end(struct bfti_writer *writer); /* gives the reserve back */
/* Under the latch: do the thread's lists hold PAGE's records and MORE?  If not,
 * notes what they lack, for bfti_writer_lists to get outside the latch. */
bool bfti_writer_lists_fit(struct bfti_writer *writer,
                           const struct bfti_minipage *page, size_t more);
BFT_MUST_CHECK bft_status bfti_writer_lists(const struct bfti_writer *writer);

/* One change with its sealed FRAME (NULL in recovery); *END: log position
 * behind it.  CONDITION (may be NULL): only if the key's record meets it, else
 * BFT_CONFLICT, without a text.  The caller is the owner of FRAME again on
 * failure. */
BFT_MUST_CHECK bft_status
bfti_leaf_write(struct bfti_tree *tree, struct bfti_rec *rec,
                const struct bfti_change *change, struct bfti_frame *frame,
                const struct bfti_condition *condition,
                const struct bfti_guard *guard, uint64_t *end);
/* Have a page in memory on top of the leaf of KEY. */
BFT_MUST_CHECK bft_status bfti_leaf_touch(struct bfti_tree *tree,
                                          struct bfti_rec *rec, bft_slice key);
/* Several, ascending by (tree id, key), each key once, visible all at once.
 * TREES[i] is the tree of CHANGES[i]. */
BFT_MUST_CHECK bft_status bfti_leaf_write_all(
    struct bfti_engine *engine, struct bfti_rec *rec,
    struct bfti_tree *const *trees, const struct bfti_change *changes, size_t n,
    struct bfti_frame *frame, const struct bfti_guard *guard, uint64_t *end);

/* --- frame.c: what is in a frame ----------------------------------------- */

struct bfti_frame_record {
    uint32_t tree_id;
    uint8_t op, flags;
    bft_slice key, value;
};
size_t bfti_frame_record_size(const struct bfti_frame_record *record);
uint8_t *bfti_frame_record_put(uint8_t *to,
                               const struct bfti_frame_record *record);
/* Take the next record off *FROM; NULL: fine, else what is wrong. */
const char *bfti_frame_record_get(const uint8_t **from, const uint8_t *end,
                                  struct bfti_frame_record *record);
/* Call EACH for every record of a WRITE frame that lies in the log of the database
 * in DIR at LSN, until it fails. */
BFT_MUST_CHECK bft_status bfti_frame_each(
    const char *dir, uint64_t lsn, const void *payload, size_t len,
    bft_status (*each)(void *arg, const struct bfti_frame_record *record),
    void *arg);

struct bfti_frame_tree {
    uint32_t id, leaf_bytes;
    uint64_t ttl_ms;    /* of a tree that is made; 0: records do not expire */
    uint32_t old_id;    /* TRUNCATE, LOAD: of the tree that goes */
    uint64_t sequence;  /* LOAD: of the first superblock that has its tree */
    bft_slice name;     /* 1 to BFTI_NAME_MAX bytes */
    bft_slice old_name; /* RENAME; may be cut, if it is damaged */
};
/* A sealed frame of type CREATE, DROP, TRUNCATE, RENAME or LOAD. */
BFT_MUST_CHECK bft_status bfti_frame_tree_make(
    struct bfti_wal *wal, uint8_t type, const struct bfti_frame_tree *tree,
    struct bfti_frame **frame);
/* Names point into PAYLOAD. */
BFT_MUST_CHECK bft_status bfti_frame_tree_get(uint8_t type, const void *payload,
                                              size_t len,
                                              struct bfti_frame_tree *tree);
/* Zero-ended. */
void bfti_frame_name(bft_slice from, char name[BFTI_NAME_MAX + 1]);

/* --- commit.c: completion points ----------------------------------------- */

/* After the change is published at log position END: copy, leave, sync as
 * DURABILITY asks. */
BFT_MUST_CHECK bft_status bfti_commit(struct bfti_engine *engine,
                                      struct bfti_rec *rec,
                                      bft_durability durability, uint64_t end);
/* A change, checked, its large value written. */
struct bfti_prepared {
    struct bfti_change change;       /* for the leaf */
    struct bfti_frame_record logged; /* for the log */
    struct bfti_large large;
    struct bfti_places extents;
};
BFT_MUST_CHECK bft_status bfti_change_prepare(
    struct bfti_engine *engine, struct bfti_rec *rec, struct bfti_tree *tree,
    uint8_t op, bft_slice key, bft_slice value, struct bfti_prepared *p);
/* The same unchecked, of histories, whose keys are longer than callers'. */
BFT_MUST_CHECK bft_status bfti_change_make(struct bfti_engine *engine,
                                           struct bfti_rec *rec,
                                           struct bfti_tree *tree, uint8_t op,
                                           bft_slice key, bft_slice value,
                                           struct bfti_prepared *p);
/* P's large value of BYTES is written: make the change refer to it.  With a
 * logged value the frame carries it, else the extents are synced first.  On
 * failure P is discarded. */
BFT_MUST_CHECK bft_status bfti_prepared_large(struct bfti_engine *engine,
                                              struct bfti_tree *tree,
                                              uint64_t bytes,
                                              struct bfti_prepared *p);
/* Not published: its extents go; or published: they belong to the leaf. */
void bfti_prepared_discard(struct bfti_engine *engine, struct bfti_prepared *p);
void bfti_prepared_done(struct bfti_engine *engine, struct bfti_prepared *p);
/* Log, publish, commit with the default durability; P is done with. */
BFT_MUST_CHECK bft_status bfti_write_prepared(
    struct bfti_engine *engine, struct bfti_rec *rec, struct bfti_tree *tree,
    struct bfti_prepared *p, const struct bfti_condition *condition);
/* A single change of the caller's, with its frame.  EXPIRES: when, or one of
 * BFTI_EXPIRES_...; of a tree whose records do not, BFT_INVALID for a time. */
BFT_MUST_CHECK bft_status
bfti_write_one(bft_tree *tree, uint8_t op, bft_slice key, bft_slice value,
               uint64_t expires, const struct bfti_condition *condition);
/* As bft_put_stream(), with EXPIRES as above; BFTI_EXPIRES_STORED: what READ
 * hands over has its stamp. */
BFT_MUST_CHECK bft_status
bfti_put_stream(bft_tree *tree, bft_slice key, uint64_t bytes,
                bft_status (*read)(void *ctx, void *buf, size_t len), void *ctx,
                uint64_t expires);
/* A put to BATCH that expires as of bfti_write_one(). */
BFT_MUST_CHECK bft_status bfti_batch_put(bft_batch *batch, bft_tree *tree,
                                         bft_slice key, bft_slice value,
                                         uint64_t expires);

/* --- large.c: values outside the leaf ------------------------------------ */

/* Is a value of that size too long for a leaf of TREE? */
bool bfti_is_large(const struct bfti_tree *tree, size_t key_len,
                   uint64_t value_len);
/* Write BYTES bytes that READ hands over into extents of TREE's; NAMED: that a
 * frame is to name, instead of having them.  EXTENTS (to be freed by the caller
 * with the env) lists them all, also on failure, when they were given back
 * already. */
BFT_MUST_CHECK bft_status bfti_large_write(
    struct bfti_engine *engine, struct bfti_rec *rec,
    const struct bfti_tree *tree, uint64_t bytes, bool named,
    bft_status (*read)(void *ctx, void *buf, size_t len), void *ctx,
    struct bfti_large *large, struct bfti_places *extents);
BFT_MUST_CHECK bft_status bfti_large_write_slice(struct bfti_engine *engine,
                                                 struct bfti_rec *rec,
                                                 const struct bfti_tree *tree,
                                                 bft_slice value,
                                                 struct bfti_large *large,
                                                 struct bfti_places *extents);
void bfti_large_discard(struct bfti_engine *engine,
                        struct bfti_places *extents);
/* LEN bytes from OFFSET of KEY's value VIEW (large), which READER found; the
 * range lies inside it.  *STABLE false: the value changed, look again. */
BFT_MUST_CHECK bft_status bfti_large_read(struct bfti_reader *reader,
                                          bft_slice key,
                                          const struct bfti_view *view,
                                          uint64_t offset, void *buf,
                                          size_t len, bool *stable);

/* --- batch.c -------------------------------------------------------------- */

/* Asked in each round (from 1) of a commit, nothing latched: may it be?  And
 * what is GUARD to watch?  BFT_CONFLICT ends the commit. */
typedef bft_status bfti_batch_check(void *ctx, struct bfti_rec *rec,
                                    struct bfti_guard *guard, unsigned round);
void bfti_batch_set_check(bft_batch *batch, bfti_batch_check *check, void *ctx);

/* --- feed.c -------------------------------------------------------------- */

/* DB closes: end its feeds, and wait until no call is inside. */
void bfti_feeds_end(bft_db *db);

/* --- tree.c, tree_drop.c ------------------------------------------------- */

struct bfti_tree *bfti_tree_by_id(struct bfti_engine *engine, uint32_t id);
struct bfti_tree *bfti_tree_by_name(struct bfti_engine *engine,
                                    const char *name);
/* The live tree with the smallest id above AFTER, or NULL. */
struct bfti_tree *bfti_tree_after(struct bfti_engine *engine, uint32_t after);
/* A tree object without root, known to nobody until added. */
BFT_MUST_CHECK bft_status bfti_tree_shell(struct bfti_engine *engine,
                                          uint32_t id, const char *name,
                                          uint32_t leaf_bytes,
                                          struct bfti_tree **out);
/* The same with one fresh leaf (ROOT NULL) or with ROOT. */
BFT_MUST_CHECK bft_status bfti_tree_make(struct bfti_engine *engine,
                                         struct bfti_rec *rec, uint32_t id,
                                         const char *name, uint32_t leaf_bytes,
                                         struct bfti_inner *root,
                                         struct bfti_tree **out);
/* Of a tree that nobody found, or finds any more. */
void bfti_tree_free(const struct bfti_env *env, struct bfti_tree *tree);
/* NULL: no memory. */
struct bfti_name *bfti_name_make(const struct bfti_env *env, const char *name);
/* From now on it is found, by name INSTEAD (may be NULL) of another. */
void bfti_tree_add(struct bfti_engine *engine, struct bfti_tree *tree,
                   struct bfti_tree *instead);
/* TREE is called NAME, which it takes, from now on, and so INSTEAD (may be NULL)
 * is not any more: TREE is its successor. */
void bfti_tree_name(struct bfti_engine *engine, struct bfti_tree *tree,
                    struct bfti_name *name, struct bfti_tree *instead);
BFT_MUST_CHECK bft_status bfti_tree_check_name(const char *name);
BFT_MUST_CHECK bft_status bfti_tree_check_leaf_bytes(uint32_t leaf_bytes);
/* Link FRAME; returns the position behind it, for bfti_commit(), which comes
 * when the change is published: so a feed does not tell of it before. */
uint64_t bfti_tree_log(struct bfti_engine *engine, struct bfti_rec *rec,
                       struct bfti_frame *frame);
/* No split or absorption is under way when this returns, and none will be until
 * _resume: the inner nodes name each of the tree's leaves, and only those. */
void bfti_tree_structure_stop(struct bfti_engine *engine,
                              struct bfti_tree *tree);
void bfti_tree_structure_resume(struct bfti_tree *tree);
/* Have the inner nodes led to the right leaf, without siblings or forwards, since
 * STRUCTURE was read, and do they now?  [structure] */
bool bfti_tree_leads_right(const struct bfti_tree *tree, uint64_t structure);
/* Take all leaves of a tree away; under checkpoint_lock.  On failure some stay
 * for _clear_rest, or, without memory to note them, the tree as it was. */
BFT_MUST_CHECK bft_status bfti_tree_clear(struct bfti_engine *engine,
                                          struct bfti_rec *rec,
                                          struct bfti_tree *tree);
/* Its steps.  _begin stops structure changes and notes the leaves, ascending, in
 * TREE's left; _undo: nothing comes of it.  _root: nobody finds the leaves any
 * more.  _leaves: they go, those for which all that they refer to can be read. */
BFT_MUST_CHECK bft_status bfti_tree_clear_begin(struct bfti_engine *engine,
                                                struct bfti_tree *tree);
void bfti_tree_clear_undo(struct bfti_engine *engine, struct bfti_tree *tree);
void bfti_tree_clear_root(struct bfti_engine *engine, struct bfti_tree *tree);
BFT_MUST_CHECK bft_status bfti_tree_clear_leaves(struct bfti_engine *engine,
                                                 struct bfti_rec *rec,
                                                 struct bfti_tree *tree);
/* Recovery: trees that were being loaded go. */
BFT_MUST_CHECK bft_status bfti_trees_clear_unnamed(struct bfti_engine *engine,
                                                   struct bfti_rec *rec);
/* What drops that failed half-way left of their trees; under checkpoint_lock.  What
 * is damaged goes too: what only that tells of has lost its space, BFT_CORRUPT. */
BFT_MUST_CHECK bft_status bfti_trees_clear_rest(struct bfti_engine *engine,
                                                struct bfti_rec *rec);
/* Those of which nothing is left are looked for no more; likewise. */
void bfti_trees_forget(struct bfti_engine *engine);
/* Is ID a leaf of what such a drop left?  Likewise. */
bool bfti_trees_left(const struct bfti_engine *engine, uint64_t id);
void bfti_trees_free(struct bfti_engine *engine);
/* The tree has left NODE; GATHERED: when the running checkpoint has taken it. */
void bfti_node_retire(struct bfti_engine *engine, struct bfti_inner *node,
                      uint64_t gathered);
/* Hooks of buffer/. */
bft_status bfti_tree_structure_ready(void *engine, struct bfti_rec *rec,
                                     uint32_t tree_id, bft_slice key);
bool bfti_tree_structure_begin(void *engine, struct bfti_rec *rec,
                               uint32_t tree_id, bft_slice key);
void bfti_tree_structure_end(void *engine, uint32_t tree_id);
size_t bfti_tree_following(void *engine, struct bfti_rec *rec, uint32_t tree_id,
                           bft_slice key, uint64_t *ids, size_t max);
void bfti_tree_split(void *engine, uint32_t tree_id, const bft_slice *keys,
                     const uint64_t *ids, size_t n);
bool bfti_tree_absorbed(void *engine, uint32_t tree_id, bft_slice key,
                        uint64_t id);
/* Redo of frames of trees. */
BFT_MUST_CHECK bft_status bfti_tree_redo(struct bfti_engine *engine,
                                         struct bfti_rec *rec, uint8_t type,
                                         const void *payload, size_t len);

/* --- nodes.c: content of inner nodes -------------------------------------- */

/* CONTENT, of height 1, comes from disk: does it lead to pages that there are?  A
 * leaf is looked for by its id without another check.  BFT_CORRUPT. */
BFT_MUST_CHECK bft_status bfti_node_check_ids(struct bfti_engine *engine,
                                              const struct bfti_inner *content);

/* Have the content of the node of KEY, or, if BEFORE, of keys just below it, in
 * memory: look again.  Does I/O; no latch is held.  Fine too when the tree is
 * gone.  Errors: BFT_CORRUPT, BFT_IO, BFT_NO_MEMORY; nothing is changed. */
BFT_MUST_CHECK bft_status bfti_node_load(struct bfti_tree *tree,
                                         struct bfti_rec *rec, bft_slice key,
                                         bool before);
/* The keys and children of NODE, which stays readable: *AT, of the node, or of
 * *OWN, which was read for the caller alone and is to be freed with the heap.
 * *AT NULL: the tree has left the node. */
BFT_MUST_CHECK bft_status bfti_node_borrow(struct bfti_tree *tree,
                                           const struct bfti_inner *node,
                                           const struct bfti_inner **at,
                                           struct bfti_inner **own);
/* Under the latch of KEY's leaf: is the content of its node there?  Then it is
 * until the latch is let go. */
bool bfti_tree_node_stays(struct bfti_tree *tree, struct bfti_rec *rec,
                          bft_slice key);
/* Drop content, that was not used lately and is on disk, until inner nodes and
 * MORE bytes are within their share; looks at STEPS nodes.  Waits for nobody. */
void bfti_nodes_drop(struct bfti_engine *engine, size_t more, size_t steps);
/* None is dropped from now on, for who needs that of several nodes at once; *KEPT
 * says that we asked for it.  And again. */
void bfti_nodes_keep(struct bfti_engine *engine, bool *kept);
void bfti_nodes_release(struct bfti_engine *engine, bool *kept);

/* --- recover.c, verify.c, background.c ------------------------------------ */

BFT_MUST_CHECK bft_status bfti_recover(struct bfti_engine *engine,
                                       struct bfti_rec *rec);
bool bfti_recover_log_named(void *engine, uint64_t place);
/* The directory that holds PATH's own name survives power loss. */
BFT_MUST_CHECK bft_status bfti_sync_parent(const struct bfti_env *env,
                                           struct bfti_vfs *vfs,
                                           const char *path);
/* A database id. */
void bfti_fill_id(const struct bfti_env *env, uint8_t id[16]);
BFT_MUST_CHECK bft_status bfti_verify(struct bfti_engine *engine,
                                      struct bfti_rec *rec);

BFT_MUST_CHECK bft_status bfti_background_start(struct bfti_engine *engine);
void bfti_background_stop(struct bfti_engine *engine);
void bfti_wake_evictor(struct bfti_engine *engine);
void bfti_wake_checkpointer(struct bfti_engine *engine);
/* Steps without waiting, for builds and databases without threads. */
/* Does more space wait for an image than is to wait for one? */
bool bfti_space_is_due(struct bfti_engine *engine);
/* Might one checkpoint make more space wait than that? */
bool bfti_space_staged(struct bfti_engine *engine);
/* Should writers wait for an image, for the file not to grow? */
bool bfti_space_is_full(struct bfti_engine *engine);
void bfti_background_run(struct bfti_engine *engine, struct bfti_rec *rec);
void bfti_queue_push(struct bfti_engine *engine, struct bfti_queue *queue,
                     uint64_t id);
bool bfti_queue_pop(struct bfti_engine *engine, struct bfti_queue *queue,
                    uint64_t *id);
/* Hook of buffer/. */
void bfti_note_small(void *engine);
/* A step of the sweep that lets small neighbours become one (sweep.c). */
BFT_MUST_CHECK bft_status bfti_sweep(struct bfti_engine *engine,
                                     struct bfti_rec *rec);

/* A step of the cleaner (clean.c) that looks at BYTES of the file, or some more.
 * *MORE: a pass is under way.  Does I/O; at the end of a pass it makes an image,
 * for which it WAITs while a checkpoint is under way, or goes without. */
BFT_MUST_CHECK bft_status bfti_clean(struct bfti_engine *engine,
                                     struct bfti_rec *rec, uint64_t bytes,
                                     bool wait, bool *more);
/* The same, for the checkpointer: no more of it than its budget allows by now. */
BFT_MUST_CHECK bft_status bfti_clean_within_budget(struct bfti_engine *engine,
                                                   struct bfti_rec *rec,
                                                   bool *more);

/* --- db.c, backup.c ------------------------------------------------------ */

/* DIR/NAME, to be freed with ENV. */
BFT_MUST_CHECK bft_status bfti_join_path(const struct bfti_env *env,
                                         const char *dir, const char *name,
                                         char **out);
/* The files that a backup of ENGINE goes to. */
BFT_MUST_CHECK bft_status bfti_copy_vfs(const struct bfti_engine *engine,
                                        bft_backup_to to,
                                        struct bfti_vfs **vfs);
/* Keep DB open: bft_close() refuses until it is unpinned. */
BFT_MUST_CHECK bft_status bfti_db_pin(bft_db *db, struct bfti_engine **engine);
void bfti_db_unpin(bft_db *db);
/* The name of a file that says so while a backup into its directory is not
 * finished; and a failure when the engine's has it, or holds an increment:
 * neither is a database. */
#define BFTI_UNFINISHED "backup-unfinished"
BFT_MUST_CHECK bft_status bfti_check_finished(struct bfti_engine *engine);

/* --- db.c: what salvage and backups need without an engine ---------------- */

/* GIVEN with defaults filled in, and the surroundings that it asks for. */
BFT_MUST_CHECK bft_status bfti_options_fill(const bft_options *given,
                                            bft_options *filled,
                                            const struct bfti_env **env,
                                            struct bfti_vfs **vfs);
/* Keep writers out of the database in PATH without changing a byte of it: *FILE
 * is to be closed, NULL when the directory has no lock file. */
BFT_MUST_CHECK bft_status bfti_lock_shared(const struct bfti_env *env,
                                           struct bfti_vfs *vfs,
                                           const char *path,
                                           struct bfti_file **file);
/* The same, and where files have no lock to be shared take it whole. */
BFT_MUST_CHECK bft_status bfti_lock_source(const struct bfti_env *env,
                                           struct bfti_vfs *vfs,
                                           const char *path,
                                           struct bfti_file **file);
/* Open DIR/NAME with FLAGS. */
BFT_MUST_CHECK bft_status bfti_open_name(const struct bfti_env *env,
                                         struct bfti_vfs *vfs, const char *dir,
                                         const char *name, int flags,
                                         struct bfti_file **file);
/* Only the surroundings; a database in memory may be meant too. */
BFT_MUST_CHECK bft_status bfti_options_vfs(const bft_options *given,
                                           const struct bfti_env **env,
                                           struct bfti_vfs **vfs);

/* Tests hand in surroundings through bft_options.internal. */
struct bfti_surroundings {
    const struct bfti_env *env; /* NULL: the system's */
    struct bfti_vfs *vfs;       /* NULL: as options.storage says */
    bool plain_heap;            /* all memory from ENV, none from the pool */
    size_t nodes_bytes; /* of inner nodes; 0: their share of the budget */
    bool small_deltas;  /* checkpoints write deltas of leaves of any size */
};

#endif
