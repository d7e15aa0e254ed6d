/*
 * The question: what does each call of the engine cost, by itself?
 *
 *   engine_bench [--benchmark_filter=REGEX] [--benchmark_min_time=SECONDS]
 *                [--benchmark_repetitions=N] [--dir=DIR] [--results=FILE]
 *                [--records=N]
 *
 * Google Benchmark; the unit of each row is the time of one operation, and
 * items per second (a scan of 50 rows is 50 items).  Each benchmark makes its
 * own database, before its clock starts, and removes it after.
 */
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "index/bftree.h"
#include "support/rig.h"

namespace
{

constexpr unsigned picks_count = 1u << 18; /* a power of two */
constexpr unsigned batch_records = 100, scan_rows = 50;
constexpr uint64_t mib = 1 << 20;

std::string data_dir = "build/bench-data";
std::string results_file = "build/results/engine_bench.jsonl";
uint32_t records_count = 200000;

/* Every benchmark draws from the same records and picks. */
struct given {
    rig_records records;
    std::vector<uint32_t> uniform, zipf, shuffled;

    given() : uniform(picks_count), zipf(picks_count), shuffled(records_count)
    {
        rig_records_make(&records, records_count);
        rig_pick_uniform(1, records_count, uniform.data(), picks_count);
        rig_pick_zipf(2, records_count, zipf.data(), picks_count);
        rig_shuffle(3, records_count, shuffled.data());
    }
};

const given &data()
{
    static const given data;

    return data;
}

void must(bft_status status, const char *what)
{
    char text[512];

    if (status == BFT_OK)
        return;
    bft_last_error(text, sizeof(text));
    rig_die("%s: %s: %s", what, bft_strerror(status), text);
}

/* Key and value of a record, ready to be passed. */
struct record {
    uint8_t key_bytes[RIG_KEY], value_bytes[RIG_VALUE];

    record(uint32_t i, uint64_t version)
    {
        uint64_t number = data().records.number[i];

        rig_key(number, key_bytes);
        rig_value(&data().records, number, version, value_bytes);
    }
    bft_slice key() const
    {
        return {key_bytes, RIG_KEY};
    }
    bft_slice value() const
    {
        return {value_bytes, RIG_VALUE};
    }
};

/* Of the records' weight: the budget of cold-10x, and of caches. */
constexpr double little = 0.1;

/* What a database is opened with; the budget a share of the records' weight. */
struct setting {
    bft_storage storage = BFT_STORAGE_FILES;
    bft_durability durability = BFT_BUFFERED;
    double share = 8;
};

class database
{
  public:
    bft_db *db = nullptr;
    bft_tree *tree = nullptr;

    explicit database(const setting &setting)
        : files_(setting.storage == BFT_STORAGE_FILES)
    {
        double weight = double(records_count) * (RIG_KEY + RIG_VALUE);
        static int serial;

        options_.size = sizeof(options_);
        options_.storage = setting.storage;
        options_.durability = setting.durability;
        options_.memory_bytes = uint64_t(weight * setting.share);
        if (options_.memory_bytes < mib)
            options_.memory_bytes = mib;
        path_ = "/engine_bench." + std::to_string(serial++);
        if (files_) {
            /* Memory has its own root; files go where the user said. */
            path_ = data_dir + path_;
            rig_remove_dir(path_.c_str());
        }
        open();
    }
    database(const database &) = delete;
    database &operator=(const database &) = delete;
    ~database()
    {
        must(bft_close(db), "close");
        if (files_)
            rig_remove_dir(path_.c_str());
    }

    /* All records, in random order, in place on disk. */
    void fill()
    {
        bft_batch *batch;

        must(bft_batch_create(db, &batch), "batch");
        for (uint32_t i = 0; i < records_count; i++) {
            record record(data().shuffled[i], 0);

            must(bft_batch_put(batch, tree, record.key(), record.value()),
                 "batch");
            if (bft_batch_count(batch) == batch_records ||
                i + 1 == records_count)
                must(bft_batch_commit(batch, BFT_NONE, nullptr), "commit");
        }
        bft_batch_free(batch);
        must(bft_checkpoint(db), "checkpoint");
    }

