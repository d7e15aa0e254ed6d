#include "crash_oracle.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "random.h"

/* --- items ----------------------------------------------------------------- */

static uint32_t item_of(const struct crash_oracle *o, unsigned tree,
                        unsigned key)
{
    assert(tree < CRASH_TREES && key <= o->keys);
    return tree * (o->keys + 1) + key;
}

static size_t items(const struct crash_oracle *o)
{
    return (size_t)CRASH_TREES * (o->keys + 1);
}

const char *crash_tree_name(unsigned tree)
{
    static const char *const name[CRASH_TREES] = {"ash", "birch", "cedar",
                                                  "dogwood"};
    return name[tree];
}

/* Spread over the tree, of 9 to 48 bytes, every second one of 16: frames of
 * one length are needed for one to lie where an older one did. */
bft_slice crash_key(unsigned key, uint8_t buf[CRASH_KEY_MAX])
{
    uint64_t bits = random_mix(key + 1);
    size_t len = key % 2 ? 16 : 9 + bits % 40;

    memset(buf, 'k', CRASH_KEY_MAX);
    for (int i = 0; i < 4; i++) {
        buf[i] = (uint8_t)(bits >> (8 * i));
        buf[4 + i] = (uint8_t)(key >> (8 * i));
    }
    return (bft_slice){buf, len};
}

unsigned crash_key_number(bft_slice key)
{
    const uint8_t *at = key.data;
    unsigned number = 0;

    for (int i = 0; key.len >= 8 && i < 4; i++)
        number |= (unsigned)at[4 + i] << (8 * i);
    return number;
}

/* The first eight bytes are unlike those of any other value. */
static void value_bytes(const struct crash_entry *e, uint8_t *buf, size_t len)
{
    uint64_t seed =
        random_mix(e->commit * 0x9e3779b97f4a7c15u ^ random_mix(e->salt) ^
                   random_mix(e->item + 77) << 1);

    for (size_t i = 0; i < len; i += 8) {
        uint64_t word = i ? random_mix(seed + i) : seed;
        memcpy(buf + i, &word, len - i < 8 ? len - i : 8);
    }
}

void crash_value(const struct crash_oracle *o, unsigned tree, unsigned key,
                 void *buf, size_t len)
{
    struct crash_entry e = {
        .commit = o->issued, .salt = o->salt, .item = item_of(o, tree, key)};
    value_bytes(&e, buf, len);
}

/* --- making ---------------------------------------------------------------- */

struct crash_oracle *crash_oracle_make(unsigned keys)
{
    struct crash_oracle *o = calloc(1, sizeof(*o));

    assert(o);
    o->keys = keys;
    o->last = malloc(items(o) * sizeof(*o->last));
    assert(o->last);
    for (size_t i = 0; i < items(o); i++)
        o->last[i] = -1;
    return o;
}

void crash_oracle_free(struct crash_oracle *o)
{
    free(o->entry);
    free(o->last);
    free(o);
}

struct crash_oracle *crash_oracle_cut(const struct crash_oracle *from,
                                      uint64_t cut)
{
    struct crash_oracle *o = crash_oracle_make(from->keys);

    while (o->count < from->count && from->entry[o->count].commit <= cut)
        o->count++;
    o->cap = o->count + 256;
    o->entry = malloc(o->cap * sizeof(*o->entry));
    assert(o->entry);
    if (o->count)
        memcpy(o->entry, from->entry, o->count * sizeof(*o->entry));
    for (size_t i = 0; i < o->count; i++)
        o->last[o->entry[i].item] = (int32_t)i;
    o->issued = o->buffered = o->synced = cut;
    o->salt = from->salt + 1; /* no ancestor has it */
    return o;
}

/* --- commits --------------------------------------------------------------- */

static void add(struct crash_oracle *o, uint32_t item, bool present, size_t len)
{
    struct crash_entry *e;

    if (o->count == o->cap) {
        o->cap = 2 * o->cap + 256;
        o->entry = realloc(o->entry, o->cap * sizeof(*o->entry));
        assert(o->entry);
    }
    e = &o->entry[o->count];
    *e = (struct crash_entry){.commit = o->issued,
                              .salt = o->salt,
                              .before = o->last[item],
                              .item = item,
                              .len = (uint32_t)len,
                              .present = present};
    o->last[item] = (int32_t)o->count++;
}

static bool is_present(const struct crash_oracle *o, uint32_t item)
{
    return o->last[item] >= 0 && o->entry[o->last[item]].present;
}

void crash_begin(struct crash_oracle *o)
{
    atomic_fetch_add(&o->issued, 1);
}

void crash_put(struct crash_oracle *o, unsigned tree, unsigned key, size_t len)
{
    add(o, item_of(o, tree, key), true, len);
}

