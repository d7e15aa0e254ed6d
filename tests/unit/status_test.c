/* Outcomes and their texts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "bftree.h"
#include "fileio/fileio.h"

static void every_status_has_words_of_its_own(void **state)
{
    static const bft_status all[] = {
#define STATUS_NAME(name, number, text) BFT_##name,
        BFT_STATUS_MAP(STATUS_NAME)
#undef STATUS_NAME
    };
    enum { COUNT = sizeof(all) / sizeof(all[0]) };

    (void)state;
    for (size_t i = 0; i < COUNT; i++) {
        assert_true(strlen(bft_strerror(all[i])) > 0);
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(bft_strerror(all[i]), bft_strerror(all[j]));
    }
    assert_string_equal("success", bft_strerror(BFT_OK));
    assert_non_null(bft_strerror((bft_status)-1000));
    assert_non_null(bft_strerror((bft_status)1));
}

static void the_newest_text_is_kept_and_cut_to_the_buffer(void **state)
{
    char buf[8] = "xxxxxxx";

    (void)state;
    assert_int_equal(BFT_IO, bfti_fail(BFT_IO, "first"));
    assert_int_equal(BFT_CORRUPT,
                     bfti_fail(BFT_CORRUPT, "page %d of %s", 12, "a.bft"));
    assert_int_equal(16, bft_last_error(NULL, 0));
    assert_int_equal(16, bft_last_error(buf, sizeof(buf)));
    assert_string_equal("page 12", buf);
    assert_int_equal(16, bft_last_error(buf, 1));
    assert_string_equal("", buf);
    assert_int_equal(BFT_IO, bfti_fail(BFT_IO, "short"));
    assert_int_equal(5, bft_last_error(buf, sizeof(buf)));
    assert_string_equal("short", buf);
}

static void a_text_of_any_length_keeps_both_ends(void **state)
{
    static const size_t lengths[] = {900,  1000, 1005, 1006, 1007, 1008,
                                     1009, 1010, 4096, 7000, 19000};
    static char path[20000], buf[20000];

    (void)state;
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        size_t len;

        memset(path, 'p', lengths[i]);
        path[lengths[i]] = '\0';
        assert_int_equal(BFT_IO, bfti_fail(BFT_IO, "open %s: not there", path));
        len = bft_last_error(buf, sizeof(buf));
        assert_int_equal(len, strlen(buf));
        assert_true(len >= 900);
        assert_memory_equal("open pppp", buf, 9);
        if (lengths[i] < 8000) /* no path is longer */
            assert_string_equal("pppp: not there", buf + len - 15);
        if (lengths[i] < 1000)
            assert_int_equal(len, lengths[i] + 16);
    }
}

static void what_a_caller_knows_comes_before_the_rest(void **state)
{
    static char path[3000], buf[4000];
    size_t len;

    (void)state;
    (void)bfti_fail(BFT_CORRUPT, "%s: byte %d", "data", 512);
    assert_int_equal(BFT_CORRUPT,
                     bfti_fail_in(BFT_CORRUPT, "page %d of %s", 7, "birds"));
    len = bft_last_error(buf, sizeof(buf));
    assert_int_equal(len, strlen(buf));
    assert_string_equal("page 7 of birds: data: byte 512", buf);
    (void)bfti_fail_plain(BFT_CORRUPT, "a constant");
    (void)bfti_fail_in(BFT_CORRUPT, "here");
    (void)bfti_fail_in(BFT_CORRUPT, "there");
    bft_last_error(buf, sizeof(buf));
    assert_string_equal("there: here: a constant", buf);
    /* What is too long loses its middle. */
    memset(path, 'p', sizeof(path) - 1);
    (void)bfti_fail(BFT_CORRUPT, "%s: byte %d", path, 512);
    (void)bfti_fail_in(BFT_CORRUPT, "page %d of %s", 7, path);
    len = bft_last_error(buf, sizeof(buf));
    assert_int_equal(len, strlen(buf));
    assert_true(len >= 900);
    assert_memory_equal("page 7 of ppp", buf, 13);
    assert_string_equal("ppp: byte 512", buf + len - 13);
}

static void fail_elsewhere(void *arg)
{
    char buf[16];

    *(size_t *)arg = bft_last_error(buf, sizeof(buf));
    (void)bfti_fail(BFT_IO, "theirs");
}

static void each_thread_has_its_own_text(void **state)
{
    const struct bfti_env *env = bfti_env_system();
    struct bfti_thread *thread;
    size_t before = 1;
    char buf[16];

    (void)state;
    (void)bfti_fail(BFT_IO, "ours");
    assert_int_equal(
        BFT_OK, env->thread_start(env->ctx, fail_elsewhere, &before, &thread));
    env->thread_join(env->ctx, thread);
    assert_int_equal(0, before);
    assert_int_equal(4, bft_last_error(buf, sizeof(buf)));
    assert_string_equal("ours", buf);
}

static void the_version_is_that_of_the_header(void **state)
{
    (void)state;
    assert_string_equal(BFT_VERSION, bft_version());
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_status_has_words_of_its_own),
        cmocka_unit_test(the_newest_text_is_kept_and_cut_to_the_buffer),
        cmocka_unit_test(a_text_of_any_length_keeps_both_ends),
        cmocka_unit_test(what_a_caller_knows_comes_before_the_rest),
        cmocka_unit_test(each_thread_has_its_own_text),
        cmocka_unit_test(the_version_is_that_of_the_header),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
