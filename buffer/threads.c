/*
 * Registries of thread records, and hazard slots (Michael, "Hazard Pointers",
 * IEEE TPDS 15(6), 2004).
 *
 * Differences: slots hold places and not pointers; the reader's store-load
 * fence is put into it from outside by the reclaimer where the system can do
 * that (threads_internal.h); records belong to a registry, one for each
 * database, and a thread finds its own through a small cache.
 *
 * Records are never freed before their registry, so a scan needs no lock: it
 * meets every record that existed when it began.
 */
#include "threads_internal.h"

#include <assert.h>
#include <string.h>

#include "pool.h"

enum {
    LINE = 64, /* bytes that processors pass to and fro as one */
    SCRATCHES =
        sizeof((struct bfti_rec *)0)->scratch / sizeof(struct bfti_scratch),
};

struct record {
    struct bfti_rec rec; /* first: a bfti_rec is cast to its record */
    /* Number of the thread that has it as its own, 0: an object's, or idle.
     * Written by that thread, or by its end; relaxed, because a thread only
     * looks for its own number. */
    _Atomic uint64_t owner;
    void *block; /* what to free; the record is aligned in it */
};

/* --- threads --------------------------------------------------------------- */

_Atomic bool bfti_fences_are_light;

/* Under the process lock. */
static struct bfti_threads *live;
static uint64_t last_serial;

static _Atomic uint64_t last_thread; /* relaxed: only has to be unique */

static _Thread_local struct bfti_threads_own own;

void bfti_threads_swap(struct bfti_threads_own *other)
{
    struct bfti_threads_own kept = own;

    own = *other;
    *other = kept;
}

/* --- registries ------------------------------------------------------------ */

static void registry_enter(struct bfti_threads *threads)
{
    bfti_os_process_lock();
    /* Decided once: readers of an earlier registry rely on it.  The thread
     * sanitizer does not know about fences from outside. */
    if (last_serial == 0 && !BFTI_TSAN)
        atomic_store_explicit(&bfti_fences_are_light, bfti_os_fence_init(),
                              memory_order_relaxed);
    threads->serial = ++last_serial;
    threads->next_live = live;
    live = threads;
    bfti_os_process_unlock();
}

static void registry_leave(struct bfti_threads *threads)
{
    struct bfti_threads **at = &live;

    bfti_os_process_lock();
    while (*at != threads)
        at = &(*at)->next_live;
    *at = threads->next_live;
    bfti_os_process_unlock();
}

bft_status bfti_threads_create(const struct bfti_env *env,
                               struct bfti_threads **out)
{
    struct bfti_threads *threads;

    *out = NULL;
    if (!bfti_os_init() || !bfti_read_init())
        return bfti_fail(BFT_NO_MEMORY,
                         "thread registry: no memory for fork handlers");
    threads = bfti_alloc(env, sizeof(*threads));
    if (threads == NULL)
        return bfti_fail(BFT_NO_MEMORY, "thread registry: no memory for it");
    memset(threads, 0, sizeof(*threads));
    threads->env = env;
    atomic_store_explicit(&threads->bytes, sizeof(*threads),
                          memory_order_relaxed);
    atomic_store_explicit(&threads->epoch, 1, memory_order_relaxed);
    bfti_defer_init(&threads->defer, env);
    registry_enter(threads);
    *out = threads;
    return BFT_OK;
}

static void record_destroy(const struct bfti_env *env, struct record *record)
{
    struct bfti_rec *rec = &record->rec;

    for (size_t i = 0; i < SCRATCHES; i++)
        bfti_scratch_free(env, &rec->scratch[i]);
    bfti_ahead_free(rec);
    for (size_t i = 0; i < BFTI_LISTS; i++)
        bfti_list_free(env, &rec->list[i]);
    for (size_t i = 0; i < sizeof(rec->buf) / sizeof(rec->buf[0]); i++)
        bfti_free(env, rec->buf[i]);
    bfti_free(env, record->block);
}

void bfti_threads_destroy(struct bfti_threads *threads)
{
    if (threads == NULL)
        return;
    /* From here on no thread that ends looks at our records. */
    registry_leave(threads);
    bfti_defer_destroy(threads);
    for (struct bfti_rec *rec = bfti_threads_first(threads); rec != NULL;) {
        struct bfti_rec *next = rec->next;
        record_destroy(threads->env, (struct record *)rec);
        rec = next;
    }
    bfti_free(threads->env, threads);
}

void bfti_threads_set_wal(struct bfti_threads *threads, struct bfti_wal *wal)
{
    bfti_mutex_lock(threads->env, &threads->lock);
    threads->wal = wal;
    for (struct bfti_rec *rec = bfti_threads_first(threads); rec != NULL;
         rec = rec->next) {
        /* Of an earlier log, which is closed, nothing may stay behind. */
        memset(&rec->wal, 0, sizeof(rec->wal));
        if (wal != NULL)
            bfti_wal_attach(wal, &rec->wal);
    }
    bfti_mutex_unlock(threads->env, &threads->lock);
}

