#include "backup_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "random.h"

enum { HUGE_VALUE = (1 << 20) + 70000, VALUE_MAX = HUGE_VALUE + 4096 };

static const bft_slice NONE = {NULL, 0};

struct model *model_make(uint64_t seed)
{
    struct model *model = calloc(1, sizeof(*model));
    assert_non_null(model);
    model->random = seed;
    return model;
}

struct model *model_copy(const struct model *model)
{
    struct model *copy = model_make(0);
    *copy = *model;
    return copy;
}

void model_free(struct model *model)
{
    free(model);
}

bft_slice model_key(char text[32], uint64_t n)
{
    int len = snprintf(text, 32, "key%09llu", (unsigned long long)n);
    return (bft_slice){text, (size_t)len};
}

bft_slice model_value(uint64_t n, uint32_t version)
{
    static _Thread_local uint8_t value[VALUE_MAX];
    uint64_t state = n << 32 | version;
    size_t len = 20 + random_of(&state) % 80;
    if (n % 100 == 7)
        len += 2500; /* outside the leaf, in the log */
    if (n == 13)
        len += HUGE_VALUE; /* outside the log */
    for (size_t i = 0; i < len; i++)
        value[i] = (uint8_t)(state + i * (version | 1));
    memcpy(value, &state, sizeof(state));
    return (bft_slice){value, len};
}

static bft_tree *open_tree(bft_db *db, unsigned tree, bool must_exist)
{
    static const char *const name[MODEL_TREES] = {"first", "second"};
    bft_tree_options options = {.size = sizeof(options),
                                .must_exist = must_exist,
                                .leaf_bytes = must_exist ? 0 : 512};
    bft_tree *handle;
    expect_ok(bft_tree_open(db, name[tree], &options, &handle));
    return handle;
}

static void put(struct model *model, bft_tree *const *trees, unsigned tree,
                uint64_t n)
{
    char text[32];
    uint32_t version = (uint32_t)(random_of(&model->random) >> 33) | 1;
    expect_ok(
        bft_put(trees[tree], model_key(text, n), model_value(n, version)));
    model->version[tree][n] = version;
}

/* The same keys, one by one or all at once, in both trees. */
static void put_both(struct model *model, bft_db *db, bft_tree *const *trees,
                     uint64_t n)
{
    bft_batch *batch;
    char text[32];
    expect_ok(bft_batch_create(db, &batch));
    for (unsigned tree = 0; tree < MODEL_TREES; tree++) {
        uint32_t version = (uint32_t)(random_of(&model->random) >> 33) | 1;
        if (n == 13)
            n++; /* too big for a batch */
        expect_ok(bft_batch_put(batch, trees[tree], model_key(text, n),
                                model_value(n, version)));
        model->version[tree][n] = version;
    }
    expect_ok(bft_batch_commit(batch, BFT_DEFAULT, NULL));
    bft_batch_free(batch);
}

void model_change(struct model *model, bft_db *db, unsigned count)
{
    bft_tree *trees[MODEL_TREES];
    char text[32];
    for (unsigned tree = 0; tree < MODEL_TREES; tree++)
        trees[tree] = open_tree(db, tree, false);
    model->exists = true;
    for (unsigned i = 0; i < count; i++) {
        uint64_t n = random_of(&model->random) % MODEL_KEYS;
        unsigned tree = (unsigned)(random_of(&model->random) % MODEL_TREES);
        switch (random_of(&model->random) % 8) {
        case 0:
            expect_ok(bft_delete(trees[tree], model_key(text, n)));
            model->version[tree][n] = 0;
            break;
        case 1:
        case 2:
            put_both(model, db, trees, n);
            break;
        default:
            put(model, trees, tree, n);
        }
    }
    if (count > 200) /* its extents are named by the log alone at first */
        put(model, trees, 0, 13);
}

void model_truncate(struct model *model, bft_db *db, unsigned tree)
{
    expect_ok(bft_tree_truncate(db, tree == 0 ? "first" : "second"));
    memset(model->version[tree], 0, sizeof(model->version[tree]));
}

static bool count_name(void *arg, const char *name)
{
    (void)name;
    ++*(unsigned *)arg;
    return true;
}

static void check_tree(const struct model *model, bft_tree *tree, unsigned i)
{
    static _Thread_local uint8_t buf[VALUE_MAX];
    uint64_t records = 0, found;
    for (uint64_t n = 0; n < MODEL_KEYS; n++) {
        uint32_t version = model->version[i][n];
        char text[32];
        size_t len;
        bft_slice value;
        bft_status status =
            bft_get(tree, model_key(text, n), buf, sizeof(buf), &len);
        if (!version) {
            expect_status(BFT_NOT_FOUND, status);
            continue;
        }
        expect_ok(status);
        value = model_value(n, version);
        assert_int_equal(value.len, len);
        assert_memory_equal(value.data, buf, len);
        records++;
    }
    expect_ok(bft_count(tree, NONE, NONE, &found));
    assert_int_equal(records, found);
}

void model_check(const struct model *model, bft_db *db)
{
    unsigned names = 0;
    if (!model->exists) {
        expect_ok(bft_tree_list(db, count_name, &names));
        assert_int_equal(0, names);
        return;
    }
    for (unsigned tree = 0; tree < MODEL_TREES; tree++)
        check_tree(model, open_tree(db, tree, true), tree);
}

/* --- directories ------------------------------------------------------------ */

static bool is_real(const struct engine_fixture *f)
{
    return f->backend != ENGINE_MEMORY && f->backend != ENGINE_SIM;
}

const char *backup_path(const struct engine_fixture *f, char path[300])
{
    if (is_real(f))
        snprintf(path, 300, "%s-copy", f->path);
    else
        snprintf(path, 300, "/copy");
    return path;
}

bft_db *backup_open(struct engine_fixture *f, const char *path, bool read_only)
{
    bft_options options = f->options;
    bft_db *db;
    options.internal = &f->surroundings;
    options.must_exist = true;
    options.read_only = read_only;
    expect_ok(bft_open(path, &options, &db));
    return db;
}

static void note(void *arg, const char *name)
{
    (void)name;
    ++*(unsigned *)arg;
}

unsigned backup_names(struct engine_fixture *f, const char *path)
{
    unsigned count = 0;
    expect_ok(f->vfs->ops->list(f->vfs, path, note, &count));
    return count;
}

struct removal {
    struct engine_fixture *f;
    const char *path;
};

static void remove_name(void *arg, const char *name)
{
    const struct removal *removal = arg;
    struct bfti_vfs *vfs = removal->f->vfs;
    char path[600];
    snprintf(path, sizeof(path), "%s/%s", removal->path, name);
    expect_ok(vfs->ops->remove(vfs, path));
}

void backup_remove(struct engine_fixture *f, const char *path)
{
    struct removal removal = {f, path};
    expect_ok(f->vfs->ops->list(f->vfs, path, remove_name, &removal));
    if (is_real(f))
        assert_int_equal(0, rmdir(path));
}
