/*
 * The checker of histories: it rejects what no order explains, however subtle,
 * and accepts what one does, however odd it looks.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "linear_check.h"
#include "random.h"

struct sample {
    const char *name, *text;
};

static const struct sample bad[] = {
    {"a stale read", "start a=1; A 1 2 put a=2; B 3 4 get a=1"},
    {"a read of what was deleted", "start a=1; A 1 2 delete a; B 3 4 get a=1"},
    {"a lost update: the second of two writes, one after the other, is gone",
     "A 1 2 put a=1; B 3 4 put a=2; C 5 6 get a=1"},
    {"a read from the future: the write is called behind its end",
     "A 1 2 get a=1; B 3 4 put a=1"},
    {"a value that nobody wrote", "A 1 4 put a=1; B 2 3 get a=9"},
    {"a value of another key", "A 1 2 put a=1; A 3 4 put b=2; B 5 6 get b=1"},
    {"half a batch, the second key old",
     "start a=1 b=1; A 1 9 batch a=2 b=2; B 2 3 get a=2; B 4 5 get b=1"},
    {"half a batch, seen by two threads",
     "start a=1 b=1; A 1 9 batch a=2 b=2; B 2 3 get b=2; C 4 5 get a=1"},
    {"half a batch, when it has returned",
     "start a=1 b=1; A 1 2 batch a=2 b=2; B 3 4 get a=2; B 5 6 get b=1"},
    {"half a batch survived a crash",
     "start a=1 b=1; A 1 - batch a=2 b=2; B 10 11 get a=2; B 12 13 get b=1"},
    {"two batches, each on top of the other",
     "A 1 4 batch a=1 b=1; B 2 3 batch a=2 b=2; C 5 6 get a=1;"
     "C 7 8 get b=2"},
    {"two batches that share no key with the reader that sees them turned",
     "start a=0 b=0 c=0; A 1 2 batch a=1 c=1; A 3 4 batch b=2 c=2;"
     "B 5 6 get b=2; B 7 8 get a=-"},
    {"a deletion reappears: old, gone, old again",
     "start a=1; A 1 2 delete a; B 3 4 get a=-; B 5 6 get a=1"},
    {"a deletion that was lost",
     "start a=1; A 1 8 delete a; B 2 3 get a=-; C 4 5 get a=1"},
    {"insert-if-absent succeeds twice", "A 1 4 insert a=1; B 2 3 insert a=2"},
    {"insert-if-absent succeeds where a record is",
     "A 1 2 put a=1; B 3 4 insert a=2"},
    {"insert-if-absent is refused where none ever was",
     "A 1 2 exists a; B 3 4 put a=1"},
    {"both inserts are refused",
     "A 1 4 exists a; B 2 3 exists a; A 5 6 get a=-"},
    {"two compare-and-swaps from one value",
     "start a=1; A 1 4 replace a:1=2; B 2 3 replace a:1=3"},
    {"two removals of one value",
     "start a=1; A 1 4 replace a:1=-; B 2 3 replace a:1=-"},
    {"a compare-and-swap from a value that is gone",
     "start a=1; A 1 2 put a=2; B 3 4 replace a:1=3"},
    {"a compare-and-swap is refused while nobody writes",
     "start a=1; A 1 2 conflict a:1"},
    {"two reads of one thread, new then old",
     "start a=1; A 1 9 put a=2; B 2 3 get a=2; B 4 5 get a=1"},
    {"two readers see two writes in two orders",
     "A 1 20 put a=1; B 2 19 put a=2; C 3 4 get a=1; C 5 6 get a=2;"
     "D 7 8 get a=1"},
    {"each of two threads misses the write that the other has made before",
     "A 1 2 put a=1; B 3 4 put b=1; A 5 6 get b=-; B 7 8 get a=1"},
    {"two keys that a batch has joined, read as nobody can have",
     "start a=1 b=1; A 1 12 batch a=2 b=2; B 2 11 batch a=3 b=3;"
     "C 3 4 get a=2; C 5 6 get b=3; D 7 8 get a=2"},
    {"a replaced value is back after the swap was seen",
     "start a=1; A 1 10 replace a:1=2; B 2 3 get a=2; C 4 5 conflict a:2"},
    {"an acknowledged write is gone after a crash",
     "A 1 2 put a=1; B 3 - put a=2; C 10 11 get a=-"},
    {"a write that never returned is seen, then not",
     "start a=1; A 1 - put a=2; B 3 4 get a=2; B 5 6 get a=1"},
    {"a failed batch is seen in part, long after",
     "start a=1 b=1; A 1 - batch a=2 b=2; B 2 3 put b=3; C 4 5 get a=2;"
     "C 6 7 get b=3; C 8 9 get b=2; C 10 11 get b=3"},
    {"a swap from what a pending write has set, which is then not there",
     "start a=1; A 1 - put a=2; B 2 3 replace a:2=3; C 4 5 get a=1"},
    {"a chain of swaps with one link twice",
     "start a=1; A 1 9 replace a:1=2; B 2 8 replace a:2=3;"
     "C 3 7 replace a:2=4; D 10 11 get a=4"},

    /* Snapshots. */
    {"read skew: half of a batch in a snapshot",
     "start a=1 b=1; B 1 8 snapshot a:1 b:2; A 2 3 batch a=2 b=2"},
    {"read skew: the second of two writes without the first",
     "start a=1 b=1; B 1 8 snapshot a:1 b:2; A 2 3 put a=2; A 4 5 put b=2"},
    {"a stale snapshot", "start a=1; A 1 2 put a=2; B 3 4 snapshot a:1"},
    {"a snapshot that sees what was written behind it",
     "start a=1; B 1 2 snapshot a:2; A 3 4 put a=2"},
    {"a snapshot with two values of one key",
     "start a=1; B 1 6 snapshot a!; A 2 3 put a=2"},
    {"two snapshots see two writes in two orders: a long fork",
     "start a=1 b=1; A 1 20 put a=2; B 2 19 put b=2;"
     "C 3 4 snapshot a:2 b:1; D 5 6 snapshot a:1 b:2"},
    {"the later snapshot is the older one",
     "start a=1; A 1 20 put a=2; B 2 3 snapshot a:2; C 4 5 snapshot a:1"},
    {"a snapshot has the second of two writes that a reader saw in turn",
     "start a=1 b=1; A 1 12 put b=2; B 2 13 snapshot a:1 b:2;"
     "C 3 4 put a=2; D 5 6 get a=2; D 7 8 get b=1"},
    {"the same of one that another snapshot saw in turn",
     "start a=1 b=1; A 1 12 put b=2; B 2 13 snapshot a:1 b:2;"
     "C 3 4 put a=2; D 5 6 snapshot a:2 b:1"},
    {"a get misses what a snapshot has seen",
     "start a=1; A 1 20 put a=2; B 2 3 snapshot a:2; C 4 5 get a=1"},
    {"a range whose end is removed before its beginning",
     "start a=1 b=1; B 1 8 snapshot a:1 b:-; A 2 3 delete a; A 4 5 delete b"},
    {"half a truncation in a snapshot",
     "start a=1 b=1; B 1 8 snapshot a:- b:1; A 2 3 batch a=- b=-"},
    {"half a bulk load", "A 1 8 commit a:- b:- a=1 b=2; B 2 3 get a=1;"
                         "B 4 5 snapshot a:1 b:-"},
    {"a bulk load of a tree that has a record",
     "start a=1; A 1 2 commit a:- b:-=2"},
    /* Transactions. */
    {"a lost update: two transactions add to one value",
     "start a=1; A 1 2 txn a:1 a=2 commit 5 6; B 3 4 txn a:1 a=3 commit 7 8"},
    {"a lost update, with snapshot isolation",
     "start a=1; A 1 2 isolated a:1 a=2 commit 5 6;"
     "B 3 4 isolated a:1 a=3 commit 7 8"},
    {"a lost update: of a put, by a transaction",
     "start a=1; A 1 2 isolated a:1 a=2 commit 5 6; B 3 4 put a=3"},
    {"write skew of serializable transactions",
     "start a=1 b=1; A 1 2 txn a:1 b:1 a=2 commit 5 6;"
     "B 3 4 txn a:1 b:1 b=2 commit 7 8"},
    {"write skew in a circle of three",
     "start a=1 b=1 c=1; A 1 2 txn a:1 b=2 commit 7 8;"
     "B 3 4 txn b:1 c=2 commit 9 10; C 5 6 txn c:1 a=2 commit 11 12"},
    {"write skew of one that is and one that is not serializable",
     "start a=1 b=1; A 1 2 isolated a:1 b:1 a=2 commit 5 6;"
     "B 3 4 txn a:1 b:1 b=2 commit 7 8"},
    {"a phantom: what was absent is there before the commit",
     "A 1 2 txn a:- b:- b=1 commit 5 6; B 3 4 put a=1"},
    {"two phantoms: each counts none and adds one",
     "A 1 2 txn a:- b:- a=1 commit 5 6; B 3 4 txn a:- b:- b=2 commit 7 8"},
    {"a read that cannot be repeated",
     "start a=1; A 1 2 txn a:1 a:2 abort; B 3 4 put a=2"},
    {"a range that has one more when it is read again",
     "A 1 2 txn a:- b:- a:- b:1 abort; B 3 4 put b=1"},
    {"a dirty read", "start a=1; A 1 2 txn a=2 commit 5 6; B 3 4 get a=2"},
    {"an aborted read", "start a=1; A 1 2 txn a=2 abort; B 3 4 get a=2"},
    {"a read of a transaction that came into conflict",
     "start a=1; A 1 2 txn a=2 conflict; B 3 4 snapshot a:2"},
    {"an intermediate read",
     "start a=1; A 1 2 txn a=2 a=3 commit 3 6; B 4 5 get a=2"},
    {"an own write is not seen", "start a=1; A 1 2 txn a=2 a:1 commit 3 4"},
    {"an own removal is not seen", "start a=1; A 1 2 txn a=- a:1 abort"},
    {"half a commit",
     "start a=1 b=1; A 1 2 txn a=2 b=2 commit 3 8; B 4 5 get a=2;"
     "B 6 7 get b=1"},
    {"half a commit survived a crash",
     "start a=1 b=1; A 1 2 txn a=2 b=2 commit 3 -; B 10 11 get a=2;"
     "B 12 13 get b=1"},
    {"a commit that has returned is not seen",
     "start a=1; A 1 2 txn a=2 commit 3 4; B 5 6 snapshot a:1"},
    {"real time turned: the second commit without the first",
     "A 1 2 txn a=1 commit 3 4; B 5 6 txn b=1 commit 7 8;"
     "C 9 10 snapshot a:- b:1"},
    {"each of two transactions reads what the other writes",
     "start a=1 b=1; A 1 2 txn a=2 b:2 commit 5 6;"
     "B 3 4 txn b=2 a:2 commit 7 8"},
    {"a reader shows that two were not serializable",
     "start a=1 b=1; A 1 2 txn a:1 b:1 a=2 commit 9 10;"
     "B 3 4 txn b:1 b=2 commit 5 6; C 7 8 txn a:1 b:2 abort"},
    {"a swap of what a transaction has read",
     "start a=1; A 1 2 txn a:1 b=1 commit 5 6; B 3 4 replace a:1=2"},
};
static const struct sample good[] = {
    {"nothing happened", ""},
    {"one after the other",
     "A 1 2 put a=1; B 3 4 get a=1; A 5 6 delete a; B 7 8 get a=-"},
    {"a read beside a write may see the old",
     "start a=1; A 1 4 put a=2; B 2 3 get a=1"},
    {"or the new", "start a=1; A 1 4 put a=2; B 2 3 get a=2"},
    {"a read that ends late has seen what was long replaced",
     "start a=1; A 1 20 get a=1; B 2 3 put a=2; B 4 5 put a=3; C 6 7 get a=3"},
    {"two readers beside one write, the later one sees it",
     "start a=1; A 1 9 put a=2; B 2 3 get a=1; C 4 5 get a=2"},
    {"two writes at once, the first called is the last to count",
     "A 1 5 put a=1; B 2 4 put a=2; C 6 7 get a=1"},
    {"a write that begins first and ends first counts last",
     "A 1 3 put a=1; B 2 4 put a=2; C 5 6 get a=1"},
    {"a value that comes back, because it was written again",
     "start a=1; A 1 2 put a=2; B 3 4 get a=2; A 5 6 put a=1; B 7 8 get a=1"},
    {"insert, delete and insert at once, both succeed",
     "A 1 6 insert a=1; B 2 5 insert a=2; C 3 4 delete a; D 7 8 get a=2"},
    {"insert is refused by a record that comes and goes beside it",
     "A 1 2 put a=1; B 3 6 exists a; C 4 5 delete a; D 7 8 get a=-"},
    {"insert is refused by an insert whose call is the later one",
     "A 1 6 exists a; B 2 5 insert a=1"},
    {"two swaps from one value, since it was put again between",
     "start a=1; A 1 9 replace a:1=2; B 2 8 put a=1; C 3 7 replace a:1=3"},
    {"a chain of swaps, called in the wrong order",
     "start a=1; A 1 9 replace a:3=4; B 2 8 replace a:2=3;"
     "C 3 7 replace a:1=2; D 10 11 get a=4"},
    {"a swap is refused since another came first",
     "start a=1; A 1 4 conflict a:1; B 2 3 replace a:1=2"},
    {"a swap is refused in the moment between two writes of its value",
     "start a=1; A 1 8 conflict a:1; B 2 3 put a=2; B 4 5 put a=1;"
     "C 6 7 get a=1"},
    {"a batch is seen whole, or not yet",
     "start a=1 b=1; A 1 9 batch a=2 b=2; B 2 3 get a=1; B 4 5 get b=2;"
     "B 6 7 get a=2"},
    {"old, then new, of a batch, is no half of it",
     "start a=1 b=1; A 1 9 batch a=2 b=2; B 2 3 get a=1; B 4 5 get b=2"},
    {"reads of one call may see a batch come between them",
     "start a=1 b=1; A 2 3 batch a=2 b=2; B 1 4 get a=2; B 1 4 get b=1"},
    {"half of a batch is overwritten",
     "A 1 2 batch a=1 b=1; B 3 4 put a=2; C 5 6 get a=2; C 7 8 get b=1"},
    {"two batches cross in time and not in order",
     "A 1 4 batch a=1 b=1; B 2 5 batch b=2 c=2; C 6 7 get a=1;"
     "C 8 9 get b=1; C 10 11 get c=2"},
    {"three batches joined by their keys, ordered against their calls",
     "A 1 20 batch a=1 b=1; B 2 19 batch b=2 c=2; C 3 18 batch c=3 a=3;"
     "D 21 22 get a=1; D 23 24 get b=2; D 25 26 get c=2"},
    {"a batch that never returned was done",
     "start a=1 b=1; A 1 - batch a=2 b=2; B 3 4 get a=2; B 5 6 get b=2"},
    {"a batch that never returned was not",
     "start a=1 b=1; A 1 - batch a=2 b=2; B 3 4 get a=1; B 5 6 get b=1"},
    {"a write that failed takes effect much later",
     "start a=1; A 1 - put a=2; B 3 4 get a=1; B 5 6 get a=1; B 7 8 get a=2"},
    {"two writes never returned and one of them was done",
     "start a=1; A 1 - put a=2; B 2 - put a=3; C 3 4 get a=3; C 5 6 get a=3"},
    {"a swap that never returned lets another fail",
     "start a=1; A 1 - replace a:1=2; B 3 4 conflict a:1; B 5 6 get a=2"},
    {"a swap that never returned was never possible",
     "start a=1; A 1 - replace a:7=2; B 3 4 get a=1"},
    {"two keys, each of them late in its own way",
     "start a=1 b=1; A 1 8 put a=2; B 2 7 put b=2; C 3 4 get a=2;"
     "C 5 6 get b=1; D 3 4 get b=1; D 5 6 get a=2"},
    {"a delete beside reads that see it, a put, and the put gone",
     "start a=1; A 1 20 delete a; B 2 19 put a=2; C 3 4 get a=2;"
     "C 5 6 get a=-"},
    {"a read that never returned says nothing",
     "start a=1; A 1 - get a=9; B 2 3 get a=1"},
    /* Snapshots and transactions. */
    {"a snapshot stays what it was, whatever is written",
     "start a=1 b=1; B 1 2 snapshot a:1 b:1; A 3 4 batch a=2 b=2"},
    {"a snapshot between two writes, taken beside them",
     "start a=1 b=1; B 1 8 snapshot a:2 b:1; A 2 3 put a=2; A 4 5 put b=2"},
    {"one transaction after the other",
     "start a=1; A 1 2 txn a:1 a=2 a:2 commit 3 4;"
     "B 5 6 txn a:2 a=3 commit 7 8; C 9 10 get a=3"},
    {"two at once, which have nothing in common",
     "start a=1 b=1; A 1 2 txn a:1 a=2 commit 5 6;"
     "B 3 4 txn b:1 b=2 commit 7 8"},
    {"write skew with snapshot isolation, which allows it",
     "start a=1 b=1; A 1 2 isolated a:1 b:1 a=2 commit 5 6;"
     "B 3 4 isolated a:1 b:1 b=2 commit 7 8"},
    {"of two that add to one value the second comes into conflict",
     "start a=1; A 1 2 txn a:1 a=2 commit 5 6; B 3 4 txn a:1 a=3 conflict;"
     "C 9 10 get a=2"},
    {"a value that was set back is no conflict",
     "start a=1; A 1 2 txn a:1 b=1 commit 7 8; B 3 4 put a=2; B 5 6 put a=1"},
    {"the last write of a key counts, unread ones may be overwritten",
     "start a=1; A 1 2 isolated a=2 a=3 commit 5 6; B 3 4 put a=7;"
     "C 7 8 get a=3"},
    {"a transaction that only reads may be of the past",
     "start a=1 b=1; A 1 2 txn a:1 b:1 commit 5 6; B 3 4 batch a=2 b=2"},
    {"a commit that never returned is seen",
     "start a=1 b=1; A 1 2 txn a:1 a=2 b=2 commit 3 -; B 5 6 snapshot a:2 b:2"},
    {"or not", "start a=1 b=1; A 1 2 txn a:1 a=2 b=2 commit 3 -;"
               "B 5 6 snapshot a:1 b:1"},
    {"a commit that goes on may be seen or not, in this order",
     "start a=1; A 1 2 txn a=2 commit 3 10; B 4 5 get a=1; B 6 7 get a=2"},
    {"a bulk load beside readers",
     "A 1 8 commit a:- b:- a=1 b=2; B 2 3 snapshot a:- b:-; B 4 5 get b=2"},
};
enum {
    BAD = sizeof(bad) / sizeof(bad[0]),
    GOOD = sizeof(good) / sizeof(good[0]),
};
_Static_assert(BAD >= 20 && GOOD >= 20, "so many were promised");

