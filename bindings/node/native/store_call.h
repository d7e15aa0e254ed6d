/*
 * One call on a database, as JavaScript asks for it: the numbers and texts that
 * came, the numbers and the one text that go back.  Any thread may run it;
 * nothing here knows of JavaScript.
 */
#ifndef BFTN_STORE_CALL_H
#define BFTN_STORE_CALL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bftree_stores.h"
#include "json_text.h"
#include "known_states.h"
#include "pace.h"
#include "store_answer.h"

/* An open database with its covalue store. */
struct bftn_store {
    bft_db *db;
    bft_covalue_store *covalues;
    char *path;
    struct bftn_pace pace; /* for its JavaScript thread */
    pthread_mutex_t lock;
    pthread_cond_t quiet; /* users has become 0 */
    unsigned users;       /* under lock: calls on other threads */
};

/*
 * Every call, once: its name, what it does in an error message, whether it
 * writes, and how many numbers and texts it takes.
 *
 * n0, n1.. are those numbers and s0, s1 those texts; r0, r1.. the numbers that
 * go back.  src/native.ts has the names from here.
 */
#define BFTN_CALL_MAP(X)                                  \
    X(OPEN, "opening", true, 6, 1)                        \
    X(CLOSE, "closing", true, 0, 0)                       \
    X(APPLY, "storing", true, 1, 1)                       \
    X(ERASE, "erasing a CoValue", true, 1, 1)             \
    X(ROW, "looking up a CoValue", false, 0, 1)           \
    X(LOAD, "loading a CoValue", false, 1, 1)             \
    X(KNOWN, "reading a known state", false, 1, 1)        \
    X(SESSIONS, "reading sessions", false, 1, 0)          \
    X(SESSION, "reading a session", false, 1, 1)          \
    X(TRANSACTIONS, "reading transactions", false, 3, 0)  \
    X(SIGNATURES, "reading signatures", false, 2, 0)      \
    X(IDS, "listing CoValues", false, 2, 0)               \
    X(DELETIONS, "listing deletions", false, 0, 0)        \
    X(UNSYNCED, "listing unsynced CoValues", false, 0, 0) \
    X(COUNT, "counting CoValues", false, 0, 0)            \
    X(LOCK_GET, "reading a lock", false, 0, 1)            \
    X(LOCK_ACQUIRE, "acquiring a lock", true, 3, 2)       \
    X(LOCK_RENEW, "renewing a lock", true, 1, 2)          \
    X(LOCK_RELEASE, "releasing a lock", true, 1, 2)       \
    X(DURABLE, "waiting for a sync", false, 1, 0)         \
    X(SYNC, "syncing", false, 0, 0)                       \
    X(CHECKPOINT, "writing a checkpoint", false, 0, 0)    \
    X(VERIFY, "verifying", false, 0, 0)                   \
    X(STATS, "reading counters", false, 0, 0)             \
    X(CENSUS, "checking the covalue store", false, 0, 0)

