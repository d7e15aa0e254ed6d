/*
 * Batches are seen whole or not at all.  index/write_all.c (attempt, publish_all,
 * publish_tail, publish_page), buffer/minipage.h (bfti_minipage_visible, _all),
 * index/leaf.c (name_chain).
 *
 * Leaf 0 has the keys 0 and 1, leaf 1 has key 2; each batch changes all three.  A
 * record's value is the LSN of its frame.  What a reader sees first bounds what it
 * may see next: of the batches up to that LSN, all.
 */
#ifndef BATCHES0
#define BATCHES0 2 /* of the first owner */
#endif
#ifndef BATCHES1
#define BATCHES1 0 /* of the second */
#endif
#ifndef PUTS
#define PUTS 0 /* of key 0 */
#endif
#ifndef GETS
#define GETS 2 /* of one reader, of any keys */
#endif
#ifndef COPIES
#define COPIES 0 /* of leaf 0 as a whole */
#endif

#define PAGES 8
#define TAIL 4 /* records of a page's tail */
#define NONE 99

byte word[2];
bit latch[2];
byte sorted[24]; /* the run of a page: a value for each key */
byte tail[PAGES];
byte record[32]; /* TAIL a page: key and LSN */
byte batch[PAGES];
bit owner[PAGES]; /* batch_word */
byte before[PAGES] = NONE; /* tail_before; NONE: the page is the batch's own */
byte previous[PAGES];
byte pages = 2;

byte pending[2]; /* rec->batch of each owner */
byte number;
byte lsn;        /* the last one */
byte whole;      /* bits: LSNs that are batches' */
byte put;        /* LSN of the last put that has ended */

#define RECORD(key, n) ((key << 5) | (n))
#define KEY_OF(r) (r >> 5)
#define LSN_OF(r) (r & 31)

/* The value of key K in page P of which T tail records count. */
inline find(p, t, k, v)
{
    d_step {
        v = sorted[3 * p + k];
        j = 0;
        do
        :: j >= t -> break
        :: else ->
            if
            :: KEY_OF(record[TAIL * p + j]) == k -> v = LSN_OF(record[TAIL * p + j])
            :: else
            fi;
            j++
        od;
        j = 0
    }
}

/* --- writers ----------------------------------------------------------------- */

inline append(p, k)
{
    record[TAIL * p + tail[p]] = RECORD(k, n); /* [tail] */
    tail[p]++
}

/* publish_tail: the page's tail takes the changes. */
inline publish_tail(leaf)
{
    x = word[leaf];
    before[x] = tail[x];
    owner[x] = me;
#ifndef NO_NUMBER_FIRST
    batch[x] = number_of;
#endif
    if
    :: leaf == 0 -> append(x, 0); append(x, 1)
    :: else -> append(x, 2)
    fi
#ifdef NO_NUMBER_FIRST
    ;
    batch[x] = number_of
#endif
}

/* group_build, and publish_page: a page with them. */
inline publish_page(leaf)
{
    atomic {
        assert(pages < PAGES);
        x = pages;
        pages++;
        o = word[leaf];
        i = 0;
        do
        :: i == 3 -> break
        :: else -> find(o, tail[o], i, v); sorted[3 * x + i] = v; i++
        od;
        if
        :: leaf == 0 -> sorted[3 * x] = n; sorted[3 * x + 1] = n
        :: else -> sorted[3 * x + 2] = n
        fi;
        previous[x] = o;
        owner[x] = me;
        batch[x] = number_of;
        i = 0;
        v = 0;
        o = 0
    };
    word[leaf] = x
}

inline publish(leaf)
{
    if
    :: tail[word[leaf]] + 2 <= TAIL -> publish_tail(leaf) /* as group_tail has it */
    :: true -> publish_page(leaf)
    fi;
    mine[leaf] = x
}