static void parse(struct linear_history *h, const char *text)
{
    const char *where;
    linear_init(h);
    if (!linear_parse(h, text, &where))
        fail_msg("no history: %s", where);
}

static void expect(const struct sample *sample, enum linear_verdict expected)
{
    struct linear_history h;
    struct linear_report *report = calloc(1, sizeof(*report));
    enum linear_verdict verdict;
    assert_non_null(report);
    parse(&h, sample->text);
    verdict = linear_check(&h, report);
    if (verdict != expected) {
        linear_print(&h, report);
        fail_msg("%s: %d, not %d", sample->name, (int)verdict, (int)expected);
    }
    if (verdict == LINEAR_NO) {
        /* The report tells of an object that cannot be ordered. */
        assert_true(report->ordered < report->of);
        assert_true(report->keys != 0);
    }
    linear_free(&h);
    free(report);
}

static void rejects_what_no_order_explains(void **state)
{
    (void)state;
    for (size_t i = 0; i < BAD; i++)
        expect(&bad[i], LINEAR_NO);
    print_message("%zu planted histories rejected\n", (size_t)BAD);
}

static void accepts_what_an_order_explains(void **state)
{
    (void)state;
    for (size_t i = 0; i < GOOD; i++)
        expect(&good[i], LINEAR_YES);
}

