/* Counters and gauges of an engine, as a struct and as JSON. */
#include "engine.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

/* Every field behind the size, in order. */
/* clang-format off */
#define STATS_FIELDS(X) \
    X(gets) X(puts) X(deletes) X(inserts) X(batches) X(batch_records) \
    X(cursor_steps) X(page_hits) X(page_misses) X(promotions) \
    X(promotions_dropped) X(rebuilds) X(growths) X(freezes) X(merges) \
    X(deltas) X(splits) X(leaf_merges) X(evictions_clean) X(evictions_dirty) \
    X(checkpoints) X(writer_waits) X(trees) X(leaves) X(memory_budget_bytes) \
    X(memory_used_bytes) X(log_bytes) X(log_frames) X(log_syncs) \
    X(log_sync_waits) X(log_segments_made) X(log_segments_reused) \
    X(accepted_lsn) X(durable_lsn) X(redo_lsn) X(file_bytes) X(live_bytes) \
    X(held_bytes) X(extents_written) X(extents_read) X(extent_bytes_written) \
    X(recovered_frames) X(incarnation) X(backup_held_bytes) X(hole_bytes) \
    X(nodes_read) X(nodes_dropped) X(leaves_moved) X(expired_removed) \
    X(dictionaries) X(dictionary_bytes) X(compressible_bytes) X(compressed_bytes) \
    X(filter_hits) X(filter_bytes) X(leaves_forgotten)
/* clang-format on */

static void read_counters(struct bfti_threads *threads, bft_stats *s)
{
    const struct {
        uint64_t *to;
        enum bfti_counter from;
    } map[] = {
        {&s->gets, BFTI_N_GETS},
        {&s->puts, BFTI_N_PUTS},
        {&s->deletes, BFTI_N_DELETES},
        {&s->inserts, BFTI_N_INSERTS},
        {&s->batches, BFTI_N_BATCHES},
        {&s->batch_records, BFTI_N_BATCH_RECORDS},
        {&s->cursor_steps, BFTI_N_STEPS},
        {&s->page_hits, BFTI_N_HITS},
        {&s->page_misses, BFTI_N_MISSES},
        {&s->filter_hits, BFTI_N_FILTERED},
        {&s->promotions, BFTI_N_PROMOTIONS},
        {&s->promotions_dropped, BFTI_N_PROMOTIONS_DROPPED},
        {&s->rebuilds, BFTI_N_REBUILDS},
        {&s->growths, BFTI_N_GROWTHS},
        {&s->freezes, BFTI_N_FREEZES},
        {&s->merges, BFTI_N_MERGES},
        {&s->deltas, BFTI_N_DELTAS},
        {&s->splits, BFTI_N_SPLITS},
        {&s->leaf_merges, BFTI_N_LEAF_MERGES},
        {&s->evictions_clean, BFTI_N_EVICT_CLEAN},
        {&s->evictions_dirty, BFTI_N_EVICT_DIRTY},
        {&s->checkpoints, BFTI_N_CHECKPOINTS},
        {&s->writer_waits, BFTI_N_WAITS},
        {&s->nodes_read, BFTI_N_NODES_READ},
        {&s->nodes_dropped, BFTI_N_NODES_DROPPED},
        {&s->leaves_moved, BFTI_N_LEAVES_MOVED},
        {&s->expired_removed, BFTI_N_EXPIRED},
        {&s->leaves_forgotten, BFTI_N_FORGOTTEN},
    };
    for (size_t i = 0; i < sizeof(map) / sizeof(*map); i++)
        *map[i].to = bfti_threads_count(threads, map[i].from);
}

static void read_log(struct bfti_engine *engine, bft_stats *s)
{
    struct bfti_wal *wal = engine->buffer.wal;
    struct bfti_wal_stats log;
    bfti_wal_stats(wal, &log);
    s->log_bytes = log.bytes;
    s->log_frames = log.frames;
    s->log_syncs = log.syncs;
    s->log_sync_waits = log.sync_waits;
    s->log_segments_made = log.segments_made;
    s->log_segments_reused = log.segments_reused;
    s->accepted_lsn = bfti_wal_end(wal);
    s->durable_lsn = bfti_wal_durable(wal);
    s->redo_lsn = atomic_load(&engine->redo_lsn);
}

