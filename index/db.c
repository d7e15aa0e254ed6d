/*
 * Databases: opening, closing, and what concerns one as a whole.
 */
#include "cache.h"
#include "image.h"
#include "registry.h"
#include "snapshot.h"

#include <assert.h>

enum { PATH_BYTES = 4000 };

struct bfti_shared {
    char name[64];
    void *object;
    void (*destroy)(void *object);
    struct bfti_shared *next;
};

/* --- options ------------------------------------------------------------- */

static uint64_t or_default(uint64_t value, uint64_t otherwise)
{
    return value ? value : otherwise;
}

static bft_status bad_option(const char *name, const char *why)
{
    return bfti_fail(BFT_INVALID, "option %s: %s", name, why);
}

static_assert(offsetof(bft_options, backend) ==
                  offsetof(bft_options, internal) + sizeof(void *),
              "the struct without a backend ended here");

/* What the caller's struct says.  One that was compiled before there was a
 * backend ends there: the rest is as if it were 0. */
static bft_status copy_options(const bft_options *given, bft_options *o)
{
    memset(o, 0, sizeof(*o));
    if (given) {
        if (given->size != sizeof(*o) &&
            given->size != offsetof(bft_options, backend))
            return bad_option("size", "is not sizeof(bft_options)");
        memcpy(o, given, given->size);
    }
    o->size = sizeof(*o);
    return BFT_OK;
}

/* Half of what the pool can number. */
#define MEMORY_MAX (sizeof(size_t) > 4 ? UINT64_C(1) << 40 : UINT64_C(1) << 30)

/* What a database that only caches cannot be asked for. */
static bft_status check_cache(const bft_options *o)
{
    if (o->read_only)
        return bad_option("read_only", "a cache-only database begins empty");
    if (o->durability != BFT_NONE)
        return bad_option("durability", "cache-only: nothing survives");
    if (o->compress)
        return bad_option("compress", "a cache-only database writes nothing");
    return bfti_check_leaf_share(o->leaf_bytes, o->memory_bytes);
}

static bft_status fill_options(bft_options *o)
{
    if ((unsigned)o->storage > BFT_STORAGE_CACHE)
        return bad_option("storage", "unknown");
    if (o->read_only && o->error_if_exists)
        return bad_option("read_only", "what exists is read");
    if (o->read_only)
        o->must_exist = true;
    if ((unsigned)o->backend > BFT_BACKEND_URING)
        return bad_option("backend", "unknown");
    if (o->backend == BFT_BACKEND_DEFAULT)
        o->backend = BFT_BACKEND_POSIX;
    if ((unsigned)o->durability > BFT_SYNC)
        return bad_option("durability", "unknown");
    if (o->durability == BFT_DEFAULT)
        o->durability =
            o->storage == BFT_STORAGE_CACHE ? BFT_NONE : BFT_BUFFERED;
    o->memory_bytes = or_default(o->memory_bytes, 64 << 20);
    o->log_bytes = or_default(o->log_bytes, 64 << 20);
    o->log_segment_bytes = or_default(o->log_segment_bytes, 4 << 20);
    o->leaf_bytes = (uint32_t)or_default(o->leaf_bytes, 4096);
    o->promote_percent = (uint32_t)or_default(o->promote_percent, 30);
    if (o->memory_bytes < 256 << 10 || o->memory_bytes > MEMORY_MAX)
        return bad_option("memory_bytes", sizeof(size_t) > 4
                                              ? "is 256 KiB to 1 TiB"
                                              : "is 256 KiB to 1 GiB");
    if (o->log_segment_bytes < 64 << 10 || o->log_segment_bytes > 1 << 30 ||
        o->log_segment_bytes % 4096)
        return bad_option("log_segment_bytes",
                          "is a multiple of 4 KiB from 64 KiB to 1 GiB");
    if (o->leaf_bytes < 512 || o->leaf_bytes > 32768 || o->leaf_bytes % 512)
        return bad_option("leaf_bytes",
                          "is a multiple of 512 from 512 to 32768");
    if (o->promote_percent == 101)
        o->promote_percent = 0;
    if (o->promote_percent > 100)
        return bad_option("promote_percent", "is 1 to 100, or 101 for never");
    return o->storage == BFT_STORAGE_CACHE ? check_cache(o) : BFT_OK;
}

