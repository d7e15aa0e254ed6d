/*
 * The write-ahead log in memory: linking frames, copying them into segments,
 * syncing, and the threads that do so.
 *
 * Linked frames form the queue of Michael and Scott, "Simple, Fast, and
 * Practical Non-Blocking and Blocking Concurrent Queue Algorithms" (PODC
 * 1996), with hazard pointers (Michael, IEEE TPDS 2004) instead of counted
 * ones.  Differences: a frame's position in the log follows from the frame
 * that it is linked to, and the head of the queue is not taken off by one
 * consumer but moves when the frames behind it are in the file, which every
 * thread that needs them there sees to itself.
 */
#include "wal_internal.h"

#include <inttypes.h>
#include <string.h>

#include "error.h"
#include "fault.h"
#include "pagefile.h" /* bfti_crc32c */

enum {
    BATCH_BYTES = 64 << 10,   /* copied before the copied frame is moved */
    RECLAIM_BYTES = 32 << 10, /* retired by one thread before it frees */
    HAZARDS_MAX = 128, /* names gathered at once before frames are freed */
    BEHIND_MAX = 4,    /* times what is left behind: all copy */
};

/* Raise *MARK to VALUE.  Ends because each retry means that *MARK grew. */
static void raise_mark(_Atomic uint64_t *mark, uint64_t value)
{
    uint64_t seen = atomic_load(mark);

    while (seen < value && !atomic_compare_exchange_weak(mark, &seen, value)) {
    }
}