static void read_space(struct bfti_engine *engine, bft_stats *s)
{
    struct bfti_space_stats space;
    struct bfti_codec_stats codec;
    bfti_space_stats(engine->buffer.pf, &space);
    s->file_bytes = space.file_bytes;
    s->live_bytes = space.live_bytes;
    s->held_bytes = space.held_bytes;
    s->backup_held_bytes = space.kept_bytes;
    s->hole_bytes = space.hole_bytes;
    s->extents_written = space.extents_written;
    s->extents_read = space.extents_read;
    s->extent_bytes_written = space.written_bytes;
    bfti_codec_stats_all(engine->buffer.pf, &codec);
    s->dictionaries = codec.dictionaries;
    s->dictionary_bytes = codec.dictionary_bytes;
    s->compressible_bytes = codec.raw_bytes;
    s->compressed_bytes = codec.stored_bytes;
}

static void read_memory(struct bfti_engine *engine, bft_stats *s)
{
    struct bfti_pool_stats pool;
    bfti_pool_stats(engine->buffer.pool, &pool);
    s->memory_budget_bytes = engine->options.memory_bytes;
    s->memory_used_bytes =
        pool.used_bytes + pool.retired_bytes + bfti_memory_elsewhere(engine);
    s->filter_bytes = bfti_filters_bytes(engine->buffer.filters);
    s->leaves = bfti_table_leaves(engine->buffer.table);
    bfti_mutex_lock(engine->env, &engine->trees_lock);
    for (struct bfti_tree *t = engine->trees; t; t = t->next)
        s->trees += bfti_tree_is_there(t);
    bfti_mutex_unlock(engine->env, &engine->trees_lock);
}

bft_status bft_stats_read(bft_db *db, bft_stats *stats)
{
    struct bfti_engine *engine;
    bft_stats s;
    bft_status status = bfti_gate(db, &engine);
    if (status != BFT_OK)
        return status;
    if (!stats || stats->size != sizeof(s))
        return bfti_fail(BFT_INVALID,
                         "bft_stats_read: size is not sizeof(bft_stats)");
    memset(&s, 0, sizeof(s));
    s.size = sizeof(s);
    read_counters(engine->buffer.threads, &s);
    read_log(engine, &s);
    read_space(engine, &s);
    read_memory(engine, &s);
    s.recovered_frames = engine->recovered_frames;
    s.incarnation = engine->incarnation;
    *stats = s;
    return BFT_OK;
}

/* --- JSON ----------------------------------------------------------------- */

static const struct {
    const char *name;
    size_t at;
} fields[] = {
#define STATS_FIELD(name) {#name, offsetof(bft_stats, name)},
    STATS_FIELDS(STATS_FIELD)
#undef STATS_FIELD
};
enum { FIELDS = sizeof(fields) / sizeof(fields[0]) };
static_assert(offsetof(bft_stats, gets) + FIELDS * sizeof(uint64_t) ==
                  sizeof(bft_stats),
              "the list has every field");

bft_status bft_stats_json(bft_db *db, char *buf, size_t buf_len,
                          size_t *text_len)
{
    bft_stats stats = {.size = sizeof(stats)};
    size_t at = 0;
    bft_status status;
    if (text_len)
        *text_len = 0;
    if (!text_len || (!buf && buf_len))
        return bfti_fail(BFT_INVALID, "bft_stats_json: an output is NULL");
    status = bft_stats_read(db, &stats);
    if (status != BFT_OK)
        return status;
    for (size_t i = 0; i < FIELDS; i++) {
        char text[64];
        uint64_t value;
        int len;
        memcpy(&value, (const uint8_t *)&stats + fields[i].at, sizeof(value));
        len = snprintf(text, sizeof(text), "%c\"%s\":%" PRIu64 "%s",
                       i ? ',' : '{', fields[i].name, value,
                       i + 1 == FIELDS ? "}" : "");
        assert(len > 0 && (size_t)len < sizeof(text));
        if (at + (size_t)len < buf_len)
            memcpy(buf + at, text, (size_t)len + 1);
        at += (size_t)len;
    }
    *text_len = at;
    if (at < buf_len)
        return BFT_OK;
    if (buf_len)
        buf[0] = 0;
    return bfti_fail(BFT_TOO_SMALL,
                     "the text has %zu bytes and its end, the buffer %zu", at,
                     buf_len);
}
