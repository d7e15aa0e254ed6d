/*
 * A checkpoint beside writers, merges and a split: what its image has, and where
 * redo starts.  index/checkpoint.c (make_image, gather, leaf_word, add_child, seal),
 * buffer/place.c (bfti_table_change, _cut, _inherit, _take_for, _in_image),
 * buffer/merge.c (latch_parts, swing_split, take_closed, swing), index/write.c
 * (publish).
 *
 * Keys 0 and 1 are in leaf 0, until a split gives key 1 to leaf 1.  A leaf has a
 * page on top, a frozen page and an extent; a record's value is its LSN.  The
 * leaves' entries are in one part of the page table each; there is a third part
 * behind them, so that a part of theirs may be skipped.  Whenever a superblock is
 * written, redo from its start over its image must give each key its last record.
 */
#ifndef PUTS
#define PUTS 2
#endif
#ifndef MERGES
#define MERGES 1
#endif
#ifndef CHECKPOINTS
#define CHECKPOINTS 2
#endif

/* Leaves: cell 2 * leaf + key. */
byte top[4], below[4], disk[4]; /* versions; 0 none */
bit has_top[2];    /* there is such a page */
byte is_frozen[2]; /* and such, which one */
byte freezes;
byte closed[2];               /* of the frozen page: by which checkpoint */
bit made[2];                  /* the entry has a word */
bit latch[2];
bit child; /* the parent leads to leaf 1 for key 1 */

/* Parts. */
bit dirty[2], skipped[2];
byte part_epoch[2];
bit taken[2]; /* gathered bits */
bit extra;    /* leaf 1 is to be visited, too */
byte running; /* the checkpoint's number, 0 none */

/* The image under construction, and the last one: a part that is skipped stays. */
byte image[4];
bit in_image[2];

byte log_end = 1, durable, slot = 99;
byte last[2]; /* record of each key */

#ifdef LOW
#define AT(i) (1 - i) /* leaf 1 and its part come first */
#else
#define AT(i) i
#endif

#define CHANGE(l) dirty[l] = 1
#define GATHERED(l) \
    (running != 0 && (taken[l] || (part_epoch[l] == running && skipped[l])))
#define VALUE(l, k) \
    (top[2 * l + k] != 0 \
         -> top[2 * l + k] \
         : (below[2 * l + k] != 0 -> below[2 * l + k] : disk[2 * l + k]))

/* --- writing ------------------------------------------------------------------ */

proctype writer()
{
    byte l, k, n, puts = PUTS;

    do
    :: puts == 0 -> break
    :: puts > 0 ->
        if :: k = 0 :: k = 1 fi;
again:
        l = (k == 1 && child -> 1 : 0);
        atomic { !latch[l] -> latch[l] = 1 };
        if
        :: l == 0 && k == 1 && made[1] -> latch[l] = 0; goto again /* range_of */
        :: else
        fi;
#ifndef NO_SLOT_FIRST
        slot = log_end; /* bfti_wal_enter: a mark that is not above */
        atomic { n = log_end; log_end++; last[k] = n };
#else
        atomic { n = log_end; log_end++; last[k] = n };
        slot = n;
#endif
#ifdef NO_LATE_LEAVE
        slot = 99;
#endif
#ifndef NO_DIRTY
        CHANGE(l); /* [part] */
#endif
        atomic { top[2 * l + k] = n; has_top[l] = 1 };
        latch[l] = 0;
        slot = 99; /* bfti_wal_leave */
        atomic { puts--; n = 0; k = 0; l = 0 }
    od
}

/* --- merging -------------------------------------------------------------------- */

