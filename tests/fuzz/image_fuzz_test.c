/*
 * Damaged files: whatever happens to the bytes of a page file, a superblock or
 * a segment of the log, every read gives what was written or says BFT_CORRUPT
 * with the place.  The log may have lost its end, where nothing tells that it
 * had been durable; a prefix of the commits remains then, and no damage is told.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bftree_backup.h"
#include "fileio/wal_internal.h"
#include "fuzz.h"
#include "fuzz_history.h"
#include "random.h"
#include "sim_fixture.h"
#include "tally.h"
#include "told_place.h"

enum { BASES = 4, ROUNDS = 60, FILES_MAX = 24, FRAMES_MAX = 4000 };

/* One base, its files as they are and as they were before the tail. */
struct file {
    char path[64];
    uint64_t first; /* of a segment: its first position in the log */
    bool segment;
    uint8_t *clean, *earlier;
    size_t len, earlier_len;
};

struct frame {
    uint64_t lsn, covered, end, mark;
};

struct base {
    struct history *h;
    struct file file[FILES_MAX];
    unsigned files, data; /* DATA: which of them is the page file */
    struct frame frame[FRAMES_MAX];
    size_t frames;
    struct bfti_superblock newest;
    unsigned newest_slot;
};
static struct base *bases[BASES];

static struct {
    unsigned opened, refused, reads_refused, verify_refused, second_lives;
    unsigned told_log, lost; /* what was to be expected of damaged logs */
    unsigned salvaged, salvaged_blindly; /* with the map, and without */
} reached;

/* --- a base --------------------------------------------------------------- */

static void add_file(void *arg, const char *name)
{
    struct base *base = arg;
    struct file *file = &base->file[base->files];

    if (strcmp(name, "lock") == 0)
        return;
    assert_in_range(base->files, 0, FILES_MAX - 1);
    snprintf(file->path, sizeof(file->path), "/db/%s", name);
    file->segment = bfti_wal_parse_name(name, &file->first);
    if (strcmp(name, "data") == 0)
        base->data = base->files;
    base->files++;
}

static int by_first(const void *a, const void *b)
{
    const struct file *x = a, *y = b;
    return (x->first > y->first) - (x->first < y->first);
}

static bft_status add_frame(void *arg, uint64_t lsn, uint8_t type,
                            const void *payload, size_t len)
{
    struct base *base = arg;
    (void)type;
    (void)payload;
    assert_in_range(base->frames, 0, FRAMES_MAX - 1);
    base->frame[base->frames++] = (struct frame){
        .lsn = lsn,
        .covered = lsn + BFTI_FRAME_HEADER + len,
        .end = lsn + wal_frame_bytes(len),
    };
    return BFT_OK;
}

/* The byte of the log at POSITION, of FILES' clean or BYTES' damaged contents;
 * 0 where there is none. */
static uint8_t log_byte(const struct base *base, const struct file *changed,
                        const struct fuzz_bytes *bytes, uint64_t position)
{
    uint64_t segment = base->newest.log_segment_bytes;

    for (unsigned i = 0; i < base->files; i++) {
        const struct file *file = &base->file[i];
        size_t at = (size_t)(position - file->first);
        if (!file->segment || position < file->first ||
            position - file->first >= segment)
            continue;
        if (file == changed)
            return at < bytes->len ? bytes->byte[at] : 0;
        return at < file->len ? file->clean[at] : 0;
    }
    return 0;
}

static void read_superblock(struct base *base)
{
    struct bfti_pagefile_options options = {
        .env = bfti_env_system(), .vfs = base->h->image, .path = "/db/data"};
    struct bfti_superblock slot[2];
    bft_status verdict[2];
    struct bfti_pagefile *pf;

    expect_ok(bfti_pagefile_open(&options, &pf));
    expect_ok(bfti_superblock_read(pf, slot, verdict));
    bfti_pagefile_close(pf);
    expect_ok(verdict[0]);
    expect_ok(verdict[1]);
    base->newest_slot = slot[1].sequence > slot[0].sequence ||
                        (slot[1].sequence == slot[0].sequence &&
                         slot[1].incarnation > slot[0].incarnation);
    base->newest = slot[base->newest_slot];
}

