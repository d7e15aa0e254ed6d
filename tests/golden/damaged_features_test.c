/*
 * Stored databases, format 1, with what its features brought: compressed pages, a
 * dictionary, deleted ranges, lists, blocks that several extents share.  In each
 * grain of their page files that is not empty one bit is another.  All that is read
 * then is right, or BFT_CORRUPT that tells the file, the byte, and what lies there.
 *
 * BFT_SEED repeats a run.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "golden_image.h"
#include "random.h"
#include "told_place.h"

enum { TREES_MAX = 8, NAME_MAX_LEN = 40, ROUNDS = 20 };

struct record {
    char *key, *value;
    size_t key_len, value_len;
};

struct tree {
    char name[NAME_MAX_LEN];
    struct record *record; /* ascending */
    size_t count;
};

struct whole { /* what the undamaged database has */
    const char *image;
    struct engine_fixture *f;
    struct tree tree[TREES_MAX];
    size_t trees;
    uint64_t at; /* the byte that is damaged */
    unsigned refused, told, right;
};

/* --- what is there --------------------------------------------------------- */

static char *copy_of(bft_slice bytes)
{
    char *copy = malloc(bytes.len + 1);
    assert_non_null(copy);
    memcpy(copy, bytes.data, bytes.len);
    return copy;
}

static bool note_tree(void *ctx, const char *name)
{
    struct whole *w = ctx;
    assert_true(w->trees < TREES_MAX && strlen(name) < NAME_MAX_LEN);
    strcpy(w->tree[w->trees++].name, name);
    return true;
}

static bft_status tree_open(const struct whole *w, const char *name,
                            bft_tree **tree)
{
    bft_tree_options o = {.size = sizeof(o), .must_exist = true};
    return bft_tree_open(w->f->db, name, &o, tree);
}

static void note_records(const struct whole *w, struct tree *t)
{
    bft_cursor *cursor;
    bft_tree *tree;
    size_t cap = 0;
    expect_ok(tree_open(w, t->name, &tree));
    expect_ok(bft_cursor_open_newest(tree, &cursor));
    while (bft_cursor_next(cursor) == BFT_OK) {
        bft_slice key, value;
        if (t->count == cap) {
            cap = 2 * cap + 64;
            t->record = realloc(t->record, cap * sizeof(*t->record));
            assert_non_null(t->record);
        }
        expect_ok(bft_cursor_record(cursor, &key, &value));
        t->record[t->count++] =
            (struct record){copy_of(key), copy_of(value), key.len, value.len};
    }
    bft_cursor_close(cursor);
}

static void whole_make(struct whole *w, const char *image)
{
    size_t records = 0;
    char path[600];
    memset(w, 0, sizeof(*w));
    w->image = image;
    w->f = engine_fixture_make(ENGINE_MEMORY);
    (void)snprintf(path, sizeof(path), "%s/%s", BFT_SOURCE_DIR "/tests/golden",
                   image);
    golden_image_read(path, w->f);
    w->f->options.must_exist = true;
    w->f->options.read_only = true;
    w->f->options.no_threads = true;
    engine_open(w->f);
    expect_ok(bft_tree_list(w->f->db, note_tree, w));
    for (size_t i = 0; i < w->trees; i++) {
        note_records(w, &w->tree[i]);
        records += w->tree[i].count;
    }
    assert_true(records > 0);
    engine_close(w->f);
}

static void whole_free(struct whole *w)
{
    for (size_t i = 0; i < w->trees; i++) {
        for (size_t n = 0; n < w->tree[i].count; n++) {
            free(w->tree[i].record[n].key);
            free(w->tree[i].record[n].value);
        }
        free(w->tree[i].record);
    }
    engine_fixture_free(w->f);
}

/* --- what is read ----------------------------------------------------------- */

#define wrong(w, what, ...)                                          \
    do {                                                             \
        print_error("%s, byte %llu damaged: " what "\n", (w)->image, \
                    (unsigned long long)(w)->at, __VA_ARGS__);       \
        fail();                                                      \
    } while (0)

/* Was damage told? */
static bool is_told(const struct whole *w, bft_status status)
{
    char text[600];
    if (status == BFT_OK)
        return false;
    (void)bft_last_error(text, sizeof(text));
    if (status != BFT_CORRUPT)
        wrong(w, "status %d: %s", (int)status, text);
    if (told_place_lacks(text))
        wrong(w, "the text names %s: %s", told_place_lacks(text), text);
    return true;
}

