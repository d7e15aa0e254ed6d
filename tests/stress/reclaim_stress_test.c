/*
 * Reclamation under load: threads that read, replace and evict blocks of a
 * small pool through hazard slots, and walk and replace nodes in read-side
 * sections.  Every block and node is full of a number that its header names, so
 * that whoever reads one that was freed or reused finds out; the thread
 * sanitizer finds out by itself.
 *
 * BFT_PLANT says which guard to leave out, to see that this test notices:
 *   reread    believe in a place without reading its word again
 *   hazard    use a place without naming it
 *   section   read nodes outside a section
 *   grace     free nodes without waiting for a grace period
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <pthread.h>

#include "buffer/buffer.h"
#include "random.h"

enum {
    PAGES = 400,
    POOL_BYTES = 128 * 1024, /* about half of what the pages would take */
    PAGE_BYTES = 1200,       /* at most, of a page's contents */
    TREES = 4,
    NODE_BYTES = 512,
    THREADS = 4,
    GENERATIONS = 5, /* of threads; records go from one to the next */
    STEPS = 60000,   /* of a thread */
};

static struct bfti_env env;
static struct bfti_threads *threads;
static struct bfti_pool *pool;

static _Atomic uint64_t table[PAGES]; /* a place, or 0 */
static _Atomic(uint64_t *) tree[TREES];

static _Atomic unsigned torn_pages, torn_nodes, reads, evictions;
static const char *plant;

static bool planted(const char *what)
{
    return plant != NULL && strcmp(plant, what) == 0;
}

/* Surroundings that overwrite what is freed; 16 bytes in front keep its size. */
static void *env_alloc(void *ctx, size_t bytes)
{
    size_t *block = bfti_env_system()->alloc(ctx, bytes + 16);

    if (block == NULL)
        return NULL;
    *block = bytes;
    return (char *)block + 16;
}

static void env_free(void *ctx, void *at)
{
    size_t *block;

    if (at == NULL)
        return;
    block = (size_t *)(void *)((char *)at - 16);
    memset(at, 0xdd, *block / 2);
    bfti_env_system()->free(ctx, block);
}

/* --- pages ------------------------------------------------------------------ */

/* Contents: page id, count of words, a number; then the number COUNT times. */
struct page {
    uint64_t id, count, number;
    uint64_t word[];
};

static void page_fill(struct page *page, uint64_t id, size_t bytes,
                      uint64_t number)
{
    page->id = id;
    page->count = (bytes - sizeof(*page)) / sizeof(page->word[0]);
    page->number = number;
    for (uint64_t i = 0; i < page->count; i++)
        page->word[i] = number;
}

static bool page_is_whole(const struct page *page, uint64_t id, size_t bytes)
{
    uint64_t count = page->count;

    if (page->id != id || count != (bytes - sizeof(*page)) / 8)
        return false;
    for (uint64_t i = 0; i < count; i++)
        if (page->word[i] != page->number)
            return false;
    return true;
}

/* Now and then give the others time to pull it from under us. */
static void give_way(uint64_t *random)
{
    if (random_of(random) % 32 == 0)
        sched_yield();
}

static void page_read(struct bfti_rec *rec, uint64_t id, uint64_t *random)
{
    for (;;) {
        /* [test place] pairs with the release in page_swing(). */
        uint64_t place = atomic_load_explicit(&table[id], memory_order_acquire);

        if (place == 0)
            return;
        give_way(random);
        if (!planted("hazard"))
            bfti_hazard_set(rec, BFTI_HAZARD_TOP, place);
        give_way(random);
        if (!planted("reread") && !planted("hazard") &&
            atomic_load_explicit(&table[id], memory_order_acquire) != place)
            continue;
        bfti_pool_touch(pool, place);
        for (int twice = 0; twice < 2; twice++)
            if (!page_is_whole(bfti_pool_at(pool, place), id,
                               bfti_memory_bytes(place)))
                atomic_fetch_add(&torn_pages, 1);
        bfti_hazard_clear(rec, BFTI_HAZARD_TOP);
        atomic_fetch_add_explicit(&reads, 1, memory_order_relaxed);
        return;
    }
}

/* Make NEW the place of the page, in place of *OLD. */
static bool page_swing(uint64_t id, uint64_t *old, uint64_t new)
{
    /* [test place] release: pairs with the acquire in page_read(). */
    return atomic_compare_exchange_strong_explicit(
        &table[id], old, new, memory_order_acq_rel, memory_order_acquire);
}

static void page_evict(void)
{
    uint64_t place;
    uint64_t id;

    if (!bfti_pool_victim(pool, &place, &id))
        return;
    if (page_swing(id, &place, 0)) {
        bfti_pool_retire(pool, place);
        atomic_fetch_add_explicit(&evictions, 1, memory_order_relaxed);
    }
}

static void page_write(uint64_t id, uint64_t *random)
{
    unsigned units =
        bfti_pool_class(64 + random_of(random) % (PAGE_BYTES - 64));
    uint64_t old = atomic_load(&table[id]);
    uint64_t place = random_of(random) % 4 != 0
                         ? bfti_pool_alloc(pool, units)
                         : bfti_pool_try_alloc(pool, units);

    if (place == 0) {
        page_evict();
        return;
    }
    page_fill(bfti_pool_at(pool, place), id, bfti_memory_bytes(place),
              random_of(random));
    bfti_pool_publish(pool, place, id);
    if (!page_swing(id, &old, place)) {
        /* The clock may have met it, but its word never named it. */
        bfti_pool_retire(pool, place);
        return;
    }
    if (old != 0)
        bfti_pool_retire(pool, old);
}

