/*
 * A world lives some lives: in each the database is opened, looked at, used by
 * the clients, and closed, or its power goes, or it is killed, before a step of
 * I/O that is drawn.  What a crash leaves is an image of the disk, which the
 * next life begins with.
 *
 * After the crash the old engine's calls fail, so that its threads unwind; what
 * they return is not looked at.
 */
#include "dst_internal.h"

#include "fileio/pagefile_internal.h"
#include "random.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char dir[] = "/db";
static const char *const tree_name[DST_TREES] = {"ash", "birch", "cedar"};

static char under_way[600];

const char *dst_under_way(void)
{
    return under_way;
}

/* --- telling --------------------------------------------------------------- */

/* Once all of them are drawn. */
static void describe_options(const struct dst_world *w)
{
    const bft_options *o = &w->options;
    const char *commit = getenv("BFT_COMMIT");
    struct sched_counts counts = sched_counts(w->s);

    snprintf(
        w->run->options, sizeof(w->run->options),
        "BFT_SEED=%llu at %s (leaf %u, memory %llu, log %llu, durability %d, "
        "promote %u%s%s%s%s%s; %u clients, %u keys, %u lives, %u operations, "
        "disk speed %u, switch %u, stall %u)",
        (unsigned long long)w->run->seed, commit ? commit : "some commit",
        o->leaf_bytes, (unsigned long long)o->memory_bytes,
        (unsigned long long)o->log_bytes, (int)o->durability,
        o->promote_percent, o->compress ? ", compress" : "",
        o->no_threads ? ", no threads" : "", w->map ? ", map" : "",
        w->surroundings.nodes_bytes ? ", nodes dropped" : "",
        w->surroundings.plain_heap ? ", plain heap" : "", w->oracle.clients,
        w->oracle.numbers, w->lives, w->operations, w->slow,
        counts.switch_every, counts.stall_every);
}

static void note_under_way(struct dst_world *w)
{
    snprintf(under_way, sizeof(under_way),
             "%s, life %u, ended by %s at step %llu, %s\n", w->run->options,
             w->life,
             w->crash_step == UINT64_MAX ? "nothing"
                                         : bfti_sim_policy_name(w->policy),
             (unsigned long long)w->crash_step,
             w->faulty ? "with faults" : "no faults");
}

bool dst_failure(struct dst_world *w, const char *format, ...)
{
    struct dst_run *r = w->run;
    va_list args;
    size_t n;

    if (r->failure[0])
        return false;
    note_under_way(w);
    n = (size_t)snprintf(
        r->failure, sizeof(r->failure),
        "%sat step %llu, point %llu: ", under_way,
        (unsigned long long)(w->sim ? bfti_sim_steps(w->sim) : 0),
        (unsigned long long)sched_counts(w->s).points);
    va_start(args, format);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized) */
    vsnprintf(r->failure + n, sizeof(r->failure) - n, format, args);
    va_end(args);
    dst_say(w, "FAILURE %s", r->failure + n);
    w->crashed = true;
    if (w->sim)
        bfti_sim_crash_at(w->sim, 0);
    return false;
}

bool dst_fine(struct dst_world *w, bft_status status, const char *what)
{
    char text[500] = "";

    sched_trace(w->s, (uint64_t)(int64_t)status);
    if (status == BFT_OK)
        return true;
    (void)bft_last_error(text, sizeof(text));
    dst_say(w, "%s: %d: %s", what, (int)status, text);
    if (w->crashed)
        return false;
    if (status == BFT_NO_SPACE && w->room_after) {
        w->room_step = bfti_sim_steps(w->sim) + w->room_after;
        w->room_after = 0;
    }
    if (w->faulty &&
        (status == BFT_IO || status == BFT_NO_SPACE || status == BFT_POISONED ||
         (w->harmed && status == BFT_CORRUPT)))
        return false;
    return dst_failure(w, "%s: %d (%s): %s", what, (int)status,
                       bft_strerror(status), text);
}

bool dst_verify(struct dst_world *w, bft_db *db, const char *what)
{
    bft_status status = bft_verify(db);
    char text[500] = "";

    (void)bft_last_error(text, sizeof(text));
    if (status == BFT_CORRUPT && w->leaky && strstr(text, "nothing leads to"))
        return true;
    return dst_fine(w, status, what);
}

