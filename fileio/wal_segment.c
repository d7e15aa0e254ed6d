/*
 * Segment files of the log: making them ahead of need, reusing old ones,
 * storing into them, syncing and dropping them; and what opening a log does
 * with the files it finds.
 *
 * A segment is written full of zeros and synced before it gets the name under
 * which it belongs to the log, so a store into its mapping cannot meet a full
 * disk as a signal, and a later sync writes data only.  A segment that the log
 * no longer needs keeps its file and old bytes: they become a later segment by
 * a rename, because a frame names its own position and so an old one is no
 * frame at the new place.
 */
#include "wal_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "error.h"
#include "fault.h"

static_assert(sizeof(_Atomic uint64_t) == sizeof(uint64_t),
              "a mapped segment is stored to as an array of atomics");
static_assert(WAL_SEGMENT_BYTES_MAX <= SIZE_MAX / 2, "it can be mapped");

/* What a new segment is filled from.  Nobody writes it. */
static uint8_t zeros[1 << 16];

/* --- names --------------------------------------------------------------- */

bft_status bfti_wal_check_dir(const char *dir)
{
    if (strlen(dir) + sizeof("/log-0123456789abcdef") <= WAL_PATH_BYTES)
        return BFT_OK;
    return bfti_fail(BFT_INVALID,
                     "%.40s...: the path of the database is "
                     "too long for its log",
                     dir);
}

void bfti_wal_path(const char *dir, uint64_t segment_bytes, uint64_t index,
                   char path[WAL_PATH_BYTES])
{
    (void)snprintf(path, WAL_PATH_BYTES, "%s/log-%016" PRIx64, dir,
                   index * segment_bytes);
}

static void segment_path(const struct bfti_wal *wal, uint64_t index,
                         char path[WAL_PATH_BYTES])
{
    bfti_wal_path(wal->dir, wal->segment_bytes, index, path);
}

/* --- the table of segments ----------------------------------------------- */

static _Atomic(struct wal_table *) *table_of(struct bfti_wal *wal,
                                             uint64_t index)
{
    return &wal->table[index >> WAL_TABLE_BITS & (WAL_TABLE - 1)];
}

/* Segment INDEX, or NULL when there is none.  Whoever stores to it has an
 * in-flight slot that keeps it from being dropped. */
static struct wal_segment *segment_find(struct bfti_wal *wal, uint64_t index)
{
    struct wal_table *table;
    struct wal_segment *segment;

    /* [segment] acquire, all three: pair with the releases in
     * segment_install().  Who reads INDEX in a struct sees its file and its
     * mapping; one that was given another index meanwhile is passed over. */
    table = atomic_load_explicit(table_of(wal, index), memory_order_acquire);
    if (table == NULL)
        return NULL;
    segment = atomic_load_explicit(&table->at[index & (WAL_TABLE - 1)],
                                   memory_order_acquire);
    if (segment == NULL ||
        atomic_load_explicit(&segment->index, memory_order_acquire) != index)
        return NULL;
    return segment;
}

/* Make sure that segment INDEX has an entry in the table. */
static bft_status table_reserve(struct bfti_wal *wal, uint64_t index)
{
    struct wal_table *table;

    if (index - wal->oldest >= WAL_SEGMENTS_MAX)
        return bfti_fail(BFT_NO_SPACE,
                         "%s: the log has %" PRIu64 " segments of %" PRIu64
                         " bytes, and cannot have more until a checkpoint",
                         wal->dir, WAL_SEGMENTS_MAX, wal->segment_bytes);
    if (atomic_load(table_of(wal, index)) != NULL)
        return BFT_OK;
    table = bfti_alloc(wal->env, sizeof(*table));
    if (table == NULL)
        return bfti_fail(BFT_NO_MEMORY,
                         "%s: no memory for a table of log segments", wal->dir);
    for (size_t i = 0; i < WAL_TABLE; i++)
        atomic_init(&table->at[i], NULL);
    atomic_store(table_of(wal, index), table); /* [segment] */
    return BFT_OK;
}

