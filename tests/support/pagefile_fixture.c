#include "pagefile_fixture.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fileio/vfs_memory.h"
#include "random.h"

static _Atomic uint64_t alloc_countdown;
static _Atomic bool alloc_failed;
static _Atomic int64_t alloc_live;

static struct bfti_vfs_ops shim; /* the real ones but for failing calls */
static const struct bfti_vfs_ops *real;
static unsigned fail_left[3];
static bft_status fail_with[3];
static void (*truncate_hook)(void *arg);
static void *truncate_arg;
static bft_status punch_status;
static void (*punch_told)(void *arg, uint64_t block, uint64_t n);
static void *punch_arg;

/* --- memory ---------------------------------------------------------------- */

static bool alloc_strikes(void)
{
    uint64_t left = atomic_load(&alloc_countdown);
    while (left > 0 &&
           !atomic_compare_exchange_weak(&alloc_countdown, &left, left - 1))
        ;
    if (left == 1)
        atomic_store(&alloc_failed, true);
    return left == 1;
}

/* Behind each block lies a guard, and before it how long it is. */
static const uint8_t guard[16] = "no byte of yours";
union head {
    size_t bytes;
    max_align_t align;
};

static void *guarded(union head *head, size_t bytes)
{
    if (head == NULL)
        return NULL;
    head->bytes = bytes;
    memcpy((uint8_t *)(head + 1) + bytes, guard, sizeof guard);
    return head + 1;
}

static union head *check_guard(void *block)
{
    union head *head = block == NULL ? NULL : (union head *)block - 1;
    if (head != NULL &&
        memcmp((uint8_t *)block + head->bytes, guard, sizeof guard) != 0) {
        (void)fprintf(stderr, "written behind a block of %zu bytes\n",
                      head->bytes);
        abort();
    }
    return head;
}

static void *failing_alloc(void *ctx, size_t bytes)
{
    (void)ctx;
    if (alloc_strikes())
        return NULL;
    void *block =
        guarded(malloc(sizeof(union head) + bytes + sizeof guard), bytes);
    if (block != NULL) {
        atomic_fetch_add(&alloc_live, 1);
        memset(block, 0xa5, bytes); /* nobody may count on zeros */
    }
    return block;
}

static void *failing_realloc(void *ctx, void *old, size_t bytes)
{
    (void)ctx;
    if (alloc_strikes())
        return NULL;
    void *block = guarded(
        realloc(check_guard(old), sizeof(union head) + bytes + sizeof guard),
        bytes);
    if (old == NULL && block != NULL)
        atomic_fetch_add(&alloc_live, 1);
    return block;
}

static void counting_free(void *ctx, void *block)
{
    (void)ctx;
    if (block != NULL)
        atomic_fetch_sub(&alloc_live, 1);
    free(check_guard(block));
}

void pf_fail_alloc(uint64_t nth)
{
    atomic_store(&alloc_failed, false);
    atomic_store(&alloc_countdown, nth);
}

bool pf_alloc_failed(void)
{
    return atomic_load(&alloc_failed);
}

/* --- I/O ------------------------------------------------------------------- */

static bft_status io_strikes(enum bfti_io_op op)
{
    if (fail_left[op] == 0)
        return BFT_OK;
    fail_left[op]--;
    return bfti_fail(fail_with[op], "the test made this call fail");
}

static bft_status shim_read(struct bfti_file *file, uint64_t offset, void *buf,
                            size_t len, size_t *got)
{
    bft_status status = io_strikes(BFTI_IO_READ);
    return status != BFT_OK ? status : real->read(file, offset, buf, len, got);
}

static bft_status shim_write(struct bfti_file *file, uint64_t offset,
                             const void *buf, size_t len)
{
    bft_status status = io_strikes(BFTI_IO_WRITE);
    if (status == BFT_OK)
        return real->write(file, offset, buf, len);
    /* As a disk does it: half is there. */
    bft_status half = real->write(file, offset, buf, len / 2);
    assert_int_equal(half, BFT_OK);
    return status;
}

static bft_status shim_punch(struct bfti_file *file, uint64_t offset,
                             uint64_t len)
{
    bft_status status = punch_status;

    assert_int_equal(0, offset % BFTI_BLOCK + len % BFTI_BLOCK);
    if (punch_told != NULL)
        punch_told(punch_arg, offset / BFTI_BLOCK, len / BFTI_BLOCK);
    if (status != BFT_OK)
        return bfti_fail(status, "the test refuses holes");
    return real->punch(file, offset, len);
}

static bft_status shim_sync(struct bfti_file *file)
{
    bft_status status = io_strikes(BFTI_IO_SYNC);
    return status != BFT_OK ? status : real->sync(file);
}

static bft_status shim_truncate(struct bfti_file *file, uint64_t bytes)
{
    if (truncate_hook != NULL)
        truncate_hook(truncate_arg);
    truncate_hook = NULL;
    return real->truncate(file, bytes);
}

