/*
 * The log on a disk that loses power: at any step of a random life, with any
 * policy, what comes back is a prefix of what was linked, and holds all that
 * was acknowledged.  And again at any step of the recovery from that.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fileio/fileio.h"
#include "fileio/vfs_sim.h"
#include "random.h"
#include "tally.h"

enum { SEGMENT = 8192, FRAMES_MAX = 2000, DIR_LEN = 2 };
static const char dir[] = "db";

/* A log on a simulated disk, and what its owner remembers of it. */
struct life {
    struct bfti_vfs *sim;
    struct bfti_wal_options options;
    struct bfti_wal *wal;
    struct bfti_wal_thread thread;
    uint32_t incarnation; /* highest used, as superblocks tell */
    uint64_t redo, mark;  /* of the last checkpoint */
    uint64_t acked;       /* a sync returned for all below */
    uint64_t buffered;    /* a copy returned for all below */
    unsigned count;
    struct {
        uint64_t id, lsn, end;
    } frame[FRAMES_MAX];
};

static void options_set(struct life *life, bool map)
{
    life->options.env = bfti_env_system();
    life->options.vfs = life->sim;
    life->options.dir = dir;
    life->options.segment_bytes = SEGMENT;
    life->options.map = map;
}

/* --- appending --------------------------------------------------------------- */

static uint64_t next_id;

static bft_status append(struct life *life, bool copy)
{
    size_t len = 8 + (random_below(12) == 0 ? random_below(3 * SEGMENT)
                                            : random_below(900));
    struct bfti_frame *frame;
    uint64_t lsn, end, id = ++next_id;
    bft_status status = BFT_OK;
    void *payload;

    assert_true(life->count < FRAMES_MAX);
    assert_int_equal(BFT_OK,
                     bfti_frame_create(life->wal, 1, len, &frame, &payload));
    memset(payload, (int)(id & 0xff), len);
    memcpy(payload, &id, sizeof(id));
    bfti_frame_seal(life->wal, frame);
    bfti_wal_enter(life->wal, &life->thread);
    bfti_wal_link(life->wal, &life->thread, frame, &lsn, &end);
    life->frame[life->count].id = id;
    life->frame[life->count].lsn = lsn;
    life->frame[life->count++].end = end;
    if (copy) {
        status = bfti_wal_copy(life->wal, &life->thread, end);
        if (status == BFT_OK)
            life->buffered = end;
    }
    bfti_wal_leave(life->wal, &life->thread);
    return status;
}

static bft_status commit(struct life *life)
{
    uint64_t end = bfti_wal_end(life->wal);
    bft_status status = bfti_wal_sync(life->wal, &life->thread, end);

    if (status == BFT_OK)
        life->acked = life->buffered = end;
    return status;
}

/* A superblock: what it says is durable before log is dropped. */
static bft_status checkpoint(struct life *life)
{
    bft_status status = commit(life);
    uint64_t lsn;

    if (status != BFT_OK || life->count == 0)
        return status;
    lsn = life->frame[life->count - 1 - random_below(life->count) / 2].lsn;
    if (lsn > life->redo)
        life->redo = lsn;
    life->mark = life->acked;
    return bfti_wal_drop_below(life->wal, life->redo);
}

static bft_status live(struct life *life, unsigned operations)
{
    bft_status status = BFT_OK;

    for (unsigned i = 0; status == BFT_OK && i < operations; i++) {
        switch (random_below(10)) {
        case 0:
            status = commit(life);
            break;
        case 1:
            status = random_below(3) == 0 ? checkpoint(life) : BFT_OK;
            break;
        case 2:
            status = bfti_wal_prepare(life->wal);
            break;
        default:
            status = append(life, random_below(3) != 0);
        }
    }
    return status;
}

/* --- what comes back ----------------------------------------------------------- */

struct check {
    const struct life *life;
    unsigned first, count;
};

static bft_status check_frame(void *arg, uint64_t lsn, uint8_t type,
                              const void *payload, size_t len)
{
    struct check *check = arg;
    const struct life *life = check->life;
    unsigned i = check->first + check->count++;
    const uint8_t *bytes = payload;
    uint64_t id;

    (void)type;
    memcpy(&id, payload, sizeof(id));
    if (i >= life->count || life->frame[i].lsn != lsn ||
        life->frame[i].id != id)
        fail_msg("frame %llu at %llu is no part of the log's history",
                 (unsigned long long)id, (unsigned long long)lsn);
    for (size_t k = sizeof(id); k < len; k++)
        assert_int_equal(id & 0xff, bytes[k]);
    return BFT_OK;
}