uint64_t bfti_wal_bytes_most(uint64_t segment_bytes)
{
    return WAL_SEGMENTS_MAX / 2 * segment_bytes;
}

/* Under segment_lock; SEGMENT is complete and its entry reserved. */
static void segment_install(struct bfti_wal *wal, struct wal_segment *segment,
                            uint64_t index)
{
    struct wal_table *table = atomic_load(table_of(wal, index));

    assert(segment->file != NULL && segment->name == index);
    assert(segment_find(wal, index) == NULL);
    /* [segment] release: pairs with the acquires in segment_find(). */
    atomic_store_explicit(&segment->index, index, memory_order_release);
    atomic_store_explicit(&table->at[index & (WAL_TABLE - 1)], segment,
                          memory_order_release);
}

/* Under segment_lock: segment INDEX leaves the log.  The table goes on to lead to
 * it, and who gets there finds the index gone. */
static struct wal_segment *segment_detach(struct bfti_wal *wal, uint64_t index)
{
    struct wal_segment *segment = segment_find(wal, index);

    /* Below the durable mark: it was stored to, or was there at the opening. */
    assert(segment != NULL);
    atomic_store(&segment->index, WAL_NO_SEGMENT);
    return segment;
}

/* --- structs and files --------------------------------------------------- */

/* Under segment_lock. */
static bft_status segment_create(struct bfti_wal *wal, struct wal_segment **out)
{
    struct wal_segment *segment = wal->vacant;

    *out = segment;
    if (segment != NULL) {
        wal->vacant = segment->next;
        return BFT_OK;
    }
    segment = bfti_alloc(wal->env, sizeof(*segment));
    if (segment == NULL)
        return bfti_fail(BFT_NO_MEMORY, "%s: no memory for a log segment",
                         wal->dir);
    memset(segment, 0, sizeof(*segment));
    atomic_init(&segment->index, WAL_NO_SEGMENT);
    atomic_init(&segment->readers, 0);
    segment->all = wal->all;
    wal->all = segment;
    *out = segment;
    return BFT_OK;
}

/* Nobody stores to SEGMENT any more. */
static void segment_unmap(struct bfti_wal *wal, struct wal_segment *segment)
{
    if (segment->addr != NULL)
        segment->file->ops->unmap(segment->file, segment->addr,
                                  (size_t)wal->segment_bytes);
    segment->addr = NULL;
}

/* Close the file of a segment that is not in the log. */
static void segment_close(struct bfti_wal *wal, struct wal_segment *segment)
{
    if (segment->file == NULL)
        return;
    segment_unmap(wal, segment);
    segment->file->ops->close(segment->file);
    segment->file = NULL;
}

/* Under segment_lock: SEGMENT's struct waits for another file. */
static void segment_vacate(struct bfti_wal *wal, struct wal_segment *segment)
{
    segment_close(wal, segment);
    segment->next = wal->vacant;
    wal->vacant = segment;
}

/* Map SEGMENT where that is wanted.  Where it cannot be done, be it that the
 * file was copied with holes and the disk is full, the segment is written by
 * system calls: slower, and nothing else. */
static void segment_map(struct bfti_wal *wal, struct wal_segment *segment)
{
    if (!wal->map || segment->addr != NULL)
        return;
    if (segment->file->ops->map(segment->file, (size_t)wal->segment_bytes,
                                &segment->addr) != BFT_OK)
        segment->addr = NULL;
}

static bft_status fill_zeros(struct bfti_file *file, uint64_t bytes)
{
    for (uint64_t at = 0; at < bytes; at += sizeof(zeros)) {
        size_t n =
            bytes - at < sizeof(zeros) ? (size_t)(bytes - at) : sizeof(zeros);
        bft_status status = file->ops->write(file, at, zeros, n);

        if (status != BFT_OK)
            return status;
    }
    return BFT_OK;
}

/* A crash may have left more, when segments were to be longer. */
static bft_status cut_to(struct bfti_file *file, uint64_t bytes)
{
    uint64_t had;
    bft_status status = file->ops->size(file, &had);

    if (status != BFT_OK || had <= bytes)
        return status;
    return file->ops->truncate(file, bytes);
}

