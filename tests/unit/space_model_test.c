/*
 * Space against a model that knows nothing of bits, epochs or lists: leaves
 * made of extents, images as lists of extents, a log, readers, crashes.
 *
 * A grain may be written only when no leaf, no image on the disk or on its way,
 * no frame that recovery would read and no reader reaches it; and none of a
 * block in which one of these reaches what was synced.  After a crash
 * everything that recovery reaches still has its content.
 */
#include "fileio/pagefile_internal.h"
#include "pagefile_fixture.h"
#include "random.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LEAVES = 24,
    PER_LEAF = 3,
    READERS = 4,
    FRAMES = 4000,
    BLOCKS = 16384, /* that the file may have */
    STEPS = 4000,
    ROUNDS = 12,
};

struct piece {
    uint64_t place; /* 0: none */
    uint64_t salt;
    size_t len;
};

struct leaf {
    struct piece piece[PER_LEAF];
    bool gathered;
};

/* Everything that a superblock names. */
struct image {
    struct piece leaf[LEAVES][PER_LEAF];
    struct piece table;
    uint64_t map[BFTI_MAP_PLACES], list[MAP_LISTS_MAX];
    size_t map_count, list_count;
    uint64_t redo;
};

struct frame {
    unsigned leaf; /* LSN: its number */
    struct piece piece;
};

struct model {
    struct pagefile_fixture p;
    uint64_t rng;
    uint64_t salt;
    struct leaf leaf[LEAVES];
    struct piece table;
    struct piece private;
    struct image on_disk[2]; /* [0] the older */
    struct image torn; /* of an abandoned superblock write; may be on disk */
    bool torn_set;
    struct image next; /* under construction */
    bool running;
    uint64_t reader[READERS];
    struct frame frame[FRAMES];
    uint64_t log_end;       /* LSNs start at 1 */
    bool taken[BLOCKS * 8]; /* grains */
    bool fixed[BLOCKS]; /* was written before the last sync, and not since */
    uint64_t holes;     /* blocks punched */
};

static uint64_t pick(struct model *m, uint64_t n)
{
    return random_of(&m->rng) % n;
}

/* --- who reaches what ----------------------------------------------------- */

static void take(struct model *m, uint64_t place)
{
    if (place == 0)
        return;
    uint64_t grain = bfti_disk_grain(place);
    unsigned n = bfti_disk_grains(place);
    assert_true(grain + n <= (uint64_t)BLOCKS * 8);
    memset(&m->taken[grain], true, n);
}

static bool is_taken(const struct model *m, uint64_t block)
{
    return memchr(&m->taken[block * 8], true, 8) != NULL;
}

static void take_image(struct model *m, const struct image *image)
{
    for (unsigned i = 0; i < LEAVES; i++)
        for (unsigned j = 0; j < PER_LEAF; j++)
            take(m, image->leaf[i][j].place);
    take(m, image->table.place);
    for (size_t i = 0; i < image->map_count; i++)
        take(m, image->map[i]);
    for (size_t i = 0; i < image->list_count; i++)
        take(m, image->list[i]);
}

static uint64_t redo_low(const struct model *m)
{
    return m->on_disk[0].redo < m->on_disk[1].redo ? m->on_disk[0].redo
                                                   : m->on_disk[1].redo;
}

/* TAKEN: every block that must not be written now. */
static void take_all(struct model *m)
{
    memset(m->taken, false, sizeof m->taken);
    memset(m->taken, true, 16);
    for (unsigned i = 0; i < LEAVES; i++)
        for (unsigned j = 0; j < PER_LEAF; j++)
            take(m, m->leaf[i].piece[j].place);
    take(m, m->table.place);
    take(m, m->private.place);
    take_image(m, &m->on_disk[0]);
    take_image(m, &m->on_disk[1]);
    if (m->torn_set)
        take_image(m, &m->torn);
    if (m->running)
        take_image(m, &m->next);
    for (unsigned i = 0; i < READERS; i++)
        take(m, m->reader[i]);
    for (uint64_t lsn = redo_low(m); lsn < m->log_end; lsn++)
        take(m, m->frame[lsn].piece.place);
}

