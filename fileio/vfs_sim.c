/*
 * The simulated file system: one mutex, steps, power cuts and faults, in front
 * of the disk in sim_disk.c.
 */
#include "vfs_sim.h"

#include <string.h>

#include "error.h"
#include "sim_control.h"
#include "vfs_common.h"

struct sim_file {
    struct bfti_file file;
    struct bfti_sim *sim;        /* fixed after open */
    struct bfti_disk_node *node; /* fixed after open */
    bool read_only;              /* fixed after open */
    char *path;                  /* fixed after open; for texts and faults */
};

static struct sim_file *file_of(struct bfti_file *file)
{
    return (struct sim_file *)file;
}

/* --- what every call goes through ---------------------------------------- */

static bft_status check_power(const struct bfti_sim *sim,
                              const struct bfti_sim_step *step)
{
    if (sim->steps < sim->crash_at)
        return BFT_OK;
    return bfti_fail(BFT_IO, "%s: simulated power cut", step->path);
}

/* The fault that strikes this call, NULL: none.  All that match count it. */
static const struct bfti_sim_fault *strike(struct bfti_sim *sim,
                                           const struct bfti_sim_step *step)
{
    const struct bfti_sim_fault *strikes = NULL;

    for (size_t i = 0; i < sim->fault_count; i++) {
        struct bfti_sim_armed *armed = &sim->faults[i];
        const struct bfti_sim_fault *fault = &armed->fault;

        if ((fault->ops & step->op) == 0)
            continue;
        if (fault->path != NULL && strstr(step->path, fault->path) == NULL)
            continue;
        armed->seen++;
        if (armed->seen == fault->nth ||
            (fault->sticky && armed->seen > fault->nth))
            strikes = fault;
    }
    if (strikes != NULL)
        sim->struck++;
    return strikes;
}

static bft_status fail_struck(const struct bfti_sim_fault *fault,
                              const struct bfti_sim_step *step)
{
    return bfti_fail(fault->status, "%s: simulated failure", step->path);
}

/* Show STEP to the hook, outside the mutex: it takes images. */
static void show(struct bfti_sim *sim, struct bfti_sim_step *step)
{
    step->number = sim->steps;
    if (sim->hook == NULL)
        return;
    bfti_sim_unlock(sim);
    sim->hook(sim->hook_arg, step);
    bfti_sim_lock(sim);
}

/* Let time pass: the caller holds no lock. */
static void take_time(struct bfti_sim *sim, enum bfti_sim_op op)
{
    if (sim->delay != NULL)
        sim->delay(sim->delay_arg, op);
}

/*
 * Begin a call: count it if it is a step, and find what strikes it.  Returns
 * with the mutex held if it returns BFT_OK, and only then.
 */
static bft_status enter(struct bfti_sim *sim, struct bfti_sim_step *step,
                        struct bfti_disk_node *node,
                        const struct bfti_sim_fault **fault)
{
    bft_status status;

    *fault = NULL;
    take_time(sim, step->op);
    bfti_sim_lock(sim);
    status = check_power(sim, step);
    if (status == BFT_OK && (step->op & BFTI_SIM_STEPS) != 0) {
        show(sim, step);
        /* Again: the hook may have cut the power. */
        status = check_power(sim, step);
        if (status == BFT_OK)
            sim->steps++;
    }
    if (status == BFT_OK)
        status = bfti_disk_absorb(&sim->disk);
    if (status == BFT_OK)
        *fault = strike(sim, step);
    if (*fault != NULL && (*fault)->harm == BFTI_SIM_REFUSE) {
        if (step->op == BFTI_SIM_SYNC)
            bfti_disk_forget(&sim->disk, node);
        status = fail_struck(*fault, step);
    }
    if (status != BFT_OK)
        bfti_sim_unlock(sim);
    return status;
}

/* End a call that takes time, and that is over for others before it returns. */
static void leave(struct bfti_sim *sim, enum bfti_sim_op op)
{
    bfti_sim_unlock(sim);
    take_time(sim, op);
}

/* The same as enter() for a call on a name. */
static bft_status enter_path(struct bfti_sim *sim, enum bfti_sim_op op,
                             const char *path, const char *to)
{
    struct bfti_sim_step step = {.op = op, .path = path, .to = to};
    const struct bfti_sim_fault *fault;

    return enter(sim, &step, NULL, &fault);
}

