/*
 * Damage in every place of a database that was killed with commits in its log:
 * bytes flipped in the page file and in each segment of the log, and each cut
 * short.  Of a damaged log what is then found is the commits before the first
 * damaged frame, or BFT_CORRUPT with segment and byte: the latter whenever
 * something that is left says that the log was durable past it, or the segment
 * was cut.  So nothing that was synced is lost without a word here: frames came
 * after it.
 *
 * BFT_SWEEP_STEP: as damage_sweep_test; but for 1 the page file takes four times
 * larger steps, and the log where it has no frames that are read sixteen times.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine_fixture.h"
#include "fileio/wal_internal.h"
#include "random.h"
#include "sim_fixture.h"
#include "tally.h"
#include "told_place.h"

enum {
    KEYS = 32,
    TREES = 2,
    COMMITS = 64,
    SYNCED = 40,   /* the last commit that was acknowledged as durable */
    LARGE = 20,    /* this commit's value is outside the leaf */
    BEFORE = 5000, /* bytes of frames in the segment that is then full */
    SEGMENT = 64 << 10,
    FILES_MAX = 8,
    FRAMES_MAX = 400,
    VALUE_MAX = 1500,
    STEP = 16,
};

static const bft_slice ALL = {NULL, 0};

struct file {
    char path[64];
    bool segment;
    uint64_t first; /* of a segment: its first position in the log */
    uint8_t *bytes;
    size_t len;
};

struct frame {
    uint64_t lsn, covered, mark;
};

/* Which commit wrote a key last, 0 before them all; or nobody has it. */
enum { NOBODY = -1 };
struct state {
    int writer[TREES][KEYS];
};

static struct {
    struct engine_fixture *f;
    struct bfti_vfs *sim; /* as the kill left it */
    struct file file[FILES_MAX];
    unsigned files;
    struct frame frame[FRAMES_MAX];
    unsigned frames;
    uint64_t redo, durable, end;
    struct state state[COMMITS + 1]; /* after so many */
    uint64_t commit_end[COMMITS + 1];
    struct told_place want;
    unsigned refused, told, right, lost, lost_synced;
} base;

/* --- the database --------------------------------------------------------- */

static bft_slice key_of(unsigned k, char text[16])
{
    return (bft_slice){text, (size_t)snprintf(text, 16, "key %05u", k)};
}

static bft_slice value_of(unsigned t, unsigned k, int writer,
                          char value[VALUE_MAX])
{
    size_t len = writer == LARGE ? VALUE_MAX : 30 + (k + t) % 50;

    memset(value, 'a' + (int)(k % 26), len);
    (void)snprintf(value, len, "%d wrote %u of %u", writer, k, t);
    return (bft_slice){value, len};
}

static void put(bft_batch *batch, bft_tree *tree, unsigned t, unsigned k,
                int writer)
{
    static char value[VALUE_MAX];
    char key[16];

    if (writer == NOBODY)
        expect_ok(bft_batch_delete(batch, tree, key_of(k, key)));
    else
        expect_ok(bft_batch_put(batch, tree, key_of(k, key),
                                value_of(t, k, writer, value)));
}

/* Key 0 of both trees says how many commits there were. */
static void commit(bft_tree *const tree[TREES], int n)
{
    struct state *state = &base.state[n];
    bft_batch *batch;

    *state = base.state[n - 1];
    expect_ok(bft_batch_create(base.f->db, &batch));
    for (unsigned t = 0; t < TREES; t++) {
        unsigned k = 1 + (unsigned)(n * 7 + (int)t) % (KEYS - 1);
        state->writer[t][0] = n;
        state->writer[t][k] = n % 5 == 3 ? NOBODY : n;
        put(batch, tree[t], t, 0, n);
        put(batch, tree[t], t, k, state->writer[t][k]);
    }
    expect_ok(bft_batch_commit(
        batch, n % (SYNCED / 2) == 0 && n <= SYNCED ? BFT_SYNC : BFT_BUFFERED,
        NULL));
    bft_batch_free(batch);
    base.commit_end[n] = bfti_wal_end(base.f->db->engine->buffer.wal);
}