void dst_say(struct dst_world *w, const char *format, ...)
{
    va_list args;

    if (!w->run->verbose)
        return;
    printf("%8llu %llu.%06llu ms ",
           (unsigned long long)sched_counts(w->s).points,
           (unsigned long long)(sched_counts(w->s).now_ns / 1000000),
           (unsigned long long)(sched_counts(w->s).now_ns % 1000000));
    va_start(args, format);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized) */
    vprintf(format, args);
    va_end(args);
    printf("\n");
}

uint64_t dst_now_ms(struct dst_world *w)
{
    const struct bfti_env *env = sched_env(w->s);

    return env->wall_ms(env->ctx);
}

static void on_report(void *world, bft_status status, const char *text)
{
    struct dst_world *w = world;

    dst_say(w, "report: %d: %s", (int)status, text);
    if (w->crashed || w->faulty)
        return;
    (void)dst_failure(w, "a background step failed: %d: %s", (int)status, text);
}

/* --- the disk ---------------------------------------------------------------- */

/* The power goes, or the program is killed, now. */
static void crash(struct dst_world *w)
{
    dst_say(w, "CRASH (%s)", bfti_sim_policy_name(w->policy));
    if (bfti_sim_image(w->sim, w->policy, sched_random(w->s), &w->image) !=
        BFT_OK)
        abort();
    if (w->looked) /* else that is still to be what the last life left */
        dst_cut_now(&w->oracle, &w->cut);
    w->killed = w->killed && w->policy == BFTI_SIM_KILL;
    w->crashed = true;
    w->armed = false;
    w->run->counts.crashes++;
    w->run->counts.crashes_opening += w->db == NULL;
    bfti_sim_crash_at(w->sim, 0);
}

static void on_step(void *world, const struct bfti_sim_step *step)
{
    struct dst_world *w = world;

    sched_trace(w->s, (uint64_t)step->op << 48 ^ step->offset << 16 ^
                          step->len ^ strlen(step->path) << 56);
    dst_say(w, "  disk: %d %s %llu+%llu", (int)step->op, step->path,
            (unsigned long long)step->offset, (unsigned long long)step->len);
    if (w->armed && !w->crashed && step->number >= w->crash_step)
        crash(w);
    if (!w->crashed && step->number >= w->room_step) {
        dst_say(w, "the disk has room again");
        bfti_sim_set_capacity(w->sim, UINT64_MAX);
        w->room_step = UINT64_MAX;
        w->roomy = true;
        w->run->counts.spaces++;
    }
}

static void on_delay(void *world, enum bfti_sim_op op)
{
    struct dst_world *w = world;

    if (w->crashed || w->slow == 0)
        sched_step(w->s, "disk");
    else if (w->slow == 1 || !dst_chance(w, 20))
        sched_sleep(w->s, dst_draw(w, op == BFTI_SIM_SYNC ? 200000 : 20000));
    else
        sched_sleep(w->s, dst_draw(w, 100000000));
}

static void use_disk(struct dst_world *w, struct bfti_vfs *sim)
{
    w->sim = sim;
    w->surroundings.vfs = sim;
    bfti_sim_set_map(sim, w->map);
    bfti_sim_on_step(sim, on_step, w);
    bfti_sim_set_delay(sim, on_delay, w);
}

static void count_disk(struct dst_world *w)
{
    w->run->counts.steps += bfti_sim_steps(w->sim);
    w->run->counts.faults += bfti_sim_struck(w->sim);
}

/* --- what is in store ----------------------------------------------------------- */

static void draw_fault(struct dst_world *w)
{
    static const unsigned ops[] = {
        BFTI_SIM_READ,     BFTI_SIM_WRITE, BFTI_SIM_SYNC,
        BFTI_SIM_TRUNCATE, BFTI_SIM_PUNCH, BFTI_SIM_CREATE | BFTI_SIM_RENAME,
        BFTI_SIM_SYNC_DIR, BFTI_SIM_ALL};
    struct bfti_sim_fault fault = {
        .ops = ops[dst_draw(w, sizeof(ops) / sizeof(*ops))],
        .path = dst_chance(w, 2)   ? NULL
                : dst_chance(w, 2) ? "/data"
                                   : "/log",
        .nth = 1 + dst_draw(w, 60),
        .sticky = dst_chance(w, 3),
        .harm = BFTI_SIM_REFUSE,
        .status = dst_chance(w, 3) ? BFT_NO_SPACE : BFT_IO};

    if (fault.ops == BFTI_SIM_WRITE && dst_chance(w, 2))
        fault.harm = BFTI_SIM_PART;
    if (fault.ops == BFTI_SIM_READ && dst_chance(w, 3)) {
        fault.harm = BFTI_SIM_FLIP;
        fault.status = BFT_OK;
        w->harmed = true;
    }
    if ((fault.ops & BFTI_SIM_READ) != 0)
        w->leaky = true;
    bfti_sim_fail(w->sim, &fault);
}

