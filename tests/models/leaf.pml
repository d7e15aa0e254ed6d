/*
 * A leaf under its latch: appends, growth, freezing, merges that hold no latch
 * until they swing, eviction, promotion.  index/write.c (make_room, publish),
 * buffer/merge.c (name_frozen, prepare, swing), buffer/evict.c (look),
 * index/promote.c (append, put_page), index/leaf.c (name_chain).
 *
 * One key is watched; writers write it or another one of the leaf.  A tail has
 * TAIL records; a page grows once, then it is full.  A record's value is its LSN.
 * Places are not used again: hazard.pml is about that.
 */
#ifndef WRITES
#define WRITES 4 /* of one writer */
#endif
#ifndef WRITERS
#define WRITERS 1
#endif
#ifndef EVICTORS
#define EVICTORS 1
#endif
#ifndef READERS
#define READERS 1
#endif

#ifndef TAIL
#define TAIL 1
#endif
#define PAGES 9
#define EXTENTS 5
#define PLACES 14
#define NONE 99
#define IN_MEMORY(p) (p < PAGES)

byte word = PAGES;
bit latch;
byte held[PLACES]; /* version of the key in the run of a page, or an extent */
byte tail[18]; /* two cells a page: the key's version, 0 the other key */
byte count[PAGES];
bit frozen[PAGES], grown[PAGES], dirty[PAGES];
byte beneath[PAGES];
byte pages, extents = PAGES + 1; /* the next one that is given out */

byte logged = 1;    /* the last LSN */
byte published = 1; /* the version that was published last */
byte ended;

#define COUNTED(p, n)                                     \
    (n > 1 && tail[2 * p + 1] != 0                        \
         -> tail[2 * p + 1]                               \
         : (n > 0 && tail[2 * p] != 0 -> tail[2 * p] : held[p]))
#define FIND(p) COUNTED(p, count[p])
#define FITS(p) (count[p] < TAIL)
#define LATCH atomic { !latch -> latch = 1 }
#define UNLATCH latch = 0

inline new_page()
{
    atomic { assert(pages < PAGES); x = pages; pages++ }
}

/* --- merging ----------------------------------------------------------------- */

/* bfti_merge.  KEEP: a page that the merge leaves stays, as a cache. */
inline merge(keep)
{
    /* name_frozen: W is m.word, F m.frozen. */
    atomic {
        w = word;
        f = NONE;
        if
        :: IN_MEMORY(w) && frozen[w] -> f = w
        :: IN_MEMORY(w) && !frozen[w] && IN_MEMORY(beneath[w]) -> f = beneath[w]
#ifdef NO_FREEZE
        :: IN_MEMORY(w) && !frozen[w] && !IN_MEMORY(beneath[w]) -> f = w
#endif
        :: else -> goto merged
        fi;
        e = beneath[f];
#ifndef NO_ONE_FROZEN
        assert(!IN_MEMORY(e)) /* buffer, invariant 2 */
#endif
    };
    v = FIND(f); /* list_own */
    atomic { /* read_beneath, write_base, build_kept */
        if :: v == 0 -> v = held[e] :: else fi;
        if :: extents == PLACES -> goto merged :: else fi;
        y = extents;
        extents++;
        held[y] = v;
        x = NONE;
        if
        :: keep && f == w && pages < PAGES ->
            x = pages;
            pages++;
            held[x] = v;
            beneath[x] = y
        :: else
        fi
    };
#ifndef NO_SWING_LATCH
    atomic { if :: !latch -> latch = 1 :: else -> goto merged fi };
#endif
#ifndef NO_STILL_THERE
    if
    :: atomic { word == w && (f == w || beneath[w] == f) }
    :: else ->
#ifndef NO_SWING_LATCH
        UNLATCH;
#endif
        goto merged
    fi;
#endif
    if
    :: f != w -> beneath[w] = y
    :: f == w && x != NONE -> word = x
    :: f == w && x == NONE -> word = y
    fi;
#ifndef NO_SWING_LATCH
    UNLATCH;
#endif
merged:
    atomic { w = 0; f = 0; e = 0; v = 0; x = 0; y = 0 }
}

/* --- writing ------------------------------------------------------------------ */

proctype writer()
{
    byte n = WRITES, w, x, y, f, e, v, lsn;
    bit other;

    do
    :: n == 0 -> break
    :: n > 0 ->
        if :: other = 0 :: other = 1 fi;
again:
        LATCH;
        w = word;
        if /* make_room */
        :: IN_MEMORY(w) && !frozen[w] && FITS(w)
        :: IN_MEMORY(w) && !frozen[w] && !FITS(w) && !grown[w] -> /* room_rebuild */
            new_page();
            d_step {
                held[x] = FIND(w);
                beneath[x] = beneath[w];
                dirty[x] = dirty[w];
                grown[x] = 1
            };
            word = x;
            w = x
        :: IN_MEMORY(w) && !frozen[w] && !FITS(w) && grown[w] &&
           IN_MEMORY(beneath[w]) ->
#ifndef NO_ONE_FROZEN
            UNLATCH; /* BFTI_ROOM_MERGE */
            merge(1);
            goto again
#else
            frozen[w] = 1;
            new_page();
            beneath[x] = w;
            word = x;
            w = x
#endif
        :: IN_MEMORY(w) && !frozen[w] && !FITS(w) && grown[w] &&
           !IN_MEMORY(beneath[w]) -> /* full: frozen, with a fresh page on top */
            frozen[w] = 1;
            new_page();
            beneath[x] = w;
            word = x;
            w = x
        :: !IN_MEMORY(w) || frozen[w] -> /* room_fresh */
            new_page();
            beneath[x] = w;
            word = x;
            w = x
        fi;
#ifndef NO_LOG_FIRST
        d_step { lsn = (other -> 0 : logged + 1); logged = logged + 1 - other };
        tail[2 * w + count[w]] = lsn; /* bfti_minipage_append: the record, then the count */
#else
        lsn = (other -> 0 : logged + 1);
        tail[2 * w + count[w]] = lsn;
#endif
        dirty[w] = 1;
        atomic { count[w]++; published = (other -> published : lsn) };
#ifdef NO_LOG_FIRST
        logged = logged + 1 - other;
#endif
        UNLATCH;
        atomic { n--; w = 0; x = 0; lsn = 0; other = 0 }
    od;
    ended++
}

