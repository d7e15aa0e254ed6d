/* Names of files and directories in memory. */
#include "names.h"

#include <assert.h>
#include <string.h>

#include "error.h"

uint64_t bfti_names_device(void)
{
    static _Atomic uint64_t last;

    /* relaxed: the number stands for itself. */
    return atomic_fetch_add_explicit(&last, 1, memory_order_relaxed) + 1;
}

/* --- one directory ------------------------------------------------------- */

/* The index of NAME, COUNT when it is missing. */
static size_t name_index(const struct bfti_names *names, const char *name,
                         size_t name_len)
{
    size_t i;

    for (i = 0; i < names->count; i++)
        if (strncmp(names->list[i].text, name, name_len) == 0 &&
            names->list[i].text[name_len] == '\0')
            break;
    return i;
}

struct bfti_node *bfti_names_get(const struct bfti_names *names,
                                 const char *name, size_t name_len)
{
    size_t i = name_index(names, name, name_len);

    return i < names->count ? names->list[i].node : NULL;
}

static bft_status make_room(const struct bfti_env *env,
                            struct bfti_names *names)
{
    size_t max = names->max == 0 ? 8 : 2 * names->max;
    struct bfti_name *list;

    if (names->count < names->max)
        return BFT_OK;
    list = bfti_realloc(env, names->list, max * sizeof(*list));
    if (list == NULL)
        return bfti_fail(BFT_NO_MEMORY, "directory in memory: no memory");
    names->list = list;
    names->max = max;
    return BFT_OK;
}

bft_status bfti_names_set(const struct bfti_env *env, struct bfti_names *names,
                          const char *name, size_t name_len,
                          struct bfti_node *node, struct bfti_node **old)
{
    size_t i = name_index(names, name, name_len);
    bft_status status;
    char *text;

    assert(name_len > 0);
    *old = NULL;
    if (i < names->count) {
        *old = names->list[i].node;
        names->list[i].node = node;
        return BFT_OK;
    }
    status = make_room(env, names);
    if (status != BFT_OK)
        return status;
    text = bfti_alloc(env, name_len + 1);
    if (text == NULL)
        return bfti_fail(BFT_NO_MEMORY, "directory in memory: no memory");
    memcpy(text, name, name_len);
    text[name_len] = '\0';
    names->list[names->count++] = (struct bfti_name){text, node};
    return BFT_OK;
}

struct bfti_node *bfti_names_remove(const struct bfti_env *env,
                                    struct bfti_names *names, const char *name,
                                    size_t name_len)
{
    size_t i = name_index(names, name, name_len);
    struct bfti_node *node;

    if (i == names->count)
        return NULL;
    node = names->list[i].node;
    bfti_free(env, names->list[i].text);
    names->count--;
    memmove(names->list + i, names->list + i + 1,
            (names->count - i) * sizeof(*names->list));
    return node;
}

void bfti_names_free(const struct bfti_env *env, struct bfti_names *names)
{
    for (size_t i = 0; i < names->count; i++)
        bfti_free(env, names->list[i].text);
    bfti_free(env, names->list);
    *names = (struct bfti_names){0};
}

bft_status bfti_names_texts(const struct bfti_env *env,
                            const struct bfti_names *names, char **copies,
                            size_t *count)
{
    size_t bytes = 1;
    char *at;

    *copies = NULL;
    *count = 0;
    for (size_t i = 0; i < names->count; i++)
        bytes += strlen(names->list[i].text) + 1;
    at = bfti_alloc(env, bytes);
    if (at == NULL)
        return bfti_fail(BFT_NO_MEMORY, "listing: no memory");
    *copies = at;
    *count = names->count;
    for (size_t i = 0; i < names->count; i++) {
        size_t size = strlen(names->list[i].text) + 1;

        memcpy(at, names->list[i].text, size);
        at += size;
    }
    return BFT_OK;
}

void bfti_names_tell(const struct bfti_env *env, char *copies, size_t count,
                     void (*each)(void *arg, const char *name), void *arg)
{
    for (const char *name = copies; count > 0; count--) {
        each(arg, name);
        name += strlen(name) + 1;
    }
    bfti_free(env, copies);
}

/* --- paths --------------------------------------------------------------- */

/* The next component of *AT that is not "." goes to NAME; *AT moves behind
 * it.  False at the end of the path. */