static void read_frames(struct base *base)
{
    struct bfti_wal_options log = {
        .env = bfti_env_system(),
        .vfs = base->h->image,
        .dir = "/db",
        .segment_bytes = base->newest.log_segment_bytes,
    };
    struct bfti_wal_found found;

    expect_ok(bfti_wal_scan(&log, base->newest.redo_lsn,
                            base->newest.durable_mark, add_frame, base,
                            &found));
    for (size_t i = 0; i < base->frames; i++) {
        struct frame *frame = &base->frame[i];
        uint8_t mark[8];
        le64 number;
        for (unsigned j = 0; j < 8; j++)
            mark[j] = log_byte(base, NULL, NULL,
                               frame->lsn + j +
                                   offsetof(struct wal_frame_header, mark));
        memcpy(&number, mark, 8);
        frame->mark = le64_get(number);
    }
}

static struct base *base_make(void)
{
    struct base *base = calloc(1, sizeof(*base));
    const bft_stats *stats;

    assert_non_null(base);
    base->h = history_make();
    expect_ok(base->h->image->ops->list(base->h->image, "/db", add_file, base));
    qsort(base->file, base->files, sizeof(*base->file), by_first);
    for (unsigned i = 0; i < base->files; i++) {
        struct file *file = &base->file[i];
        file->clean = sim_contents(base->h->image, file->path, &file->len);
        file->earlier =
            sim_contents(base->h->earlier, file->path, &file->earlier_len);
        if (strcmp(file->path, "/db/data") == 0)
            base->data = i;
    }
    read_superblock(base);
    read_frames(base);
    stats = &base->h->stats;
    assert_true(stats->deltas > 0 && stats->splits > 50);
    assert_true(stats->checkpoints >= 2 && base->frames >= 50);
    return base;
}

static void base_free(struct base *base)
{
    for (unsigned i = 0; i < base->files; i++) {
        free(base->file[i].clean);
        free(base->file[i].earlier);
    }
    history_free(base->h);
    free(base);
}

static int bases_make(void **state)
{
    (void)state;
    for (unsigned i = 0; i < BASES; i++)
        bases[i] = base_make();
    return 0;
}

static int bases_free(void **state)
{
    (void)state;
    for (unsigned i = 0; i < BASES && bases[i]; i++)
        base_free(bases[i]);
    return 0;
}

/* --- what may be seen ----------------------------------------------------- */

/* What an opening of the damaged image may say and show. */
struct verdict {
    bool may_open, may_refuse;
    bool exact;    /* what opens is without fault: every read and verify too */
    uint64_t upto; /* it holds the commits up to here */
};

static bool is_damaged(const struct base *base, const struct file *changed,
                       const struct fuzz_bytes *bytes, uint64_t from,
                       uint64_t to)
{
    for (; from < to; from++)
        if (log_byte(base, changed, bytes, from) !=
            log_byte(base, NULL, NULL, from))
            return true;
    return false;
}

/* Damage in place to one segment is told exactly when something that is left
 * says that the log was durable past it. */
static struct verdict judge_log(const struct base *base,
                                const struct file *changed,
                                const struct fuzz_bytes *bytes)
{
    uint64_t durable = base->newest.durable_mark;
    size_t i = 0, first;

    while (i < base->frames &&
           !is_damaged(base, changed, bytes, base->frame[i].lsn,
                       base->frame[i].covered))
        i++;
    if (i == base->frames)
        return (struct verdict){true, false, true, UINT64_MAX};
    for (first = i; i < base->frames; i++)
        if (!is_damaged(base, changed, bytes, base->frame[i].lsn,
                        base->frame[i].lsn + BFTI_FRAME_HEADER) &&
            base->frame[i].mark > durable)
            durable = base->frame[i].mark;
    if (durable > base->frame[first].lsn)
        return (struct verdict){false, true, true, 0};
    return (struct verdict){true, false, true, base->frame[first].lsn};
}

/* The text names a file of the database, the byte, and the page or what else; or,
 * behind the drop of a tree whose leaf was damaged, how much space is lost. */
