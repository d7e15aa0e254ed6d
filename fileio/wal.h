/*
 * The write-ahead log: one endless sequence of bytes, cut into segment files
 * of one size; an LSN is a position in it.  Frames may cross segments.
 *
 * A frame is finished in private memory; one compare-and-swap links it behind
 * the last one and so fixes its LSN.  Linked frames are copied into the file
 * by whoever needs them there, in order; copying is idempotent.
 */
#ifndef BFTI_WAL_H
#define BFTI_WAL_H

#include "env.h"
#include "vfs.h"

struct bfti_wal;
struct bfti_frame;

/* One per thread and log, embedded in the caller's thread record.  Zeroed
 * before attach; stays until the log is closed. */
struct bfti_wal_thread {
    _Atomic(struct bfti_frame *) hazard[2]; /* tail linked to; frame copied */
    /* One of its own that it lets others look at, and one of another's that it
     * looks at.  [shown] */
    _Atomic(struct bfti_frame *) shown, looked;
    _Atomic uint64_t in_flight; /* UINT64_MAX: none; else no frame of this
                                   thread lies below it */
    _Atomic bool attached;
    struct bfti_wal_thread *_Atomic next; /* fixed once attached */
    _Atomic uint64_t frames; /* linked; owner adds, statistics read */
    /* Owner only, until the log is closed. */
    struct bfti_frame *retired; /* copied frames, perhaps still named */
    size_t retired_bytes;       /* added since they were last looked at */
};

struct bfti_wal_options {
    const struct bfti_env *env;
    struct bfti_vfs *vfs;
    const char *dir;        /* of the database; copied */
    uint64_t segment_bytes; /* a multiple of 4 KiB, 1 GiB at most; fixed at
                               creation */
    bool map;               /* map segments for append where possible */
    bool damaged;           /* bfti_wal_salvage: names that are no segment's are
                               passed over */
    bool nowhere; /* bfti_wal_open: nothing is kept.  A frame is gone once it is
                     linked, positions stay what they are, and there are no
                     segments: of all calls those for writers work */
};
/* Can a log's segments have so many bytes? */
bool bfti_wal_segment_bytes_valid(uint64_t bytes);

enum { BFTI_FRAME_HEADER = 40 };

/* --- recovery ------------------------------------------------------------ */

/* What recovery found.  END is the cut: where the next frame will go. */
struct bfti_wal_found {
    uint64_t end;
    uint64_t highest_mark;    /* highest durable mark in any valid frame */
    uint32_t max_incarnation; /* highest seen in any valid frame */
    uint64_t frames;
};

/*
 * Read all frames from START on and call EACH for every valid one in order
 * (EACH may be NULL; it stops the scan by returning a failure).  The torn tail
 * ends the scan; an invalid frame below SB_MARK or below the durable mark of a
 * later valid frame is BFT_CORRUPT, with segment path and offset, and so is a
 * segment that was cut short.  A frame of an older incarnation after a newer one
 * ends the log.
 * Writes nothing.
 */
BFT_MUST_CHECK bft_status bfti_wal_scan(
    const struct bfti_wal_options *options, uint64_t start, uint64_t sb_mark,
    bft_status (*each)(void *arg, uint64_t lsn, uint8_t type,
                       const void *payload, size_t len),
    void *arg, struct bfti_wal_found *found);

/* Whom bfti_wal_salvage tells; each may be NULL, and stops it by returning a
 * failure. */
struct bfti_wal_salvage_calls {
    void *arg;
    bft_status (*frame)(void *arg, uint64_t lsn, uint8_t type,
                        const void *payload, size_t len);
    /* The bytes from FROM to TO are lost, because of WHY at FROM. */
    bft_status (*gap)(void *arg, uint64_t from, uint64_t to, const char *why);
};
struct bfti_wal_salvaged {
    uint64_t frames, gaps, gap_bytes;
    uint64_t first;       /* position of the first frame; END when none */
    uint64_t unbroken;    /* from here to END no frame is missing */
    uint64_t end;         /* behind the last frame, or what was durable */
    bool segment_missing; /* between the one of FIRST and the newest */
};
#define BFTI_WAL_OLDEST UINT64_MAX

/*
 * Read a damaged log: as bfti_wal_scan, but where that says BFT_CORRUPT the
 * frames are looked for again further on.  What follows the torn tail, which no
 * durable mark speaks of, is left out here too.  START may be
 * BFTI_WAL_OLDEST: from the first frame that there is, in any segment.
 *
 * A frame of an older incarnation than one before it is passed over.
 * Errors: BFT_NO_MEMORY, BFT_IO, BFT_INVALID (segment_bytes), those of CALLS.
 */
BFT_MUST_CHECK bft_status bfti_wal_salvage(
    const struct bfti_wal_options *options, uint64_t start, uint64_t sb_mark,
    const struct bfti_wal_salvage_calls *calls, struct bfti_wal_salvaged *out);
