/*
 * A group is a setting with a value length.  Within it every engine has its own
 * worker and database, all open side by side; each cell is run by one engine
 * after the other, who begins moving on from round to round.  A load starts
 * from an empty database.
 *
 * In the setting "larger" the database that the other cells use is filled once,
 * by a process without a bound; its files leave the page cache, and a bounded
 * process goes on.  An engine that cannot open again what it closed is filled
 * by the bounded process.
 */
#include "turns.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker.h"

enum { DEATHS_MAX = 2 };

/* One engine's part in a group. */
struct seat {
    struct worker worker;
    struct keyspace *space;
    struct peer_config config;
    char dir[4096];
    struct cgroup group;
    bool bound;   /* GROUP is there */
    bool loaded;  /* the worker has all records */
    bool stirred; /* its memory holds what the last row left there */
    unsigned deaths;
    bool out; /* died too often: not asked again in this group and round */
    char reason[WORKER_REASON];
};

static uint64_t run_start;

static double seconds_now(void)
{
    return (double)(rig_now_ns() - run_start) / 1e9;
}

/* What a call may take before it is given up. */
static double limit_of(const struct group_size *size)
{
    return 300 + (double)size->write_ns / 1e9 * 10 +
           (double)size->records / 2000;
}

/* --- files --------------------------------------------------------------------- */

static void wipe(struct seat *seat)
{
    rig_remove_dir(seat->dir);
    /* Engines make their own; the folder above is there. */
}

/* --- seats --------------------------------------------------------------------- */

/* It died: remember of what, and clear up. */
static void mourn(struct seat *seat)
{
    snprintf(seat->reason, sizeof(seat->reason), "%s", seat->worker.reason);
    seat->loaded = false;
    if (++seat->deaths >= DEATHS_MAX)
        seat->out = true;
}

static bool seat_start(const struct run *run, unsigned engine,
                       struct seat *seat, bool bounded)
{
    seat->loaded = false;
    if (worker_start(&seat->worker, run->engines[engine], &seat->config,
                     seat->space, bounded ? &seat->group : NULL))
        return true;
    mourn(seat);
    return false;
}

static void seat_end(struct seat *seat, double limit)
{
    if (seat->worker.pid && !worker_stop(&seat->worker, limit))
        mourn(seat);
    seat->loaded = false;
}

/* A worker on an empty database. */
static bool seat_fresh(const struct run *run, size_t cell, unsigned engine,
                       struct seat *seat)
{
    seat_end(seat, limit_of(&run->size[cell]));
    wipe(seat);
    return seat_start(run, engine, seat, seat->bound);
}

/* Random order past the bound would take one engine or the other an hour. */
static enum fill_order fill_order(const struct run *run, size_t cell)
{
    if (run->ascending_fill)
        return FILL_ASCENDING;
    return run->size[cell].bound_bytes ? FILL_BY_STRETCHES : FILL_RANDOM;
}

/* Filled without a bound, then gone on with inside it. */
static bool fill_and_bind(const struct run *run, size_t cell, unsigned engine,
                          struct seat *seat)
{
    double limit = limit_of(&run->size[cell]);
    bool fine;

    seat_end(seat, limit);
    wipe(seat);
    seat->config.filling = true;
    fine = seat_start(run, engine, seat, false);
    seat->config.filling = false;
    if (!fine)
        return false;
    if (!worker_fill(&seat->worker, fill_order(run, cell), limit) ||
        !worker_stop(&seat->worker, limit)) {
        mourn(seat);
        return false;
    }
    (void)rig_drop_cache(seat->dir, false);
    if (!seat_start(run, engine, seat, true))
        return false;
    if (!worker_resume(&seat->worker, fill_order(run, cell),
                       run->size[cell].records, limit)) {
        mourn(seat);
        return false;
    }
    return true;
}

enum { WARM_CELLS = 5 };

/* Untimed: what a cell reads first should not depend on its place.  Within a
 * bound for the time of some cells: memory is to hold what it would hold in the
 * long run, and a cache of records fills more slowly than one of pages. */
static bool warm_up(const struct run *run, size_t cell, struct seat *seat)
{
    const struct group_size *size = &run->size[cell];
    struct cell_spec spec = {
        .workload = SCAN_FORWARD,
        .threads = 1,
        .cell_ns = size->read_ns,
        .seed = 12345,
    };
    struct cell_sample sample;

    /* Past the budget a scan would only push out what it pulled in. */
    if (!size->bound_bytes &&
        !worker_run(&seat->worker, &spec, &sample, limit_of(size)))
        return false;
    spec.workload = YCSB_C;
    spec.draw = size->bound_bytes ? DRAW_ZIPF : DRAW_UNIFORM;
    if (size->bound_bytes)
        spec.cell_ns *= WARM_CELLS;
    return worker_run(&seat->worker, &spec, &sample, limit_of(size));
}

static bool seat_load(const struct run *run, size_t cell, unsigned engine,
                      struct seat *seat)
{
    bool by_another =
        seat->bound && run->engines[engine]->abilities & PEER_CAN_REOPEN;

