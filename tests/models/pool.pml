/*
 * A block of the pool comes and goes: buffer/pool.c (bfti_pool_publish,
 * hand_looks), buffer/pool_mark.c, buffer/pool_limbo.c (bfti_pool_retire,
 * bfti_limbo_step, settle, block_free).
 *
 * One pair of units and the one behind it, where a block of two units starts at
 * the first or at the second: never both, but in turns, with one mark for the
 * two.  Its user has it, shows it in the leaf's word, takes it back out and
 * retires it.  A reader names what the word says, by a store that waits until it
 * drains, or until a heavy fence.  The hand reads the heads of published blocks,
 * and reclaimers free retired ones.
 */
#ifndef OPS
#define OPS 3 /* blocks that the user has, one after the other */
#endif
#ifndef SCANS
#define SCANS 1 /* of each reclaimer */
#endif
#ifndef RECLAIMERS
#define RECLAIMERS 2
#endif
#ifndef HANDS
#define HANDS 0 /* times that the hand comes by */
#endif

#define UNITS 3
#define STARTS 2
#define NONE 9

#define ODD 1 /* the bits of a mark */
#define PUBLISHED 2
#define RETIRED 4
#define VISITED 8

bool used[UNITS];
byte mark;
bool is_head[STARTS];  /* a block starts there, and its head is written */
byte state[STARTS];    /* of its word: PUBLISHED, RETIRED or 0 */
byte number[STARTS];   /* of its word, when it is retired */
byte block[STARTS];    /* which one it is: for assertions */
byte retirements;
byte word = NONE; /* of the leaf: the start of its page */
byte slot = NONE; /* of the reader */
chan stores = [1] of { byte };

proctype drain()
{
end:
    do
    :: atomic { stores?[_] -> stores?slot }
    od
}

/* --- the user: an owner of the leaf's latch ---------------------------------- */

proctype user()
{
    byte s, n, ops;

    do
    :: ops == OPS -> break
    :: ops < OPS ->
        /* bfti_map_take, bfti_block_make; without a scan there is no room. */
end:
        if
        :: atomic { !used[0] && !used[1] -> used[0] = true; used[1] = true; s = 0 }
        :: atomic { !used[1] && !used[2] -> used[1] = true; used[2] = true; s = 1 }
        fi;
        d_step {
            ops++;
            assert(!is_head[s]);
            is_head[s] = true;
            state[s] = 0;
            block[s] = ops
        };
        state[s] = PUBLISHED;
        atomic {
            assert(mark == 0);
            mark = PUBLISHED | s
        };
        word = s;
#ifndef NO_UNLINK_FIRST
        word = NONE;
#endif
        atomic { n = retirements; retirements++ };
#ifdef NO_UNLINK_FIRST
        word = NONE;
#endif
        d_step { state[s] = RETIRED; number[s] = n };
        mark = mark ^ (PUBLISHED | RETIRED)
    od
}

/* --- the reader ------------------------------------------------------------------ */

proctype reader()
{
    byte w, b;

again:
    w = word;
    if
    :: w == NONE -> goto over
    :: else
    fi;
    stores!w;
    atomic {
        if
        :: word != w -> goto again
        :: else -> b = block[w]
        fi
    };
    /* Where what it read is used last. */
    assert(is_head[w] && block[w] == b);
    stores!NONE;
over:
    skip
}

/* --- the hand --------------------------------------------------------------------- */

proctype hand()
{
    byte s, hands;

end:
    do
    :: hands == HANDS -> break
    :: atomic { /* bfti_mark_visit */
           hands < HANDS && (mark & (PUBLISHED | VISITED)) == PUBLISHED ->
           hands++;
#ifndef NO_VISIT
           mark = mark | VISITED;
#endif
           s = mark & ODD
       };
        assert(is_head[s] == true);
#ifndef NO_VISIT
        mark = mark & ~VISITED
#endif
    od
}

/* --- reclaimers --------------------------------------------------------------------- */

inline look_at_slot()
{
#ifndef NO_HEAVY_FENCE
    atomic {
        if
        :: stores?[_] -> stores?slot
        :: else
        fi
    };
#endif
#ifdef NO_SCAN
    named = false
#else
    named = slot == s
#endif
}

#ifdef NO_START
#define SAME_START true
#else
#define SAME_START (at == s)
#endif
#ifdef NO_NUMBER
#define IN_TIME true
#else
#define IN_TIME (number[at] < before)
#endif

proctype reclaimer()
{
    byte s, at, before, scans;
    bool named;

end:
    do
    :: scans == SCANS -> break
    :: atomic {
           scans < SCANS && (mark & (RETIRED | VISITED)) == RETIRED ->
           scans++
       }; /* bfti_mark_find, */
        s = mark & ODD; /* bfti_mark_index: a later one, perhaps */
#ifdef NO_NUMBER_FIRST
        look_at_slot();
        before = retirements;
#else
        before = retirements;
        look_at_slot();
#endif
        atomic { /* settle: bfti_mark_visit */
            if
            :: (mark & (RETIRED | VISITED)) == RETIRED ->
#ifndef NO_VISIT_TO_FREE
                mark = mark | VISITED;
#endif
                at = mark & ODD
            :: else -> goto next
            fi
        };
        assert(is_head[at] == true);
        if
        :: !named && SAME_START && IN_TIME ->
            is_head[at] = false; /* bfti_block_forget */
#ifdef NO_CLEAR_FIRST
            d_step { used[at] = false; used[at + 1] = false };
            mark = 0
#else
            mark = 0;
            d_step { used[at] = false; used[at + 1] = false }
#endif
        :: else -> mark = mark & ~VISITED
        fi;
next:
        skip;
        d_step { s = 0; at = 0; before = 0; named = false }
    od
}

init
{
    atomic {
        run drain();
        run user();
        run reader();
        if :: HANDS > 0 -> run hand() :: else fi;
        run reclaimer();
        if :: RECLAIMERS > 1 -> run reclaimer() :: else fi
    }
}
