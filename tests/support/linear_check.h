/*
 * Is a recorded history of operations on a few keys linearizable: can each be
 * given one instant between its call and its end, so that all of them in the
 * order of these instants answer as they did?
 *
 * After M. Herlihy and J. Wing, "Linearizability: a correctness condition for
 * concurrent objects" (1990: the condition, and that objects may be judged one by
 * one), J. Wing and C. Gong, "Testing and verifying concurrent objects" (1993:
 * the search) and G. Lowe, "Testing for linearizability" (2017: what was tried is
 * not tried again).  linear_check.c says what is done differently.
 */
#ifndef LINEAR_CHECK_H
#define LINEAR_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    LINEAR_KEYS = 16,
    LINEAR_OPS_MAX = 1024, /* of a history */
    LINEAR_ABSENT = 0,     /* the value of a key that has none */
};
/* The end of an operation that never returned, or failed so that nobody knows
 * whether it was done: it may have been, at any time since its call. */
#define LINEAR_NEVER UINT64_MAX

enum linear_kind {
    LINEAR_GET, /* the key had the value EXPECTED */
    LINEAR_PUT, /* and all else that sets one key, whatever it had */
    LINEAR_DELETE,
    LINEAR_INSERT,   /* done: the key was absent */
    LINEAR_EXISTS,   /* refused: it was there */
    LINEAR_REPLACE,  /* done: it had the value EXPECTED */
    LINEAR_CONFLICT, /* refused: it had another, or none */
    LINEAR_BATCH,    /* many keys at once */
    LINEAR_SNAPSHOT, /* what it reads was so at one instant, of many keys */
    LINEAR_COMMIT,   /* the same, and at that instant it sets others */
};
enum { LINEAR_KINDS = 10 };

struct linear_op {
    uint64_t call, end; /* of one counter for all threads */
    enum linear_kind kind;
    unsigned thread;
    unsigned key; /* but where it is about many */
    uint32_t expected;
    uint32_t reads;              /* a bit for each key that had ... */
    uint32_t seen[LINEAR_KEYS];  /* ... this */
    uint32_t torn;               /* those that were read with two values, or not
                                    as it had set them itself: no instant is such */
    uint32_t writes;             /* a bit for each key that it sets ... */
    uint32_t value[LINEAR_KEYS]; /* ... to this; LINEAR_ABSENT: deletes */
};

struct linear_history {
    uint32_t start[LINEAR_KEYS]; /* before the first call */
    struct linear_op *op;        /* in any order */
    size_t count, cap;
};

void linear_init(struct linear_history *h);
void linear_free(struct linear_history *h);
/* Append a copy of OP. */
void linear_add(struct linear_history *h, const struct linear_op *op);
/* Have it set KEY to VALUE, too. */
void linear_set(struct linear_op *op, unsigned key, uint32_t value);

/*
 * A transaction, as what it is taken for:
 *   its begin                    a LINEAR_SNAPSHOT: all that it read of others
 *   its commit, if it wrote      a LINEAR_COMMIT: what it read is still so, all
 *                                of it or, with snapshot isolation, what it writes
 * Of what it has written itself it must read the last.  A snapshot is one that
 * does not commit.
 */
struct linear_txn {
    struct linear_op begin; /* with all that was read */
    bool serializable;
    uint32_t writes, value[LINEAR_KEYS];
};
/* It began between CALL and END. */
void linear_txn_begin(struct linear_txn *txn, unsigned thread,
                      bool serializable, uint64_t call, uint64_t end);
/* It was told that KEY has VALUE. */
void linear_txn_read(struct linear_txn *txn, unsigned key, uint32_t value);
void linear_txn_write(struct linear_txn *txn, unsigned key, uint32_t value);
/* It was COMMITTED between CALL and END, or nothing came of it: add to H. */
void linear_txn_end(const struct linear_txn *txn, bool committed, uint64_t call,
                    uint64_t end, struct linear_history *h);

enum linear_verdict {
    LINEAR_YES,
    LINEAR_NO,
    LINEAR_UNDECIDED, /* too many ways to try */
};
/* Why not: how far the best attempt came. */
struct linear_report {
    uint32_t keys;                /* whose operations cannot be ordered */
    size_t order[LINEAR_OPS_MAX]; /* of the best attempt, places in H */
    size_t ordered, of;           /* so many of how many */
    uint32_t state[LINEAR_KEYS];  /* after it */
    size_t tried;                 /* configurations, of all keys */
};
/* REPORT may be NULL. */
enum linear_verdict linear_check(const struct linear_history *h,
                                 struct linear_report *report);

/* --- as text -------------------------------------------------------------- */

/*
 * One operation a line (or up to a semicolon): thread, call, end or -, what it
 * was and what happened.  Threads are A.., keys a.., values numbers, - is none:
 *
 *     start a=1
 *     A 1 4 put a=2          B 2 3 get a=1       A 5 6 delete a
 *     B 7 8 insert a=3       B 9 10 exists a     A 9 - batch a=4 b=-
 *     A 11 12 replace a:4=5  A 13 14 conflict a:4
 *     B 15 16 snapshot a:5 b:-            A 17 18 commit a:5 b:-=6
 *
 * and a transaction (serializable, or "isolated": with snapshot isolation), which
 * is made of the last two: behind its begin what it did, in its order, and how
 * it ended:
 *
 *     A 1 2 txn a:5 a=6 a:6 commit 3 4    B 5 6 isolated a:6 b=1 conflict
 *
 * a! is a key that was read with two values.
 *
 * False: it is no such text; *WHERE is where.
 */
bool linear_parse(struct linear_history *h, const char *text,
                  const char **where);
/* The same text to stderr, in order of calls, and what REPORT says (or NULL). */
void linear_print(const struct linear_history *h,
                  const struct linear_report *report);

#endif
