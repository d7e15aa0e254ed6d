/*
 * The engine on the real file system, killed: in each round a child writes with
 * two threads, and tells over a pipe what was accepted; it is killed at some
 * moment, and the next opening finds all that it told of.  Each opening has other
 * options, which the seed draws: what survives depends on none but durability, nor
 * does who finds it.
 *
 * The parent has the database open only while there is no child, so the child
 * inherits a process of one thread.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "bftree.h"
#include "random.h"
#include "tally.h"

enum {
    DATABASES = 4,
    ROUNDS = 25, /* of each database */
    WRITERS = 2,
    KEYS = 400,      /* of each writer */
    PAIRS = 20,      /* of keys that a batch sets to one value */
    NOTES_MAX = 500, /* in a round, at random, but in every fifth: */
    NOTES_MANY = 4000,
    VALUE_MAX = 4000,
};

/* What a writer did, told after the call returned.  A number is given to each
 * change of a writer; the value is made of it. */
struct note {
    uint32_t writer, key;
    uint64_t number; /* 0: deleted */
};
_Static_assert(sizeof(struct note) == 16, "written to a pipe at once");

/* What the parent knows: the number told of last, or found. */
static uint64_t known[WRITERS][KEYS];
static uint64_t highest[WRITERS];

/* --- records --------------------------------------------------------------- */

static bft_slice key_of(uint32_t writer, uint32_t key, char buf[32])
{
    int n = snprintf(buf, 32, "%04x-%u-%u",
                     (unsigned)(random_mix(key + 1) & 0xffff), writer, key);
    return (bft_slice){buf, (size_t)n};
}

static size_t value_of(uint64_t number, uint8_t buf[VALUE_MAX])
{
    size_t len = 16 + random_mix(number) %
                          (random_mix(number) % 16 ? 100 : VALUE_MAX - 16);

    memset(buf, (int)(number & 0xff), len);
    memcpy(buf, &number, sizeof(number));
    return len;
}

/* What a database keeps for its life. */
static uint32_t leaf_bytes[WRITERS];
static uint64_t segment_bytes;

static void draw_database(void)
{
    static const uint32_t leaves[] = {512, 512, 1024, 4096, 8192};

    for (unsigned i = 0; i < WRITERS; i++)
        leaf_bytes[i] = leaves[random_below(5)];
    segment_bytes = random_below(3) ? 64 << 10 : 128 << 10;
    print_message("a database: leaves %u and %u, segments %llu\n",
                  leaf_bytes[0], leaf_bytes[1],
                  (unsigned long long)segment_bytes);
}

/* How a child, or then its parent, opens it. */
static bft_options draw_how(const char *who)
{
    static const bft_durability some[] = {BFT_NONE, BFT_BUFFERED, BFT_BUFFERED,
                                          BFT_BUFFERED, BFT_SYNC};
    static const uint32_t promotes[] = {0, 1, 100, 101};
    bft_options how = {.size = sizeof(how),
                       .durability = some[random_below(5)],
                       .backend =
                           (bft_backend)(BFT_BACKEND_POSIX + random_below(3)),
                       .memory_bytes = (uint64_t)(256 << 10) << random_below(4),
                       .log_bytes = (128 << 10) + random_below(8) * (64 << 10),
                       .promote_percent = promotes[random_below(4)],
                       .compress = random_below(3) == 0,
                       .no_threads = random_below(4) == 0};

    how.log_segment_bytes = segment_bytes;
    print_message("%s: durability %d, backend %d, memory %llu, log %llu, "
                  "promote %u%s%s\n",
                  who, (int)how.durability, (int)how.backend,
                  (unsigned long long)how.memory_bytes,
                  (unsigned long long)how.log_bytes, how.promote_percent,
                  how.compress ? ", compress" : "",
                  how.no_threads ? ", no threads" : "");
    return how;
}

static bft_status open_db(const char *path, const bft_options *how, bft_db **db,
                          bft_tree *tree[WRITERS])
{
    bft_status status = bft_open(path, how, db);

    for (unsigned i = 0; status == BFT_OK && i < WRITERS; i++) {
        bft_tree_options options = {.size = sizeof(options),
                                    .leaf_bytes = leaf_bytes[i]};

        status = bft_tree_open(*db, i ? "second" : "first", &options, &tree[i]);
    }
    return status;
}

/* --- the child ------------------------------------------------------------- */

struct writer {
    pthread_t thread;
    uint32_t id;
    int pipe;
    bool syncs; /* what it writes survives nothing by itself */
    bft_db *db;
    bft_tree **tree;
    uint64_t number, seed;
};