static void count(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* --- open and close ------------------------------------------------------ */

/* NULL: no memory, which was noted. */
static struct bfti_frame *frame_alloc(struct bfti_wal *wal, size_t len)
{
    uint64_t total = wal_frame_bytes(len);
    struct bfti_frame *frame =
        bfti_alloc(wal->env, sizeof(*frame) + (size_t)total);

    if (frame == NULL) {
        (void)bfti_fail(BFT_NO_MEMORY,
                        "%s: no memory for a log frame of %zu bytes", wal->dir,
                        len);
        return NULL;
    }
    atomic_init(&frame->next, NULL);
    frame->total = (uint32_t)total;
    frame->len = (uint32_t)len;
    return frame;
}

/* A frame of no bytes that ends at END: what the first one is linked to. */
static bft_status first_frame(struct bfti_wal *wal, uint64_t end)
{
    struct bfti_frame *frame = frame_alloc(wal, 0);

    if (frame == NULL)
        return BFT_NO_MEMORY;
    frame->lsn = end;
    frame->total = 0;
    atomic_store(&wal->tail, frame);
    atomic_store(&wal->copied, frame);
    return BFT_OK;
}

/* NULL: no memory, which was noted. */
static struct bfti_wal *wal_create(const struct bfti_wal_options *options)
{
    const struct bfti_env *env = options->env;
    size_t dir_bytes = strlen(options->dir) + 1;
    struct bfti_wal *wal = bfti_alloc(env, sizeof(*wal));
    char *dir = bfti_alloc(env, dir_bytes);

    if (wal == NULL || dir == NULL) {
        bfti_free(env, wal);
        bfti_free(env, dir);
        (void)bfti_fail(BFT_NO_MEMORY, "%s: no memory for the log",
                        options->dir);
        return NULL;
    }
    memset(wal, 0, sizeof(*wal));
    memcpy(dir, options->dir, dir_bytes);
    wal->dir = dir;
    wal->env = env;
    wal->vfs = options->vfs;
    wal->segment_bytes = options->segment_bytes;
    wal->map = options->map && options->vfs->ops->map != NULL &&
               options->vfs->ops->unmap != NULL;
    wal->nowhere = options->nowhere;
    return wal;
}

bft_status bfti_wal_open(const struct bfti_wal_options *options,
                         uint64_t first_needed, uint64_t rewrite_from,
                         uint64_t end, uint32_t incarnation,
                         struct bfti_wal **out)
{
    struct bfti_wal *wal;
    bft_status status;

    *out = NULL;
    if (first_needed > end || rewrite_from > end ||
        (first_needed | rewrite_from | end) % WAL_ALIGN != 0)
        return bfti_fail(BFT_INVALID,
                         "%s: a log from %" PRIu64 " to %" PRIu64
                         ", durable to %" PRIu64,
                         options->dir, first_needed, end, rewrite_from);
    wal = wal_create(options);
    if (wal == NULL)
        return BFT_NO_MEMORY;
    wal->incarnation = incarnation;
    wal->opened_at = end;
    wal->kept_from = UINT64_MAX;
    atomic_store(&wal->end, end);
    atomic_store(&wal->copied_mark, end);
    atomic_store(&wal->durable, end);
    status = first_frame(wal, end);
    if (status == BFT_OK && !wal->nowhere)
        status = bfti_segments_open(wal, first_needed, rewrite_from, end);
    if (status != BFT_OK) {
        bfti_wal_close(wal);
        return status;
    }
    *out = wal;
    return BFT_OK;
}

/* Free FRAME and what follows it, by either of its links. */
static void frames_free_all(const struct bfti_env *env,
                            struct bfti_frame *frame, bool retired)
{
    while (frame != NULL) {
        struct bfti_frame *next =
            retired ? frame->retired_next : atomic_load(&frame->next);

        bfti_free(env, frame);
        frame = next;
    }
}

void bfti_wal_close(struct bfti_wal *wal)
{
    const struct bfti_env *env;

    if (wal == NULL)
        return;
    env = wal->env;
    for (struct bfti_wal_thread *thread = atomic_load(&wal->threads);
         thread != NULL; thread = atomic_load(&thread->next)) {
        frames_free_all(env, thread->retired, true);
        thread->retired = NULL;
    }
    frames_free_all(env, atomic_load(&wal->copied), false);
    bfti_free(env, atomic_load(&wal->gather));
    bfti_segments_close(wal);
    bfti_free(env, wal->dir);
    bfti_free(env, wal);
}

/* --- threads ------------------------------------------------------------- */

void bfti_wal_attach(struct bfti_wal *wal, struct bfti_wal_thread *thread)
{
    struct bfti_wal_thread *head = atomic_load(&wal->threads);

    if (atomic_load(&thread->attached))
        return;
    /* It is all zeros but for this. */
    atomic_store(&thread->in_flight, UINT64_MAX);
    atomic_store(&thread->attached, true);
    /* Ends because each retry means that another thread attached. */
    do {
        atomic_store(&thread->next, head);
        PARK("wal:attaching");
    } while (!atomic_compare_exchange_weak(&wal->threads, &head, thread));
}

void bfti_wal_enter(struct bfti_wal *wal, struct bfti_wal_thread *thread)
{
    uint64_t mark = atomic_load(&wal->copied_mark), seen;

    assert(atomic_load(&thread->attached));
    assert(atomic_load(&thread->in_flight) == UINT64_MAX);
    /* Noted, then read again: whoever looked at the slot before it was set has
     * read the mark before that, and drops no log above what he read.  Ends
     * because each retry means that others copied frames. */
    for (;; mark = seen) {
        PARK("wal:entering");
        atomic_store(&thread->in_flight, mark);
        seen = atomic_load(&wal->copied_mark);
        if (seen == mark)
            break;
    }
}

static void frames_free(struct bfti_wal *wal, struct bfti_wal_thread *thread);

void bfti_wal_leave(struct bfti_wal *wal, struct bfti_wal_thread *thread)
{
    assert(atomic_load(&thread->in_flight) != UINT64_MAX);
    assert(atomic_load(&thread->hazard[0]) == NULL);
    assert(atomic_load(&thread->hazard[1]) == NULL);
    /* [in-flight] release: pairs with bfti_wal_lowest_in_flight().  Who sees
     * the slot clear sees what was published and copied before. */
    atomic_store_explicit(&thread->in_flight, UINT64_MAX, memory_order_release);
    /* What goes nowhere nobody copies, and so frees; of other frames those who
     * retired them have. */
    if (thread->retired_bytes >= RECLAIM_BYTES)
        frames_free(wal, thread);
}

uint64_t bfti_wal_lowest_in_flight(struct bfti_wal *wal)
{
    uint64_t lowest = UINT64_MAX;

    for (struct bfti_wal_thread *thread = atomic_load(&wal->threads);
         thread != NULL; thread = atomic_load(&thread->next)) {
        uint64_t slot = atomic_load(&thread->in_flight); /* [in-flight] */

        if (slot < lowest)
            lowest = slot;
    }
    return lowest;
}

/* Name FRAME.  The caller reads again what led to it before he follows it. */
static void name_frame(struct bfti_wal_thread *thread, unsigned slot,
                       struct bfti_frame *frame)
{
    /* [frame-name] sequentially consistent: either the scan of frames_free()
     * sees the name, or we see that the queue has moved on. */
    atomic_store(&thread->hazard[slot], frame);
}

static void unname_frames(struct bfti_wal_thread *thread)
{
    /* [frame-name] release: our reads of the frames come before their reuse. */
    atomic_store_explicit(&thread->hazard[0], NULL, memory_order_release);
    atomic_store_explicit(&thread->hazard[1], NULL, memory_order_release);
}

/* --- frames -------------------------------------------------------------- */

bft_status bfti_frame_create(struct bfti_wal *wal, uint8_t type, size_t len,
                             struct bfti_frame **out, void **payload)
{
    struct wal_frame_header *header;
    struct bfti_frame *frame;

    *out = NULL;
    *payload = NULL;
    if (len > WAL_PAYLOAD_MAX)
        return bfti_fail(BFT_TOO_BIG,
                         "%s: a log frame of %zu bytes, %d at most", wal->dir,
                         len, WAL_PAYLOAD_MAX);
    frame = frame_alloc(wal, len);
    if (frame == NULL)
        return BFT_NO_MEMORY;
    header = (void *)frame->image;
    *header = (struct wal_frame_header){
        .len = le32_of((uint32_t)len),
        .incarnation = le32_of(wal->incarnation),
        .type = type,
    };
    *out = frame;
    *payload = (uint8_t *)frame->image + sizeof(*header);
    return BFT_OK;
}

void bfti_frame_free(struct bfti_wal *wal, struct bfti_frame *frame)
{
    bfti_free(wal->env, frame);
}

void bfti_frame_seal(struct bfti_wal *wal, struct bfti_frame *frame)
{
    struct wal_frame_header *header = (void *)frame->image;
    uint8_t *payload = (uint8_t *)frame->image + sizeof(*header);

    memset(payload + frame->len, 0,
           frame->total - sizeof(*header) - frame->len);
    if (!wal->nowhere)
        header->payload_crc = le32_of(bfti_crc32c(0, payload, frame->len));
}

/* Finish the header of FRAME, which is to be linked at LSN. */
static void frame_place(struct bfti_wal *wal, struct bfti_frame *frame,
                        uint64_t lsn)
{
    struct wal_frame_header *header = (void *)frame->image;
    const uint8_t *covered = (const uint8_t *)header + sizeof(header->checksum);

    frame->lsn = lsn;
    header->lsn = le64_of(lsn);
    header->mark = le64_of(atomic_load(&wal->durable));
    header->checksum = le32_of(
        bfti_crc32c(0, covered, sizeof(*header) - sizeof(header->checksum)));
}

/* Names that threads hold, gathered in one walk. */
struct names {
    const struct bfti_frame *at[HAZARDS_MAX];
    size_t count;
    bool overflow; /* more than fit: nothing is known to be unnamed */
};

static void names_add(struct names *names, const struct bfti_frame *frame)
{
    if (frame == NULL)
        return;
    if (names->count == HAZARDS_MAX)
        names->overflow = true;
    else
        names->at[names->count++] = frame;
}

static void names_gather(struct bfti_wal *wal, struct names *names)
{
    struct bfti_wal_thread *first = atomic_load(&wal->threads), *thread;

    names->count = 0;
    names->overflow = false;
    PARK("wal:names-wanted");
    /* [frame-name] pairs with name_frame() and unname_frames(). */
    for (thread = first; thread != NULL; thread = atomic_load(&thread->next)) {
        names_add(names, atomic_load(&thread->hazard[0]));
        names_add(names, atomic_load(&thread->hazard[1]));
        names_add(names, atomic_load(&thread->shown));
    }
    /* [shown] Behind all that is shown: who looks at a frame named it while it
     * was shown, so what was not shown any more is named by now. */
    for (thread = first; thread != NULL; thread = atomic_load(&thread->next))
        names_add(names, atomic_load(&thread->looked));
}

/* With more names than fit at once, a walk for this frame alone. */
static bool frame_is_named_now(struct bfti_wal *wal,
                               const struct bfti_frame *frame)
{
    struct bfti_wal_thread *first = atomic_load(&wal->threads), *thread;

    for (thread = first; thread != NULL; thread = atomic_load(&thread->next)) {
        if (atomic_load(&thread->hazard[0]) == frame ||
            atomic_load(&thread->hazard[1]) == frame ||
            atomic_load(&thread->shown) == frame)
            return true;
    }
    /* [shown] as in names_gather(). */
    for (thread = first; thread != NULL; thread = atomic_load(&thread->next)) {
        if (atomic_load(&thread->looked) == frame)
            return true;
    }
    return false;
}

static bool frame_is_named(struct bfti_wal *wal, const struct names *names,
                           const struct bfti_frame *frame)
{
    for (size_t i = 0; i < names->count; i++) {
        if (names->at[i] == frame)
            return true;
    }
    return names->overflow && frame_is_named_now(wal, frame);
}

/* Free the frames that THREAD retired and nobody names. */
static void frames_free(struct bfti_wal *wal, struct bfti_wal_thread *thread)
{
    struct bfti_frame *frame = thread->retired;
    struct names names;

    thread->retired = NULL;
    thread->retired_bytes = 0;
    names_gather(wal, &names);
    PARK("wal:names-gathered");
    while (frame != NULL) {
        struct bfti_frame *next = frame->retired_next;

        if (frame_is_named(wal, &names, frame)) {
            frame->retired_next = thread->retired;
            thread->retired = frame;
        } else {
            bfti_free(wal->env, frame);
        }
        frame = next;
    }
}

/* Retire the frames from FIRST to the one before STOP: they are in the file,
 * and neither `tail` nor `copied` leads to them any more.  THREAD took them
 * off, so nobody else retires them; it names none of them. */
static void frames_retire(struct bfti_wal *wal, struct bfti_wal_thread *thread,
                          struct bfti_frame *first,
                          const struct bfti_frame *stop)
{
    while (first != stop) {
        struct bfti_frame *next = atomic_load(&first->next);

        first->retired_next = thread->retired;
        thread->retired = first;
        thread->retired_bytes += sizeof(*first) + first->total;
        first = next;
    }
    if (thread->retired_bytes >= RECLAIM_BYTES)
        frames_free(wal, thread);
}

/* --- showing ------------------------------------------------------------- */

void bfti_wal_show(struct bfti_wal_thread *thread, struct bfti_frame *frame)
{
    assert(atomic_load(&thread->shown) == NULL);
    /* [shown] release: who finds the frame sees what is in it.  And it is linked
     * behind this, so who retires it finds it shown. */
    atomic_store_explicit(&thread->shown, frame, memory_order_release);
}

void bfti_wal_hide(struct bfti_wal_thread *thread)
{
    /* [shown] release: who frees the frame does so behind our use of it. */
    atomic_store_explicit(&thread->shown, NULL, memory_order_release);
}

/* FRAME is on no queue; others may look at it. */
static void frame_retire(struct bfti_wal_thread *thread,
                         struct bfti_frame *frame)
{
    frame->retired_next = thread->retired;
    thread->retired = frame;
    thread->retired_bytes += sizeof(*frame) + frame->total;
}

void bfti_frame_drop(struct bfti_wal *wal, struct bfti_wal_thread *thread,
                     struct bfti_frame *frame)
{
    frame_retire(thread, frame);
    if (thread->retired_bytes >= RECLAIM_BYTES)
        frames_free(wal, thread);
}

const void *bfti_wal_look(struct bfti_wal_thread *mine,
                          struct bfti_wal_thread *theirs, size_t *len)
{
    struct bfti_frame *frame = atomic_load(&theirs->shown), *seen;

    *len = 0;
    /* Ends because each retry means that the other showed another frame. */
    for (; frame != NULL; frame = seen) {
        /* [shown] sequentially consistent: either who frees the frame sees the
         * name, or we see that it is shown no more. */
        atomic_store(&mine->looked, frame);
        PARK("wal:look-named");
        seen = atomic_load(&theirs->shown);
        if (seen == frame)
            break;
    }
    if (frame == NULL) {
        bfti_wal_look_away(mine);
        return NULL;
    }
    *len = frame->len;
    return (const uint8_t *)frame->image + sizeof(struct wal_frame_header);
}

void bfti_wal_look_away(struct bfti_wal_thread *mine)
{
    /* [shown] release: our reads of the frame come before its reuse. */
    atomic_store_explicit(&mine->looked, NULL, memory_order_release);
}

/* --- linking ------------------------------------------------------------- */

/* Take the tail from PREV to NEXT, which is linked behind it; both are named.
 * The end is raised first, so that whoever has met a frame in any way finds
 * the log's end behind it. */
static void tail_swing(struct bfti_wal *wal, struct bfti_frame *prev,
                       struct bfti_frame *next)
{
    if (atomic_load(&wal->tail) != prev)
        return;
    raise_mark(&wal->end, wal_frame_end(next)); /* [end] */
    atomic_compare_exchange_strong(&wal->tail, &prev, next);
}

/*
 * One attempt to link FRAME.  False: the tail moved, or had to be moved.
 *
 * The tail is named and read again, so its memory is not reused: it could be
 * linked a second time, further on, and our swap would then succeed with a
 * position that is not the frame's.
 */
static bool link_once(struct bfti_wal *wal, struct bfti_wal_thread *thread,
                      struct bfti_frame *frame, uint64_t *lsn, uint64_t *end)
{
    struct bfti_frame *tail = atomic_load(&wal->tail);
    struct bfti_frame *next;

    PARK("wal:tail-read");
    name_frame(thread, 0, tail);
    if (atomic_load(&wal->tail) != tail)
        return false;
    PARK("wal:tail-named");
    next = atomic_load(&tail->next); /* [link] */
    if (next != NULL) {
        /* `copied` never passes the tail: while that is TAIL, NEXT is not
         * retired, and later it is named. */
        name_frame(thread, 1, next);
        PARK("wal:helping");
        if (atomic_load(&wal->tail) == tail)
            tail_swing(wal, tail, next);
        return false;
    }
    *lsn = wal_frame_end(tail);
    *end = *lsn + frame->total;
    frame_place(wal, frame, *lsn);
    /* [link] The frame is complete and from here on fixed. */
    if (!atomic_compare_exchange_strong(&tail->next, &next, frame))
        return false;
    PARK("wal:linked");
    /* The tail's swing, without a look into FRAME: others may have copied and
     * freed it by now.  If the swap succeeds they have not. */
    raise_mark(&wal->end, *end); /* [end] */
    PARK("wal:end-raised");
    atomic_compare_exchange_strong(&wal->tail, &tail, frame);
    return true;
}

void bfti_wal_link(struct bfti_wal *wal, struct bfti_wal_thread *thread,
                   struct bfti_frame *frame, uint64_t *lsn, uint64_t *end)
{
    assert(atomic_load(&thread->in_flight) != UINT64_MAX);
    assert(atomic_load(&frame->next) == NULL);

    if (wal->nowhere) {
        *lsn = *end = atomic_load(&wal->end);
        frame_retire(thread, frame);
        return;
    }
    /* Ends because each retry means that another thread linked a frame, or
     * that we moved the tail for one who had. */
    while (!link_once(wal, thread, frame, lsn, end)) {
    }
    unname_frames(thread);
    /* relaxed, and no addition of its own: nobody else writes it. */
    atomic_store_explicit(
        &thread->frames,
        atomic_load_explicit(&thread->frames, memory_order_relaxed) + 1,
        memory_order_relaxed);
}

/* --- copying ------------------------------------------------------------- */

/* Frames on their way into the file, by one thread. */
struct batch {
    struct bfti_frame *base; /* the copied frame, in name slot 1 */
    struct bfti_frame *last; /* taken last, in name slot 0 */
    uint64_t from, to;       /* the frames between them lie here */
    uint8_t *gather;         /* their bytes from FROM on; NULL: stored singly */
};

/* Name the copied frame in slot 1.  Ends because each retry means that others
 * copied frames. */
static struct bfti_frame *name_copied(struct bfti_wal *wal,
                                      struct bfti_wal_thread *thread)
{
    struct bfti_frame *frame = atomic_load(&wal->copied), *seen;

    for (;; frame = seen) {
        PARK("wal:copied-read");
        name_frame(thread, 1, frame);
        seen = atomic_load(&wal->copied);
        if (seen == frame)
            break;
    }
    PARK("wal:copied-named");
    return frame;
}

/*
 * The frame behind PREV, named in slot 0 in its place; PREV is BASE, or taken
 * from this function, and the log goes on behind it.  NULL: `copied` has left
 * BASE, or must not go further yet.
 *
 * While `copied` is BASE no frame behind it is retired; BASE is named, so its
 * memory cannot come back as another copied frame.
 */
static struct bfti_frame *next_frame(struct bfti_wal *wal,
                                     struct bfti_wal_thread *thread,
                                     struct bfti_frame *base,
                                     struct bfti_frame *prev)
{
    struct bfti_frame *next = atomic_load(&prev->next); /* [link] */

    /* Who wants more than PREV was told an end behind it, and the end is raised
     * once all frames up to it are linked. */
    assert(next != NULL);
    /* `copied` must not pass the tail.  The tail lags by one frame at most,
     * and to move it both frames must be named: of two slots the other holds
     * BASE.  The next batch begins with PREV and moves it. */
    if (prev != base && atomic_load(&wal->tail) == prev)
        return NULL;
    PARK("wal:next-read");
    name_frame(thread, 0, next);
    if (atomic_load(&wal->copied) != base)
        return NULL;
    PARK("wal:next-named");
    if (prev == base)
        tail_swing(wal, base, next);
    return next;
}

/* A buffer for the batch whose first frame is FRAME, where that saves system
 * calls.  Without memory the frames are written one by one. */
static void gather_begin(struct bfti_wal *wal, struct batch *batch,
                         const struct bfti_frame *frame, uint64_t upto)
{
    if (wal->map || wal_frame_end(frame) >= upto ||
        frame->total > BATCH_BYTES / 2)
        return;
    batch->gather = atomic_exchange(&wal->gather, NULL);
    if (batch->gather == NULL)
        batch->gather = bfti_alloc(wal->env, BATCH_BYTES);
}

static void gather_end(struct bfti_wal *wal, struct batch *batch)
{
    void *expected = NULL;

    if (batch->gather != NULL &&
        !atomic_compare_exchange_strong(&wal->gather, &expected, batch->gather))
        bfti_free(wal->env, batch->gather);
}

/* Take frames from FRAME on, the first behind BASE, into the batch: up to
 * UPTO, and no more than a batch holds. */
static bft_status batch_take(struct bfti_wal *wal,
                             struct bfti_wal_thread *thread,
                             struct batch *batch, struct bfti_frame *frame,
                             uint64_t upto)
{
    while (frame != NULL) {
        uint64_t held = batch->to - batch->from;

        assert(frame->lsn == batch->to);
        if (batch->gather == NULL) {
            bft_status status = bfti_segments_store(wal, frame->lsn,
                                                    frame->image, frame->total);

            if (status != BFT_OK)
                return status;
        } else {
            if (held + frame->total > BATCH_BYTES)
                break;
            memcpy(batch->gather + held, frame->image, frame->total);
        }
        batch->last = frame;
        batch->to += frame->total;
        if (batch->to >= upto || batch->to - batch->from >= BATCH_BYTES)
            break;
        frame = next_frame(wal, thread, batch->base, frame);
    }
    if (batch->gather == NULL)
        return BFT_OK;
    return bfti_segments_store(wal, batch->from, batch->gather,
                               (size_t)(batch->to - batch->from));
}

/* Copy some of the frames behind the copied one and move `copied` past them.
 * Names frames; the caller takes the names back. */
static bft_status copy_batch(struct bfti_wal *wal,
                             struct bfti_wal_thread *thread, uint64_t upto)
{
    struct bfti_frame *base = name_copied(wal, thread);
    struct bfti_frame *first, *expected = base;
    struct batch batch = {.base = base, .last = base};
    bft_status status;

    /* All up to BASE is in the file; whoever moved `copied` here may have
     * stopped before he said so. */
    batch.from = batch.to = wal_frame_end(base);
    raise_mark(&wal->copied_mark, batch.from);
    if (batch.from >= upto)
        return BFT_OK;
    first = next_frame(wal, thread, base, base);
    if (first == NULL)
        return BFT_OK;
    gather_begin(wal, &batch, first, upto);
    status = batch_take(wal, thread, &batch, first, upto);
    gather_end(wal, &batch);
    if (status != BFT_OK)
        return status;
    PARK("wal:stored");
    /* Fails when others copied the same frames meanwhile: then there is
     * nothing to do but to look again. */
    if (!atomic_compare_exchange_strong(&wal->copied, &expected, batch.last))
        return BFT_OK;
    PARK("wal:copied-moved");
    raise_mark(&wal->copied_mark, batch.to);
    unname_frames(thread);
    frames_retire(wal, thread, base, batch.last);
    return BFT_OK;
}

bft_status bfti_wal_copy(struct bfti_wal *wal, struct bfti_wal_thread *thread,
                         uint64_t upto)
{
    bft_status status = BFT_OK;

    assert(atomic_load(&thread->in_flight) != UINT64_MAX);
    assert(upto <= atomic_load(&wal->end));
    /* Ends because each round copies frames, or meets that others did. */
    while (status == BFT_OK && atomic_load(&wal->copied_mark) < upto)
        status = copy_batch(wal, thread, upto);
    unname_frames(thread);
    return status;
}

bft_status bfti_wal_copy_behind(struct bfti_wal *wal,
                                struct bfti_wal_thread *thread, uint64_t upto,
                                uint64_t bytes)
{
    uint64_t mark = atomic_load(&wal->copied_mark);
    bft_status status;

    if (upto <= mark + bytes)
        return BFT_OK;
    /* Two who copy the same frames do it twice.  But who has claimed it may have
     * been stopped: others do not wait for ever. */
    if (upto <= mark + BEHIND_MAX * bytes &&
        (atomic_load(&wal->copying) || atomic_exchange(&wal->copying, true)))
        return BFT_OK;
    status = bfti_wal_copy(wal, thread, upto);
    atomic_store(&wal->copying, false);
    return status;
}

/* --- syncing ------------------------------------------------------------- */

bft_status bfti_wal_fail_poisoned(const struct bfti_wal *wal)
{
    return bfti_fail(BFT_POISONED,
                     "%s: a sync failed earlier: nothing more is durable",
                     wal->dir);
}

/* Copy what is linked and sync it.  One thread at a time. */
static bft_status flush(struct bfti_wal *wal, struct bfti_wal_thread *thread,
                        uint64_t upto)
{
    uint64_t from = atomic_load(&wal->durable), mark;
    bft_status status;

    if (from >= upto)
        return BFT_OK;
    bfti_wal_enter(wal, thread);
    /* To the end, not just to UPTO: the frames of all who wait for us. */
    status = bfti_wal_copy(wal, thread, bfti_wal_end(wal));
    /* The mark is read before the sync: what is copied during it may miss. */
    mark = atomic_load(&wal->copied_mark);
    bfti_wal_leave(wal, thread);
    if (mark < upto)
        return status;
    if (!bfti_fault_on(BFTI_FAULT_LOG_NOT_SYNCED)) {
        status = bfti_segments_sync(wal, from, mark);
        count(&wal->syncs, 1);
        if (status != BFT_OK) {
            /* The system may have dropped the pages: a second sync would
             * succeed without them. */
            bfti_wal_poison(wal);
            return status;
        }
    }
    if (bfti_wal_poisoned(wal))
        return bfti_wal_fail_poisoned(wal);
    atomic_store(&wal->durable, mark);
    return BFT_OK;
}

void bfti_wal_await(struct bfti_wal *wal, uint32_t word, uint64_t timeout_ns)
{
    /* Counted before the word is tested by the wait: the flusher changes the
     * word, then looks whether anybody is to be woken. */
    atomic_fetch_add(&wal->sleepers, 1);
    wal->env->wait(wal->env->ctx, &wal->sync_word, word, timeout_ns);
    atomic_fetch_sub(&wal->sleepers, 1);
}

static void wake_sleepers(struct bfti_wal *wal)
{
    /* The word was changed before this look; see bfti_wal_await(). */
    if (atomic_load(&wal->sleepers) > 0)
        wal->env->wake(wal->env->ctx, &wal->sync_word, true);
}

bft_status bfti_wal_sync(struct bfti_wal *wal, struct bfti_wal_thread *thread,
                         uint64_t upto)
{
    bool waited = false;

    assert(upto <= atomic_load(&wal->end));
    /* Ends because each round flushes, or waits for a flush; the one that
     * starts after our frame was linked takes it along. */
    while (atomic_load(&wal->durable) < upto) {
        bft_status status;
        uint32_t word;

        PARK("wal:sync-wanted");
        word = atomic_load(&wal->sync_word);
        PARK("wal:sync-word-read");
        if (bfti_wal_poisoned(wal))
            return bfti_wal_fail_poisoned(wal);
        if (word & 1) {
            if (!waited)
                count(&wal->sync_waits, 1);
            waited = true;
            bfti_wal_await(wal, word, UINT64_MAX);
            continue;
        }
        if (!atomic_compare_exchange_strong(&wal->sync_word, &word, word + 1))
            continue;
        status = flush(wal, thread, upto);
        atomic_fetch_add(&wal->sync_word, 1);
        wake_sleepers(wal);
        if (status != BFT_OK)
            return status;
    }
    return BFT_OK;
}

bool bfti_wal_poisoned(struct bfti_wal *wal)
{
    return atomic_load(&wal->poisoned);
}

void bfti_wal_poison(struct bfti_wal *wal)
{
    atomic_store(&wal->poisoned, true);
    /* Who waits for a flush is woken at its end; feeds wait for the next. */
    bfti_wal_nudge(wal);
}

void bfti_wal_nudge(struct bfti_wal *wal)
{
    /* By two: whether somebody flushes stays as it is. */
    atomic_fetch_add(&wal->sync_word, 2);
    wake_sleepers(wal);
}

/* --- positions ----------------------------------------------------------- */

uint64_t bfti_wal_end(struct bfti_wal *wal)
{
    return atomic_load(&wal->end);
}

uint64_t bfti_wal_copied(struct bfti_wal *wal)
{
    return atomic_load(&wal->copied_mark);
}

uint64_t bfti_wal_durable(struct bfti_wal *wal)
{
    return atomic_load(&wal->durable);
}

uint64_t bfti_wal_settled(struct bfti_wal *wal)
{
    /* The mark first, then the slots, as for dropping: of a frame below the
     * mark either the slot is seen, or it was cleared after publishing. */
    uint64_t durable = bfti_wal_durable(wal);
    uint64_t slots = bfti_wal_lowest_in_flight(wal);
    uint64_t settled = durable < slots ? durable : slots;
    uint64_t first = bfti_wal_first(wal);

    /* A slot that is just being set may have a mark of long ago.  What was told,
     * or dropped, was settled, and stays so. */
    raise_mark(&wal->settled, settled < first ? first : settled);
    return atomic_load(&wal->settled);
}

uint64_t bfti_wal_first(struct bfti_wal *wal)
{
    return atomic_load(&wal->first);
}

void bfti_wal_stats(struct bfti_wal *wal, struct bfti_wal_stats *out)
{
    out->frames = 0;
    for (struct bfti_wal_thread *thread = atomic_load(&wal->threads);
         thread != NULL; thread = atomic_load(&thread->next))
        out->frames +=
            atomic_load_explicit(&thread->frames, memory_order_relaxed);
    out->bytes = atomic_load(&wal->end) - wal->opened_at;
    out->syncs = atomic_load(&wal->syncs);
    out->sync_waits = atomic_load(&wal->sync_waits);
    out->segments_made = atomic_load(&wal->segments_made);
    out->segments_reused = atomic_load(&wal->segments_reused);
}
