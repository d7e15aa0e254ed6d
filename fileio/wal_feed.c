/*
 * Feeds: reading the log's frames while it is written.
 *
 * A feed reads what is settled: durable, so that no crash takes it back, and
 * published by whoever linked it.  It reads from the segments' files, which
 * have what was stored into a mapping too, and takes no lock for it.
 * Segments may be dropped meanwhile; a segment's struct says whether its file
 * was this segment all the while.  What holds the log back is only a feed that
 * asked for it, and not further than it said.
 */
#include "wal_internal.h"

#include <inttypes.h>
#include <string.h>

#include "error.h"
#include "fault.h"

/* A durable frame whose writer has not left: it does so within a few
 * instructions, or a step of I/O, and then wakes nobody. */
#define UNSETTLED_NS (UINT64_C(1000) * 1000)

struct bfti_wal_feed {
    struct bfti_wal *wal;
    struct bfti_wal_options options; /* for the reader */
    struct wal_reader reader;
    _Atomic uint64_t position;  /* [position] of the next frame */
    uint64_t hold_bytes;        /* fixed; 0: it does not hold the log */
    uint32_t incarnation;       /* of the last frame */
    bool begun;                 /* a frame was there where it was opened */
    struct bfti_wal_feed *next; /* of those that hold; under segment_lock */
};

/* --- holding ------------------------------------------------------------- */

uint64_t bfti_wal_hold_bound(struct bfti_wal *wal, uint64_t bound)
{
    for (struct bfti_wal_feed *feed = wal->holding; feed != NULL;
         feed = feed->next) {
        /* [position] It may grow meanwhile: then too much is kept, once. */
        uint64_t position = atomic_load(&feed->position);

        if (bfti_wal_end(wal) - position <= feed->hold_bytes &&
            position < bound)
            bound = position;
    }
    return bound;
}

/* From now on drops see the feed.  What is settled is asked under the lock, so
 * no drop comes between: none was further than that. */
static void take_place(struct bfti_wal_feed *feed, uint64_t lsn)
{
    struct bfti_wal *wal = feed->wal;

    bfti_mutex_lock(wal->env, &wal->segment_lock);
    atomic_store(&feed->position,
                 lsn == BFTI_WAL_NOW ? bfti_wal_settled(wal) : lsn);
    if (feed->hold_bytes > 0) {
        feed->next = wal->holding;
        wal->holding = feed;
    }
    bfti_mutex_unlock(wal->env, &wal->segment_lock);
}

static void leave_place(struct bfti_wal_feed *feed)
{
    struct bfti_wal *wal = feed->wal;
    struct bfti_wal_feed **at = &wal->holding;

    if (feed->hold_bytes == 0)
        return;
    bfti_mutex_lock(wal->env, &wal->segment_lock);
    while (*at != feed)
        at = &(*at)->next;
    *at = feed->next;
    bfti_mutex_unlock(wal->env, &wal->segment_lock);
}

/* --- open and close ------------------------------------------------------ */

static bft_status fail_no_frame(const struct bfti_wal *wal, uint64_t lsn)
{
    return bfti_fail(BFT_INVALID,
                     "%s: no commit ends at LSN %" PRIu64
                     " in a log from %" PRIu64 " to %" PRIu64,
                     wal->dir, lsn, atomic_load(&wal->first),
                     atomic_load(&wal->end));
}

static bft_status check_place(struct bfti_wal *wal, uint64_t lsn,
                              uint64_t hold_bytes)
{
    uint64_t most = bfti_wal_bytes_most(wal->segment_bytes);

    if (hold_bytes > most)
        return bfti_fail(BFT_INVALID,
                         "%s: a feed holds %" PRIu64
                         " bytes of the log at most, not %" PRIu64,
                         wal->dir, most, hold_bytes);
    if (lsn != BFTI_WAL_NOW &&
        (lsn % WAL_ALIGN != 0 || lsn > bfti_wal_end(wal)))
        return fail_no_frame(wal, lsn);
    return BFT_OK;
}