static void fill(bft_tree *const tree[TREES])
{
    static char value[VALUE_MAX];
    char key[16];

    /* The checkpoint is a little before the end of a segment. */
    do {
        for (unsigned t = 0; t < TREES; t++)
            for (unsigned k = 0; k < KEYS; k++)
                expect_ok(
                    bft_put(tree[t], key_of(k, key), value_of(t, k, 0, value)));
    } while (bfti_wal_end(base.f->db->engine->buffer.wal) % SEGMENT <
             SEGMENT - BEFORE - 6000);
    while (bfti_wal_end(base.f->db->engine->buffer.wal) % SEGMENT <
           SEGMENT - BEFORE)
        expect_ok(bft_put(tree[0], key_of(0, key), value_of(0, 0, 0, value)));
    expect_ok(bft_checkpoint(base.f->db));
}

/* --- its files ------------------------------------------------------------ */

static void add_file(void *arg, const char *name)
{
    struct file *file = &base.file[base.files];

    (void)arg;
    if (strcmp(name, "lock") == 0)
        return;
    assert_in_range(base.files, 0, FILES_MAX - 1);
    (void)snprintf(file->path, sizeof(file->path), "/db/%s", name);
    file->segment = bfti_wal_parse_name(name, &file->first);
    base.files++;
}

static const struct file *file_of(uint64_t position)
{
    for (unsigned i = 0; i < base.files; i++)
        if (base.file[i].segment && position >= base.file[i].first &&
            position - base.file[i].first < base.file[i].len)
            return &base.file[i];
    return NULL;
}

static bft_status add_frame(void *arg, uint64_t lsn, uint8_t type,
                            const void *payload, size_t len)
{
    struct wal_frame_header head;
    const struct file *file = file_of(lsn);
    uint8_t bytes[sizeof(head)];

    (void)arg;
    (void)type;
    (void)payload;
    assert_in_range(base.frames, 0, FRAMES_MAX - 1);
    for (unsigned i = 0; i < sizeof(head); i++) {
        file = file_of(lsn + i);
        bytes[i] = file->bytes[lsn + i - file->first];
    }
    memcpy(&head, bytes, sizeof(head));
    base.frame[base.frames++] =
        (struct frame){lsn, lsn + BFTI_FRAME_HEADER + len, le64_get(head.mark)};
    return BFT_OK;
}

static void read_log(void)
{
    struct bfti_pagefile_options pages = {
        .env = bfti_env_system(), .vfs = base.sim, .path = "/db/data"};
    struct bfti_wal_options log = {.env = bfti_env_system(),
                                   .vfs = base.sim,
                                   .dir = "/db",
                                   .segment_bytes = SEGMENT};
    struct bfti_superblock slot[2];
    struct bfti_wal_found found;
    bft_status verdict[2];
    struct bfti_pagefile *pf;
    unsigned newest;

    expect_ok(bfti_pagefile_open(&pages, &pf));
    expect_ok(bfti_superblock_read(pf, slot, verdict));
    bfti_pagefile_close(pf);
    expect_ok(verdict[0]);
    expect_ok(verdict[1]);
    newest = slot[1].sequence > slot[0].sequence;
    base.redo = slot[newest].redo_lsn;
    base.durable = slot[newest].durable_mark;
    expect_ok(
        bfti_wal_scan(&log, base.redo, base.durable, add_frame, NULL, &found));
    base.end = found.end;
    assert_int_equal(base.commit_end[COMMITS], found.end);
}