    void reopen()
    {
        must(bft_close(db), "close");
        open();
    }

  private:
    bft_options options_ = {};
    bool files_;
    std::string path_;

    void open()
    {
        must(bft_open(path_.c_str(), &options_, &db), "open");
        must(bft_tree_open(db, "t", nullptr, &tree), "tree");
    }
};

void get_one(const database &database, uint32_t i)
{
    uint8_t key[RIG_KEY], value[RIG_VALUE];
    size_t len;

    rig_key(data().records.number[i], key);
    must(bft_get(database.tree, {key, RIG_KEY}, value, RIG_VALUE, &len), "get");
    if (!rig_value_fits(&data().records, key, value, len))
        rig_die("get: record %u holds what is not its own", i);
}

/* Threads of one benchmark share what was set up before they start. */
std::unique_ptr<database> shared;

/* Where a thread starts in the picks: threads do not walk in step. */
uint32_t start_of(const benchmark::State &state)
{
    return uint32_t(state.thread_index()) * (picks_count / 8);
}

void finish(benchmark::State &state, double items = 1)
{
    state.SetItemsProcessed(int64_t(double(state.iterations()) * items));
}

/* --- reading --------------------------------------------------------------- */

void get(benchmark::State &state, const std::vector<uint32_t> &picks)
{
    uint32_t at = start_of(state);

    for (auto _ : state)
        get_one(*shared, picks[at++ % picks_count]);
    finish(state);
}

void get_uniform(benchmark::State &state)
{
    get(state, data().uniform);
}

void get_zipf(benchmark::State &state)
{
    get(state, data().zipf);
}

void get_absent(benchmark::State &state)
{
    uint32_t at = start_of(state);
    uint8_t key[RIG_KEY], value[RIG_VALUE];
    size_t len;

    for (auto _ : state) {
        rig_absent_key(&data().records, data().uniform[at++ % picks_count],
                       key);
        if (bft_get(shared->tree, {key, RIG_KEY}, value, RIG_VALUE, &len) !=
            BFT_NOT_FOUND)
            rig_die("get: a record that nobody wrote");
    }
    finish(state);
}

/* Of the picks, those of so many records as are picked most. */
double most_picked(const std::vector<uint32_t> &picks, size_t records)
{
    std::vector<uint32_t> times(records_count);
    uint64_t sum = 0;

    for (uint32_t pick : picks)
        times[pick]++;
    std::sort(times.begin(), times.end(), std::greater<uint32_t>());
    for (size_t i = 0; i < records && i < times.size(); i++)
        sum += times[i];
    return double(sum) / double(picks.size());
}

/* What is not there is put, as by a program that has it from elsewhere.  Hits
 * are of all gets; ideal, if the records that are asked for most were there,
 * and took no room but their own. */
void get_or_put_zipf(benchmark::State &state)
{
    const std::vector<uint32_t> &picks = data().zipf;
    uint32_t at = start_of(state);
    uint64_t hits = 0;
    uint8_t key[RIG_KEY], value[RIG_VALUE];
    size_t len;

    for (auto _ : state) {
        uint32_t i = picks[at++ % picks_count];
        rig_key(data().records.number[i], key);
        bft_status status =
            bft_get(shared->tree, {key, RIG_KEY}, value, RIG_VALUE, &len);
        if (status == BFT_OK &&
            !rig_value_fits(&data().records, key, value, len))
            rig_die("get: record %u holds what is not its own", i);
        hits += status == BFT_OK;
        if (status == BFT_NOT_FOUND) {
            record record(i, at);
            status = bft_put(shared->tree, record.key(), record.value());
        }
        must(status, "get or put");
    }
    finish(state);
    state.counters["hits"] =
        benchmark::Counter(double(hits) / double(state.iterations()),
                           benchmark::Counter::kAvgThreads);
    state.counters["ideal"] =
        benchmark::Counter(most_picked(picks, size_t(records_count * little)),
                           benchmark::Counter::kAvgThreads);
}

/* The row that CURSOR is on. */
void look(bft_cursor *cursor)
{
    bft_slice key, value;

    must(bft_cursor_key(cursor, &key), "key");
    must(bft_cursor_value(cursor, &value), "value");
    if (!rig_value_begins(static_cast<const uint8_t *>(key.data),
                          static_cast<const uint8_t *>(value.data), value.len))
        rig_die("cursor: a row that holds what is not its own");
}

void cursor_steps(benchmark::State &state,
                  bft_status (*step)(bft_cursor *cursor))
{
    bft_cursor *cursor;

    must(bft_cursor_open(shared->tree, &cursor), "cursor");
    for (auto _ : state) {
        bft_status status = step(cursor);

        if (status == BFT_NOT_FOUND) {
            /* Over the end, and round again. */
            must(bft_cursor_bounds(cursor, {nullptr, 0}, {nullptr, 0}),
                 "bounds");
            status = step(cursor);
        }
        must(status, "step");
        look(cursor);
    }
    bft_cursor_close(cursor);
    finish(state);
}

bft_status step_next(bft_cursor *cursor)
{
    return bft_cursor_next(cursor);
}

bft_status step_prev(bft_cursor *cursor)
{
    return bft_cursor_prev(cursor);
}

void cursor_next(benchmark::State &state)
{
    cursor_steps(state, step_next);
}

void cursor_prev(benchmark::State &state)
{
    cursor_steps(state, step_prev);
}

void scan_50(benchmark::State &state)
{
    uint32_t at = start_of(state);
    uint8_t key[RIG_KEY];
    bft_cursor *cursor;

    must(bft_cursor_open(shared->tree, &cursor), "cursor");
    for (auto _ : state) {
        bft_status status;

        rig_key(data().records.number[data().uniform[at++ % picks_count]], key);
        must(bft_cursor_refresh(cursor), "refresh");
        status = bft_cursor_seek(cursor, BFT_GE, {key, RIG_KEY});
        for (unsigned i = 0; status == BFT_OK && i < scan_rows; i++) {
            look(cursor);
            if (i + 1 < scan_rows)
                status = bft_cursor_next(cursor);
        }
        if (status != BFT_NOT_FOUND)
            must(status, "scan");
    }
    bft_cursor_close(cursor);
    finish(state, scan_rows);
}

/* --- writing ------------------------------------------------------------- */

/* Each record once, then over again with new values. */
void put_sequential(benchmark::State &state)
{
    uint64_t i = 0;

    for (auto _ : state) {
        record record(uint32_t(i % records_count), i);

        must(bft_put(shared->tree, record.key(), record.value()), "put");
        i++;
    }
    finish(state);
}

void put_random(benchmark::State &state)
{
    uint64_t i = start_of(state);

    for (auto _ : state) {
        record record(data().uniform[i % picks_count], i);

        must(bft_put(shared->tree, record.key(), record.value()), "put");
        i++;
    }
    finish(state);
}

void batch_100(benchmark::State &state)
{
    uint64_t i = start_of(state);
    bft_batch *batch;

    must(bft_batch_create(shared->db, &batch), "batch");
    for (auto _ : state) {
        for (unsigned n = 0; n < batch_records; n++, i++) {
            record record(data().uniform[i % picks_count], i);

            must(bft_batch_put(batch, shared->tree, record.key(),
                               record.value()),
                 "batch");
        }
        must(bft_batch_commit(batch, BFT_DEFAULT, nullptr), "commit");
    }
    bft_batch_free(batch);
    finish(state, batch_records);
}

/* The life of a queue's records: a merge may see neither. */
void put_and_delete(benchmark::State &state)
{
    uint64_t i = start_of(state);

    for (auto _ : state) {
        record record(data().uniform[i % picks_count], i);

        must(bft_put(shared->tree, record.key(), record.value()), "put");
        must(bft_delete(shared->tree, record.key()), "delete");
        i++;
    }
    finish(state, 2);
}

void delete_existing(benchmark::State &state)
{
    uint32_t i = 0;
    uint8_t key[RIG_KEY];

    for (auto _ : state) {
        if (i == records_count) {
            state.PauseTiming();
            shared->fill();
            i = 0;
            state.ResumeTiming();
        }
        rig_key(data().records.number[data().shuffled[i++]], key);
        must(bft_delete(shared->tree, {key, RIG_KEY}), "delete");
    }
    finish(state);
}

/* --- which, in what ------------------------------------------------------ */

enum { HOT, REOPENED, COLD, EMPTY, EMPTY_COLD, MEMORY, SYNCING, CACHE };
const char *const setting_name[] = {"hot",   "reopened",   "cold-10x",
                                    "empty", "empty-cold", "memory",
                                    "sync",  "cache"};

/* What `shared` is, or -1 when it no longer is what a setting says.  It is set
 * up once for all benchmarks of a setting: each of them is started several
 * times over while its number of iterations is found. */
int shared_is = -1;

void set_up(int wanted)
{
    bool full = wanted != EMPTY && wanted != EMPTY_COLD && wanted != CACHE;
    setting setting;

    if ((full || wanted == CACHE) && wanted == shared_is)
        return;
    if (wanted == COLD || wanted == EMPTY_COLD || wanted == CACHE)
        setting.share = little;
    if (wanted == MEMORY)
        setting.storage = BFT_STORAGE_MEMORY;
    if (wanted == SYNCING)
        setting.durability = BFT_SYNC;
    if (wanted == CACHE) {
        setting.storage = BFT_STORAGE_CACHE;
        setting.durability = BFT_NONE;
    }
    shared.reset();
    shared.reset(new database(setting));
    shared_is = wanted;
    if (wanted == CACHE) /* it is full then, of what was asked for last */
        for (uint32_t i = 0; i < picks_count; i++) {
            record record(data().zipf[i], 0);
            must(bft_put(shared->tree, record.key(), record.value()), "put");
        }
    if (!full)
        return;
    shared->fill();
    if (wanted == REOPENED)
        shared->reopen();
    for (uint32_t i = 0; i < records_count; i++)
        get_one(*shared, data().uniform[i % picks_count]);
}

benchmark::internal::Benchmark *add(const char *name,
                                    void (*function)(benchmark::State &),
                                    int setting, bool spoils = false)
{
    auto whole = [=](benchmark::State &state) {
        /* Other threads wait for this one before their first iteration. */
        if (state.thread_index() == 0)
            set_up(setting);
        function(state);
        if (spoils && state.thread_index() == 0)
            shared_is = -1;
    };

    return benchmark::RegisterBenchmark(
               (std::string(name) + "/" + setting_name[setting]).c_str(), whole)
        ->UseRealTime()
        ->MeasureProcessCPUTime();
}

void register_all()
{
    for (int setting : {HOT, COLD, MEMORY}) {
        add("get_uniform", get_uniform, setting);
        add("get_zipf", get_zipf, setting);
        add("get_absent", get_absent, setting);
        add("cursor_next", cursor_next, setting);
        add("cursor_prev", cursor_prev, setting);
        add("scan_50", scan_50, setting);
        add("put_random", put_random, setting);
        add("batch_100", batch_100, setting);
    }
    add("get_uniform", get_uniform, REOPENED);
    add("get_absent", get_absent, REOPENED);
    for (int setting : {EMPTY, EMPTY_COLD})
        add("put_sequential", put_sequential, setting);
    add("get_uniform", get_uniform, HOT)->Threads(2);
    add("put_random", put_random, HOT)->Threads(2);
    add("delete_existing", delete_existing, HOT, true);
    add("put_and_delete", put_and_delete, HOT, true);
    for (int threads : {1, 2})
        add("get_or_put_zipf", get_or_put_zipf, CACHE)->Threads(threads);
    for (int threads : {1, 4})
        add("put_random", put_random, SYNCING)->Threads(threads);
}

/* --- results ------------------------------------------------------------- */

/* The usual table, and a JSON line for each row, repetitions as its rounds. */
class reporter : public benchmark::ConsoleReporter
{
  public:
    reporter() : ConsoleReporter(OO_None)
    {
    }