/* What the segments in options->dir seem to have, when no superblock tells: 0
 * when there are none.  options->segment_bytes is not used. */
BFT_MUST_CHECK bft_status bfti_wal_guess_segment_bytes(
    const struct bfti_wal_options *options, uint64_t *segment_bytes);

/*
 * Make the log ready for appends at END with INCARNATION.  Existing segments
 * from FIRST_NEEDED (the redo start) on are kept, others become spares.  Bytes
 * from REWRITE_FROM (the highest mark known) to END are written anew and
 * synced, so that nothing rests on what only the page cache holds.
 */
BFT_MUST_CHECK bft_status bfti_wal_open(const struct bfti_wal_options *options,
                                        uint64_t first_needed,
                                        uint64_t rewrite_from, uint64_t end,
                                        uint32_t incarnation,
                                        struct bfti_wal **out);
void bfti_wal_close(struct bfti_wal *wal); /* syncs nothing */

/* --- threads ------------------------------------------------------------- */

void bfti_wal_attach(struct bfti_wal *wal, struct bfti_wal_thread *thread);

/* Before a thread links frames: note in its in-flight slot a position that its
 * frames will not lie below.  Cleared by _leave, after publishing and copying.
 * Calls do not nest. */
void bfti_wal_enter(struct bfti_wal *wal, struct bfti_wal_thread *thread);
void bfti_wal_leave(struct bfti_wal *wal, struct bfti_wal_thread *thread);

/* --- appending ----------------------------------------------------------- */

/* A frame with room for LEN payload bytes at *PAYLOAD, owned by the caller
 * until linked; bfti_frame_free gives an unlinked one back. */
BFT_MUST_CHECK bft_status bfti_frame_create(struct bfti_wal *wal, uint8_t type,
                                            size_t len,
                                            struct bfti_frame **frame,
                                            void **payload);
void bfti_frame_free(struct bfti_wal *wal, struct bfti_frame *frame);
/* The payload is complete: checksum it (outside any latch). */
void bfti_frame_seal(struct bfti_wal *wal, struct bfti_frame *frame);

/*
 * Link a sealed frame; *LSN is its position, *END the position behind it.
 * Does no I/O, allocates nothing, waits for nobody, cannot fail.  The log owns
 * the frame from here.  Between enter and leave.
 */
void bfti_wal_link(struct bfti_wal *wal, struct bfti_wal_thread *thread,
                   struct bfti_frame *frame, uint64_t *lsn, uint64_t *end);

/*
 * Show a sealed frame, which is then linked or given back by bfti_frame_drop:
 * until _hide others may look what is in it.  One at a time.
 */
void bfti_wal_show(struct bfti_wal_thread *thread, struct bfti_frame *frame);
void bfti_wal_hide(struct bfti_wal_thread *thread);
/* An unlinked frame that was shown, and is hidden again: it goes once nobody looks
 * at it. */
void bfti_frame_drop(struct bfti_wal *wal, struct bfti_wal_thread *thread,
                     struct bfti_frame *frame);
/* The payload of the frame that THEIRS shows, LEN bytes, readable until
 * MINE looks away; NULL: it shows none.  Waits for nobody. */
const void *bfti_wal_look(struct bfti_wal_thread *mine,
                          struct bfti_wal_thread *theirs, size_t *len);
void bfti_wal_look_away(struct bfti_wal_thread *mine);

/* Copy linked frames into the file until the copied mark is at least UPTO
 * (a process kill then loses none of them).  Between enter and leave, so that
 * no segment under it is dropped.  May prepare a segment.
 * Errors: BFT_NO_SPACE, BFT_IO. */
BFT_MUST_CHECK bft_status bfti_wal_copy(struct bfti_wal *wal,
                                        struct bfti_wal_thread *thread,
                                        uint64_t upto);
/*
 * The same for frames that a kill may take: only if more than BYTES below UPTO
 * are not in the file yet, and, up to four times that, only if nobody else is
 * about it.  So linked frames stay within a bound, and threads that link do not
 * fight for the copied mark each time.
 */
BFT_MUST_CHECK bft_status bfti_wal_copy_behind(struct bfti_wal *wal,
                                               struct bfti_wal_thread *thread,
                                               uint64_t upto, uint64_t bytes);

/*
 * Return when the log is durable up to UPTO: one waiter copies and syncs for
 * all, the others sleep.  After a failed sync: BFT_POISONED for ever.
 * Not between enter and leave (it enters itself to copy).
 */
BFT_MUST_CHECK bft_status bfti_wal_sync(struct bfti_wal *wal,
                                        struct bfti_wal_thread *thread,
                                        uint64_t upto);

/* --- positions ----------------------------------------------------------- */

uint64_t bfti_wal_end(struct bfti_wal *wal);     /* behind the last link */
uint64_t bfti_wal_copied(struct bfti_wal *wal);  /* copied mark */
uint64_t bfti_wal_durable(struct bfti_wal *wal); /* durable mark */
/* Below it every frame is durable, and whoever linked it has left: what it
 * logged is published.  Never falls. */