void crash_delete(struct crash_oracle *o, unsigned tree, unsigned key)
{
    add(o, item_of(o, tree, key), false, 0);
}

void crash_create_tree(struct crash_oracle *o, unsigned tree)
{
    add(o, item_of(o, tree, o->keys), true, 0);
}

void crash_drop_tree(struct crash_oracle *o, unsigned tree)
{
    for (unsigned key = 0; key <= o->keys; key++)
        if (is_present(o, item_of(o, tree, key)))
            add(o, item_of(o, tree, key), false, 0);
}

void crash_truncate_tree(struct crash_oracle *o, unsigned tree)
{
    for (unsigned key = 0; key < o->keys; key++)
        if (is_present(o, item_of(o, tree, key)))
            add(o, item_of(o, tree, key), false, 0);
}

void crash_acknowledge(struct crash_oracle *o, bft_durability durability)
{
    if (durability == BFT_SYNC)
        atomic_store(&o->synced, o->issued);
    if (durability >= BFT_BUFFERED)
        atomic_store(&o->buffered, o->issued);
}

bool crash_has(const struct crash_oracle *o, unsigned tree, unsigned key)
{
    return is_present(o, item_of(o, tree, key));
}

bool crash_has_tree(const struct crash_oracle *o, unsigned tree)
{
    return crash_has(o, tree, o->keys);
}

/* --- what is found --------------------------------------------------------- */

struct check {
    const struct crash_oracle *oracle;
    uint64_t issued;
    int32_t *agree; /* [commit]: items that are as after it; at first, steps */
    uint64_t *from, *to; /* [item]: the newest stretch where it agrees */
    uint8_t *made;
    char *text;
    size_t text_len;
};

static void describe(const struct check *c, uint32_t item, char *buf,
                     size_t len)
{
    unsigned keys = c->oracle->keys;
    if (item % (keys + 1) == keys)
        snprintf(buf, len, "tree %s", crash_tree_name(item / (keys + 1)));
    else
        snprintf(buf, len, "key %u of tree %s", item % (keys + 1),
                 crash_tree_name(item / (keys + 1)));
}

static bool matches(const struct check *c, const struct crash_entry *e,
                    bool present, const uint8_t *value, size_t len)
{
    uint8_t head[8];
    size_t some = len < 8 ? len : 8;

    if (e->present != present || (present && e->len != len))
        return false;
    if (!present || len == 0)
        return true;
    value_bytes(e, head, some);
    if (memcmp(head, value, some) != 0)
        return false;
    value_bytes(e, c->made, len);
    return memcmp(c->made, value, len) == 0;
}

/* ITEM was found so: note after which commits it is. */
static bool note(struct check *c, uint32_t item, bool present,
                 const uint8_t *value, size_t len)
{
    const struct crash_oracle *o = c->oracle;
    uint64_t to = c->issued;
    bool any = false, end = false;
    char what[80];

    for (int32_t i = o->last[item]; !end; i = o->entry[i].before) {
        const struct crash_entry none = {.present = false};
        const struct crash_entry *e = i >= 0 ? &o->entry[i] : &none;

        end = i < 0;
        if (e->commit > to)
            continue; /* later than the crash, or changed again by it */
        if (matches(c, e, present, value, len)) {
            c->agree[e->commit]++;
            c->agree[to + 1]--;
            if (!any) {
                c->from[item] = e->commit;
                c->to[item] = to;
            }
            any = true;
        }
        if (e->commit == 0)
            break;
        to = e->commit - 1;
    }
    if (any)
        return true;
    describe(c, item, what, sizeof(what));
    snprintf(c->text, c->text_len, "%s is as after no commit: %s, %zu bytes",
             what, present ? "there" : "not there", len);
    return false;
}

static bool read_fails(struct check *c, uint32_t item, bft_status status)
{
    char what[80], why[300];

    describe(c, item, what, sizeof(what));
    bft_last_error(why, sizeof(why));
    snprintf(c->text, c->text_len, "%s cannot be read: %d: %s", what,
             (int)status, why);
    return false;
}

