/* What only the file system in memory has to answer for: its memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fileio/fileio.h"
#include "fileio/vfs_memory.h"

static size_t blocks_live;
static int64_t allocs_left; /* negative: no end */

static bool alloc_refused(void)
{
    if (allocs_left == 0)
        return true;
    allocs_left -= allocs_left > 0 ? 1 : 0;
    return false;
}

static void *counted_alloc(void *ctx, size_t bytes)
{
    (void)ctx;
    if (alloc_refused())
        return NULL;
    blocks_live++;
    return malloc(bytes);
}

static void *counted_realloc(void *ctx, void *old, size_t bytes)
{
    (void)ctx;
    if (alloc_refused())
        return NULL;
    blocks_live += old == NULL;
    return realloc(old, bytes);
}

static void counted_free(void *ctx, void *block)
{
    (void)ctx;
    blocks_live -= block != NULL;
    free(block);
}

static struct bfti_env env;

static void env_start(int64_t allocs)
{
    env = *bfti_env_system();
    env.alloc = counted_alloc;
    env.realloc = counted_realloc;
    env.free = counted_free;
    blocks_live = 0;
    allocs_left = allocs;
}

static void ignore_name(void *arg, const char *name)
{
    (void)arg;
    (void)name;
}

/* A bit of everything, until something fails. */
static bft_status use(struct bfti_vfs *vfs)
{
    const struct bfti_vfs_ops *ops = vfs->ops;
    struct bfti_file *file;
    bft_status status = ops->make_dir(vfs, "d");

    if (status == BFT_OK)
        status = ops->open(vfs, "d/a", BFTI_OPEN_CREATE, &file);
    if (status != BFT_OK)
        return status;
    status = ops->write(file, 50000, "bytes", 5);
    if (status == BFT_OK)
        status = ops->rename(vfs, "d/a", "b");
    if (status == BFT_OK)
        status = ops->list(vfs, "/", ignore_name, NULL);
    ops->close(file);
    return status;
}

static void memory_that_runs_out_is_a_status(void **state)
{
    int64_t allocs = -1;
    bft_status status;

    (void)state;
    do {
        struct bfti_vfs *vfs;

        env_start(++allocs);
        vfs = bfti_vfs_memory_create(&env);
        status = vfs != NULL ? use(vfs) : BFT_NO_MEMORY;
        assert_true(status == BFT_OK || status == BFT_NO_MEMORY);
        if (vfs != NULL)
            bfti_vfs_memory_destroy(vfs);
        assert_int_equal(0, blocks_live);
    } while (status != BFT_OK);
    assert_in_range(allocs, 8, 50);
}

static void removed_files_give_their_memory_back(void **state)
{
    struct bfti_vfs *vfs;
    size_t before;

    (void)state;
    env_start(-1);
    vfs = bfti_vfs_memory_create(&env);
    assert_non_null(vfs);
    assert_int_equal(BFT_OK, use(vfs));
    before = blocks_live;
    for (int i = 0; i < 10; i++) {
        struct bfti_file *file;

        assert_int_equal(BFT_OK,
                         vfs->ops->open(vfs, "c", BFTI_OPEN_CREATE, &file));
        assert_int_equal(BFT_OK, vfs->ops->write(file, 1u << 20, "x", 1));
        assert_int_equal(BFT_OK, vfs->ops->remove(vfs, "c"));
        vfs->ops->close(file);
        assert_int_equal(before, blocks_live);
    }
    bfti_vfs_memory_destroy(vfs);
    assert_int_equal(0, blocks_live);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_that_runs_out_is_a_status),
        cmocka_unit_test(removed_files_give_their_memory_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
