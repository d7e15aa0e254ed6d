/*
 * The state file, the JSON lines and the tables.
 *
 * State: a line of parameters, then a line for each sample or reason, its
 * fields apart by tabs.  It is read with sscanf by this file alone.
 */
#include "results.h"

#include <stdlib.h>

enum { METRICS = 9 };

enum metric {
    RATE,
    RATE_WITH_DEBT,
    RATE_PER_CPU,
    P50,
    P99,
    P999,
    RESIDENT,
    WRITTEN,
    FILE_SIZE,
};

static const char *const metric_name[METRICS] = {
    [RATE] = "ops_per_s",
    [RATE_WITH_DEBT] = "ops_per_s_with_debt",
    [RATE_PER_CPU] = "ops_per_cpu_s_with_debt",
    [P50] = "p50_us",
    [P99] = "p99_us",
    [P999] = "p999_us",
    [RESIDENT] = "resident_bytes",
    [WRITTEN] = "written_per_user_byte",
    [FILE_SIZE] = "file_per_live_byte",
};

static double ratio(double a, double b)
{
    return b > 0 ? a / b : 0;
}

static double metric_of(const struct cell_sample *sample, enum metric metric)
{
    switch (metric) {
    case RATE:
        return ratio(sample->ops, sample->seconds);
    case RATE_WITH_DEBT:
        return ratio(sample->ops, sample->seconds + sample->debt_seconds);
    case RATE_PER_CPU:
        return ratio(sample->ops, sample->cpu_seconds);
    case P50:
        return sample->p50_us;
    case P99:
        return sample->p99_us;
    case P999:
        return sample->p999_us;
    case RESIDENT:
        return sample->resident_bytes;
    case WRITTEN:
        return ratio(sample->written_bytes, sample->user_bytes);
    default:
        return ratio(sample->file_bytes, sample->live_bytes);
    }
}

/* Debt, and what reaches the disk, is of those who write; how long files are
 * for what lives, not of those who delete: the faster, the less lives. */
static bool metric_is_of(const struct grid_cell *cell, enum metric metric)
{
    if (metric == FILE_SIZE && cell->workload == DELETE)
        return false;
    return workload_writes(cell->workload) ||
           (metric != RATE_WITH_DEBT && metric != WRITTEN &&
            metric != FILE_SIZE);
}

/* The rounds that there are; returns how many. */
static unsigned rounds_of(const struct run *run, size_t cell, unsigned engine,
                          enum metric metric, double values[RIG_ROUNDS_MAX])
{
    const struct result *result = result_at(run, cell, engine);
    unsigned n = 0;

    for (unsigned r = 0; r < run->size[cell].rounds; r++)
        if (result->have[r])
            values[n++] = metric_of(&result->sample[r], metric);
    return n;
}

static bool median_of(const struct run *run, size_t cell, unsigned engine,
                      enum metric metric, double *median)
{
    double values[RIG_ROUNDS_MAX];
    unsigned n = rounds_of(run, cell, engine, metric, values);

    *median = n ? rig_median(values, n) : 0;
    return n > 0;
}

struct peer_config results_config(const struct run *run, size_t cell)
{
    const struct group_size *size = &run->size[cell];

    return (struct peer_config){
        .setting = run->cells[cell].setting,
        .memory_bytes = size->memory_bytes,
        .records = size->records,
        .value_len = run->cells[cell].value_len,
        .threads = size->threads,
    };
}

/* --- the state file ---------------------------------------------------------- */

#define STATE_NUMBERS \
    "%lg\t%lg\t%lg\t%lg\t%lg\t%lg\t%lg\t%lg\t%lg\t%lg\t%lg\t%lg"

static void state_path(const struct run *run, char path[4096])
{
    snprintf(path, 4096, "%s/compare_engines.state", run->out);
}