/* What a log of at most BYTES may have: two segments at least, and half of all
 * that there can be, so that those who are on their way find room. */
static uint64_t fitting_log_bytes(uint64_t bytes, uint64_t segment_bytes)
{
    uint64_t most = bfti_wal_bytes_most(segment_bytes);
    if (bytes < 2 * segment_bytes)
        return 2 * segment_bytes;
    return bytes < most ? bytes : most;
}

/* Do options given for an open engine ask for something else than it has?  ASKED
 * are those that are GIVEN, filled in; those that are 0 ask for nothing. */
static bft_status check_same(const struct bfti_engine *engine,
                             const bft_options *given, bft_options *asked)
{
    const bft_options *have = &engine->options;
    asked->log_bytes =
        fitting_log_bytes(asked->log_bytes, have->log_segment_bytes);
#define SAME(field)                                                      \
    if (given->field && (uint64_t)asked->field != (uint64_t)have->field) \
    return bfti_fail(BFT_INVALID,                                        \
                     "option " #field " is %llu, but %s is open with "   \
                     "%llu",                                             \
                     (unsigned long long)given->field, engine->path,     \
                     (unsigned long long)have->field)
    SAME(durability);
    SAME(memory_bytes);
    SAME(log_bytes);
    SAME(leaf_bytes);
    SAME(compress);
    SAME(no_threads);
    SAME(promote_percent);
    SAME(backend);
#undef SAME
    if ((asked->storage == BFT_STORAGE_CACHE) !=
        (have->storage == BFT_STORAGE_CACHE))
        return bfti_fail(BFT_INVALID,
                         "option storage is %d, but %s is open with %d",
                         (int)asked->storage, engine->path, (int)have->storage);
    if (given->read_only != have->read_only)
        return bfti_fail(BFT_INVALID,
                         "option read_only is %d, but %s is open "
                         "with %d",
                         given->read_only, engine->path, have->read_only);
    if (given->error_if_exists)
        return bfti_fail(BFT_EXISTS, "%s exists", engine->path);
    return BFT_OK;
}

/* --- the engine ---------------------------------------------------------- */

bft_status bfti_join_path(const struct bfti_env *env, const char *dir,
                          const char *name, char **out)
{
    size_t dir_len = strlen(dir), name_len = strlen(name);
    *out = bfti_alloc(env, dir_len + name_len + 2);
    if (!*out)
        return bfti_fail(BFT_NO_MEMORY, "no memory for a path");
    memcpy(*out, dir, dir_len);
    (*out)[dir_len] = '/';
    memcpy(*out + dir_len + 1, name, name_len + 1);
    return BFT_OK;
}

static void free_shared(struct bfti_engine *engine)
{
    while (engine->shared) {
        struct bfti_shared *shared = engine->shared;
        engine->shared = shared->next;
        if (shared->destroy)
            shared->destroy(shared->object);
        bfti_free(engine->env, shared);
    }
}

/* Give back what of an engine there is but its path; in the reverse order of
 * making. */
static void engine_stop(struct bfti_engine *engine)
{
    bfti_background_stop(engine);
    bfti_trees_free(engine);
    if (engine->buffer.wal)
        bfti_wal_close(engine->buffer.wal);
    if (engine->buffer.pf)
        bfti_pagefile_close(engine->buffer.pf);
    bfti_filters_destroy(engine->buffer.filters);
    if (engine->buffer.table)
        bfti_table_destroy(engine->buffer.table);
    if (engine->buffer.threads)
        bfti_threads_destroy(engine->buffer.threads);
    if (engine->buffer.pool) /* the heap of the others is in it */
        bfti_pool_destroy(engine->buffer.pool);
    if (engine->lock_file)
        engine->lock_file->ops->close(engine->lock_file);
    if (engine->vfs != engine->below)
        bfti_vfs_overlay_destroy(engine->vfs);
    bfti_free(engine->env, engine->log_named.place);
}

static void engine_free(struct bfti_engine *engine)
{
    const struct bfti_env *env = engine->env;
    bfti_history_free(engine);
    bfti_free(env, engine->path);
    bfti_free(env, engine);
}

