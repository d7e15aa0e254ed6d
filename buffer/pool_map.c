/*
 * Which units of the pool are free, without a lock: a bit for each, claimed by
 * compare-and-swap on its word of 64.  What is free side by side is one run, so
 * nothing has to be joined.  Runs of more than a word are claimed word by word,
 * upwards; who meets a unit that is taken gives back what it has and looks
 * again.
 *
 * So that a search does not read all bits, each chunk has a bound on the runs
 * that begin in it, and each group of chunks a bound on theirs.  Who frees units
 * raises bounds, who searched a chunk in vain lowers its bound to what it saw,
 * unless somebody raised it since it began to look: then there may be more.
 *
 * The block chosen is the shortest run that will do in the first chunks that
 * have one; sizes come in few classes, and what was freed mostly fits exactly.
 */
#include "pool_internal.h"

#include <assert.h>

enum {
    TRIES = 96, /* in a group, of a search that others get in the way of */
    WORD = 64,  /* units of a word of bits */
};

#define BOUND_MASK  ((UINT64_C(1) << 10) - 1)
#define RETIRED_ONE (UINT64_C(1) << 10)
#define RAISED_ONE  (UINT64_C(1) << 26)
#define NO_CHUNK    SIZE_MAX

/* --- bits ------------------------------------------------------------------- */

/* [free] seq_cst: pairs with units_toggle() and claim().  Of two who free
 * neighbours and then look beside them, one at least sees the other's. */
static inline uint64_t free_bits(const struct bfti_pool_map *map, size_t word)
{
    return atomic_load(&map->bits[word]) ^ map->flip;
}

bool bfti_map_is_free(const struct bfti_pool_map *map, size_t index)
{
    return (free_bits(map, index / WORD) >> index % WORD & 1) != 0;
}

/* The bits of word WORD_INDEX for units from AT on, in front of END. */
static uint64_t word_mask(size_t word_index, size_t at, size_t end)
{
    size_t first = word_index * WORD;
    uint64_t mask = ~UINT64_C(0);

    assert(at < end);
    if (at > first)
        mask &= ~UINT64_C(0) << (at - first);
    if (end < first + WORD)
        mask &= ~UINT64_C(0) >> (first + WORD - end);
    return mask;
}

/* The first unit from AT on that is free, or not, as FLIP is 0 or all ones; END
 * if there is none in front of it. */
static inline size_t unit_from(const struct bfti_pool_map *map, size_t at,
                               size_t end, uint64_t flip)
{
    size_t word = at / WORD;
    uint64_t bits;

    if (at >= end)
        return end;
    bits = (free_bits(map, word) ^ flip) & ~UINT64_C(0) << at % WORD;
    while (bits == 0) {
        if (++word * WORD >= end)
            return end;
        bits = free_bits(map, word) ^ flip;
    }
    at = word * WORD + (size_t)__builtin_ctzll(bits);
    return at < end ? at : end;
}
static size_t free_from(const struct bfti_pool_map *map, size_t at, size_t end)
{
    return unit_from(map, at, end, 0);
}
static size_t used_from(const struct bfti_pool_map *map, size_t at, size_t end)
{
    return unit_from(map, at, end, ~UINT64_C(0));
}

/* Where the free units begin that end in front of AT, from FLOOR on. */
static size_t free_back(const struct bfti_pool_map *map, size_t at,
                        size_t floor)
{
    while (at > floor) {
        size_t word = (at - 1) / WORD;
        uint64_t used = ~free_bits(map, word) << (WORD - 1 - (at - 1) % WORD);

        if (used != 0) {
            at -= (size_t)__builtin_clzll(used);
            break;
        }
        at = word * WORD;
    }
    return at > floor ? at : floor;
}

static void units_toggle(struct bfti_pool_map *map, size_t at, size_t end)
{
    for (size_t word = at / WORD; word * WORD < end; word++)
        /* [free] release: what was done with the units is over. */
        atomic_fetch_xor(&map->bits[word], word_mask(word, at, end));
}

/* --- where to begin ---------------------------------------------------------- */

static size_t group_of(size_t index)
{
    return index / CHUNK_UNITS / GROUP_CHUNKS;
}

/* Four rows for each doubling of sizes. */
static unsigned row_of(size_t units)
{
    unsigned top = 31u - (unsigned)__builtin_clz((unsigned)units);

    return top < 2 ? (unsigned)units : top * 4 - 4 + (units >> (top - 2)) % 4;
}

/* A search for as many units begins at chunk C from now on.  All relaxed: one
 * that begins elsewhere finds as much, but farther from the front. */