/* Every other full disk has room again while the life goes on, some steps after the
 * first call has failed.  This draws nothing, so that the seeds which are kept live
 * as they did. */
static void draw_room(struct dst_world *w)
{
    uint64_t random = random_mix(w->run->seed * 9 + w->life);

    if (random % 2)
        w->room_after = 1 + random / 2 % 40;
}

static void draw_trouble(struct dst_world *w)
{
    uint64_t steps = bfti_sim_steps(w->sim);

    w->crash_step = UINT64_MAX;
    if (!dst_chance(w, 4))
        w->crash_step = steps + dst_draw(w, dst_chance(w, 3) ? 40 : 600);
    w->policy = (enum bfti_sim_policy)dst_draw(w, BFTI_SIM_POLICIES);
    w->armed = true;
    if (dst_chance(w, 4)) {
        w->faulty = true;
        for (unsigned i = 1 + (unsigned)dst_draw(w, 2); i > 0; i--)
            draw_fault(w);
    } else if (dst_chance(w, 8)) {
        w->faulty = true;
        w->run->counts.full_disks++;
        bfti_sim_set_capacity(w->sim,
                              bfti_sim_used(w->sim) + dst_draw(w, 512 << 10));
        draw_room(w);
    }
    note_under_way(w);
}

/* Nothing more happens to the disk that there is. */
static void end_trouble(struct dst_world *w)
{
    w->armed = false;
    bfti_sim_heal(w->sim);
    bfti_sim_set_capacity(w->sim, UINT64_MAX);
    w->room_step = UINT64_MAX;
    w->room_after = 0;
}

/* --- opening ------------------------------------------------------------------ */

static bool open_trees(struct dst_world *w)
{
    for (unsigned t = 0; t < DST_TREES; t++) {
        bft_tree_options options = {.size = sizeof(options),
                                    .ttl_ms =
                                        t == DST_TTL_TREE ? BFT_FOREVER : 0};

        if (!dst_fine(w,
                      bft_tree_open(w->db, tree_name[t], &options, &w->tree[t]),
                      "bft_tree_open"))
            return false;
    }
    return dst_fine(w, bft_tree_open(w->db, "oak", NULL, &w->bank),
                    "bft_tree_open");
}

/* All accounts at once, surviving all that may come. */
static bool found_bank(struct dst_world *w)
{
    bft_batch *batch;
    bool ok = dst_fine(w, bft_batch_create(w->db, &batch), "bft_batch_create");

    for (unsigned i = 0; ok && i < DST_ACCOUNTS; i++) {
        struct dst_account account = {.balance = DST_MONEY};
        char buf[DST_KEY_BYTES];

        ok = dst_fine(w,
                      bft_batch_put(batch, w->bank, dst_account_key(i, buf),
                                    (bft_slice){&account, sizeof(account)}),
                      "bft_batch_put");
    }
    ok = ok && dst_fine(w, bft_batch_commit(batch, BFT_SYNC, NULL),
                        "bft_batch_commit");
    bft_batch_free(batch);
    w->bank_there = w->bank_there || ok;
    return ok;
}

/* What is there, is it what the last life may have left?  Nothing is in store
 * while that is looked at. */
static bool look_around(struct dst_world *w)
{
    struct dst_found *found = calloc(1, sizeof(*found));
    char text[1200] = "";
    bool ok;

    assert(found);
    ok = dst_verify(w, w->db, "bft_verify") && dst_find(w, w->tree, found);
    if (ok &&
        !dst_check(&w->oracle, &w->cut, w->killed, found, text, sizeof(text)))
        ok = dst_failure(w, "%s", text);
    if (ok)
        dst_rebase(&w->oracle, found);
    w->looked = ok;
    ok = ok && dst_check_bank(w, NULL, w->bank);
    free(found);
    return ok;
}

/* Open, perhaps under a crash or a fault; false: it failed, or the power is
 * off. */