/* A new file under a name that recovery passes over, full and durable. */
static bft_status file_create(struct bfti_wal *wal, const char *path,
                              struct bfti_file **out)
{
    struct bfti_file *file;
    bft_status status =
        wal->vfs->ops->open(wal->vfs, path, BFTI_OPEN_CREATE, &file);

    *out = NULL;
    if (status != BFT_OK)
        return status;
    status = cut_to(file, wal->segment_bytes);
    if (status == BFT_OK)
        status = fill_zeros(file, wal->segment_bytes);
    if (status == BFT_OK)
        status = file->ops->sync(file);
    if (status == BFT_OK) {
        *out = file;
        return BFT_OK;
    }
    file->ops->close(file);
    /* Not left behind half-written: the disk may be full, and a sync that
     * failed once may succeed the next time without having written anything.
     * The failure that counts is the first one. */
    if (wal->vfs->ops->remove(wal->vfs, path) != BFT_OK)
        (void)bfti_fail(status, "%s: cannot make a log segment", path);
    return status;
}

/* Rename SEGMENT's file from FROM to the name of segment INDEX.  After a sync
 * of the directory that failed nobody knows which name it has on disk, and a
 * second sync may wrongly succeed: the log is poisoned.  Of one that did not
 * begin, as a process may be out of descriptors, the rename is taken back. */
static bft_status file_rename(struct bfti_wal *wal, struct wal_segment *segment,
                              const char *from, uint64_t index)
{
    struct bfti_vfs *vfs = wal->vfs;
    char to[WAL_PATH_BYTES];
    bft_status status;

    segment_path(wal, index, to);
    status = vfs->ops->rename(vfs, from, to);
    if (status != BFT_OK)
        return status;
    status = vfs->ops->sync_dir(vfs, wal->dir);
    if (status == BFT_NO_MEMORY && vfs->ops->rename(vfs, to, from) == BFT_OK)
        return status;
    segment->name = index;
    if (status != BFT_OK)
        bfti_wal_poison(wal);
    return status;
}

/* --- making segments ----------------------------------------------------- */

/* The first spare goes: its file was taken away by somebody else. */
static void spare_forget(struct bfti_wal *wal)
{
    struct wal_segment *spare = wal->spares;

    wal->spares = spare->next;
    wal->spare_count--;
    segment_vacate(wal, spare);
}

/* *GONE: the spare was of no use, and is forgotten. */
static bft_status make_from_spare(struct bfti_wal *wal, uint64_t index,
                                  bool *gone)
{
    struct wal_segment *spare = wal->spares;
    char from[WAL_PATH_BYTES];
    bft_status status;

    segment_path(wal, spare->name, from);
    status = file_rename(wal, spare, from, index);
    /* [reader] A feed that still reads it is soon done: then it is forgotten. */
    *gone = status == BFT_NOT_FOUND && !bfti_wal_poisoned(wal) &&
            atomic_load(&spare->readers) == 0;
    if (*gone)
        spare_forget(wal);
    if (status != BFT_OK)
        return status; /* still a spare, under whatever name it has */
    wal->spares = spare->next;
    wal->spare_count--;
    segment_map(wal, spare);
    segment_install(wal, spare, index);
    atomic_fetch_add_explicit(&wal->segments_reused, 1, memory_order_relaxed);
    return BFT_OK;
}

static bft_status make_new(struct bfti_wal *wal, uint64_t index)
{
    struct wal_segment *segment;
    char path[WAL_PATH_BYTES];
    bft_status status = segment_create(wal, &segment);

    if (status != BFT_OK)
        return status;
    (void)snprintf(path, sizeof(path), "%s/log-new", wal->dir);
    status = file_create(wal, path, &segment->file);
    if (status == BFT_OK)
        status = file_rename(wal, segment, path, index);
    if (status != BFT_OK)
        goto vacate_segment;
    segment_map(wal, segment);
    segment_install(wal, segment, index);
    atomic_fetch_add_explicit(&wal->segments_made, 1, memory_order_relaxed);
    return BFT_OK;

vacate_segment:
    segment_vacate(wal, segment);
    return status;
}