/* --- eviction ------------------------------------------------------------------ */

proctype evictor()
{
    byte w, x, y, f, e, v;

    atomic { if :: !latch -> latch = 1 :: else -> goto out fi };
    w = word; /* look */
    if
    :: !IN_MEMORY(w) -> UNLATCH; goto out
    :: IN_MEMORY(w) && (frozen[w] || IN_MEMORY(beneath[w])) -> UNLATCH
    :: IN_MEMORY(w) && !frozen[w] && !IN_MEMORY(beneath[w]) && dirty[w] ->
#ifdef NO_FREEZE_LATCH
        UNLATCH;
        frozen[w] = 1
#else
#ifndef NO_FREEZE
        frozen[w] = 1;
#endif
        UNLATCH
#endif
    :: IN_MEMORY(w) && !frozen[w] && !IN_MEMORY(beneath[w]) && !dirty[w] ->
#ifdef NO_DROP_LATCH
        UNLATCH;
        word = beneath[w];
#else
        word = beneath[w]; /* a clean page is dropped */
        UNLATCH;
#endif
        goto out
    fi;
    merge(0);
out:
    ended++
}

/* --- reading, and promotion of what was read from the disk ---------------------- */

/* bfti_reader_still, under the latch or not. */
#define STILL (word == w && (!IN_MEMORY(w) || beneath[w] == b))

proctype reader()
{
    byte w, b, v, x, listed, least;

    least = published;
again:
    w = word;
    b = w;
    if
    :: IN_MEMORY(w) ->
        b = beneath[w];
        listed = count[w];
        v = COUNTED(w, listed);
        if :: v != 0 -> goto found :: else fi;
        if
        :: IN_MEMORY(b) -> /* a frozen page, which is not promoted from */
            if :: !STILL -> goto again :: else fi;
            v = FIND(b);
            if :: v == 0 -> v = held[beneath[b]] :: else fi;
            goto found
        :: else
        fi
    :: else
    fi;
    if :: !STILL -> goto again :: else fi; /* bfti_disk_read */
    v = held[b];
    assert(least <= v && v <= logged);
    if
    :: IN_MEMORY(w) -> /* append */
#ifndef NO_PROMOTE_LATCH
        atomic { if :: !latch -> latch = 1 :: else -> goto out fi };
#endif
        if
#ifdef NO_KEY_AGAIN
        :: STILL && !frozen[w] && FITS(w) ->
#else
        :: STILL && !frozen[w] && FITS(w) && FIND(w) == 0 ->
#endif
            tail[2 * w + count[w]] = v;
            count[w]++
        :: else
        fi;
#ifndef NO_PROMOTE_LATCH
        UNLATCH
#endif
    :: true -> /* put_page: the leaf's page with the record, or one for it */
        atomic {
            if :: pages == PAGES -> goto out :: else fi;
            x = pages;
            pages++;
            beneath[x] = b;
            held[x] = v;
            if :: IN_MEMORY(w) -> dirty[x] = dirty[w] :: else fi
        };
        atomic { if :: !latch -> latch = 1 :: else -> goto out fi };
        if
#ifdef NO_AS_LISTED
        :: word == w ->
#else
        :: STILL && (!IN_MEMORY(w) || (count[w] == listed && !frozen[w])) ->
#endif
            word = x
        :: else
        fi;
        UNLATCH
    fi;
    goto out;
found:
    assert(least <= v && v <= logged);
out:
    ended++
}

init
{
    byte i, w;

    atomic {
        held[PAGES] = 1;
        pages = 1; /* a page without the key, as a read of another one leaves it */
        beneath[0] = PAGES;
        word = 0;
        do :: i == WRITERS -> break :: else -> run writer(); i++ od;
        i = 0;
        do :: i == EVICTORS -> break :: else -> run evictor(); i++ od;
        i = 0;
        do :: i == READERS -> break :: else -> run reader(); i++ od;
        i = 0
    };
    /* When all have ended a read finds what was published last. */
    atomic {
        ended == WRITERS + EVICTORS + READERS;
        w = word;
        i = (IN_MEMORY(w) -> FIND(w) : held[w]);
        if :: i == 0 -> w = beneath[w]; i = (IN_MEMORY(w) -> FIND(w) : held[w]) :: else fi;
        if :: i == 0 -> w = beneath[w]; i = held[w] :: else fi;
        assert(i == published)
    }
}
