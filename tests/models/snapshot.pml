/*
 * Snapshots: what one sees beside writers that may be stopped anywhere.
 * index/snapshot.c (link_newest, unlink_it, settle_until, next_to_settle,
 * set_settled, bfti_saver_begin, bfti_snapshot_read), index/late.c
 * (bfti_late_keep, stays, is_hidden, drop_visible), index/history.c (find,
 * save_once, list_grow, bfti_history_turn), index/write.c and index/write_all.c
 * (publish_guarded), buffer/threads.c (bfti_publish_begin, bfti_publish_wait).
 *
 * Keys 0 and 1, a leaf each; a write is of one, or a batch of both, and seen in
 * one step.  A value is the number of the write, in the order in which they became
 * visible; STATE has what both keys were after each.  When a snapshot is settled
 * it must have one of these states, not one from before its number was there, nor
 * one behind that of a newer snapshot; and who reads it finds that state, for as
 * long as it is held.
 */
#ifndef TAKERS
#define TAKERS 1
#endif
#ifndef TAKES
#define TAKES 1 /* of each */
#endif
#ifndef OPS0
#define OPS0 1 /* writes of the first writer */
#endif
#ifndef OPS1
#define OPS1 1 /* of the second */
#endif
#ifndef KEYS0
#define KEYS0 (1 << 1 | 1 << 3) /* what it may write: sets of keys.  Key 1 alone is
                                   as good as key 0 */
#endif
#ifndef KEYS1
#define KEYS1 (1 << 1 | 1 << 2 | 1 << 3)
#endif
#ifndef TURNS
#define TURNS 0 /* checkpoints */
#endif

/* Without another epoch a find is one look. */
#if TURNS == 0
#define STEP atomic
#else
#define STEP
#endif

#define SNAPSHOTS 3 /* at most */
#define EPOCHS 3
#define WRITES 5
#define NOBODY 2
#define IS_ODD(n) ((n) & 1)
#define HAS(set, k) (((set) >> (k)) & 1)

/* The tree. */
byte value[2];
bit latch[2];
byte writes;
byte state[2 * WRITES]; /* after each write, of both keys */

/* Writers, as others see them. */
byte publishing[2];
byte frame[2]; /* the keys, bits */
bit visible[2]; /* the tail has grown, or the batch's word says so */

/* Snapshots: by number, from 1 on. */
byte count, newest, settled;
bit open[4], is_settled[4];
byte late_keys[4]; /* bits */
byte late_value[8];
byte begun[4];   /* which write was the last when its number was stored, */
byte instant[4]; /* and which is the last that it has */

/* Histories: by epoch, from 1 on, and key.  A list has 4 bits for each number of a
 * snapshot: 1 more than the value of the version that ends behind it, or 0. */
short list[8];
byte head = 1;
byte end[4];
bit cleared[4];

/* --- histories ---------------------------------------------------------------- */

/* Find, in one epoch. */
inline find_here(k, from)
{
    d_step {
        if
        :: end[h] != 0 && end[h] < from -> h = 0 /* those before ended earlier */
        :: else ->
            i = from;
            l = list[2 * h + k] >> (4 * (from - 1));
            do
            :: i <= SNAPSHOTS && (l & 15) == 0 -> i++; l = l >> 4
            :: else -> break
            od;
            if
            :: (l & 15) != 0 && (u == 0 || i <= u) -> f = l & 15; u = i
            :: else
            fi;
            h--;
            i = 0;
            l = 0
        fi
    }
}

/* The first version of key K that snapshot FROM does not come behind: F is 1 more
 * than its value, or 0. */
inline find(k, from)
{
    h = head;
    do
    :: h == 0 -> break
    :: h != 0 -> find_here(k, from)
    od;
    u = 0
}