/* The lock file first: whoever cannot have it touches nothing. */
static bft_status take_lock(struct bfti_engine *engine)
{
    char *path;
    bft_status status =
        bfti_join_path(engine->env, engine->path, "lock", &path);
    if (status != BFT_OK)
        return status;
    status = engine->vfs->ops->open(engine->vfs, path, BFTI_OPEN_CREATE,
                                    &engine->lock_file);
    if (status == BFT_OK)
        status = engine->vfs->ops->lock(engine->lock_file);
    if (status == BFT_BUSY)
        status =
            bfti_fail(BFT_BUSY, "%s is open in another process", engine->path);
    bfti_free(engine->env, path);
    return status;
}

/* A reader keeps writers out, and so finds no lock that one holds; it changes
 * nothing, so the directory may be one that it could not change.  Files of one
 * process only have no lock to share. */
bft_status bfti_lock_shared(const struct bfti_env *env, struct bfti_vfs *vfs,
                            const char *path, struct bfti_file **file)
{
    char *lock;
    bft_status status = bfti_join_path(env, path, "lock", &lock);
    *file = NULL;
    if (status != BFT_OK)
        return status;
    status = vfs->ops->open(vfs, lock, BFTI_OPEN_READ_ONLY, file);
    bfti_free(env, lock);
    if (status == BFT_NOT_FOUND) /* a copy, perhaps: nobody has it open */
        return BFT_OK;
    if (status == BFT_OK && (*file)->ops->lock_shared)
        status = (*file)->ops->lock_shared(*file);
    if (status == BFT_BUSY)
        status = bfti_fail(BFT_BUSY,
                           "%s is open for writing in another process", path);
    return status;
}

bft_status bfti_open_name(const struct bfti_env *env, struct bfti_vfs *vfs,
                          const char *dir, const char *name, int flags,
                          struct bfti_file **file)
{
    char *path;
    bft_status status = bfti_join_path(env, dir, name, &path);
    if (status != BFT_OK)
        return status;
    status = vfs->ops->open(vfs, path, flags, file);
    bfti_free(env, path);
    return status;
}

bft_status bfti_lock_source(const struct bfti_env *env, struct bfti_vfs *vfs,
                            const char *path, struct bfti_file **file)
{
    bft_status status = bfti_lock_shared(env, vfs, path, file);
    if (status != BFT_OK || !*file || (*file)->ops->lock_shared)
        return status;
    (*file)->ops->close(*file);
    *file = NULL;
    status = bfti_open_name(env, vfs, path, "lock", 0, file);
    return status == BFT_OK ? (*file)->ops->lock(*file) : status;
}

/* From here on the engine writes to memory what it would to files. */
static bft_status lay_over(struct bfti_engine *engine)
{
    struct bfti_vfs *over;
    bft_status status = bfti_lock_shared(engine->env, engine->below,
                                         engine->path, &engine->lock_file);
    if (status == BFT_OK)
        status = bfti_vfs_overlay_create(engine->env, engine->below,
                                         engine->path, &over);
    if (status == BFT_OK)
        engine->vfs = over;
    return status;
}

static bft_status open_pagefile(struct bfti_engine *engine)
{
    struct bfti_pagefile_options options;
    char *path;
    bft_status status =
        bfti_join_path(engine->env, engine->path, "data", &path);
    if (status != BFT_OK)
        return status;
    memset(&options, 0, sizeof(options));
    options.env = engine->env;
    options.vfs = engine->vfs;
    options.path = path;
    options.create = true;
    options.compress = engine->options.compress;
    options.memory_bytes = engine->options.memory_bytes;
    options.unnamed = bfti_disk_unnamed;
    options.unnamed_ctx = &engine->buffer;
    status = bfti_pagefile_open(&options, &engine->buffer.pf);
    bfti_free(engine->env, path);
    return status;
}

static void set_hooks(struct bfti_engine *engine)
{
    struct bfti_hooks *hooks = &engine->buffer.hooks;
    hooks->ctx = engine;
    hooks->ready = bfti_tree_structure_ready;
    hooks->begin = bfti_tree_structure_begin;
    hooks->end = bfti_tree_structure_end;
    hooks->split = bfti_tree_split;
    hooks->absorbed = bfti_tree_absorbed;
    hooks->small = bfti_note_small;
    hooks->log_named = bfti_recover_log_named;
    hooks->following = bfti_tree_following;
    hooks->before = bfti_tree_before;
}

