/*
 * Free blocks of the pool, after Masmano, Ripoll, Crespo and Real, "TLSF: a new
 * dynamic memory allocator for real-time systems" (2004): lists by size in two
 * levels, bitmaps over them, boundary tags; allocation and release take a
 * bounded number of steps at any pool size.
 *
 * Difference: before it goes to a list where every block is large enough, a
 * search looks at the first blocks of the list where only some are.  Sizes come
 * in few classes, so what was just freed there mostly fits exactly.
 */
#include "pool_internal.h"

#include <assert.h>
#include <string.h>

#include "threads_internal.h"

#if defined(__SANITIZE_ADDRESS__)
#define POOL_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POOL_ASAN 1
#endif
#endif
#ifdef POOL_ASAN
#include <sanitizer/asan_interface.h>
#endif

#ifndef BFT_CHECK
#define BFT_CHECK 1
#endif

/* The smallest block that is split off: a mini-page needs that much. */
enum { SPLIT_UNITS = 2 };

/* Blocks looked at in a list where not all are large enough: first, and when
 * nothing else is left. */
enum { LOOK_FIRST = 4, LOOK_LAST = 64 };

/* --- freed bytes ------------------------------------------------------------ */

/*
 * Whoever still reads a freed page shall be noticed: by the address sanitizer,
 * by the thread sanitizer (a write that races with the read), or by nonsense
 * in place of records.
 */
static void bytes_forget(struct block *block, size_t units)
{
    uint8_t *from = (uint8_t *)(block + 1);
    size_t len = units * BFTI_UNIT - sizeof(*block);

    if (BFT_CHECK >= 2 || BFTI_TSAN)
        memset((uint8_t *)block + BFTI_BLOCK_HEAD, 0xdd,
               units * BFTI_UNIT - BFTI_BLOCK_HEAD);
#ifdef POOL_ASAN
    __asan_poison_memory_region(from, len);
#else
    (void)from;
    (void)len;
#endif
}

static void bytes_recall(void *from, size_t len)
{
#ifdef POOL_ASAN
    __asan_unpoison_memory_region(from, len);
#else
    (void)from;
    (void)len;
#endif
}

/* --- lists -------------------------------------------------------------------- */

static void cell_of(size_t units, unsigned *row, unsigned *cell)
{
    unsigned top;

    if (units < CELLS) {
        *row = 0;
        *cell = (unsigned)units;
        return;
    }
    top = 31u - (unsigned)__builtin_clz((unsigned)units);
    *row = top - CELL_BITS + 1;
    *cell = (unsigned)(units >> (top - CELL_BITS)) % CELLS;
}
_Static_assert(ROWS == 31 - CELL_BITS + 2, "a row for each size of 32 bits");

static void free_units_add(struct bfti_pool_blocks *blocks, size_t units,
                           bool more)
{
    /* relaxed: a figure; only who holds the pool lock writes it. */
    size_t now =
        atomic_load_explicit(&blocks->free_units, memory_order_relaxed);
    atomic_store_explicit(&blocks->free_units, more ? now + units : now - units,
                          memory_order_relaxed);
}

/* Put a block that is in no list into the one for its size, as free. */
static void list_add(struct bfti_pool_blocks *blocks, struct block *block,
                     size_t units)
{
    unsigned row;
    unsigned cell;

    assert(units > 0 && units <= FREE_UNITS_MAX);
    cell_of(units, &row, &cell);
    block->size = (uint32_t)units;
    block_set_word(block, word_of(BLOCK_FREE, 0));
    block->prev = NULL;
    block->next = blocks->list[row][cell];
    if (block->next != NULL)
        block->next->prev = block;
    blocks->list[row][cell] = block;
    blocks->cells[row] |= 1u << cell;
    blocks->rows |= 1u << row;
    free_units_add(blocks, units, true);
}