static void expect_place(void)
{
    char text[512];

    bft_last_error(text, sizeof(text));
    if (told_place_lacks(text) && !strstr(text, "nothing leads to them"))
        fuzz_fail("the text names %s: \"%s\"", told_place_lacks(text), text);
}

/* BFT_OK, or what damage may be told as.  True when it was told. */
static bool told(bft_status status)
{
    char text[512];

    if (status == BFT_OK)
        return false;
    bft_last_error(text, sizeof(text));
    if (status != BFT_CORRUPT)
        fuzz_fail("damage was told as %d: %s", (int)status, text);
    expect_place();
    return true;
}

static bool tree_is_right(bft_tree *tree, unsigned t,
                          const struct model_map *map)
{
    unsigned refused = 0;

    for (unsigned i = 0; i < HISTORY_KEYS; i++) {
        char buf[32];
        bft_slice key = history_key(t, i, buf);
        const struct model_value *want = model_map_get(map, key);
        void *value;
        size_t len;
        bft_status status = bft_get_copy(tree, key, &value, &len);
        if (status == BFT_NOT_FOUND) {
            if (want)
                fuzz_fail("key %u of %s is lost", i, history_tree[t]);
        } else if (told(status)) {
            refused++;
        } else if (!want) {
            fuzz_fail("key %u of %s came back", i, history_tree[t]);
        } else if (len != want->len || !model_value_is(*want, 0, value, len)) {
            fuzz_fail("key %u of %s has a wrong value", i, history_tree[t]);
        }
        bft_free(value);
    }
    reached.reads_refused += refused;
    return refused == 0;
}

/* Walk TREE: the records of MAP, in order, until damage is told. */
static bool walk_is_right(bft_tree *tree, const struct model_map *map)
{
    bft_cursor *cursor;
    bft_status status;
    bool whole = true;
    size_t i = 0;

    expect_ok(bft_cursor_open(tree, &cursor));
    while ((status = bft_cursor_next(cursor)) == BFT_OK) {
        bft_slice key, value;
        fuzz_assert(i < map->count);
        expect_ok(bft_cursor_key(cursor, &key));
        fuzz_assert(key.len == map->record[i].key_len &&
                    memcmp(key.data, map->record[i].key, key.len) == 0);
        if (told(bft_cursor_value(cursor, &value)))
            whole = false;
        else
            fuzz_assert(
                value.len == map->record[i].value.len &&
                model_value_is(map->record[i].value, 0, value.data, value.len));
        i++;
    }
    if (status == BFT_NOT_FOUND)
        fuzz_assert(i == map->count);
    else
        whole = !told(status) && whole;
    bft_cursor_close(cursor);
    return whole;
}

/* Every tree against STATE.  True: nothing was refused. */
static bool database_is_right(struct engine_fixture *f,
                              const struct history_state *state)
{
    bft_tree_options options = {.size = sizeof(options), .must_exist = true};
    bool whole = true;

    for (unsigned t = 0; t < HISTORY_TREES; t++) {
        bft_tree *tree;
        bft_status status =
            bft_tree_open(f->db, history_tree[t], &options, &tree);
        if (!state->there[t]) {
            fuzz_assert(status == BFT_NOT_FOUND);
            continue;
        }
        fuzz_assert(status == BFT_OK);
        whole = tree_is_right(tree, t, &state->map[t]) && whole;
        whole = walk_is_right(tree, &state->map[t]) && whole;
    }
    return whole;
}

/* --- lives ---------------------------------------------------------------- */

/* Change a few records, of which some may be refused. */
static void live_on(struct engine_fixture *f, struct history_state *state)
{
    for (unsigned n = 0; n < 40; n++) {
        unsigned t = (unsigned)random_below(2);
        struct model_value value = {random_next(), random_below(60)};
        char buf[32], bytes[64];
        bft_slice key =
            history_key(t, (unsigned)random_below(HISTORY_KEYS), buf);
        bft_tree *tree = engine_tree(f, history_tree[t], 0);
        if (!state->there[t])
            state->there[t] = true;
        model_value_bytes(value, 0, bytes, sizeof(bytes));
        if (!told(bft_put(tree, key, (bft_slice){bytes, value.len})))
            model_map_put(&state->map[t], key, value);
    }
}