    if (seat->loaded)
        return true;
    if (by_another) {
        if (!fill_and_bind(run, cell, engine, seat))
            return false;
    } else {
        if (!seat_fresh(run, cell, engine, seat))
            return false;
        if (!worker_fill(&seat->worker, fill_order(run, cell),
                         limit_of(&run->size[cell]))) {
            mourn(seat);
            return false;
        }
    }
    if (!warm_up(run, cell, seat)) {
        mourn(seat);
        return false;
    }
    seat->loaded = true;
    seat->stirred = false;
    return true;
}

/* Within a bound a row leaves memory empty if it ends by a close, and full of
 * what it went through if it scans all: not what a short row is to begin with. */
static bool stirs(const struct group_size *size, enum workload workload)
{
    return size->bound_bytes &&
           (workload_writes(workload) || workload == SCAN_FORWARD ||
            workload == SCAN_BACKWARD);
}

static bool calm_down(const struct run *run, size_t cell, struct seat *seat)
{
    enum workload next = run->cells[cell].workload;

    if (!seat->stirred || workload_info[next].mostly_writes ||
        next == SCAN_FORWARD || next == SCAN_BACKWARD)
        return true;
    seat->stirred = false;
    if (warm_up(run, cell, seat))
        return true;
    mourn(seat);
    return false;
}

/* --- a turn ---------------------------------------------------------------------- */