static void text_that_is_no_history_is_refused(void **state)
{
    static const char *const text[] = {
        "a 1 2 put a=1",        "A 1 put a=1",
        "A 2 1 put a=1",        "A 1 2 putt a=1",
        "A 1 2 put q=1",        "A 1 2 put a",
        "A 1 2 get a",          "A 1 2 replace a",
        "A 1 2 conflict a=1",   "start a",
        "A 1 2 put a=1 b",      "A x 2 put a=1",
        "A 1 2 snapshot",       "A 1 2 snapshot a=1",
        "A 1 2 commit a",       "A 1 2 txn a:1",
        "A 1 2 txn a:1 commit", "A 1 4 txn a=1 commit 3 5",
        "A 1 2 txn a conflict",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(text) / sizeof(text[0]); i++) {
        struct linear_history h;
        const char *where;
        linear_init(&h);
        assert_false(linear_parse(&h, text[i], &where));
        linear_free(&h);
    }
}

/* --- histories made by a machine ------------------------------------------- */

enum { THREADS = 6, OPS = 60, KEYS = 4, MADE = 300 };

static void see(struct linear_op *op, const uint32_t *state, size_t keys)
{
    op->reads = (uint32_t)keys;
    for (unsigned key = 0; key < KEYS; key++)
        if (keys >> key & 1)
            op->seen[key] = state[key];
}

