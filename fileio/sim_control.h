/* The simulation as vfs_sim.c, which takes calls, and sim_control.c, which
 * takes orders, share it. */
#ifndef BFTI_SIM_CONTROL_H
#define BFTI_SIM_CONTROL_H

#include "sim_disk.h"

struct bfti_sim_armed {
    struct bfti_sim_fault fault;
    uint64_t seen; /* matching calls so far */
};

struct bfti_sim {
    struct bfti_vfs vfs;
    const struct bfti_env *env; /* fixed after init */
    struct bfti_mutex lock;     /* guards all that follows */
    struct bfti_disk disk;
    uint64_t random;
    uint64_t steps;
    uint64_t crash_at;
    void (*hook)(void *arg, const struct bfti_sim_step *step);
    void *hook_arg;
    void (*delay)(void *arg, enum bfti_sim_op op); /* read outside the lock */
    void *delay_arg;
    struct bfti_sim_armed faults[BFTI_SIM_FAULTS_MAX];
    size_t fault_count;
    uint64_t struck;
    uint64_t capacity_blocks;
    bool together; /* reads of several are said to be worked on so */
};

static inline struct bfti_sim *bfti_sim_of(struct bfti_vfs *vfs)
{
    return (struct bfti_sim *)vfs;
}

static inline void bfti_sim_lock(struct bfti_sim *sim)
{
    bfti_mutex_lock(sim->env, &sim->lock);
}

static inline void bfti_sim_unlock(struct bfti_sim *sim)
{
    bfti_mutex_unlock(sim->env, &sim->lock);
}

/* A simulation with an empty disk; NULL: no memory. */
struct bfti_sim *bfti_sim_alloc(const struct bfti_env *env, uint64_t seed);

/* The two tables, without map and with it. */
extern const struct bfti_vfs_ops bfti_sim_ops;
extern const struct bfti_vfs_ops bfti_sim_ops_with_map;

#endif