/* Under segment_lock: have segment INDEX. */
static bft_status segment_make(struct bfti_wal *wal, uint64_t index)
{
    bft_status status;
    bool gone = true;

    assert(index >= wal->oldest);
    if (segment_find(wal, index) != NULL)
        return BFT_OK;
    if (bfti_wal_poisoned(wal))
        return bfti_fail(BFT_POISONED,
                         "%s: the log takes no new segment after "
                         "a sync that failed",
                         wal->dir);
    status = table_reserve(wal, index);
    if (status != BFT_OK)
        return status;
    while (gone && wal->spares != NULL)
        status = make_from_spare(wal, index, &gone);
    if (gone)
        status = make_new(wal, index);
    /* Not what a caller takes for a key that is not there. */
    return status == BFT_NOT_FOUND
               ? bfti_fail_in(BFT_IO, "the log's directory is gone")
               : status;
}

/* Segment INDEX; made now when it is missing.  The caller's in-flight slot
 * keeps it in the log. */
static bft_status segment_get(struct bfti_wal *wal, uint64_t index,
                              struct wal_segment **out)
{
    bft_status status;

    *out = segment_find(wal, index);
    if (*out != NULL)
        return BFT_OK;
    bfti_mutex_lock(wal->env, &wal->segment_lock);
    status = segment_make(wal, index);
    *out = segment_find(wal, index);
    bfti_mutex_unlock(wal->env, &wal->segment_lock);
    return status;
}

/* Make those of the segments FIRST to LAST that are missing. */
static bft_status segments_make(struct bfti_wal *wal, uint64_t first,
                                uint64_t last)
{
    bft_status status = BFT_OK;

    for (uint64_t i = first; status == BFT_OK && i <= last; i++) {
        if (segment_find(wal, i) != NULL)
            continue;
        PARK("wal:segment-missed");
        bfti_mutex_lock(wal->env, &wal->segment_lock);
        /* Without an in-flight slot the log may have been dropped that far. */
        if (i >= wal->oldest)
            status = segment_make(wal, i);
        bfti_mutex_unlock(wal->env, &wal->segment_lock);
    }
    return status;
}

bft_status bfti_wal_prepare(struct bfti_wal *wal)
{
    uint64_t index = bfti_wal_copied(wal) / wal->segment_bytes;

    return wal->nowhere ? BFT_OK : segments_make(wal, index, index + 1);
}

bft_status bfti_wal_make_room(struct bfti_wal *wal, size_t bytes)
{
    /* A quarter more than asked for: others may link in the meantime. */
    uint64_t last = (bfti_wal_end(wal) + bytes + BFTI_FRAME_HEADER +
                     wal->segment_bytes / 4) /
                    wal->segment_bytes;
    uint64_t first = bfti_wal_copied(wal) / wal->segment_bytes;

    if (wal->nowhere || segment_find(wal, last) != NULL)
        return BFT_OK;
    return segments_make(wal, first, last);
}

/* --- storing ------------------------------------------------------------- */

/* Copiers of the same frame store the same words; as atomics these stores are
 * no race, and a store of an aligned word is what memcpy would do anyway. */
static void store_words(void *to, const void *from, size_t len)
{
    _Atomic uint64_t *target = to;
    const uint64_t *source = from;

    for (size_t i = 0; i < len / sizeof(*source); i++)
        atomic_store_explicit(&target[i], source[i], memory_order_relaxed);
}

bft_status bfti_segments_store(struct bfti_wal *wal, uint64_t lsn,
                               const void *bytes, size_t len)
{
    const uint8_t *from = bytes;

    assert(lsn % WAL_ALIGN == 0 && len % WAL_ALIGN == 0);
    while (len > 0) {
        uint64_t offset = lsn % wal->segment_bytes;
        uint64_t left = wal->segment_bytes - offset;
        size_t n = len < left ? len : (size_t)left;
        struct wal_segment *segment;
        bft_status status =
            segment_get(wal, lsn / wal->segment_bytes, &segment);

        if (status != BFT_OK)
            return status;
        PARK("wal:segment-found");
        if (segment->addr != NULL)
            store_words((uint8_t *)segment->addr + offset, from, n);
        else
            status = segment->file->ops->write(segment->file, offset, from, n);
        if (status != BFT_OK)
            return status;
        lsn += n;
        from += n;
        len -= n;
    }
    return BFT_OK;
}