static void start_set(struct bfti_pool_map *map, unsigned units, size_t c)
{
    _Atomic size_t *start = &map->start[row_of(units)];

    if (atomic_load_explicit(start, memory_order_relaxed) != c)
        atomic_store_explicit(start, c, memory_order_relaxed);
}

/* A run of LEN may be had in chunk C.  Ends where searches begin no farther from
 * the front: those for fewer units mostly do not, either. */
static void start_lower(struct bfti_pool_map *map, size_t c, size_t len)
{
    for (unsigned row = row_of(len) + 1; row-- > 0;) {
        if (atomic_load_explicit(&map->start[row], memory_order_relaxed) <= c)
            return;
        atomic_store_explicit(&map->start[row], c, memory_order_relaxed);
    }
}

/* --- bounds ------------------------------------------------------------------ */

static inline unsigned bound_of(const struct bfti_pool_map *map, uint64_t value)
{
    return (unsigned)((value ^ map->flip) & BOUND_MASK);
}

static uint64_t with_bound(const struct bfti_pool_map *map, uint64_t value,
                           size_t bound)
{
    return (value & ~BOUND_MASK) | ((bound ^ map->flip) & BOUND_MASK);
}
_Static_assert(BFTI_UNITS_MAX == BOUND_MASK,
               "flipped, no bound is the longest");

/* A run of LEN may be had there; with GONE, RETIRED_ONE or 0, as many retired
 * blocks fewer start there. */
static void bound_raise(const struct bfti_pool_map *map, _Atomic uint64_t *at,
                        size_t len, uint64_t gone)
{
    uint64_t was = atomic_load(at), is;

    /* Ends: it fails only when another thread changed the value.  Counted even
     * where the bound is high enough: somebody may be about to lower it for
     * what it saw before our units were free. */
    do
        is = (len > bound_of(map, was) ? with_bound(map, was, len) : was) +
             RAISED_ONE - gone;
    while (!atomic_compare_exchange_weak(at, &was, is));
}

/* There is no run longer than LEN, by what was looked at since *AT was SEEN. */
static void bound_lower(const struct bfti_pool_map *map, _Atomic uint64_t *at,
                        uint64_t seen, size_t len)
{
    if (len < bound_of(map, seen))
        (void)atomic_compare_exchange_strong(at, &seen,
                                             with_bound(map, seen, len));
}

/* Units from AT on, in front of END, are free since a moment ago; with RETIRED
 * by a retired block that is still counted where it starts, at AT. */
static void bounds_raise(struct bfti_pool_map *map, size_t at, size_t end,
                         bool retired)
{
    size_t floor = at > BFTI_UNITS_MAX ? at - BFTI_UNITS_MAX : 0;
    size_t top =
        end + BFTI_UNITS_MAX < map->units ? end + BFTI_UNITS_MAX : map->units;
    size_t first = free_back(map, at, floor);
    size_t behind = used_from(map, end, top);

    for (size_t c = first / CHUNK_UNITS; c * CHUNK_UNITS < end; c++) {
        size_t start = c * CHUNK_UNITS > first ? c * CHUNK_UNITS : first;
        size_t len = behind - start;
        uint64_t gone = retired && c == at / CHUNK_UNITS ? RETIRED_ONE : 0;

        if (len > BFTI_UNITS_MAX)
            len = BFTI_UNITS_MAX;
        /* The chunk first: who lowers the group's looks at it in between. */
        bound_raise(map, &map->chunk[c], len, gone);
        bound_raise(map, &map->group[c / GROUP_CHUNKS], len, gone);
        start_lower(map, c, len);
    }
}

static void units_uncover(struct bfti_pool_map *map, size_t at, size_t end,
                          bool retired)
{
    units_toggle(map, at, end);
    PARK("pool:uncovered");
    bounds_raise(map, at, end, retired);
}

void bfti_map_give(struct bfti_pool_map *map, size_t index, size_t units,
                   bool retired)
{
    assert(units > 0 && index + units <= map->units);
    /* Before they can be taken: the sum is never less than what is free. */
    atomic_fetch_add(&map->free_units, units);
    units_uncover(map, index, index + units, retired);
}

void bfti_map_retired(struct bfti_pool_map *map, size_t index, bool more)
{
    size_t c = index / CHUNK_UNITS;
    uint64_t one = more ? RETIRED_ONE : -RETIRED_ONE;

    atomic_fetch_add(&map->chunk[c], one);
    atomic_fetch_add(&map->group[c / GROUP_CHUNKS], one);
}

/* --- taking ------------------------------------------------------------------- */