/* Scan the disk of LIFE, whose history is given, and cut the history to what
 * was found.  MUST: all frames up to there are to be found. */
static void scan(struct life *life, uint64_t must)
{
    struct check check = {.life = life};
    struct bfti_wal_found found;
    bft_status status;
    char text[300];

    while (check.first < life->count &&
           life->frame[check.first].lsn < life->redo)
        check.first++;
    status = bfti_wal_scan(&life->options, life->redo, life->mark, check_frame,
                           &check, &found);
    if (status != BFT_OK) {
        (void)bft_last_error(text, sizeof(text));
        fail_msg("false alarm: %s", text);
    }
    if (found.end < must)
        fail_msg("the log ends at %llu, %llu was acknowledged",
                 (unsigned long long)found.end, (unsigned long long)must);
    assert_true(found.max_incarnation <= life->incarnation);
    memmove(life->frame, life->frame + check.first,
            check.count * sizeof(life->frame[0]));
    life->count = check.count;
    life->acked = life->buffered = found.end;
}

static bft_status reopen(struct life *life)
{
    uint64_t from = life->mark > life->redo ? life->mark : life->redo;
    bft_status status;

    /* The new incarnation is in a superblock before the log takes work. */
    life->incarnation++;
    status = bfti_wal_open(&life->options, life->redo, from, life->acked,
                           life->incarnation, &life->wal);
    if (status == BFT_OK) {
        memset(&life->thread, 0, sizeof(life->thread));
        bfti_wal_attach(life->wal, &life->thread);
    }
    return status;
}

/* The life that begins after a crash of LIFE now. */
static struct life *crash(const struct life *life, enum bfti_sim_policy policy)
{
    struct life *after = malloc(sizeof(*after));

    assert_non_null(after);
    *after = *life;
    after->wal = NULL;
    assert_int_equal(
        BFT_OK, bfti_sim_image(life->sim, policy, random_next(), &after->sim));
    after->options.vfs = after->sim;
    if (after->options.map)
        bfti_sim_set_map(after->sim, true);
    return after;
}

static void life_end(struct life *life)
{
    bfti_wal_close(life->wal);
    bfti_vfs_sim_destroy(life->sim);
    free(life);
}

static uint64_t promised(const struct life *life, enum bfti_sim_policy policy)
{
    return policy == BFTI_SIM_KILL ? life->buffered : life->acked;
}

static unsigned crashes, cuts; /* cuts: in the middle of a recovery */

/* Recovery may crash as well, at any of its steps; what was there before it
 * is there after it. */
struct recovery {
    struct life *life;
    uint64_t must;
    unsigned every;
};

static void crash_in_recovery(void *arg, const struct bfti_sim_step *step)
{
    struct recovery *recovery = arg;
    enum bfti_sim_policy policy =
        (enum bfti_sim_policy)random_below(BFTI_SIM_POLICIES);
    struct life *after;

    (void)step;
    if (random_below(recovery->every) != 0)
        return;
    cuts++;
    after = crash(recovery->life, policy);
    scan(after, recovery->must);
    assert_int_equal(BFT_OK, reopen(after));
    life_end(after);
}

/* Crash LIFE now; recover, with crashes; go on, and crash once more. */
static void crash_and_check(const struct life *life)
{
    enum bfti_sim_policy policy =
        (enum bfti_sim_policy)random_below(BFTI_SIM_POLICIES);
    struct life *after = crash(life, policy), *last;
    struct recovery recovery = {.life = after, .every = 6};

    crashes++;
    scan(after, promised(life, policy));
    /* What recovery accepted counts as durable once it has opened the log, not
     * before: until then only what was acknowledged must survive. */
    recovery.must = life->acked;
    bfti_sim_on_step(after->sim, crash_in_recovery, &recovery);
    assert_int_equal(BFT_OK, reopen(after));
    bfti_sim_on_step(after->sim, NULL, NULL);

    assert_int_equal(BFT_OK, live(after, (unsigned)random_below(12)));
    policy = (enum bfti_sim_policy)random_below(BFTI_SIM_POLICIES);
    last = crash(after, policy);
    scan(last, promised(after, policy));
    life_end(last);
    life_end(after);
}

/* --- tests --------------------------------------------------------------------- */

static struct life *life_begin(bool map)
{
    struct life *life = calloc(1, sizeof(*life));

