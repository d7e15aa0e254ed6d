/*
 * Marks: where pages' blocks start, and what the clock and reclamation may do
 * with them.
 *
 * A block's head may be read while its mark is visited: only who retired a block
 * and visits it may free it, and one thread visits it at a time.  So a thread
 * that stops on a visit keeps one block; the others pass it by.
 */
#include "pool_internal.h"

#include <assert.h>

/* One bit in each mark. */
#define EACH UINT64_C(0x1111111111111111)

static inline unsigned shift_of(size_t pair)
{
    return (unsigned)(pair % MARKS) * MARK_BITS;
}
static inline unsigned mark_of(uint64_t word, size_t pair)
{
    return (unsigned)(word >> shift_of(pair)) & 0xf;
}
static inline uint64_t marked(unsigned mark, size_t pair)
{
    return (uint64_t)mark << shift_of(pair);
}
static _Atomic uint64_t *word_at(const struct bfti_pool *pool, size_t pair)
{
    assert(pair < pool->pairs);
    return &pool->marks[pair / MARKS];
}

void bfti_mark_publish(struct bfti_pool *pool, size_t index)
{
    const size_t pair = index / 2;
    const unsigned mark = MARK_PUBLISHED | (index % 2 ? MARK_ODD : 0);

    assert(mark_of(atomic_load(word_at(pool, pair)), pair) == 0);
    /* [mark] release: who visits it finds the head. */
    atomic_fetch_or(word_at(pool, pair), marked(mark, pair));
}

void bfti_mark_retire(struct bfti_pool *pool, size_t index)
{
    const size_t pair = index / 2;

    assert((mark_of(atomic_load(word_at(pool, pair)), pair) | MARK_VISITED) ==
           (MARK_PUBLISHED | MARK_VISITED | (index % 2 ? MARK_ODD : 0)));
    /* [mark] release: who visits it finds the number.  The one bit becomes the
     * other; whoever visits the block goes on doing so. */
    atomic_fetch_xor(word_at(pool, pair),
                     marked(MARK_PUBLISHED | MARK_RETIRED, pair));
}

size_t bfti_mark_find(const struct bfti_pool *pool, size_t pair, size_t end,
                      unsigned mark)
{
    const unsigned bit = (unsigned)__builtin_ctz(mark);
    uint64_t below = ~UINT64_C(0) << shift_of(pair);

    while (pair < end) {
        uint64_t word = atomic_load(word_at(pool, pair)) & below;
        uint64_t found = word >> bit & ~(word >> 3) & EACH;

        if (found != 0) {
            pair = pair / MARKS * MARKS +
                   (unsigned)__builtin_ctzll(found) / MARK_BITS;
            return pair < end ? pair : end;
        }
        pair = (pair / MARKS + 1) * MARKS;
        below = ~UINT64_C(0);
    }
    return end;
}

size_t bfti_mark_index(const struct bfti_pool *pool, size_t pair)
{
    unsigned mark = mark_of(atomic_load(word_at(pool, pair)), pair);

    return 2 * pair + (mark & MARK_ODD);
}

bool bfti_mark_visit(struct bfti_pool *pool, size_t pair, unsigned mark,
                     size_t *index)
{
    _Atomic uint64_t *at = word_at(pool, pair);
    uint64_t was = atomic_load(at);

    /* Ends: it fails only when another thread changed one of the word's marks.
     * [mark] acquire: pairs with bfti_mark_publish(), _retire() and _leave(). */
    do
        if ((mark_of(was, pair) & (mark | MARK_VISITED)) != mark)
            return false;
    while (!atomic_compare_exchange_weak(at, &was,
                                         was | marked(MARK_VISITED, pair)));
    *index = 2 * pair + (mark_of(was, pair) & MARK_ODD);
    return true;
}

void bfti_mark_leave(struct bfti_pool *pool, size_t pair)
{
    /* [mark] release: our reads of the head are over. */
    atomic_fetch_and(word_at(pool, pair), ~marked(MARK_VISITED, pair));
}

void bfti_mark_clear(struct bfti_pool *pool, size_t pair)
{
    assert((mark_of(atomic_load(word_at(pool, pair)), pair) &
            (0xfu - MARK_ODD)) == (MARK_RETIRED | MARK_VISITED));
    atomic_fetch_and(word_at(pool, pair), ~marked(0xf, pair));
}

/* --- check ------------------------------------------------------------------ */

struct sums {
    uint64_t retired, kept;
};

/* Does the mark of PAIR, which is not 0, fit what it stands for?  Then BEHIND is
 * the first unit behind the block, which begins there or later before. */
static bool mark_check(const struct bfti_pool *pool, size_t pair,
                       size_t *behind, struct sums *sums)
{
    const unsigned mark = mark_of(atomic_load(word_at(pool, pair)), pair);
    const size_t index = 2 * pair + (mark & MARK_ODD);
    const struct block *block = block_at(pool, index);
    const uint64_t word = atomic_load(&block->word);
    const size_t units = block_units(block);
    const bool retired = (mark & MARK_RETIRED) != 0;

    if ((mark & (0xfu - MARK_ODD)) !=
            (retired ? MARK_RETIRED : MARK_PUBLISHED) ||
        word_state(word) != (retired ? BLOCK_RETIRED : BLOCK_PUBLISHED) ||
        index < *behind || units < BLOCK_UNITS_MIN ||
        units > pool->units - index)
        return false;
    for (size_t i = 0; i < units; i++)
        if (bfti_map_is_free(&pool->pages, index + i) ||
            bfti_map_is_free(&pool->heap, index + i))
            return false;
    *behind = index + units;
    if (retired)
        sums->retired += units | UINT64_C(1) << 40;
    if (retired && word & WORD_COMPARED)
        sums->kept += units | UINT64_C(1) << 40;
    return true;
}

bool bfti_mark_check(const struct bfti_pool *pool)
{
    enum { CHUNK_PAIRS = CHUNK_UNITS / 2 };
    struct sums sums = {0, 0};
    size_t behind = 0;
    unsigned group_count = 0;

    for (size_t c = 0; c * CHUNK_PAIRS < pool->pairs; c++) {
        uint64_t before = sums.retired;
        unsigned count;

        for (size_t pair = c * CHUNK_PAIRS;
             pair < (c + 1) * CHUNK_PAIRS && pair < pool->pairs; pair++)
            if (mark_of(atomic_load(word_at(pool, pair)), pair) != 0 &&
                !mark_check(pool, pair, &behind, &sums))
                return false;
        count = (unsigned)((sums.retired >> 40) - (before >> 40));
        group_count += count;
        if (map_retired(atomic_load(&pool->pages.chunk[c])) != count)
            return false;
        if ((c + 1) % GROUP_CHUNKS != 0 && (c + 1) * CHUNK_PAIRS < pool->pairs)
            continue;
        if (map_retired(atomic_load(&pool->pages.group[c / GROUP_CHUNKS])) !=
            group_count)
            return false;
        group_count = 0;
    }
    return sums.retired == atomic_load(&pool->retired) &&
           sums.kept == atomic_load(&pool->kept);
}