/* Does the system refuse what the backend is there for?  Asked once the page
 * file was read or written: some tell only then. */
static void report_refusal(struct bfti_engine *engine)
{
    struct bfti_file *file = bfti_pagefile_file(engine->buffer.pf);
    bft_status status = file->ops->native ? file->ops->native(file) : BFT_OK;
    char text[512];
    if (status == BFT_OK || !engine->options.report)
        return;
    bft_last_error(text, sizeof(text));
    engine->options.report(engine->options.report_ctx, status, text);
}

/* Inner nodes may take this part of the budget, and so much of any. */
enum { NODES_SHARE = 8, NODES_LEAST = 64 << 10 };
/* And filters that. */
enum { FILTERS_SHARE = 8 };

/* What the page table and inner nodes are made of, and how much of these there
 * should be; and what else tests ask for. */
static void choose_heap(struct bfti_engine *engine)
{
    const struct bfti_surroundings *given = engine->options.internal;
    engine->nodes_bytes = (size_t)engine->options.memory_bytes / NODES_SHARE;
    if (engine->nodes_bytes < NODES_LEAST)
        engine->nodes_bytes = NODES_LEAST;
    if (given && given->nodes_bytes)
        engine->nodes_bytes = given->nodes_bytes;
    engine->buffer.small_deltas = given && given->small_deltas;
    if (!given || !given->plain_heap)
        engine->heap = bfti_pool_heap(engine->buffer.pool);
    bfti_defer_set_env(engine->buffer.threads, engine->heap);
}

/* Is there a database in the directory already, or what is none yet and will be
 * refused as that? */
struct contents {
    bool data, unfinished;
};

static void note_contents(void *arg, const char *name)
{
    struct contents *contents = arg;
    contents->data = contents->data || strcmp(name, "data") == 0;
    contents->unfinished =
        contents->unfinished || strcmp(name, BFTI_UNFINISHED) == 0;
}

/* Asked again under the lock: until that another process may make a database, or
 * take it away. */
static bft_status check_contents(struct bfti_engine *engine)
{
    struct contents contents = {false, false};
    bft_status status = engine->vfs->ops->list(engine->vfs, engine->path,
                                               note_contents, &contents);
    if (status != BFT_OK)
        return status;
    if (!contents.data && !contents.unfinished && engine->options.must_exist)
        return bfti_fail(BFT_NOT_FOUND, "there is no database in %s",
                         engine->path);
    if (contents.data && engine->buffer.forgets)
        return bfti_fail(BFT_INVALID,
                         "%s holds a database, a cache-only one begins empty",
                         engine->path);
    return BFT_OK;
}

/* The directory is ours, and what is not to be in it is not. */
static bft_status take_dir(struct bfti_engine *engine)
{
    bft_status status = BFT_OK;
    if (!engine->options.read_only) {
        status = take_lock(engine);
        if (status == BFT_OK)
            status = check_contents(engine);
    }
    return status == BFT_OK ? bfti_check_finished(engine) : status;
}

static bft_status engine_start(struct bfti_engine *engine)
{
    struct bfti_buffer *buffer = &engine->buffer;
    struct bfti_rec *rec;
    bft_status status = bfti_threads_create(engine->env, &buffer->threads);
    if (status == BFT_OK)
        status = bfti_pool_create(buffer->threads, engine->env,
                                  (size_t)engine->options.memory_bytes,
                                  &buffer->pool);
    if (status == BFT_OK) {
        choose_heap(engine);
        status = bfti_table_create(engine->heap, &buffer->table);
    }
    if (status == BFT_OK)
        status = bfti_filters_create(
            engine->heap, buffer->threads, buffer->pool,
            (size_t)engine->options.memory_bytes / FILTERS_SHARE,
            &buffer->filters);
    if (status == BFT_OK)
        status = open_pagefile(engine);
    if (status != BFT_OK)
        return status;
    bfti_pagefile_set_heap(buffer->pf, engine->heap);
    rec = bfti_rec_current(buffer->threads);
    if (!rec)
        return bfti_fail(BFT_NO_MEMORY, "no memory for a thread's record");
    status = bfti_recover(engine, rec);
    if (status != BFT_OK)
        return status;
    /* By the segments that it has, which may not be those that were asked for:
     * they are of a new database. */
    engine->options.log_bytes = fitting_log_bytes(
        engine->options.log_bytes, engine->options.log_segment_bytes);
    report_refusal(engine);
    if (buffer->forgets)
        bfti_forget_stock(buffer);
    return bfti_background_start(engine);
}