/* --- reading an open log ------------------------------------------------- */

/* Segment INDEX, whose file stays open until _unpin; NULL: it was dropped. */
static struct wal_segment *segment_pin(struct bfti_wal *wal, uint64_t index)
{
    struct wal_segment *segment = segment_find(wal, index);

    if (segment == NULL)
        return NULL;
    PARK("wal:segment-chosen");
    /* [reader] sequentially consistent, both: either the index tells us that
     * the segment has left the log, or who takes it out sees that its file is
     * read, and does not close it. */
    atomic_fetch_add(&segment->readers, 1);
    if (atomic_load(&segment->index) == index)
        return segment;
    atomic_fetch_sub(&segment->readers, 1);
    return NULL;
}

/* True: it was segment INDEX all the time.  A file is written for another
 * index only after its struct has lost this one, which it never gets again. */
static bool segment_unpin(struct wal_segment *segment, uint64_t index)
{
    bool same = atomic_load(&segment->index) == index; /* [reader] */

    atomic_fetch_sub(&segment->readers, 1);
    return same;
}

static bft_status fail_dropped(struct bfti_wal *wal, uint64_t lsn)
{
    return bfti_fail(BFT_GONE,
                     "%s: the log was dropped up to %" PRIu64 ", and %" PRIu64
                     " lies before that",
                     wal->dir, atomic_load(&wal->first), lsn);
}

bft_status bfti_segments_read(struct bfti_wal *wal, uint64_t lsn, void *buf,
                              size_t len)
{
    uint8_t *to = buf;

    while (len > 0) {
        uint64_t index = lsn / wal->segment_bytes;
        uint64_t offset = lsn % wal->segment_bytes;
        uint64_t left = wal->segment_bytes - offset;
        size_t n = len < left ? len : (size_t)left, got;
        struct wal_segment *segment = segment_pin(wal, index);
        bft_status status;

        if (segment == NULL)
            return fail_dropped(wal, lsn);
        PARK("wal:segment-pinned");
        status = segment->file->ops->read(segment->file, offset, to, n, &got);
        if (status == BFT_OK && got < n)
            status = bfti_wal_short_read(segment->file, wal->dir, offset, got);
        PARK("wal:segment-read");
        if (!segment_unpin(segment, index))
            return fail_dropped(wal, lsn);
        if (status != BFT_OK)
            return status;
        /* Segments are full from the start: what is missing was cut off, and
         * as zeros it is no frame. */
        memset(to + got, 0, n - got);
        lsn += n;
        to += n;
        len -= n;
    }
    return BFT_OK;
}

/* --- syncing ------------------------------------------------------------- */

bft_status bfti_segments_sync(struct bfti_wal *wal, uint64_t from, uint64_t to)
{
    /* As in bfti_wal_drop_below(): TO is a copied mark, read before the slots.
     * What lies below both is not stored to any more, be it once again. */
    uint64_t slots = bfti_wal_lowest_in_flight(wal);
    uint64_t past = to < slots ? to : slots;

    assert(from < to);
    for (uint64_t i = from / wal->segment_bytes;
         i <= (to - 1) / wal->segment_bytes; i++) {
        struct wal_segment *segment = segment_find(wal, i);
        char path[WAL_PATH_BYTES];
        bft_status status;

        assert(segment != NULL);
        /* Of a mapped file the system takes the permission to write from each
         * page before it writes it, and tells all processors, one page at a
         * time. */
        if (past / wal->segment_bytes > i)
            segment_unmap(wal, segment);
        status = segment->file->ops->sync(segment->file);
        if (status == BFT_OK)
            continue;
        /* The file may have had another name when it was opened. */
        segment_path(wal, i, path);
        return bfti_fail(status, "%s: the sync of the log failed", path);
    }
    return BFT_OK;
}

