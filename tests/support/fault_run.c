#include "fault_life.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "random.h"

/* One at a time: its clock is asked without it. */
static struct fault_life *current;

/* --- what fails -------------------------------------------------------------- */

static bool is_alloc(const struct fault_shot *shot)
{
    return shot->kind && !shot->kind->ops;
}

static void arm(struct fault_life *l, const struct fault_shot *shots)
{
    l->allocs_before = atomic_load(&l->f->allocs);
    for (unsigned i = 0; i < FAULT_SHOTS; i++) {
        const struct fault_shot *shot = &shots[i];
        struct bfti_sim_fault fault = {.nth = shot->nth,
                                       .sticky = shot->sticky};
        l->shot[i] = *shot;
        if (shot->kind && shot->kind->ops & BFTI_SIM_READ)
            l->blind |= shot->sticky || shots[1 - i].kind;
        if (is_alloc(shot)) {
            l->f->allocs_sticky = shot->sticky;
            atomic_store(&l->f->allocs_left, (int64_t)shot->nth - 1);
        } else if (shot->kind) {
            fault.ops = shot->kind->ops;
            fault.harm = shot->kind->harm;
            fault.status = shot->kind->status;
            bfti_sim_fail(l->f->vfs, &fault);
            l->shortened |= fault.harm == BFTI_SIM_SHORT;
        }
    }
}

bool fault_struck(const struct fault_life *l)
{
    int64_t allocs = atomic_load(&l->f->allocs) - l->allocs_before;
    for (unsigned i = 0; i < FAULT_SHOTS; i++)
        if (is_alloc(&l->shot[i]) && (uint64_t)allocs >= l->shot[i].nth)
            return true;
    return bfti_sim_struck(l->f->vfs) > 0;
}

/* --- surroundings ------------------------------------------------------------- */

static uint64_t now_ns(void *ctx)
{
    (void)ctx;
    return current->clock_ns += 10000;
}

static uint64_t wall_ms(void *ctx)
{
    (void)ctx;
    return current->known.now_ms;
}

static struct fault_life *life_make(struct fault_base *base)
{
    struct fault_life *l = calloc(1, sizeof(*l));
    assert_non_null(l);
    l->base = base;
    l->bytes = malloc(KNOWN_LEN_MAX);
    assert_non_null(l->bytes);
    l->f = engine_fixture_make(ENGINE_SIM);
    l->f->surroundings.plain_heap = true; /* each allocation may fail */
    l->f->surroundings.nodes_bytes = 1;   /* and each reading of a node */
    l->f->options.no_threads = true;
    l->f->env.now_ns = now_ns;
    l->f->env.wall_ms = wall_ms;
    engine_seed(l->f, 1);
    l->clock_ns = 1000000000;
    bfti_sim_set_map(l->f->vfs, base->map);
    current = l;
    return l;
}

/* Nothing of it is left in memory: what was lost is told by the fixture. */
static void life_free(struct fault_life *l)
{
    engine_fixture_free(l->f);
    free(l->bytes);
    free(l);
    current = NULL;
}

bft_options fault_options(struct fault_life *l,
                          struct bfti_surroundings *surroundings,
                          struct bfti_vfs *vfs)
{
    bft_options options = l->f->options;
    *surroundings = l->f->surroundings;
    surroundings->vfs = vfs;
    options.internal = surroundings;
    return options;
}

/* --- afterwards --------------------------------------------------------------- */

/* Write, and let it survive; BFT_OK, or why the engine takes no more writes. */
static bft_status use(struct fault_life *l)
{
    struct known_value value = {.seed = known_seed(&l->known, KNOWN_SHORT),
                                .op = known_op(&l->known)};
    unsigned t = 0;
    char text[32];
    bft_status status;
    while (t < KNOWN_TREES && !l->tree[t])
        t++;
    if (t == KNOWN_TREES)
        return bft_sync(l->f->db);
    known_bytes(value.seed, 0, l->bytes, known_len(value.seed));
    status = bft_put(l->tree[t], known_key(text, 7),
                     (bft_slice){l->bytes, known_len(value.seed)});
    known_change(&l->known.tree[t].key[7], value, status);
    if (status == BFT_OK)
        status = bft_sync(l->f->db);
    if (status == BFT_OK)
        known_synced(&l->known);
    return status;
}

/* The handle that failures have met: what it reads is right, and if it takes
 * writes it is as good as any. */
