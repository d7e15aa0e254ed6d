#include "golden_image.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static unsigned hex_byte(const char *at)
{
    unsigned byte;
    assert_int_equal(1, sscanf(at, "%2x", &byte));
    return byte;
}

void golden_image_read(const char *image, const struct engine_fixture *f)
{
    const struct bfti_vfs_ops *ops = f->vfs->ops;
    char line[200], path[600], name[64];
    uint8_t bytes[GOLDEN_LINE_BYTES];
    struct bfti_file *out = NULL;
    size_t at, len;
    FILE *in = fopen(image, "r");
    assert_non_null(in);
    (void)ops->make_dir(f->vfs, f->path); /* it may be there */
    while (fgets(line, sizeof(line), in)) {
        char *text = strchr(line, ' ');
        assert_non_null(text);
        if (strlen(line) < 40 && sscanf(line, "%63s %zu", name, &len) == 2 &&
            (strcmp(name, "data") == 0 || strncmp(name, "log-", 4) == 0)) {
            if (out)
                ops->close(out);
            snprintf(path, sizeof(path), "%s/%s", f->path, name);
            expect_ok(ops->open(f->vfs, path, BFTI_OPEN_CREATE, &out));
            expect_ok(ops->truncate(out, len));
            continue;
        }
        assert_int_equal(1, sscanf(line, "%zx", &at));
        for (len = 0, text++; *text != '\n'; text += 2) {
            assert_true(len < sizeof(bytes));
            bytes[len++] = (uint8_t)hex_byte(text);
        }
        expect_ok(ops->write(out, at, bytes, len));
    }
    ops->close(out);
    (void)fclose(in);
}

enum { FILE_MAX = 2 << 20 };

/* Its name and length, then its lines. */
static void write_file(FILE *out, const char *dir, const char *name)
{
    static uint8_t bytes[FILE_MAX];
    static const uint8_t zeros[GOLDEN_LINE_BYTES];
    char path[600];
    size_t len;
    FILE *in;
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    in = fopen(path, "rb");
    assert_non_null(in);
    len = fread(bytes, 1, sizeof(bytes), in);
    assert_true(len < sizeof(bytes));
    (void)fclose(in);
    (void)fprintf(out, "%s %zu\n", name, len);
    for (size_t at = 0; at < len; at += GOLDEN_LINE_BYTES) {
        size_t some =
            len - at < GOLDEN_LINE_BYTES ? len - at : GOLDEN_LINE_BYTES;
        if (memcmp(bytes + at, zeros, some) == 0)
            continue;
        (void)fprintf(out, "%zx ", at);
        for (size_t i = 0; i < some; i++)
            (void)fprintf(out, "%02x", bytes[at + i]);
        (void)fprintf(out, "\n");
    }
}

void golden_image_write(const char *image, const struct engine_fixture *f)
{
    const struct dirent *entry;
    FILE *out = fopen(image, "w");
    DIR *dir = opendir(f->path);
    assert_true(out && dir);
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): one thread */
    while ((entry = readdir(dir)) != NULL)
        if (entry->d_name[0] != '.' && strcmp(entry->d_name, "lock") != 0)
            write_file(out, f->path, entry->d_name);
    (void)closedir(dir);
    assert_int_equal(0, fclose(out));
}

static void check_in(enum engine_backend backend, const char *image,
                     const struct golden_image *golden)
{
    struct engine_fixture *f = engine_fixture_make(backend);
    golden_image_read(image, f);
    f->options.must_exist = true;
    f->options.no_threads = true;
    golden->check(golden->ctx, f);
    engine_fixture_free(f);
}

void golden_image_test(const struct golden_image *golden)
{
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): one thread */
    const char *out = getenv("BFT_GOLDEN_OUT");
    char image[600];
    (void)snprintf(image, sizeof(image), "%s/%s",
                   out ? out : BFT_SOURCE_DIR "/tests/golden", golden->name);
    if (out)
        golden->write(golden->ctx, image);
    check_in(ENGINE_MEMORY, image, golden);
    if (BFT_WITH_THREADS)
        check_in(ENGINE_POSIX, image, golden);
}