    void ReportRuns(const std::vector<Run> &runs) override
    {
        std::vector<Run> plain = runs;

        for (Run &run : plain) {
            /* The same in every row. */
            run.run_name.time_type.clear();
            if (run.run_type == Run::RT_Iteration && !run.error_occurred)
                keep(run);
        }
        ConsoleReporter::ReportRuns(plain);
    }

    void write(const std::string &path, const std::string &config) const
    {
        size_t slash = path.rfind('/');
        FILE *file;

        if (slash != std::string::npos)
            rig_make_dir(path.substr(0, slash).c_str());
        file = fopen(path.c_str(), "we");
        if (!file)
            rig_die("%s: cannot write it", path.c_str());
        for (const auto &entry : rows_) {
            const row &found = entry.second;
            rig_cell cell = {};

            cell.bench = "engine_bench";
            cell.setting = found.setting.c_str();
            cell.workload = found.workload.c_str();
            cell.engine = "bftree";
            cell.metric = "ops_per_s";
            cell.config = config.c_str();
            cell.threads = found.threads;
            cell.rounds = found.rates.data();
            cell.n = found.rates.size();
            rig_json(file, &cell);
        }
        if (fclose(file))
            rig_die("%s: cannot write it", path.c_str());
        std::printf("\nwritten: %s\n", path.c_str());
    }