/* --- nodes ------------------------------------------------------------------ */

static uint64_t *node_new(uint64_t number)
{
    /* Behind what is read: what it waits by. */
    uint64_t *node =
        bfti_alloc(&env, NODE_BYTES + sizeof(struct bfti_deferred));

    if (node != NULL)
        for (size_t i = 0; i < NODE_BYTES / 8; i++)
            node[i] = number;
    return node;
}

static void node_read(struct bfti_rec *rec, unsigned i, uint64_t *random)
{
    const uint64_t *node;

    if (!planted("section"))
        bfti_read_begin(rec);
    /* [test node] pairs with the release in node_write(). */
    node = atomic_load_explicit(&tree[i], memory_order_acquire);
    give_way(random);
    for (size_t k = 1; k < NODE_BYTES / 8; k++)
        if (node[k] != node[0])
            atomic_fetch_add(&torn_nodes, 1);
    if (!planted("section"))
        bfti_read_end(rec);
}

/* The same while it is held instead. */
static void node_hold(unsigned i, uint64_t *random)
{
    struct bfti_hold hold;
    const uint64_t *node;

    bfti_defer_hold(threads, &hold);
    node = atomic_load_explicit(&tree[i], memory_order_acquire);
    give_way(random);
    for (size_t k = 1; k < NODE_BYTES / 8; k++)
        if (node[k] != node[0])
            atomic_fetch_add(&torn_nodes, 1);
    bfti_defer_unhold(threads, &hold);
}

static void node_write(unsigned i, uint64_t *random)
{
    uint64_t *node = node_new(random_of(random));

    if (node == NULL)
        return;
    /* [test node] release: pairs with the acquire in node_read(). */
    node = atomic_exchange_explicit(&tree[i], node, memory_order_acq_rel);
    if (planted("grace"))
        bfti_free(&env, node);
    else
        bfti_defer_free(threads, (void *)(node + NODE_BYTES / 8), node,
                        NODE_BYTES);
}

/* --- threads ------------------------------------------------------------------ */

static pthread_barrier_t start; /* so that all of a generation live at once */

static void *work(void *arg)
{
    uint64_t random = *(uint64_t *)arg;

    (void)bfti_rec_current(threads);
    pthread_barrier_wait(&start);
    for (int i = 0; i < STEPS; i++) {
        struct bfti_rec *rec = bfti_rec_current(threads);
        uint64_t roll = random_of(&random);
        uint64_t id = random_of(&random) % PAGES;

        if (roll % 16 < 8)
            page_read(rec, id, &random);
        else if (roll % 16 < 11)
            page_write(id, &random);
        else if (roll % 16 < 12)
            page_evict();
        else if (roll % 64 < 60)
            node_read(rec, (unsigned)(id % TREES), &random);
        else if (roll % 64 < 63)
            node_write((unsigned)(id % TREES), &random);
        else if (roll % 256 == 63)
            (void)bfti_defer_step(threads);
        else if (roll % 256 == 127)
            node_hold(0, &random);
    }
    return NULL;
}

static void generation_run(void)
{
    pthread_t thread[THREADS];
    uint64_t seed[THREADS];

    for (int i = 0; i < THREADS; i++) {
        seed[i] = random_next();
        assert_int_equal(pthread_create(&thread[i], NULL, work, &seed[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(thread[i], NULL), 0);
}

static void nobody_reads_what_was_freed(void **state)
{
    struct bfti_pool_stats stats;
    size_t bytes;

    (void)state;
    assert_int_equal(pthread_barrier_init(&start, NULL, THREADS), 0);
    assert_int_equal(bfti_threads_create(&env, &threads), BFT_OK);
    assert_int_equal(bfti_pool_create(threads, &env, POOL_BYTES, &pool),
                     BFT_OK);
    for (unsigned i = 0; i < TREES; i++)
        atomic_store(&tree[i], node_new(i));

    generation_run();
    bytes = bfti_threads_bytes(threads);
    for (int i = 1; i < GENERATIONS; i++) {
        generation_run();
        assert_true(bfti_pool_check(pool));
    }
    /* Later threads found the records of the first. */
    assert_int_equal(bfti_threads_bytes(threads), bytes);

    print_message("%u pages read, %u evicted\n", atomic_load(&reads),
                  atomic_load(&evictions));
    assert_int_equal(atomic_load(&torn_pages), 0);
    assert_int_equal(atomic_load(&torn_nodes), 0);
    assert_true(atomic_load(&evictions) > 0);

    for (unsigned i = 0; i < PAGES; i++)
        if (table[i] != 0)
            bfti_pool_retire(pool, table[i]);
    assert_int_equal(bfti_pool_alloc(pool, BFTI_UNITS_MAX) != 0, true);
    bfti_pool_stats(pool, &stats);
    assert_true(stats.retired_bytes < stats.budget_bytes);
    assert_int_equal(bfti_defer_step(threads), 0);
    for (unsigned i = 0; i < TREES; i++)
        bfti_free(&env, tree[i]);
    bfti_pool_destroy(pool);
    bfti_threads_destroy(threads);
    pthread_barrier_destroy(&start);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_reads_what_was_freed),
    };

    plant = getenv("BFT_PLANT");
    env = *bfti_env_system();
    env.alloc = env_alloc;
    env.realloc = NULL; /* nothing here grows */
    env.free = env_free;
    random_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
