/* Orders to a simulation: when to lose power, what to fail, what to show. */
#include "sim_control.h"

#include <assert.h>

#include "error.h"

/* --- steps and power ----------------------------------------------------- */

uint64_t bfti_sim_steps(struct bfti_vfs *base)
{
    struct bfti_sim *sim = bfti_sim_of(base);
    uint64_t steps;

    bfti_sim_lock(sim);
    steps = sim->steps;
    bfti_sim_unlock(sim);
    return steps;
}

void bfti_sim_on_step(struct bfti_vfs *base,
                      void (*hook)(void *arg, const struct bfti_sim_step *step),
                      void *arg)
{
    struct bfti_sim *sim = bfti_sim_of(base);

    bfti_sim_lock(sim);
    sim->hook = hook;
    sim->hook_arg = arg;
    bfti_sim_unlock(sim);
}

void bfti_sim_set_delay(struct bfti_vfs *base,
                        void (*delay)(void *arg, enum bfti_sim_op op),
                        void *arg)
{
    struct bfti_sim *sim = bfti_sim_of(base);

    bfti_sim_lock(sim);
    sim->delay = delay;
    sim->delay_arg = arg;
    bfti_sim_unlock(sim);
}

void bfti_sim_crash_at(struct bfti_vfs *base, uint64_t number)
{
    struct bfti_sim *sim = bfti_sim_of(base);

    bfti_sim_lock(sim);
    sim->crash_at = number;
    bfti_sim_unlock(sim);
}

/* --- images -------------------------------------------------------------- */

const char *bfti_sim_policy_name(enum bfti_sim_policy policy)
{
    static const char *const names[BFTI_SIM_POLICIES] = {
        "kill", "drop", "keep", "prefix", "reorder", "torn"};

    return names[policy];
}

bft_status bfti_sim_image(struct bfti_vfs *base, enum bfti_sim_policy policy,
                          uint64_t seed, struct bfti_vfs **image)
{
    struct bfti_sim *sim = bfti_sim_of(base);
    struct bfti_sim *copy = bfti_sim_alloc(sim->env, seed);
    bft_status status;

    *image = NULL;
    if (copy == NULL)
        return bfti_fail(BFT_NO_MEMORY, "image: no memory");
    bfti_sim_lock(sim);
    copy->vfs.ops = sim->vfs.ops;
    status = bfti_disk_image(&sim->disk, policy, seed, &copy->disk);
    bfti_sim_unlock(sim);
    if (status != BFT_OK) {
        bfti_vfs_sim_destroy(&copy->vfs);
        return status;
    }
    *image = &copy->vfs;
    return BFT_OK;
}

uint64_t bfti_sim_waiting(struct bfti_vfs *base)
{
    struct bfti_sim *sim = bfti_sim_of(base);
    uint64_t waiting;

    bfti_sim_lock(sim);
    waiting = sim->disk.waiting;
    bfti_sim_unlock(sim);
    return waiting;
}

bft_status bfti_sim_settle(struct bfti_vfs *base)
{
    struct bfti_sim *sim = bfti_sim_of(base);
    bft_status status;

    bfti_sim_lock(sim);
    status = bfti_disk_absorb(&sim->disk);
    if (status == BFT_OK)
        status = bfti_disk_settle(&sim->disk);
    bfti_sim_unlock(sim);
    return status;
}

/* --- faults -------------------------------------------------------------- */

void bfti_sim_fail(struct bfti_vfs *base, const struct bfti_sim_fault *fault)
{
    struct bfti_sim *sim = bfti_sim_of(base);

    assert(fault->nth > 0 && fault->ops != 0);
    assert(fault->status != BFT_OK ||
           (fault->harm != BFTI_SIM_REFUSE && fault->harm != BFTI_SIM_PART));
    bfti_sim_lock(sim);
    assert(sim->fault_count < BFTI_SIM_FAULTS_MAX);
    sim->faults[sim->fault_count++] = (struct bfti_sim_armed){.fault = *fault};
    bfti_sim_unlock(sim);
}

void bfti_sim_heal(struct bfti_vfs *base)
{
    struct bfti_sim *sim = bfti_sim_of(base);

    bfti_sim_lock(sim);
    sim->fault_count = 0;
    bfti_sim_unlock(sim);
}

uint64_t bfti_sim_struck(struct bfti_vfs *base)
{
    struct bfti_sim *sim = bfti_sim_of(base);
    uint64_t struck;

    bfti_sim_lock(sim);
    struck = sim->struck;
    bfti_sim_unlock(sim);
    return struck;
}

void bfti_sim_set_capacity(struct bfti_vfs *base, uint64_t bytes)
{
    struct bfti_sim *sim = bfti_sim_of(base);

    bfti_sim_lock(sim);
    sim->capacity_blocks = bytes / BFTI_SPARSE_BLOCK;
    bfti_sim_unlock(sim);
}

uint64_t bfti_sim_used(struct bfti_vfs *base)
{
    struct bfti_sim *sim = bfti_sim_of(base);
    uint64_t blocks;

    bfti_sim_lock(sim);
    blocks = sim->disk.used_blocks;
    bfti_sim_unlock(sim);
    return blocks * BFTI_SPARSE_BLOCK;
}

