/*
 * A stored database that was changed: opened, read, checked, written and salvaged,
 * each of which may say no.  With BFT_FUZZ_FORGED=1 checksums are not tested, so
 * that what lies behind them is come to: what a forger, and no damage, leaves.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fileio/fault.h"
#include "fileio/wal_internal.h"
#include "fuzz.h"
#include "golden_image.h"
#include "random.h"
#include "target.h"

enum { PIECES = 400, CHANGES = 16, STEPS = 60, LOG_PIECE = 200 };
#define SOURCE BFT_SOURCE_DIR "/tests/golden/database_format1.txt"

/* What a change is likely to be about. */
struct piece {
    char path[64];
    size_t at, len;
    bool frame;
};
static struct {
    struct engine_fixture *f; /* not open */
    struct piece piece[PIECES];
    unsigned pieces;
    char path[8][64];
    unsigned paths;
} base;

/* --- the base --------------------------------------------------------------- */

static void add_piece(const char *path, size_t at, size_t len, bool frame)
{
    struct piece *piece = &base.piece[base.pieces++];

    assert_true(base.pieces <= PIECES);
    snprintf(piece->path, sizeof(piece->path), "%s", path);
    piece->at = at;
    piece->len = len;
    piece->frame = frame;
}

static uint8_t *read_file(struct bfti_vfs *sim, const char *path, size_t *len)
{
    uint64_t bytes;
    uint8_t *buf;

    expect_ok(bfti_sim_size(sim, BFTI_SIM_CACHE, path, &bytes));
    buf = malloc((size_t)bytes + 1);
    assert_non_null(buf);
    expect_ok(
        bfti_sim_read(sim, BFTI_SIM_CACHE, path, 0, buf, (size_t)bytes, len));
    return buf;
}

static bool is_extent(const uint8_t *byte, size_t left, size_t *len)
{
    struct bfti_extent_header head;

    memcpy(&head, byte, sizeof(head));
    *len = le32_get(head.stored_len);
    return *len >= sizeof(head) && *len <= left &&
           bfti_crc32c(0, byte + sizeof(le32), *len - sizeof(le32)) ==
               le32_get(head.checksum);
}

static void find_extents(const char *path)
{
    size_t len, piece;
    uint8_t *byte = read_file(base.f->vfs, path, &len);

    for (size_t slot = 0; slot < 2; slot++)
        add_piece(path, slot * BFTI_BLOCK, BFTI_GRAIN, false);
    for (size_t at = (size_t)2 * BFTI_BLOCK; at + BFTI_GRAIN <= len;
         at += BFTI_GRAIN)
        if (is_extent(byte + at, len - at, &piece))
            add_piece(path, at, piece, false);
    free(byte);
}

static void find_frames(const char *path)
{
    struct wal_frame_header head;
    size_t len;
    uint8_t *byte = read_file(base.f->vfs, path, &len);

    for (size_t at = 0; at + sizeof(head) <= len; at += WAL_ALIGN) {
        memcpy(&head, byte + at, sizeof(head));
        if (le64_get(head.lsn) &&
            bfti_crc32c(0, byte + at + 4, sizeof(head) - 4) ==
                le32_get(head.checksum))
            add_piece(path, at, sizeof(head) + le32_get(head.len), true);
    }
    free(byte);
}

static void add_file(void *arg, const char *name)
{
    (void)arg;
    assert_true(base.paths < 8);
    if (strcmp(name, "lock") != 0)
        snprintf(base.path[base.paths++], 64, "%s/%s", base.f->path, name);
}

static void base_make(void)
{
    base.f = engine_fixture_make(ENGINE_SIM);
    golden_image_read(SOURCE, base.f);
    expect_ok(
        base.f->vfs->ops->list(base.f->vfs, base.f->path, add_file, NULL));
    for (unsigned i = 0; i < base.paths; i++)
        if (strstr(base.path[i], "/data"))
            find_extents(base.path[i]);
        else
            find_frames(base.path[i]);
    assert_true(base.pieces > 20);
}

/* --- changes ---------------------------------------------------------------- */

/* A frame is found by what its header says, so that is right again, and its
 * payload's checksum is not tested. */
static void seal_frame(uint8_t *byte)
{
    le32 sum =
        le32_of(bfti_crc32c(0, byte + 4, sizeof(struct wal_frame_header) - 4));

    memcpy(byte, &sum, sizeof(sum));
}

static void change_piece(struct bfti_vfs *sim)
{
    const struct piece *piece = &base.piece[random_below(base.pieces)];
    size_t at = random_below(2) ? random_below(64) : random_below(piece->len);
    uint8_t value[32], head[sizeof(struct wal_frame_header)];
    size_t len = 1 + random_below(8), got;
    struct bfti_file *file;

    if (at >= piece->len)
        at = piece->len - 1;
    if (len > piece->len - at)
        len = piece->len - at;
    random_bytes(value, len);
    expect_ok(sim->ops->open(sim, piece->path, 0, &file));
    expect_ok(file->ops->write(file, piece->at + at, value, len));
    if (piece->frame) {
        expect_ok(file->ops->read(file, piece->at, head, sizeof(head), &got));
        seal_frame(head);
        expect_ok(file->ops->write(file, piece->at, head, sizeof(head)));
    }
    file->ops->close(file);
}