/*
 * OPEN          s0 path; n0 storage, n1 durability, n2 memory bytes, n3 log
 *               bytes, n4 leaf bytes, n5 flags below -> the store
 * APPLY         s0 packed changes, n0 durability -> r0 LSN, r1 changes, r2
 *               those before, r3.. row ids
 * ERASE         s0 id, n0 durability -> r0 LSN, r1 changes, r2 0: no such CoValue
 * ROW           s0 id -> r0 row id or 0
 * LOAD          s0 id, n0 bft_covalue_what -> r0 row id or 0, r1 changes, r2 how
 *               many transactions lie in places; text: first what they are cut
 *               from, r3 characters, then what is not: JSON if r4 is 0, else
 *               as bftn_answer_usual_load() has it, r4.. its numbers
 * KNOWN         s0 id, n0 how many CoValues from that one on, by row id; there may
 *               be fewer -> r0 its row id or 0, r1 changes, r2 how many, r3 names
 *               of sessions, r4 where these begin in the text, r5 where their
 *               lengths begin in places; text, numbers in places: known_states.h.
 *               r2 0: text is {id, header, sessions} of the one
 * SESSIONS      n0 row id -> text
 * SESSION       n0 row id, s0 session id -> r0 row id or 0; text
 * TRANSACTIONS  n0 session, n1 from, n2 to -> r0 next index or 0, r1 first
 *               index, r2 form, r3 how many; text, strings.  Form 0: the text is
 *               [transactions], without gaps.  1: [[indexes], [transactions]].
 *               2: [[place, key, ...], [transactions]], without gaps; the
 *               transaction at each place lacks the value of key, which is the
 *               next of the strings.  3: what those in places are cut from,
 *               without gaps
 * SIGNATURES    n0 session, n1 from -> text
 * IDS           n0 after this row id, n1 at most -> text
 * DELETIONS, UNSYNCED, STATS, CENSUS   -> text
 * COUNT                                -> r0
 * LOCK_GET      s0 key -> r0 1: there is one; text
 * LOCK_ACQUIRE  s0 key, s1 holder, n0 now, n1 interval, n2 time to live -> r0
 *               bft_covalue_lock_result, r1 offset
 * LOCK_RENEW    s0 key, s1 holder, n0 offset
 * LOCK_RELEASE  s0 key, s1 holder, n0 now
 * DURABLE       n0 LSN
 */
enum bftn_call_kind {
#define BFTN_CALL_ENUM(name, what, writes, numbers, texts) BFTN_##name,
    BFTN_CALL_MAP(BFTN_CALL_ENUM)
#undef BFTN_CALL_ENUM
        BFTN_CALLS
};

/* Flags of OPEN. */
enum {
    BFTN_MUST_EXIST = 1,
    BFTN_ERROR_IF_EXISTS = 2,
    BFTN_COMPRESS = 4,
};

enum {
    BFTN_NUMBERS = 6,
    BFTN_TEXTS = 2,
    BFTN_RESULTS = 25,
    BFTN_MESSAGE_MAX = 1024,
    BFTN_STRINGS_MAX = 64,
    BFTN_PLACES_MAX = 1024,
    BFTN_NUMBERS_MAX =
        BFTN_PLACES_MAX * sizeof(struct bftn_place) / sizeof(int32_t),
};

struct bftn_call {
    enum bftn_call_kind kind;
    struct bftn_store *store; /* of OPEN: its result */
    uint64_t number[BFTN_NUMBERS];
    bft_slice text[BFTN_TEXTS];

    bft_status status;
    char message[BFTN_MESSAGE_MAX]; /* when status is not BFT_OK */
    uint64_t result[BFTN_RESULTS];
    unsigned results;
    bool answered;    /* there is a text */
    bft_slice answer; /* in out or scratch, until the next run */
    bft_slice string[BFTN_STRINGS_MAX]; /* values of their own, in scratch */
    unsigned strings;
    union {
        struct bftn_place place[BFTN_PLACES_MAX];
        int32_t number_out[BFTN_NUMBERS_MAX];
    };
    size_t place_bytes; /* of them */
    struct bftn_text out;
    uint8_t *scratch; /* aligned to 8 */
    size_t scratch_len;
};

/* A zeroed call is ready; free what its runs left. */
void bftn_call_free(struct bftn_call *call);
/*
 * Do it: results, status and message are set.
 *
 * Threads: any; CLOSE waits until nobody else uses the store and frees it, and
 *          DURABLE, SYNC, CHECKPOINT, VERIFY wait for the disk.
 */
void bftn_call_run(struct bftn_call *call);
/* Its answer has been taken: give back memory that is far more than most calls
 * need.  Running it again does so, too. */
void bftn_call_trim(struct bftn_call *call);
/* Fail without running. */
void bftn_call_refuse(struct bftn_call *call, bft_status status,
                      const char *text);

struct bftn_call_shape {
    const char *what;
    bool writes;
    unsigned numbers, texts;
};
extern const struct bftn_call_shape bftn_call_shapes[BFTN_CALLS];

/* Another thread is going to use STORE / does no longer. */
void bftn_store_enter(struct bftn_store *store);
void bftn_store_leave(struct bftn_store *store);

#endif