static void expect_free(struct model *m, uint64_t place)
{
    uint64_t grain = bfti_disk_grain(place), block = grain / 8;
    unsigned n = (bfti_disk_grains(place) + 7) / 8;

    assert_true(block + n <= BLOCKS);
    for (unsigned i = 0; i < bfti_disk_grains(place); i++)
        assert_false(m->taken[grain + i]);
    for (unsigned i = 0; i < n; i++) {
        assert_false(m->fixed[block + i] && is_taken(m, block + i));
        m->fixed[block + i] = false;
    }
}

static void sync_all(struct model *m)
{
    EXPECT_STATUS(BFT_OK, bfti_pagefile_sync(m->p.pf));
    memset(m->fixed, true, sizeof m->fixed);
}

/* NAMED: by a frame. */
static struct piece piece_write(struct model *m, bool named)
{
    struct piece piece = {.salt = ++m->salt};
    uint64_t most = pick(m, 3) == 0 ? 12000 : 2500;
    piece.len = (size_t)(pick(m, 40) == 0 ? pick(m, BFTI_EXTENT_RAW_MAX)
                                          : pick(m, most));
    take_all(m);
    piece.place = named ? pf_write(&m->p, piece.len, piece.salt)
                        : pf_share(&m->p, piece.len, piece.salt);
    expect_free(m, piece.place);
    return piece;
}

static void piece_expect(struct model *m, const struct piece *piece)
{
    if (piece->place != 0)
        pf_expect(&m->p, piece->place, piece->len, piece->salt);
}

static void unnamed(void *ctx, uint64_t *places, size_t n)
{
    const struct model *m = ctx;
    for (size_t i = 0; i < n; i++) {
        bool named = false;
        for (unsigned r = 0; r < READERS; r++)
            named = named || m->reader[r] == places[i];
        if (!named)
            places[i] = 0;
    }
}

/* --- steps ---------------------------------------------------------------- */

/* A leaf gets a new extent in place of one of its, or loses one; what the log
 * names is a large value. */
static void step_leaf(struct model *m)
{
    unsigned i = (unsigned)pick(m, LEAVES), j = (unsigned)pick(m, PER_LEAF);
    struct leaf *leaf = &m->leaf[i];
    struct piece old = leaf->piece[j], fresh = {0};
    bool gathered = m->running && leaf->gathered;
    bool logged = pick(m, 3) == 0 && m->log_end < FRAMES;

    if (pick(m, 5) != 0) {
        fresh = piece_write(m, logged);
        if (logged)
            sync_all(m);
        bfti_extent_link(m->p.pf, fresh.place,
                         gathered ? BFTI_GATHERED_NOW : 0);
        if (logged) {
            m->frame[m->log_end].leaf = i * PER_LEAF + j;
            m->frame[m->log_end].piece = fresh;
            m->log_end++;
        }
    }
    leaf->piece[j] = fresh;
    if (old.place != 0) {
        bool in_log = false;
        for (uint64_t lsn = 1; lsn < m->log_end; lsn++)
            in_log = in_log || m->frame[lsn].piece.place == old.place;
        EXPECT_STATUS(BFT_OK,
                      bfti_extent_unlink(m->p.pf, old.place,
                                         gathered ? BFTI_GATHERED_NOW : 0,
                                         in_log ? m->log_end : 0));
    }
}

static void step_private(struct model *m)
{
    if (m->private.place == 0) {
        m->private = piece_write(m, false);
        return;
    }
    piece_expect(m, &m->private);
    bfti_extent_discard(m->p.pf, m->private.place);
    m->private.place = 0;
}

static void step_reader(struct model *m)
{
    uint64_t *reader = &m->reader[pick(m, READERS)];
    *reader = *reader != 0
                  ? 0
                  : m->leaf[pick(m, LEAVES)].piece[pick(m, PER_LEAF)].place;
}

static void gather(struct model *m, unsigned i)
{
    if (m->leaf[i].gathered)
        return;
    memcpy(m->next.leaf[i], m->leaf[i].piece, sizeof m->next.leaf[i]);
    m->leaf[i].gathered = true;
}

