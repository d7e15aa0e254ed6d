/* A simulation whose memory is counted, and short forms of its calls. */
#include "sim_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The system's surroundings, with memory counted and made to run out. */
static size_t blocks_live;
size_t sim_bytes_live;
int64_t sim_allocs_left = -1;

static bool alloc_refused(void)
{
    if (sim_allocs_left == 0)
        return true;
    sim_allocs_left -= sim_allocs_left > 0 ? 1 : 0;
    return false;
}

static void *counted_alloc(void *ctx, size_t bytes)
{
    size_t *block;

    (void)ctx;
    if (alloc_refused())
        return NULL;
    block = malloc(bytes + 16);
    assert_non_null(block);
    block[0] = bytes;
    blocks_live++;
    sim_bytes_live += bytes;
    return block + 2;
}

static void counted_free(void *ctx, void *old)
{
    size_t *block = old;

    (void)ctx;
    if (old == NULL)
        return;
    block -= 2;
    blocks_live--;
    sim_bytes_live -= block[0];
    free(block);
}

static void *counted_realloc(void *ctx, void *old, size_t bytes)
{
    void *block = counted_alloc(ctx, bytes);

    if (block == NULL || old == NULL)
        return block;
    memcpy(block, old,
           ((size_t *)old)[-2] < bytes ? ((size_t *)old)[-2] : bytes);
    counted_free(ctx, old);
    return block;
}

static struct bfti_env env;

struct bfti_vfs *sim_create(void)
{
    struct bfti_vfs *sim;

    env = *bfti_env_system();
    env.alloc = counted_alloc;
    env.realloc = counted_realloc;
    env.free = counted_free;
    sim_allocs_left = -1;
    sim = bfti_vfs_sim_create(&env, 1);
    assert_non_null(sim);
    return sim;
}

void sim_destroy(struct bfti_vfs *sim)
{
    bfti_vfs_sim_destroy(sim);
}

int sim_memory_is_free(void **state)
{
    (void)state;
    assert_int_equal(0, blocks_live);
    assert_int_equal(0, sim_bytes_live);
    return 0;
}

struct bfti_file *sim_file_open(struct bfti_vfs *sim, const char *path)
{
    struct bfti_file *file;

    assert_int_equal(BFT_OK,
                     sim->ops->open(sim, path, BFTI_OPEN_CREATE, &file));
    return file;
}

void sim_file_close(struct bfti_file *file)
{
    file->ops->close(file);
}

/* LEN bytes of VALUE at OFFSET. */
bft_status sim_fill_status(struct bfti_file *file, uint64_t offset, size_t len,
                           int value)
{
    char *buf = malloc(len);
    bft_status status;

    assert_non_null(buf);
    memset(buf, value, len);
    status = file->ops->write(file, offset, buf, len);
    free(buf);
    return status;
}

void sim_fill(struct bfti_file *file, uint64_t offset, size_t len, int value)
{
    assert_int_equal(BFT_OK, sim_fill_status(file, offset, len, value));
}

void sim_sync(struct bfti_file *file)
{
    assert_int_equal(BFT_OK, file->ops->sync(file));
}

void sim_sync_dir(struct bfti_vfs *sim, const char *dir)
{
    assert_int_equal(BFT_OK, sim->ops->sync_dir(sim, dir));
}

/* A file whose name and LEN bytes of VALUE are on the disk. */
struct bfti_file *sim_synced_file(struct bfti_vfs *sim, const char *path,
                                  size_t len, int value)
{
    struct bfti_file *file = sim_file_open(sim, path);

    sim_fill(file, 0, len, value);
    sim_sync(file);
    sim_sync_dir(sim, "/");
    assert_int_equal(0, bfti_sim_waiting(sim));
    return file;
}

struct bfti_vfs *sim_image_of(struct bfti_vfs *sim, enum bfti_sim_policy policy,
                              uint64_t seed)
{
    struct bfti_vfs *image;

    assert_int_equal(BFT_OK, bfti_sim_image(sim, policy, seed, &image));
    assert_non_null(image);
    return image;
}

bool sim_is_there(struct bfti_vfs *sim, const char *path)
{
    uint64_t bytes;
    bft_status status = bfti_sim_size(sim, BFTI_SIM_CACHE, path, &bytes);

    assert_true(status == BFT_OK || status == BFT_NOT_FOUND);
    return status == BFT_OK;
}

uint64_t sim_size_of(struct bfti_vfs *sim, const char *path)
{
    uint64_t bytes;

    assert_int_equal(BFT_OK, bfti_sim_size(sim, BFTI_SIM_CACHE, path, &bytes));
    return bytes;
}

/* The byte at OFFSET, -1 behind the end. */
uint8_t *sim_contents(struct bfti_vfs *sim, const char *path, size_t *len)
{
    uint64_t bytes;
    uint8_t *buf;

    *len = 0;
    if (bfti_sim_size(sim, BFTI_SIM_CACHE, path, &bytes) != BFT_OK)
        return NULL;
    buf = malloc((size_t)bytes + 1);
    assert_non_null(buf);
    assert_int_equal(BFT_OK, bfti_sim_read(sim, BFTI_SIM_CACHE, path, 0, buf,
                                           (size_t)bytes, len));
    return buf;
}

int sim_byte_on(struct bfti_vfs *sim, enum bfti_sim_side side, const char *path,
                uint64_t offset)
{
    uint8_t byte;
    size_t got;

    assert_int_equal(BFT_OK,
                     bfti_sim_read(sim, side, path, offset, &byte, 1, &got));
    return got == 1 ? byte : -1;
}

int sim_byte_at(struct bfti_vfs *sim, const char *path, uint64_t offset)
{
    return sim_byte_on(sim, BFTI_SIM_CACHE, path, offset);
}

/* The one value of all LEN bytes at OFFSET; fails when they differ. */
int sim_value_at(struct bfti_vfs *sim, const char *path, uint64_t offset,
                 size_t len)
{
    int value = sim_byte_at(sim, path, offset);

    for (size_t i = 1; i < len; i++)
        assert_int_equal(value, sim_byte_at(sim, path, offset + i));
    return value;
}

/* The byte at OFFSET after a crash of this kind. */
int sim_byte_after(struct bfti_vfs *sim, enum bfti_sim_policy policy,
                   const char *path, uint64_t offset)
{
    struct bfti_vfs *image = sim_image_of(sim, policy, 1);
    int value = sim_byte_at(image, path, offset);

    sim_destroy(image);
    return value;
}

bool sim_there_after(struct bfti_vfs *sim, enum bfti_sim_policy policy,
                     const char *path)
{
    struct bfti_vfs *image = sim_image_of(sim, policy, 1);
    bool there = sim_is_there(image, path);

    sim_destroy(image);
    return there;
}