/* --- dropping ------------------------------------------------------------ */

/* Under segment_lock: take all segments wholly below BOUND out of the log, as
 * many as wanted as spares; the others are returned, chained by `next`. */
static struct wal_segment *detach_below(struct bfti_wal *wal, uint64_t bound)
{
    struct wal_segment *excess = NULL;

    while (wal->oldest < bound / wal->segment_bytes) {
        struct wal_segment *segment = segment_detach(wal, wal->oldest);

        wal->oldest++;
        /* [reader] A file that a feed is reading stays open as a spare, be
         * there enough of them or not. */
        if (wal->spare_count < WAL_SPARES_MAX ||
            atomic_load(&segment->readers) > 0) {
            segment->next = wal->spares;
            wal->spares = segment;
            wal->spare_count++;
        } else {
            segment->next = excess;
            excess = segment;
        }
    }
    return excess;
}

bft_status bfti_wal_drop_below(struct bfti_wal *wal, uint64_t lsn)
{
    struct wal_segment *excess;
    bft_status status = BFT_OK;
    uint64_t bound, slots;

    if (bfti_wal_poisoned(wal))
        return bfti_fail(BFT_POISONED,
                         "%s: no log is dropped after a sync "
                         "that failed",
                         wal->dir);
    /* First the marks, then the slots: a thread that enters after we looked at
     * its slot copies from a mark that is not below ours.  The durable mark is
     * never above the copied one; with it as the bound the flusher meets every
     * segment that it has to sync. */
    bound = bfti_wal_durable(wal);
    PARK("wal:marks-read");
    slots = bfti_wal_lowest_in_flight(wal);
    PARK("wal:slots-read");
    if (!bfti_fault_on(BFTI_FAULT_LOG_SLOTS_UNSEEN))
        bound = bound < slots ? bound : slots;
    bound = bound < lsn ? bound : lsn;

    bfti_mutex_lock(wal->env, &wal->segment_lock);
    if (bound > wal->kept_from)
        bound = wal->kept_from;
    bound = bfti_wal_hold_bound(wal, bound);
    if (bound > atomic_load(&wal->first))
        atomic_store(&wal->first, bound); /* [first] */
    excess = detach_below(wal, bound);
    bfti_mutex_unlock(wal->env, &wal->segment_lock);
    while (excess != NULL) {
        struct wal_segment *segment = excess;
        char path[WAL_PATH_BYTES];
        bft_status one;

        segment_path(wal, segment->name, path);
        excess = segment->next;
        segment_close(wal, segment);
        /* A file that stays behind is a spare of the next opening. */
        one = wal->vfs->ops->remove(wal->vfs, path);
        if (one != BFT_OK)
            status = one;
        bfti_mutex_lock(wal->env, &wal->segment_lock);
        segment_vacate(wal, segment);
        bfti_mutex_unlock(wal->env, &wal->segment_lock);
    }
    return status;
}

void bfti_wal_keep(struct bfti_wal *wal, uint64_t lsn)
{
    bfti_mutex_lock(wal->env, &wal->segment_lock);
    assert(lsn == UINT64_MAX || lsn >= wal->oldest * wal->segment_bytes);
    wal->kept_from = lsn;
    bfti_mutex_unlock(wal->env, &wal->segment_lock);
}

/* --- opening and closing: no other thread knows the log ------------------- */

static bft_status remove_segment(struct bfti_wal *wal, uint64_t index)
{
    char path[WAL_PATH_BYTES];

    segment_path(wal, index, path);
    return wal->vfs->ops->remove(wal->vfs, path);
}

/* Open the file of segment INDEX into a struct of its own. */
static bft_status segment_open(struct bfti_wal *wal, uint64_t index,
                               struct wal_segment **out, uint64_t *bytes)
{
    struct wal_segment *segment;
    char path[WAL_PATH_BYTES];
    bft_status status = segment_create(wal, &segment);

