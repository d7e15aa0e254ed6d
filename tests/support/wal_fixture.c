#include "wal_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fileio/vfs_memory.h"

struct wal_hooks wal_hooks;
_Atomic uint64_t wal_syncs_called;
_Atomic uint64_t wal_bytes_read;
_Atomic int64_t wal_fail_alloc = -1;
_Atomic int64_t wal_files_open, wal_files_mapped, wal_blocks;

/* --- a table of functions in front of another ------------------------------ */

/* The backend's table, and ours with some entries replaced.  A file's own
 * data follow its table, so handing it another table is all it takes. */
static const struct bfti_vfs_ops *inner;
static struct bfti_vfs_ops outer;
static struct bfti_vfs front;
static struct bfti_vfs *behind;

static bft_status front_open(struct bfti_vfs *vfs, const char *path, int flags,
                             struct bfti_file **out)
{
    bft_status status = inner->open(behind, path, flags, out);

    (void)vfs;
    if (status == BFT_OK) {
        (*out)->ops = &outer;
        atomic_fetch_add(&wal_files_open, 1);
    }
    return status;
}

static void front_close(struct bfti_file *file)
{
    atomic_fetch_sub(&wal_files_open, 1);
    inner->close(file);
}

static bft_status front_map(struct bfti_file *file, size_t len, void **addr)
{
    bft_status status = inner->map(file, len, addr);

    if (status == BFT_OK)
        atomic_fetch_add(&wal_files_mapped, 1);
    return status;
}

static void front_unmap(struct bfti_file *file, void *addr, size_t len)
{
    atomic_fetch_sub(&wal_files_mapped, 1);
    inner->unmap(file, addr, len);
}

static bft_status front_read(struct bfti_file *file, uint64_t offset, void *buf,
                             size_t len, size_t *got)
{
    bft_status status = inner->read(file, offset, buf, len, got);

    atomic_fetch_add(&wal_bytes_read, *got);
    return status;
}

static bft_status front_write(struct bfti_file *file, uint64_t offset,
                              const void *buf, size_t len)
{
    bft_status status = BFT_OK;

    if (wal_hooks.write != NULL)
        status = wal_hooks.write(wal_hooks.arg, offset, buf, len);
    return status == BFT_OK ? inner->write(file, offset, buf, len) : status;
}

static bft_status front_sync(struct bfti_file *file)
{
    bft_status status = BFT_OK;

    atomic_fetch_add(&wal_syncs_called, 1);
    if (wal_hooks.sync != NULL)
        status = wal_hooks.sync(wal_hooks.arg);
    return status == BFT_OK ? inner->sync(file) : status;
}

static bft_status front_remove(struct bfti_vfs *vfs, const char *path)
{
    (void)vfs;
    return inner->remove(behind, path);
}

static bft_status front_rename(struct bfti_vfs *vfs, const char *from,
                               const char *to)
{
    (void)vfs;
    return inner->rename(behind, from, to);
}

static bft_status front_make_dir(struct bfti_vfs *vfs, const char *path)
{
    (void)vfs;
    return inner->make_dir(behind, path);
}

static bft_status front_list(struct bfti_vfs *vfs, const char *dir,
                             void (*each)(void *arg, const char *name),
                             void *arg)
{
    (void)vfs;
    return inner->list(behind, dir, each, arg);
}

static bft_status front_sync_dir(struct bfti_vfs *vfs, const char *dir)
{
    (void)vfs;
    return inner->sync_dir(behind, dir);
}

static void *failing_alloc(void *ctx, size_t bytes)
{
    const struct bfti_env *env = bfti_env_system();
    void *block;

    (void)ctx;
    /* One thread at a time in tests that set it. */
    if (atomic_load(&wal_fail_alloc) >= 0 &&
        atomic_fetch_sub(&wal_fail_alloc, 1) == 0)
        return NULL;
    block = env->alloc(env->ctx, bytes);
    if (block == NULL)
        return NULL;
    atomic_fetch_add(&wal_blocks, 1);
    memset(block, 0xa5, bytes);
    return block;
}

static void *failing_realloc(void *ctx, void *old, size_t bytes)
{
    const struct bfti_env *env = bfti_env_system();

    if (old == NULL)
        return failing_alloc(ctx, bytes);
    if (atomic_load(&wal_fail_alloc) >= 0 &&
        atomic_fetch_sub(&wal_fail_alloc, 1) == 0)
        return NULL;
    return env->realloc(env->ctx, old, bytes);
}

void wal_env_free(void *ctx, void *block)
{
    const struct bfti_env *env = bfti_env_system();

    (void)ctx;
    if (block != NULL)
        atomic_fetch_sub(&wal_blocks, 1);
    env->free(env->ctx, block);
}