static void step_cut(struct model *m)
{
    memset(&m->next, 0, sizeof m->next);
    m->next.redo = m->log_end;
    m->running = true;
    for (unsigned i = 0; i < LEAVES; i++)
        m->leaf[i].gathered = false;
    (void)bfti_space_cut(m->p.pf);
}

static void checkpoint_abandon(struct model *m)
{
    bfti_space_abandon(m->p.pf);
    m->running = false;
}

/* Gather the rest, write table and map; then finish, or fail somewhere. */
static void step_checkpoint_end(struct model *m)
{
    for (unsigned i = 0; i < LEAVES; i++)
        gather(m, i);
    if (pick(m, 8) == 0) {
        checkpoint_abandon(m);
        return;
    }
    struct piece old = m->table;
    m->table = piece_write(m, false);
    bfti_extent_link(m->p.pf, m->table.place, 0);
    if (old.place != 0)
        EXPECT_STATUS(BFT_OK, bfti_extent_unlink(m->p.pf, old.place, 0, 0));
    m->next.table = m->table;

    take_all(m);
    EXPECT_STATUS(BFT_OK,
                  bfti_space_write(m->p.pf, m->on_disk[1].map,
                                   m->on_disk[1].map_count, m->next.map,
                                   BFTI_MAP_PLACES, &m->next.map_count));
    for (size_t i = 0; i < m->next.map_count; i++)
        expect_free(m, m->next.map[i]);
    m->next.list_count = 0;
    for (size_t i = m->p.pf->space.map.parts;
         i < m->p.pf->space.map.fresh_count; i++) {
        uint64_t place = m->p.pf->space.map.fresh[i];
        expect_free(m, place);
        m->next.list[m->next.list_count++] = place;
    }
    sync_all(m);
    if (pick(m, 6) == 0) {
        m->torn = m->next;
        m->torn_set = true;
        checkpoint_abandon(m);
        return;
    }
    m->on_disk[0] = m->on_disk[1];
    m->on_disk[1] = m->next;
    m->torn_set = false;
    bfti_space_finish(m->p.pf, m->next.redo);
    m->running = false;
    if (pick(m, 3) != 0) { /* the other superblock is written, too */
        m->on_disk[0] = m->on_disk[1];
        bfti_space_twin(m->p.pf);
    }
}

/* --- holes ---------------------------------------------------------------- */

static void expect_nobodys(void *arg, uint64_t block, uint64_t n)
{
    struct model *m = arg;

    for (uint64_t at = block; at < block + n; at++)
        assert_false(is_taken(m, at));
    m->holes += n;
}

static void step_punch(struct model *m)
{
    bool more;

    m->p.pf->space.hole_floor = pick(m, 3);
    take_all(m);
    pf_on_punch(&m->p, BFT_OK, expect_nobodys, m);
    EXPECT_STATUS(BFT_OK,
                  bfti_space_punch(m->p.pf, 1 + (unsigned)pick(m, 9), &more));
}

/* --- crashes -------------------------------------------------------------- */

/* Bytes of what is taken: blocks, and grains of those that are shared. */
static uint64_t taken_bytes(const struct model *m)
{
    const struct bfti_space *space = &m->p.pf->space;
    uint64_t grains = 0;

    for (uint64_t block = 2; block < BLOCKS; block++) {
        bool shared = block < space->limit && block_is_shared(space, block);
        if (is_taken(m, block) && !shared)
            grains += 8;
        for (unsigned i = 0; shared && i < 8; i++)
            grains += m->taken[block * 8 + i];
    }
    return grains * BFTI_GRAIN;
}

static void expect_loaded(struct model *m, const struct image *image)
{
    memset(m->taken, false, sizeof m->taken);
    take_image(m, image);
    struct bfti_space_stats stats;
    bfti_space_stats(m->p.pf, &stats);
    assert_int_equal(stats.live_bytes, taken_bytes(m));
    for (unsigned i = 0; i < LEAVES; i++)
        for (unsigned j = 0; j < PER_LEAF; j++)
            if (image->leaf[i][j].place != 0)
                assert_true(
                    bfti_space_is_used(m->p.pf, image->leaf[i][j].place));
}

/* Frames are state-setting: the last one of a piece is what it is, and what
 * came before it goes, once.  (A piece that lost its extent without a frame
 * has it again; that is all the same to the space.) */