static bool next_name(const char **at, const char **name, size_t *name_len)
{
    do {
        *name = *at + strspn(*at, "/");
        *name_len = strcspn(*name, "/");
        *at = *name + *name_len;
    } while (*name_len == 1 && (*name)[0] == '.');
    return *name_len > 0;
}

/* As bfti_spot_find, and BFT_INVALID when the way leads through AVOID. */
static bft_status follow(struct bfti_node *root, const char *path,
                         const struct bfti_node *avoid, struct bfti_spot *spot)
{
    const char *at = path;
    const char *name;
    size_t name_len;

    *spot = (struct bfti_spot){.name = "", .node = root};
    while (next_name(&at, &name, &name_len)) {
        if (name_len == 2 && memcmp(name, "..", 2) == 0)
            return bfti_fail(BFT_INVALID, "%s: no \"..\" in memory", path);
        if (spot->node == NULL)
            return bfti_fail(
                BFT_NOT_FOUND, "%s: no directory %.*s", path,
                (int)(spot->name - path + (ptrdiff_t)spot->name_len), path);
        if (!spot->node->is_dir)
            return bfti_fail(
                BFT_INVALID, "%s: %.*s is not a directory", path,
                (int)(spot->name - path + (ptrdiff_t)spot->name_len), path);
        if (spot->node == avoid)
            return bfti_fail(BFT_INVALID, "%s: a directory inside itself",
                             path);
        *spot = (struct bfti_spot){
            .dir = spot->node,
            .name = name,
            .name_len = name_len,
            .node = bfti_names_get(&spot->node->names, name, name_len),
        };
    }
    return BFT_OK;
}

bft_status bfti_spot_find(struct bfti_node *root, const char *path,
                          struct bfti_spot *spot)
{
    return follow(root, path, NULL, spot);
}

bft_status bfti_spot_find_any(struct bfti_node *root, const char *path,
                              struct bfti_spot *spot)
{
    bft_status status = bfti_spot_find(root, path, spot);

    if (status != BFT_OK)
        return status;
    if (spot->node == NULL)
        return bfti_fail(BFT_NOT_FOUND, "%s: no such file or directory", path);
    return BFT_OK;
}

bft_status bfti_spot_find_file(struct bfti_node *root, const char *path,
                               struct bfti_spot *spot)
{
    bft_status status = bfti_spot_find(root, path, spot);

    if (status != BFT_OK)
        return status;
    if (spot->node == NULL)
        return bfti_fail(BFT_NOT_FOUND, "%s: no such file", path);
    if (spot->node->is_dir)
        return bfti_fail(BFT_INVALID, "%s: is a directory", path);
    return BFT_OK;
}

bft_status bfti_spot_find_dir(struct bfti_node *root, const char *path,
                              struct bfti_spot *spot)
{
    bft_status status = bfti_spot_find(root, path, spot);

    if (status != BFT_OK)
        return status;
    if (spot->node == NULL)
        return bfti_fail(BFT_NOT_FOUND, "%s: no such directory", path);
    if (!spot->node->is_dir)
        return bfti_fail(BFT_INVALID, "%s: is not a directory", path);
    return BFT_OK;
}

bft_status bfti_spot_find_free(struct bfti_node *root, const char *path,
                               struct bfti_spot *spot)
{
    bft_status status = bfti_spot_find(root, path, spot);

    if (status != BFT_OK)
        return status;
    if (spot->node != NULL)
        return bfti_fail(BFT_EXISTS, "%s: is there already", path);
    return BFT_OK;
}

bft_status bfti_spot_find_rename(struct bfti_node *root, const char *from,
                                 const char *to, struct bfti_spot *from_spot,
                                 struct bfti_spot *to_spot)
{
    bft_status status = bfti_spot_find_any(root, from, from_spot);

    if (status != BFT_OK)
        return status;
    if (from_spot->dir == NULL)
        return bfti_fail(BFT_INVALID, "rename %s: is the root", from);
    status = follow(root, to, from_spot->node, to_spot);
    if (status != BFT_OK || to_spot->node == NULL ||
        to_spot->node == from_spot->node)
        return status;
    if (from_spot->node->is_dir && to_spot->node->is_dir)
        return bfti_fail(BFT_EXISTS, "rename %s to %s: is there already", from,
                         to);
    if (from_spot->node->is_dir || to_spot->node->is_dir)
        return bfti_fail(BFT_INVALID,
                         "rename %s to %s: one is a file, one a directory",
                         from, to);
    return BFT_OK;
}