/* --- the fixture ----------------------------------------------------------- */

struct wal_fixture *wal_fixture_new(enum wal_medium medium,
                                    uint64_t segment_bytes)
{
    struct wal_fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    memset(&wal_hooks, 0, sizeof(wal_hooks));
    atomic_store(&wal_syncs_called, 0);
    atomic_store(&wal_fail_alloc, -1);
    atomic_store(&wal_files_open, 0);
    atomic_store(&wal_files_mapped, 0);
    atomic_store(&wal_blocks, 0);
    f->medium = medium;
    f->env = *bfti_env_system();
    f->env.alloc = failing_alloc;
    f->env.realloc = failing_realloc;
    f->env.free = wal_env_free;
    if (medium == WAL_IN_MEMORY) {
        behind = bfti_vfs_memory_create(bfti_env_system());
        assert_non_null(behind);
        (void)snprintf(f->dir, sizeof(f->dir), "db");
        assert_int_equal(BFT_OK, behind->ops->make_dir(behind, f->dir));
    } else {
        const char *tmp = getenv("TMPDIR");

        behind = bfti_vfs_posix();
        (void)snprintf(f->dir, sizeof(f->dir), "%s/wal_test.XXXXXX",
                       tmp != NULL ? tmp : "/tmp");
        assert_non_null(mkdtemp(f->dir));
    }
    inner = behind->ops;
    outer = *inner;
    outer.open = front_open;
    outer.close = front_close;
    outer.map = inner->map != NULL ? front_map : NULL;
    outer.unmap = inner->unmap != NULL ? front_unmap : NULL;
    outer.read = front_read;
    outer.write = front_write;
    outer.sync = front_sync;
    outer.remove = front_remove;
    outer.rename = front_rename;
    outer.make_dir = front_make_dir;
    outer.list = front_list;
    outer.sync_dir = front_sync_dir;
    front.ops = &outer;
    f->options.env = &f->env;
    f->options.vfs = &front;
    f->options.dir = f->dir;
    f->options.segment_bytes = segment_bytes;
    f->options.map = medium == WAL_ON_DISK_MAPPED;
    return f;
}

static void remove_one(void *arg, const char *name)
{
    struct wal_fixture *f = arg;
    char path[512];

    (void)snprintf(path, sizeof(path), "%s/%s", f->dir, name);
    assert_int_equal(BFT_OK, inner->remove(behind, path));
}

void wal_fixture_free(struct wal_fixture *f)
{
    memset(&wal_hooks, 0, sizeof(wal_hooks));
    atomic_store(&wal_fail_alloc, -1);
    wal_fixture_close(f);
    assert_int_equal(0, atomic_load(&wal_files_open));
    assert_int_equal(0, atomic_load(&wal_files_mapped));
    assert_int_equal(0, atomic_load(&wal_blocks));
    if (f->medium == WAL_IN_MEMORY) {
        bfti_vfs_memory_destroy(behind);
    } else {
        assert_int_equal(BFT_OK, inner->list(behind, f->dir, remove_one, f));
        assert_int_equal(0, rmdir(f->dir));
    }
    free(f);
}

void wal_fixture_open(struct wal_fixture *f, uint64_t first_needed,
                      uint64_t end)
{
    assert_null(f->wal);
    f->incarnation++;
    assert_int_equal(BFT_OK,
                     bfti_wal_open(&f->options, first_needed, first_needed, end,
                                   f->incarnation, &f->wal));
    memset(&f->thread, 0, sizeof(f->thread));
    bfti_wal_attach(f->wal, &f->thread);
}

void wal_fixture_recover(struct wal_fixture *f, uint64_t start)
{
    struct bfti_wal_found found;

    assert_int_equal(BFT_OK,
                     bfti_wal_scan(&f->options, start, 0, NULL, NULL, &found));
    if (found.max_incarnation > f->incarnation)
        f->incarnation = found.max_incarnation;
    wal_fixture_open(f, start, found.end);
}

void wal_fixture_close(struct wal_fixture *f)
{
    bfti_wal_close(f->wal);
    f->wal = NULL;
}

/* --- frames ---------------------------------------------------------------- */

uint8_t wal_payload_byte(uint64_t id, size_t i)
{
    if (i < sizeof(id))
        return (uint8_t)(id >> (8 * i));
    return (uint8_t)((id * 0x9e3779b97f4a7c15u >> 56) + i);
}

static uint8_t type_of(uint64_t id)
{
    return (uint8_t)(1 + id % 250);
}