    *out = NULL;
    if (status != BFT_OK)
        return status;
    segment_path(wal, index, path);
    status = wal->vfs->ops->open(wal->vfs, path, 0, &segment->file);
    if (status == BFT_OK)
        status = segment->file->ops->size(segment->file, bytes);
    if (status == BFT_OK && *bytes > wal->segment_bytes)
        status = bfti_fail(BFT_CORRUPT,
                           "%s: it has %" PRIu64 " bytes, and a log segment "
                           "ends at byte %" PRIu64,
                           path, *bytes, wal->segment_bytes);
    if (status != BFT_OK)
        return status; /* the log is closed, and with it the file */
    segment->name = index;
    *out = segment;
    return BFT_OK;
}

static bft_status adopt_spare(struct bfti_wal *wal, uint64_t index)
{
    struct wal_segment *segment;
    uint64_t bytes;
    bft_status status;

    if (wal->spare_count >= WAL_SPARES_MAX)
        return remove_segment(wal, index);
    status = segment_open(wal, index, &segment, &bytes);
    if (status != BFT_OK)
        return status;
    if (bytes != wal->segment_bytes) {
        segment_vacate(wal, segment);
        return remove_segment(wal, index);
    }
    segment->next = wal->spares;
    wal->spares = segment;
    wal->spare_count++;
    return BFT_OK;
}

static bft_status adopt(struct bfti_wal *wal, uint64_t index)
{
    char path[WAL_PATH_BYTES];
    struct wal_segment *segment;
    uint64_t bytes;
    bft_status status;

    if (index < wal->oldest)
        return adopt_spare(wal, index);
    status = table_reserve(wal, index);
    if (status == BFT_OK)
        status = segment_open(wal, index, &segment, &bytes);
    if (status != BFT_OK)
        return status;
    segment_install(wal, segment, index);
    if (bytes == wal->segment_bytes)
        return BFT_OK;
    segment_path(wal, index, path);
    return bfti_wal_fail_short(path, bytes, wal->segment_bytes);
}

/* Write LEN bytes at POS.  A frame, or a header that was found, lies there: of
 * neither do the first bytes reach into a segment that does not exist. */
static bft_status write_existing(struct bfti_wal *wal, uint64_t pos,
                                 const uint8_t *bytes, size_t len)
{
    while (len > 0) {
        uint64_t offset = pos % wal->segment_bytes;
        uint64_t left = wal->segment_bytes - offset;
        size_t n = len < left ? len : (size_t)left;
        struct wal_segment *segment =
            segment_find(wal, pos / wal->segment_bytes);
        bft_status status;

        assert(segment != NULL);
        segment->touched = true;
        status = segment->file->ops->write(segment->file, offset, bytes, n);
        if (status != BFT_OK)
            return status;
        pos += n;
        bytes += n;
        len -= n;
    }
    return BFT_OK;
}

/* Write the bytes of [FROM, TO) once more.  After a sync that failed the page
 * cache may hold them as clean though the disk never got them, and only a
 * write makes them dirty again. */
static bft_status rewrite(struct bfti_wal *wal, struct wal_reader *reader,
                          uint64_t from, uint64_t to)
{
    while (from < to) {
        size_t n = to - from < WAL_CHUNK ? (size_t)(to - from) : WAL_CHUNK;
        const uint8_t *bytes;
        bft_status status = bfti_wal_reader_get(reader, from, n, &bytes);

        if (status == BFT_OK)
            status = write_existing(wal, from, bytes, n);
        if (status != BFT_OK)
            return status;
        from += n;
    }
    return BFT_OK;
}

/*
 * Blank every frame header behind END.  Those frames were cut off; a frame of
 * ours in front of them would end the log there, being of a newer incarnation.
 * But once that frame lies before the redo start no scan sees it any more, and
 * a scan that starts right at such a ghost would take it for the log's.
 */
static bft_status lay_ghosts(struct bfti_wal *wal, struct wal_reader *reader,
                             uint64_t end)
{
    enum { BLANKED = 16 }; /* checksum, length and position */

    /* Two things keep them out, and a test that one is missing would see the
     * other. */
    if (bfti_fault_on(BFTI_FAULT_OLD_INCARNATION))
        return BFT_OK;
    for (uint64_t pos = end;; pos += WAL_ALIGN) {
        struct wal_frame_view view;
        bool found;
        bft_status status = bfti_wal_reader_seek(reader, &pos, &view, &found);

        if (status == BFT_OK && found)
            status = write_existing(wal, pos, zeros, BLANKED);
        if (status != BFT_OK || !found)
            return status;
    }
}