static void list_remove(struct bfti_pool_blocks *blocks, struct block *block)
{
    unsigned row;
    unsigned cell;

    assert(block_state(block) == BLOCK_FREE);
    cell_of(block->size, &row, &cell);
    if (block->next != NULL)
        block->next->prev = block->prev;
    if (block->prev != NULL) {
        block->prev->next = block->next;
    } else {
        assert(blocks->list[row][cell] == block);
        blocks->list[row][cell] = block->next;
        if (block->next == NULL) {
            blocks->cells[row] &= ~(1u << cell);
            if (blocks->cells[row] == 0)
                blocks->rows &= ~(1u << row);
        }
    }
    free_units_add(blocks, block->size, false);
}

/* A block of at least UNITS among the first LOOKS of its own list. */
static struct block *list_look(struct bfti_pool_blocks *blocks, unsigned units,
                               unsigned looks)
{
    struct block *block;
    unsigned row;
    unsigned cell;

    cell_of(units, &row, &cell);
    block = blocks->list[row][cell];
    while (block != NULL && block->size < units)
        block = --looks > 0 ? block->next : NULL;
    return block;
}

/* A block from the first list above that of UNITS: any of it will do. */
static struct block *list_above(struct bfti_pool_blocks *blocks, unsigned units)
{
    unsigned row;
    unsigned cell;
    uint32_t cells;
    uint32_t rows;

    cell_of(units, &row, &cell);
    cells = blocks->cells[row] & ~((2u << cell) - 1);
    if (cells == 0) {
        rows = blocks->rows & ~((2u << row) - 1);
        if (rows == 0)
            return NULL;
        row = (unsigned)__builtin_ctz(rows);
        cells = blocks->cells[row];
    }
    return blocks->list[row][__builtin_ctz(cells)];
}

/* --- blocks --------------------------------------------------------------------- */

/* The block of size 0 in use that ends every walk, at INDEX. */
static void end_make(struct bfti_pool_blocks *blocks, size_t index,
                     uint32_t before)
{
    struct block *last = block_at(blocks, index);

    last->size = 0;
    last->before = before;
    block_set_word(last, word_of(BLOCK_PRIVATE, 0));
    blocks->units = blocks->limit = blocks->zone_hand = index;
}

void bfti_blocks_init(struct bfti_pool_blocks *blocks, void *base, size_t units)
{
    uint32_t before = 0;

    memset(blocks, 0, sizeof(*blocks));
    blocks->base = base;
    for (size_t index = 0; index < units;) {
        size_t left = units - index;
        size_t len = left < FREE_UNITS_MAX ? left : FREE_UNITS_MAX;
        struct block *block = block_at(blocks, index);

        block->before = before;
        list_add(blocks, block, len);
        before = (uint32_t)len;
        index += len;
    }
    end_make(blocks, units, before);
}

void bfti_blocks_finish(struct bfti_pool_blocks *blocks)
{
    bytes_recall(blocks->base, blocks->units * BFTI_UNIT);
}

struct block *bfti_blocks_take(struct bfti_pool_blocks *blocks, unsigned units)
{
    struct block *block;
    struct block *after;
    size_t rest;

    assert(units >= 1 && units <= BFTI_UNITS_MAX);
    block = list_look(blocks, units, LOOK_FIRST);
    if (block == NULL)
        block = list_above(blocks, units);
    if (block == NULL)
        block = list_look(blocks, units, LOOK_LAST);
    if (block == NULL)
        return NULL;

    list_remove(blocks, block);
    after = block_after(blocks, block);
    rest = block->size - units;
    /* A rest too small for a page stays with the block, whose place says so,
     * unless its place could not. */
    if (rest >= SPLIT_UNITS || units + rest > BFTI_UNITS_MAX) {
        struct block *spare =
            block_at(blocks, block_index(blocks, block) + units);

        bytes_recall(spare, sizeof(*spare));
        spare->before = units;
        list_add(blocks, spare, rest);
        after->before = (uint32_t)rest;
    } else {
        units += (unsigned)rest;
    }
    blocks->generation++;
    block->size = units | (uint32_t)blocks->generation << 10;
    block_set_word(block, word_of(BLOCK_PRIVATE, 0));
    bytes_recall(block, (size_t)units * BFTI_UNIT);
    return block;
}

