/*
 * Hazard slots: a reader names what it reads of a leaf, and a reclaimer frees
 * what was unlinked and nobody names.  buffer/threads.c (bfti_hazard_set,
 * bfti_hazard_unnamed), buffer/pool_limbo.c (retire, step), index/leaf.c
 * (name_chain, bfti_reader_still, bfti_disk_read).
 *
 * One leaf with one key: word -> page on top -> frozen page -> extent, or a
 * batch's page, which names the page before it.  Whatever changes the leaf does
 * so under its latch, so one process stands for all who do.  The reader's
 * stores to slots wait in a buffer until they drain, or until the reclaimer's
 * heavy fence.  What is freed is poisoned, and used again at once: a page by
 * this leaf, an extent by this leaf or another one.  No place has a generation.
 */
#ifndef OPS
#define OPS 3 /* changes of the leaf */
#endif
#ifndef SCANS
#define SCANS 1 /* of the reclaimer */
#endif

#define PAGES 3 /* places 0..2 */
#define PLACES 6 /* and extents 3..5 */
#define NONE 9
#define POISON 99
#define IN_MEMORY(p) (p < PAGES)

#define TOP 0 /* slots, by the names of enum bfti_hazard */
#define FROZEN 1
#define EXTENT 2
#define SPARE 3
#define SLOTS 4

#define FREE 0
#define USED 1
#define RETIRED 2

byte word = PAGES;
byte value[PLACES];   /* of the key: its version, 0 none */
byte beneath[PLACES]; /* of a page */
byte pending[PLACES]; /* of a page: the number of the batch that it waits for */
byte previous[PLACES]; /* of a batch's page: what it stands for meanwhile */
byte batch;           /* the owner's word: the number of the pending one, or 0 */
byte number;          /* of the last batch */
byte state[PLACES];
byte version = 1; /* the newest that can be seen */
byte slot[SLOTS] = NONE;
chan stores = [1] of { byte, byte }; /* the reader's, on its way */

/* --- the reader ------------------------------------------------------------ */

#define NAME(i, p) stores!i, p

proctype drain()
{
    byte i, p;
end:
    do
    :: atomic { stores?i, p -> slot[i] = p; i = 0; p = 0 }
    od
}

/* bfti_reader_still: r.word, r.pending, and each page's beneath. */
inline still()
{
#ifndef NO_WORD_AGAIN
    if :: word != w -> goto again :: else fi;
#endif
#ifndef NO_BATCH_AGAIN
    if :: waits && batch != waits -> goto again :: else fi;
#endif
#ifndef NO_BENEATH_AGAIN
    if :: top != NONE && beneath[top] != b -> goto again :: else fi;
    if :: top != NONE && IN_MEMORY(b) && head != NONE && beneath[b] != head -> goto again
    :: else fi
#endif
}

/* A byte of a page or an extent. */
inline look(p)
{
    v = value[p];
    assert(v != POISON)
}

proctype reader()
{
    byte w, top, b, head, v, least;
    byte waits; /* r.pending */

    least = version;
again:
    skip;
    d_step { top = NONE; b = NONE; head = NONE; waits = 0; v = 0 }
    w = word;
    if
    :: !IN_MEMORY(w) -> head = w; goto disk
    :: else
    fi;
    NAME(TOP, w);
#ifndef NO_NAMED_AGAIN
    if :: word != w -> goto again :: else fi;
#endif
    top = w;
    look(top);
    waits = pending[top];
    if
    :: waits ->
        if
        :: batch == waits ->
            b = previous[top];
            if
            :: !IN_MEMORY(b) -> top = NONE; head = b; goto disk
            :: else
            fi;
            NAME(FROZEN, b);
#ifndef NO_BATCH_AGAIN
            if :: word != w || batch != waits -> goto again :: else fi;
#endif
            top = b;
            look(top)
        :: else -> waits = 0
        fi
    :: else
    fi;
    b = beneath[top];
    if
    :: IN_MEMORY(b) ->
        if
        :: waits -> NAME(SPARE, b)
        :: else -> NAME(FROZEN, b)
        fi;
        still();
        look(b);
        head = beneath[b]
    :: else -> head = b
    fi;
    look(top);
    if :: v != 0 -> goto found :: else fi;
    if
    :: IN_MEMORY(b) ->
        look(b);
        if :: v != 0 -> goto found :: else fi
    :: else
    fi;
disk:
    NAME(EXTENT, head);
    still();
    look(head);
found:
    assert(least <= v && v <= version)
}

/* --- whoever has the latch --------------------------------------------------- */

#define A_PAGE                                      \
    x = (state[0] == FREE -> 0                      \
                          : (state[1] == FREE -> 1  \
                                              : (state[2] == FREE -> 2 : NONE)))
