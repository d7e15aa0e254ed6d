/*
 * Inner nodes: changes by path copying.  A change works upward, one height at a
 * time: the children of a node go into a list, the list is edited and cut into
 * new nodes, and these are the edits of the height above.
 *
 * Separators move rather than being computed anew: the key at a cut goes up
 * and is in neither part, and the first key of a shortened node replaces the
 * separator that its range began at.
 */
#include "inner_internal.h"

enum {
    NODES_MAX = sizeof((struct bfti_inner_change *)0)->made /
                sizeof(struct bfti_inner *),
    EDITS_MAX = NODES_MAX + BFTI_INNER_INSERT_MAX,
    /* Two nodes are merged only if some room is left, else the next insertion
     * would split them again. */
    MERGED_BYTES = BFTI_INNER_BYTES / 4 * 3,
    MERGED_CHILDREN = BFTI_INNER_FANOUT_MIN / 2 * 3,
    SMALL_BYTES = BFTI_INNER_BYTES / 4,
};

/* The way to a leaf: by height - 1, the node and the child taken in it. */
struct path {
    const struct bfti_inner *node[BFTI_INNER_HEIGHT_MAX];
    const struct bfti_inner *bottom; /* content of the first */
    unsigned index[BFTI_INNER_HEIGHT_MAX];
};

/* What happens to one child of a node that OWNER's path leads through: WORD
 * takes its place, or comes to its right behind KEY. */
struct edit {
    unsigned owner;
    bool replace;
    struct bfti_separator key;
    uint64_t word;
};

struct edits {
    struct edit at[EDITS_MAX];
    size_t count;
};

struct work {
    struct bfti_inner_change *change;
    struct bfti_inner_list list;
    struct path path[BFTI_INNER_INSERT_MAX];
    struct edits below, above; /* of this height, and of the next */
};

static void work_start(struct work *work, const struct bfti_env *env,
                       struct bfti_inner_change *change)
{
    work->change = change;
    work->list.env = env;
    work->list.at = NULL;
    work->list.count = 0;
    work->list.cap = 0;
    work->below.count = 0;
    work->above.count = 0;
    change->root = NULL;
    change->made_count = 0;
    change->replaced_count = 0;
}

/* The end of every change: STATUS decides what the caller gets. */
static bft_status work_finish(struct work *work, bft_status status)
{
    struct bfti_inner_change *change = work->change;
    if (status != BFT_OK) {
        bfti_inner_free_made(work->list.env, change);
        change->root = NULL;
        change->replaced_count = 0;
    }
    bfti_inner_list_free(&work->list);
    return status;
}

static bft_status path_find(struct path *path, const struct bfti_inner *root,
                            bft_slice key)
{
    const struct bfti_inner *node = root;
    assert(root->height <= BFTI_INNER_HEIGHT_MAX);
    for (unsigned level = root->height - 1u; level > 0; level--) {
        path->node[level] = node;
        path->index[level] = bfti_inner_index(node, key);
        node = bfti_inner_child(node, path->index[level]);
    }
    path->node[0] = node;
    path->bottom = bfti_inner_here(node);
    if (path->bottom == NULL)
        return bfti_fail(BFT_BUSY, "inner node: its content is away");
    path->index[0] = bfti_inner_index(path->bottom, key);
    return BFT_OK;
}

/* What has the keys and children of the path's node at LEVEL. */
static const struct bfti_inner *path_at(const struct path *path, unsigned level)
{
    return level ? path->node[level] : path->bottom;
}

/* Does the range of the path's leaf start at KEY? */
static bool path_starts_at(const struct path *path, unsigned height,
                           bft_slice key)
{
    for (unsigned level = 0; level < height; level++) {
        if (path->index[level] == 0)
            continue;
        struct bfti_separator want = bfti_separator_of(key);
        struct bfti_separator have =
            bfti_separator_at(path_at(path, level), path->index[level]);
        return bfti_separator_compare(&have, &want) == 0;
    }
    return false;
}