static void redo(struct model *m)
{
    uint64_t first = m->on_disk[1].redo;

    for (uint64_t lsn = first; lsn < m->log_end; lsn++)
        EXPECT_STATUS(BFT_OK,
                      bfti_extent_reserve(m->p.pf, m->frame[lsn].piece.place));
    for (uint64_t lsn = first; lsn < m->log_end; lsn++) {
        const struct frame *frame = &m->frame[lsn];
        struct piece *piece =
            &m->leaf[frame->leaf / PER_LEAF].piece[frame->leaf % PER_LEAF];
        uint64_t last = lsn;
        piece_expect(m, &frame->piece);
        for (uint64_t later = lsn + 1; later < m->log_end; later++)
            if (m->frame[later].leaf == frame->leaf)
                last = later;
        bool had = piece->place == frame->piece.place;
        if (last == lsn && !had) {
            if (piece->place != 0)
                EXPECT_STATUS(BFT_OK, bfti_extent_unlink(m->p.pf, piece->place,
                                                         false, m->log_end));
            *piece = frame->piece;
            bfti_extent_link(m->p.pf, piece->place, 0);
        } else if (last != lsn && !had &&
                   m->frame[last].piece.place != frame->piece.place) {
            EXPECT_STATUS(
                BFT_OK,
                bfti_extent_unlink(m->p.pf, frame->piece.place, 0, m->log_end));
        }
    }
}

/* The process ends; the newest superblock is the one that is found. */
static void step_crash(struct model *m)
{
    if (m->on_disk[1].map_count == 0)
        return; /* no database yet */
    m->running = false;
    memset(m->reader, 0, sizeof m->reader);
    m->private.place = 0;
    if (m->torn_set && pick(m, 2) == 0)
        m->on_disk[1] = m->torn; /* it had reached the disk */
    m->torn_set = false;
    m->on_disk[0] = m->on_disk[1]; /* recovery writes it into both slots */

    const struct image *image = &m->on_disk[1];
    pagefile_fixture_reopen(&m->p);
    memset(m->fixed, true, sizeof m->fixed);
    EXPECT_STATUS(BFT_OK, bfti_space_load(m->p.pf, image->map, image->map_count,
                                          &m->p.scratch));
    expect_loaded(m, image);
    for (unsigned i = 0; i < LEAVES; i++) {
        memcpy(m->leaf[i].piece, image->leaf[i], sizeof m->leaf[i].piece);
        for (unsigned j = 0; j < PER_LEAF; j++)
            piece_expect(m, &image->leaf[i][j]);
    }
    m->table = image->table;
    piece_expect(m, &m->table);
    redo(m);
}

/* --- the whole ------------------------------------------------------------ */

static void expect_contents(struct model *m)
{
    for (unsigned i = 0; i < LEAVES; i++)
        for (unsigned j = 0; j < PER_LEAF; j++)
            piece_expect(m, &m->leaf[i].piece[j]);
}

/* With nobody reading and two checkpoints of an idle database, only what is
 * reached is left, and all of that is accounted for. */
static void expect_nothing_lost(struct model *m)
{
    struct bfti_space_stats stats;

    if (m->running)
        checkpoint_abandon(m);
    if (m->private.place != 0)
        step_private(m);
    memset(m->reader, 0, sizeof m->reader);
    m->frame[m->log_end].piece.place = 0;
    m->log_end++; /* redo can start above all that was unlinked */
    for (uint64_t sequence = 0; sequence < 2;) {
        struct image before = m->on_disk[1];
        step_cut(m);
        step_checkpoint_end(m);
        sequence += memcmp(&before, &m->on_disk[1], sizeof before) != 0;
    }
    EXPECT_STATUS(BFT_OK, bfti_space_release(m->p.pf));
    bfti_space_stats(m->p.pf, &stats);
    /* What the last checkpoint replaced waits for another one. */
    memset(m->taken, false, sizeof m->taken);
    take_image(m, &m->on_disk[1]);
    uint64_t live = taken_bytes(m);
    assert_int_equal(stats.live_bytes, live);
    take_image(m, &m->on_disk[0]);
    assert_true(stats.held_bytes >= taken_bytes(m) - live);

    EXPECT_STATUS(BFT_OK, bfti_space_audit_begin(m->p.pf));
    for (unsigned i = 0; i < LEAVES; i++)
        for (unsigned j = 0; j < PER_LEAF; j++)
            if (m->leaf[i].piece[j].place != 0)
                assert_true(
                    bfti_space_audit_mark(m->p.pf, m->leaf[i].piece[j].place));
    assert_true(bfti_space_audit_mark(m->p.pf, m->table.place));
    for (size_t i = 0; i < m->on_disk[1].map_count; i++)
        assert_true(bfti_space_audit_mark(m->p.pf, m->on_disk[1].map[i]));
    for (size_t i = 0; i < m->on_disk[1].list_count; i++)
        assert_true(bfti_space_audit_mark(m->p.pf, m->on_disk[1].list[i]));
    assert_int_equal(bfti_space_audit_end(m->p.pf), 0);
}

