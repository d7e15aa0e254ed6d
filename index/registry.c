/*
 * The directories that are open in this process.  The lock is held to look one
 * up and to say what becomes of it, and never over a file operation or a call of
 * somebody else's: opening and closing take as long as recovery and a checkpoint
 * do, and other databases do not wait for that.
 */
#include "registry.h"

#include <assert.h>

enum { CLOSED_KEPT = 64 };

struct bfti_opened {
    struct bfti_vfs *vfs;       /* fixed, as the next two: which directory */
    uint64_t device, inode;     /* it is, by any name */
    struct bfti_engine *engine; /* NULL: it is being opened, or closed, */
    const void *by;             /* by this thread */
    unsigned handles;
    struct bfti_opened *next;
};

/* All under the lock, but what is atomic.  The handles closed last are kept for a
 * while, so that using one gives an error and not a crash. */
static struct {
    /* Whose it is, by bfti_fork_generation(); with RENEWING, whose it becomes. */
    _Atomic uint32_t generation;
    struct bfti_mutex lock;
    struct bfti_opened *opened;
    _Atomic uint32_t changes; /* bumped when one was opened, or closed */
    bft_db *closed;
    unsigned closed_count;
    struct bfti_vfs *memory; /* of storage = MEMORY */
} registry;

/* Its address is the thread's name. */
static _Thread_local char this_thread;

#define RENEWING (UINT32_C(1) << 31)

/* A forked child begins with nothing: all of it is the parent's, and another
 * thread there may have held the lock, which nobody gives back here. */
static void registry_renew(const struct bfti_env *env, uint32_t now)
{
    uint32_t seen = atomic_load(&registry.generation);
    while (seen != now) {
        if (seen == (now | RENEWING)) {
            env->yield(env->ctx);
            seen = atomic_load(&registry.generation);
        } else if (atomic_compare_exchange_weak(&registry.generation, &seen,
                                                now | RENEWING)) {
            registry.opened = NULL;
            registry.closed = NULL;
            registry.closed_count = 0;
            registry.memory = NULL;
            atomic_store(&registry.lock.word, 0);
            atomic_store(&registry.generation, now);
            seen = now;
        }
    }
}

static void lock(void)
{
    const struct bfti_env *env = bfti_env_system();
    uint32_t now = bfti_fork_generation();
    if (atomic_load(&registry.generation) != now)
        registry_renew(env, now);
    bfti_mutex_lock(env, &registry.lock);
}

static void unlock(void)
{
    bfti_mutex_unlock(bfti_env_system(), &registry.lock);
}

/* --- the file system in memory -------------------------------------------- */

bft_status bfti_registry_memory(struct bfti_vfs **vfs)
{
    lock();
    if (!registry.memory)
        registry.memory = bfti_vfs_memory_create(bfti_env_system());
    *vfs = registry.memory;
    unlock();
    return *vfs ? BFT_OK
                : bfti_fail(BFT_NO_MEMORY, "no memory for a file system");
}

bool bfti_registry_is_memory(const struct bfti_vfs *vfs)
{
    bool is;
    lock();
    is = vfs == registry.memory;
    unlock();
    return is;
}

/* --- opening -------------------------------------------------------------- */

bool bfti_vfs_is_real(const struct bfti_vfs *vfs)
{
    return vfs == bfti_vfs_posix() || vfs == bfti_vfs_direct() ||
           vfs == bfti_vfs_uring();
}

/* Which directory it is; made when missing. */
static bft_status find_dir(const struct bfti_wanted *wanted,
                           struct bfti_opened *found)
{
    struct bfti_vfs *vfs = wanted->vfs;
    const char *path = wanted->path;
    bft_status status =
        vfs->ops->identify(vfs, path, &found->device, &found->inode);
    if (status == BFT_NOT_FOUND && wanted->must_exist)
        return bfti_fail(BFT_NOT_FOUND, "there is no database %s", path);
    if (status == BFT_NOT_FOUND) {
        status = vfs->ops->make_dir(vfs, path);
        /* By somebody else, since we looked. */
        if (status == BFT_OK || status == BFT_EXISTS)
            status =
                vfs->ops->identify(vfs, path, &found->device, &found->inode);
    }
    return status;
}

static bool same_dir(const struct bfti_opened *a, const struct bfti_opened *b)
{
    return (a->vfs == b->vfs ||
            (bfti_vfs_is_real(a->vfs) && bfti_vfs_is_real(b->vfs))) &&
           a->device == b->device && a->inode == b->inode;
}

/* Is it still the directory that PATH leads to?  Who closed a database in memory
 * may have taken that away before we were entered. */
static bool still_there(const struct bfti_wanted *wanted,
                        const struct bfti_opened *mine)
{
    struct bfti_opened now = *mine;
    return wanted->vfs->ops->identify(wanted->vfs, wanted->path, &now.device,
                                      &now.inode) == BFT_OK &&
           same_dir(&now, mine);
}

/* Whoever waits for it looks again. */
static void tell_all(void)
{
    const struct bfti_env *env = bfti_env_system();
    atomic_fetch_add(&registry.changes, 1);
    env->wake(env->ctx, &registry.changes, true);
}

static void take_out(struct bfti_opened *opened)
{
    struct bfti_opened **at = &registry.opened;
    lock();
    /* Not there: what was called while it was closed has forked, and this is the
     * child. */
    while (*at && *at != opened)
        at = &(*at)->next;
    if (*at)
        *at = opened->next;
    tell_all();
    unlock();
}