size_t bfti_threads_bytes(struct bfti_threads *threads)
{
    /* relaxed: a figure for statistics. */
    return atomic_load_explicit(&threads->bytes, memory_order_relaxed);
}

struct bfti_rec *bfti_rec_first(struct bfti_threads *threads)
{
    return bfti_threads_first(threads);
}

/* --- records --------------------------------------------------------------- */

static uint64_t random_seed(const struct bfti_env *env)
{
    uint64_t seed = env->random(env->ctx);

    return seed != 0 ? seed : 0x9e3779b97f4a7c15u;
}

/* A new record, used by the caller.  NULL: out of memory. */
static struct bfti_rec *record_create(struct bfti_threads *threads)
{
    const size_t bytes = sizeof(struct record) + LINE;
    void *block = bfti_alloc(threads->env, bytes);
    struct record *record;

    if (block == NULL) {
        (void)bfti_fail(BFT_NO_MEMORY, "thread record: no memory for it");
        return NULL;
    }
    memset(block, 0, bytes);
    /* On lines of its own: scanners read slots while owners write theirs. */
    record = (struct record *)(void *)((uint8_t *)block +
                                       (LINE - (uintptr_t)block % LINE));
    record->block = block;
    record->rec.threads = threads;
    record->rec.random = random_seed(threads->env);
    for (size_t i = 0; i < SCRATCHES; i++)
        record->rec.scratch[i].held = &threads->bytes;
    for (size_t i = 0; i < BFTI_LISTS; i++)
        record->rec.list[i].held = &threads->bytes;
    /* relaxed: nobody sees it before the push below. */
    atomic_store_explicit(&record->rec.used, 1, memory_order_relaxed);

    bfti_mutex_lock(threads->env, &threads->lock);
    if (threads->wal != NULL)
        bfti_wal_attach(threads->wal, &record->rec.wal);
    record->rec.next = bfti_threads_first(threads);
    /* [records] release: pairs with the acquire in bfti_threads_first().
     * A scan that misses the record began before it named anything: the fence
     * in bfti_hazard_set() or bfti_read_begin() stands behind this store, too.
     */
    atomic_store_explicit(&threads->recs, &record->rec, memory_order_release);
    bfti_mutex_unlock(threads->env, &threads->lock);

    atomic_fetch_add_explicit(&threads->bytes, bytes, memory_order_relaxed);
    return &record->rec;
}

struct bfti_rec *bfti_rec_take(struct bfti_threads *threads)
{
    for (struct bfti_rec *rec = bfti_threads_first(threads); rec != NULL;
         rec = rec->next) {
        uint32_t idle = 0;

        /* [handed] acquire: pairs with the release in bfti_rec_give(): what
         * the last owner did to its private fields is ours to see. */
        if (atomic_load_explicit(&rec->used, memory_order_relaxed) == 0 &&
            atomic_compare_exchange_strong_explicit(&rec->used, &idle, 1,
                                                    memory_order_acquire,
                                                    memory_order_relaxed))
            return rec;
    }
    return record_create(threads);
}

void bfti_rec_give(struct bfti_rec *rec)
{
    struct record *record = (struct record *)rec;

    assert(atomic_load(&rec->used) == 1);
    assert(atomic_load(&rec->reading) == 0);
    for (unsigned i = 0; i < BFTI_HAZARDS; i++)
        bfti_hazard_clear(rec, i);
    atomic_store_explicit(&record->owner, 0, memory_order_relaxed);
    /* [handed] release: pairs with the acquire in bfti_rec_take(). */
    atomic_store_explicit(&rec->used, 0, memory_order_release);
}

/* The record that the calling thread, or a thread that is ending, has as its
 * own, or NULL. */
static struct bfti_rec *record_find(struct bfti_threads *threads,
                                    uint64_t owner)
{
    for (struct bfti_rec *rec = bfti_threads_first(threads); rec != NULL;
         rec = rec->next)
        if (atomic_load_explicit(&((struct record *)rec)->owner,
                                 memory_order_relaxed) == owner)
            return rec;
    return NULL;
}

/* The calling thread's record from behind the cache, or a new one. */
static struct bfti_rec *record_of_thread(struct bfti_threads *threads)
{
    struct bfti_rec *rec;