/* The path is to lead there from wherever the process goes meanwhile: segments of
 * the log are made and removed by it. */
static bft_status copy_path(struct bfti_engine *engine, const char *path)
{
    const struct bfti_vfs_ops *ops = engine->vfs->ops;
    size_t len = strlen(path);
    char from[PATH_BYTES] = "";
    if (path[0] != '/' && ops->where && len < sizeof(from))
        ops->where(engine->vfs, from, sizeof(from) - len);
    if (from[0])
        return bfti_join_path(engine->env, from, path, &engine->path);
    engine->path = bfti_alloc(engine->env, len + 1);
    if (!engine->path)
        return bfti_fail(BFT_NO_MEMORY, "no memory to open %s", path);
    memcpy(engine->path, path, len + 1);
    return BFT_OK;
}

static bft_status engine_open(const char *path, const bft_options *options,
                              const struct bfti_env *env, struct bfti_vfs *vfs,
                              struct bfti_engine **out)
{
    struct bfti_engine *engine = bfti_alloc(env, sizeof(*engine));
    bft_status status;
    bool taken;
    *out = NULL;
    if (!engine)
        return bfti_fail(BFT_NO_MEMORY, "no memory to open %s", path);
    memset(engine, 0, sizeof(*engine));
    engine->env = engine->heap = engine->buffer.env = env;
    engine->vfs = engine->below = vfs;
    engine->in_memory = bfti_registry_is_memory(vfs);
    engine->options = *options;
    engine->buffer.forgets = options->storage == BFT_STORAGE_CACHE;
    engine->fork_generation = bfti_fork_generation();
    set_hooks(engine);
    status = copy_path(engine, path);
    if (status != BFT_OK) {
        bfti_free(env, engine);
        return status;
    }
    status = check_contents(engine);
    if (status == BFT_OK && options->read_only)
        status = lay_over(engine);
    if (status == BFT_OK)
        status = take_dir(engine);
    taken = status == BFT_OK;
    if (status == BFT_OK)
        status = engine_start(engine);
    if (status != BFT_OK) {
        engine_stop(engine);
        if (taken && engine->buffer.forgets)
            bfti_vfs_memory_remove_dir(engine->vfs, path);
        engine_free(engine);
        return status;
    }
    *out = engine;
    return BFT_OK;
}

/* --- opening ------------------------------------------------------------- */

static bft_status choose_vfs(const bft_options *options,
                             const struct bfti_env **env, struct bfti_vfs **vfs)
{
    const struct bfti_surroundings *given = options->internal;
    *env = given && given->env ? given->env : bfti_env_system();
    *vfs = given ? given->vfs : NULL;
    if (*vfs)
        return BFT_OK;
    if (options->storage == BFT_STORAGE_FILES) {
        *vfs = options->backend == BFT_BACKEND_DIRECT  ? bfti_vfs_direct()
               : options->backend == BFT_BACKEND_URING ? bfti_vfs_uring()
                                                       : bfti_vfs_posix();
        return BFT_OK;
    }
    return bfti_registry_memory(vfs);
}

bft_status bfti_options_vfs(const bft_options *given,
                            const struct bfti_env **env, struct bfti_vfs **vfs)
{
    bft_options filled;
    bft_status status = copy_options(given, &filled);
    if (status == BFT_OK)
        status = fill_options(&filled);
    if (status == BFT_OK && filled.storage == BFT_STORAGE_CACHE)
        status = bad_option("storage", "of a database that keeps what it has");
    if (status != BFT_OK)
        return status;
    return choose_vfs(&filled, env, vfs);
}

bft_status bfti_options_fill(const bft_options *given, bft_options *filled,
                             const struct bfti_env **env, struct bfti_vfs **vfs)
{
    bft_status status = copy_options(given, filled);
    if (status == BFT_OK)
        status = fill_options(filled);
    if (status == BFT_OK && filled->storage != BFT_STORAGE_FILES)
        status = bad_option("storage", "of files only");
    return status == BFT_OK ? choose_vfs(filled, env, vfs) : status;
}

