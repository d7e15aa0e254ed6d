/*
 * compare_engines' adapter for RocksDB.
 *
 * Advice that was followed, by page of its wiki and by option in options.h:
 *   Setup-Options-and-Basic-Tuning  level_compaction_dynamic_level_bytes,
 *       bytes_per_sync 1 MiB, compaction_pri kMinOverlappingRatio, index and
 *       filter blocks in the cache with level 0 pinned, format_version 5.
 *   RocksDB-Bloom-Filter            10 bits for each key.
 *   Data-Block-Hash-Index           for point reads.
 *   Memory-usage-in-RocksDB, Write-Buffer-Manager  memtables charged to the
 *       block cache, so that one bound covers both.
 *   Partitioned-Index-Filters       under a bound: a whole filter is a large part
 *       of a small cache, and of one of its shards even more; so few shards too.
 *   Direct-IO                       reads, flushes and compactions around the
 *       kernel's cache, which the bound counts too; compaction read-ahead.
 * Logs are not recycled: with its default way to recover (kPointInTimeRecovery)
 * 7.8 sets recycle_log_file_num to 0.
 * 56 % of the budget is the cache, memtables included: with more the process
 * was killed for passing the bound (compaction buffers and its allocator come
 * on top).
 */
#include <rocksdb/cache.h>
#include <rocksdb/convenience.h>
#include <rocksdb/db.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>
#include <rocksdb/version.h>
#include <rocksdb/write_batch.h>
#include <rocksdb/write_buffer_manager.h>

#include <unistd.h>

#include <algorithm>
#include <memory>

#include "peer.h"

namespace
{

/* Named for the engine: the types behind the handles of peer.h must differ
 * between adapters, whose inline functions the linker would merge. */
struct rocks_peer {
    std::unique_ptr<rocksdb::DB> db;
    size_t value_len;
    bool sync;
};

struct rocks_session {
    rocks_peer *owner;
    rocksdb::ReadOptions read;
    rocksdb::WriteOptions write;
    rocksdb::PinnableSlice pinned[PEER_BATCH];
};

rocks_peer *inside(peer *handle)
{
    return reinterpret_cast<rocks_peer *>(handle);
}

rocks_session *inside(peer_session *handle)
{
    return reinterpret_cast<rocks_session *>(handle);
}

void must(const rocksdb::Status &status, const char *what)
{
    if (!status.ok())
        rig_die("rocksdb: %s: %s", what, status.ToString().c_str());
}

rocksdb::Slice slice(const uint8_t *data, size_t len)
{
    return rocksdb::Slice(reinterpret_cast<const char *>(data), len);
}

bool bounded(const peer_config *config)
{
    return config->setting == PEER_LARGER && !config->filling;
}

uint64_t cache_bytes(const peer_config *config)
{
    if (config->setting != PEER_LARGER)
        return config->memory_bytes;
    return config->filling ? uint64_t{512} * PEER_MIB
                           : config->memory_bytes * 56 / 100;
}

uint64_t memtable_bytes(const peer_config *config)
{
    if (!bounded(config))
        return uint64_t{64} * PEER_MIB;
    return std::clamp<uint64_t>(config->memory_bytes / 13, PEER_MIB,
                                uint64_t{64} * PEER_MIB);
}

void describe(FILE *to, const peer_config *config)
{
    fprintf(to,
            "RocksDB %d.%d.%d: LRU cache %llu MiB, Bloom 10 bits, block 4 KiB, "
            "format 5, data block hash index, memtables %d x %.1f MiB, dynamic "
            "level bytes, 2 background jobs, bytes_per_sync 1 MiB, logs not "
            "recycled, no compression, sync=%s%s",
            ROCKSDB_MAJOR, ROCKSDB_MINOR, ROCKSDB_PATCH,
            static_cast<unsigned long long>(cache_bytes(config)) / PEER_MIB,
            bounded(config) ? 2 : 4,
            static_cast<double>(memtable_bytes(config) >> 10) / 1024,
            config->setting == PEER_SYNC ? "true" : "false",
            bounded(config) ? "; memtables charged to the cache, partitioned "
                              "index and filters in it, 4 shards, direct I/O, "
                              "compaction read-ahead 512 KiB"
                            : "");
}

rocksdb::BlockBasedTableOptions
table_options(const peer_config *config,
              const std::shared_ptr<rocksdb::Cache> &cache)
{
    rocksdb::BlockBasedTableOptions table;

    table.block_cache = cache;
    table.block_size = 4096;
    table.format_version = 5;
    table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10, false));
    table.data_block_index_type =
        rocksdb::BlockBasedTableOptions::kDataBlockBinaryAndHash;
    if (bounded(config)) {
        table.cache_index_and_filter_blocks = true;
        table.cache_index_and_filter_blocks_with_high_priority = true;
        table.pin_l0_filter_and_index_blocks_in_cache = true;
        table.index_type =
            rocksdb::BlockBasedTableOptions::kTwoLevelIndexSearch;
        table.partition_filters = true;
        table.metadata_block_size = 4096;
        table.pin_top_level_index_and_filter = true;
    }
    return table;
}