    if (own.number == 0)
        own.number = 1 + atomic_fetch_add_explicit(&last_thread, 1,
                                                   memory_order_relaxed);
    rec = record_find(threads, own.number);
    if (rec != NULL)
        return rec;
    if (!bfti_os_at_thread_exit()) {
        (void)bfti_fail(BFT_NO_MEMORY,
                        "thread record: no room for a thread exit handler");
        return NULL;
    }
    rec = bfti_rec_take(threads);
    if (rec != NULL)
        atomic_store_explicit(&((struct record *)rec)->owner, own.number,
                              memory_order_relaxed);
    return rec;
}

struct bfti_rec *bfti_rec_current(struct bfti_threads *threads)
{
    const size_t i = (size_t)(threads->serial % BFTI_THREADS_CACHE);
    struct bfti_rec *rec;

    if (own.cache[i].serial == threads->serial)
        return own.cache[i].rec;
    rec = record_of_thread(threads);
    if (rec != NULL) {
        own.cache[i].serial = threads->serial;
        own.cache[i].rec = rec;
    }
    return rec;
}

void bfti_threads_leave(void)
{
    if (own.number == 0) /* it never had a record */
        return;
    /* Registries may be gone already, or go while we look: the lock keeps
     * those that are on the list. */
    bfti_os_process_lock();
    for (struct bfti_threads *at = live; at != NULL; at = at->next_live) {
        struct bfti_rec *rec = record_find(at, own.number);
        if (rec != NULL)
            bfti_rec_give(rec);
    }
    bfti_os_process_unlock();
    /* A later exit handler of this thread may call the engine: afresh. */
    memset(own.cache, 0, sizeof(own.cache));
}

uint64_t bfti_threads_count(struct bfti_threads *threads, unsigned i)
{
    uint64_t sum = 0;

    assert(i < BFTI_COUNTERS);
    /* relaxed: a figure for statistics; no counter ever goes back. */
    for (struct bfti_rec *rec = bfti_threads_first(threads); rec != NULL;
         rec = rec->next)
        sum += atomic_load_explicit(&rec->counter[i], memory_order_relaxed);
    return sum;
}

/* --- scratch of a record ----------------------------------------------------- */

bft_status bfti_rec_buf(struct bfti_rec *rec, unsigned i, size_t bytes)
{
    struct bfti_threads *threads = rec->threads;
    const size_t step = 4096; /* so that slow growth does not come back often */
    size_t cap;

    assert(i < sizeof(rec->buf) / sizeof(rec->buf[0]));
    if (rec->buf_cap[i] >= bytes)
        return BFT_OK;
    if (bytes > SIZE_MAX - step)
        return bfti_fail(BFT_NO_MEMORY,
                         "thread buffer: no memory for %zu bytes", bytes);
    cap = (bytes + step - 1) / step * step;

    /* First the old one goes: its contents are lost anyway. */
    bfti_free(threads->env, rec->buf[i]);
    atomic_fetch_sub_explicit(&threads->bytes, rec->buf_cap[i],
                              memory_order_relaxed);
    rec->buf_cap[i] = 0;
    rec->buf[i] = bfti_alloc(threads->env, cap);
    if (rec->buf[i] == NULL)
        return bfti_fail(BFT_NO_MEMORY,
                         "thread buffer: no memory for %zu bytes", cap);
    rec->buf_cap[i] = cap;
    atomic_fetch_add_explicit(&threads->bytes, cap, memory_order_relaxed);
    return BFT_OK;
}

/* xorshift64* (Vigna, 2016). */
uint64_t bfti_rec_random(struct bfti_rec *rec)
{
    uint64_t x = rec->random;

    assert(x != 0);
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    rec->random = x;
    return x * 0x2545f4914f6cdd1du;
}

/* --- publishing ------------------------------------------------------------ */

enum { PUBLISH_LOOKS = 16, PUBLISH_NAP_NS = 100 * 1000 };

void bfti_publish_begin(struct bfti_rec *rec)
{
    /* relaxed: only the owner writes it. */
    uint64_t n = atomic_load_explicit(&rec->publishing, memory_order_relaxed);

    assert(n % 2 == 0);
    /* [publish] sequentially consistent, as what is stored before
     * bfti_publish_wait(), its look at this and ours at that: either it sees that
     * we publish, and what, or we see that.  A fence from outside would make this
     * cheaper by 5 ns, and each cursor dearer by a trip into the kernel. */
    atomic_store(&rec->publishing, n + 1);
}

void bfti_publish_end(struct bfti_rec *rec)
{
    uint64_t n = atomic_load_explicit(&rec->publishing, memory_order_relaxed);

    assert(n % 2 == 1);
    /* [publish] release: who sees the end sees what was published. */
    atomic_store_explicit(&rec->publishing, n + 1, memory_order_release);
}

