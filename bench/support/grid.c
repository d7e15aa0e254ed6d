/*
 * The grid of compare_engines: every workload in every setting, and as much of
 * the products with value lengths, draws and threads as the level takes.
 */
#include "grid.h"

enum { U = 1 << DRAW_UNIFORM, Z = 1 << DRAW_ZIPF, L = 1 << DRAW_LATEST };

const struct workload_info workload_info[WORKLOADS] = {
    [LOAD_SEQ] = {"load-seq", "rows", 0, DRAW_UNIFORM, true, 0},
    [LOAD_RAND] = {"load-rand", "rows", 0, DRAW_UNIFORM, true, 0},
    [YCSB_C] = {"ycsb-c", "gets", U | Z, DRAW_ZIPF, false, 0},
    [GET_ABSENT] = {"get-absent", "gets", U, DRAW_UNIFORM, false, 0},
    [MULTI_GET] = {"multi-get", "records", U | Z, DRAW_UNIFORM, false, 0},
    [SCAN_50] = {"scan-50", "scans", U | Z, DRAW_UNIFORM, false, 0},
    [SCAN_FORWARD] = {"scan-forward", "rows", 0, DRAW_UNIFORM, false, 0},
    [SCAN_BACKWARD] = {"scan-backward", "rows", 0, DRAW_UNIFORM, false,
                       PEER_CAN_BACK},
    [YCSB_B] = {"ycsb-b", "operations", U | Z, DRAW_ZIPF, false, 0},
    [YCSB_D] = {"ycsb-d", "operations", L, DRAW_LATEST, false, 0},
    [YCSB_E] = {"ycsb-e", "operations", U | Z, DRAW_ZIPF, false, 0},
    [YCSB_A] = {"ycsb-a", "operations", U | Z, DRAW_ZIPF, true, 0},
    [YCSB_F] = {"ycsb-f", "operations", U | Z, DRAW_ZIPF, true, 0},
    [UPDATE] = {"update", "updates", U | Z, DRAW_UNIFORM, true, 0},
    [UPDATE_BATCH] = {"update-batch", "records", U | Z, DRAW_UNIFORM, true,
                      PEER_CAN_BATCH},
    [DELETE] = {"delete", "deletes", 0, DRAW_UNIFORM, true, 0},
};

const char *const setting_name[GRID_SETTINGS] = {
    [PEER_MEMORY] = "memory", [PEER_LARGER] = "larger", [PEER_SYNC] = "sync"};

const char *const draw_name[3] = {
    [DRAW_UNIFORM] = "uniform", [DRAW_ZIPF] = "zipf", [DRAW_LATEST] = "latest"};

/* --- the levels -------------------------------------------------------------- */

/* A durable row is about commits: what only reads is in the other settings. */
static bool exists(const struct grid_cell *cell)
{
    return cell->setting != PEER_SYNC || workload_writes(cell->workload);
}

/* Shapes that say most with one of each. */
static bool telling(const struct grid_cell *cell)
{
    switch (cell->workload) {
    case YCSB_C:
        return true;
    case YCSB_A: /* in "larger" a row that writes has a minute for each engine */
        return cell->setting != PEER_LARGER || cell->value_len != 100;
    case UPDATE:
        return cell->setting != PEER_LARGER;
    case LOAD_RAND:
    case SCAN_50:
    case SCAN_FORWARD:
        return cell->setting == PEER_MEMORY;
    case UPDATE_BATCH:
        return cell->setting == PEER_SYNC;
    default:
        return false;
    }
}

static bool in_quick(const struct grid_cell *cell)
{
    bool main_draw = cell->draw == workload_info[cell->workload].main;

    if (cell->value_len != 100 || !main_draw)
        return false;
    if (cell->setting == PEER_SYNC)
        return (cell->workload == UPDATE && cell->threads != 2) ||
               (cell->threads == 1 && telling(cell));
    if (cell->threads == 1)
        return cell->setting == PEER_MEMORY || !workload_loads(cell->workload);
    if (cell->threads == 2)
        return cell->setting == PEER_MEMORY && telling(cell) &&
               cell->workload != LOAD_RAND;
    return false;
}

static bool in_default(const struct grid_cell *cell)
{
    bool main_draw = cell->draw == workload_info[cell->workload].main;

    if (cell->value_len != 100)
        return cell->threads == 1 && main_draw && telling(cell);
    if (cell->threads == 1)
        return main_draw || cell->workload == YCSB_C ||
               (cell->workload == YCSB_A && cell->setting == PEER_MEMORY);
    return main_draw && telling(cell);
}

static bool in_level(enum grid_level level, const struct grid_cell *cell)
{
    if (level == GRID_QUICK)
        return in_quick(cell);
    return level == GRID_FULL || in_default(cell);
}