/* Start the list anew with the children of NODE, of a path, and room for MORE. */
static bft_status load(struct work *work, const struct bfti_inner *node,
                       size_t more)
{
    struct bfti_separator none = {NULL, NULL, 0, 0};
    work->list.count = 0;
    bft_status status =
        bfti_inner_list_reserve(&work->list, node->count + more);
    if (status == BFT_OK)
        bfti_inner_list_insert_node(&work->list, 0, none, node);
    return status;
}

static bft_status replaced(struct work *work, const struct bfti_inner *node)
{
    struct bfti_inner_change *change = work->change;
    if (change->replaced_count == NODES_MAX)
        return bfti_fail(BFT_TOO_BIG,
                         "inner node: a change of more than %d nodes",
                         (int)NODES_MAX);
    /* The tree is the caller's to free, and read-only only to its readers. */
    change->replaced[change->replaced_count++] =
        bfti_inner_of_word(bfti_inner_word_of(node));
    return BFT_OK;
}

/* Cut the list into nodes of HEIGHT: the edits of OWNER's path above. */
static bft_status emit(struct work *work, unsigned height, unsigned owner,
                       bool append)
{
    struct bfti_inner_change *change = work->change;
    struct bfti_inner_list *list = &work->list;
    size_t from = 0;

    bfti_inner_list_measure(list);
    while (from < list->count) {
        size_t to = bfti_inner_list_cut(list, from, append);
        struct bfti_inner *node;
        if (change->made_count == NODES_MAX)
            return bfti_fail(BFT_TOO_BIG,
                             "inner node: a change makes more than %d nodes",
                             (int)NODES_MAX);
        bft_status status =
            bfti_inner_list_build(list, from, to, height, &node);
        if (status != BFT_OK)
            return status;
        change->made[change->made_count++] = node;

        struct edit *edit = &work->above.at[work->above.count++];
        edit->owner = owner;
        edit->replace = from == 0;
        edit->key = list->at[from].key;
        edit->word = bfti_inner_word_of(node);
        from = to;
    }
    return BFT_OK;
}

/* Put roots on the nodes of HEIGHT that are the edits above, until one is. */
static bft_status grow_root(struct work *work, unsigned height)
{
    while (work->above.count > 1) {
        if (height == BFTI_INNER_HEIGHT_MAX)
            return bfti_fail(BFT_TOO_BIG, "inner node: a tree higher than %d",
                             (int)BFTI_INNER_HEIGHT_MAX);
        work->list.count = 0;
        bft_status status =
            bfti_inner_list_reserve(&work->list, work->above.count);
        if (status != BFT_OK)
            return status;
        for (size_t i = 0; i < work->above.count; i++)
            bfti_inner_list_insert(&work->list, i, work->above.at[i].key,
                                   work->above.at[i].word);
        work->above.count = 0;
        height++;
        status = emit(work, height, 0, false);
        if (status != BFT_OK)
            return status;
    }
    work->change->root = bfti_inner_of_word(work->above.at[0].word);
    return BFT_OK;
}

/* --- create, insert ------------------------------------------------------ */

bft_status bfti_inner_create(const struct bfti_env *env, uint64_t page_id,
                             struct bfti_inner **out)
{
    struct bfti_inner_entry only = {{NULL, NULL, 0, 0}, 0, page_id};
    struct bfti_inner_list list = {env, &only, 1, 1};
    return bfti_inner_list_build(&list, 0, 1, 1, out);
}