static bool open_db(struct dst_world *w)
{
    bft_status status;
    bft_db *db;

    w->crashed = w->faulty = w->harmed = w->armed = w->looked = false;
    w->crash_step = w->room_step = UINT64_MAX;
    w->room_after = 0;
    w->roomy = false;
    if (dst_chance(w, 3)) {
        w->crash_step = bfti_sim_steps(w->sim) + dst_draw(w, 30);
        w->policy = (enum bfti_sim_policy)dst_draw(w, BFTI_SIM_POLICIES);
        w->armed = true;
    } else if (dst_chance(w, 8)) {
        w->faulty = true;
        draw_fault(w);
        if (w->harmed) /* a tail read wrong is a tail that ends there */
            bfti_sim_heal(w->sim);
    }
    note_under_way(w);
    status = bft_open(dir, &w->options, &db);
    w->armed = false;
    if (dst_fine(w, status, "bft_open"))
        w->db = db;
    if (w->crashed)
        return false;
    if (w->db == NULL && w->faulty) { /* then it must work without the fault */
        bfti_sim_heal(w->sim);
        w->faulty = false;
        if (dst_fine(w, bft_open(dir, &w->options, &db), "bft_open again"))
            w->db = db;
    }
    bfti_sim_heal(w->sim);
    if (w->db)
        w->db->engine->buffer.pf->codecs.eager = true;
    return w->db != NULL;
}

/* --- lives --------------------------------------------------------------------- */

static void add_stats(struct dst_world *w)
{
    struct dst_counts *counts = &w->run->counts;
    bft_stats stats = {.size = sizeof(stats)};

    if (bft_stats_read(w->db, &stats) != BFT_OK)
        return;
    counts->checkpoints += stats.checkpoints;
    counts->evictions += stats.evictions_clean + stats.evictions_dirty;
    counts->merges += stats.merges;
    counts->splits += stats.splits;
    counts->waits += stats.writer_waits;
    counts->recovered_frames += stats.recovered_frames;
    counts->expired += stats.expired_removed;
}

static void run_clients(struct dst_world *w)
{
    const struct bfti_env *env = sched_env(w->s);

    for (unsigned i = 0; i < w->oracle.clients; i++) {
        struct dst_client *c = &w->client[i];

        c->w = w;
        c->number = i;
        c->left = w->operations / 2 + (unsigned)dst_draw(w, w->operations);
        c->stuck = false;
        c->snapshot = NULL;
        if (env->thread_start(env->ctx, dst_client_main, c, &c->thread) !=
            BFT_OK)
            abort();
    }
    for (unsigned i = 0; i < w->oracle.clients; i++)
        env->thread_join(env->ctx, w->client[i].thread);
}

/* A disk was full and has room again: all that was accepted can be made durable, and
 * what was not is whole. */
static void settle(struct dst_world *w)
{
    uint64_t moment = ++w->oracle.moment;

    w->faulty = false;
    end_trouble(w);
    if (dst_fine(w, bft_sync(w->db), "bft_sync with room again") &&
        dst_fine(w, bft_checkpoint(w->db), "bft_checkpoint with room again") &&
        dst_verify(w, w->db, "bft_verify with room again") &&
        dst_fine(w, bft_close(w->db), "bft_close with room again")) {
        dst_survives(&w->oracle, moment, BFT_SYNC, -1);
        dst_cut_now(&w->oracle, &w->cut);
    }
    w->db = NULL;
}

/* Close; what the life leaves is told by w->cut, and lies on w->sim. */
static void end_life(struct dst_world *w)
{
    add_stats(w);
    if (!w->crashed && w->roomy && dst_chance(w, 2)) {
        settle(w);
        return;
    }
    /* What may have failed is not known to be written: that is a crash, too. */
    if (!w->crashed && (w->faulty || dst_chance(w, 2)))
        crash(w);
    if (w->crashed) {
        (void)bft_close(w->db); /* whatever it says */
    } else {
        end_trouble(w);
        if (dst_fine(w, bft_close(w->db), "bft_close"))
            dst_cut_all(&w->oracle, &w->cut);
    }
    w->db = NULL;
}

static void live(struct dst_world *w)
{
    bool ok = open_db(w);

    if (ok && open_trees(w) && look_around(w)) {
        w->killed = true;
        draw_trouble(w);
        if (w->bank_there || found_bank(w))
            run_clients(w);
    }
    if (w->db)
        end_life(w);
    w->run->counts.lives++;
    if (w->image) {
        count_disk(w);
        bfti_vfs_sim_destroy(w->sim);
        use_disk(w, w->image);
        w->image = NULL;
    }
}

static void world_main(void *arg)
{
    struct dst_world *w = arg;

    use_disk(w, w->sim);
    for (w->life = 0; w->life < w->lives && !w->run->failure[0]; w->life++)
        live(w);
}

/* --- runs ------------------------------------------------------------------------ */