static void state_key(const struct run *run, size_t cell, unsigned engine,
                      char key[128])
{
    char setting[32], workload[32];

    grid_setting_text(&run->cells[cell], setting);
    grid_workload_text(&run->cells[cell], workload);
    snprintf(key, 128, "%s/%s/%u/%s", setting, workload,
             run->cells[cell].threads, run->engines[engine]->name);
}

static struct result *find_key(const struct run *run, const char *key)
{
    char text[128];

    for (size_t c = 0; c < run->cells_n; c++)
        for (unsigned e = 0; e < run->engines_n; e++) {
            state_key(run, c, e, text);
            if (strcmp(text, key) == 0)
                return result_at(run, c, e);
        }
    return NULL;
}

static void take_line(const struct run *run, const char *line)
{
    char key[128], reason[RESULT_REASON] = "";
    unsigned round;
    struct cell_sample s = {0};
    struct result *result;

    if (sscanf(line, "%127[^\t]\t%u", key, &round) != 2 ||
        round >= RIG_ROUNDS_MAX)
        return;
    result = find_key(run, key);
    if (!result)
        return;
    if (sscanf(line, "%*[^\t]\t%*u\t" STATE_NUMBERS, &s.ops, &s.seconds,
               &s.debt_seconds, &s.cpu_seconds, &s.p50_us, &s.p99_us,
               &s.p999_us, &s.resident_bytes, &s.written_bytes, &s.user_bytes,
               &s.file_bytes, &s.live_bytes) == 12) {
        result->have[round] = true;
        result->sample[round] = s;
    } else if (sscanf(line, "%*[^\t]\t%*u\t-\t%255[^\n]", reason) == 1) {
        snprintf(result->reason, sizeof(result->reason), "%s", reason);
    }
}

void results_begin(struct run *run, bool resume)
{
    char path[4096], line[1024];
    FILE *file;

    state_path(run, path);
    rig_make_dir(run->out);
    file = resume ? fopen(path, "re") : NULL;
    if (file && fgets(line, sizeof(line), file)) {
        line[strcspn(line, "\n")] = 0;
        if (strcmp(line, run->parameters) != 0)
            rig_die("%s is of another run (%s, not %s): leave out --resume, or "
                    "say the same again",
                    path, line, run->parameters);
        while (fgets(line, sizeof(line), file))
            take_line(run, line);
        fclose(file);
        return;
    }
    if (file)
        fclose(file);
    file = fopen(path, "we");
    if (!file)
        rig_die("%s: cannot write it", path);
    fprintf(file, "%s\n", run->parameters);
    fclose(file);
}

void results_save(const struct run *run, size_t cell, unsigned engine,
                  unsigned round)
{
    const struct result *result = result_at(run, cell, engine);
    const struct cell_sample *s = &result->sample[round];
    char path[4096], key[128];
    FILE *file;

    state_path(run, path);
    state_key(run, cell, engine, key);
    file = fopen(path, "ae");
    if (!file)
        rig_die("%s: cannot write it", path);
    if (result->have[round])
        fprintf(file,
                "%s\t%u\t%.6g\t%.6g\t%.6g\t%.6g\t%.6g\t%.6g\t%.6g\t%.6g\t%.6g"
                "\t%.6g\t%.6g\t%.6g\n",
                key, round, s->ops, s->seconds, s->debt_seconds, s->cpu_seconds,
                s->p50_us, s->p99_us, s->p999_us, s->resident_bytes,
                s->written_bytes, s->user_bytes, s->file_bytes, s->live_bytes);
    else
        fprintf(file, "%s\t%u\t-\t%s\n", key, round, result->reason);
    fclose(file);
}

/* --- JSON lines ---------------------------------------------------------------- */

static void write_limits_json(FILE *to, const struct run *run)
{
    for (unsigned i = 0; i < LIMITS; i++) {
        struct rig_cell line = {
            .bench = "compare_engines",
            .setting = "hardware",
            .workload = limit_name[i],
            .engine = "hardware",
            .metric = limit_unit[i],
            .config = "",
            .threads = 1,
            .rounds = &run->limits.value[i],
            .n = run->limits.value[i] > 0 ? 1 : 0,
            .reason = "not to be had on this file system",
        };

        rig_json(to, &line);
    }
}