static void step(struct model *m)
{
    uint64_t dice = pick(m, 1000);

    if (dice < 600)
        step_leaf(m);
    else if (dice < 700)
        step_private(m);
    else if (dice < 800)
        step_reader(m);
    else if (dice < 900 && m->running)
        gather(m, (unsigned)pick(m, LEAVES));
    else if (dice < 915)
        EXPECT_STATUS(BFT_OK, bfti_space_release(m->p.pf));
    else if (dice < 930)
        step_punch(m);
    else if (dice < 990 && !m->running)
        step_cut(m);
    else if (dice < 990 && pick(m, 2) == 0)
        step_checkpoint_end(m);
    else if (dice == 999)
        step_crash(m);
}

static void run(uint64_t seed)
{
    struct model *m = calloc(1, sizeof *m);

    m->rng = seed;
    m->log_end = 1;
    m->on_disk[0].redo = m->on_disk[1].redo = 1;
    pagefile_fixture_open(&m->p, pick(m, 2) == 0);
    m->p.options.unnamed = unnamed;
    m->p.options.unnamed_ctx = m;
    pagefile_fixture_reopen(&m->p);
    EXPECT_STATUS(BFT_OK, bfti_space_reset(m->p.pf));
    for (unsigned i = 0; i < STEPS && m->log_end < FRAMES - 4; i++) {
        step(m);
        if (i % 500 == 0)
            expect_contents(m);
    }
    expect_contents(m);
    assert_true(m->holes > 100);
    expect_nothing_lost(m);
    m->running = false;
    if (m->on_disk[1].map_count > 0)
        step_crash(m);
    pagefile_fixture_close(&m->p);
    free(m);
}

static void no_block_that_anyone_reaches_is_written(void **state)
{
    (void)state;
    uint64_t seed = random_start();

    for (unsigned i = 0; i < ROUNDS; i++)
        run(seed + i);
}

/* --- threads -------------------------------------------------------------- */

enum { THREADS = 4, THREAD_ROUNDS = 400, KEPT = 12 };

/* One thread's leaves: nobody else touches them, but for the checkpoint's
 * question whether they were gathered, which the mutex makes one with the
 * links that depend on it. */
struct worker {
    struct pagefile_fixture *p;
    uint64_t seed;
    struct bfti_mutex mutex;
    bool gathered;
    _Atomic bool done, failed;
};

static bft_status worker_swing(struct worker *w, struct piece *piece,
                               uint64_t salt, uint8_t *bytes)
{
    struct bfti_extent_info info = {BFTI_EXTENT_LEAF, 7, salt, salt + 1};
    uint64_t place;

    pf_fill(bytes, (size_t)(salt % 9000), salt);
    bft_status status = bfti_extent_write(w->p->pf, &info, bytes,
                                          (size_t)(salt % 9000), &place);
    if (status != BFT_OK)
        return status;
    bfti_mutex_lock(&w->p->env, &w->mutex);
    bfti_extent_link(w->p->pf, place, w->gathered ? BFTI_GATHERED_NOW : 0);
    if (piece->place != 0)
        status = bfti_extent_unlink(w->p->pf, piece->place,
                                    w->gathered ? BFTI_GATHERED_NOW : 0,
                                    salt % 5 == 0 ? salt % 1000 + 1 : 0);
    bfti_mutex_unlock(&w->p->env, &w->mutex);
    piece->place = place;
    piece->salt = salt;
    piece->len = (size_t)(salt % 9000);
    return status;
}