static int make_base(void **state)
{
    bft_tree *tree[TREES];

    (void)state;
    random_start();
    memset(&base, 0, sizeof(base));
    base.f = engine_fixture_make(ENGINE_SIM);
    base.f->options.no_threads = true;
    base.f->options.memory_bytes = 1 << 20;
    base.f->options.log_segment_bytes = SEGMENT;
    base.f->options.log_bytes = 4 * SEGMENT;
    engine_open(base.f);
    for (unsigned t = 0; t < TREES; t++)
        tree[t] = engine_tree(base.f, t ? "t1" : "t0", 1024);
    fill(tree);
    base.commit_end[0] = bfti_wal_end(base.f->db->engine->buffer.wal);
    for (int n = 1; n <= COMMITS; n++)
        commit(tree, n);
    expect_ok(bfti_sim_image(base.f->vfs, BFTI_SIM_KEEP, 1, &base.sim));
    engine_close(base.f);
    expect_ok(base.sim->ops->list(base.sim, "/db", add_file, NULL));
    for (unsigned i = 0; i < base.files; i++)
        base.file[i].bytes =
            sim_contents(base.sim, base.file[i].path, &base.file[i].len);
    read_log();
    /* Some of what is read lies in either of two segments. */
    assert_true(base.redo / SEGMENT + 1 == base.end / SEGMENT);
    print_message("%u frames from %llu to %llu, in %u files\n", base.frames,
                  (unsigned long long)base.redo, (unsigned long long)base.end,
                  base.files);
    return 0;
}

static int free_base(void **state)
{
    (void)state;
    for (unsigned i = 0; i < base.files; i++)
        free(base.file[i].bytes);
    bfti_vfs_sim_destroy(base.sim);
    engine_fixture_free(base.f);
    return 0;
}

/* --- what is to be expected ----------------------------------------------- */

#define wrong(...)                \
    do {                          \
        print_error(__VA_ARGS__); \
        print_error("\n");        \
        fail();                   \
    } while (0)

/* One byte was changed, or all from there on are gone. */
struct damage {
    const struct file *file;
    size_t at;
    bool cut;
    char text[100];
};

struct verdict {
    bool exact; /* else any of it may be told instead */
    bool refuses;
    int commits; /* that are there, if it opens */
};

/* Are bytes of the log from FROM to TO not what they were? */
static bool is_hurt(const struct damage *damage, uint64_t from, uint64_t to)
{
    const struct file *file = damage->file;
    uint64_t low = file->first + damage->at;
    uint64_t high = damage->cut ? file->first + file->len : low + 1;

    for (uint64_t i = from > low ? from : low; i < to && i < high; i++)
        if (!damage->cut || file->bytes[i - file->first])
            return true;
    return false;
}

static struct verdict judge_log(const struct damage *damage)
{
    struct verdict verdict = {true, false, COMMITS};
    const struct file *file = damage->file;
    uint64_t durable = base.durable;
    unsigned i = 0, first;

    if (damage->cut && file->first + SEGMENT > base.redo) {
        /* A frame whose loss others tell of is told before. */
        (void)snprintf(base.want.part, sizeof(base.want.part),
                       "%s: ", file->path);
        verdict.refuses = true;
        return verdict;
    }
    while (i < base.frames &&
           !is_hurt(damage, base.frame[i].lsn, base.frame[i].covered))
        i++;
    if (i == base.frames)
        return verdict;
    for (first = i; i < base.frames; i++)
        if (!is_hurt(damage, base.frame[i].lsn,
                     base.frame[i].lsn + BFTI_FRAME_HEADER) &&
            base.frame[i].mark > durable)
            durable = base.frame[i].mark;
    verdict.refuses = durable > base.frame[first].lsn;
    while (base.commit_end[verdict.commits] > base.frame[first].lsn)
        verdict.commits--;
    (void)snprintf(base.want.part, sizeof(base.want.part), "/db/log-%016llx: ",
                   (unsigned long long)(base.frame[first].lsn -
                                        base.frame[first].lsn % SEGMENT));
    (void)snprintf(base.want.byte, sizeof(base.want.byte), ": byte %llu: ",
                   (unsigned long long)(base.frame[first].lsn % SEGMENT));
    return verdict;
}