/* Of leaf L, whose page is frozen; SPLITS: in two, if it can be. */
inline merge(splits)
{
    atomic {
        if :: !is_frozen[l] -> goto merged :: else fi;
        f = is_frozen[l];
        m0 = (below[2 * l] != 0 -> below[2 * l] : disk[2 * l]);
        m1 = (below[2 * l + 1] != 0 -> below[2 * l + 1] : disk[2 * l + 1]);
        /* bfti_id_alloc: an id that images may know; while one is made, of a part
         * that it comes to */
        split = splits && l == 0 && !made[1] &&
                (running == 0 || (part_epoch[1] == running && !skipped[1]));
        if :: split -> CHANGE(1) :: else fi
    };
    atomic { if :: !latch[l] -> latch[l] = 1 :: else -> goto merged fi };
    if :: is_frozen[l] != f -> latch[l] = 0; goto merged :: else fi; /* still_there */
    if
    :: split -> /* latch_parts */
        atomic { if :: !latch[1] -> latch[1] = 1 :: else -> latch[l] = 0; goto merged fi };
        atomic {
            CHANGE(1);
#ifndef NO_PASSED_ID
            if
            :: GATHERED(1) -> latch[1] = 0; latch[l] = 0; goto merged
            :: else
            fi
#endif
        }
    :: else
    fi;
    atomic { CHANGE(l); gathered = (GATHERED(l) -> running : 0) };
    if
    :: gathered == 0 && closed[l] != 0 ->
        atomic { /* take_closed, under the table's lock */
            if
            :: running == closed[l] ->
                image[2 * l] = m0;
                image[2 * l + 1] = (split -> 0 : m1);
                in_image[l] = 1;
                taken[l] = 1;
                if
                :: split -> image[3] = m1; in_image[1] = 1; taken[1] = 1
                :: else
                fi
            :: else
            fi
        }
    :: else
    fi;
    if
    :: split -> /* swing_split */
        atomic { CHANGE(0); gathered = (GATHERED(0) -> running : 0); CHANGE(1) };
        atomic { /* bfti_table_inherit */
            if
#ifdef NO_SAME_EPOCH
            :: running != 0 && gathered != 0 -> taken[1] = 1
            :: running != 0 && gathered == 0 -> extra = 1
#else
            :: running != 0 && gathered == running -> taken[1] = 1
#ifndef NO_EXTRA
            :: running != 0 && gathered != running -> extra = 1
#endif
#endif
            :: else
            fi
        };
        d_step { made[1] = 1; disk[3] = m1; top[3] = top[1]; has_top[1] = (top[1] != 0) };
        d_step {
            disk[0] = m0;
            disk[1] = 0;
            top[1] = 0;
            below[0] = 0;
            below[1] = 0;
            is_frozen[0] = 0;
            closed[0] = 0;
            has_top[0] = (top[0] != 0)
        };
        child = 1;
        latch[1] = 0
    :: else ->
        d_step {
            disk[2 * l] = m0;
            disk[2 * l + 1] = m1;
            below[2 * l] = 0;
            below[2 * l + 1] = 0;
            is_frozen[l] = 0;
            closed[l] = 0
        }
    fi;
    latch[l] = 0;
merged:
    atomic { f = 0; m0 = 0; m1 = 0; split = 0; gathered = 0 }
}

inline freeze()
{
    d_step {
        below[2 * l] = top[2 * l];
        below[2 * l + 1] = top[2 * l + 1];
        top[2 * l] = 0;
        top[2 * l + 1] = 0;
        has_top[l] = 0;
        freezes++;
        is_frozen[l] = freezes
    }
}

proctype merger() /* an evictor, or a writer whose page is full */
{
    byte l, f, m0, m1, merges = MERGES;
    byte gathered;
    bit split, want;

    do
    :: merges == 0 -> break
    :: merges > 0 ->
        if :: l = 0 :: made[1] -> l = 1 fi;
        atomic { !latch[l] -> latch[l] = 1 };
        if /* a page without a record, too: bfti_leaf_touch */
        :: !is_frozen[l] -> freeze()
        :: else
        fi;
        latch[l] = 0;
        if :: want = 1 :: want = 0 fi;
        merge(want);
        merges--
    od
}

/* --- the checkpoint --------------------------------------------------------------- */