/* A walk shows the FOUND keys that were asked for, and none besides. */
static bool walk_tree(struct check *c, bft_tree *tree, unsigned t, size_t found)
{
    size_t shown = 0;
    bft_cursor *cursor;
    bft_status status = bft_cursor_open(tree, &cursor);

    if (status != BFT_OK)
        return read_fails(c, item_of(c->oracle, t, c->oracle->keys), status);
    while ((status = bft_cursor_next(cursor)) == BFT_OK) {
        uint8_t buf[CRASH_KEY_MAX];
        bft_slice key;
        unsigned k;

        status = bft_cursor_key(cursor, &key);
        if (status != BFT_OK)
            break;
        shown++;
        k = crash_key_number(key);
        if (k < c->oracle->keys && crash_key(k, buf).len == key.len &&
            memcmp(buf, key.data, key.len) == 0)
            continue;
        snprintf(c->text, c->text_len, "tree %s has a key of nobody's",
                 crash_tree_name(t));
        bft_cursor_close(cursor);
        return false;
    }
    bft_cursor_close(cursor);
    if (status != BFT_NOT_FOUND)
        return read_fails(c, item_of(c->oracle, t, c->oracle->keys), status);
    if (shown == found)
        return true;
    snprintf(c->text, c->text_len,
             "tree %s: a walk shows %zu keys, gets find %zu",
             crash_tree_name(t), shown, found);
    return false;
}

static bool check_tree(struct check *c, bft_db *db, unsigned t)
{
    const struct crash_oracle *o = c->oracle;
    bft_tree_options must_exist = {.size = sizeof(must_exist),
                                   .must_exist = true};
    size_t found = 0;
    bft_tree *tree;
    bft_status status =
        bft_tree_open(db, crash_tree_name(t), &must_exist, &tree);

    if (status != BFT_OK && status != BFT_NOT_FOUND)
        return read_fails(c, item_of(o, t, o->keys), status);
    if (!note(c, item_of(o, t, o->keys), tree != NULL, NULL, 0))
        return false;
    for (unsigned k = 0; k < o->keys; k++) {
        uint8_t buf[CRASH_KEY_MAX];
        void *value = NULL;
        size_t len = 0;
        bool fine;

        status = tree ? bft_get_copy(tree, crash_key(k, buf), &value, &len)
                      : BFT_NOT_FOUND;
        if (status != BFT_OK && status != BFT_NOT_FOUND)
            return read_fails(c, item_of(o, t, k), status);
        fine = note(c, item_of(o, t, k), status == BFT_OK, value, len);
        bft_free(value);
        if (!fine)
            return false;
        found += status == BFT_OK;
    }
    return !tree || walk_tree(c, tree, t, found);
}

/* All items agree on some commits? */
static bool conclude(struct check *c, uint64_t must, uint64_t *cut)
{
    const struct crash_oracle *o = c->oracle;
    int32_t sum = 0, best = -1;
    bool any = false;
    char what[80];

    *cut = 0;
    for (uint64_t n = 0; n <= c->issued; n++) {
        sum += c->agree[n];
        if ((size_t)sum == items(o)) {
            any = true;
            *cut = n;
        } else if (!any && sum > best) {
            best = sum;
            *cut = n;
        }
    }
    if (any && *cut >= must)
        return true;
    if (any) {
        snprintf(c->text, c->text_len,
                 "the state after commit %llu was found, %llu was "
                 "acknowledged, %llu begun",
                 (unsigned long long)*cut, (unsigned long long)must,
                 (unsigned long long)c->issued);
        return false;
    }
    for (uint32_t i = 0; i < items(o); i++) {
        if (c->from[i] <= *cut && *cut <= c->to[i])
            continue;
        describe(c, i, what, sizeof(what));
        snprintf(c->text, c->text_len,
                 "no prefix of the commits: as after commit %llu (of %llu, "
                 "%llu acknowledged) but for %zu items: %s is as after %llu "
                 "to %llu",
                 (unsigned long long)*cut, (unsigned long long)c->issued,
                 (unsigned long long)must, items(o) - (size_t)best, what,
                 (unsigned long long)c->from[i], (unsigned long long)c->to[i]);
        break;
    }
    return false;
}

static size_t longest(const struct crash_oracle *o)
{
    size_t len = 0;
    for (size_t i = 0; i < o->count; i++)
        len = o->entry[i].len > len ? o->entry[i].len : len;
    return len;
}

bool crash_check(const struct crash_oracle *o, bft_db *db, uint64_t must,
                 uint64_t issued, uint64_t *cut, char *text, size_t text_len)
{
    struct check c = {
        .oracle = o, .issued = issued, .text = text, .text_len = text_len};
    bool fine = true;

    c.agree = calloc((size_t)issued + 2, sizeof(*c.agree));
    c.from = calloc(items(o), sizeof(*c.from));
    c.to = calloc(items(o), sizeof(*c.to));
    c.made = malloc(longest(o) + 8);
    assert(c.agree && c.from && c.to && c.made);
    for (unsigned t = 0; fine && t < CRASH_TREES; t++)
        fine = check_tree(&c, db, t);
    fine = fine && conclude(&c, must, cut);
    free(c.agree);
    free(c.from);
    free(c.to);
    free(c.made);
    return fine;
}