/* --- what is read --------------------------------------------------------- */

static bool is_told(bft_status status, const struct damage *damage)
{
    char text[512];

    if (status == BFT_OK)
        return false;
    bft_last_error(text, sizeof(text));
    if (status != BFT_CORRUPT)
        wrong("%s: status %d: %s", damage->text, (int)status, text);
    if (told_place_lacks(text))
        wrong("%s: the text names %s: \"%s\"", damage->text,
              told_place_lacks(text), text);
    if (!strstr(text, base.want.byte) || !strstr(text, base.want.part))
        wrong("%s: the text does not say \"%s\" and \"%s\": \"%s\"",
              damage->text, base.want.byte, base.want.part, text);
    return true;
}

static bool tree_is_told(bft_tree *tree, unsigned t, const struct state *state,
                         const struct damage *damage)
{
    static char value[VALUE_MAX], want[VALUE_MAX];
    uint64_t count, there = 0;
    bool told = false;

    for (unsigned k = 0; k < KEYS; k++) {
        int writer = state->writer[t][k];
        bft_slice right = value_of(t, k, writer, want);
        char key[16];
        size_t len;
        bft_status status =
            bft_get(tree, key_of(k, key), value, sizeof(value), &len);

        there += writer != NOBODY;
        if (status == BFT_NOT_FOUND ? writer == NOBODY
                                    : is_told(status, damage)) {
            told |= status != BFT_NOT_FOUND;
            continue;
        }
        if (status != BFT_OK || writer == NOBODY || len != right.len ||
            memcmp(value, right.data, len) != 0)
            wrong("%s: key %u of tree %u is wrong, of %d", damage->text, k, t,
                  writer);
    }
    if (is_told(bft_count(tree, ALL, ALL, &count), damage))
        told = true;
    else if (count != there)
        wrong("%s: tree %u has %llu records", damage->text, t,
              (unsigned long long)count);
    return told;
}

static bool read_all(bft_db *db, int commits, const struct damage *damage)
{
    bool told = false;

    for (unsigned t = 0; t < TREES; t++) {
        bft_tree_options options = {.size = sizeof(options),
                                    .must_exist = true};
        bft_tree *tree;

        if (is_told(bft_tree_open(db, t ? "t1" : "t0", &options, &tree),
                    damage))
            told = true;
        else
            told |= tree_is_told(tree, t, &base.state[commits], damage);
    }
    return told;
}

/* In COPY, once it is damaged.  Twice, as recovery has changed the log. */
static void look_into(struct bfti_vfs *copy, const struct damage *damage,
                      const struct verdict *verdict)
{
    struct bfti_surroundings surroundings = {.env = &base.f->env, .vfs = copy};
    bft_options options = base.f->options;
    bft_db *db;
    bool told = false;

    options.internal = &surroundings;
    options.must_exist = true;
    for (int life = 0; life < 2; life++) {
        bft_status status = bft_open("/db", &options, &db);

        if (is_told(status, damage)) {
            if (verdict->exact && !verdict->refuses)
                wrong("%s: refused", damage->text);
            base.refused++;
            return;
        }
        if (verdict->refuses)
            wrong("%s: opened", damage->text);
        told = read_all(db, verdict->commits, damage);
        if (!is_told(bft_verify(db), damage) && told)
            wrong("%s: bft_verify finds nothing", damage->text);
        (void)is_told(bft_close(db), damage);
        if (random_below(4))
            break;
    }
    if (verdict->exact && told)
        wrong("%s: there was no damage left, and some was told", damage->text);
    base.told += told;
    base.right += !told;
    base.lost += verdict->commits < COMMITS;
    base.lost_synced += verdict->commits < SYNCED;
}