/* list_grow: OLD without what no snapshot needs, and the version at its end. */
inline grow(k)
{
    d_step {
        i = 1;
        u = 1; /* where the version begins that ends behind I */
        l = 0;
        do
        :: i > SNAPSHOTS -> break
        :: else ->
            if
            :: ((old >> (4 * (i - 1))) & 15) != 0 ->
                h = u;
                do
                :: h <= i && !open[h] -> h++
                :: else -> break
                od;
                if
                :: h <= i -> l = l | (old & (15 << (4 * (i - 1))))
                :: else
                fi;
                u = i + 1
            :: else
            fi;
            i++
        od;
        list[2 * e + k] = l | ((v + 1) << (4 * (saved - 1)));
        h = 0;
        i = 0;
        l = 0;
        u = 0
    }
}

/* bfti_history_save, for snapshot SAVED. */
inline save(k)
{
    do
    :: e = head; /* current(): who finds its end there looks for another */
#ifdef NO_HEAD_AGAIN
       if :: end[e] != 0 -> break :: else fi;
#endif
       if :: newest == 0 -> break :: else fi;
#ifndef NO_RECORD_FIRST
       v = value[k];
#endif
       STEP { old = list[2 * e + k]; find(k, saved) };
#ifdef NO_RECORD_FIRST
       v = value[k];
#endif
       atomic {
           if
           :: f != 0 -> break
           :: f == 0 && cleared[e]
           :: f == 0 && !cleared[e] && list[2 * e + k] != old
           :: f == 0 && !cleared[e] && list[2 * e + k] == old -> grow(k); break
           fi
       }
    od;
    atomic { e = 0; v = 0; old = 0; f = 0 }
}

/* --- settling ----------------------------------------------------------------- */

/* X: the oldest open one up to UNTIL that is not settled, 0: none. */
inline unsettled(until)
{
    x = 1;
    do
    :: x <= until && !(open[x] && !is_settled[x]) -> x++
    :: x > until -> x = 0; break
    :: else -> break
    od
}

inline forget(w)
{
    at[w] = 0;
    keys_of[w] = 0;
    kept[2 * w] = 0;
    kept[2 * w + 1] = 0
}

/* is_hidden, of W who was met at AT: if not, what is kept of him is forgotten.  One
 * step: that he is still there says that he was when it was looked. */
inline drop(w)
{
    d_step {
        if
        :: at[w] != 0 && (visible[w] || publishing[w] != at[w]) -> forget(w); dropped = 1
        :: else
        fi
    }
}

/* bfti_publish_wait, of W; he is not waited for.  The frame is the one that he
 * publishes, if he is still there when it is looked whether he is hidden. */
inline meet(w)
{
    if
    :: w != me && IS_ODD(publishing[w]) ->
        at[w] = publishing[w];
        keys_of[w] = frame[w];
        if :: HAS(keys_of[w], 0) -> kept[2 * w] = value[0] :: else fi
    :: else
    fi
}

inline keep_second(w)
{
    if
    :: atomic { HAS(keys_of[w], 1) -> kept[2 * w + 1] = value[1] }
    :: !HAS(keys_of[w], 1)
    fi
}

inline keep_late(w)
{
#ifndef NO_LATE
    late_keys[number] = late_keys[number] | keys_of[w];
    if :: HAS(keys_of[w], 0) -> late_value[2 * number] = kept[2 * w] :: else fi;
    if :: HAS(keys_of[w], 1) -> late_value[2 * number + 1] = kept[2 * w + 1] :: else fi
#else
    skip
#endif
}

/* What key K is to the snapshot that has just been settled. */
inline seen_now(k)
{
    find(k, number);
    if
    :: HAS(late_keys[number], k) -> v = late_value[2 * number + k]
    :: else ->
        if
        :: f != 0 -> v = f - 1
        :: else -> v = value[k]
        fi
    fi;
    f = 0
}

/* It has what was there at one instant. */
inline check_instant()
{
    seen_now(0);
    x = v;
    seen_now(1);
    if :: x > v -> i = x :: else -> i = v fi;
    assert(state[2 * i] == x && state[2 * i + 1] == v);
    assert(i >= begun[number]);
    x = 1;
    do
    :: x > SNAPSHOTS -> break
    :: else ->
        assert(!(open[x] && is_settled[x]) ||
               (x < number -> instant[x] <= i : instant[x] >= i));
        x++
    od;
    instant[number] = i;
    x = number;
    i = 0;
    v = 0
}