static void write_cell_json(FILE *to, const struct run *run, size_t cell,
                            unsigned engine, const char *config)
{
    char setting[32], workload[32];
    double rounds[RIG_ROUNDS_MAX];

    grid_setting_text(&run->cells[cell], setting);
    grid_workload_text(&run->cells[cell], workload);
    for (unsigned m = 0; m < METRICS; m++) {
        struct rig_cell line = {
            .bench = "compare_engines",
            .setting = setting,
            .workload = workload,
            .engine = run->engines[engine]->name,
            .metric = metric_name[m],
            .config = config,
            .threads = run->cells[cell].threads,
            .rounds = rounds,
            .reason = result_at(run, cell, engine)->reason,
        };

        if (!metric_is_of(&run->cells[cell], (enum metric)m))
            continue;
        line.n = rounds_of(run, cell, engine, (enum metric)m, rounds);
        if (line.n || *line.reason)
            rig_json(to, &line);
    }
}

static void write_json(FILE *to, const struct run *run)
{
    write_limits_json(to, run);
    for (size_t c = 0; c < run->cells_n; c++)
        for (unsigned e = 0; e < run->engines_n; e++) {
            struct peer_config config = results_config(run, c);
            char text[1024];
            FILE *memory = fmemopen(text, sizeof(text), "w");

            if (!memory)
                rig_die("out of memory");
            fprintf(memory, "%llu records; ",
                    (unsigned long long)config.records);
            run->engines[e]->describe(memory, &config);
            fclose(memory);
            write_cell_json(to, run, c, e, text);
        }
}

/* --- tables -------------------------------------------------------------------- */

static void table_head(FILE *to, const struct run *run, const char *title)
{
    fprintf(to, "\n**%s**\n\n| workload | threads |", title);
    for (unsigned e = 0; e < run->engines_n; e++)
        fprintf(to, " %s |", run->engines[e]->name);
    fputs("\n|---|---|", to);
    for (unsigned e = 0; e < run->engines_n; e++)
        fputs("---|", to);
    fputc('\n', to);
}

static void row_head(FILE *to, const struct run *run, size_t cell)
{
    char workload[32];

    grid_workload_text(&run->cells[cell], workload);
    fprintf(to, "| %s | %u |", workload, run->cells[cell].threads);
}

/* The engine with the highest rate, in bold; not one that keeps nothing of what
 * it was given, which others pay for. */
static unsigned best_of(const struct run *run, size_t cell, enum metric metric)
{
    double best = 0, value;
    unsigned engine = run->engines_n;

    for (unsigned e = 0; e < run->engines_n; e++)
        if (run->engines[e]->abilities & PEER_CAN_REOPEN &&
            median_of(run, cell, e, metric, &value) && value > best) {
            best = value;
            engine = e;
        }
    return engine;
}

static void rate_row(FILE *to, const struct run *run, size_t cell,
                     enum metric metric)
{
    unsigned best = best_of(run, cell, metric);
    char text[16];
    double value;

    row_head(to, run, cell);
    for (unsigned e = 0; e < run->engines_n; e++) {
        const char *mark = e == best ? "**" : "";

        if (median_of(run, cell, e, metric, &value))
            fprintf(to, " %s%s%s |", mark, rig_short(value, text), mark);
        else
            fputs(" – |", to);
    }
    fputc('\n', to);
}

static void latency_text(double us, char text[16])
{
    snprintf(text, 16, us < 10 ? "%.2g" : "%.0f", us);
}

static void latency_row(FILE *to, const struct run *run, size_t cell)
{
    row_head(to, run, cell);
    for (unsigned e = 0; e < run->engines_n; e++) {
        char text[3][16];
        double value;
        bool have = true;

        for (unsigned m = 0; m < 3; m++) {
            have =
                have && median_of(run, cell, e, (enum metric)(P50 + m), &value);
            latency_text(value, text[m]);
        }
        if (have)
            fprintf(to, " %s / %s / %s |", text[0], text[1], text[2]);
        else
            fputs(" – |", to);
    }
    fputc('\n', to);
}

