#include "power_life.h"

#include <assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "power_log.h"
#include "random.h"

enum {
    KEYS = 300, /* of each tree */
    BATCH_MAX = 12,
    VALUE_MAX = 200 << 10,
};

static unsigned roll(struct power *p, size_t sides)
{
    return (unsigned)(random_of(&p->rng) % sides);
}

void power_mark(const struct power *p, char letter, uint64_t number)
{
    char text[POWER_MARK_MAX];
    int len = snprintf(text, sizeof(text), "%c %" PRIu64 "\n", letter, number);

    if (p->dir && write(p->marks, text, (size_t)len) != len) {
        perror("marks");
        exit(2);
    }
}

/* --- calls ---------------------------------------------------------------- */

static void must(bft_status status, const char *what)
{
    char text[400] = "";

    if (status == BFT_OK)
        return;
    (void)bft_last_error(text, sizeof(text));
    fprintf(stderr, "%s: %d (%s): %s\n", what, (int)status,
            bft_strerror(status), text);
    exit(3);
}

/* Background steps have nobody to return to.  A kernel may refuse a backend. */
static void report(void *ctx, bft_status status, const char *text)
{
    (void)ctx;
    if (status == BFT_UNSUPPORTED)
        return;
    fprintf(stderr, "a background step failed: %d: %s\n", (int)status, text);
    _exit(3);
}

static void begin(struct power *p)
{
    crash_begin(p->oracle);
    power_mark(p, 'b', p->oracle->issued);
}

/* All commits so far were acknowledged so. */
static void acknowledged(struct power *p, bft_durability durability)
{
    if (durability == BFT_DEFAULT)
        durability = p->options.durability;
    crash_acknowledge(p->oracle, durability);
    if (durability == BFT_SYNC)
        power_mark(p, 's', p->oracle->issued);
}

bft_options power_options(uint64_t *rng)
{
    static const bft_durability some[] = {BFT_NONE, BFT_BUFFERED, BFT_BUFFERED,
                                          BFT_SYNC};

    /* So little of all that leaves leave memory, and segments of the log are
     * used again, after some hundred commits. */
    return (bft_options){
        .size = sizeof(bft_options),
        .memory_bytes = 256 << 10,
        .log_bytes = 128 << 10,
        .log_segment_bytes = 64 << 10,
        .leaf_bytes = 1024,
        .durability = some[random_of(rng) % 4],
        .compress = random_of(rng) % 4 == 0,
        .no_threads = random_of(rng) % 3 == 0,
        .backend = (bft_backend)(BFT_BACKEND_POSIX + random_of(rng) % 3),
        .report = report,
    };
}

/* --- commits -------------------------------------------------------------- */

static size_t value_len(struct power *p)
{
    switch (roll(p, 16)) {
    case 0:
        return roll(p, 30);
    case 1:
    case 2:
        return 100 + roll(p, 200);
    case 3:
        return roll(p, 8) ? 400 + roll(p, 6000) : 6000 + roll(p, 100000);
    default:
        return 40 + roll(p, 60);
    }
}

static void have_tree(struct power *p, unsigned t)
{
    bft_tree_options options = {.size = sizeof(options),
                                .leaf_bytes = 512u << roll(p, 5)};

    if (crash_has_tree(p->oracle, t))
        return;
    begin(p);
    crash_create_tree(p->oracle, t);
    if (p->db)
        must(bft_tree_open(p->db, crash_tree_name(t), &options, &p->tree[t]),
             "create a tree");
    acknowledged(p, BFT_DEFAULT);
}

static void put(struct power *p)
{
    unsigned t = roll(p, CRASH_TREES), k = roll(p, KEYS);
    size_t len = roll(p, 60) ? value_len(p) : VALUE_MAX;
    uint8_t key[CRASH_KEY_MAX];

    have_tree(p, t);
    begin(p);
    crash_put(p->oracle, t, k, len);
    if (p->db) {
        crash_value(p->oracle, t, k, p->value, len);
        must(bft_put(p->tree[t], crash_key(k, key), (bft_slice){p->value, len}),
             "put");
    }
    acknowledged(p, BFT_DEFAULT);
}

static void delete_one(struct power *p)
{
    unsigned t = roll(p, CRASH_TREES), k = roll(p, KEYS);
    uint8_t key[CRASH_KEY_MAX];

    have_tree(p, t);
    begin(p);
    crash_delete(p->oracle, t, k);
    if (p->db)
        must(bft_delete(p->tree[t], crash_key(k, key)), "delete");
    acknowledged(p, BFT_DEFAULT);
}