bft_status bfti_wal_feed_open(struct bfti_wal *wal, uint64_t lsn,
                              uint64_t hold_bytes, struct bfti_wal_feed **out)
{
    struct bfti_wal_entry entry;
    struct bfti_wal_feed *feed;
    bft_status status = check_place(wal, lsn, hold_bytes);

    *out = NULL;
    if (status != BFT_OK)
        return status;
    feed = bfti_alloc(wal->env, sizeof(*feed));
    if (feed == NULL)
        return bfti_fail(BFT_NO_MEMORY, "%s: a feed", wal->dir);
    memset(feed, 0, sizeof(*feed));
    feed->wal = wal;
    feed->hold_bytes = hold_bytes;
    feed->options = (struct bfti_wal_options){
        .env = wal->env,
        .vfs = wal->vfs,
        .dir = wal->dir,
        .segment_bytes = wal->segment_bytes,
    };
    feed->reader.options = &feed->options;
    feed->reader.wal = wal;
    feed->reader.chunk = WAL_FEED_CHUNK;
    take_place(feed, lsn);
    /* What is settled ends where a frame starts.  Of another place it is found
     * out now rather than at the first read. */
    feed->begun = lsn == BFTI_WAL_NOW;
    if (!feed->begun)
        status = bfti_wal_feed_read(feed, &entry);
    if (status != BFT_OK && status != BFT_NOT_FOUND && status != BFT_POISONED) {
        bfti_wal_feed_close(feed);
        return status;
    }
    *out = feed;
    return BFT_OK;
}

void bfti_wal_feed_close(struct bfti_wal_feed *feed)
{
    if (feed == NULL)
        return;
    leave_place(feed);
    bfti_wal_reader_close(&feed->reader);
    bfti_free(feed->wal->env, feed);
}

/* --- reading ------------------------------------------------------------- */

static bft_status fail_damaged(struct bfti_wal_feed *feed, uint64_t pos,
                               const char *why)
{
    struct bfti_wal *wal = feed->wal;
    char path[WAL_PATH_BYTES];

    bfti_wal_path(wal->dir, wal->segment_bytes, pos / wal->segment_bytes, path);
    return bfti_fail(BFT_CORRUPT,
                     "%s: byte %" PRIu64 ": %s, in a log that is durable up "
                     "to %" PRIu64,
                     path, pos % wal->segment_bytes, why,
                     bfti_wal_durable(wal));
}

bft_status bfti_wal_feed_read(struct bfti_wal_feed *feed,
                              struct bfti_wal_entry *entry)
{
    struct bfti_wal *wal = feed->wal;
    uint64_t pos = bfti_wal_feed_position(feed);
    struct wal_frame_view view;
    const char *why;
    bft_status status;

    memset(entry, 0, sizeof(*entry));
    feed->reader.limit = bfti_wal_settled(wal);
    if (pos == feed->reader.limit)
        feed->begun = true; /* a mark, or a slot: the next frame starts there */
    if (pos >= feed->reader.limit)
        return bfti_wal_poisoned(wal) && pos >= bfti_wal_durable(wal)
                   ? bfti_wal_fail_poisoned(wal)
                   : BFT_NOT_FOUND;
    status = bfti_wal_reader_frame(&feed->reader, pos, feed->incarnation, &view,
                                   &entry->payload, &why);
    if (status != BFT_OK)
        return status;
    if (why != NULL) {
        feed->reader.fill = 0; /* read it again when asked again */
        return feed->begun ? fail_damaged(feed, pos, why)
                           : fail_no_frame(wal, pos);
    }
    feed->begun = true;
    feed->incarnation = view.incarnation;
    entry->lsn = view.lsn;
    entry->end = view.end;
    entry->type = view.type;
    entry->len = view.len;
    return BFT_OK;
}

void bfti_wal_feed_pass(struct bfti_wal_feed *feed,
                        const struct bfti_wal_entry *entry)
{
    assert(entry->lsn == bfti_wal_feed_position(feed));
    assert(entry->end > entry->lsn);
    atomic_store(&feed->position, entry->end); /* [position] */
}

uint64_t bfti_wal_feed_position(const struct bfti_wal_feed *feed)
{
    return atomic_load(&feed->position);
}

/* --- waiting ------------------------------------------------------------- */

uint32_t bfti_wal_feed_watch(struct bfti_wal_feed *feed)
{
    return atomic_load(&feed->wal->sync_word);
}

void bfti_wal_feed_wait(struct bfti_wal_feed *feed, uint32_t watch,
                        uint64_t timeout_ns)
{
    struct bfti_wal *wal = feed->wal;

    /* Nobody wakes us when a writer leaves: that would cost each of them a
     * fence.  It is rare that a sync has ended and the writer has not. */
    if (bfti_wal_durable(wal) > bfti_wal_feed_position(feed) &&
        timeout_ns > UNSETTLED_NS)
        timeout_ns = UNSETTLED_NS;
    PARK("wal:feed-waits");
    bfti_wal_await(wal, watch, timeout_ns);
}