/* --- the choice -------------------------------------------------------------- */

static bool is_in_sizes(const size_t *of, unsigned n, size_t value)
{
    for (unsigned i = 0; i < n; i++)
        if (of[i] == value)
            return true;
    return false;
}

static bool is_in(const unsigned *of, unsigned n, unsigned value)
{
    for (unsigned i = 0; i < n; i++)
        if (of[i] == value)
            return true;
    return false;
}

static bool draw_chosen(const struct grid_choice *choice,
                        const struct grid_cell *cell)
{
    unsigned draws = workload_info[cell->workload].draws, wanted = 0;

    for (unsigned i = 0; i < choice->draws_n; i++)
        wanted |= 1u << choice->draws[i];
    /* One that the workload does not know leaves its main one. */
    if (!(draws & wanted))
        return cell->draw == workload_info[cell->workload].main;
    return wanted >> cell->draw & 1;
}

/* Once a workload, a length, a number of threads or a draw is named, the level
 * has no say: a dimension that was not named has its first value. */
static bool wanted(const struct grid_choice *choice,
                   const struct grid_cell *cell)
{
    bool named = choice->workloads_n || choice->values_n || choice->threads_n ||
                 choice->draws_n;

    if (choice->settings_n && !choice->settings[cell->setting])
        return false;
    if (choice->level == GRID_FULL || named) {
        bool full = choice->level == GRID_FULL;

        return (!choice->workloads_n || choice->workloads[cell->workload]) &&
               (choice->values_n ? is_in_sizes(choice->values, choice->values_n,
                                               cell->value_len)
                                 : full || cell->value_len == 100) &&
               (choice->threads_n
                    ? is_in(choice->threads, choice->threads_n, cell->threads)
                    : full || cell->threads == 1) &&
               (full && !choice->draws_n ? true : draw_chosen(choice, cell));
    }
    return in_level(choice->level, cell);
}

static size_t add_draws(const struct grid_choice *choice, struct grid_cell cell,
                        struct grid_cell *cells, size_t n)
{
    const struct workload_info *info = &workload_info[cell.workload];

    for (unsigned draw = 0; draw < 3; draw++) {
        cell.draw = (enum distribution)draw;
        if (!(info->draws >> draw & 1) &&
            (info->draws || cell.draw != info->main))
            continue;
        if (!exists(&cell) || !wanted(choice, &cell))
            continue;
        if (n == GRID_CELLS)
            rig_die("too many cells");
        cells[n++] = cell;
    }
    return n;
}

size_t grid_make(const struct grid_choice *choice,
                 struct grid_cell cells[GRID_CELLS])
{
    static const size_t all_values[] = {100, 1024};
    static const unsigned all_threads[] = {1, 2, 4};
    const size_t *values = choice->values_n ? choice->values : all_values;
    const unsigned *threads = choice->threads_n ? choice->threads : all_threads;
    unsigned values_n = choice->values_n ? choice->values_n : 2;
    unsigned threads_n = choice->threads_n ? choice->threads_n : 3;
    size_t n = 0;

    for (unsigned s = 0; s < GRID_SETTINGS; s++)
        for (unsigned v = 0; v < values_n; v++)
            for (unsigned w = 0; w < WORKLOADS; w++)
                for (unsigned t = 0; t < threads_n; t++)
                    n = add_draws(choice,
                                  (struct grid_cell){
                                      .setting = (enum peer_setting)s,
                                      .value_len = values[v],
                                      .workload = (enum workload)w,
                                      .threads = threads[t],
                                  },
                                  cells, n);
    return n;
}

/* --- texts ------------------------------------------------------------------- */

void grid_workload_text(const struct grid_cell *cell, char text[32])
{
    const struct workload_info *info = &workload_info[cell->workload];

    snprintf(text, 32, "%s%s%s", info->name, info->draws ? "-" : "",
             info->draws ? draw_name[cell->draw] : "");
}

void grid_setting_text(const struct grid_cell *cell, char text[32])
{
    snprintf(text, 32, "%s-%zu", setting_name[cell->setting], cell->value_len);
}

const char *grid_cannot(const struct peer_kind *kind,
                        const struct grid_cell *cell)
{
    unsigned needs = workload_info[cell->workload].needs;

    if (cell->setting == PEER_SYNC && !(kind->abilities & PEER_CAN_SYNC))
        return "it has no commit that survives a power cut";
    if (needs & PEER_CAN_BATCH && !(kind->abilities & PEER_CAN_BATCH))
        return "it has no atomic batch";
    if (needs & PEER_CAN_BACK && !(kind->abilities & PEER_CAN_BACK))
        return "it cannot scan from high to low";
    return NULL;
}