    assert_non_null(life);
    life->sim = bfti_vfs_sim_create(bfti_env_system(), random_next());
    assert_non_null(life->sim);
    assert_int_equal(BFT_OK, life->sim->ops->make_dir(life->sim, dir));
    assert_int_equal(BFT_OK, life->sim->ops->sync_dir(life->sim, ""));
    bfti_sim_set_map(life->sim, map);
    options_set(life, map);
    return life;
}

static void crash_now_and_then(void *arg, const struct bfti_sim_step *step)
{
    (void)step;
    if (random_below(10) == 0)
        crash_and_check(arg);
}

static void check_lives(bool map, unsigned lives)
{
    random_start();
    crashes = cuts = 0;
    for (unsigned i = 0; i < lives; i++) {
        struct life *life = life_begin(map);

        assert_int_equal(BFT_OK, reopen(life));
        bfti_sim_on_step(life->sim, crash_now_and_then, life);
        assert_int_equal(BFT_OK, live(life, 80));
        bfti_sim_on_step(life->sim, NULL, NULL);
        crash_and_check(life);
        life_end(life);
    }
    tally(TALLY_IMAGES, crashes);
    tally(TALLY_CUTS, cuts);
}

static void nothing_acknowledged_is_lost(void **state)
{
    (void)state;
    check_lives(false, 40);
}

static void nothing_acknowledged_is_lost_from_a_mapped_log(void **state)
{
    (void)state;
    check_lives(true, 40);
}

/* A sync fails, and the system forgets what it should have written; the
 * program is killed, and recovery reads from the cache what the disk does not
 * have; then the power goes. */
static void what_recovery_accepts_survives_a_power_cut(void **state)
{
    enum { CUTS = 300 };
    unsigned poisoned = 0;

    (void)state;
    random_start();
    for (unsigned i = 0; i < CUTS; i++) {
        struct life *life = life_begin(false), *killed, *cut;
        struct bfti_sim_fault fault = {.ops = BFTI_SIM_SYNC,
                                       .nth = 1 + random_below(8),
                                       .harm = BFTI_SIM_REFUSE,
                                       .status = BFT_IO};

        assert_int_equal(BFT_OK, reopen(life));
        bfti_sim_fail(life->sim, &fault);
        if (live(life, 60) != BFT_OK && bfti_wal_poisoned(life->wal)) {
            bfti_sim_heal(life->sim);
            assert_int_equal(BFT_POISONED, commit(life));
            poisoned++;
        }
        bfti_sim_heal(life->sim);
        killed = crash(life, BFTI_SIM_KILL);
        scan(killed, life->buffered);
        assert_int_equal(BFT_OK, reopen(killed));
        cut = crash(killed, BFTI_SIM_DROP);
        scan(cut, killed->acked);
        life_end(cut);
        life_end(killed);
        life_end(life);
    }
    tally(TALLY_IMAGES, CUTS);
    assert_true(poisoned > 50);
}

/* Every call in turn fails once: the caller is told, nothing that was promised
 * is lost, and the next opening finds a log. */
static void check_failures(unsigned ops, enum bfti_sim_harm harm)
{
    uint64_t struck = 1;

    random_start();
    for (uint64_t n = 1; struck > 0; n++) {
        struct life *life = life_begin(false), *after;
        struct bfti_sim_fault fault = {.ops = ops,
                                       .nth = n,
                                       .harm = harm,
                                       .status = n % 3 ? BFT_IO : BFT_NO_SPACE};
        bft_status status;

        bfti_sim_fail(life->sim, &fault);
        status = reopen(life);
        if (status == BFT_OK)
            status = live(life, 60);
        struck = bfti_sim_struck(life->sim);
        bfti_sim_heal(life->sim);
        assert_int_equal(struck > 0 ? fault.status : BFT_OK, status);
        after = crash(life, BFTI_SIM_DROP);
        if (life->wal != NULL)
            scan(after, life->acked);
        assert_int_equal(BFT_OK, reopen(after));
        life_end(after);
        life_end(life);
        if (struck == 0)
            tally(TALLY_FAULTS, n - 1);
    }
}

static void every_refused_call_is_told(void **state)
{
    (void)state;
    check_failures(BFTI_SIM_ALL, BFTI_SIM_REFUSE);
}

static void every_write_done_in_part_is_told(void **state)
{
    (void)state;
    check_failures(BFTI_SIM_WRITE, BFTI_SIM_PART);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_acknowledged_is_lost),
        cmocka_unit_test(nothing_acknowledged_is_lost_from_a_mapped_log),
        cmocka_unit_test(what_recovery_accepts_survives_a_power_cut),
        cmocka_unit_test(every_refused_call_is_told),
        cmocka_unit_test(every_write_done_in_part_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