static int compare(bft_slice a, bft_slice b)
{
    int order = memcmp(a.data, b.data, a.len < b.len ? a.len : b.len);
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

static void delete_range(struct power *p)
{
    unsigned t = roll(p, CRASH_TREES);
    uint8_t low[CRASH_KEY_MAX], high[CRASH_KEY_MAX], at[CRASH_KEY_MAX];
    bft_slice from = crash_key(roll(p, KEYS), low);
    bft_slice to = crash_key(roll(p, KEYS), high);

    have_tree(p, t);
    if (compare(from, to) > 0) {
        bft_slice swap = from;
        from = to;
        to = swap;
    }
    begin(p);
    for (unsigned k = 0; k < KEYS; k++) {
        bft_slice key = crash_key(k, at);
        if (crash_has(p->oracle, t, k) && compare(from, key) <= 0 &&
            compare(key, to) < 0)
            crash_delete(p->oracle, t, k);
    }
    if (p->db)
        must(bft_delete_range(p->tree[t], from, to, NULL), "delete a range");
    acknowledged(p, BFT_DEFAULT);
}

static void batch(struct power *p, bft_durability durability)
{
    unsigned changes = 1 + roll(p, BATCH_MAX);
    bft_batch *b = NULL;

    for (unsigned t = 0; t < CRASH_TREES; t++)
        have_tree(p, t);
    begin(p);
    if (p->db)
        must(bft_batch_create(p->db, &b), "make a batch");
    for (unsigned i = 0; i < changes; i++) {
        unsigned t = roll(p, CRASH_TREES), k = roll(p, KEYS);
        bool gone = roll(p, 5) == 0;
        size_t len = 20 + roll(p, 400);
        uint8_t key[CRASH_KEY_MAX];

        if (gone)
            crash_delete(p->oracle, t, k);
        else
            crash_put(p->oracle, t, k, len);
        if (!p->db)
            continue;
        crash_value(p->oracle, t, k, p->value, len);
        must(gone ? bft_batch_delete(b, p->tree[t], crash_key(k, key))
                  : bft_batch_put(b, p->tree[t], crash_key(k, key),
                                  (bft_slice){p->value, len}),
             "fill a batch");
    }
    if (p->db)
        must(bft_batch_commit(b, durability, NULL), "commit");
    bft_batch_free(b);
    acknowledged(p, durability);
}

/* A tree goes, or all that it holds. */
static void empty_tree(struct power *p)
{
    unsigned t = roll(p, CRASH_TREES);
    bool drop = roll(p, 2);

    have_tree(p, t);
    begin(p);
    if (drop)
        crash_drop_tree(p->oracle, t);
    else
        crash_truncate_tree(p->oracle, t);
    if (p->db && drop)
        must(bft_tree_drop(p->db, crash_tree_name(t)), "drop a tree");
    else if (p->db)
        must(bft_tree_truncate(p->db, crash_tree_name(t)), "truncate a tree");
    acknowledged(p, BFT_DEFAULT);
}

/* --- beside commits ------------------------------------------------------- */

static void make_durable(struct power *p)
{
    bool image = roll(p, 3) > 0;

    if (p->db)
        must(image ? bft_checkpoint(p->db) : bft_sync(p->db), "make durable");
    acknowledged(p, BFT_SYNC);
}

/* What a kernel does by itself after half a minute: it writes pages of one file
 * or another, and does not flush the device. */
static void write_back(struct power *p)
{
    unsigned which = roll(p, 8);
    struct dirent *entry;
    DIR *dir;

    if (!p->db)
        return;
    dir = opendir(p->dir);
    while (dir && (entry = readdir(dir)) != NULL) {
        int fd;

        if (entry->d_name[0] == '.' || which-- % 2)
            continue;
        fd = openat(dirfd(dir), entry->d_name, O_RDONLY | O_CLOEXEC);
        if (fd >= 0) {
            (void)sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
            (void)close(fd);
        }
    }
    if (dir)
        (void)closedir(dir);
}

static void step(struct power *p)
{
    unsigned side = roll(p, 100);

    if (side < 40)
        put(p);
    else if (side < 50)
        delete_one(p);
    else if (side < 80)
        batch(p, (bft_durability)roll(p, 4));
    else if (side < 92)
        write_back(p);
    else if (side < 96)
        make_durable(p);
    else if (side < 98)
        delete_range(p);
    else if (roll(p, 4) == 0)
        empty_tree(p);
}

/* --- lives ---------------------------------------------------------------- */

void power_begin(struct power *p, uint64_t seed, unsigned steps)
{
    *p = (struct power){.oracle = crash_oracle_make(KEYS),
                        .rng = random_mix(seed + 1),
                        .steps = steps,
                        .marks = -1,
                        .value = malloc(VALUE_MAX)};
    assert(p->value);
}

void power_end(struct power *p)
{
    crash_oracle_free(p->oracle);
    free(p->value);
}

static void open_all(struct power *p)
{
    bft_tree_options must_exist = {.size = sizeof(must_exist),
                                   .must_exist = true};

    must(bft_open(p->dir, &p->options, &p->db), "open");
    for (unsigned t = 0; t < CRASH_TREES; t++)
        if (crash_has_tree(p->oracle, t))
            must(bft_tree_open(p->db, crash_tree_name(t), &must_exist,
                               &p->tree[t]),
                 "open a tree");
}

bool power_live(struct power *p)
{
    unsigned steps = p->steps / 2 + roll(p, p->steps);
    bool killed = roll(p, 2);

    p->lives++;
    p->options = power_options(&p->rng);
    if (p->dir)
        open_all(p);
    while (steps-- > 0)
        step(p);
    if (killed) {
        /* Behind it nothing is lost with the process, so what comes next is
         * known. */
        batch(p, BFT_BUFFERED);
        return true;
    }
    if (p->db)
        must(bft_close(p->db), "close");
    p->db = NULL;
    acknowledged(p, BFT_SYNC);
    return false;
}