static void change(struct bfti_vfs *sim)
{
    uint64_t bytes;
    const char *path;

    if (random_below(16) < 15) {
        change_piece(sim);
        return;
    }
    path = base.path[random_below(base.paths)];
    expect_ok(bfti_sim_size(sim, BFTI_SIM_CACHE, path, &bytes));
    expect_ok(bfti_sim_cut(sim, path, random_below((size_t)bytes + 1)));
}

/* --- what is done with it --------------------------------------------------- */

/* True when it was done. */
static bool may_refuse(bft_status status, const char *what)
{
    char text[400];

    if (status == BFT_OK || status == BFT_NOT_FOUND)
        return status == BFT_OK;
    (void)bft_last_error(text, sizeof(text));
    if (status != BFT_CORRUPT && status != BFT_TOO_NEW &&
        status != BFT_NO_MEMORY && status != BFT_TOO_BIG &&
        status != BFT_POISONED)
        fuzz_fail("%s: %d: %s", what, (int)status, text);
    return false;
}

static void walk(bft_tree *tree)
{
    bft_cursor *cursor;
    bft_slice key, value;
    bft_status status = bft_cursor_open(tree, &cursor);
    bool back = random_below(2);

    if (!may_refuse(status, "cursor"))
        return;
    for (unsigned i = 0; i < STEPS; i++) {
        status = back ? bft_cursor_prev(cursor) : bft_cursor_next(cursor);
        if (!may_refuse(status, "step"))
            break;
        if (may_refuse(bft_cursor_record(cursor, &key, &value), "record"))
            fuzz_assert(key.len > 0);
    }
    bft_cursor_close(cursor);
}

static void use_tree(bft_tree *tree)
{
    static char bytes[4000];
    void *value;
    size_t len;

    for (unsigned n = 0; n < 4; n++) {
        char text[32];
        bft_slice key = {text, (size_t)snprintf(text, sizeof(text), "%s%03u",
                                                n % 2 ? "a" : "", n * 7)};
        (void)may_refuse(bft_get_copy(tree, key, &value, &len), "get");
        bft_free(value);
        (void)may_refuse(
            bft_put(tree, key, (bft_slice){bytes, n == 3 ? sizeof(bytes) : 30}),
            "put");
    }
    walk(tree);
}

static void use(bft_db *db)
{
    static const char *const names[] = {"birds", "fish",  "emptied",
                                        "gone",  "moved", "renamed"};
    bft_tree_options options = {.size = sizeof(options), .must_exist = true};

    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        bft_tree *tree;
        if (may_refuse(bft_tree_open(db, names[i], &options, &tree), "tree"))
            use_tree(tree);
    }
    (void)may_refuse(bft_verify(db), "verify");
    (void)may_refuse(bft_tree_drop(db, "birds"), "drop");
    (void)may_refuse(bft_checkpoint(db), "checkpoint");
}

static void salvage(struct engine_fixture *f)
{
    bft_salvage_options options = {.size = sizeof(options),
                                   .database = &f->options};
    bft_salvage_report report = {.size = sizeof(report)};

    f->surroundings.vfs = f->vfs;
    f->options.internal = &f->surroundings;
    if (!may_refuse(bft_salvage(f->path, "/out", &options, &report), "salvage"))
        return;
    expect_ok(bft_open("/out", &f->options, &f->db));
    expect_ok(bft_verify(f->db));
    expect_ok(bft_close(f->db));
    f->db = NULL;
}

static void live(struct engine_fixture *f)
{
    if (may_refuse(engine_open_status(f), "open")) {
        use(f->db);
        (void)may_refuse(bft_close(f->db), "close");
    }
    f->db = NULL;
}

void target_run(const uint8_t *bytes, size_t len)
{
    struct engine_fixture *f;
    bool salvaged;

    (void)bytes;
    (void)len;
    if (!base.f)
        base_make();
    f = engine_fixture_make(ENGINE_SIM);
    bfti_vfs_sim_destroy(f->vfs);
    expect_ok(bfti_sim_image(base.f->vfs, BFTI_SIM_KEEP, 1, &f->vfs));
    snprintf(f->path, sizeof(f->path), "%s", base.f->path);
    f->options.no_threads = true;
    engine_seed(f, 1);
    salvaged = random_below(4) == 3;
    for (unsigned n = 0; n < CHANGES && random_left(); n++)
        change(f->vfs);
    if (getenv("BFT_FUZZ_FORGED"))
        atomic_store(&bfti_fault, BFTI_FAULT_BIT(BFTI_FAULT_FORGED) |
                                      BFTI_FAULT_BIT(BFTI_FAULT_TORN_FRAME));
    if (salvaged)
        salvage(f);
    else
        live(f);
    atomic_store(&bfti_fault, 0);
    atomic_store(&f->reported, 0);
    engine_fixture_free(f);
}