/* All units from AT on, in front of END, or none. */
static bool claim(struct bfti_pool_map *map, size_t at, size_t end)
{
    for (size_t word = at / WORD; word * WORD < end; word++) {
        uint64_t mask = word_mask(word, at, end);
        uint64_t was = atomic_load(&map->bits[word]);

        /* Ends: it fails only when another thread took or freed units of this
         * word.  Of threads that undo each other's claims, the one highest up
         * goes on: a claim grows upwards. */
        do {
            if (((was ^ map->flip) & mask) != mask) {
                if (word * WORD > at)
                    units_uncover(map, at, word * WORD, false);
                return false;
            }
            /* [free] acquire: pairs with the release in units_toggle(). */
        } while (
            !atomic_compare_exchange_weak(&map->bits[word], &was, was ^ mask));
        PARK("pool:claiming");
    }
    atomic_fetch_sub(&map->free_units, end - at);
    return true;
}

/* What a look at a chunk found: the shortest run that will do, and the length of
 * the longest other one, if it was at all of them. */
struct look {
    size_t at, len, others;
    bool all;
};

/* With SOON it ends at a run that fits exactly. */
static struct look chunk_look(const struct bfti_pool_map *map, size_t c,
                              unsigned units, struct range range, bool soon)
{
    struct look look = {0, 0, 0, false};
    size_t at = c * CHUNK_UNITS, end = at + CHUNK_UNITS;

    if (at < range.from)
        at = range.from;
    if (end > range.to)
        end = range.to;
    while ((at = free_from(map, at, end)) < end) {
        size_t top = at + BFTI_UNITS_MAX + 1;
        size_t behind = used_from(map, at, top < range.to ? top : range.to);
        size_t len = behind - at, other = len;

        if (len >= units && (look.len == 0 || len < look.len)) {
            other = look.len;
            look.len = len;
            look.at = at;
            if (soon && len == units)
                return look;
        }
        if (other > look.others)
            look.others = other;
        at = behind;
    }
    look.all = true;
    return look;
}

static size_t bounded(size_t len)
{
    return len < BFTI_UNITS_MAX ? len : BFTI_UNITS_MAX;
}

/* Where to take UNITS of the run that was met at AT in chunk C: what it has in
 * front of the chunk is not left there when it is too short by itself. */
static size_t run_front(const struct bfti_pool_map *map, size_t c, size_t at,
                        unsigned units, struct range range)
{
    size_t floor = at > range.from + units ? at - units : range.from;
    size_t front = at;

    if (at == c * CHUNK_UNITS)
        front = free_back(map, at, floor);
    return at - front < units ? front : at;
}

/* As bfti_map_take(), of what begins in chunk C.  False: there is none, or
 * another thread was faster. */
static bool chunk_take(struct bfti_pool_map *map, size_t c, unsigned units,
                       struct range range, size_t *index, unsigned *got)
{
    uint64_t seen = atomic_load(&map->chunk[c]);
    /* Where the longest run would be the one to take, the bound is to fall. */
    struct look look =
        chunk_look(map, c, units, range, bound_of(map, seen) > units);
    size_t front, rest;

    if (look.len == 0) {
        bound_lower(map, &map->chunk[c], seen, bounded(look.others));
        return false;
    }
    front = run_front(map, c, look.at, units, range);
    look.len += look.at - front;
    /* A unit that remains alone is of use to nobody: it stays with the block,
     * whose place says so, unless its place could not. */
    if (look.len == units + 1 && units < BFTI_UNITS_MAX)
        units++;
    PARK("pool:found");
    if (!claim(map, front, front + units))
        return false;
    rest = front + units < (c + 1) * CHUNK_UNITS ? look.len - units : 0;
    /* Of a run whose end was not looked for nothing is known. */
    if (look.all && look.len <= BFTI_UNITS_MAX)
        bound_lower(map, &map->chunk[c], seen,
                    bounded(rest > look.others ? rest : look.others));
    *index = front;
    *got = units;
    return true;
}

/* What a look at the bounds of a group found: the chunk with the least that will
 * do, of some; the first of those; the longest bound met. */
struct choice {
    size_t best, first;
    unsigned most;
};

/* Of chunks of group G, from C on. */
static struct choice chunk_choose(const struct bfti_pool_map *map, size_t g,
                                  size_t c, unsigned units, struct range range)
{
    const size_t chunks = (range.to + CHUNK_UNITS - 1) / CHUNK_UNITS;
    const size_t behind = (g + 1) * GROUP_CHUNKS;
    const size_t end = behind < chunks ? behind : chunks;
    struct choice choice = {NO_CHUNK, NO_CHUNK, 0};
    unsigned best_bound = BFTI_UNITS_MAX + 1, looks = map->looks;

    for (; c < end && looks > 0; c++) {
        unsigned bound = bound_of(map, atomic_load(&map->chunk[c]));

        if (bound > choice.most)
            choice.most = bound;
        if (bound < units)
            continue;
        if (choice.first == NO_CHUNK)
            choice.first = c;
        if (bound < best_bound) {
            choice.best = c;
            best_bound = bound;
        }
        looks = bound == units ? 0 : looks - 1;
    }
    return choice;
}