/* Free blocks in the lists, or withheld and in none. */
static void free_add(struct bfti_pool_blocks *blocks, struct block *block,
                     size_t units)
{
    if (block_index(blocks, block) < blocks->limit) {
        list_add(blocks, block, units);
        return;
    }
    block->size = (uint32_t)units;
    block_set_word(block, word_of(BLOCK_FREE, 0));
    blocks->withheld += units;
}

static void free_remove(struct bfti_pool_blocks *blocks, struct block *block)
{
    if (block_index(blocks, block) < blocks->limit)
        list_remove(blocks, block);
    else
        blocks->withheld -= block->size;
}

/* May a free block of UNITS be joined with OTHER, where the blocks of the two
 * meet at INDEX?  Nothing joins across the limit. */
static bool may_join(const struct bfti_pool_blocks *blocks, size_t units,
                     struct block *other, size_t index)
{
    return block_state(other) == BLOCK_FREE && index != blocks->limit &&
           units + other->size <= FREE_UNITS_MAX;
}

/* A hand stands at the start of a block, always. */
static void hand_settle(size_t *hand, size_t index, size_t units)
{
    if (*hand > index && *hand < index + units)
        *hand = index;
}

void bfti_blocks_release(struct bfti_pool_blocks *blocks, struct block *block)
{
    struct block *after = block_after(blocks, block);
    size_t units = block_units(block);
    size_t index = block_index(blocks, block);

    assert(block_state(block) != BLOCK_FREE);
    bytes_forget(block, units);
    if (may_join(blocks, units, after, index + units)) {
        free_remove(blocks, after);
        units += after->size;
    }
    if (block->before != 0) {
        struct block *before = block_at(blocks, index - block->before);

        if (may_join(blocks, units, before, index)) {
            free_remove(blocks, before);
            units += before->size;
            block = before;
        }
    }
    index = block_index(blocks, block);
    hand_settle(&blocks->hand, index, units);
    hand_settle(&blocks->zone_hand, index, units);
    free_add(blocks, block, units);
    block_at(blocks, index + units)->before = (uint32_t)units;
}

/* Cut the free block at INDEX, which is in no list, in two at TO; the front one
 * is listed.  Returns the rest. */
static struct block *free_cut(struct bfti_pool_blocks *blocks, size_t index,
                              size_t to)
{
    struct block *block = block_at(blocks, index);
    struct block *rest = block_at(blocks, to);
    uint32_t units = block->size;

    bytes_recall(rest, sizeof(*rest));
    rest->before = (uint32_t)(to - index);
    rest->size = units - rest->before;
    block_set_word(rest, word_of(BLOCK_FREE, 0));
    list_add(blocks, block, to - index);
    block_after(blocks, rest)->before = rest->size;
    return rest;
}

void bfti_blocks_withhold(struct bfti_pool_blocks *blocks, size_t units)
{
    size_t to = units < blocks->units ? blocks->units - units : 0;
    size_t index = blocks->units;

    assert(blocks->limit == blocks->units && blocks->withheld == 0);
    /* Ends: each block has at least one unit. */
    while (index > to) {
        struct block *block;

        index -= block_at(blocks, index)->before;
        block = block_at(blocks, index);
        if (block_state(block) != BLOCK_FREE)
            continue;
        list_remove(blocks, block);
        if (index < to) {
            block = free_cut(blocks, index, to);
            index = to;
        }
        blocks->withheld += block->size;
    }
    blocks->limit = blocks->zone_hand = index;
}

size_t bfti_blocks_cut(struct bfti_pool_blocks *blocks)
{
    size_t units = blocks->units - blocks->limit;
    struct block *first = block_at(blocks, blocks->limit);

    assert(blocks->withheld == units && units > 0);
    blocks->withheld = 0;
    if (blocks->hand >= blocks->limit)
        blocks->hand = 0;
    end_make(blocks, blocks->limit, first->before);
    return units;
}