/* Share what is open, or become who opens it.  False: come again. */
static bool enter(const struct bfti_wanted *wanted, struct bfti_opened *mine,
                  struct bfti_engine **engine, bft_status *status)
{
    const struct bfti_env *env = bfti_env_system();
    struct bfti_opened *there;
    uint32_t seen;
    lock();
    there = registry.opened;
    while (there && !same_dir(there, mine))
        there = there->next;
    if (!there) {
        mine->next = registry.opened;
        registry.opened = mine;
        unlock();
        if (still_there(wanted, mine))
            return true;
        take_out(mine);
        return false;
    }
    *engine = there->engine;
    if (*engine) {
        *status = wanted->fits(*engine, wanted->arg);
        if (*status == BFT_OK)
            there->handles++;
        unlock();
        return true;
    }
    seen = atomic_load(&registry.changes);
    *status =
        there->by != &this_thread
            ? BFT_OK
            : bfti_fail(BFT_BUSY, "%s is being opened or closed by this thread",
                        wanted->path);
    unlock();
    if (*status == BFT_OK)
        env->wait(env->ctx, &registry.changes, seen, UINT64_MAX);
    return *status != BFT_OK;
}

bft_status bfti_registry_enter(const struct bfti_wanted *wanted,
                               struct bfti_opened **opening,
                               struct bfti_engine **engine)
{
    const struct bfti_env *env = bfti_env_system();
    struct bfti_opened *mine = bfti_alloc(env, sizeof(*mine));
    bft_status status = BFT_OK;
    *opening = NULL;
    *engine = NULL;
    if (!mine)
        return bfti_fail(BFT_NO_MEMORY, "no memory to open %s", wanted->path);
    memset(mine, 0, sizeof(*mine));
    mine->vfs = wanted->vfs;
    mine->by = &this_thread;
    mine->handles = 1;
    /* Ends: in each further round somebody else has opened or closed it, made it
     * or taken it away. */
    do
        status = find_dir(wanted, mine);
    while (status == BFT_OK && !enter(wanted, mine, engine, &status));
    if (status == BFT_OK && !*engine) {
        *opening = mine;
        return BFT_OK;
    }
    bfti_free(env, mine);
    return status;
}

void bfti_registry_opened(struct bfti_opened *opening,
                          struct bfti_engine *engine)
{
    if (!engine) {
        take_out(opening);
        bfti_free(bfti_env_system(), opening);
        return;
    }
    lock();
    opening->by = NULL;
    opening->engine = engine;
    engine->opened = opening;
    tell_all();
    unlock();
}

/* --- closing -------------------------------------------------------------- */

static void db_free(bft_db *db)
{
    const struct bfti_env *env = bfti_env_system();
    while (db->trees) {
        bft_tree *tree = db->trees;
        db->trees = tree->next;
        bfti_free(env, tree);
    }
    bfti_free(env, db);
}

/* Keep a closed handle for a while, free the one closed longest ago. */
static void keep_closed(bft_db *db)
{
    bft_db **at = &registry.closed;
    for (bft_tree *tree = db->trees; tree; tree = tree->next)
        tree->magic = 0;
    db->engine = NULL;
    db->next_closed = registry.closed;
    registry.closed = db;
    if (registry.closed_count < CLOSED_KEPT) {
        registry.closed_count++;
        return;
    }
    while ((*at)->next_closed)
        at = &(*at)->next_closed;
    db_free(*at);
    *at = NULL;
}

bft_status bfti_registry_close(bft_db *db, struct bfti_engine **engine)
{
    bft_status status = BFT_OK;
    *engine = NULL;
    lock();
    if (db->magic != BFTI_MAGIC_DB || !db->engine) {
        status = bfti_fail(BFT_INVALID, "the database handle is closed");
    } else if (db->engine->fork_generation != bfti_fork_generation()) {
        /* The parent's: its memory is a copy, its files are closed here. */
        keep_closed(db);
        status = bfti_fail(BFT_FORKED, "the handle was opened before fork");
    } else if (db->closing) {
        status = bfti_fail(BFT_INVALID, "the database handle is being closed");
    } else if (db->pins) {
        status =
            bfti_fail(BFT_BUSY, "%s: a backup is running through the handle",
                      db->engine->path);
    } else {
        db->closing = true;
        *engine = db->engine;
    }
    unlock();
    return status;
}

bool bfti_registry_leave(bft_db *db)
{
    struct bfti_opened *opened = db->engine->opened;
    bool last;
    lock();
    assert(opened->handles > 0 && opened->engine == db->engine);
    last = --opened->handles == 0;
    if (last) {
        opened->by = &this_thread;
        opened->engine = NULL;
    } else {
        keep_closed(db);
    }
    unlock();
    return last;
}

void bfti_registry_closed(bft_db *db)
{
    struct bfti_opened *opened = db->engine->opened;
    take_out(opened);
    bfti_free(bfti_env_system(), opened);
    lock();
    keep_closed(db);
    unlock();
}

/* --- keeping open --------------------------------------------------------- */

bft_status bfti_db_pin(bft_db *db, struct bfti_engine **engine)
{
    bft_status status;
    lock();
    status = bfti_gate(db, engine);
    if (status == BFT_OK && db->closing)
        status = bfti_fail(BFT_INVALID, "the database handle is being closed");
    if (status == BFT_OK)
        db->pins++;
    unlock();
    return status;
}

void bfti_db_unpin(bft_db *db)
{
    lock();
    assert(db->pins > 0);
    db->pins--;
    unlock();
}
