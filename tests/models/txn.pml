/*
 * Transactions: what a commit looks at again.  index/txn.c (may_commit, look_at,
 * look_again), index/history.c (bfti_history_save, save_once, bfti_history_watch),
 * index/write_all.c (attempt, guard_holds, publish_all), index/write.c
 * (publish_guarded), index/reads.c, index/snapshot.c (bfti_snapshot_read).
 *
 * Keys 0 and 1, a leaf each, and a leaf of the history for each.  A value is the
 * number of who wrote it.  Both transactions have their snapshots open from the
 * beginning, settled, so that no number overtakes anybody: their instant is
 * the initial state.  Transaction T reads the keys in READS, by the snapshot, then
 * writes those in WRITES; puts write key 0.  Of two transactions that each read
 * what the other writes, or that write one key, one commits; and none that had to
 * see a put: one that had ended when its commit began.  Who reads both keys one after
 * the other does not find a change of what T read and, then, none of T's.
 */
#ifndef READS0
#define READS0 3 /* bits: keys */
#endif
#ifndef WRITES0
#define WRITES0 1
#endif
#ifndef READS1
#define READS1 3
#endif
#ifndef WRITES1
#define WRITES1 2
#endif
#ifndef PUTS
#define PUTS 0
#endif
#ifndef ROUNDS
#define ROUNDS 2
#endif
#define HAS(set, k) (set & (1 << k))
#define OLD 9 /* what the records were for the snapshots */

byte value[2] = OLD;
bit latch[2];
byte seq[2];
bit saved[2]; /* the history has what the record was */
bit history_latch[2];
byte history_seq[2];

byte shown[2]; /* bits: keys, by transaction.  [reads] */
bit torn; /* somebody saw a change of key 0, and then none of key 1 */
bit committed[2];
bit put_ended; /* some put has */
byte ended;

/* bfti_history_save of key K: the record, then the history. */
inline save(k)
{
    if
    :: !saved[k] ->
        !latch[k]; /* pass_latch */
        v = value[k];
        atomic { !history_latch[k] -> history_latch[k] = 1 };
        if /* a conditional write: only if it has none */
        :: !saved[k] ->
            assert(v == OLD); /* index 15 */
            saved[k] = 1;
            history_seq[k]++
        :: else
        fi;
        history_latch[k] = 0;
        v = 0
    :: else
    fi
}

/* look_at: WATCHED is the leaf's number, or the history's. */
inline look_at(k)
{
    if
    :: ok ->
        atomic { watched[k] = history_seq[k]; by_history[k] = 1 };
        if
        :: saved[k] -> /* it may be another: look_again */
            atomic { watched_leaf[k] = seq[k]; by_history[k] = 0 };
#ifndef NO_COMPARED
            if :: value[k] != OLD -> ok = 0 :: else fi
#endif
        :: else
        fi
    :: else
    fi
}

/* guard_holds, of key K. */
inline still(k)
{
    if
    :: holds && HAS(looks, k) ->
#ifndef NO_HISTORY_LATCH
        if :: history_latch[k] -> holds = 0 :: else fi;
#endif
#ifndef NO_HISTORY_SEQ
        if :: history_seq[k] != watched[k] -> holds = 0 :: else fi;
#endif
        if
        :: !by_history[k] ->
#ifndef NO_LATCH_SEEN
            if :: latch[k] && !HAS(writes, k) -> holds = 0 :: else fi;
#endif
#ifndef NO_SEQ
            if :: seq[k] != watched_leaf[k] -> holds = 0 :: else fi
#endif
        :: else
        fi
    :: else
    fi
}

proctype txn(bit me; byte reads; byte writes)
{
    byte v, watched[2], watched_leaf[2], looks, round;
    bit ok, holds, by_history[2];
    bit too_late;

#ifdef NO_READS_LOOKED_AT
    looks = writes;
#else
    looks = reads | writes;
#endif
    too_late = put_ended && HAS(looks, 0);
again:
    /* commit_publish: save, look, latch, look whether it is still so. */
    if :: HAS(writes, 0) -> save(0) :: else fi;
    if :: HAS(writes, 1) -> save(1) :: else fi;
    ok = 1;
    if :: HAS(looks, 0) -> look_at(0) :: else fi;
    if :: HAS(looks, 1) -> look_at(1) :: else fi;
    if :: !ok -> goto out :: else fi;
#ifdef NO_LATCHED_FIRST
    holds = 1;
    still(0);
    still(1);
#endif
    if :: HAS(writes, 0) -> atomic { !latch[0] -> latch[0] = 1 } :: else fi;
    if :: HAS(writes, 1) -> atomic { !latch[1] -> latch[1] = 1 } :: else fi;
#ifndef NO_LATCHED_FIRST
#ifndef NO_SHOWN
#ifndef NO_SHOWN_FIRST
    shown[me] = reads;
#endif
#endif
    holds = 1;
#ifndef NO_SHOWN_MET
    if :: shown[1 - me] & writes -> holds = 0 :: else fi;
#endif
    still(0);
    still(1);
#ifdef NO_SHOWN_FIRST
    shown[me] = reads;
#endif
#endif
    if
    :: holds ->
        assert(!too_late);
        if :: HAS(writes, 0) -> assert(value[0] == OLD) :: else fi;
        atomic { /* publish_all, at once */
            if :: HAS(writes, 0) -> value[0] = me :: else fi;
            if :: HAS(writes, 1) -> value[1] = me :: else fi;
            committed[me] = 1
        }
    :: else
    fi;
    shown[me] = 0;
    if :: HAS(writes, 0) -> seq[0] = seq[0] + holds; latch[0] = 0 :: else fi;
    if :: HAS(writes, 1) -> seq[1] = seq[1] + holds; latch[1] = 0 :: else fi;
    if
    :: !holds && round < ROUNDS -> round++; goto again
    :: else
    fi;
out:
    ended++
}

proctype put()
{
    byte v, puts = PUTS;
    bit held;

    do
    :: puts == 0 -> break
    :: puts > 0 ->
#ifndef NO_SAVED_FIRST
        save(0);
#endif
        held = 0;
#ifdef NO_LOOKED_LATCHED
        held = HAS((shown[0] | shown[1]), 0) != 0;
#endif
        atomic { !latch[0] -> latch[0] = 1 };
#ifndef NO_SHOWN_LOOKED
#ifndef NO_LOOKED_LATCHED
        held = HAS((shown[0] | shown[1]), 0) != 0;
#endif
#endif
        if
        :: !held ->
            value[0] = 2;
            seq[0]++;
            put_ended = 1;
            puts--
        :: else
        fi;
        latch[0] = 0
    od;
    ended++
}

#ifdef READER
proctype reader()
{
    byte first;

    first = value[0];
    torn = first != OLD && value[1] == OLD
}
#endif

init
{
    atomic {
        run txn(0, READS0, WRITES0);
        run txn(1, READS1, WRITES1);
#ifdef READER
        run reader();
#endif
        run put()
    };
    atomic {
        ended == 3;
        /* Each read what the other wrote, as it was before: one at most. */
        assert(!(committed[0] && committed[1] && (READS0 & WRITES1) && (READS1 & WRITES0)));
        /* Both wrote one key, over what it was: one at most. */
        assert(!(committed[0] && committed[1] && (WRITES0 & WRITES1)));
        /* It read key 0 as it was, and its write came behind who saw another. */
        assert(!(torn && committed[1] && HAS(READS1, 0) && HAS(WRITES1, 1)))
    }
}