inline set_settled()
{
    atomic {
#ifdef NO_IN_ORDER
        x = (open[number] && !is_settled[number] -> number : 0);
#else
        unsettled(number);
#endif
        if
        :: x == number && x != 0 ->
            keep_late(0);
            keep_late(1);
            check_instant();
            is_settled[number] = 1
        :: else
        fi;
        if
        :: (x == 0 || x == number) && settled < number -> settled = number
        :: else
        fi;
        forget(0);
        forget(1);
        x = 0;
        number = 0
    }
}

inline settle(until)
{
    do
    :: atomic { settled >= until -> break }
    :: atomic {
           settled < until ->
#ifdef NO_IN_ORDER
           number = (open[until] && !is_settled[until] -> until : 0);
#else
           unsettled(until);
           number = x;
           x = 0;
#endif
           if :: number == 0 -> break :: else fi; /* they have ended */
#ifndef NO_MET
           meet(0)
       };
       keep_second(0);
       atomic { drop(0); meet(1) };
       keep_second(1);
       drop(1);
#ifndef NO_DROPPED
       do
       :: atomic { at[0] == 0 && at[1] == 0 -> break }
       :: atomic {
              at[0] != 0 || at[1] != 0 ->
              dropped = 0;
              drop(0)
          };
          atomic {
              drop(1);
#ifndef NO_ROUNDS
              if :: !dropped -> break :: else fi
#else
              break
#endif
          }
       od;
#endif
       dropped = 0;
#else
       };
#endif
       set_settled()
    od
}

inline save_all()
{
    if
    :: saved != 0 && HAS(keys, 0) -> save(0)
    :: saved == 0 || !HAS(keys, 0)
    fi;
    if
    :: saved != 0 && HAS(keys, 1) -> save(1)
    :: saved == 0 || !HAS(keys, 1)
    fi
}

/* --- threads ------------------------------------------------------------------ */

inline publish()
{
    atomic {
        writes++;
        if :: HAS(keys, 0) -> value[0] = writes :: else fi;
        if :: HAS(keys, 1) -> value[1] = writes :: else fi;
        state[2 * writes] = value[0];
        state[2 * writes + 1] = value[1];
        visible[me] = 1
    }
}

inline begin_publish()
{
#ifdef NO_SHOWN_FIRST
    publishing[me]++
#else
    atomic { frame[me] = keys; visible[me] = 0; publishing[me]++ }
#endif
}

inline look_newest()
{
#ifndef NO_LOOK
    seen = newest
#else
    seen = 0
#endif
}

proctype writer(bit me; byte ops; byte may)
{
    byte keys, saved, seen;                               /* of a write */
    byte e, h, f, u, i, v; short l, old;                  /* of histories */
    byte number, x, at[2], keys_of[2], kept[4]; bit dropped; /* of settling */

    do
    :: ops == 0 -> break
    :: ops != 0 ->
        if
        :: HAS(may, 1) -> keys = 1
        :: HAS(may, 3) -> keys = 3
        :: HAS(may, 2) -> keys = 2
        fi;
again:
        saved = newest; /* bfti_saver_begin */
#ifndef NO_SETTLED
        settle(saved);
#endif
#ifndef NO_SAVED_FIRST
        save_all();
#endif
        if
        :: atomic { HAS(keys, 0) && !latch[0] -> latch[0] = 1 }
        :: !HAS(keys, 0)
        fi;
        if
        :: atomic { HAS(keys, 1) && !latch[1] -> latch[1] = 1 }
        :: !HAS(keys, 1)
        fi;
#ifdef NO_BEGIN_FIRST
        look_newest();
        begin_publish();
#else
        begin_publish();
        look_newest();
#ifdef NO_SHOWN_FIRST
        atomic { frame[me] = keys; visible[me] = 0 };
#endif
#endif
        if
        :: seen <= saved -> publish()
        :: seen > saved
        fi;
        atomic {
            publishing[me]++;
            frame[me] = 0;
            if :: HAS(keys, 0) -> latch[0] = 0 :: else fi;
            if :: HAS(keys, 1) -> latch[1] = 0 :: else fi;
            if
            :: seen > saved -> seen = 0; goto again /* overtaken */
            :: else
            fi
        };
#ifdef NO_SAVED_FIRST
        save_all();
#endif
        atomic { ops--; keys = 0; saved = 0; seen = 0 }
    od
}