/* REC was at N, which is odd. */
static void publish_wait_for(
    const struct bfti_env *env, struct bfti_rec *rec, uint64_t n,
    bool (*stays)(void *ctx, struct bfti_rec *rec, uint64_t number), void *ctx)
{
    _Atomic uint32_t never = 0; /* nobody wakes it: a bounded sleep */

    for (unsigned looks = 0; bfti_publish_is_at(rec, n); looks++) {
        if (looks < PUBLISH_LOOKS)
            env->yield(env->ctx);
        else if (looks == PUBLISH_LOOKS && stays(ctx, rec, n))
            return;
        else
            env->wait(env->ctx, &never, 0, PUBLISH_NAP_NS);
    }
}

void bfti_publish_wait(struct bfti_threads *threads,
                       bool (*stays)(void *ctx, struct bfti_rec *rec,
                                     uint64_t number),
                       void *ctx)
{
    for (struct bfti_rec *rec = bfti_threads_first(threads); rec != NULL;
         rec = rec->next) {
        uint64_t n = atomic_load(&rec->publishing); /* [publish] */

        if (n % 2 == 1)
            publish_wait_for(threads->env, rec, n, stays, ctx);
    }
}

/* --- hazard slots ---------------------------------------------------------- */

void bfti_hazard_set(struct bfti_rec *rec, unsigned i, uint64_t place)
{
    assert(i < BFTI_HAZARDS);
    assert(place != 0);
    /* [hazard] release: our reads of what the slot named before end before it
     * names something else.  The thread sanitizer looks at orders of accesses
     * and not at fences. */
    atomic_store_explicit(&rec->hazard[i], place,
                          BFTI_TSAN ? memory_order_seq_cst
                                    : memory_order_release);
    /* [hazard] pairs with the heavy fence in bfti_hazard_unnamed(): either its
     * scan sees the name, or we, reading again, see the unlink before it. */
    bfti_fence_light();
}

/* Some of the places of a call, in a small hash table. */
enum { GROUP = 256, CELLS = 1024 };

struct group {
    const uint64_t *places;
    uint16_t cell[CELLS];       /* index of a place plus 1, or 0 */
    uint64_t named[GROUP / 64]; /* one bit for each place */
};

/* What places are compared by: of one in memory where it starts. */
static inline uint64_t key_of(uint64_t place)
{
    return bfti_place_tag(place) == BFTI_TAG_MEMORY
               ? bfti_memory_start(bfti_memory_offset(place))
               : place;
}

static size_t cell_of(uint64_t place)
{
    return (size_t)(key_of(place) * 0x9e3779b97f4a7c15u >> 54);
}
_Static_assert(CELLS == 1 << (64 - 54), "cell_of");

static void group_fill(struct group *group, const uint64_t *places, size_t n)
{
    memset(group, 0, sizeof(*group));
    group->places = places;
    for (size_t i = 0; i < n; i++) {
        size_t cell = cell_of(places[i]);

        /* Ends: there are four times as many cells as places. */
        while (group->cell[cell] != 0)
            cell = (cell + 1) % CELLS;
        group->cell[cell] = (uint16_t)(i + 1);
    }
}

/* Mark each entry of the group that is PLACE; the caller may have given it
 * more than once. */
static void group_mark(struct group *group, uint64_t place)
{
    for (size_t cell = cell_of(place); group->cell[cell] != 0;
         cell = (cell + 1) % CELLS) {
        unsigned i = group->cell[cell] - 1u;
        if (key_of(group->places[i]) == key_of(place))
            group->named[i / 64] |= UINT64_C(1) << i % 64;
    }
}

static void group_scan(struct group *group, struct bfti_threads *threads)
{
    for (struct bfti_rec *rec = bfti_threads_first(threads); rec != NULL;
         rec = rec->next)
        /* Upwards: a name may be copied to a higher slot before the lower one
         * is cleared, and is met in one or the other. */
        for (unsigned i = 0; i < BFTI_HAZARDS; i++) {
            /* [hazard] acquire: pairs with the release in bfti_hazard_clear()
             * and in bfti_hazard_set(): the reads of a thread that no longer
             * names a place are over before we reuse it. */
            uint64_t place =
                atomic_load_explicit(&rec->hazard[i], memory_order_acquire);
            if (place != 0)
                group_mark(group, place);
        }
}

void bfti_hazard_unnamed(void *threads, uint64_t *places, size_t n)
{
    struct group group;

    if (n == 0)
        return;
    /* [hazard] pairs with the light fence in bfti_hazard_set(). */
    bfti_fence_heavy();
    while (n > 0) {
        size_t count = n < GROUP ? n : GROUP;

        group_fill(&group, places, count);
        group_scan(&group, threads);
        for (size_t i = 0; i < count; i++)
            if (!(group.named[i / 64] >> i % 64 & 1) ||
                bfti_fault_on(BFTI_FAULT_NAMES_IGNORED))
                places[i] = 0;
        places += count;
        n -= count;
    }
}
