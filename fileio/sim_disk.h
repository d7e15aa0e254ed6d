/*
 * The disk of vfs_sim.c: files and directories in two images, and in between
 * the changes that wait for a sync.  No steps, no faults, no mutex: those are
 * the caller's.
 */
#ifndef BFTI_SIM_DISK_H
#define BFTI_SIM_DISK_H

#include "names.h"
#include "sparse.h"
#include "vfs_sim.h"

struct bfti_change;

struct bfti_disk_node {
    struct bfti_node node;        /* its names: as the cache has them */
    struct bfti_names disk_names; /* as the disk has them */
    struct bfti_sparse cache;
    struct bfti_sparse disk;
    struct bfti_change *first; /* what waits for a sync of it, in order */
    struct bfti_change *last;
    uint32_t refs;         /* names, changes that name it, open files */
    const void *locked_by; /* the caller's */
    void *map;             /* the mapping of it, NULL: none */
    size_t map_len;
    uint32_t map_count;
    struct bfti_disk_node *twin; /* in the image being made */
    struct bfti_disk_node *next; /* of all nodes */
    struct bfti_disk_node *prev;
};

enum bfti_change_kind {
    BFTI_CHANGE_WRITE,  /* DATA, LEN bytes of it, at OFFSET */
    BFTI_CHANGE_ZERO,   /* LEN bytes at OFFSET */
    BFTI_CHANGE_SIZE,   /* the size is OFFSET */
    BFTI_CHANGE_LINK,   /* the name in DATA, LEN bytes, is CHILD */
    BFTI_CHANGE_UNLINK, /* the name in DATA, LEN bytes, is gone */
    BFTI_CHANGE_MOVE,   /* CHILD moves from the name in DATA, LEN bytes, to the
                      name behind it, TO_LEN bytes */
};

struct bfti_change {
    enum bfti_change_kind kind;
    struct bfti_disk_node *node; /* what is synced to make it last; no ref */
    struct bfti_disk_node *child;
    struct bfti_change *next; /* of all */
    struct bfti_change *prev;
    struct bfti_change *node_next; /* of NODE */
    uint64_t offset;
    uint64_t len;
    size_t to_len;
    size_t data_len;
    char data[];
};

struct bfti_disk {
    const struct bfti_env *env;
    uint64_t device;
    struct bfti_disk_node *root;
    struct bfti_disk_node *nodes;
    struct bfti_change *first; /* all that waits, in order */
    struct bfti_change *last;
    uint64_t waiting;
    uint64_t used_blocks; /* of all caches */
    uint64_t mapped;      /* nodes with a mapping */
    uint64_t last_id;
};

/* Every node of a disk's names is one of its own. */
static inline struct bfti_disk_node *bfti_disk_node_of(struct bfti_node *node)
{
    return (struct bfti_disk_node *)node;
}

/* splitmix64: the next of a sequence that STATE determines. */
uint64_t bfti_sim_random(uint64_t *state);

/* Errors of everything below: BFT_NO_MEMORY; a change may then be in the cache
 * and wait for nothing. */

BFT_MUST_CHECK bft_status bfti_disk_init(struct bfti_disk *disk,
                                         const struct bfti_env *env);
void bfti_disk_free(struct bfti_disk *disk);

/* Make a file or directory at the missing SPOT. */
BFT_MUST_CHECK bft_status bfti_disk_make(struct bfti_disk *disk,
                                         const struct bfti_spot *spot,
                                         bool is_dir,
                                         struct bfti_disk_node **out);
void bfti_disk_hold(struct bfti_disk_node *node);
void bfti_disk_release(struct bfti_disk *disk, struct bfti_disk_node *node);

BFT_MUST_CHECK bft_status bfti_disk_unlink(struct bfti_disk *disk,
                                           const struct bfti_spot *spot);
BFT_MUST_CHECK bft_status bfti_disk_rename(struct bfti_disk *disk,
                                           const struct bfti_spot *from,
                                           const struct bfti_spot *to);

BFT_MUST_CHECK bft_status bfti_disk_write(struct bfti_disk *disk,
                                          struct bfti_disk_node *node,
                                          uint64_t offset, const void *data,
                                          size_t len);
BFT_MUST_CHECK bft_status bfti_disk_zero(struct bfti_disk *disk,
                                         struct bfti_disk_node *node,
                                         uint64_t offset, uint64_t len);
BFT_MUST_CHECK bft_status bfti_disk_resize(struct bfti_disk *disk,
                                           struct bfti_disk_node *node,
                                           uint64_t bytes);

/* Bring to the disk what waits for NODE, a file or a directory. */
BFT_MUST_CHECK bft_status bfti_disk_sync(struct bfti_disk *disk,
                                         struct bfti_disk_node *node);
/* The same for all files and directories. */
BFT_MUST_CHECK bft_status bfti_disk_settle(struct bfti_disk *disk);
/* What waits for the file NODE stays in the cache, and waits no longer. */
void bfti_disk_forget(struct bfti_disk *disk, struct bfti_disk_node *node);

/* Flip bits of a byte of a file wherever it is. */
BFT_MUST_CHECK bft_status bfti_disk_flip(struct bfti_disk *disk,
                                         struct bfti_disk_node *node,
                                         uint64_t offset, uint8_t mask);

/* Map the first LEN bytes of a file, all of them within its size.  Maps of one
 * file have one length: BFT_INVALID otherwise. */
BFT_MUST_CHECK bft_status bfti_disk_map(struct bfti_disk *disk,
                                        struct bfti_disk_node *node, size_t len,
                                        void **addr);
void bfti_disk_unmap(struct bfti_disk *disk, struct bfti_disk_node *node);
/* Take stores to mappings for writes: sector by sector that differs. */
BFT_MUST_CHECK bft_status bfti_disk_absorb(struct bfti_disk *disk);

/* --- for sim_crash.c ----------------------------------------------------- */

/* A node without a name; NULL: no memory. */
struct bfti_disk_node *bfti_disk_node_create(struct bfti_disk *disk,
                                             bool is_dir, uint64_t id);
/* A change with room for DATA_LEN bytes, not waiting yet; NULL: no memory. */
struct bfti_change *bfti_change_create(struct bfti_disk *disk,
                                       enum bfti_change_kind kind,
                                       struct bfti_disk_node *node,
                                       size_t data_len);
/* Put CHANGE last; from here it holds its child. */
void bfti_change_wait(struct bfti_disk *disk, struct bfti_change *change);
/* Do CHANGE to the disk's image of NODE, with CHILD: its own, or the twins.
 * TEARING: random state, NULL where all sectors arrive. */
BFT_MUST_CHECK bft_status bfti_change_apply(struct bfti_disk *disk,
                                            const struct bfti_change *change,
                                            struct bfti_disk_node *node,
                                            struct bfti_disk_node *child,
                                            uint64_t *tearing);

/* Fill the fresh TO with what a crash leaves of FROM. */
BFT_MUST_CHECK bft_status bfti_disk_image(struct bfti_disk *from,
                                          enum bfti_sim_policy policy,
                                          uint64_t seed, struct bfti_disk *to);

#endif