static void spread_row(FILE *to, const struct run *run, size_t cell)
{
    double values[RIG_ROUNDS_MAX];

    row_head(to, run, cell);
    for (unsigned e = 0; e < run->engines_n; e++) {
        unsigned n = rounds_of(run, cell, e, RATE, values);

        if (n > 1)
            fprintf(to, " %.0f |", rig_spread(values, n));
        else
            fputs(" – |", to);
    }
    fputc('\n', to);
}

/* Written per user byte / files per live byte / resident set in MiB. */
static void space_row(FILE *to, const struct run *run, size_t cell)
{
    row_head(to, run, cell);
    for (unsigned e = 0; e < run->engines_n; e++) {
        double written, file, resident;
        const struct grid_cell *at = &run->cells[cell];

        if (!median_of(run, cell, e, RESIDENT, &resident)) {
            fputs(" – |", to);
            continue;
        }
        median_of(run, cell, e, WRITTEN, &written);
        median_of(run, cell, e, FILE_SIZE, &file);
        if (metric_is_of(at, FILE_SIZE))
            fprintf(to, " %.1f / %.2f / %.0f |", written, file,
                    resident / PEER_MIB);
        else if (metric_is_of(at, WRITTEN))
            fprintf(to, " %.1f / – / %.0f |", written, resident / PEER_MIB);
        else
            fprintf(to, " – / – / %.0f |", resident / PEER_MIB);
    }
    fputc('\n', to);
}

/* The first cell from FROM on whose reason is the same as CELL's. */
static size_t first_with_reason(const struct run *run, size_t from, size_t cell,
                                unsigned engine)
{
    const char *reason = result_at(run, cell, engine)->reason;

    while (strcmp(result_at(run, from, engine)->reason, reason) != 0)
        from++;
    return from;
}

/* One line for each engine's reason, with the cells that it is of. */
static void write_reason(FILE *to, const struct run *run, size_t cell,
                         size_t end, unsigned engine)
{
    const char *reason = result_at(run, cell, engine)->reason;
    char workload[32];
    double value;

    fprintf(to, "* %s, %s:", run->engines[engine]->name, reason);
    for (size_t c = cell; c < end; c++) {
        if (strcmp(result_at(run, c, engine)->reason, reason) != 0)
            continue;
        grid_workload_text(&run->cells[c], workload);
        fprintf(to, "%s %s x%u%s", c == cell ? "" : ",", workload,
                run->cells[c].threads,
                median_of(run, c, engine, RATE, &value) ? " (in some rounds)"
                                                        : "");
    }
    fputs(".\n", to);
}

static void write_dashes(FILE *to, const struct run *run, size_t from,
                         size_t end)
{
    bool some = false;

    for (unsigned e = 0; e < run->engines_n; e++)
        for (size_t c = from; c < end; c++) {
            if (!*result_at(run, c, e)->reason ||
                first_with_reason(run, from, c, e) != c)
                continue;
            if (!some)
                fputs("\nDashes, and what else went wrong:\n\n", to);
            some = true;
            write_reason(to, run, c, end, e);
        }
}