/* As bfti_map_take(), of what begins in group G; from chunk C on, if there is
 * something. */
static bool group_take(struct bfti_pool_map *map, size_t g, size_t c,
                       unsigned units, struct range range, size_t *index,
                       unsigned *got)
{
    size_t begin = g * GROUP_CHUNKS;

    if (begin < range.from / CHUNK_UNITS)
        begin = range.from / CHUNK_UNITS;
    if (c < begin)
        c = begin;
    for (unsigned tries = 0; tries < TRIES; tries++) {
        uint64_t seen = atomic_load(&map->group[g]);
        struct choice choice;

        if (bound_of(map, seen) < units)
            return false;
        choice = chunk_choose(map, g, c, units, range);
        if (choice.best == NO_CHUNK && c == begin) {
            bound_lower(map, &map->group[g], seen, choice.most);
        } else if (choice.best == NO_CHUNK) {
            c = begin;
        } else if (chunk_take(map, choice.best, units, range, index, got)) {
            start_set(map, units, choice.first);
            return true;
        }
    }
    return false;
}

bool bfti_map_take(struct bfti_pool_map *map, unsigned units,
                   struct range range, size_t *index, unsigned *got)
{
    const size_t first = group_of(range.from);
    size_t groups, g, c;

    assert(units > 0 && units <= BFTI_UNITS_MAX);
    if (range.from >= range.to)
        return false;
    groups = group_of(range.to - 1) - first + 1;
    /* relaxed: a hint, and all chunks are looked at. */
    c = atomic_load_explicit(&map->start[row_of(units)], memory_order_relaxed);
    g = c / GROUP_CHUNKS;
    g = g > first && g - first < groups ? g - first : 0;
    for (size_t i = 0; i < groups; i++) {
        if (group_take(map, first + g, c, units, range, index, got))
            return true;
        g = g + 1 < groups ? g + 1 : 0;
        c = 0;
    }
    return false;
}

bool bfti_map_take_first(struct bfti_pool_map *map, struct range range,
                         size_t *index, unsigned *got)
{
    size_t at = range.from;

    while ((at = free_from(map, at, range.to)) < range.to) {
        size_t top = at + BFTI_UNITS_MAX;
        size_t behind = used_from(map, at, top < range.to ? top : range.to);

        /* None, if another thread took the first one in between. */
        if (behind > at && claim(map, at, behind)) {
            *index = at;
            *got = (unsigned)(behind - at);
            return true;
        }
        at++;
    }
    return false;
}

/* --- figures and check ---------------------------------------------------------- */

size_t bfti_map_longest(const struct bfti_pool_map *map, struct range range)
{
    size_t longest = 0, at = range.from;

    while ((at = free_from(map, at, range.to)) < range.to) {
        size_t behind = used_from(map, at, range.to);

        if (behind - at > longest)
            longest = behind - at;
        at = behind;
    }
    return longest;
}

/* Is the bound of chunk C at least its longest run, and its group's no less?
 * Adds its free units. */
static bool chunk_check(const struct bfti_pool_map *map, size_t c,
                        struct range range, size_t *free_units)
{
    size_t at = c * CHUNK_UNITS, end = at + CHUNK_UNITS;
    struct look look = chunk_look(map, c, BFTI_UNITS_MAX, range, false);
    size_t len = bounded(look.len > look.others ? look.len : look.others);

    if (at < range.from)
        at = range.from;
    if (end > range.to)
        end = range.to;
    for (size_t word = at / WORD; word * WORD < end; word++)
        *free_units += (size_t)__builtin_popcountll(free_bits(map, word) &
                                                    word_mask(word, at, end));
    return len <= bound_of(map, atomic_load(&map->chunk[c])) &&
           len <= bound_of(map, atomic_load(&map->group[c / GROUP_CHUNKS]));
}

bool bfti_map_check(const struct bfti_pool_map *map, struct range range)
{
    size_t free_units = 0;

    for (size_t c = range.from / CHUNK_UNITS; c * CHUNK_UNITS < range.to; c++)
        if (!chunk_check(map, c, range, &free_units))
            return false;
    return free_units == atomic_load(&map->free_units);
}