  private:
    struct row {
        std::string workload, setting;
        unsigned threads;
        std::vector<double> rates;
    };
    std::map<std::string, row> rows_;

    void keep(const Run &run)
    {
        const std::string &name = run.run_name.function_name;
        size_t slash = name.find('/');
        row &found = rows_[name + "/" + std::to_string(run.threads)];

        found.workload = name.substr(0, slash);
        found.setting = name.substr(slash + 1);
        found.threads = unsigned(run.threads);
        if (found.rates.size() < RIG_ROUNDS_MAX)
            found.rates.push_back(run.counters.at("items_per_second"));
    }
};

/* Is ARGUMENT "--NAME=..."?  Then its value. */
bool own_argument(const char *argument, const char *name, std::string *value)
{
    size_t len = std::strlen(name);

    if (std::strncmp(argument, name, len) != 0 || argument[len] != '=')
        return false;
    *value = argument + len + 1;
    return true;
}

} // namespace

int main(int count, char **texts)
{
    std::string number, config;
    reporter reporter;

    benchmark::Initialize(&count, texts);
    for (int i = 1; i < count; i++)
        if (!own_argument(texts[i], "--dir", &data_dir) &&
            !own_argument(texts[i], "--results", &results_file) &&
            !own_argument(texts[i], "--records", &number))
            rig_die("'%s' is not understood: see the head of engine_bench.cc",
                    texts[i]);
    if (!number.empty())
        records_count = uint32_t(std::strtoul(number.c_str(), nullptr, 10));
    if (records_count < 1000)
        rig_die("--records is a number, at least 1000");
    rig_make_dir(data_dir.c_str());
    std::printf("engine_bench: what does each call cost, by itself?\n\n");
    rig_machine(stdout, data_dir.c_str());
    config = "bftree " + std::string(bft_version()) + ": " +
             std::to_string(records_count) +
             " records of 16+100 bytes; budget 8 times their weight, cold-10x "
             "and cache a tenth of it";
    std::printf("\n%s\n\n", config.c_str());
    register_all();
    benchmark::RunSpecifiedBenchmarks(&reporter);
    shared.reset();
    reporter.write(results_file, config);
    return 0;
}