static void shim_put(struct pagefile_fixture *f)
{
    struct bfti_file *file = bfti_pagefile_file(f->pf);

    if (file->ops == &shim)
        return;
    real = file->ops;
    shim = *real;
    shim.read = shim_read;
    shim.write = shim_write;
    shim.sync = shim_sync;
    shim.truncate = shim_truncate;
    shim.punch = shim_punch;
    file->ops = &shim;
}

void pf_fail_io(struct pagefile_fixture *f, enum bfti_io_op op, unsigned n,
                bft_status status)
{
    shim_put(f);
    fail_left[op] = n;
    fail_with[op] = status;
}

void pf_on_truncate(struct pagefile_fixture *f, void (*hook)(void *arg),
                    void *arg)
{
    shim_put(f);
    truncate_hook = hook;
    truncate_arg = arg;
}

void pf_on_punch(struct pagefile_fixture *f, bft_status status,
                 void (*told)(void *arg, uint64_t block, uint64_t n), void *arg)
{
    shim_put(f);
    punch_status = status;
    punch_told = told;
    punch_arg = arg;
}

/* --- the page file ------------------------------------------------------------ */

void pagefile_fixture_open(struct pagefile_fixture *f, bool compress)
{
    memset(f, 0, sizeof *f);
    f->env = *bfti_env_system();
    f->env.alloc = failing_alloc;
    f->env.realloc = failing_realloc;
    f->env.free = counting_free;
    memset(fail_left, 0, sizeof fail_left);
    truncate_hook = NULL;
    punch_status = BFT_OK;
    punch_told = NULL;
    pf_fail_alloc(0);
    atomic_store(&alloc_live, 0); /* a test that failed may have left some */

    f->vfs = bfti_vfs_memory_create(bfti_env_system());
    assert_non_null(f->vfs);
    f->options.env = &f->env;
    f->options.vfs = f->vfs;
    f->options.path = "data";
    f->options.create = true;
    f->options.compress = compress;
    EXPECT_STATUS(BFT_OK, bfti_pagefile_open(&f->options, &f->pf));
    EXPECT_STATUS(BFT_OK, bfti_space_reset(f->pf));
}

void pagefile_fixture_reopen(struct pagefile_fixture *f)
{
    bfti_pagefile_close(f->pf);
    f->options.create = false;
    EXPECT_STATUS(BFT_OK, bfti_pagefile_open(&f->options, &f->pf));
}

void pagefile_fixture_close(struct pagefile_fixture *f)
{
    bfti_scratch_free(&f->env, &f->scratch);
    bfti_pagefile_close(f->pf);
    bfti_vfs_memory_destroy(f->vfs);
    assert_int_equal(atomic_load(&alloc_live), 0);
}

void pf_fill(void *buf, size_t len, uint64_t salt)
{
    uint8_t *at = buf;
    for (size_t i = 0; i < len; i++)
        at[i] = (uint8_t)(random_of(&salt) >> 56);
}

static uint64_t
write_by(struct pagefile_fixture *f, size_t len, uint64_t salt,
         bft_status (*write)(struct bfti_pagefile *pf,
                             const struct bfti_extent_info *info,
                             const void *raw, size_t raw_len, uint64_t *place))
{
    struct bfti_extent_info info = {BFTI_EXTENT_LEAF, 7, salt, salt + 1};
    uint64_t place;
    void *raw = malloc(len + 1);

    pf_fill(raw, len, salt);
    EXPECT_STATUS(BFT_OK, write(f->pf, &info, raw, len, &place));
    free(raw);
    return place;
}

uint64_t pf_write(struct pagefile_fixture *f, size_t len, uint64_t salt)
{
    return write_by(f, len, salt, bfti_extent_write_alone);
}

uint64_t pf_share(struct pagefile_fixture *f, size_t len, uint64_t salt)
{
    return write_by(f, len, salt, bfti_extent_write);
}

void pf_expect(struct pagefile_fixture *f, uint64_t place, size_t len,
               uint64_t salt)
{
    struct bfti_extent_info info;
    const void *raw;
    size_t raw_len;
    void *want = malloc(len + 1);

    pf_fill(want, len, salt);
    EXPECT_STATUS(BFT_OK, bfti_extent_read(f->pf, place, &f->scratch, &info,
                                           &raw, &raw_len));
    assert_int_equal(raw_len, len);
    assert_memory_equal(raw, want, len);
    assert_int_equal(info.type, BFTI_EXTENT_LEAF);
    assert_int_equal(info.tree_id, 7);
    assert_int_equal(info.page_id, salt);
    assert_int_equal(info.lsn, salt + 1);
    free(want);
}

void pf_checkpoint(struct pagefile_fixture *f, uint64_t *places, size_t *count,
                   uint64_t redo_lsn)
{
    uint64_t fresh[BFTI_MAP_PLACES];
    size_t fresh_count;

    (void)bfti_space_cut(f->pf);
    EXPECT_STATUS(BFT_OK, bfti_space_write(f->pf, places, *count, fresh,
                                           BFTI_MAP_PLACES, &fresh_count));
    memcpy(places, fresh, sizeof fresh);
    *count = fresh_count;
    bfti_space_finish(f->pf, redo_lsn);
}
