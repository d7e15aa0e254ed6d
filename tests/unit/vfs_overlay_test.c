/* The layer in memory over files that are only read, against plain arrays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fileio/fileio.h"
#include "fileio/vfs_sim.h"
#include "random.h"

enum { BELOW = 50000, MAX = 120000, CHANGES = 3000 };

static uint8_t below[BELOW], now[MAX], buf[MAX];

struct fixture {
    struct bfti_vfs *lower, *over;
};

static struct fixture make(void)
{
    struct fixture f;
    struct bfti_file *file;
    f.lower = bfti_vfs_memory_create(bfti_env_system());
    assert_non_null(f.lower);
    assert_int_equal(BFT_OK, f.lower->ops->make_dir(f.lower, "/d"));
    assert_int_equal(
        BFT_OK, f.lower->ops->open(f.lower, "/d/a", BFTI_OPEN_CREATE, &file));
    random_bytes(below, BELOW);
    assert_int_equal(BFT_OK, file->ops->write(file, 0, below, BELOW));
    file->ops->close(file);
    assert_int_equal(BFT_OK, bfti_vfs_overlay_create(bfti_env_system(), f.lower,
                                                     "/d", &f.over));
    return f;
}

/* Below nothing has changed. */
static void end(struct fixture f)
{
    struct bfti_file *file;
    size_t got;
    bfti_vfs_overlay_destroy(f.over);
    assert_int_equal(BFT_OK, f.lower->ops->open(f.lower, "/d/a",
                                                BFTI_OPEN_READ_ONLY, &file));
    assert_int_equal(BFT_OK, file->ops->read(file, 0, buf, MAX, &got));
    assert_int_equal(BELOW, got);
    assert_memory_equal(below, buf, BELOW);
    file->ops->close(file);
    bfti_vfs_memory_destroy(f.lower);
}

static void a_file_holds_what_an_array_holds(void **state)
{
    (void)state;
    for (int run = 0; run < 10; run++) {
        struct fixture f = make();
        struct bfti_file *file;
        size_t size = BELOW;
        assert_int_equal(BFT_OK, f.over->ops->open(f.over, "/d/a", 0, &file));
        memset(now, 0, MAX);
        memcpy(now, below, BELOW);
        for (int i = 0; i < CHANGES; i++) {
            size_t at = random_below(size + 1000), len, got;
            uint64_t bytes;
            if (at > MAX - 20000)
                at = MAX - 20000;
            len = random_below(random_below(4) ? 5000 : 20000);
            switch (random_below(random_below(10) ? 4 : 5)) {
            case 0:
            case 1:
                random_bytes(buf, len);
                assert_int_equal(BFT_OK, file->ops->write(file, at, buf, len));
                memcpy(now + at, buf, len);
                if (len && at + len > size)
                    size = at + len;
                break;
            case 4:
                assert_int_equal(BFT_OK, file->ops->truncate(file, at));
                if (at < size)
                    memset(now + at, 0, size - at);
                size = at;
                break;
            default:
                assert_int_equal(BFT_OK,
                                 file->ops->read(file, at, buf, len, &got));
                assert_int_equal(at >= size        ? 0
                                 : size - at < len ? size - at
                                                   : len,
                                 got);
                assert_memory_equal(now + at, buf, got);
            }
            assert_int_equal(BFT_OK, file->ops->size(file, &bytes));
            assert_int_equal(size, bytes);
        }
        file->ops->close(file);
        end(f);
    }
}

static void note(void *arg, const char *name)
{
    *(unsigned *)arg |= 1u << (name[0] - 'a');
}

static unsigned names(struct fixture f)
{
    unsigned found = 0;
    assert_int_equal(BFT_OK, f.over->ops->list(f.over, "/d", note, &found));
    return found;
}

static void names_change_in_memory_only(void **state)
{
    struct fixture f = make();
    const struct bfti_vfs_ops *ops = f.over->ops;
    struct bfti_file *file, *old;
    uint64_t bytes;
    size_t got;
    (void)state;
    assert_int_equal(BFT_NOT_FOUND, ops->open(f.over, "/d/b", 0, &file));
    assert_int_equal(BFT_EXISTS,
                     ops->open(f.over, "/d/a",
                               BFTI_OPEN_CREATE | BFTI_OPEN_EXCLUSIVE, &file));
    assert_int_equal(BFT_OK, ops->rename(f.over, "/d/a", "/d/b"));
    assert_int_equal(2, names(f));
    assert_int_equal(BFT_NOT_FOUND, ops->open(f.over, "/d/a", 0, &file));
    assert_int_equal(BFT_OK,
                     ops->open(f.over, "/d/b", BFTI_OPEN_READ_ONLY, &old));
    assert_int_equal(BFT_READ_ONLY, ops->write(old, 0, "x", 1));
    assert_int_equal(BFT_READ_ONLY, ops->truncate(old, 0));
    assert_int_equal(BFT_OK,
                     ops->open(f.over, "/d/a", BFTI_OPEN_CREATE, &file));
    assert_int_equal(BFT_OK, ops->size(file, &bytes));
    assert_int_equal(0, bytes);
    assert_int_equal(BFT_OK, ops->rename(f.over, "/d/a", "/d/b"));
    assert_int_equal(2, names(f));
    /* Who has it open keeps what another file's name was given to. */
    assert_int_equal(BFT_OK, ops->read(old, 0, buf, 100, &got));
    assert_memory_equal(below, buf, 100);
    assert_int_equal(BFT_OK, ops->remove(f.over, "/d/b"));
    assert_int_equal(0, names(f));
    assert_int_equal(BFT_NOT_FOUND, ops->remove(f.over, "/d/b"));
    assert_int_equal(BFT_NOT_FOUND, ops->rename(f.over, "/d/b", "/d/c"));
    assert_int_equal(BFT_READ_ONLY, ops->make_dir(f.over, "/d/e"));
    ops->close(file);
    ops->close(old);
    end(f);
}

/* Of a file whose length was not told an opening fails, and the next one does not
 * find it empty. */
static void a_file_that_did_not_open_opens_later(void **state)
{
    struct bfti_sim_fault fault = {.ops = BFTI_SIM_QUERY,
                                   .path = "a",
                                   .nth = 1,
                                   .harm = BFTI_SIM_REFUSE,
                                   .status = BFT_IO};
    struct bfti_vfs *sim = bfti_vfs_sim_create(bfti_env_system(), 1), *over;
    struct bfti_file *file;
    uint64_t bytes;
    (void)state;
    assert_int_equal(BFT_OK, sim->ops->make_dir(sim, "/d"));
    assert_int_equal(BFT_OK,
                     sim->ops->open(sim, "/d/a", BFTI_OPEN_CREATE, &file));
    assert_int_equal(BFT_OK, file->ops->write(file, 0, "bytes", 5));
    file->ops->close(file);
    assert_int_equal(
        BFT_OK, bfti_vfs_overlay_create(bfti_env_system(), sim, "/d", &over));
    bfti_sim_fail(sim, &fault);
    assert_int_equal(BFT_IO, over->ops->open(over, "/d/a", 0, &file));
    assert_int_equal(BFT_OK, over->ops->open(over, "/d/a", 0, &file));
    assert_int_equal(BFT_OK, file->ops->size(file, &bytes));
    assert_int_equal(5, bytes);
    file->ops->close(file);
    bfti_vfs_overlay_destroy(over);
    bfti_vfs_sim_destroy(sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_holds_what_an_array_holds),
        cmocka_unit_test(names_change_in_memory_only),
        cmocka_unit_test(a_file_that_did_not_open_opens_later),
    };
    (void)random_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