struct wal_place wal_link_in(struct wal_fixture *f,
                             struct bfti_wal_thread *thread, uint64_t id,
                             size_t len)
{
    struct bfti_frame *frame;
    struct wal_place place;
    void *payload;

    assert_int_equal(
        BFT_OK, bfti_frame_create(f->wal, type_of(id), len, &frame, &payload));
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)payload)[i] = wal_payload_byte(id, i);
    bfti_frame_seal(f->wal, frame);
    bfti_wal_link(f->wal, thread, frame, &place.lsn, &place.end);
    return place;
}

struct wal_place wal_append(struct wal_fixture *f, uint64_t id, size_t len)
{
    struct wal_place place;

    bfti_wal_enter(f->wal, &f->thread);
    place = wal_link_in(f, &f->thread, id, len);
    assert_int_equal(BFT_OK, bfti_wal_copy(f->wal, &f->thread, place.end));
    bfti_wal_leave(f->wal, &f->thread);
    return place;
}

struct wal_place wal_append_sync(struct wal_fixture *f, uint64_t id, size_t len)
{
    struct wal_place place = wal_append(f, id, len);

    assert_int_equal(BFT_OK, bfti_wal_sync(f->wal, &f->thread, place.end));
    return place;
}

static bft_status see(void *arg, uint64_t lsn, uint8_t type,
                      const void *payload, size_t len)
{
    struct wal_seen *seen = arg;
    const uint8_t *bytes = payload;
    uint64_t id = 0;

    assert_true(seen->count < WAL_SEEN_MAX);
    for (size_t i = 0; i < len && i < sizeof(id); i++)
        id |= (uint64_t)bytes[i] << (8 * i);
    for (size_t i = 0; i < len; i++)
        seen->garbled |= bytes[i] != wal_payload_byte(id, i);
    seen->garbled |= len >= sizeof(id) && type != type_of(id);
    seen->at[seen->count].id = id;
    seen->at[seen->count].lsn = lsn;
    seen->at[seen->count].len = len;
    seen->at[seen->count].type = type;
    seen->count++;
    return BFT_OK;
}

bft_status wal_scan(struct wal_fixture *f, uint64_t start, uint64_t sb_mark,
                    struct wal_seen *seen)
{
    seen->count = 0;
    seen->garbled = false;
    return bfti_wal_scan(&f->options, start, sb_mark, see, seen, &seen->found);
}

/* --- files ----------------------------------------------------------------- */

struct counting {
    size_t count;
    bool segments;
};

static void count_one(void *arg, const char *name)
{
    struct counting *counting = arg;

    if (strncmp(name, "log-", 4) == 0 &&
        (!counting->segments || strlen(name) == 20))
        counting->count++;
}

size_t wal_file_count(struct wal_fixture *f, bool segments)
{
    struct counting counting = {.segments = segments};

    assert_int_equal(BFT_OK, inner->list(behind, f->dir, count_one, &counting));
    return counting.count;
}

void wal_segment_path(struct wal_fixture *f, uint64_t lsn, char path[320])
{
    uint64_t first = lsn - lsn % f->options.segment_bytes;

    (void)snprintf(path, 320, "%s/log-%016llx", f->dir,
                   (unsigned long long)first);
}

/* Open the segment of LSN and give the bytes left in it, LEN at most. */
static size_t piece(struct wal_fixture *f, uint64_t lsn, size_t len,
                    struct bfti_file **file)
{
    uint64_t left = f->options.segment_bytes - lsn % f->options.segment_bytes;
    char path[320];

    wal_segment_path(f, lsn, path);
    assert_int_equal(BFT_OK, inner->open(behind, path, 0, file));
    return len < left ? len : (size_t)left;
}

void wal_peek(struct wal_fixture *f, uint64_t lsn, void *buf, size_t len)
{
    uint8_t *to = buf;

    while (len > 0) {
        struct bfti_file *file;
        size_t n = piece(f, lsn, len, &file), got;

        assert_int_equal(
            BFT_OK,
            inner->read(file, lsn % f->options.segment_bytes, to, n, &got));
        memset(to + got, 0, n - got);
        inner->close(file);
        to += n;
        lsn += n;
        len -= n;
    }
}

void wal_poke(struct wal_fixture *f, uint64_t lsn, const void *buf, size_t len)
{
    const uint8_t *from = buf;

    while (len > 0) {
        struct bfti_file *file;
        size_t n = piece(f, lsn, len, &file);

        assert_int_equal(
            BFT_OK,
            inner->write(file, lsn % f->options.segment_bytes, from, n));
        inner->close(file);
        from += n;
        lsn += n;
        len -= n;
    }
}
