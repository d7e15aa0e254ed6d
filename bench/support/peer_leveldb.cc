/*
 * compare_engines' adapter for LevelDB.
 *
 * Advice that was followed, from doc/index.md and include/leveldb/options.h:
 *   Cache          an LRU block cache of the budget.
 *   Filters        Bloom, 10 bits for each key.
 *   write_buffer_size  "larger values increase performance, especially during
 *                  bulk loads".
 *   max_open_files one for each 2 MiB of working set, so that no table is
 *                  opened twice.
 *   Compression    off, as for all here.
 *   Synchronous writes  off but where each commit must survive a power cut.
 *   verify_checksums  on, as all here check what they read from files.
 * Tables are read with pread(): the default maps them, and then its block cache
 * has nothing that is not compressed, so each get would check a block again;
 * under a bound, a fault into a mapped file brings in all of the device's
 * read-ahead.  38 % of
 * the budget is the cache: with more the process was killed for passing the
 * bound (two memtables, filters and indexes of open tables and compaction
 * buffers come on top).
 *
 * Built without RTTI, as the library is: a wrapped Env needs it so.
 */
#include <leveldb/cache.h>
#include <leveldb/db.h>
#include <leveldb/env.h>
#include <leveldb/filter_policy.h>
#include <leveldb/write_batch.h>

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <string>

#include "peer.h"

namespace
{

void must(const leveldb::Status &status, const char *what)
{
    if (!status.ok())
        rig_die("leveldb: %s: %s", what, status.ToString().c_str());
}

/* A table that is read, not mapped. */
class ReadFile final : public leveldb::RandomAccessFile
{
  public:
    explicit ReadFile(int file) : file_(file)
    {
    }
    ~ReadFile() override
    {
        close(file_);
    }
    leveldb::Status Read(uint64_t offset, size_t n, leveldb::Slice *result,
                         char *scratch) const override
    {
        ssize_t got = pread(file_, scratch, n, static_cast<off_t>(offset));

        *result =
            leveldb::Slice(scratch, got < 0 ? 0 : static_cast<size_t>(got));
        return got < 0 ? leveldb::Status::IOError(strerror(errno))
                       : leveldb::Status::OK();
    }