bft_status bfti_copy_vfs(const struct bfti_engine *engine, bft_backup_to to,
                         struct bfti_vfs **vfs)
{
    *vfs = engine->below;
    switch (to) {
    case BFT_BACKUP_SAME:
        return BFT_OK;
    case BFT_BACKUP_FILES:
        if (!bfti_vfs_is_real(engine->below))
            *vfs = bfti_vfs_posix();
        return BFT_OK;
    case BFT_BACKUP_MEMORY:
        return bfti_registry_memory(vfs);
    }
    return bad_option("to", "unknown");
}

/* What a handle is asked for with, and that filled in. */
struct asked {
    bft_options given, options;
};

static bft_status fits(const struct bfti_engine *engine, void *arg)
{
    struct asked *asked = arg;
    return check_same(engine, &asked->given, &asked->options);
}

static bft_status open_handle(const char *path, const bft_options *given,
                              bft_db *db)
{
    struct asked asked;
    struct bfti_wanted wanted = {.path = path, .fits = fits, .arg = &asked};
    const struct bfti_env *env;
    struct bfti_opened *opening;
    bft_status status = copy_options(given, &asked.given);
    asked.options = asked.given;
    if (status == BFT_OK)
        status = fill_options(&asked.options);
    if (status == BFT_OK)
        status = choose_vfs(&asked.options, &env, &wanted.vfs);
    wanted.must_exist = asked.options.must_exist;
    if (status == BFT_OK)
        status = bfti_registry_enter(&wanted, &opening, &db->engine);
    if (status != BFT_OK || db->engine)
        return status;
    status = engine_open(path, &asked.options, env, wanted.vfs, &db->engine);
    bfti_registry_opened(opening, db->engine);
    return status;
}

bft_status bft_open(const char *path, const bft_options *options, bft_db **out)
{
    const struct bfti_env *env = bfti_env_system();
    bft_db *db;
    bft_status status;
    if (!out)
        return bfti_fail(BFT_INVALID, "bft_open: an output is NULL");
    *out = NULL;
    if (!path || !*path)
        return bfti_fail(BFT_INVALID, "bft_open: the path is %s",
                         path ? "empty" : "NULL");
    /* A handle outlives the engine and so its surroundings. */
    db = bfti_alloc(env, sizeof(*db));
    if (!db)
        return bfti_fail(BFT_NO_MEMORY, "no memory to open %s", path);
    memset(db, 0, sizeof(*db));
    db->magic = BFTI_MAGIC_DB;
    status = open_handle(path, options, db);
    if (status != BFT_OK) {
        bfti_free(env, db);
        return status;
    }
    *out = db;
    return BFT_OK;
}

/* --- closing ------------------------------------------------------------- */

/* The last handle: a checkpoint makes everything durable and the next open
 * quick.  A memory database goes. */
static bft_status engine_close(struct bfti_engine *engine)
{
    struct bfti_rec *rec = bfti_rec_current(engine->buffer.threads);
    bft_status status = BFT_OK;
    free_shared(engine);
    bfti_background_stop(engine);
    if (!rec)
        status =
            bfti_fail(BFT_NO_MEMORY, "no memory to close %s", engine->path);
    else if (engine->options.read_only)
        status = BFT_OK;
    else if (bfti_wal_end(engine->buffer.wal) !=
                 atomic_load(&engine->redo_lsn) ||
             engine->recovered_frames)
        status = bfti_checkpoint(engine, rec);
    engine_stop(engine);
    if ((engine->in_memory && !engine->options.read_only) ||
        engine->buffer.forgets)
        bfti_vfs_memory_remove_dir(engine->vfs, engine->path);
    return status;
}

bft_status bft_close(bft_db *db)
{
    struct bfti_engine *engine;
    bft_status status;
    if (!db)
        return BFT_OK;
    status = bfti_registry_close(db, &engine);
    if (status != BFT_OK)
        return status;
    bfti_feeds_end(db);
    bfti_snapshots_end(db);
    if (bfti_registry_leave(db)) {
        status = engine_close(engine);
        bfti_registry_closed(db);
        engine_free(engine);
    }
    return status;
}