/* bfti_snapshot_read of key K. */
inline read(k)
{
#ifdef NO_LATE_FIRST
    v = value[k];
    find(k, mine);
    atomic {
        if
        :: f != 0 -> v = f - 1
        :: else ->
            if :: HAS(late_keys[mine], k) -> v = late_value[2 * mine + k] :: else fi
        fi;
        assert(v == state[2 * instant[mine] + k])
    }
#else
    if
    :: HAS(late_keys[mine], k) ->
        assert(late_value[2 * mine + k] == state[2 * instant[mine] + k])
    :: else ->
#ifdef NO_TREE_FIRST
        find(k, mine);
        v = value[k];
#else
        v = value[k];
        find(k, mine);
#endif
        atomic {
            if :: f != 0 -> v = f - 1 :: else fi;
            assert(v == state[2 * instant[mine] + k])
        }
    fi;
#endif
    v = 0;
    f = 0
}

proctype taker()
{
    byte times = TAKES, mine, k, me = NOBODY;
    byte h, f, u, i, v; short l;
    byte number, x, at[2], keys_of[2], kept[4]; bit dropped;

    do
    :: times == 0 -> break
    :: times != 0 ->
        atomic { /* link_newest */
            count++;
            mine = count;
            open[mine] = 1;
            begun[mine] = writes;
            newest = mine
        };
        settle(mine);
        if :: k = 0 :: k = 1 fi;
        read(k);
        atomic { /* unlink_it */
            open[mine] = 0;
            is_settled[mine] = 0;
            late_keys[mine] = 0;
            late_value[2 * mine] = 0;
            late_value[2 * mine + 1] = 0;
            begun[mine] = 0;
            instant[mine] = 0;
            newest = SNAPSHOTS;
            do
            :: newest != 0 && !open[newest] -> newest--
            :: else -> break
            od;
            mine = 0;
            k = 0;
            times--
        }
    od
}

/* bfti_history_turn */
proctype turner()
{
    byte times = TURNS, e, oldest;

    do
    :: times == 0 -> break
    :: times != 0 ->
        if /* it has grown, or no snapshot is open */
        :: count != 0 && head < EPOCHS ->
#ifdef NO_NEXT_FIRST
            end[head] = count;
            head++
#else
            head++; /* so that there is always one to save to */
            end[head - 1] = count
#endif
        :: true
        fi;
        atomic { /* bfti_snapshots_oldest */
            oldest = 1;
            do
            :: oldest <= SNAPSHOTS && !open[oldest] -> oldest++
            :: else -> break
            od
        };
        e = 1;
        do
        :: e == head -> break
        :: e != head ->
            atomic {
                if
#ifdef NO_OLDEST
                :: end[e] != 0 && !cleared[e] ->
#else
                :: end[e] != 0 && end[e] < oldest && !cleared[e] ->
#endif
                    cleared[e] = 1;
                    list[2 * e] = 0;
                    list[2 * e + 1] = 0
                :: else
                fi;
                e++
            }
        od;
        atomic { e = 0; oldest = 0; times-- }
    od
}

init
{
    atomic {
        run writer(0, OPS0, KEYS0);
        if :: OPS1 != 0 -> run writer(1, OPS1, KEYS1) :: else fi;
        run taker();
        if :: TAKERS > 1 -> run taker() :: else fi;
        if :: TURNS != 0 -> run turner() :: else fi
    }
}