proctype batches(bit me; byte times)
{
    byte n, x, o, i, j, v, number_of, mine[2];

    do
    :: times == 0 -> break
    :: times > 0 ->
#ifdef NO_ORDER
        atomic { !latch[me] -> latch[me] = 1 };
        atomic { !latch[1 - me] -> latch[1 - me] = 1 };
#else
        atomic { !latch[0] -> latch[0] = 1 };
        atomic { !latch[1] -> latch[1] = 1 };
#endif
#ifdef NO_NUMBER
        number_of = 1;
#else
        atomic { number++; number_of = number };
#endif
        pending[me] = number_of;
#ifndef NO_LOG_FIRST
        atomic { lsn++; n = lsn; whole = whole | 1 << n };
#else
        n = lsn + 1;
#endif
        publish(0);
#ifdef NO_ONE_WORD
        pending[me] = 0;
#endif
#ifdef NO_LATCH_KEPT
        latch[0] = 0;
#endif
        publish(1);
        pending[me] = 0; /* [batch] visible, all of it */
#ifdef NO_LOG_FIRST
        atomic { lsn++; whole = whole | 1 << n };
#endif
        batch[mine[0]] = 0;
        batch[mine[1]] = 0;
        latch[1] = 0;
        latch[0] = 0;
        atomic {
            times--;
            n = 0;
            x = 0;
            number_of = 0;
            mine[0] = 0;
            mine[1] = 0
        }
    od
}

proctype puts()
{
    byte n, x, times = PUTS;

    do
    :: times == 0 -> break
    :: times > 0 ->
        atomic { !latch[0] -> latch[0] = 1 };
        x = word[0];
        if
        :: tail[x] < TAIL ->
            atomic { lsn++; n = lsn };
            append(x, 0);
            put = n
        :: else
        fi;
        latch[0] = 0;
        times--
    od
}

/* --- readers ------------------------------------------------------------------- */

/* name_chain: the page P that counts. */
inline chain(leaf, p)
{
    w = word[leaf];
    p = w;
    b = batch[w];
    if
    :: b != 0 && before[w] == NONE ->
#ifdef NO_PREVIOUS
        skip
#else
        if
        :: pending[owner[w]] == b ->
            p = previous[w];
            if :: word[leaf] != w || pending[owner[w]] != b -> goto again :: else fi
        :: else
        fi
#endif
    :: else
    fi
}

/* bfti_minipage_visible */
inline visible(p, t)
{
#ifdef NO_TAIL_FIRST
    b = batch[p];
    t = tail[p];
#else
    t = tail[p];
    b = batch[p];
#endif
    if
    :: b != 0 ->
        o = before[p];
        if
        :: atomic { pending[owner[p]] == b && o < t -> t = o }
        :: atomic { else }
        fi
    :: else
    fi
}

/* LEAST: up to which LSN the reader has seen what there was. */
inline note(v)
{
    d_step {
        assert(v <= lsn);
        i = least;
        do
        :: i == 0 -> break
        :: i > 0 && (whole & 1 << i) -> assert(v >= i); break
        :: else -> i--
        od;
        i = 0;
        if :: v > least -> least = v :: else fi
    }
}

proctype reader()
{
    byte w, p, b, o, t, u, v, k, i, j, least, times = GETS;

    do
    :: times == 0 -> break
    :: times > 0 ->
        if :: k = 0; u = put :: k = 1 :: k = 2 fi;
again:
        chain(k / 2, p);
        visible(p, t);
        find(p, t, k, v);
        assert(v >= u); /* a put that had ended is seen */
        note(v);
        atomic { times--; u = 0; w = 0; p = 0; b = 0; o = 0; t = 0; v = 0; k = 0 }
    od
}

proctype copier()
{
    byte w, p, b, o, t, u, v, i, j, least, times = COPIES;

    do
    :: times == 0 -> break
    :: times > 0 ->
again:
        chain(0, p);
count: /* bfti_minipage_visible_all */
        u = tail[p];
        visible(p, t);
#ifndef NO_COUNT_AGAIN
        if :: tail[p] != u -> goto count :: else fi;
#endif
        find(p, t, 0, v);
        note(v);
        find(p, t, 1, u);
        note(u);
        if /* and what the other has */
        :: whole & 1 << u -> assert(v >= u)
        :: else
        fi;
        atomic { times--; w = 0; p = 0; b = 0; o = 0; t = 0; u = 0; v = 0 }
    od
}

init
{
    atomic {
        word[1] = 1;
        run batches(0, BATCHES0);
        if :: BATCHES1 > 0 -> run batches(1, BATCHES1) :: else fi;
        if :: PUTS > 0 -> run puts() :: else fi;
        if :: GETS > 0 -> run reader() :: else fi;
        if :: COPIES > 0 -> run copier() :: else fi
    }
}