static bft_status insert_start(struct work *work, const struct bfti_inner *root,
                               const bft_slice *keys, const uint64_t *ids,
                               size_t n)
{
    bft_status status = BFT_OK;
    for (size_t i = 0; status == BFT_OK && i < n; i++) {
        struct edit *edit = &work->below.at[i];
        assert(keys[i].len > 0);
        assert(keys[i].len <= BFTI_KEY_MAX);
        assert(i == 0 || bfti_key_compare(keys[i - 1], keys[i]) < 0);
        status = path_find(&work->path[i], root, keys[i]);
        if (status != BFT_OK)
            break;
        edit->owner = (unsigned)i;
        edit->replace = path_starts_at(&work->path[i], root->height, keys[i]);
        edit->key = bfti_separator_of(keys[i]);
        edit->word = ids[i];
    }
    work->below.count = n;
    return status;
}

/* Copy the node that the edits [FROM, TO) are in. */
static bft_status insert_node(struct work *work, unsigned level, size_t from,
                              size_t to)
{
    const struct edit *edits = work->below.at;
    const struct path *path = &work->path[edits[from].owner];
    const struct bfti_inner *node = path_at(path, level);
    bool append = false;
    bft_status status = load(work, node, to - from);
    if (status != BFT_OK)
        return status;

    /* From the right, so that what is left to do keeps its index. */
    for (size_t i = to; i-- > from;) {
        unsigned index = work->path[edits[i].owner].index[level];
        if (edits[i].replace) {
            work->list.at[index].word = edits[i].word;
            continue;
        }
        append = index + 1u == node->count;
        bfti_inner_list_insert(&work->list, index + 1u, edits[i].key,
                               edits[i].word);
    }
    status = replaced(work, path->node[level]);
    if (status != BFT_OK)
        return status;
    return emit(work, level + 1, edits[from].owner, append);
}

/* Copy every node at LEVEL that edits are in; their parts are the edits of the
 * level above. */
static bft_status insert_level(struct work *work, unsigned level)
{
    const struct edits *below = &work->below;
    size_t from = 0;
    work->above.count = 0;
    while (from < below->count) {
        const struct bfti_inner *node =
            work->path[below->at[from].owner].node[level];
        size_t to = from + 1;
        while (to < below->count &&
               work->path[below->at[to].owner].node[level] == node)
            to++;
        bft_status status = insert_node(work, level, from, to);
        if (status != BFT_OK)
            return status;
        from = to;
    }
    return BFT_OK;
}

bft_status bfti_inner_insert(const struct bfti_env *env,
                             const struct bfti_inner *root,
                             const bft_slice *keys, const uint64_t *ids,
                             size_t n, struct bfti_inner_change *change)
{
    struct work work;
    bft_status status = BFT_OK;

    work_start(&work, env, change);
    if (n == 0 || n > BFTI_INNER_INSERT_MAX)
        return work_finish(&work, bfti_fail(BFT_TOO_BIG,
                                            "inner node: %zu separators at "
                                            "once, 1 to %d can be",
                                            n, (int)BFTI_INNER_INSERT_MAX));
    status = insert_start(&work, root, keys, ids, n);
    for (unsigned level = 0; status == BFT_OK && level < root->height;
         level++) {
        status = insert_level(&work, level);
        if (status != BFT_OK)
            return work_finish(&work, status);
        work.below = work.above;
    }
    if (status == BFT_OK)
        status = grow_root(&work, root->height);
    return work_finish(&work, status);
}

/* --- remove -------------------------------------------------------------- */

/* What a node's change means to its parent: the children from BEFORE left of
 * it to AFTER right of it become the work's edits, of which there may be
 * none. */
struct removal {
    unsigned before, after;
    /* The range of the child begins at LOW now. */
    bool has_low;
    struct bfti_separator low;
};

/* The list is the children of a node; make child INDEX what the level below
 * says. */