/* --- the rest ------------------------------------------------------------ */

bft_status
bft_db_shared(bft_db *db, const char *name,
              bft_status (*create)(void *ctx, bft_db *db, void **object),
              void (*destroy)(void *object), void *ctx, void **object)
{
    struct bfti_engine *engine;
    struct bfti_shared *shared;
    bft_status status;
    if (!object || !name || !create || strlen(name) >= sizeof(shared->name))
        return bfti_fail(BFT_INVALID, "bft_db_shared: a bad argument");
    *object = NULL;
    status = bfti_gate(db, &engine);
    if (status != BFT_OK)
        return status;
    bfti_mutex_lock(engine->env, &engine->shared_lock);
    for (shared = engine->shared; shared; shared = shared->next)
        if (strcmp(shared->name, name) == 0)
            break;
    if (!shared) {
        shared = bfti_alloc(engine->env, sizeof(*shared));
        status = shared ? create(ctx, db, &shared->object)
                        : bfti_fail(BFT_NO_MEMORY, "no memory for a store");
        if (status == BFT_OK) {
            memcpy(shared->name, name, strlen(name) + 1);
            shared->destroy = destroy;
            shared->next = engine->shared;
            engine->shared = shared;
        } else {
            bfti_free(engine->env, shared);
            shared = NULL;
        }
    }
    if (shared)
        *object = shared->object;
    bfti_mutex_unlock(engine->env, &engine->shared_lock);
    return status;
}

static bft_status gate_rec(bft_db *db, struct bfti_engine **engine,
                           struct bfti_rec **rec)
{
    bft_status status = bfti_gate(db, engine);
    *rec = NULL;
    if (status != BFT_OK)
        return status;
    *rec = bfti_rec_current((*engine)->buffer.threads);
    return *rec ? BFT_OK
                : bfti_fail(BFT_NO_MEMORY, "no memory for a thread's record");
}

/* For a call that makes something survive. */
static bft_status gate_durable(bft_db *db, struct bfti_engine **engine,
                               struct bfti_rec **rec)
{
    bft_status status = gate_rec(db, engine, rec);
    if (status == BFT_OK)
        status = bfti_check_keeps(*engine, "nothing of it survives");
    return status == BFT_OK ? bfti_check_writable(*engine) : status;
}

bft_status bft_sync(bft_db *db)
{
    struct bfti_engine *engine;
    struct bfti_rec *rec;
    bft_status status = gate_durable(db, &engine, &rec);
    if (status != BFT_OK)
        return status;
    return bfti_wal_sync(engine->buffer.wal, &rec->wal,
                         bfti_wal_end(engine->buffer.wal));
}

bft_status bft_wait_durable(bft_db *db, uint64_t lsn)
{
    struct bfti_engine *engine;
    struct bfti_rec *rec;
    bft_status status = gate_durable(db, &engine, &rec);
    if (status != BFT_OK)
        return status;
    if (lsn > bfti_wal_end(engine->buffer.wal))
        return bfti_fail(BFT_INVALID, "LSN %llu lies behind the log's end",
                         (unsigned long long)lsn);
    return bfti_wal_sync(engine->buffer.wal, &rec->wal, lsn);
}

uint64_t bft_durable_lsn(bft_db *db)
{
    struct bfti_engine *engine;
    return bfti_gate(db, &engine) == BFT_OK
               ? bfti_wal_durable(engine->buffer.wal)
               : 0;
}

bft_status bft_checkpoint(bft_db *db)
{
    struct bfti_engine *engine;
    struct bfti_rec *rec;
    bft_status status = gate_durable(db, &engine, &rec);
    if (status == BFT_OK)
        status = bfti_checkpoint(engine, rec);
    if (status == BFT_OK && !atomic_load(&engine->background))
        bfti_background_run(engine, rec);
    return status;
}

bft_status bft_verify(bft_db *db)
{
    struct bfti_engine *engine;
    struct bfti_rec *rec;
    bft_status status = gate_rec(db, &engine, &rec);
    return status == BFT_OK ? bfti_verify(engine, rec) : status;
}

const char *bft_version(void)
{
    return BFT_VERSION;
}