static void draw_options(struct dst_world *w)
{
    static const uint32_t leaves[] = {512, 512, 1024, 4096};
    static const bft_durability some[] = {BFT_NONE, BFT_BUFFERED, BFT_BUFFERED,
                                          BFT_SYNC};
    static const uint32_t promotes[] = {30, 100, 101};
    static const unsigned numbers[] = {12, 32, DST_NUMBERS};
    bft_options *o = &w->options;

    o->size = sizeof(*o);
    o->memory_bytes = (256u + dst_draw(w, 3) * 128) << 10;
    o->log_bytes = (128u + dst_draw(w, 3) * 64) << 10;
    o->log_segment_bytes = 64 << 10;
    o->leaf_bytes = leaves[dst_draw(w, 4)];
    o->durability = some[dst_draw(w, 4)];
    o->promote_percent = promotes[dst_draw(w, 3)];
    o->compress = dst_chance(w, 5);
    o->no_threads = dst_chance(w, 6);
    o->report = on_report;
    o->report_ctx = w;
    o->internal = &w->surroundings;
    w->surroundings.env = sched_env(w->s);
    w->surroundings.nodes_bytes = dst_chance(w, 2);
    w->surroundings.plain_heap = dst_chance(w, 4);
    w->surroundings.small_deltas = w->run->seed % 4 != 0; /* draws nothing */
    w->map = dst_chance(w, 5);
    w->slow = (unsigned)dst_draw(w, 3);
    w->lives = 3 + (unsigned)dst_draw(w, 3);
    w->operations = dst_chance(w, 4) ? 120 : 40;
    w->killed = true;
    dst_oracle_init(&w->oracle, 2 + (unsigned)dst_draw(w, DST_CLIENTS - 1),
                    numbers[dst_draw(w, 3)]);
}

static void add_counts(struct dst_world *w)
{
    struct sched_counts counts = sched_counts(w->s);
    struct dst_run *r = w->run;

    r->counts.seeds++;
    r->counts.points += counts.points;
    r->counts.switches += counts.switches;
    r->counts.stalls += counts.stalls;
    r->trace = counts.trace;
}

bool dst_run(struct dst_run *r)
{
    struct dst_world *w = calloc(1, sizeof(*w));
    struct sched_options options = {.seed = r->seed};

    assert(w);
    w->run = r;
    w->client = calloc(DST_CLIENTS, sizeof(*w->client));
    assert(w->client);
    w->s = sched_make(&options);
    draw_options(w);
    describe_options(w);
    w->sim = bfti_vfs_sim_create(bfti_env_system(), sched_random(w->s));
    assert(w->sim);
    if (!sched_run(w->s, world_main, w)) {
        r->over = true;
        w->crashed = false;
        (void)dst_failure(w, "%s", sched_failure(w->s));
        return false; /* all of it stays as it is */
    }
    count_disk(w);
    add_counts(w);
    bfti_vfs_sim_destroy(w->sim);
    dst_oracle_free(&w->oracle);
    sched_free(w->s);
    free(w->client);
    free(w);
    return r->failure[0] == '\0';
}

void dst_print(const struct dst_counts *c)
{
    printf("%llu seeds: %llu lives, %llu crashes, %llu of them while opening; "
           "%llu calls struck, %llu full disks, %llu of them with room again, "
           "where %llu clients went on\n",
           (unsigned long long)c->seeds, (unsigned long long)c->lives,
           (unsigned long long)c->crashes,
           (unsigned long long)c->crashes_opening,
           (unsigned long long)c->faults, (unsigned long long)c->full_disks,
           (unsigned long long)c->spaces, (unsigned long long)c->again);
    printf("%llu switches at %llu points, %llu stalls, %llu steps of I/O\n",
           (unsigned long long)c->switches, (unsigned long long)c->points,
           (unsigned long long)c->stalls, (unsigned long long)c->steps);
    printf("%llu operations: %llu commits, %llu conflicts, %llu snapshots, "
           "%llu backups\n",
           (unsigned long long)c->operations, (unsigned long long)c->commits,
           (unsigned long long)c->conflicts, (unsigned long long)c->snapshots,
           (unsigned long long)c->backups);
    printf("%llu checkpoints, %llu evictions, %llu merges, %llu splits, %llu "
           "waits of writers, %llu frames recovered, %llu records expired\n",
           (unsigned long long)c->checkpoints, (unsigned long long)c->evictions,
           (unsigned long long)c->merges, (unsigned long long)c->splits,
           (unsigned long long)c->waits,
           (unsigned long long)c->recovered_frames,
           (unsigned long long)c->expired);
}