/* The same for a call that looks at a file. */
static bft_status enter_query(struct sim_file *file)
{
    return enter_path(file->sim, BFTI_SIM_QUERY, file->path, NULL);
}

/* The same for a call that changes a file. */
static bft_status enter_change(struct sim_file *file, enum bfti_sim_op op,
                               uint64_t offset, uint64_t len,
                               const struct bfti_sim_fault **fault)
{
    struct bfti_sim_step step = {
        .op = op, .path = file->path, .offset = offset, .len = len};

    *fault = NULL;
    if (file->read_only)
        return bfti_vfs_fail_read_only(file->path);
    if (!bfti_vfs_range_is_valid(offset, len))
        return bfti_vfs_fail_range(file->path, offset, len);
    return enter(file->sim, &step, file->node, fault);
}

/* --- open and close ------------------------------------------------------ */

/* Whether opening PATH with FLAGS makes a file. */
static bool open_creates(struct bfti_sim *sim, const char *path, int flags)
{
    struct bfti_spot spot;
    bool creates = false;

    if ((flags & BFTI_OPEN_CREATE) == 0)
        return false;
    bfti_sim_lock(sim);
    creates = bfti_spot_find(&sim->disk.root->node, path, &spot) == BFT_OK &&
              spot.node == NULL;
    bfti_sim_unlock(sim);
    return creates;
}

/* The file at PATH, made if FLAGS say so, with a reference for the caller. */
static bft_status node_open(struct bfti_sim *sim, const char *path, int flags,
                            struct bfti_disk_node **out)
{
    struct bfti_node *root = &sim->disk.root->node;
    struct bfti_spot spot;
    bft_status status;

    *out = NULL;
    if ((flags & BFTI_OPEN_EXCLUSIVE) != 0)
        status = bfti_spot_find_free(root, path, &spot);
    else if ((flags & BFTI_OPEN_CREATE) != 0)
        status = bfti_spot_find(root, path, &spot);
    else
        status = bfti_spot_find_file(root, path, &spot);
    if (status != BFT_OK)
        return status;
    if (spot.node == NULL) {
        status = bfti_disk_make(&sim->disk, &spot, false, out);
        if (status != BFT_OK)
            return status;
    } else if (spot.node->is_dir) {
        return bfti_fail(BFT_INVALID, "open %s: is a directory", path);
    } else {
        *out = bfti_disk_node_of(spot.node);
    }
    bfti_disk_hold(*out);
    return BFT_OK;
}

static bft_status sim_open(struct bfti_vfs *base, const char *path, int flags,
                           struct bfti_file **out)
{
    struct bfti_sim *sim = bfti_sim_of(base);
    size_t path_size = strlen(path) + 1;
    struct sim_file *file;
    bft_status status;

    *out = NULL;
    status = bfti_vfs_check_flags(path, flags);
    if (status != BFT_OK)
        return status;
    file = bfti_alloc(sim->env, sizeof(*file) + path_size);
    if (file == NULL)
        return bfti_fail(BFT_NO_MEMORY, "open %s: no memory", path);
    *file = (struct sim_file){
        .file = {.ops = base->ops},
        .sim = sim,
        .read_only = (flags & BFTI_OPEN_READ_ONLY) != 0,
        .path = (char *)(file + 1),
    };
    memcpy(file->path, path, path_size);

    status = enter_path(
        sim, open_creates(sim, path, flags) ? BFTI_SIM_CREATE : BFTI_SIM_OPEN,
        file->path, NULL);
    if (status != BFT_OK)
        goto free_file;
    status = node_open(sim, path, flags, &file->node);
    bfti_sim_unlock(sim);
    if (status != BFT_OK)
        goto free_file;
    *out = &file->file;
    return BFT_OK;

free_file:
    bfti_free(sim->env, file);
    return status;
}

static void sim_close(struct bfti_file *base)
{
    struct sim_file *file = file_of(base);
    struct bfti_sim *sim = file->sim;

    bfti_sim_lock(sim);
    if (file->node->locked_by == file)
        file->node->locked_by = NULL;
    bfti_disk_release(&sim->disk, file->node);
    bfti_sim_unlock(sim);
    bfti_free(sim->env, file);
}

/* --- bytes --------------------------------------------------------------- */