/* The leaf L until it is taken. */
inline gather()
{
    skip;
look:
    atomic { !latch[l] -> latch[l] = 1 };
    if
    :: GATHERED(l) ->
#ifndef NO_LEFT_OUT
        /* Split off a leaf that was passed: the next image is to have it. */
        if :: made[l] && !in_image[l] -> CHANGE(l) :: else fi;
#endif
        latch[l] = 0;
        goto gone
    :: else
    fi;
    if
    :: !made[l] -> latch[l] = 0; goto gone
    :: made[l] && !has_top[l] && !is_frozen[l] -> /* leaf_word: it is on disk */
        d_step {
            image[2 * l] = disk[2 * l];
            image[2 * l + 1] = disk[2 * l + 1];
            in_image[l] = 1;
            taken[l] = 1
        };
        latch[l] = 0;
        goto gone
    :: made[l] && has_top[l] && !is_frozen[l] -> freeze(); closed[l] = running
    :: made[l] && !has_top[l] && is_frozen[l] -> closed[l] = running
    :: made[l] && has_top[l] && is_frozen[l]
    fi;
    latch[l] = 0;
    merge(0);
    goto look;
gone:
    skip
}

inline read_log()
{
#ifdef NO_END_FIRST
    redo = slot;
    atomic { if :: log_end < redo -> redo = log_end :: else fi }
#else
    redo = log_end;
#ifndef NO_SLOTS
    atomic { if :: slot < redo -> redo = slot :: else fi }
#endif
#endif
}

inline gather_all()
{
    /* bfti_table_cut */
    atomic { taken[0] = 0; taken[1] = 0 };
    atomic { extra = 0; running = epoch };
    i = 0;
    do
    :: i == 2 -> break
    :: i < 2 ->
        l = AT(i);
#ifdef NO_ONE_STEP
        visit = dirty[l];
        atomic { skipped[l] = !visit; dirty[l] = 0; part_epoch[l] = epoch };
#else
        atomic { visit = dirty[l]; skipped[l] = !visit; dirty[l] = 0; part_epoch[l] = epoch };
#endif
        if :: visit -> in_image[l] = 0 :: else fi; /* image_make */
        i++
    od;
    i = 0;
    do
    :: i == 2 -> break
    :: i < 2 ->
        l = AT(i);
        if :: !skipped[l] -> gather() :: else fi;
        i++
    od;
    if :: extra -> extra = 0; l = 1; gather() :: else fi
}

proctype checkpoint()
{
    byte l, i, f, m0, m1, redo, epoch, sync;
    byte gathered;
    bit split, visit, root;

    do
    :: epoch == CHECKPOINTS -> break
    :: epoch < CHECKPOINTS ->
        epoch++;
#ifdef NO_STRUCTURE_LAST
        root = child;
#endif
#ifdef NO_LEAVES_LAST
        gather_all();
        read_log();
#else
        read_log();
        gather_all();
#endif
#ifndef NO_STRUCTURE_LAST
        root = child; /* write_trees */
#endif
#ifndef NO_LOG_SYNCED
        sync = log_end;
        atomic { if :: durable < sync -> durable = sync :: else fi };
#endif
        atomic { /* the superblock: whatever of the log is lost now */
            m0 = image[0];
            m1 = (root && (skipped[1] || in_image[1]) -> image[3] : image[1]);
            assert(m0 < durable || m0 == 0);
            assert(m1 < durable || m1 == 0);
            assert(last[0] >= redo || m0 == last[0]);
            assert(last[1] >= redo || m1 == last[1]);
            running = 0; /* bfti_table_finish */
            m0 = 0;
            m1 = 0;
            l = 0;
            i = 0;
            redo = 0;
            sync = 0;
            root = 0;
            visit = 0
        }
    od
}

init
{
    atomic {
        made[0] = 1;
        run writer();
        if :: MERGES > 0 -> run merger() :: else fi;
        run checkpoint()
    }
}