/* What one engine left to the kernel is not written on another's time. */
static void quieten(const struct run *run)
{
    int dir = open(run->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (dir < 0 || syncfs(dir))
        rig_die("%s: cannot sync it: %s", run->dir, strerror(errno));
    close(dir);
}

static bool turn_measured(struct run *run, size_t cell, unsigned engine,
                          unsigned round, struct seat *seat)
{
    const struct grid_cell *at = &run->cells[cell];
    const struct group_size *size = &run->size[cell];
    bool loads = workload_loads(at->workload);
    struct cell_spec spec = {
        .workload = at->workload,
        .draw = at->draw,
        .threads = at->threads,
        .cell_ns = workload_info[at->workload].mostly_writes ? size->write_ns
                                                             : size->read_ns,
        .seed = rig_mix(cell * 64 + round + 7) >> 32,
        .close_too = size->bound_bytes > 0,
        .capped = size->bound_bytes > 0,
    };
    struct result *result = result_at(run, cell, engine);

    if (loads ? !seat_fresh(run, cell, engine, seat)
              : !seat_load(run, cell, engine, seat) ||
                    !calm_down(run, cell, seat))
        return false;
    quieten(run);
    if (!worker_run(&seat->worker, &spec, &result->sample[round],
                    limit_of(size))) {
        mourn(seat);
        return false;
    }
    result->have[round] = true;
    seat->stirred = seat->stirred || stirs(size, at->workload);
    /* A load that a bound may have cut short is of no use to others. */
    if (loads && size->bound_bytes) {
        seat_end(seat, limit_of(size));
        wipe(seat);
    } else if (loads) {
        seat->loaded = warm_up(run, cell, seat);
        if (!seat->loaded)
            mourn(seat);
    }
    return true;
}

static void turn(struct run *run, size_t cell, unsigned engine, unsigned round,
                 struct seat *seat)
{
    struct result *result = result_at(run, cell, engine);
    const char *cannot = grid_cannot(run->engines[engine], &run->cells[cell]);
    char text[16];

    printf("  %s ", run->engines[engine]->name);
    fflush(stdout);
    if (result->have[round]) {
        printf("(there)");
    } else if (cannot) {
        snprintf(result->reason, sizeof(result->reason), "%s", cannot);
        printf("–");
    } else if (seat->out) {
        snprintf(result->reason, sizeof(result->reason),
                 "not tried, it had ended %u times before: %s", DEATHS_MAX,
                 seat->reason);
        results_save(run, cell, engine, round);
        printf("–");
    } else if (turn_measured(run, cell, engine, round, seat)) {
        struct cell_sample *sample = &result->sample[round];

        results_save(run, cell, engine, round);
        printf(
            "%s",
            rig_short(sample->seconds > 0 ? sample->ops / sample->seconds : 0,
                      text));
    } else {
        snprintf(result->reason, sizeof(result->reason), "%s", seat->reason);
        results_save(run, cell, engine, round);
        printf("– (%s)", seat->reason);
    }
    fflush(stdout);
}

/* --- groups ---------------------------------------------------------------------- */

static bool group_bind(struct run *run, size_t cell, unsigned engine,
                       struct seat *seat)
{
    char name[64];

    if (!run->size[cell].bound_bytes)
        return true;
    snprintf(name, sizeof(name), "bftree-bench-%s", run->engines[engine]->name);
    seat->bound = cgroup_make(&seat->group, name, run->size[cell].bound_bytes,
                              seat->reason, sizeof(seat->reason));
    return seat->bound;
}

/* Without a cgroup the setting is refused, not run without its bound. */
static void group_refuse(struct run *run, size_t from, size_t end,
                         const char *reason)
{
    char setting[32];

    grid_setting_text(&run->cells[from], setting);
    printf("%5.0f s  %s refused: %s\n", seconds_now(), setting, reason);
    for (size_t c = from; c < end; c++)
        for (unsigned e = 0; e < run->engines_n; e++)
            snprintf(result_at(run, c, e)->reason, RESULT_REASON, "refused: %s",
                     reason);
}

static bool group_seats(struct run *run, size_t from, size_t end,
                        struct keyspace *space, struct seat *seats)
{
    for (unsigned e = 0; e < run->engines_n; e++) {
        struct seat *seat = &seats[e];

        *seat =
            (struct seat){.space = space, .config = results_config(run, from)};
        snprintf(seat->dir, sizeof(seat->dir), "%s/compare_engines.%s",
                 run->dir, run->engines[e]->name);
        seat->config.dir = seat->dir;
        if (!group_bind(run, from, e, seat)) {
            group_refuse(run, from, end, seat->reason);
            for (unsigned other = 0; other < e; other++)
                cgroup_remove(&seats[other].group);
            return false;
        }
    }
    return true;
}

static unsigned group_rounds(const struct run *run, size_t from, size_t end)
{
    unsigned most = 0;

    for (size_t c = from; c < end; c++)
        if (run->size[c].rounds > most)
            most = run->size[c].rounds;
    return most;
}

static bool group_round_done(const struct run *run, size_t from, size_t end,
                             unsigned round)
{
    for (size_t c = from; c < end; c++)
        for (unsigned e = 0; e < run->engines_n && round < run->size[c].rounds;
             e++)
            if (!result_at(run, c, e)->have[round] &&
                !grid_cannot(run->engines[e], &run->cells[c]))
                return false;
    return true;
}

/* Before the first cell that needs them filled: not between two measured
 * turns, which a filled disk's aftermath would slow down.  One that fails tries
 * again in its turn. */
static void group_load(const struct run *run, size_t cell, unsigned round,
                       struct seat *seats)
{
    bool said = false;
    uint64_t start;

    for (unsigned e = 0; e < run->engines_n; e++) {
        if (seats[e].loaded || seats[e].out ||
            result_at(run, cell, e)->have[round] ||
            grid_cannot(run->engines[e], &run->cells[cell]))
            continue;
        printf("%s %s", said ? "" : "        filling:", run->engines[e]->name);
        fflush(stdout);
        said = true;
        start = rig_now_ns();
        seat_load(run, cell, e, &seats[e]);
        printf(" %.0f s", (double)(rig_now_ns() - start) / 1e9);
    }
    if (said)
        printf("\n");
}

static void group_round(struct run *run, size_t from, size_t end,
                        unsigned round, struct seat *seats)
{
    char setting[32], workload[32];

    grid_setting_text(&run->cells[from], setting);
    for (unsigned e = 0; e < run->engines_n; e++) {
        seats[e].out = false;
        seats[e].deaths = 0;
    }
    for (size_t c = from; c < end; c++) {
        if (round >= run->size[c].rounds)
            continue;
        if (!workload_loads(run->cells[c].workload))
            group_load(run, c, round, seats);
        grid_workload_text(&run->cells[c], workload);
        printf("%5.0f s  %s round %u/%u, %zu/%zu %s x%u:", seconds_now(),
               setting, round + 1, run->size[c].rounds, c - from + 1,
               end - from, workload, run->cells[c].threads);
        for (unsigned i = 0; i < run->engines_n; i++) {
            unsigned e = (i + round) % run->engines_n;

            turn(run, c, e, round, &seats[e]);
        }
        printf("\n");
    }
}

static void group_run(struct run *run, size_t from, size_t end)
{
    struct seat *seats = calloc(run->engines_n, sizeof(*seats));
    const struct group_size *size = &run->size[from];
    struct keyspace space;

    if (!seats)
        rig_die("out of memory");
    keyspace_make(&space, size->records, run->cells[from].value_len);
    if (group_seats(run, from, end, &space, seats)) {
        for (unsigned round = 0; round < group_rounds(run, from, end); round++)
            if (!group_round_done(run, from, end, round))
                group_round(run, from, end, round, seats);
        for (unsigned e = 0; e < run->engines_n; e++) {
            seat_end(&seats[e], limit_of(size));
            wipe(&seats[e]);
            if (seats[e].bound)
                cgroup_remove(&seats[e].group);
        }
    }
    free(space.noise);
    free(seats);
}

void turns_run(struct run *run)
{
    run_start = rig_now_ns();
    for (size_t from = 0, end; from < run->cells_n; from = end) {
        for (end = from; end < run->cells_n &&
                         same_group(&run->cells[from], &run->cells[end]);)
            end++;
        group_run(run, from, end);
        results_write(run, NULL);
    }
    printf("%5.0f s  done\n", seconds_now());
}