rocksdb::Options options_of(const peer_config *config)
{
    std::shared_ptr<rocksdb::Cache> cache =
        rocksdb::NewLRUCache(cache_bytes(config), bounded(config) ? 2 : -1);
    rocksdb::Options options;

    options.create_if_missing = true;
    options.compression = rocksdb::kNoCompression;
    options.bottommost_compression = rocksdb::kNoCompression;
    options.level_compaction_dynamic_level_bytes = true;
    options.compaction_pri = rocksdb::kMinOverlappingRatio;
    options.max_background_jobs = 2;
    options.bytes_per_sync = PEER_MIB;
    options.write_buffer_size = memtable_bytes(config);
    options.max_write_buffer_number = bounded(config) ? 2 : 4;
    options.table_factory.reset(
        rocksdb::NewBlockBasedTableFactory(table_options(config, cache)));
    if (config->setting == PEER_LARGER) {
        options.target_file_size_base = 32 * PEER_MIB;
        options.max_bytes_for_level_base = 64 * PEER_MIB;
    }
    if (bounded(config)) {
        options.use_direct_reads = true;
        options.use_direct_io_for_flush_and_compaction = true;
        options.compaction_readahead_size = 512 << 10;
        options.write_buffer_manager =
            std::make_shared<rocksdb::WriteBufferManager>(
                2 * memtable_bytes(config) + PEER_MIB, cache);
    }
    return options;
}

peer *open_peer(const peer_config *config)
{
    rocks_peer *opened = new rocks_peer{};
    rocksdb::DB *db = nullptr;

    rig_make_dir(config->dir);
    must(rocksdb::DB::Open(options_of(config), config->dir, &db), "open");
    opened->db.reset(db);
    opened->value_len = config->value_len;
    opened->sync = config->setting == PEER_SYNC;
    return reinterpret_cast<peer *>(opened);
}

void close_peer(peer *closing)
{
    must(inside(closing)->db->Close(), "close");
    delete inside(closing);
}

/* Flushed, and until no compaction is due or under way. */
void settle(peer *handle)
{
    rocks_peer *of = inside(handle);
    uint64_t pending = 1, running = 1;

    must(of->db->Flush(rocksdb::FlushOptions()), "flush");
    while (pending || running) {
        if (!of->db->GetIntProperty("rocksdb.compaction-pending", &pending) ||
            !of->db->GetIntProperty("rocksdb.num-running-compactions",
                                    &running))
            rig_die("rocksdb: no such property");
        if (pending || running)
            usleep(1000);
    }
}

peer_session *session_open(peer *handle)
{
    rocks_peer *of = inside(handle);
    rocks_session *session = new rocks_session{};

    session->owner = of;
    session->write.sync = of->sync;
    return reinterpret_cast<peer_session *>(session);
}

