#include "engine_fixture.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fileio/pagefile_internal.h"
#include "fileio/vfs_memory.h"
#include "random.h"

const char *engine_backend_name(enum engine_backend backend)
{
    static const char *const name[] = {"memory", "sim", "posix", "direct",
                                       "uring"};
    return name[backend];
}

void engine_expect(bft_status expected, bft_status status, const char *what,
                   const char *file, int line)
{
    char text[400] = "";
    if (status == expected)
        return;
    (void)bft_last_error(text, sizeof(text));
    print_error("%s:%d: %s: %d (%s), not %d: %s\n", file, line, what,
                (int)status, bft_strerror(status), (int)expected, text);
    _fail(file, line);
}

/* --- memory that is counted, and runs out when told to -------------------- */

static bool refused(struct engine_fixture *f)
{
    int64_t left = atomic_load(&f->allocs_left);
    atomic_fetch_add(&f->allocs, 1);
    if (left < 0)
        return false;
    if (left == 0 && f->allocs_sticky)
        return true;
    return atomic_fetch_sub(&f->allocs_left, 1) == 0;
}

/* In front of each block that was given out. */
struct engine_block {
    struct engine_block *next, **at; /* AT: what points here */
    size_t bytes;
    size_t unused; /* the block behind is aligned to 16 */
};

static void *counted_alloc(void *ctx, size_t bytes)
{
    struct engine_fixture *f = ctx;
    struct engine_block *block =
        refused(f) ? NULL : malloc(sizeof(*block) + bytes);
    if (!block)
        return NULL;
    block->bytes = bytes;
    block->at = &f->memory;
    bfti_mutex_lock(bfti_env_system(), &f->memory_lock);
    block->next = f->memory;
    if (block->next)
        block->next->at = &block->next;
    f->memory = block;
    bfti_mutex_unlock(bfti_env_system(), &f->memory_lock);
    return block + 1;
}

static void counted_free(void *ctx, void *memory)
{
    struct engine_fixture *f = ctx;
    struct engine_block *block;
    if (!memory)
        return;
    block = (struct engine_block *)memory - 1;
    bfti_mutex_lock(bfti_env_system(), &f->memory_lock);
    *block->at = block->next;
    if (block->next)
        block->next->at = block->at;
    bfti_mutex_unlock(bfti_env_system(), &f->memory_lock);
    free(block);
}

size_t engine_env_bytes(struct engine_fixture *f)
{
    size_t sum = 0;
    bfti_mutex_lock(bfti_env_system(), &f->memory_lock);
    for (const struct engine_block *b = f->memory; b; b = b->next)
        sum += b->bytes;
    bfti_mutex_unlock(bfti_env_system(), &f->memory_lock);
    return sum;
}

static void *counted_realloc(void *ctx, void *old, size_t bytes)
{
    void *memory = counted_alloc(ctx, bytes);
    if (memory && old) {
        size_t had = ((struct engine_block *)old - 1)->bytes;
        memcpy(memory, old, had < bytes ? had : bytes);
        counted_free(ctx, old);
    }
    return memory;
}

/* --- opening -------------------------------------------------------------- */

/* Are its files the machine's? */
static bool is_real(const struct engine_fixture *f)
{
    return f->backend != ENGINE_MEMORY && f->backend != ENGINE_SIM;
}

static void report(void *ctx, bft_status status, const char *text)
{
    struct engine_fixture *f = ctx;
    int none = 0;
    if (is_real(f) && status == BFT_UNSUPPORTED) {
        /* The machine has no such thing: the test runs as on posix. */
        print_message("%s\n", text);
        return;
    }
    if (status == f->tolerated)
        return;
    if (atomic_compare_exchange_strong(&f->reported, &none, (int)status))
        snprintf(f->report_text, sizeof(f->report_text), "%s", text);
}

struct engine_fixture *engine_fixture_make(enum engine_backend backend)
{
    struct engine_fixture *f = calloc(1, sizeof(*f));
    const char *tmp = getenv("TMPDIR");

    assert_non_null(f);
    f->backend = backend;
    f->env = *bfti_env_system();
    /* The other functions of the system's surroundings need no context. */
    f->env.ctx = f;
    f->env.alloc = counted_alloc;
    f->env.realloc = counted_realloc;
    f->env.free = counted_free;
    atomic_store(&f->allocs_left, -1);
    snprintf(f->path, sizeof(f->path), "/db");
    if (is_real(f)) {
        snprintf(f->path, sizeof(f->path), "%s/engine-XXXXXX",
                 tmp ? tmp : "/tmp");
        assert_non_null(mkdtemp(f->path));
    }
    switch (backend) {
    case ENGINE_POSIX:
        f->vfs = bfti_vfs_posix();
        break;
    case ENGINE_DIRECT:
        f->vfs = bfti_vfs_direct();
        break;
    case ENGINE_URING:
        f->vfs = bfti_vfs_uring();
        break;
    case ENGINE_MEMORY:
        f->vfs = bfti_vfs_memory_create(bfti_env_system());
        break;
    case ENGINE_SIM:
        f->vfs = bfti_vfs_sim_create(bfti_env_system(), 1);
        break;
    }
    assert_non_null(f->vfs);
    f->surroundings.env = &f->env;
    f->surroundings.vfs = f->vfs;
    f->surroundings.small_deltas = true; /* leaves here are small */
    f->options.size = sizeof(f->options);
    f->options.memory_bytes = 256 << 10;
    f->options.log_bytes = 128 << 10;
    f->options.log_segment_bytes = 64 << 10;
    f->options.leaf_bytes = 512;
    f->options.report = report;
    f->options.report_ctx = f;
    return f;
}