/* Sync what was written, oldest first, then all names. */
static bft_status sync_touched(struct bfti_wal *wal,
                               const struct wal_reader *reader)
{
    for (size_t i = 0; i < reader->count; i++) {
        struct wal_segment *segment = segment_find(wal, reader->index[i]);
        bft_status status;

        if (segment == NULL)
            continue;
        status =
            segment->touched ? segment->file->ops->sync(segment->file) : BFT_OK;
        if (status != BFT_OK)
            return status;
        segment_map(wal, segment);
    }
    return wal->vfs->ops->sync_dir(wal->vfs, wal->dir);
}

static bft_status check_range(struct bfti_wal *wal, uint64_t from, uint64_t to)
{
    uint64_t segment_bytes = wal->segment_bytes;

    for (uint64_t i = from / segment_bytes; i * segment_bytes < to; i++) {
        char path[WAL_PATH_BYTES];

        if (segment_find(wal, i) != NULL)
            continue;
        segment_path(wal, i, path);
        return bfti_fail(BFT_CORRUPT,
                         "%s: the segment is missing in a log "
                         "from %" PRIu64 " to %" PRIu64,
                         path, from, to);
    }
    return BFT_OK;
}

/* Segments left by a log that went on further than ours can reach go; READER, who
 * would look for ghosts there, forgets them. */
static bft_status remove_beyond(struct bfti_wal *wal, struct wal_reader *reader)
{
    uint64_t beyond = wal->oldest + WAL_SEGMENTS_MAX;
    bft_status status = BFT_OK;

    while (status == BFT_OK && reader->count > 0 &&
           reader->index[reader->count - 1] >= beyond)
        status = remove_segment(wal, reader->index[--reader->count]);
    return status;
}

static bft_status open_existing(struct bfti_wal *wal, struct wal_reader *reader,
                                uint64_t first_needed, uint64_t rewrite_from,
                                uint64_t end)
{
    bft_status status = remove_beyond(wal, reader);

    for (size_t i = 0; status == BFT_OK && i < reader->count; i++)
        status = adopt(wal, reader->index[i]);
    if (status == BFT_OK && first_needed < end)
        status = check_range(wal, first_needed, end);
    if (status == BFT_OK)
        status = rewrite(wal, reader, rewrite_from, end);
    if (status == BFT_OK)
        status = lay_ghosts(wal, reader, end);
    return status == BFT_OK ? sync_touched(wal, reader) : status;
}

bft_status bfti_segments_open(struct bfti_wal *wal, uint64_t first_needed,
                              uint64_t rewrite_from, uint64_t end)
{
    struct bfti_wal_options options = {
        .env = wal->env,
        .vfs = wal->vfs,
        .dir = wal->dir,
        .segment_bytes = wal->segment_bytes,
    };
    struct wal_reader reader;
    bft_status status = bfti_wal_reader_open(&reader, &options);

    if (status != BFT_OK)
        return status;
    wal->oldest = first_needed / wal->segment_bytes;
    atomic_store(&wal->first, first_needed);
    /* Below the redo start there may be no segments any more. */
    if (rewrite_from < first_needed)
        rewrite_from = first_needed;
    status = open_existing(wal, &reader, first_needed, rewrite_from, end);
    bfti_wal_reader_close(&reader);
    if (status != BFT_OK)
        return status;
    return segment_make(wal, end / wal->segment_bytes);
}

void bfti_segments_close(struct bfti_wal *wal)
{
    struct wal_segment *segment = wal->all;

    while (segment != NULL) {
        struct wal_segment *next = segment->all;

        segment_close(wal, segment);
        bfti_free(wal->env, segment);
        segment = next;
    }
    for (size_t i = 0; i < WAL_TABLE; i++)
        bfti_free(wal->env, atomic_load(&wal->table[i]));
}