static bool read_record(const struct whole *w, bft_tree *tree,
                        const struct record *r)
{
    static char value[1 << 20];
    size_t len = 0;
    if (is_told(w, bft_get(tree, (bft_slice){r->key, r->key_len}, value,
                           sizeof(value), &len)))
        return true;
    if (len != r->value_len || memcmp(value, r->value, len) != 0)
        wrong(w, "%.*s has another value", (int)r->key_len, r->key);
    return false;
}

/* Nothing is there that was not. */
static bool read_tree(const struct whole *w, const struct tree *t)
{
    bft_slice all = {NULL, 0};
    uint64_t count;
    bft_tree *tree;
    bool told = false;
    if (is_told(w, tree_open(w, t->name, &tree)))
        return true;
    for (size_t i = 0; i < t->count; i++)
        told |= read_record(w, tree, &t->record[i]);
    if (is_told(w, bft_count(tree, all, all, &count)))
        return true;
    if (count != t->count)
        wrong(w, "%s has %llu records", t->name, (unsigned long long)count);
    return told;
}

static void look(struct whole *w)
{
    bft_options options = w->f->options;
    bool told = false;
    options.internal = &w->f->surroundings;
    if (is_told(w, bft_open(w->f->path, &options, &w->f->db))) {
        w->refused++;
        return;
    }
    for (size_t i = 0; i < w->trees; i++)
        told |= read_tree(w, &w->tree[i]);
    if (!is_told(w, bft_verify(w->f->db)) && told)
        wrong(w, "%s", "it was read, and bft_verify finds nothing");
    w->told += told;
    w->right += !told;
    expect_ok(bft_close(w->f->db));
    w->f->db = NULL;
}

/* --- damage ----------------------------------------------------------------- */

static struct bfti_file *page_file(const struct whole *w)
{
    struct bfti_file *file;
    char path[300];
    (void)snprintf(path, sizeof(path), "%s/data", w->f->path);
    expect_ok(w->f->vfs->ops->open(w->f->vfs, path, 0, &file));
    return file;
}

static bool is_empty(const uint8_t *grain, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (grain[i])
            return false;
    return true;
}

static void damage_grain(struct whole *w, struct bfti_file *file,
                         uint64_t grain)
{
    uint8_t bytes[BFTI_GRAIN], other;
    size_t got, at;
    expect_ok(file->ops->read(file, grain, bytes, sizeof(bytes), &got));
    if (is_empty(bytes, got))
        return;
    at = random_below((uint32_t)got);
    other = bytes[at] ^ (uint8_t)(1u << random_below(8));
    w->at = grain + at;
    expect_ok(file->ops->write(file, w->at, &other, 1));
    look(w);
    expect_ok(file->ops->write(file, w->at, &bytes[at], 1));
}

static void each_grain_is_told_or_of_no_account(const char *image)
{
    struct whole w;
    struct bfti_file *file;
    uint64_t size;
    whole_make(&w, image);
    file = page_file(&w);
    expect_ok(file->ops->size(file, &size));
    for (unsigned round = 0; round < ROUNDS; round++)
        for (uint64_t grain = 0; grain < size; grain += BFTI_GRAIN)
            damage_grain(&w, file, grain);
    file->ops->close(file);
    print_message("%s: %u refused, %u told by a read, %u right\n", image,
                  w.refused, w.told, w.right);
    assert_true(w.refused > 0 && w.told > 0);
    whole_free(&w);
}

static void damage_beside_deleted_ranges(void **state)
{
    (void)state;
    each_grain_is_told_or_of_no_account("ranges_format1.txt");
}

static void damage_in_shared_blocks(void **state)
{
    (void)state;
    each_grain_is_told_or_of_no_account("shared_format1.txt");
}

static void damage_in_lists(void **state)
{
    (void)state;
    each_grain_is_told_or_of_no_account("database_format1_lists.txt");
}

#if BFT_WITH_ZSTD
static void damage_in_compressed_pages(void **state)
{
    (void)state;
    each_grain_is_told_or_of_no_account("database_format1_zstd.txt");
}

static void damage_of_a_dictionary_and_what_needs_it(void **state)
{
    (void)state;
    each_grain_is_told_or_of_no_account("dictionary_format1.txt");
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damage_beside_deleted_ranges),
        cmocka_unit_test(damage_in_shared_blocks),
        cmocka_unit_test(damage_in_lists),
#if BFT_WITH_ZSTD
        cmocka_unit_test(damage_in_compressed_pages),
        cmocka_unit_test(damage_of_a_dictionary_and_what_needs_it),
#endif
    };
    (void)random_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