struct engine_fixture *engine_fixture_open(enum engine_backend backend)
{
    struct engine_fixture *f = engine_fixture_make(backend);
    engine_open(f);
    return f;
}

static uint64_t seeded_random(void *ctx)
{
    struct engine_fixture *f = ctx;
    return random_mix(atomic_fetch_add(&f->random, 0x9e3779b97f4a7c15u));
}

void engine_seed(struct engine_fixture *f, uint64_t seed)
{
    atomic_store(&f->random, seed);
    f->env.random = seeded_random;
}

enum { SLOW_READ_NS = 200000 };

/* Two looks at the clock are as far apart as a slow read takes. */
static uint64_t slow_now_ns(void *ctx)
{
    struct engine_fixture *f = ctx;
    uint64_t slow = atomic_load(&f->slow_ns);
    if (atomic_load(&f->slow))
        slow = atomic_fetch_add(&f->slow_ns, SLOW_READ_NS);
    return bfti_env_system()->now_ns(NULL) + slow;
}

void engine_slow_reads(struct engine_fixture *f, bool on)
{
    atomic_store(&f->slow, on);
    f->env.now_ns = slow_now_ns;
}

bft_status engine_open_status(struct engine_fixture *f)
{
    if (f->backend == ENGINE_SIM)
        bfti_sim_set_together(f->vfs, atomic_load(&f->slow));
    f->surroundings.vfs = f->vfs;
    f->options.internal = &f->surroundings;
    bft_status status = bft_open(f->path, &f->options, &f->db);
    if (status == BFT_OK)
        f->db->engine->buffer.pf->codecs.eager = f->eager;
    return status;
}

void engine_open(struct engine_fixture *f)
{
    expect_ok(engine_open_status(f));
}

static void assert_nothing_reported(struct engine_fixture *f)
{
    int status = atomic_load(&f->reported);
    if (status == 0)
        return;
    print_error("a background step failed: %d: %s\n", status, f->report_text);
    fail();
}

/* All but the gauges of NEW, added up. */
static bft_stats stats_sum(const bft_stats *past, const bft_stats *now)
{
    bft_stats sum = *now;
#define ADD(field) sum.field += past->field
    ADD(gets), ADD(puts), ADD(deletes), ADD(inserts), ADD(batches);
    ADD(batch_records), ADD(cursor_steps), ADD(page_hits), ADD(page_misses);
    ADD(promotions), ADD(promotions_dropped), ADD(rebuilds), ADD(growths);
    ADD(freezes), ADD(merges), ADD(deltas), ADD(splits), ADD(leaf_merges);
    ADD(evictions_clean), ADD(evictions_dirty), ADD(checkpoints);
    ADD(writer_waits), ADD(extents_written), ADD(extents_read);
    ADD(nodes_read), ADD(nodes_dropped), ADD(leaves_moved);
    ADD(expired_removed);
#undef ADD
    return sum;
}

bft_stats engine_stats(struct engine_fixture *f)
{
    bft_stats now = {.size = sizeof(now)};
    if (!f->db)
        return f->past;
    expect_ok(bft_stats_read(f->db, &now));
    return stats_sum(&f->past, &now);
}

void engine_close(struct engine_fixture *f)
{
    f->past = engine_stats(f);
    expect_ok(bft_close(f->db));
    f->db = NULL;
    assert_nothing_reported(f);
}

void engine_reopen(struct engine_fixture *f)
{
    engine_close(f);
    engine_open(f);
}

void engine_end_background(struct engine_fixture *f)
{
    bfti_background_stop(f->db->engine);
}

void engine_crash(struct engine_fixture *f, enum bfti_sim_policy policy,
                  uint64_t seed)
{
    struct bfti_vfs *image;
    assert_int_equal(ENGINE_SIM, f->backend);
    if (f->db)
        f->past = engine_stats(f);
    expect_ok(bfti_sim_image(f->vfs, policy, seed, &image));
    if (f->db)
        (void)bft_close(f->db);
    f->db = NULL;
    bfti_vfs_sim_destroy(f->vfs);
    f->vfs = image;
    engine_open(f);
}

static void remove_dir(const char *path)
{
    DIR *dir = opendir(path);
    const struct dirent *entry;
    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL)
        if (entry->d_name[0] != '.')
            (void)unlinkat(dirfd(dir), entry->d_name, 0);
    (void)closedir(dir);
    assert_int_equal(0, rmdir(path)); /* nothing of the test's is left in it */
}

void engine_fixture_free(struct engine_fixture *f)
{
    size_t lost;
    if (f->db)
        engine_close(f);
    if (is_real(f)) {
        if (!f->keep)
            remove_dir(f->path);
    } else if (f->backend == ENGINE_MEMORY) {
        bfti_vfs_memory_destroy(f->vfs);
    } else {
        bfti_vfs_sim_destroy(f->vfs);
    }
    for (lost = 0; f->memory; lost++)
        counted_free(f, f->memory + 1);
    assert_true(lost <= f->memory_lost);
    free(f);
}

bft_tree *engine_tree(struct engine_fixture *f, const char *name,
                      uint32_t leaf_bytes)
{
    bft_tree_options options = {.size = sizeof(options),
                                .leaf_bytes = leaf_bytes};
    bft_tree *tree;
    expect_ok(bft_tree_open(f->db, name, &options, &tree));
    return tree;
}
