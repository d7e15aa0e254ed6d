/*
 * The log in memory: frames are linked by one swap, copied into segments by
 * whoever comes, retired, and freed when nobody names them; segments are
 * dropped and used again.  fileio/wal.c (bfti_wal_enter, link_once, tail_swing,
 * copy_batch, next_frame, frames_free, flush), fileio/wal_segment.c
 * (bfti_segments_store, bfti_wal_drop_below).
 *
 * Writers link frames of one unit each, copy up to their own and then count them
 * as committed.  A segment has one unit, and there are FILES of them: position L
 * lies in file L % FILES, once what the file had is dropped.  A kill may come in
 * any state: the files have what was committed and not dropped, at any time.
 */
#ifndef FRAMES0
#define FRAMES0 2 /* of the first writer */
#endif
#ifndef FRAMES1
#define FRAMES1 1 /* of the second */
#endif
#ifndef FLUSHES
#define FLUSHES 2 /* where there is no second writer */
#endif
#ifndef DROPS
#define DROPS 1
#endif
#ifndef FILES
#define FILES 2
#endif
#define BLOCKS 5 /* of memory, for a frame each */
#define POSITIONS 8
#define NONE 99

#define FREE 0
#define USED 1
#define RETIRED 2

byte lsn[BLOCKS], next[BLOCKS] = NONE, what[BLOCKS], state[BLOCKS];
byte linked[POSITIONS]; /* which frame was linked there */
byte file[FILES];

byte tail, copied; /* frames */
byte log_end = 1, copied_mark = 1, durable, first;
byte committed = 1;

byte slot[2] = NONE;   /* in flight */
byte hazard[4] = NONE; /* two name slots for each writer */

inline raise(mark, to)
{
    atomic { if :: mark < to -> mark = to :: else fi }
}

/* What a kill leaves has all that was committed. */
inline check()
{
    d_step {
        i = first;
        do
        :: i >= committed -> break
        :: else -> assert(file[i % FILES] == linked[i]); i++
        od;
        i = 0
    }
}

/* A frame is looked at: it is no freed block. */
#define LOOK(f) assert(state[f] != FREE)

inline tail_swing(from, to)
{
    if
    :: tail == from ->
        LOOK(to);
#ifndef NO_END_FIRST
        raise(log_end, lsn[to] + 1);
#endif
        atomic { if :: tail == from -> tail = to :: else fi };
#ifdef NO_END_FIRST
        raise(log_end, lsn[to] + 1)
#endif
    :: else
    fi
}

/* Of all retired by ME, bits in RETIRED_BY, free those that nobody names. */
inline frames_free()
{
    named = 0;
#ifndef NO_NAMES
    atomic {
        if
        :: hazard[2 * (1 - me)] != NONE -> named = named | 1 << hazard[2 * (1 - me)]
        :: else
        fi
    };
    atomic {
        if
        :: hazard[2 * (1 - me) + 1] != NONE -> named = named | 1 << hazard[2 * (1 - me) + 1]
        :: else
        fi
    };
#endif
    atomic {
        i = 0;
        do
        :: i == BLOCKS -> break
        :: i < BLOCKS ->
            if
            :: (retired & 1 << i) && !(named & 1 << i) ->
                state[i] = FREE;
                next[i] = NONE;
                retired = retired & ~(1 << i)
            :: else
            fi;
            i++
        od;
        i = 0;
        named = 0
    }
}

inline wal_enter()
{
    t = copied_mark;
again:
    slot[me] = t;
#ifndef NO_SLOT_AGAIN
    n = copied_mark;
    if :: n != t -> t = n; goto again :: else fi;
#endif
    assert(t >= first); /* what is settled never falls: invariant 10 */
    atomic { t = 0; n = 0 }
}

inline wal_link()
{
    skip;
retry:
    t = tail;
    hazard[2 * me] = t;
#ifndef NO_TAIL_AGAIN
    if :: tail != t -> goto retry :: else fi;
#endif
    LOOK(t);
    assert(lsn[t] < log_end); /* [end] */
    n = next[t];
    if
    :: n != NONE ->
        hazard[2 * me + 1] = n;
        if :: tail == t -> tail_swing(t, n) :: else fi;
        goto retry
    :: else
    fi;
    lsn[b] = lsn[t] + 1; /* frame_place */
    atomic {
        if
        :: next[t] == NONE ->
            next[t] = b;
            assert(linked[lsn[b]] == 0); /* a position is one frame's for good */
            linked[lsn[b]] = what[b];
            upto = lsn[b] + 1
        :: else -> goto retry
        fi
    };
#ifdef NO_END_FIRST
    atomic { if :: tail == t -> tail = b :: else fi };
#endif
    raise(log_end, upto);
#ifndef NO_END_FIRST
    atomic { if :: tail == t -> tail = b :: else fi };
#endif
    atomic { hazard[2 * me] = NONE; hazard[2 * me + 1] = NONE; t = 0; n = 0; b = 0 }
}