void bfti_blocks_prepend(struct bfti_pool_blocks *blocks, size_t units)
{
    struct block *second = block_at(blocks, 0);
    struct block *first;

    assert(units > 0 && units < FREE_UNITS_MAX);
    blocks->base -= units * BFTI_UNIT;
    first = block_at(blocks, 0);
    bytes_recall(first, sizeof(*first));
    first->before = 0;
    if (blocks->units > 0 && block_state(second) == BLOCK_FREE &&
        units + second->size <= FREE_UNITS_MAX) {
        list_remove(blocks, second);
        first->size = (uint32_t)(units + second->size);
    } else {
        first->size = (uint32_t)units;
    }
    blocks->hand = 0;
    blocks->units += units;
    blocks->limit = blocks->zone_hand = blocks->units;
    list_add(blocks, first, first->size);
    block_after(blocks, first)->before = first->size;
}

size_t bfti_blocks_largest(struct bfti_pool_blocks *blocks)
{
    struct block *block;
    size_t largest = 0;
    unsigned row;
    unsigned looks = LOOK_LAST;

    if (blocks->rows == 0)
        return 0;
    row = 31u - (unsigned)__builtin_clz(blocks->rows);
    block = blocks->list[row][31 - __builtin_clz(blocks->cells[row])];
    for (; block != NULL && looks-- > 0; block = block->next)
        if (block->size > largest)
            largest = block->size;
    return largest;
}

/* --- check ------------------------------------------------------------------------ */

static bool lists_check(struct bfti_pool_blocks *blocks, size_t free_count)
{
    size_t listed = 0;

    for (unsigned row = 0; row < ROWS; row++) {
        if ((blocks->cells[row] != 0) != (blocks->rows >> row & 1))
            return false;
        for (unsigned cell = 0; cell < CELLS; cell++) {
            struct block *prev = NULL;
            struct block *block = blocks->list[row][cell];

            if ((block != NULL) != (blocks->cells[row] >> cell & 1))
                return false;
            for (; block != NULL; prev = block, block = block->next) {
                unsigned its_row;
                unsigned its_cell;

                cell_of(block->size, &its_row, &its_cell);
                if (block_state(block) != BLOCK_FREE || block->prev != prev ||
                    its_row != row || its_cell != cell || ++listed > free_count)
                    return false;
            }
        }
    }
    return listed == free_count;
}

/* Is BLOCK at INDEX, behind one of BEFORE units that was free or not, as it
 * should be? */
static bool block_check(const struct bfti_pool_blocks *blocks,
                        struct block *block, size_t index, size_t before,
                        bool before_free)
{
    size_t units = block_units(block);

    if (block->before != before || units == 0 || units > blocks->units - index)
        return false;
    return !(before_free && block_state(block) == BLOCK_FREE &&
             index != blocks->limit && before + units <= FREE_UNITS_MAX);
}

bool bfti_blocks_check(struct bfti_pool_blocks *blocks, size_t units[4],
                       size_t count[4])
{
    bool hands_met[2] = {blocks->units == 0,
                         blocks->zone_hand == blocks->units};
    bool before_free = false;
    size_t withheld = 0, withheld_count = 0;
    size_t before = 0;

    for (size_t index = 0; index < blocks->units; index += before) {
        struct block *block = block_at(blocks, index);
        enum block_state state = block_state(block);

        if (!block_check(blocks, block, index, before, before_free))
            return false;
        hands_met[0] |= blocks->hand == index;
        hands_met[1] |= blocks->zone_hand == index;
        before = block_units(block);
        before_free = state == BLOCK_FREE;
        if (before_free && index >= blocks->limit) {
            withheld += before;
            withheld_count++;
        }
        units[state] += before;
        count[state]++;
    }
    return hands_met[0] && hands_met[1] && withheld == blocks->withheld &&
           block_at(blocks, blocks->units)->before == before &&
           units[BLOCK_FREE] - withheld == atomic_load(&blocks->free_units) &&
           lists_check(blocks, count[BLOCK_FREE] - withheld_count);
}