  private:
    int file_;
};

class UnmappedEnv final : public leveldb::EnvWrapper
{
  public:
    UnmappedEnv() : leveldb::EnvWrapper(leveldb::Env::Default())
    {
    }
    leveldb::Status
    NewRandomAccessFile(const std::string &name,
                        leveldb::RandomAccessFile **result) override
    {
        int file = open(name.c_str(), O_RDONLY | O_CLOEXEC);

        *result = nullptr;
        if (file < 0)
            return errno == ENOENT
                       ? leveldb::Status::NotFound(name, strerror(errno))
                       : leveldb::Status::IOError(name, strerror(errno));
        *result = new ReadFile(file);
        return leveldb::Status::OK();
    }
};

/* Named for the engine: the types behind the handles of peer.h must differ
 * between adapters, whose inline functions the linker would merge. */
struct level_peer {
    std::string dir;
    std::unique_ptr<leveldb::Cache> cache;
    std::unique_ptr<const leveldb::FilterPolicy> filter;
    UnmappedEnv unmapped;
    leveldb::Options options;
    std::unique_ptr<leveldb::DB> db;
    size_t value_len;
    bool sync;
};

struct level_session {
    level_peer *owner;
    leveldb::ReadOptions read;
    leveldb::WriteOptions write;
    std::string found;
};

level_peer *inside(peer *handle)
{
    return reinterpret_cast<level_peer *>(handle);
}

level_session *inside(peer_session *handle)
{
    return reinterpret_cast<level_session *>(handle);
}

leveldb::Slice slice(const uint8_t *data, size_t len)
{
    return leveldb::Slice(reinterpret_cast<const char *>(data), len);
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
                           : config->memory_bytes * 38 / 100;
}

uint64_t memtable_bytes(const peer_config *config)
{
    if (!bounded(config))
        return uint64_t{64} * PEER_MIB;
    return std::clamp<uint64_t>(config->memory_bytes / 11, PEER_MIB,
                                uint64_t{64} * PEER_MIB);
}

int file_mib(const peer_config *config)
{
    return config->setting == PEER_LARGER ? 8 : 32;
}

void describe(FILE *to, const peer_config *config)
{
    fprintf(to,
            "LevelDB %d.%d: block cache %llu MiB, Bloom 10 bits, block 4 KiB, "
            "memtable %.1f MiB, files of %d MiB, 2000 open files, no "
            "compression, sync=%s, tables read with pread, checksums "
            "verified when read",
            leveldb::kMajorVersion, leveldb::kMinorVersion,
            static_cast<unsigned long long>(cache_bytes(config)) / PEER_MIB,
            static_cast<double>(memtable_bytes(config) >> 10) / 1024,
            file_mib(config), config->setting == PEER_SYNC ? "true" : "false");
}

void open_db(level_peer *of)
{
    leveldb::DB *db = nullptr;

    must(leveldb::DB::Open(of->options, of->dir, &db), "open");
    of->db.reset(db);
}

peer *open_peer(const peer_config *config)
{
    level_peer *opened = new level_peer{};
    leveldb::Options &options = opened->options;

    rig_make_dir(config->dir);
    opened->dir = config->dir;
    opened->value_len = config->value_len;
    opened->sync = config->setting == PEER_SYNC;
    opened->cache.reset(leveldb::NewLRUCache(cache_bytes(config)));
    opened->filter.reset(leveldb::NewBloomFilterPolicy(10));
    options.create_if_missing = true;
    options.compression = leveldb::kNoCompression;
    options.block_cache = opened->cache.get();
    options.filter_policy = opened->filter.get();
    options.write_buffer_size = memtable_bytes(config);
    options.max_file_size = static_cast<size_t>(file_mib(config)) * PEER_MIB;
    options.max_open_files = 2000;
    options.env = &opened->unmapped;
    open_db(opened);
    return reinterpret_cast<peer *>(opened);
}

void close_peer(peer *closing)
{
    delete inside(closing);
}

/* The memtable becomes a table: reaching below all keys compacts nothing
 * else.  It has no call that waits for the compactions which are due; the cell
 * does, for all engines alike. */
void settle(peer *handle)
{
    level_peer *of = inside(handle);
    leveldb::Slice low("", 0);

    of->db->CompactRange(&low, &low);
}

peer_session *session_open(peer *handle)
{
    level_peer *of = inside(handle);
    level_session *session = new level_session{};

    session->owner = of;
    session->write.sync = of->sync;
    session->read.verify_checksums = true;
    return reinterpret_cast<peer_session *>(session);
}

void session_close(peer_session *session)
{
    delete inside(session);
}

bool get(peer_session *handle, const uint8_t *key, uint8_t *value)
{
    level_session *session = inside(handle);
    leveldb::Status status = session->owner->db->Get(
        session->read, slice(key, RIG_KEY), &session->found);

    if (status.IsNotFound())
        return false;
    must(status, "get");
    peer_value_copy("leveldb", value, session->found.data(),
                    session->found.size(), session->owner->value_len);
    return true;
}

size_t get_many(peer_session *handle, peer_record *records, size_t n)
{
    level_session *session = inside(handle);
    size_t found = 0;

    session->read.snapshot = session->owner->db->GetSnapshot();
    for (size_t i = 0; i < n; i++)
        found += get(handle, records[i].key, records[i].value);
    session->owner->db->ReleaseSnapshot(session->read.snapshot);
    session->read.snapshot = nullptr;
    return found;
}

void put(peer_session *handle, const uint8_t *key, const uint8_t *value,
         bool exists)
{
    level_session *session = inside(handle);
    (void)exists;
    must(session->owner->db->Put(session->write, slice(key, RIG_KEY),
                                 slice(value, session->owner->value_len)),
         "put");
}

void erase(peer_session *handle, const uint8_t *key)
{
    level_session *session = inside(handle);
    must(session->owner->db->Delete(session->write, slice(key, RIG_KEY)),
         "delete");
}

void put_many(peer_session *handle, const peer_record *records, size_t n,
              bool exist)
{
    level_session *session = inside(handle);
    leveldb::WriteBatch batch;

    (void)exist;
    for (size_t i = 0; i < n; i++)
        batch.Put(slice(records[i].key, RIG_KEY),
                  slice(records[i].value, session->owner->value_len));
    must(session->owner->db->Write(session->write, &batch), "write");
}

void seek_floor(leveldb::Iterator *at, const leveldb::Slice &from)
{
    at->Seek(from);
    if (!at->Valid())
        at->SeekToLast();
    else if (at->key() != from)
        at->Prev();
}

void scan(peer_session *handle, peer_scan *scan)
{
    level_session *session = inside(handle);
    std::unique_ptr<leveldb::Iterator> at(
        session->owner->db->NewIterator(session->read));

    if (!scan->from)
        scan->back ? at->SeekToLast() : at->SeekToFirst();
    else if (scan->back)
        seek_floor(at.get(), slice(scan->from, RIG_KEY));
    else
        at->Seek(slice(scan->from, RIG_KEY));
    for (; at->Valid(); scan->back ? at->Prev() : at->Next())
        if (!peer_scan_row(scan, at->key().data(), at->key().size(),
                           at->value().data(), at->value().size()))
            break;
    must(at->status(), "iterator");
}

} /* namespace */

extern "C" const peer_kind peer_leveldb = {
    "leveldb",
    PEER_CAN_BATCH | PEER_CAN_BACK | PEER_CAN_SYNC | PEER_CAN_REOPEN,
    "one snapshot, gets one by one",
    "the memtable flushed",
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
