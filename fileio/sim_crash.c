/* The file system that a crash leaves behind, as a copy that shares pages. */
#include <assert.h>
#include <string.h>

#include "error.h"
#include "sim_disk.h"

static bft_status copy_names(struct bfti_disk *to, struct bfti_names *copy,
                             const struct bfti_names *names)
{
    for (size_t i = 0; i < names->count; i++) {
        struct bfti_disk_node *twin =
            bfti_disk_node_of(names->list[i].node)->twin;
        const char *text = names->list[i].text;
        struct bfti_node *old;
        bft_status status = bfti_names_set(to->env, copy, text, strlen(text),
                                           &twin->node, &old);

        if (status != BFT_OK)
            return status;
        bfti_disk_hold(twin);
    }
    return BFT_OK;
}

/* Make the twins of all nodes, then their images on the disk. */
static bft_status make_twins(struct bfti_disk *from, struct bfti_disk *to)
{
    bft_status status = BFT_OK;

    for (struct bfti_disk_node *node = from->nodes; node != NULL;
         node = node->next) {
        if (node == from->root)
            node->twin = to->root;
        else
            node->twin =
                bfti_disk_node_create(to, node->node.is_dir, node->node.id);
        if (node->twin == NULL)
            return BFT_NO_MEMORY;
        /* Until the image is complete: a file that loses its name on the way
         * may have more changes to come. */
        bfti_disk_hold(node->twin);
    }
    to->last_id = from->last_id;
    for (struct bfti_disk_node *node = from->nodes;
         status == BFT_OK && node != NULL; node = node->next) {
        status = copy_names(to, &node->twin->disk_names, &node->disk_names);
        if (status == BFT_OK)
            status = bfti_sparse_copy(to->env, &node->twin->disk, &node->disk);
    }
    return status;
}

/* After a kill: the caches too, and what waits. */
static bft_status copy_waiting(struct bfti_disk *from, struct bfti_disk *to)
{
    bft_status status = BFT_OK;

    for (struct bfti_disk_node *node = from->nodes;
         status == BFT_OK && node != NULL; node = node->next) {
        status = copy_names(to, &node->twin->node.names, &node->node.names);
        if (status == BFT_OK)
            status =
                bfti_sparse_copy(to->env, &node->twin->cache, &node->cache);
    }
    for (const struct bfti_change *change = from->first;
         status == BFT_OK && change != NULL; change = change->next) {
        struct bfti_change *copy = bfti_change_create(
            to, change->kind, change->node->twin, change->data_len);

        if (copy == NULL)
            return BFT_NO_MEMORY;
        copy->child = change->child != NULL ? change->child->twin : NULL;
        copy->offset = change->offset;
        copy->len = change->len;
        copy->to_len = change->to_len;
        memcpy(copy->data, change->data, change->data_len);
        bfti_change_wait(to, copy);
    }
    return status;
}

/* After a power cut: what POLICY lets through reaches the disk... */
static bft_status apply_some(struct bfti_disk *from,
                             enum bfti_sim_policy policy, uint64_t seed,
                             struct bfti_disk *to)
{
    uint64_t random = seed;
    uint64_t prefix = bfti_sim_random(&random) % (from->waiting + 1);
    /* Of 256; never all or nothing, which KEEP and DROP are for. */
    uint64_t odds = 16 + bfti_sim_random(&random) % 225;
    bft_status status = BFT_OK;

    for (const struct bfti_change *change = from->first;
         status == BFT_OK && change != NULL; change = change->next) {
        bool survives = policy == BFTI_SIM_KEEP;

        if (policy == BFTI_SIM_PREFIX) {
            survives = prefix > 0;
            prefix -= survives ? 1 : 0;
        } else if (policy == BFTI_SIM_REORDER || policy == BFTI_SIM_TORN) {
            survives = bfti_sim_random(&random) % 256 < odds;
        }
        if (survives)
            status = bfti_change_apply(
                to, change, change->node->twin,
                change->child != NULL ? change->child->twin : NULL,
                policy == BFTI_SIM_TORN ? &random : NULL);
    }
    return status;
}

/* ... and from the disk into the cache. */
static bft_status read_caches(struct bfti_disk *disk)
{
    bft_status status = BFT_OK;

    for (struct bfti_disk_node *node = disk->nodes;
         status == BFT_OK && node != NULL; node = node->next) {
        status = bfti_sparse_copy(disk->env, &node->cache, &node->disk);
        for (size_t i = 0; status == BFT_OK && i < node->disk_names.count;
             i++) {
            const struct bfti_name *name = &node->disk_names.list[i];
            struct bfti_node *old;

            status = bfti_names_set(disk->env, &node->node.names, name->text,
                                    strlen(name->text), name->node, &old);
            if (status == BFT_OK)
                bfti_disk_hold(bfti_disk_node_of(name->node));
        }
    }
    return status;
}

/* The twins' own reference ends: files without a name on this side of the
 * crash go. */
static void release_twins(struct bfti_disk *disk)
{
    struct bfti_disk_node *next;

    for (struct bfti_disk_node *node = disk->nodes; node != NULL; node = next) {
        next = node->next;
        bfti_disk_release(disk, node);
    }
}

bft_status bfti_disk_image(struct bfti_disk *from, enum bfti_sim_policy policy,
                           uint64_t seed, struct bfti_disk *to)
{
    bft_status status = bfti_disk_absorb(from);

    if (status == BFT_OK)
        status = make_twins(from, to);
    if (status == BFT_OK && policy == BFTI_SIM_KILL)
        status = copy_waiting(from, to);
    if (status == BFT_OK && policy != BFTI_SIM_KILL)
        status = apply_some(from, policy, seed, to);
    if (status == BFT_OK && policy != BFTI_SIM_KILL)
        status = read_caches(to);
    if (status != BFT_OK)
        return status;
    for (const struct bfti_disk_node *node = to->nodes; node != NULL;
         node = node->next)
        to->used_blocks += node->cache.blocks;
    release_twins(to);
    return BFT_OK;
}