static void remove_apply(struct work *work, struct removal *removal,
                         unsigned index)
{
    struct bfti_inner_list *list = &work->list;
    const struct edits *parts = &work->above;
    size_t from = index - removal->before;

    if (parts->count == 0) {
        bfti_inner_list_erase(list, from, 1);
        removal->has_low = from == 0 && list->count > 0;
        if (removal->has_low)
            removal->low = list->at[0].key;
        return;
    }
    list->at[from].word = parts->at[0].word;
    bfti_inner_list_erase(list, from + 1, removal->before + removal->after);
    for (size_t i = 1; i < parts->count; i++)
        bfti_inner_list_insert(list, from + i, parts->at[i].key,
                               parts->at[i].word);
    if (removal->has_low && from > 0) {
        list->at[from].key = removal->low;
        removal->has_low = false;
    }
}

static bool is_small(const struct bfti_inner_list *list)
{
    return list->count < BFTI_INNER_FANOUT_MIN ||
           bfti_inner_list_bytes(list, 0, list->count) < SMALL_BYTES;
}

static bool may_merge(struct bfti_inner_list *list)
{
    bfti_inner_list_measure(list);
    return list->count <= MERGED_CHILDREN ||
           bfti_inner_list_bytes(list, 0, list->count) <= MERGED_BYTES;
}

static bft_status merge_left(struct work *work, struct removal *removal,
                             const struct bfti_inner *parent, unsigned index)
{
    struct bfti_inner_list *list = &work->list;
    struct bfti_separator none = {NULL, NULL, 0, 0};
    const struct bfti_inner *child = bfti_inner_child(parent, index - 1);
    const struct bfti_inner *node = bfti_inner_here(child);
    bft_status status =
        node ? bfti_inner_list_reserve(list, node->count) : BFT_OK;
    if (status != BFT_OK || node == NULL)
        return status;

    bfti_inner_list_insert_node(list, 0, none, node);
    list->at[node->count].key =
        removal->has_low ? removal->low : bfti_separator_at(parent, index);
    if (!may_merge(list)) {
        bfti_inner_list_erase(list, 0, node->count);
        return BFT_OK;
    }
    removal->before = 1;
    removal->has_low = false;
    return replaced(work, child);
}

static bft_status merge_right(struct work *work, struct removal *removal,
                              const struct bfti_inner *parent, unsigned index)
{
    struct bfti_inner_list *list = &work->list;
    const struct bfti_inner *child = bfti_inner_child(parent, index + 1);
    const struct bfti_inner *node = bfti_inner_here(child);
    size_t count = list->count;
    bft_status status =
        node ? bfti_inner_list_reserve(list, node->count) : BFT_OK;
    if (status != BFT_OK || node == NULL)
        return status;

    bfti_inner_list_insert_node(list, count,
                                bfti_separator_at(parent, index + 1), node);
    if (!may_merge(list)) {
        bfti_inner_list_erase(list, count, node->count);
        return BFT_OK;
    }
    removal->after = 1;
    return replaced(work, child);
}

/* Bring the left or the right neighbour's children into a small list, where their
 * node has its content in memory. */
static bft_status merge(struct work *work, struct removal *removal,
                        const struct bfti_inner *parent, unsigned index)
{
    bft_status status = BFT_OK;
    bfti_inner_list_measure(&work->list);
    if (!is_small(&work->list))
        return BFT_OK;
    if (index > 0)
        status = merge_left(work, removal, parent, index);
    if (status == BFT_OK && removal->before == 0 && index + 1u < parent->count)
        status = merge_right(work, removal, parent, index);
    return status;
}

static bft_status remove_level(struct work *work, struct removal *removal,
                               unsigned level, unsigned height)
{
    const struct path *path = &work->path[0];
    bft_status status = load(work, path_at(path, level), work->above.count);
    if (status != BFT_OK)
        return status;

    remove_apply(work, removal, path->index[level]);
    removal->before = 0;
    removal->after = 0;
    work->above.count = 0;
    status = replaced(work, path->node[level]);
    if (status != BFT_OK || work->list.count == 0)
        return status; /* empty: its parent drops it as a child */
    if (level + 1 < height)
        status =
            merge(work, removal, path->node[level + 1], path->index[level + 1]);
    if (status != BFT_OK)
        return status;
    return emit(work, level + 1, 0, false);
}