/* What OP, done now, answers and does. */
static void do_op(struct linear_op *op, uint32_t *state, uint32_t value)
{
    unsigned other = (op->key + 1) % KEYS;
    bool there = state[op->key] != LINEAR_ABSENT;
    switch (op->kind) {
    case LINEAR_GET:
        op->expected = state[op->key];
        break;
    case LINEAR_PUT:
        linear_set(op, op->key, value);
        break;
    case LINEAR_INSERT:
    case LINEAR_EXISTS:
        op->kind = there ? LINEAR_EXISTS : LINEAR_INSERT;
        if (!there)
            linear_set(op, op->key, value);
        break;
    case LINEAR_REPLACE:
    case LINEAR_CONFLICT:
        op->expected = random_below(3) ? state[op->key] : value + 1000;
        op->kind =
            op->expected == state[op->key] ? LINEAR_REPLACE : LINEAR_CONFLICT;
        if (op->kind == LINEAR_REPLACE)
            linear_set(op, op->key, value);
        break;
    case LINEAR_DELETE:
        linear_set(op, op->key, LINEAR_ABSENT);
        break;
    case LINEAR_BATCH:
        linear_set(op, op->key, value);
        linear_set(op, other, random_below(4) ? value : LINEAR_ABSENT);
        break;
    case LINEAR_COMMIT:
        linear_set(op, other, random_below(4) ? value : LINEAR_ABSENT);
        see(op, state, random_below(1u << KEYS));
        break;
    case LINEAR_SNAPSHOT:
        see(op, state, 1u << op->key | random_below(1u << KEYS));
        break;
    }
    for (unsigned key = 0; key < KEYS; key++)
        if (op->writes >> key & 1)
            state[key] = op->value[key];
}