static void write_group_head(FILE *to, const struct run *run, size_t cell,
                             unsigned rounds)
{
    struct peer_config config = results_config(run, cell);
    const struct group_size *size = &run->size[cell];
    char setting[32];

    grid_setting_text(&run->cells[cell], setting);
    fprintf(
        to,
        "\n## %s\n\n%llu records of %d + %zu bytes (%.0f MiB); cells of "
        "%.2f s, mostly writing ones %.2f s; medians of up to %u rounds.\n",
        setting, (unsigned long long)size->records, RIG_KEY, config.value_len,
        (double)size->records * (double)(RIG_KEY + config.value_len) / PEER_MIB,
        (double)size->read_ns / 1e9, (double)size->write_ns / 1e9, rounds);
    if (size->bound_bytes)
        fprintf(to,
                "Memory cgroup of %llu MiB for the process and the page cache "
                "it brings in: a budget of %llu MiB for the engine and %llu "
                "MiB for the program.\n",
                (unsigned long long)size->bound_bytes / PEER_MIB,
                (unsigned long long)size->memory_bytes / PEER_MIB,
                (unsigned long long)(size->bound_bytes - size->memory_bytes) /
                    PEER_MIB);
    fputc('\n', to);
    for (unsigned e = 0; e < run->engines_n; e++) {
        fputs("* ", to);
        run->engines[e]->describe(to, &config);
        fprintf(to, ". Multi-get: %s. Settled: %s.\n",
                run->engines[e]->multi_get_by, run->engines[e]->settled);
    }
}

static void write_group(FILE *to, const struct run *run, size_t from,
                        size_t end)
{
    unsigned rounds = 0;

    for (size_t c = from; c < end; c++)
        if (run->size[c].rounds > rounds)
            rounds = run->size[c].rounds;
    write_group_head(to, run, from, rounds);
    table_head(to, run, "Per second");
    for (size_t c = from; c < end; c++)
        rate_row(to, run, c, RATE);
    for (size_t c = from, some = 0; c < end; c++) {
        if (!workload_writes(run->cells[c].workload))
            continue;
        if (!some++)
            table_head(to, run,
                       run->size[from].bound_bytes
                           ? "Per second, the debt up to a clean close counted"
                           : "Per second, the debt up to settled counted");
        rate_row(to, run, c, RATE_WITH_DEBT);
    }
    table_head(to, run,
               "Per second of processor time of the whole process, debt too");
    for (size_t c = from; c < end; c++)
        rate_row(to, run, c, RATE_PER_CPU);
    table_head(to, run, "Latency of a call, us: p50 / p99 / p99.9");
    for (size_t c = from; c < end; c++)
        latency_row(to, run, c);
    for (size_t c = from, some = 0; c < end; c++) {
        if (run->size[c].rounds < 2)
            continue;
        if (!some++)
            table_head(to, run,
                       "Spread between rounds, (greatest - least) / median, %");
        spread_row(to, run, c);
    }
    table_head(to, run,
               "Bytes written per user byte / bytes of files per live byte / "
               "resident MiB");
    for (size_t c = from; c < end; c++)
        space_row(to, run, c);
    write_dashes(to, run, from, end);
}

static void write_limits(FILE *to, const struct run *run)
{
    char text[16];

    fputs("\n| limit of this machine | |\n|---|---|\n", to);
    for (unsigned i = 0; i < LIMITS; i++)
        if (run->limits.value[i] > 0)
            fprintf(
                to, "| %s | %s %s |\n", limit_name[i],
                run->limits.value[i] < 1000
                    ? (snprintf(text, 16, "%.1f", run->limits.value[i]), text)
                    : rig_short(run->limits.value[i], text),
                limit_unit[i]);
}

static void write_tables(FILE *to, const struct run *run)
{
    write_limits(to, run);
    for (size_t from = 0, end; from < run->cells_n; from = end) {
        for (end = from; end < run->cells_n &&
                         same_group(&run->cells[from], &run->cells[end]);)
            end++;
        write_group(to, run, from, end);
    }
}

static FILE *open_result(const char *dir, const char *name)
{
    char path[4096];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    file = fopen(path, "we");
    if (!file)
        rig_die("%s: cannot write it", path);
    return file;
}

void results_write(const struct run *run, FILE *echo)
{
    FILE *json = open_result(run->out, "compare_engines.jsonl");
    FILE *table = open_result(run->out, "compare_engines.md");

    write_json(json, run);
    fprintf(table, "```\n%s```\n", run->machine);
    write_tables(table, run);
    if (echo)
        write_tables(echo, run);
    if (fclose(json) || fclose(table))
        rig_die("%s: cannot write the results", run->out);
}