#define AN_EXTENT                                   \
    x = (state[3] == FREE -> 3                      \
                          : (state[4] == FREE -> 4  \
                                              : (state[5] == FREE -> 5 : NONE)))

/* A block with its content, which nobody knows yet.  None free: no change. */
inline build(v_, beneath_)
{
    if
    :: x != NONE ->
        state[x] = USED;
        value[x] = v_;
        beneath[x] = beneath_;
        pending[x] = 0
    :: else -> goto next
    fi
}

/* X takes the place of the word, which goes. */
inline replace()
{
#ifdef NO_UNLINK_FIRST
    state[t] = RETIRED;
    word = x
#else
    word = x;
    state[t] = RETIRED
#endif
}

proctype changer()
{
    byte x, t, f, ops = OPS;

next:
    atomic {
        x = 0;
        t = word;
        f = 0;
        if
        :: ops == 0 && !batch -> goto over
        :: ops > 0 && !batch -> ops--
        :: batch -> goto decide
        fi
    };
    if
    :: atomic { !IN_MEMORY(t) -> A_PAGE; build(version + 1, t) }; /* room_fresh */
        atomic { word = x; version++ }
    :: atomic { IN_MEMORY(t) -> A_PAGE; build(version + 1, beneath[t]) };
        atomic { replace(); version++ } /* a write, by room_rebuild */
#ifdef BATCH
    :: atomic { IN_MEMORY(t) -> A_PAGE; build(version + 1, beneath[t]) };
        atomic { /* the same, a batch's: publish_page */
#ifndef NO_BATCH_NUMBER
            number++;
#else
            number = 1;
#endif
            batch = number;
            pending[x] = number;
            previous[x] = t
        };
        word = x
#endif
    :: atomic { IN_MEMORY(t) && !IN_MEMORY(beneath[t]) && value[t] != 0 ->
                A_PAGE; build(0, t) };
        word = x /* frozen, with a page on top that is empty */
    :: atomic { IN_MEMORY(t) && IN_MEMORY(beneath[t]) ->
                f = beneath[t]; AN_EXTENT; build(value[f], NONE) };
        beneath[t] = x; /* a merge swings beneath the page on top */
        atomic { state[f] = RETIRED; state[beneath[f]] = RETIRED }
    :: atomic { IN_MEMORY(t) && !IN_MEMORY(beneath[t]) && value[t] != 0 ->
                f = beneath[t]; AN_EXTENT; build(value[t], NONE) };
        replace(); /* frozen and merged: the leaf is on disk */
        state[f] = RETIRED
    fi;
    goto next;
decide: /* publish_all: the batch is seen; then what its page replaced goes */
    atomic { batch = 0; version++ };
    pending[t] = 0;
    state[previous[t]] = RETIRED;
    goto next;
over:
    skip
}

/* --- the reclaimer ------------------------------------------------------------ */

proctype reclaimer()
{
    byte i, p;
    byte those; /* in the batch: bits */
    byte scans = SCANS;
end:
    do
    :: atomic {
           scans > 0 &&
           (state[0] == RETIRED || state[1] == RETIRED || state[2] == RETIRED ||
            state[3] == RETIRED || state[4] == RETIRED || state[5] == RETIRED) ->
           scans--;
           i = 0;
           do
           :: i == PLACES -> break
           :: i < PLACES ->
               if :: state[i] == RETIRED -> those = those | (1 << i) :: else fi;
               i++
           od;
           i = 0
       };
#ifndef NO_HEAVY_FENCE
       atomic {
           do
           :: stores?i, p -> slot[i] = p
           :: empty(stores) -> break
           od;
           i = 0;
           p = 0
       };
#endif
#ifndef NO_SCAN
       do
       :: i == SLOTS -> break
       :: i < SLOTS ->
           atomic {
               if :: slot[i] != NONE -> those = those & ~(1 << slot[i]) :: else fi;
               i++
           }
       od;
#endif
       atomic {
           i = 0;
           do
           :: i == PLACES -> break
           :: i < PLACES ->
               if
               :: those & (1 << i) ->
                   state[i] = FREE;
                   value[i] = POISON;
                   beneath[i] = PAGES;
                   previous[i] = PAGES;
                   pending[i] = 0
               :: else
               fi;
               i++
           od;
           i = 0;
           those = 0
       }
    od
}

init
{
    d_step {
        value[PAGES] = 1;
        state[PAGES] = USED;
        state[0] = USED;
        beneath[0] = PAGES;
        word = 0
    };
    atomic { run drain(); run reader(); run changer(); run reclaimer() }
}