static bool worker_same(struct worker *w, const struct piece *piece,
                        struct bfti_scratch *scratch, uint8_t *bytes)
{
    struct bfti_extent_info info;
    const void *raw;
    size_t raw_len;

    if (piece->place == 0)
        return true;
    pf_fill(bytes, piece->len, piece->salt);
    return bfti_extent_read(w->p->pf, piece->place, scratch, &info, &raw,
                            &raw_len) == BFT_OK &&
           raw_len == piece->len && memcmp(raw, bytes, raw_len) == 0;
}

static void worker_run(void *arg)
{
    struct worker *w = arg;
    struct bfti_scratch scratch = {0};
    struct piece kept[KEPT] = {{0}};
    uint8_t *bytes = malloc(9000);

    for (unsigned i = 0; i < THREAD_ROUNDS; i++) {
        uint64_t salt = random_of(&w->seed) >> 1;
        struct piece *piece = &kept[salt % KEPT];
        if (!worker_same(w, piece, &scratch, bytes) ||
            worker_swing(w, piece, salt, bytes) != BFT_OK)
            w->failed = true;
    }
    for (unsigned i = 0; i < KEPT; i++)
        if (!worker_same(w, &kept[i], &scratch, bytes))
            w->failed = true;
    bfti_scratch_free(&w->p->env, &scratch);
    free(bytes);
    w->done = true;
}

static bool workers_done(struct worker *worker)
{
    for (unsigned i = 0; i < THREADS; i++)
        if (!worker[i].done)
            return false;
    return true;
}

static void workers_gathered(struct worker *worker, bool gathered)
{
    for (unsigned i = 0; i < THREADS; i++) {
        bfti_mutex_lock(&worker[i].p->env, &worker[i].mutex);
        worker[i].gathered = gathered;
        bfti_mutex_unlock(&worker[i].p->env, &worker[i].mutex);
    }
}

/* Checkpoints and releases, the file cut short now and then, under writers:
 * each finds what it wrote. */
static void writers_go_on_during_checkpoints_and_releases(void **state)
{
    (void)state;
    struct pagefile_fixture p;
    struct worker worker[THREADS] = {{0}};
    struct bfti_thread *thread[THREADS];
    uint64_t map[BFTI_MAP_PLACES], fresh[BFTI_MAP_PLACES], redo_lsn = 1;
    size_t map_count = 0, count;

    pagefile_fixture_open(&p, false);
    uint64_t seed = random_start();
    for (unsigned i = 0; i < THREADS; i++) {
        worker[i].p = &p;
        worker[i].seed = seed + i;
        EXPECT_STATUS(BFT_OK, p.env.thread_start(p.env.ctx, worker_run,
                                                 &worker[i], &thread[i]));
    }
    while (!workers_done(worker)) {
        bool more;
        /* GATHERED means nothing before the cut and after the finish. */
        workers_gathered(worker, false);
        (void)bfti_space_cut(p.pf);
        workers_gathered(worker, true);
        EXPECT_STATUS(BFT_OK, bfti_space_write(p.pf, map, map_count, fresh,
                                               BFTI_MAP_PLACES, &count));
        redo_lsn += 100;
        bfti_space_finish(p.pf, redo_lsn);
        memcpy(map, fresh, sizeof map);
        map_count = count;
        /* A large extent at the end comes and goes, so the file shrinks. */
        uint64_t large = pf_write(&p, BFTI_EXTENT_RAW_MAX, 1);
        bfti_extent_discard(p.pf, large);
        EXPECT_STATUS(BFT_OK, bfti_space_release(p.pf));
        EXPECT_STATUS(BFT_OK, bfti_space_punch(p.pf, 50, &more));
    }
    for (unsigned i = 0; i < THREADS; i++) {
        p.env.thread_join(p.env.ctx, thread[i]);
        assert_false(worker[i].failed);
    }
    pagefile_fixture_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_block_that_anyone_reaches_is_written),
        cmocka_unit_test(writers_go_on_during_checkpoints_and_releases),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