uint64_t bfti_wal_settled(struct bfti_wal *wal);
/* The log is kept from here on, for certain; a frame starts there. */
uint64_t bfti_wal_first(struct bfti_wal *wal);
/* Lowest in-flight slot, UINT64_MAX when all are clear.  For a redo start read
 * the end first, then this, then the leaves; for dropping log, copied first. */
uint64_t bfti_wal_lowest_in_flight(struct bfti_wal *wal);
bool bfti_wal_poisoned(struct bfti_wal *wal);
void bfti_wal_poison(struct bfti_wal *wal); /* a page-file sync failed */

/* Segments wholly below LSN, the copied mark and every in-flight slot become
 * spares for reuse (renamed into the log's future, not zeroed again) or, past
 * a few, are removed. */
BFT_MUST_CHECK bft_status bfti_wal_drop_below(struct bfti_wal *wal,
                                              uint64_t lsn);
/* From now on drop nothing at or above LSN, which was not dropped yet;
 * UINT64_MAX: no longer.  One caller at a time. */
void bfti_wal_keep(struct bfti_wal *wal, uint64_t lsn);
/*
 * Write the bytes of [FROM, UPTO), which are durable and which bfti_wal_keep
 * keeps, into segments of a log in DIR of VFS, which has none yet; sync them,
 * not their names.  Bytes of these segments outside that range are zeros.
 *
 * Memory:  1 MiB.
 * Threads: while others append.
 * Errors:  BFT_NO_SPACE, BFT_IO, BFT_NO_MEMORY, BFT_EXISTS.
 */
BFT_MUST_CHECK bft_status bfti_wal_export(struct bfti_wal *wal, uint64_t from,
                                          uint64_t upto, struct bfti_vfs *vfs,
                                          const char *dir);
/* What a log with such segments is to have at most: half of what it can, so that
 * feeds can hold as much again. */
uint64_t bfti_wal_bytes_most(uint64_t segment_bytes);
/* A background step: have the next segment ready before it is needed. */
BFT_MUST_CHECK bft_status bfti_wal_prepare(struct bfti_wal *wal);

/* Before anything is published: have segments for a frame of BYTES, so that a
 * full disk refuses the write instead of leaving it visible and not logged. */
BFT_MUST_CHECK bft_status bfti_wal_make_room(struct bfti_wal *wal,
                                             size_t bytes);

/* --- feeds --------------------------------------------------------------- */

/* A reader of settled frames beside all else.  One thread at a time; to be
 * closed before the log is. */
struct bfti_wal_feed;
#define BFTI_WAL_NOW UINT64_MAX

/*
 * A feed at LSN, where a frame starts or will start; BFTI_WAL_NOW: at what is
 * settled.  Segments are kept for it while it is at most HOLD_BYTES behind the
 * end; 0: they are not.
 * Errors: BFT_GONE, BFT_INVALID (no frame starts there, or the hold is more
 * than a log can have), BFT_IO, BFT_NO_MEMORY.
 */
BFT_MUST_CHECK bft_status bfti_wal_feed_open(struct bfti_wal *wal, uint64_t lsn,
                                             uint64_t hold_bytes,
                                             struct bfti_wal_feed **out);
void bfti_wal_feed_close(struct bfti_wal_feed *feed);

struct bfti_wal_entry {
    uint64_t lsn, end; /* where the frame starts, and the next one does */
    uint8_t type;
    const uint8_t *payload; /* until the feed's next use */
    size_t len;
};
/*
 * The frame that the feed is at; it stays there until _pass.
 * Errors: BFT_NOT_FOUND, without a text: nothing more is settled.
 *         BFT_POISONED:
 * nor will be.  BFT_GONE: it was dropped.  BFT_INVALID: no frame starts where
 * the feed was opened.  BFT_CORRUPT with segment and offset, BFT_IO,
 * BFT_NO_MEMORY.
 */
BFT_MUST_CHECK bft_status bfti_wal_feed_read(struct bfti_wal_feed *feed,
                                             struct bfti_wal_entry *entry);
void bfti_wal_feed_pass(struct bfti_wal_feed *feed,
                        const struct bfti_wal_entry *entry);
uint64_t bfti_wal_feed_position(const struct bfti_wal_feed *feed);

/* To wait for more: ask _watch, then look for what is awaited, then _wait,
 * which returns early if a flush has ended, or somebody nudged, since _watch.
 * */
uint32_t bfti_wal_feed_watch(struct bfti_wal_feed *feed);
void bfti_wal_feed_wait(struct bfti_wal_feed *feed, uint32_t watch,
                        uint64_t timeout_ns);
/* Wake all who sleep in _wait, to look again. */
void bfti_wal_nudge(struct bfti_wal *wal);

struct bfti_wal_stats {
    uint64_t frames, bytes, syncs, sync_waits, segments_made, segments_reused;
};
void bfti_wal_stats(struct bfti_wal *wal, struct bfti_wal_stats *out);

#endif