static void flip_one(struct bfti_sim *sim, void *buf, size_t len)
{
    uint64_t bit;

    if (len == 0)
        return;
    bit = bfti_sim_random(&sim->random) % (8 * (uint64_t)len);
    ((uint8_t *)buf)[bit / 8] ^= (uint8_t)(1u << bit % 8);
}

static bft_status sim_read(struct bfti_file *base, uint64_t offset, void *buf,
                           size_t len, size_t *got)
{
    struct sim_file *file = file_of(base);
    struct bfti_sim *sim = file->sim;
    struct bfti_sim_step step = {
        .op = BFTI_SIM_READ, .path = file->path, .offset = offset, .len = len};
    const struct bfti_sim_fault *fault;
    bft_status status;

    *got = 0;
    if (!bfti_vfs_range_is_valid(offset, len))
        return bfti_vfs_fail_range(file->path, offset, len);
    status = enter(sim, &step, file->node, &fault);
    if (status != BFT_OK)
        return status;
    *got = bfti_sparse_read(&file->node->cache, offset, buf, len);
    if (fault != NULL && fault->harm == BFTI_SIM_FLIP)
        flip_one(sim, buf, *got);
    if (fault != NULL && fault->harm == BFTI_SIM_SHORT && *got > 0)
        *got = (size_t)(bfti_sim_random(&sim->random) % *got);
    leave(sim, BFTI_SIM_READ);
    return BFT_OK;
}

/* What fits of a write is done, as a system does it. */
static bft_status write_what_fits(struct bfti_sim *sim, struct sim_file *file,
                                  uint64_t offset, const void *buf, size_t len)
{
    uint64_t used = sim->disk.used_blocks;
    uint64_t left =
        used < sim->capacity_blocks ? sim->capacity_blocks - used : 0;
    size_t fits = bfti_sparse_fit(&file->node->cache, offset, len, left);
    bft_status status =
        bfti_disk_write(&sim->disk, file->node, offset, buf, fits);

    if (status == BFT_OK && fits < len)
        status = bfti_fail(BFT_NO_SPACE, "%s: the simulated disk is full",
                           file->path);
    return status;
}

static bft_status write_flipped(struct bfti_sim *sim, struct sim_file *file,
                                uint64_t offset, const void *buf, size_t len)
{
    void *copy = bfti_alloc(sim->env, len);
    bft_status status;

    if (copy == NULL)
        return bfti_fail(BFT_NO_MEMORY, "%s: no memory", file->path);
    memcpy(copy, buf, len);
    flip_one(sim, copy, len);
    status = write_what_fits(sim, file, offset, copy, len);
    bfti_free(sim->env, copy);
    return status;
}

static bft_status sim_write(struct bfti_file *base, uint64_t offset,
                            const void *buf, size_t len)
{
    struct sim_file *file = file_of(base);
    struct bfti_sim *sim = file->sim;
    const struct bfti_sim_fault *fault;
    bft_status status = enter_change(file, BFTI_SIM_WRITE, offset, len, &fault);

    if (status != BFT_OK)
        return status;
    if (fault != NULL && fault->harm == BFTI_SIM_FLIP && len > 0) {
        status = write_flipped(sim, file, offset, buf, len);
    } else if (fault != NULL && fault->harm == BFTI_SIM_PART) {
        if (len > 0)
            len = (size_t)(bfti_sim_random(&sim->random) % len);
        status = write_what_fits(sim, file, offset, buf, len);
        if (status == BFT_OK)
            status = bfti_fail(fault->status,
                               "%s: simulated failure after %zu bytes",
                               file->path, len);
    } else {
        status = write_what_fits(sim, file, offset, buf, len);
    }
    leave(sim, BFTI_SIM_WRITE);
    return status;
}

static bft_status sim_size(struct bfti_file *base, uint64_t *bytes)
{
    struct sim_file *file = file_of(base);
    bft_status status = enter_query(file);

    *bytes = 0;
    if (status != BFT_OK)
        return status;
    *bytes = file->node->cache.size;
    bfti_sim_unlock(file->sim);
    return BFT_OK;
}

static bft_status sim_truncate(struct bfti_file *base, uint64_t bytes)
{
    struct sim_file *file = file_of(base);
    const struct bfti_sim_fault *fault;
    bft_status status = enter_change(file, BFTI_SIM_TRUNCATE, bytes, 0, &fault);

    if (status != BFT_OK)
        return status;
    status = bfti_disk_resize(&file->sim->disk, file->node, bytes);
    bfti_sim_unlock(file->sim);
    return status;
}