static void expect_no_memory(const struct engine_fixture *f)
{
    char text[512];

    if (!f->memory)
        return;
    bft_last_error(text, sizeof(text));
    fuzz_fail("memory was lost: \"%s\"", text);
}

static void close_damaged(struct engine_fixture *f)
{
    (void)told(bft_close(f->db));
    f->db = NULL;
    atomic_store(&f->reported, 0);
    expect_no_memory(f);
}

/* Open the file system of F, and look at all there is. */
static void look(struct engine_fixture *f, const struct verdict *verdict,
                 struct history_state *state)
{
    bool whole, sound;
    bft_status status = engine_open_status(f);

    if (told(status)) {
        fuzz_assert(verdict->may_refuse);
        reached.refused++;
        expect_no_memory(f);
        return;
    }
    fuzz_assert(verdict->may_open);
    reached.opened++;
    sound = random_below(2) && !told(bft_verify(f->db));
    whole = database_is_right(f, state);
    if (sound && !whole)
        fuzz_fail("verify found nothing");
    sound = !told(bft_verify(f->db));
    if (sound && !whole)
        fuzz_fail("verify found nothing after all was read");
    reached.verify_refused += !sound;
    if (verdict->exact && !(whole && sound))
        fuzz_fail("there was no damage left, and some was told");
    if (random_below(2)) {
        struct verdict again = *verdict;
        live_on(f, state);
        close_damaged(f);
        again.may_refuse = !verdict->exact;
        reached.second_lives++;
        status = engine_open_status(f);
        if (told(status)) {
            fuzz_assert(again.may_refuse);
            return;
        }
        (void)database_is_right(f, state);
    }
    close_damaged(f);
}

/* Salvage goes through whatever is there, and makes a sound database of it: the
 * very one, where the damage leaves no doubt. */
static void salvage(const struct base *base, struct bfti_vfs *damaged,
                    const struct verdict *verdict)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    bft_salvage_options options = {.size = sizeof(options),
                                   .old = (bft_salvage_old)random_below(3),
                                   .database = &f->options};
    bft_salvage_report report = {.size = sizeof(report)};
    struct history_state state;
    bft_status status;

    bfti_vfs_sim_destroy(f->vfs);
    expect_ok(bfti_sim_image(damaged, BFTI_SIM_KEEP, 1, &f->vfs));
    f->options.no_threads = true;
    f->surroundings.vfs = f->vfs;
    f->options.internal = &f->surroundings;
    snprintf(f->path, sizeof(f->path), "/out");
    status = bft_salvage("/db", f->path, &options, &report);
    expect_no_memory(f);
    if (status != BFT_TOO_NEW) {
        fuzz_assert(status == BFT_OK);
        engine_open(f);
        expect_ok(bft_verify(f->db));
        history_state_at(base->h, verdict->upto, &state);
        if (verdict->exact && !verdict->may_refuse)
            fuzz_assert(database_is_right(f, &state));
        history_state_clear(&state);
        reached.salvaged += report.map_read;
        reached.salvaged_blindly += !report.map_read;
    }
    engine_fixture_free(f);
}

static void run(const struct base *base, struct bfti_vfs *damaged,
                const struct verdict *verdict)
{
    struct engine_fixture *f = engine_fixture_make(ENGINE_SIM);
    struct history_state state;

    if (random_below(2))
        salvage(base, damaged, verdict);

    bfti_vfs_sim_destroy(f->vfs);
    f->vfs = damaged;
    f->options.no_threads = true;
    history_state_at(base->h, verdict->upto, &state);
    look(f, verdict, &state);
    history_state_clear(&state);
    atomic_store(&f->reported, 0);
    engine_fixture_free(f);
}

/* --- damage --------------------------------------------------------------- */

static struct bfti_vfs *copy_of(const struct base *base)
{
    struct bfti_vfs *copy;
    expect_ok(bfti_sim_image(base->h->image, BFTI_SIM_KEEP, 1, &copy));
    return copy;
}

