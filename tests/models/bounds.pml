/*
 * Bounds lead searches to free units: buffer/pool_map.c (units_uncover,
 * bounds_raise, bound_lower, claim, chunk_take, group_take).
 *
 * One chunk of three units, in a group of its own.  Threads free a unit each, and
 * others look for a run, claim it and give it back.  Units are read and claimed
 * one by one, as words of them are.  In the end all are free, and the bounds have
 * to say so.
 */
#ifndef SEARCHERS
#define SEARCHERS 1
#endif
#ifndef FREERS
#define FREERS 2
#endif

#define UNITS 3
#define CHUNK 0
#define GROUP 1

bool free[UNITS];
byte bound[2] = UNITS; /* too high, as claims leave them */
byte raised[2];        /* so many times */
byte running;

/* bound_raise */
inline raise(which, size)
{
    atomic {
#ifdef NO_COUNT
        if
        :: size > bound[which] -> bound[which] = size; raised[which]++
        :: else
        fi
#else
        raised[which]++;
        if
        :: size > bound[which] -> bound[which] = size
        :: else
        fi
#endif
    }
}

/* bounds_raise: units FROM to TO, behind the last, were freed. */
inline raise_both(from, to)
{
    low = from;
    high = to;
#ifndef NO_NEIGHBOURS
    do
    :: low > 0 && free[low - 1] -> low--
    :: else -> break
    od;
    do
    :: high < UNITS && free[high] -> high++
    :: else -> break
    od;
#endif
#ifdef NO_CHUNK_FIRST
    raise(GROUP, high - low);
    raise(CHUNK, high - low);
#else
    raise(CHUNK, high - low);
    raise(GROUP, high - low);
#endif
    skip;
    d_step { low = 0; high = 0 }
}

proctype freer(byte u)
{
    byte low, high;

#ifdef NO_UNITS_FIRST
    raise_both(u, u + 1);
    free[u] = true;
#else
    free[u] = true;
    raise_both(u, u + 1);
#endif
    running--
}

/* bound_lower: only if nobody raised it since it was SEEN. */
inline lower(which, was_bound, was_raised, most)
{
    atomic {
        if
        :: bound[which] == was_bound && raised[which] == was_raised && most < was_bound ->
            bound[which] = most
        :: else
        fi
    }
}

#define NONE 9
/* Of chunk_look: a run ends in front of unit I. */
#define CLOSE                                                       \
    d_step {                                                        \
        if                                                          \
        :: at == NONE && row >= need -> at = i - row; size = row    \
        :: else -> others = (row > others -> row : others)          \
        fi;                                                         \
        row = 0                                                     \
    }

/* chunk_look: the first run that will do, and the longest other one. */
inline look()
{
    d_step { at = NONE; size = 0; others = 0; i = 0; row = 0 };
    do
    :: i == UNITS -> break
    :: i < UNITS ->
        if
        :: free[i] -> row++
        :: else -> CLOSE
        fi;
        i++
    od;
    skip;
    CLOSE
}

proctype searcher()
{
    byte need, at, size, others, i, row, low, high;
    byte group_bound, group_raised, chunk_bound, chunk_raised;

    if
    :: need = 1
    :: need = 2
    :: need = 3
    fi;
again:
    skip;
#ifndef NO_GROUP_SEEN_FIRST
    d_step { group_bound = bound[GROUP]; group_raised = raised[GROUP] };
#endif
    if
    :: bound[GROUP] < need -> goto over
    :: else
    fi;
    d_step { chunk_bound = bound[CHUNK]; chunk_raised = raised[CHUNK] };
    if
    :: chunk_bound < need ->
#ifdef NO_GROUP_SEEN_FIRST
        d_step { group_bound = bound[GROUP]; group_raised = raised[GROUP] };
#endif
        lower(GROUP, group_bound, group_raised, chunk_bound);
        goto over
    :: else
    fi;
    look();
#ifdef NO_SEEN_FIRST
    d_step { chunk_bound = bound[CHUNK]; chunk_raised = raised[CHUNK] };
#endif
    if
    :: at == NONE ->
        lower(CHUNK, chunk_bound, chunk_raised, others);
        goto again
    :: else
    fi;
    i = at; /* claim */
    do
    :: i == at + need -> break
    :: atomic { i < at + need && free[i] -> free[i] = false; i++ }
    :: atomic { i < at + need && !free[i] -> row = i };
        i = at;
        do
        :: i == row -> break
        :: i < row -> free[i] = true; i++
        od;
#ifndef NO_UNDO_RAISED
        if
        :: row > at -> raise_both(at, row)
        :: else
        fi;
#endif
        goto over
    od;
    skip;
    d_step {
        size = size - need;
        if
        :: size > others -> others = size
        :: else
        fi
    };
    lower(CHUNK, chunk_bound, chunk_raised, others);
    i = at;
    do
    :: i == at + need -> break
    :: i < at + need -> free[i] = true; i++
    od;
    raise_both(at, at + need);
over:
    running--
}

init
{
    atomic {
        free[0] = FREERS < 1;
        free[1] = FREERS < 2;
        free[2] = FREERS < 3;
        running = FREERS + SEARCHERS;
        if :: FREERS > 0 -> run freer(0) :: else fi;
        if :: FREERS > 1 -> run freer(1) :: else fi;
        if :: FREERS > 2 -> run freer(2) :: else fi;
        run searcher();
        if :: SEARCHERS > 1 -> run searcher() :: else fi
    };
    running == 0;
    assert(bound[CHUNK] == UNITS && bound[GROUP] == UNITS)
}