void bfti_sim_set_map(struct bfti_vfs *base, bool on)
{
    struct bfti_sim *sim = bfti_sim_of(base);

    bfti_sim_lock(sim);
    sim->vfs.ops = on ? &bfti_sim_ops_with_map : &bfti_sim_ops;
    bfti_sim_unlock(sim);
}

void bfti_sim_set_together(struct bfti_vfs *base, bool on)
{
    struct bfti_sim *sim = bfti_sim_of(base);

    bfti_sim_lock(sim);
    sim->together = on;
    bfti_sim_unlock(sim);
}

/* --- looking and tampering ----------------------------------------------- */

/* The file at PATH in the cache.  Under the mutex. */
static bft_status find(struct bfti_sim *sim, const char *path,
                       struct bfti_disk_node **node)
{
    struct bfti_spot spot;
    bft_status status = bfti_disk_absorb(&sim->disk);

    *node = NULL;
    if (status == BFT_OK)
        status = bfti_spot_find_file(&sim->disk.root->node, path, &spot);
    if (status == BFT_OK)
        *node = bfti_disk_node_of(spot.node);
    return status;
}

/* SIM, or what a power cut that drops all leaves of it: there the cache is
 * what SIM has on its disk, names and all. */
static bft_status side_of(struct bfti_vfs *sim, enum bfti_sim_side side,
                          struct bfti_vfs **out)
{
    *out = sim;
    if (side == BFTI_SIM_CACHE)
        return BFT_OK;
    return bfti_sim_image(sim, BFTI_SIM_DROP, 0, out);
}

static bft_status look(struct bfti_vfs *base, enum bfti_sim_side side,
                       const char *path, uint64_t offset, void *buf,
                       size_t *len, uint64_t *size)
{
    struct bfti_vfs *chosen;
    struct bfti_disk_node *node;
    bft_status status = side_of(base, side, &chosen);

    if (status != BFT_OK)
        return status;
    bfti_sim_lock(bfti_sim_of(chosen));
    status = find(bfti_sim_of(chosen), path, &node);
    if (status == BFT_OK) {
        *len = bfti_sparse_read(&node->cache, offset, buf, *len);
        *size = node->cache.size;
    }
    bfti_sim_unlock(bfti_sim_of(chosen));
    if (chosen != base)
        bfti_vfs_sim_destroy(chosen);
    return status;
}

bft_status bfti_sim_read(struct bfti_vfs *sim, enum bfti_sim_side side,
                         const char *path, uint64_t offset, void *buf,
                         size_t len, size_t *got)
{
    uint64_t size;
    bft_status status = look(sim, side, path, offset, buf, &len, &size);

    *got = status == BFT_OK ? len : 0;
    return status;
}

bft_status bfti_sim_size(struct bfti_vfs *sim, enum bfti_sim_side side,
                         const char *path, uint64_t *bytes)
{
    char none;
    size_t len = 0;

    *bytes = 0;
    return look(sim, side, path, 0, &none, &len, bytes);
}

bft_status bfti_sim_flip(struct bfti_vfs *base, const char *path,
                         uint64_t offset, uint8_t mask)
{
    struct bfti_sim *sim = bfti_sim_of(base);
    struct bfti_disk_node *node;
    bft_status status;

    bfti_sim_lock(sim);
    status = find(sim, path, &node);
    if (status == BFT_OK && offset >= node->cache.size)
        status = bfti_fail(BFT_INVALID, "%s: no byte there to flip", path);
    else if (status == BFT_OK)
        status = bfti_disk_flip(&sim->disk, node, offset, mask);
    bfti_sim_unlock(sim);
    return status;
}

bft_status bfti_sim_cut(struct bfti_vfs *base, const char *path, uint64_t bytes)
{
    struct bfti_sim *sim = bfti_sim_of(base);
    struct bfti_disk_node *node;
    bft_status status;

    bfti_sim_lock(sim);
    status = find(sim, path, &node);
    if (status == BFT_OK)
        status = bfti_disk_resize(&sim->disk, node, bytes);
    if (status == BFT_OK)
        status = bfti_disk_sync(&sim->disk, node);
    bfti_sim_unlock(sim);
    return status;
}

bft_status bfti_sim_put(struct bfti_vfs *base, const char *path,
                        const void *data, size_t len)
{
    struct bfti_sim *sim = bfti_sim_of(base);
    struct bfti_disk_node *node = NULL;
    struct bfti_spot spot;
    bft_status status;

    bfti_sim_lock(sim);
    status = bfti_spot_find(&sim->disk.root->node, path, &spot);
    if (status == BFT_OK && spot.node == NULL)
        status = bfti_disk_make(&sim->disk, &spot, false, &node);
    else if (status == BFT_OK)
        status = find(sim, path, &node);
    if (status == BFT_OK)
        status = bfti_disk_resize(&sim->disk, node, 0);
    if (status == BFT_OK)
        status = bfti_disk_write(&sim->disk, node, 0, data, len);
    if (status == BFT_OK)
        status = bfti_disk_sync(&sim->disk, node);
    if (status == BFT_OK)
        status = bfti_disk_sync(&sim->disk, bfti_disk_node_of(spot.dir));
    bfti_sim_unlock(sim);
    return status;
}