static void die(const char *what, bft_status status)
{
    char text[300] = "";

    (void)bft_last_error(text, sizeof(text));
    fprintf(stderr, "child: %s: %d: %s\n", what, (int)status, text);
    _exit(3);
}

static void tell(const struct writer *w, const struct note *note, size_t n)
{
    size_t len = n * sizeof(*note);
    if (write(w->pipe, note, len) != (ssize_t)len)
        _exit(4);
}

/* The last 2 * PAIRS keys go in pairs, one in each tree. */
static bft_status write_pair(struct writer *w, uint64_t number)
{
    uint32_t pair = (uint32_t)(random_mix(w->seed ^ number) % PAIRS);
    struct note note[2] = {{w->id, KEYS - 1 - 2 * pair, number},
                           {w->id, KEYS - 2 - 2 * pair, number}};
    uint8_t value[VALUE_MAX];
    size_t len = value_of(number, value);
    bft_batch *batch;
    bft_status status = bft_batch_create(w->db, &batch);

    for (unsigned i = 0; status == BFT_OK && i < 2; i++) {
        char key[32];
        status =
            bft_batch_put(batch, w->tree[i], key_of(w->id, note[i].key, key),
                          (bft_slice){value, len});
    }
    if (status == BFT_OK)
        status = bft_batch_commit(batch, BFT_DEFAULT, NULL);
    bft_batch_free(batch);
    if (status == BFT_OK && w->syncs)
        status = bft_sync(w->db);
    if (status == BFT_OK)
        tell(w, note, 2);
    return status;
}

static bft_status write_one(struct writer *w, uint64_t number)
{
    uint64_t bits = random_mix(w->seed + number);
    struct note note = {w->id, (uint32_t)(bits % (KEYS - 2 * PAIRS)), number};
    bft_tree *tree = w->tree[note.key % 2];
    uint8_t value[VALUE_MAX];
    char key[32];
    bft_status status;

    if (bits >> 60 == 0) {
        note.number = 0;
        status = bft_delete(tree, key_of(w->id, note.key, key));
    } else {
        status = bft_put(tree, key_of(w->id, note.key, key),
                         (bft_slice){value, value_of(number, value)});
    }
    if (status == BFT_OK && w->syncs)
        status = bft_sync(w->db);
    if (status == BFT_OK)
        tell(w, &note, 1);
    return status;
}

static void *write_on(void *arg)
{
    struct writer *w = arg;

    for (;;) {
        uint64_t number = ++w->number;
        bft_status status = random_mix(w->seed + number) >> 56 < 50
                                ? write_pair(w, number)
                                : write_one(w, number);
        if (status != BFT_OK)
            die("write", status);
    }
    return NULL;
}

static void child(const char *path, int pipe, uint64_t seed,
                  const bft_options *how)
{
    struct writer w[WRITERS];
    bft_tree *tree[WRITERS];
    bft_db *db;
    bft_status status = open_db(path, how, &db, tree);

    if (status != BFT_OK)
        die("open", status);
    for (uint32_t i = 0; i < WRITERS; i++) {
        /* Numbers that were begun and not told of are passed by. */
        w[i] = (struct writer){.id = i,
                               .pipe = pipe,
                               .syncs = how->durability == BFT_NONE,
                               .db = db,
                               .tree = tree,
                               .number = highest[i] + 1000,
                               .seed = seed + i};
        if (pthread_create(&w[i].thread, NULL, write_on, &w[i]) != 0)
            _exit(5);
    }
    for (;;) {
        (void)usleep(3000);
        if (random_mix(++seed) % 4 == 0) {
            status = bft_checkpoint(db);
            if (status != BFT_OK)
                die("checkpoint", status);
        }
    }
}

/* --- the parent ------------------------------------------------------------ */

static unsigned changes;

