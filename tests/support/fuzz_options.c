/* Options with odd fields, of all structs that an open database takes. */
#include "bftree_feed.h"
#include "fuzz_inputs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fuzz.h"
#include "random.h"

enum { MEMORY_MAX = 16 << 20, SEGMENT_MAX = 8 << 20 };

static uint64_t odd_number(void)
{
    static const uint64_t odd[] = {
        1,    2,     101,    102,     511,     512,     1000,    4095,
        4096, 65536, 100000, 1 << 18, 1 << 20, 1 << 22, 5 << 20, SIZE_MAX};
    size_t i = random_below(2 * sizeof(odd) / sizeof(*odd));

    return i < sizeof(odd) / sizeof(*odd) ? odd[i]
                                          : random_next() >> random_below(64);
}

/* What the machine may not have is not asked for, unless it is refused. */
static uint64_t at_most(uint64_t v, uint64_t most, uint64_t refused)
{
    return v <= refused ? v % (most + 1) : v;
}

static void make_odd(bft_options *o)
{
    uint64_t v = odd_number();

    switch (random_below(12)) {
    case 0:
        o->size = random_below(2) ? (size_t)v : offsetof(bft_options, backend);
        break;
    case 1:
        o->storage = (bft_storage)(v % 7);
        break;
    case 2:
        o->durability = (bft_durability)(v % 9);
        break;
    case 3:
        o->memory_bytes = at_most(v, MEMORY_MAX, UINT64_C(1) << 40);
        break;
    case 4:
        o->log_bytes = v;
        break;
    case 5:
        o->log_segment_bytes = at_most(v, SEGMENT_MAX, UINT64_C(1) << 30);
        break;
    case 6:
        o->leaf_bytes = (uint32_t)v;
        break;
    case 7:
        o->promote_percent = (uint32_t)v;
        break;
    case 8:
        o->backend = (bft_backend)(v % 7);
        break;
    case 9:
        o->must_exist = v & 1;
        o->error_if_exists = v & 2;
        o->read_only = v & 4;
        break;
    default:
        o->no_threads = true;
        o->compress = true;
    }
}

/* Open with *O, in a block of as many bytes as it says to have. */
static bft_status open_with(const char *path, const bft_options *o, bft_db **db)
{
    size_t have = o->size < sizeof(*o) ? o->size : sizeof(*o);
    bft_options *exact;
    bft_status status;

    if (have < sizeof(o->size))
        have = sizeof(o->size);
    exact = malloc(have);
    assert_non_null(exact);
    memcpy(exact, o, have);
    *db = (bft_db *)exact;
    status = bft_open(path, exact, db);
    free(exact);
    fuzz_assert((status == BFT_OK) == (*db != NULL));
    return status;
}

/* Is it a cache-only database? */
static bool caches(bft_db *db)
{
    return bft_checkpoint(db) == BFT_UNSUPPORTED;
}

/* An odd tree, with a record or refused. */
static void open_tree(bft_db *db)
{
    bft_tree_options o = {.size = sizeof(o)};
    bft_tree *tree;
    uint8_t value[6000];
    bft_status status;

    if (random_below(2))
        o.leaf_bytes = (uint32_t)odd_number();
    if (random_below(4) == 1)
        o.ttl_ms = odd_number();
    if (random_below(8) == 1)
        o.size = (size_t)odd_number();
    o.must_exist = random_below(16) == 1;
    status = bft_tree_open(db, "odd", &o, &tree);
    fuzz_assert((status == BFT_OK) == (tree != NULL));
    fuzz_assert(status == BFT_OK || status == BFT_INVALID ||
                status == BFT_NOT_FOUND);
    random_bytes(value, sizeof(value));
    if (status != BFT_OK)
        return;
    status = bft_put(tree, (bft_slice){"k", 1},
                     (bft_slice){value, random_below(2) ? sizeof(value) : 10});
    if (status != BFT_TOO_BIG || !caches(db))
        expect_ok(status);
}

static void open_feed(bft_db *db)
{
    bft_feed_options o = {.size = sizeof(o)};
    bft_feed *feed;
    bft_status status;

    if (random_below(4) == 1)
        o.size = (size_t)odd_number();
    status = bft_feed_open(db, random_below(2) ? BFT_FEED_NOW : odd_number(),
                           &o, &feed);
    fuzz_assert((status == BFT_OK) == (feed != NULL));
    fuzz_assert(status == BFT_OK || status == BFT_INVALID ||
                status == BFT_GONE ||
                (status == BFT_UNSUPPORTED && caches(db)));
    bft_feed_close(feed);
}

static void use(bft_db *db)
{
    bft_tree *tree;

    expect_ok(bft_tree_open(db, "t", NULL, &tree));
    expect_ok(bft_put(tree, (bft_slice){"k", 1}, (bft_slice){"value", 5}));
    for (size_t n = random_below(4); n > 0; n--)
        open_tree(db);
    if (random_below(2))
        open_feed(db);
    expect_ok(bft_verify(db));
}

bft_status fuzz_options(void)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_MEMORY);
    bft_options first = f->options, second;
    bft_db *db, *again;
    bft_status status, other;

    f->surroundings.vfs = f->vfs;
    first.internal = &f->surroundings;
    second = first;
    for (size_t n = 1 + random_below(2); n > 0; n--)
        make_odd(&first);
    status = open_with(f->path, &first, &db);
    fuzz_assert(status == BFT_OK || status == BFT_INVALID ||
                (first.must_exist && status == BFT_NOT_FOUND) ||
                (first.read_only && status == BFT_NOT_FOUND));
    if (status == BFT_OK) {
        use(db);
        make_odd(&second);
        other = open_with(f->path, &second, &again);
        fuzz_assert(other == BFT_OK || other == BFT_INVALID ||
                    other == BFT_EXISTS || other == BFT_BUSY);
        if (other == BFT_OK)
            expect_ok(bft_close(again));
        expect_ok(bft_close(db));
    }
    engine_fixture_free(f);
    return status;
}