static bft_status sim_punch(struct bfti_file *base, uint64_t offset,
                            uint64_t len)
{
    struct sim_file *file = file_of(base);
    const struct bfti_sim_fault *fault;
    bft_status status = enter_change(file, BFTI_SIM_PUNCH, offset, len, &fault);

    if (status != BFT_OK)
        return status;
    status = bfti_disk_zero(&file->sim->disk, file->node, offset, len);
    bfti_sim_unlock(file->sim);
    return status;
}

static bft_status sim_sync(struct bfti_file *base)
{
    struct sim_file *file = file_of(base);
    struct bfti_sim_step step = {.op = BFTI_SIM_SYNC, .path = file->path};
    const struct bfti_sim_fault *fault;
    bft_status status = enter(file->sim, &step, file->node, &fault);

    if (status != BFT_OK)
        return status;
    status = bfti_disk_sync(&file->sim->disk, file->node);
    leave(file->sim, BFTI_SIM_SYNC);
    return status;
}

static bft_status sim_lock(struct bfti_file *base)
{
    struct sim_file *file = file_of(base);
    bft_status status;

    if (file->read_only)
        return bfti_vfs_fail_read_only(file->path);
    status = enter_query(file);
    if (status != BFT_OK)
        return status;
    if (file->node->locked_by == NULL)
        file->node->locked_by = file;
    else if (file->node->locked_by != file)
        status =
            bfti_fail(BFT_BUSY, "%s is locked by another handle", file->path);
    bfti_sim_unlock(file->sim);
    return status;
}

static bft_status sim_map(struct bfti_file *base, size_t len, void **addr)
{
    struct sim_file *file = file_of(base);
    bft_status status;

    *addr = NULL;
    if (file->read_only)
        return bfti_vfs_fail_read_only(file->path);
    status = enter_query(file);
    if (status != BFT_OK)
        return status;
    status = bfti_disk_map(&file->sim->disk, file->node, len, addr);
    bfti_sim_unlock(file->sim);
    return status;
}

static void sim_unmap(struct bfti_file *base, void *addr, size_t len)
{
    struct sim_file *file = file_of(base);

    (void)addr;
    (void)len;
    bfti_sim_lock(file->sim);
    /* The last stores; those for which there is no memory are lost, as in a
     * crash. */
    if (file->sim->steps < file->sim->crash_at)
        (void)!bfti_disk_absorb(&file->sim->disk);
    bfti_disk_unmap(&file->sim->disk, file->node);
    bfti_sim_unlock(file->sim);
}

/* --- names --------------------------------------------------------------- */

static bft_status sim_identify(struct bfti_vfs *base, const char *path,
                               uint64_t *device, uint64_t *inode)
{
    struct bfti_sim *sim = bfti_sim_of(base);
    struct bfti_spot spot;
    bft_status status = enter_path(sim, BFTI_SIM_QUERY, path, NULL);

    *device = 0;
    *inode = 0;
    if (status != BFT_OK)
        return status;
    status = bfti_spot_find_any(&sim->disk.root->node, path, &spot);
    if (status == BFT_OK) {
        *device = sim->disk.device;
        *inode = spot.node->id;
    }
    bfti_sim_unlock(sim);
    return status;
}

static bft_status sim_make_dir(struct bfti_vfs *base, const char *path)
{
    struct bfti_sim *sim = bfti_sim_of(base);
    struct bfti_disk_node *made;
    struct bfti_spot spot;
    bft_status status = enter_path(sim, BFTI_SIM_MAKE_DIR, path, NULL);

    if (status != BFT_OK)
        return status;
    status = bfti_spot_find_free(&sim->disk.root->node, path, &spot);
    if (status == BFT_OK)
        status = bfti_disk_make(&sim->disk, &spot, true, &made);
    bfti_sim_unlock(sim);
    return status;
}

static bft_status sim_remove(struct bfti_vfs *base, const char *path)
{
    struct bfti_sim *sim = bfti_sim_of(base);
    struct bfti_spot spot;
    bft_status status = enter_path(sim, BFTI_SIM_REMOVE, path, NULL);

    if (status != BFT_OK)
        return status;
    status = bfti_spot_find_file(&sim->disk.root->node, path, &spot);
    if (status == BFT_OK)
        status = bfti_disk_unlink(&sim->disk, &spot);
    bfti_sim_unlock(sim);
    return status;
}