void session_close(peer_session *session)
{
    delete inside(session);
}

bool get(peer_session *handle, const uint8_t *key, uint8_t *value)
{
    rocks_session *session = inside(handle);
    rocksdb::DB *db = session->owner->db.get();
    rocksdb::PinnableSlice &found = session->pinned[0];
    rocksdb::Status status;

    found.Reset();
    status = db->Get(session->read, db->DefaultColumnFamily(),
                     slice(key, RIG_KEY), &found);
    if (status.IsNotFound())
        return false;
    must(status, "get");
    peer_value_copy("rocksdb", value, found.data(), found.size(),
                    session->owner->value_len);
    found.Reset();
    return true;
}

size_t get_many(peer_session *handle, peer_record *records, size_t n)
{
    rocks_session *session = inside(handle);
    rocksdb::DB *db = session->owner->db.get();
    rocksdb::Slice keys[PEER_BATCH];
    rocksdb::Status statuses[PEER_BATCH];
    size_t found = 0;

    for (size_t i = 0; i < n; i++)
        keys[i] = slice(records[i].key, RIG_KEY);
    db->MultiGet(session->read, db->DefaultColumnFamily(), n, keys,
                 session->pinned, statuses);
    for (size_t i = 0; i < n; i++) {
        if (statuses[i].ok()) {
            peer_value_copy(
                "rocksdb", records[i].value, session->pinned[i].data(),
                session->pinned[i].size(), session->owner->value_len);
            found++;
        } else if (!statuses[i].IsNotFound()) {
            must(statuses[i], "multi-get");
        }
        session->pinned[i].Reset();
    }
    return found;
}

void put(peer_session *handle, const uint8_t *key, const uint8_t *value,
         bool exists)
{
    rocks_session *session = inside(handle);
    (void)exists;
    must(session->owner->db->Put(session->write, slice(key, RIG_KEY),
                                 slice(value, session->owner->value_len)),
         "put");
}

void erase(peer_session *handle, const uint8_t *key)
{
    rocks_session *session = inside(handle);
    must(session->owner->db->Delete(session->write, slice(key, RIG_KEY)),
         "delete");
}

void put_many(peer_session *handle, const peer_record *records, size_t n,
              bool exist)
{
    rocks_session *session = inside(handle);
    rocksdb::WriteBatch batch;

    (void)exist;
    for (size_t i = 0; i < n; i++)
        must(batch.Put(slice(records[i].key, RIG_KEY),
                       slice(records[i].value, session->owner->value_len)),
             "batch");
    must(session->owner->db->Write(session->write, &batch), "write");
}

void scan(peer_session *handle, peer_scan *scan)
{
    rocks_session *session = inside(handle);
    std::unique_ptr<rocksdb::Iterator> at(
        session->owner->db->NewIterator(session->read));

    if (!scan->from)
        scan->back ? at->SeekToLast() : at->SeekToFirst();
    else if (scan->back)
        at->SeekForPrev(slice(scan->from, RIG_KEY));
    else
        at->Seek(slice(scan->from, RIG_KEY));
    for (; at->Valid(); scan->back ? at->Prev() : at->Next())
        if (!peer_scan_row(scan, at->key().data(), at->key().size(),
                           at->value().data(), at->value().size()))
            break;
    must(at->status(), "iterator");
}

} /* namespace */

extern "C" const peer_kind peer_rocksdb = {
    "rocksdb",
    PEER_CAN_BATCH | PEER_CAN_BACK | PEER_CAN_SYNC | PEER_CAN_REOPEN,
    "one call (MultiGet)",
    "a flush, and all compactions due",
    describe,
    open_peer,
    close_peer,
    settle,
    session_open,
    session_close,
    get,
    put,
    erase,
    put_many,
    get_many,
    scan,
};