static bool take_note(int pipe)
{
    struct note note;
    size_t got = 0;

    while (got < sizeof(note)) {
        ssize_t n = read(pipe, (uint8_t *)&note + got, sizeof(note) - got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        got += (size_t)n;
    }
    assert_true(note.writer < WRITERS && note.key < KEYS);
    known[note.writer][note.key] = note.number;
    if (note.number > highest[note.writer])
        highest[note.writer] = note.number;
    changes++;
    return true;
}

/* The number that a value was made of, checked byte by byte. */
static uint64_t number_of(const uint8_t *value, size_t len)
{
    uint8_t made[VALUE_MAX];
    uint64_t number;

    assert_true(len >= 16 && len < VALUE_MAX);
    memcpy(&number, value, sizeof(number));
    assert_int_equal(value_of(number, made), len);
    assert_memory_equal(made, value, len);
    return number;
}

static uint64_t read_key(bft_tree *tree, uint32_t writer, uint32_t k)
{
    char key[32], text[300];
    void *value;
    size_t len;
    uint64_t number = 0;
    bft_status status =
        bft_get_copy(tree, key_of(writer, k, key), &value, &len);

    if (status == BFT_OK)
        number = number_of(value, len);
    bft_free(value);
    if (status == BFT_OK || status == BFT_NOT_FOUND)
        return number;
    (void)bft_last_error(text, sizeof(text));
    fail_msg("get: %d: %s", (int)status, text);
    return 0;
}

/* Of each writer one change may have been done and not told of: one whose
 * number is higher than all told, or a deletion. */
static void check_writer(bft_tree *tree[WRITERS], uint32_t writer)
{
    uint64_t found[KEYS];
    uint64_t untold = 0;
    unsigned deleted = 0;

    for (uint32_t k = 0; k < KEYS; k++) {
        bool pair = k >= KEYS - 2 * PAIRS;
        uint64_t told = known[writer][k];

        found[k] = read_key(tree[pair ? (k + 1) % 2 : k % 2], writer, k);
        if (pair && k % 2 && found[k] != found[k - 1])
            fail_msg("half of a batch: keys %u and %u of writer %u", k - 1, k,
                     writer);
        if (found[k] == told)
            continue;
        if (found[k] == 0 && !pair) {
            deleted++;
        } else if (found[k] <= highest[writer] ||
                   (untold && untold != found[k])) {
            fail_msg("key %u of writer %u: %llu was told, %llu is there", k,
                     writer, (unsigned long long)told,
                     (unsigned long long)found[k]);
        } else {
            untold = found[k];
        }
        known[writer][k] = found[k];
    }
    if (deleted + (untold != 0) > 1)
        fail_msg("writer %u: %u keys are gone", writer, deleted);
    if (untold > highest[writer])
        highest[writer] = untold;
}

static void open_and_check(const char *path)
{
    bft_options how = draw_how("  found");
    bft_tree *tree[WRITERS];
    bft_db *db;
    char text[300];
    bft_status status = open_db(path, &how, &db, tree);

    if (status == BFT_OK)
        status = bft_verify(db);
    if (status != BFT_OK) {
        (void)bft_last_error(text, sizeof(text));
        fail_msg("open: %d: %s", (int)status, text);
    }
    for (uint32_t i = 0; i < WRITERS; i++)
        check_writer(tree, i);
    assert_int_equal(BFT_OK, bft_close(db));
}

/* Notes up to a random number of them, then a kill, at once or a moment later;
 * then the notes that were on their way. */
static void kill_one(const char *path)
{
    bft_options how = draw_how("killed");
    int pipes[2], status;
    uint64_t seed = random_next();
    size_t notes = random_below(random_below(5) ? NOTES_MAX : NOTES_MANY);
    pid_t pid;

    assert_int_equal(0, pipe(pipes));
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)close(pipes[0]);
        child(path, pipes[1], seed, &how);
    }
    (void)close(pipes[1]);
    for (size_t i = 0; i < notes && take_note(pipes[0]); i++) {
    }
    (void)usleep((useconds_t)random_below(2000));
    (void)kill(pid, SIGKILL);
    while (take_note(pipes[0])) {
    }
    (void)close(pipes[0]);
    assert_int_equal(pid, waitpid(pid, &status, 0));
    if (!WIFSIGNALED(status))
        fail_msg("the child ended by itself: %d", WEXITSTATUS(status));
    assert_int_equal(SIGKILL, WTERMSIG(status)); /* and not by an assertion */
}

static void kill_a_database(const char *dir, unsigned number)
{
    char path[240];

    snprintf(path, sizeof(path), "%s/%u", dir, number);
    memset(known, 0, sizeof(known));
    memset(highest, 0, sizeof(highest));
    draw_database();
    for (unsigned i = 0; i < ROUNDS; i++) {
        kill_one(path);
        open_and_check(path);
    }
}

static void a_kill_loses_nothing_that_was_accepted(void **state)
{
    char dir[200], command[300];
    const char *tmp = getenv("TMPDIR");

    (void)state;
    random_start();
    snprintf(dir, sizeof(dir), "%s/kill-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(dir));
    for (unsigned i = 0; i < DATABASES; i++)
        kill_a_database(dir, i);
    tally(TALLY_KILLS, (uint64_t)DATABASES * ROUNDS);
    print_message("%u changes\n", changes);
    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    assert_int_equal(0, system(command));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_kill_loses_nothing_that_was_accepted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