static bft_status sim_rename(struct bfti_vfs *base, const char *from_path,
                             const char *to_path)
{
    struct bfti_sim *sim = bfti_sim_of(base);
    struct bfti_spot from;
    struct bfti_spot to;
    bft_status status = enter_path(sim, BFTI_SIM_RENAME, from_path, to_path);

    if (status != BFT_OK)
        return status;
    status = bfti_spot_find_rename(&sim->disk.root->node, from_path, to_path,
                                   &from, &to);
    if (status == BFT_OK && from.node != to.node)
        status = bfti_disk_rename(&sim->disk, &from, &to);
    bfti_sim_unlock(sim);
    return status;
}

static bft_status sim_list(struct bfti_vfs *base, const char *dir,
                           void (*each)(void *arg, const char *name), void *arg)
{
    struct bfti_sim *sim = bfti_sim_of(base);
    struct bfti_spot spot;
    char *texts = NULL;
    size_t count = 0;
    bft_status status = enter_path(sim, BFTI_SIM_QUERY, dir, NULL);

    if (status != BFT_OK)
        return status;
    status = bfti_spot_find_dir(&sim->disk.root->node, dir, &spot);
    if (status == BFT_OK)
        status = bfti_names_texts(sim->env, &spot.node->names, &texts, &count);
    bfti_sim_unlock(sim);
    bfti_names_tell(sim->env, texts, count, each, arg);
    return status;
}

static bft_status sim_sync_dir(struct bfti_vfs *base, const char *dir)
{
    struct bfti_sim *sim = bfti_sim_of(base);
    struct bfti_spot spot;
    bft_status status = enter_path(sim, BFTI_SIM_SYNC_DIR, dir, NULL);

    if (status != BFT_OK)
        return status;
    status = bfti_spot_find_dir(&sim->disk.root->node, dir, &spot);
    if (status == BFT_OK)
        status = bfti_disk_sync(&sim->disk, bfti_disk_node_of(spot.node));
    bfti_sim_unlock(sim);
    return status;
}

static bool sim_overlaps(struct bfti_file *base)
{
    struct bfti_sim *sim = file_of(base)->sim;
    bool together;

    bfti_sim_lock(sim);
    together = sim->together;
    bfti_sim_unlock(sim);
    return together;
}

/* --- the file system ----------------------------------------------------- */

#define SIM_OPS                                                                \
    .name = "sim", .open = sim_open, .close = sim_close, .read = sim_read,     \
    .write = sim_write, .size = sim_size, .truncate = sim_truncate,            \
    .sync = sim_sync, .lock = sim_lock, .identify = sim_identify,              \
    .make_dir = sim_make_dir, .remove = sim_remove, .rename = sim_rename,      \
    .list = sim_list, .sync_dir = sim_sync_dir, .submit = bfti_vfs_submit_now, \
    .reap = bfti_vfs_reap_none, .punch = sim_punch, .overlaps = sim_overlaps

const struct bfti_vfs_ops bfti_sim_ops = {SIM_OPS};
const struct bfti_vfs_ops bfti_sim_ops_with_map = {
    SIM_OPS,
    .map = sim_map,
    .unmap = sim_unmap,
};

struct bfti_sim *bfti_sim_alloc(const struct bfti_env *env, uint64_t seed)
{
    struct bfti_sim *sim = bfti_alloc(env, sizeof(*sim));

    if (sim == NULL)
        return NULL;
    *sim = (struct bfti_sim){
        .vfs = {.ops = &bfti_sim_ops},
        .env = env,
        .random = seed,
        .crash_at = UINT64_MAX,
        .capacity_blocks = UINT64_MAX,
    };
    if (bfti_disk_init(&sim->disk, env) != BFT_OK) {
        bfti_free(env, sim);
        return NULL;
    }
    return sim;
}

struct bfti_vfs *bfti_vfs_sim_create(const struct bfti_env *env, uint64_t seed)
{
    struct bfti_sim *sim = bfti_sim_alloc(env, seed);

    return sim != NULL ? &sim->vfs : NULL;
}

void bfti_vfs_sim_destroy(struct bfti_vfs *base)
{
    struct bfti_sim *sim = bfti_sim_of(base);

    bfti_disk_free(&sim->disk);
    bfti_free(sim->env, sim);
}