/* Bring back, of a piece of FILE, what it was before the tail: a write that
 * was said to be done, and never was. */
static void lose_write(const struct file *file, struct fuzz_bytes *bytes,
                       size_t grain)
{
    size_t at = random_below(bytes->len / grain + 1) * grain;
    size_t len = grain << random_below(5);

    if (!file->earlier || at >= file->earlier_len || at >= bytes->len)
        return;
    if (len > bytes->len - at)
        len = bytes->len - at;
    if (len > file->earlier_len - at)
        len = file->earlier_len - at;
    memcpy(bytes->byte + at, file->earlier + at, len);
    fuzz_say(" %zu bytes at %zu were never written", len, at);
}

static struct fuzz_bytes bytes_of(const struct file *file)
{
    struct fuzz_bytes bytes = {NULL, file->len, file->len + 65536};

    bytes.byte = malloc(bytes.cap);
    assert_non_null(bytes.byte);
    memcpy(bytes.byte, file->clean, file->len);
    return bytes;
}

static void harm(const struct file *file, struct fuzz_bytes *bytes, size_t from,
                 size_t grain)
{
    for (size_t n = random_below(3) ? 1 : 1 + random_below(12); n > 0; n--)
        if (random_below(8) == 0)
            lose_write(file, bytes, grain);
        else
            fuzz_harm(bytes, from, grain);
}

/* Only the bytes FROM to TO; what a cut takes off becomes zeros. */
static void harm_within(const struct fuzz_bytes *bytes, size_t from, size_t to)
{
    struct fuzz_bytes window = {bytes->byte + from, to - from, to - from};

    fuzz_say(" from %zu on:", from);
    for (size_t n = random_below(3) ? 1 : 1 + random_below(6); n > 0; n--)
        fuzz_harm(&window, 0, BFTI_GRAIN);
    memset(window.byte + window.len, 0, window.cap - window.len);
}

/* Does recovery want it whole? */
static bool is_of_redo(const struct base *base, const struct file *file)
{
    return file->first + base->newest.log_segment_bytes > base->newest.redo_lsn;
}

static bool is_read(const struct base *base, const struct file *file)
{
    return file->first < base->frame[base->frames - 1].end &&
           file->first + file->len > base->newest.redo_lsn;
}

/* Mostly the part of a segment that recovery will read. */
static void harm_segment(const struct base *base, const struct file *file,
                         struct fuzz_bytes *bytes)
{
    uint64_t from = base->newest.redo_lsn;
    uint64_t to = base->frame[base->frames - 1].end;

    if (from < file->first)
        from = file->first;
    if (to > file->first + file->len)
        to = file->first + file->len;
    if (random_below(4) && from < to)
        harm_within(bytes, (size_t)(from - file->first),
                    (size_t)(to - file->first));
    else
        harm(file, bytes, 0, BFTI_GRAIN);
}

static void put(struct bfti_vfs *sim, const struct file *file,
                const struct fuzz_bytes *bytes)
{
    expect_ok(bfti_sim_put(sim, file->path, bytes->byte, bytes->len));
}

static void print_reached(void)
{
    printf("opened %u (then %u reads and %u verifies refused, %u lived on), "
           "refused %u; of logs %u were to be told, %u lost their end; "
           "salvaged %u, %u without a map\n",
           reached.opened, reached.reads_refused, reached.verify_refused,
           reached.second_lives, reached.refused, reached.told_log,
           reached.lost, reached.salvaged, reached.salvaged_blindly);
    tally(TALLY_DAMAGED, reached.opened + reached.refused);
}

/* --- the tests ------------------------------------------------------------ */

/* Without damage everything is there: the checks below judge damage only. */
static void nothing_is_lost_without_damage(void **state)
{
    const struct verdict all = {true, false, true, UINT64_MAX};

    (void)state;
    for (unsigned round = 0; fuzz_next(&round, BASES, 1);)
        run(bases[(round - 1) % BASES], copy_of(bases[(round - 1) % BASES]),
            &all);
    memset(&reached, 0, sizeof(reached));
}