/* bfti_segments_store: the file is found, then stored to. */
inline store(f)
{
    LOOK(f);
    assert(lsn[f] >= first); /* nobody asks for a dropped segment */
end_room:
    atomic { lsn[f] < first + FILES -> i = lsn[f] % FILES };
    atomic { file[i] = what[f]; i = 0; check() }
}

inline wal_copy()
{
    skip;
batch:
    if :: copied_mark >= upto -> goto copied_all :: else fi;
    base = copied; /* name_copied */
name:
    hazard[2 * me + 1] = base;
#ifndef NO_COPIED_AGAIN
    n = copied;
    if :: n != base -> base = n; goto name :: else fi;
#endif
    LOOK(base);
    raise(copied_mark, lsn[base] + 1);
    if :: lsn[base] + 1 >= upto -> goto copied_all :: else fi;
    prev = base;
take: /* next_frame: the one behind PREV */
    LOOK(prev);
    n = next[prev];
    if :: n == NONE -> goto taken :: else fi;
#ifndef NO_TAIL_STOP
    if :: prev != base && tail == prev -> goto taken :: else fi;
#endif
    hazard[2 * me] = n;
#ifndef NO_BASE_AGAIN
    if :: copied != base -> goto taken :: else fi;
#endif
    if :: prev == base -> tail_swing(base, n) :: else fi;
    store(n);
    prev = n;
    if :: lsn[prev] + 1 < upto -> goto take :: else fi;
taken:
    if :: prev == base -> goto batch :: else fi;
    t = lsn[prev] + 1;
    atomic {
        if
        :: copied == base ->
            copied = prev;
            assert(lsn[prev] <= lsn[tail]) /* invariant 2 */
        :: else -> goto batch
        fi
    };
    raise(copied_mark, t);
    atomic { hazard[2 * me] = NONE; hazard[2 * me + 1] = NONE };
    atomic { /* frames_retire */
        do
        :: base == prev -> break
        :: else ->
            retired = retired | 1 << base;
            state[base] = RETIRED;
            base = next[base]
        od;
        base = 0;
        prev = 0;
        n = 0;
        t = 0
    };
    frames_free();
    goto batch;
copied_all:
    atomic { hazard[2 * me] = NONE; hazard[2 * me + 1] = NONE; base = 0; prev = 0; n = 0; t = 0 }
}

proctype writer(byte me; byte frames)
{
    byte b, t, n, base, prev, upto, i, retired, named;

    do
    :: frames == 0 -> break
    :: frames > 0 ->
end_memory:
        atomic { /* bfti_frame_create */
            if
            :: state[0] == FREE -> b = 0
            :: state[0] != FREE && state[1] == FREE -> b = 1
            :: state[0] != FREE && state[1] != FREE && state[2] == FREE -> b = 2
            :: state[0] != FREE && state[1] != FREE && state[2] != FREE && state[3] == FREE -> b = 3
            :: state[0] != FREE && state[1] != FREE && state[2] != FREE && state[3] != FREE && state[4] == FREE -> b = 4
            fi;
            state[b] = USED;
            what[b] = 10 * me + frames;
            frames--
        };
        wal_enter();
        wal_link();
#ifdef NO_LATE_LEAVE
        slot[me] = NONE;
#endif
#ifdef BEHIND
        upto = 0; /* bfti_wal_copy_behind: left for others to copy */
#else
        wal_copy();
#endif
        atomic {
            if :: committed < upto -> committed = upto :: else fi;
            check();
            slot[me] = NONE; /* bfti_wal_leave */
            upto = 0
        }
    od
}

/* Drop all that may go. */
proctype dropper()
{
    byte bound, drops = DROPS;

    do
    :: drops == 0 -> break
    :: drops > 0 ->
        durable = copied_mark;
#ifndef NO_MARK_FIRST
        bound = durable;
        atomic { if :: slot[0] < bound -> bound = slot[0] :: else fi };
        atomic { if :: slot[1] < bound -> bound = slot[1] :: else fi };
#else
        bound = slot[0];
        atomic { if :: slot[1] < bound -> bound = slot[1] :: else fi };
        durable = copied_mark;
        if :: durable < bound -> bound = durable :: else fi;
#endif
        atomic {
            if :: first < bound -> first = bound :: else fi;
            bound = 0;
            drops--
        }
    od
}

/* A flush of all that is linked, by a thread that links nothing. */
proctype flusher(byte me)
{
    byte t, n, base, prev, upto, i, retired, named, flushes = FLUSHES;

    do
    :: flushes == 0 -> break
    :: flushes > 0 ->
        wal_enter();
        upto = log_end;
        wal_copy();
        atomic {
            if :: committed < upto -> committed = upto :: else fi;
            check();
            slot[me] = NONE;
            upto = 0;
            flushes--
        }
    od
}

init
{
    atomic {
        state[0] = USED;
        what[0] = 90;
        linked[0] = 90;
        file[0] = 90;
        run writer(0, FRAMES0);
        if :: FRAMES1 > 0 -> run writer(1, FRAMES1) :: else -> run flusher(1) fi;
        run dropper()
    }
}