/* A history of which an order is known: operations are called, done and ended
 * at random, some never. */
static void make(struct linear_history *h)
{
    struct linear_op open[THREADS];
    bool called[THREADS] = {false}, done[THREADS] = {false};
    uint32_t state[LINEAR_KEYS] = {0};
    uint64_t now = 0;
    linear_init(h);
    while (h->count < OPS) {
        unsigned t = (unsigned)random_below(THREADS);
        struct linear_op *op = &open[t];
        now++;
        if (!called[t]) {
            memset(op, 0, sizeof(*op));
            op->thread = t;
            op->call = now;
            op->kind = (enum linear_kind)random_below(LINEAR_KINDS);
            op->key = (unsigned)random_below(KEYS);
            called[t] = true;
        } else if (!done[t]) {
            do_op(op, state, (uint32_t)now);
            done[t] = true;
        } else {
            op->end = random_below(20) ? now : LINEAR_NEVER;
            linear_add(h, op);
            called[t] = done[t] = false;
        }
    }
    for (unsigned t = 0; t < THREADS; t++)
        if (done[t]) {
            open[t].end = LINEAR_NEVER;
            linear_add(h, &open[t]);
        }
}

static void accepts_every_history_that_an_order_made(void **state)
{
    (void)state;
    random_start();
    for (unsigned i = 0; i < MADE; i++) {
        struct linear_history h;
        make(&h);
        if (linear_check(&h, NULL) != LINEAR_YES) {
            linear_print(&h, NULL);
            fail_msg("history %u has an order", i);
        }
        linear_free(&h);
    }
}