static void a_damaged_page_file_is_right_or_corrupt(void **state)
{
    const struct verdict any = {true, true, false, UINT64_MAX};

    (void)state;
    memset(&reached, 0, sizeof(reached));
    for (unsigned round = 0; fuzz_next(&round, 3 * ROUNDS, 2);) {
        const struct base *base = bases[random_below(BASES)];
        const struct file *file = &base->file[base->data];
        struct fuzz_bytes bytes = bytes_of(file);
        struct bfti_vfs *damaged = copy_of(base);
        harm(file, &bytes, 0, random_below(2) ? BFTI_GRAIN : BFTI_BLOCK);
        put(damaged, file, &bytes);
        free(bytes.byte);
        run(base, damaged, &any);
    }
    print_reached();
    if (!fuzz_counts())
        return;
    assert_true(reached.opened > ROUNDS / 4 && reached.refused > ROUNDS / 4);
    assert_true(reached.reads_refused > ROUNDS / 4);
    assert_true(reached.verify_refused > ROUNDS / 4);
    assert_true(reached.second_lives > ROUNDS / 8);
}

static void a_damaged_superblock_leaves_the_other_or_is_told(void **state)
{
    const struct verdict any = {true, true, false, UINT64_MAX};

    (void)state;
    memset(&reached, 0, sizeof(reached));
    for (unsigned round = 0; fuzz_next(&round, ROUNDS, 3);) {
        const struct base *base = bases[random_below(BASES)];
        const struct file *file = &base->file[base->data];
        struct fuzz_bytes bytes = bytes_of(file);
        struct bfti_vfs *damaged = copy_of(base);
        if (random_below(8) == 0) {
            bytes.len = random_below(2) ? 0 : random_below(2 * BFTI_BLOCK);
            fuzz_say(" cut to %zu", bytes.len);
        } else {
            harm_within(&bytes, 0, 2 * BFTI_BLOCK);
        }
        put(damaged, file, &bytes);
        free(bytes.byte);
        run(base, damaged, &any);
    }
    print_reached();
    if (!fuzz_counts())
        return;
    assert_true(reached.opened > ROUNDS / 4 && reached.refused > 1);
}

static void a_damaged_log_is_a_prefix_or_told(void **state)
{
    (void)state;
    memset(&reached, 0, sizeof(reached));
    for (unsigned round = 0; fuzz_next(&round, 4 * ROUNDS, 4);) {
        const struct base *base = bases[random_below(BASES)];
        const struct file *file;
        struct fuzz_bytes bytes;
        struct bfti_vfs *damaged = copy_of(base);
        struct verdict verdict;
        /* A segment that the tail reaches, more often than another one. */
        do
            file = &base->file[random_below(base->files)];
        while (!file->segment || (!is_read(base, file) && random_below(8)));
        bytes = bytes_of(file);
        fuzz_say(" %s:", file->path);
        harm_segment(base, file, &bytes);
        verdict = judge_log(base, file, &bytes);
        if (bytes.len < base->newest.log_segment_bytes &&
            is_of_redo(base, file))
            verdict = (struct verdict){false, true, true, 0};
        if (bytes.len > base->newest.log_segment_bytes)
            verdict = (struct verdict){true, true, false, verdict.upto};
        reached.told_log += verdict.may_refuse;
        reached.lost += verdict.may_open && verdict.upto != UINT64_MAX;
        put(damaged, file, &bytes);
        free(bytes.byte);
        run(base, damaged, &verdict);
    }
    print_reached();
    if (!fuzz_counts())
        return;
    assert_true(reached.told_log > ROUNDS / 10);
    assert_true(reached.lost > ROUNDS / 4);
    assert_true(reached.opened > ROUNDS / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_lost_without_damage),
        cmocka_unit_test(a_damaged_page_file_is_right_or_corrupt),
        cmocka_unit_test(a_damaged_superblock_leaves_the_other_or_is_told),
        cmocka_unit_test(a_damaged_log_is_a_prefix_or_told),
    };
    fuzz_start();
    return cmocka_run_group_tests(tests, bases_make, bases_free);
}