static void look(struct damage *damage)
{
    const struct file *file = damage->file;
    struct verdict verdict = {false, false, COMMITS};
    struct bfti_vfs *copy;
    uint8_t was = file->bytes[damage->at];

    (void)snprintf(damage->text, sizeof(damage->text), "%s: byte %zu %s",
                   file->path, damage->at, damage->cut ? "cut" : "flipped");
    memset(&base.want, 0, sizeof(base.want));
    if (file->segment)
        verdict = judge_log(damage);
    else if (!damage->cut)
        told_place_of(file->bytes, file->len, damage->at, &base.want);
    if (!damage->cut)
        file->bytes[damage->at] ^= (uint8_t)(1u << random_below(8));
    expect_ok(bfti_sim_image(base.sim, BFTI_SIM_KEEP, 1, &copy));
    if (damage->cut)
        expect_ok(bfti_sim_cut(copy, file->path, damage->at));
    else
        expect_ok(bfti_sim_flip(copy, file->path, damage->at,
                                file->bytes[damage->at] ^ was));
    file->bytes[damage->at] = was;
    look_into(copy, damage, &verdict);
    bfti_vfs_sim_destroy(copy);
}

/* --- the sweeps ----------------------------------------------------------- */

static size_t step_of_sweep(void)
{
    const char *text =
        getenv("BFT_SWEEP_STEP"); /* NOLINT(concurrency-mt-unsafe) */
    size_t step = text ? strtoul(text, NULL, 10) : STEP;

    assert_in_range(step, 1, 4096);
    return step;
}

/* From one place to the next.  Most of a segment was never written, or lies
 * before where recovery begins; and page files have a sweep of their own. */
static size_t step_at(const struct file *file, size_t at, size_t step)
{
    uint64_t position = file->first + at;

    if (step == 1)
        return 1;
    if (!file->segment)
        return 4 * step;
    return position + STEP * step > base.redo && position < base.end
               ? step
               : STEP * step;
}

static void sweep(bool segments, bool cut)
{
    size_t step = step_of_sweep();
    unsigned looks = 0;

    base.refused = base.told = base.right = base.lost = base.lost_synced = 0;
    for (unsigned i = 0; i < base.files; i++) {
        struct damage damage = {.file = &base.file[i], .cut = cut};

        if (base.file[i].segment != segments)
            continue;
        for (size_t at = random_below(step); at < base.file[i].len;
             at += step_at(&base.file[i], at, step), looks++) {
            damage.at = at;
            look(&damage);
        }
    }
    print_message("%u %s: %u refused, %u told by a read, %u right, of which %u "
                  "without the last commits and %u without some that were "
                  "synced\n",
                  looks, cut ? "cuts" : "bytes flipped", base.refused,
                  base.told, base.right, base.lost, base.lost_synced);
    tally(cut ? TALLY_DAMAGED : TALLY_FLIPS, looks);
}

static void a_flipped_byte_of_the_log_ends_it_or_is_told(void **state)
{
    (void)state;
    sweep(true, false);
    /* What was synced is covered by the marks of the frames behind it. */
    assert_true(base.refused > 0 && base.lost > 0);
    assert_int_equal(0, base.lost_synced);
}

static void a_segment_cut_short_is_told(void **state)
{
    (void)state;
    sweep(true, true);
    assert_true(base.refused > 0);
    assert_int_equal(0, base.lost);
}

static void a_flipped_byte_beneath_the_log_is_told(void **state)
{
    (void)state;
    sweep(false, false);
    assert_true(base.refused > 0 && base.told > 0);
    assert_int_equal(0, base.lost);
}

static void a_page_file_cut_beneath_the_log_is_told(void **state)
{
    (void)state;
    sweep(false, true);
    assert_true(base.refused > 0);
    assert_int_equal(0, base.lost);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_flipped_byte_of_the_log_ends_it_or_is_told),
        cmocka_unit_test(a_segment_cut_short_is_told),
        cmocka_unit_test(a_flipped_byte_beneath_the_log_is_told),
        cmocka_unit_test(a_page_file_cut_beneath_the_log_is_told),
    };

    return cmocka_run_group_tests(tests, make_base, free_base);
}