/* Of such a history one read is made to answer with a value that nobody wrote,
 * or one that was overwritten before the read was called and not written again. */
static bool spoil(struct linear_history *h)
{
    for (unsigned tries = 0; tries < 5000; tries++) {
        struct linear_op *read = &h->op[random_below(h->count)];
        const struct linear_op *old = &h->op[random_below(h->count)];
        if ((read->kind != LINEAR_GET && read->kind != LINEAR_SNAPSHOT) ||
            read->end == LINEAR_NEVER || !(old->writes >> read->key & 1) ||
            old->value[read->key] == 0)
            continue;
        for (size_t i = 0; i < h->count; i++) {
            const struct linear_op *later = &h->op[i];
            /* Unconditionally, so that no other order is possible. */
            if (later->kind != LINEAR_PUT || later->key != read->key ||
                later->call < old->end || later->end > read->call)
                continue;
            read->expected = read->seen[read->key] = old->value[read->key];
            return true;
        }
    }
    return false;
}

static void rejects_every_history_with_one_stale_read(void **state)
{
    unsigned spoilt = 0;
    (void)state;
    random_start();
    for (unsigned i = 0; i < MADE; i++) {
        struct linear_history h;
        make(&h);
        if (spoil(&h)) {
            spoilt++;
            if (linear_check(&h, NULL) != LINEAR_NO) {
                linear_print(&h, NULL);
                fail_msg("history %u has no order", i);
            }
        }
        linear_free(&h);
    }
    assert_true(spoilt > MADE / 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rejects_what_no_order_explains),
        cmocka_unit_test(accepts_what_an_order_explains),
        cmocka_unit_test(text_that_is_no_history_is_refused),
        cmocka_unit_test(accepts_every_history_that_an_order_made),
        cmocka_unit_test(rejects_every_history_with_one_stale_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