/* Take away roots that have one inner child. */
static bft_status shrink_root(struct work *work)
{
    struct bfti_inner_change *change = work->change;
    while (change->root->height > 1 && change->root->count == 1) {
        struct bfti_inner *root = change->root;
        struct bfti_inner *child = bfti_inner_child(root, 0);
        /* The newest made is the highest; below it old ones may follow. */
        if (change->made_count > 0 &&
            change->made[change->made_count - 1] == root) {
            change->made_count--;
            bfti_inner_free(work->list.env, root);
        } else {
            bft_status status = replaced(work, root);
            if (status != BFT_OK)
                return status;
        }
        change->root = child;
    }
    return BFT_OK;
}

bft_status bfti_inner_remove(const struct bfti_env *env,
                             const struct bfti_inner *root, bft_slice key,
                             uint64_t id, struct bfti_inner_change *change)
{
    struct work work;
    struct removal removal = {0};
    const struct path *path = &work.path[0];
    bft_status status = BFT_OK;

    work_start(&work, env, change);
    status = path_find(&work.path[0], root, key);
    if (status != BFT_OK)
        return work_finish(&work, status);
    if (!path_starts_at(path, root->height, key) ||
        bfti_inner_page(path->bottom, path->index[0]) != id)
        return work_finish(
            &work, bfti_fail(BFT_NOT_FOUND,
                             "inner node: no leaf %llu starts at that key",
                             (unsigned long long)id));

    for (unsigned level = 0; level < root->height; level++) {
        status = remove_level(&work, &removal, level, root->height);
        if (status != BFT_OK)
            return work_finish(&work, status);
    }
    /* A leaf to the left is left, so the root is not empty. */
    assert(work.above.count > 0);
    assert(!removal.has_low);
    status = grow_root(&work, root->height);
    if (status == BFT_OK)
        status = shrink_root(&work);
    return work_finish(&work, status);
}

/* --- whole trees --------------------------------------------------------- */

void bfti_inner_free_made(const struct bfti_env *env,
                          struct bfti_inner_change *change)
{
    while (change->made_count > 0)
        bfti_inner_free(env, change->made[--change->made_count]);
}

/* Visit every node, children before their parent, which is not touched after
 * its visit. */
static void each_node(struct bfti_inner *root,
                      void (*visit)(void *arg, struct bfti_inner *node),
                      void *arg)
{
    struct bfti_inner *node[BFTI_INNER_HEIGHT_MAX];
    unsigned next[BFTI_INNER_HEIGHT_MAX];
    unsigned top = root->height;
    unsigned height = top;

    assert(top <= BFTI_INNER_HEIGHT_MAX);
    node[height - 1] = root;
    next[height - 1] = 0;
    while (height <= top) {
        struct bfti_inner *at = node[height - 1];
        if (height > 1 && next[height - 1] < at->count) {
            struct bfti_inner *child = bfti_inner_child(at, next[height - 1]++);
            height--;
            node[height - 1] = child;
            next[height - 1] = 0;
            continue;
        }
        visit(arg, at);
        height++;
    }
}

static void visit_free(void *arg, struct bfti_inner *node)
{
    const struct bfti_env *const *env = arg;
    bfti_inner_free(*env, node);
}

void bfti_inner_destroy(const struct bfti_env *env, struct bfti_inner *root)
{
    if (root != NULL)
        each_node(root, visit_free, &env);
}

static void visit_sum(void *arg, struct bfti_inner *node)
{
    size_t *sum = arg;
    *sum += bfti_inner_node_bytes(node);
}

size_t bfti_inner_tree_bytes(const struct bfti_inner *root)
{
    size_t sum = 0;
    each_node(bfti_inner_of_word(bfti_inner_word_of(root)), visit_sum, &sum);
    return sum;
}