static void use_on(struct fault_life *l)
{
    bft_status status;
    fault_release_snapshot(l);
    fault_expect_records(l, l->f->db, &l->known, false, false, l->tree);
    status = use(l);
    if (status == BFT_OK) {
        fault_expect_sound(l, l->f->db);
        atomic_store(&l->f->reported, 0);
        engine_close(l->f);
        known_synced(&l->known);
        return;
    }
    (void)fault_well(l, status);
    (void)(bft_verify(l->f->db) == BFT_OK); /* it tells of that failure */
    (void)bft_close(l->f->db);
    l->f->db = NULL;
}

/* A power cut now leaves what was synced. */
static void check_after_power_cut(struct fault_life *l)
{
    struct bfti_vfs *left;
    if (bfti_sim_waiting(l->f->vfs) == 0)
        return;
    expect_ok(bfti_sim_image(l->f->vfs, BFTI_SIM_DROP, 1, &left));
    fault_expect_db(l, left, l->f->path, &l->known, true);
    bfti_vfs_sim_destroy(left);
}

static void life_end(struct fault_life *l)
{
    bfti_sim_heal(l->f->vfs);
    atomic_store(&l->f->allocs_left, -1);
    atomic_store(&l->f->reported, 0);
    if (l->base->scenario->damage) {
        assert_null(l->f->db);
    } else {
        if (l->f->db)
            use_on(l);
        check_after_power_cut(l);
        engine_open(l->f);
        fault_expect_records(l, l->f->db, &l->known, false, true, l->tree);
        expect_ok(use(l));
        fault_expect_sound(l, l->f->db);
        engine_close(l->f);
    }
    if (l->base->scenario->after)
        l->base->scenario->after(l);
    life_free(l);
}

/* --- lives ------------------------------------------------------------------------ */

/* Twice each read, write and sync: before and after. */
static void count_call(void *arg, enum bfti_sim_op op)
{
    struct fault_base *base = arg;
    unsigned i = 0;
    while (!((unsigned)op & 1u << i))
        i++;
    base->calls[i]++;
}

static struct fault_life *life_begin(struct fault_base *base)
{
    struct fault_life *l = life_make(base);
    bfti_vfs_sim_destroy(l->f->vfs);
    expect_ok(bfti_sim_image(base->disk, BFTI_SIM_KILL, 1, &l->f->vfs));
    l->known = base->known;
    return l;
}

/* The life in which nothing fails: it ends well, and tells what there is to
 * fail. */
static void live_well(struct fault_base *base)
{
    struct fault_life *l = life_begin(base);
    bfti_sim_set_delay(l->f->vfs, count_call, base);
    base->scenario->work(l);
    bfti_sim_set_delay(l->f->vfs, NULL, NULL);
    base->allocs = (uint64_t)atomic_load(&l->f->allocs);
    assert_int_equal(0, l->failures);
    base->evictions = engine_stats(l->f).evictions_dirty;
    for (unsigned t = 0; t < KNOWN_TREES; t++)
        for (unsigned k = 0; k < KNOWN_KEYS; k++)
            assert_false(l->known.tree[t].key[k].any);
    life_end(l);
    for (unsigned i = 0; i < 12; i++)
        if ((BFTI_SIM_READ | BFTI_SIM_WRITE | BFTI_SIM_SYNC) & 1u << i)
            base->calls[i] /= 2;
}

struct fault_base *fault_base_make(const struct fault_scenario *scenario,
                                   uint64_t seed, bool map)
{
    struct fault_base *base = calloc(1, sizeof(*base));
    struct fault_life *l;
    assert_non_null(base);
    base->scenario = scenario;
    base->map = map;
    base->seed = seed;
    l = life_make(base);
    known_clear(&l->known);
    l->known.random = seed;
    l->known.now_ms = UINT64_C(1700000000000);
    if (scenario->prepare) {
        engine_open(l->f);
        scenario->prepare(l);
    }
    assert_int_equal(0, l->failures);
    if (!scenario->killed) {
        fault_close(l);
        if (scenario->damage)
            scenario->damage(l);
    }
    expect_ok(bfti_sim_image(l->f->vfs, BFTI_SIM_KILL, 1, &base->disk));
    base->known = l->known;
    life_free(l);
    live_well(base);
    return base;
}

void fault_base_free(struct fault_base *base)
{
    bfti_vfs_sim_destroy(base->disk);
    free(base);
}

bool fault_live(struct fault_base *base,
                const struct fault_shot shot[FAULT_SHOTS])
{
    struct fault_life *l = life_begin(base);
    bool struck;
    arm(l, shot);
    base->scenario->work(l);
    struck = fault_struck(l);
    life_end(l);
    return struck;
}

const struct fault_base *fault_of_life(struct fault_shot shot[FAULT_SHOTS])
{
    const struct fault_base *base = current ? current->base : NULL;
    if (current)
        memcpy(shot, current->shot, sizeof(current->shot));
    current = NULL; /* it is lost, with its memory */
    return base;
}
