/*
 * The filters' table: sets of 256 bytes, in chunks, found by the extent's place.
 * A set holds eight filters of 32 bytes, or four of 64, or two of 128, as the
 * leaves' records are large or small: the first word is the tag, the page table's
 * word whose content the others describe.
 *
 * A filter is read without lock: tag, bits, tag again.  Who writes one takes the
 * tag first, and gives it back last.  [filter]
 */
#include "filters.h"

#include <stdlib.h>

enum {
    SET_WORDS = 32,
    CHUNK_SETS = 64, /* 16 KiB */
    CHUNK_WORDS = SET_WORDS * CHUNK_SETS,
    CHUNKS_LIMIT = 1 << 16,
    PROBES = 5,
    ABSENT_SHARE = 16, /* of what is read, for keys that are not there: where it
                          is less the table does not grow */
    OUSTED_SHARE = 16, /* of all filters, that had to go before it does */
    BITS_LEAST = 2,    /* of a key: with fewer a filter says nothing */
    BUSY = 1,          /* as a tag: being written */
    SHAPE_SHIFT = 8,
};

struct chunk {
    _Atomic uint64_t word[CHUNK_WORDS];
};

struct bfti_filters {
    const struct bfti_env *env;
    struct bfti_threads *threads;
    const struct bfti_pool *pool; /* whose budget it is, or NULL */
    uint32_t chunks_max;          /* a power of two; fixed */
    _Atomic bool growing;         /* by one thread at a time */
    bool full;                    /* there was no memory; by who grows */
    uint64_t misses_before;  /* when it last grew, or did not; by who grows */
    _Atomic uint64_t added;  /* since then; relaxed: a guess, as the next */
    _Atomic uint64_t ousted; /* filters that made room for others */
    _Atomic uint64_t
        replaced;           /* all of them so far, before another's bits come.
                                  [filter] */
    _Atomic uint32_t shape; /* chunks in use, a power of two, << SHAPE_SHIFT,
                                 and words of a filter; 0: none.  [filter] */
    struct chunk *_Atomic chunk[];
};

/* --- hashes --------------------------------------------------------------- */

/* The finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014). */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static uint64_t hash_key(const uint8_t *key, size_t len)
{
    uint64_t hash = mix(len), word;
    for (; len >= sizeof(word); len -= sizeof(word), key += sizeof(word)) {
        memcpy(&word, key, sizeof(word));
        hash = mix(hash ^ word);
    }
    word = 0;
    memcpy(&word, key, len);
    return mix(hash ^ word);
}

/* Bit I of HASH's PROBES in a filter of BITS: one hash serves for all (Kirsch and
 * Mitzenmacher, ESA 2006). */
static unsigned probe(uint64_t hash, unsigned i, unsigned bits)
{
    uint32_t at = (uint32_t)hash + i * (uint32_t)(hash >> 32 | 1);
    return (unsigned)((uint64_t)at * bits >> 32);
}

/* --- the table ------------------------------------------------------------ */

static uint32_t shape_chunks(uint32_t shape)
{
    return shape >> SHAPE_SHIFT;
}
static unsigned shape_words(uint32_t shape)
{
    return shape & ((1u << SHAPE_SHIFT) - 1);
}

/* The set of the extent of WORD in a table of CHUNKS. */
static _Atomic uint64_t *set_of(struct bfti_filters *filters, uint32_t chunks,
                                uint64_t word)
{
    uint64_t hash = mix(bfti_disk_grain(word));
    struct chunk *chunk = atomic_load(&filters->chunk[hash & (chunks - 1)]);
    return &chunk->word[(hash >> 32) % CHUNK_SETS * SET_WORDS];
}

/* The sets that a filter of WORD may be in: its own, and what was that before the
 * table last grew.  Returns how many. */
static unsigned sets_of(struct bfti_filters *filters, uint32_t shape,
                        uint64_t word, _Atomic uint64_t *sets[2])
{
    uint32_t chunks = shape_chunks(shape);
    sets[0] = sets[1] = set_of(filters, chunks, word);
    if (chunks > 1)
        sets[1] = set_of(filters, chunks / 2, word);
    return sets[1] == sets[0] ? 1 : 2;
}

bft_status bfti_filters_create(const struct bfti_env *env,
                               struct bfti_threads *threads,
                               const struct bfti_pool *pool, size_t bytes,
                               struct bfti_filters **out)
{
    struct bfti_filters *filters;
    uint32_t chunks = 1;
    size_t size;
    *out = NULL;
    if (bytes < sizeof(struct chunk))
        return BFT_OK;
    while (chunks < CHUNKS_LIMIT &&
           bytes / sizeof(struct chunk) >= (size_t)chunks * 2)
        chunks *= 2;
    size = sizeof(*filters) + chunks * sizeof(filters->chunk[0]);
    filters = bfti_alloc(env, size);
    if (!filters)
        return bfti_fail(BFT_NO_MEMORY, "no memory for filters");
    memset(filters, 0, size);
    filters->env = env;
    filters->threads = threads;
    filters->pool = pool;
    filters->chunks_max = chunks;
    *out = filters;
    return BFT_OK;
}

void bfti_filters_destroy(struct bfti_filters *filters)
{
    if (!filters)
        return;
    for (uint32_t i = 0; i < filters->chunks_max; i++)
        if (atomic_load(&filters->chunk[i]))
            bfti_free(filters->env, atomic_load(&filters->chunk[i]));
    bfti_free(filters->env, filters);
}

size_t bfti_filters_bytes(const struct bfti_filters *filters)
{
    return filters ? shape_chunks(atomic_load(&filters->shape)) *
                         sizeof(struct chunk)
                   : 0;
}

/* --- growing -------------------------------------------------------------- */

/* Words of a filter for leaves of about COUNT records: 5 to 9 bits for each. */
static unsigned words_for(size_t count)
{
    return count <= 32 ? 4 : count <= 72 ? 8 : 16;
}

/* Have CHUNKS of them, of WORDS-word filters. */
static void grow_to(struct bfti_filters *filters, uint32_t chunks,
                    unsigned words)
{
    uint32_t i = shape_chunks(atomic_load(&filters->shape));
    for (; i < chunks; i++) {
        struct chunk *chunk = atomic_load(&filters->chunk[i]);
        if (!chunk)
            chunk = bfti_alloc(filters->env, sizeof(*chunk));
        if (!chunk) {
            filters->full = true;
            return;
        }
        memset(chunk, 0, sizeof(*chunk));
        atomic_store(&filters->chunk[i], chunk);
    }
    /* [filter] who sees the shape sees the chunks. */
    atomic_store(&filters->shape, chunks << SHAPE_SHIFT | words);
}

/* Is more memory for filters well spent: did what was read lack the key often? */
static bool is_worth_it(struct bfti_filters *filters)
{
    uint64_t misses = bfti_threads_count(filters->threads, BFTI_N_MISSES);
    uint64_t read = misses - filters->misses_before;
    uint64_t added =
        atomic_exchange_explicit(&filters->added, 0, memory_order_relaxed);
    filters->misses_before = misses;
    return added >= read / ABSENT_SHARE;
}

/* The first chunk is within what the pool lets others have beyond its half. */
static bool is_room(const struct bfti_filters *filters, uint32_t chunks)
{
    return !filters->full &&
           (!filters->pool ||
            bfti_pool_has_half_for(filters->pool,
                                   chunks * sizeof(struct chunk)));
}

static void grow(struct bfti_filters *filters, size_t records)
{
    uint32_t shape, chunks;
    if (atomic_exchange(&filters->growing, true))
        return;
    shape = atomic_load(&filters->shape);
    chunks = shape_chunks(shape);
    if (chunks == 0)
        grow_to(filters, 1, words_for(records));
    else if (is_worth_it(filters) && is_room(filters, chunks))
        grow_to(filters, chunks * 2, shape_words(shape));
    atomic_store_explicit(&filters->ousted, 0, memory_order_relaxed);
    atomic_store(&filters->growing, false);
}

/* --- asking --------------------------------------------------------------- */

static bool may_have(const _Atomic uint64_t *filter, unsigned words,
                     uint64_t hash)
{
    unsigned bits = (words - 1) * 64;
    bool may = true;
    for (unsigned i = 0; may && i < PROBES; i++) {
        unsigned bit = probe(hash, i, bits);
        /* [filter] acquire: had these bits been another filter's, its tag, or
         * BUSY, is what is read behind them. */
        may =
            atomic_load_explicit(&filter[1 + bit / 64], memory_order_acquire) >>
                bit % 64 &
            1;
    }
    return may;
}

static bool set_lacks(const _Atomic uint64_t *set, unsigned words,
                      uint64_t word, uint64_t hash)
{
    for (unsigned i = 0; i < SET_WORDS; i += words) {
        bool may;
        if (atomic_load(set + i) != word) /* [filter] */
            continue;
        PARK("filters:tag-read");
        may = may_have(set + i, words, hash);
        PARK("filters:bits-read");
        if (!may)
            return atomic_load(set + i) == word; /* [filter] */
    }
    return false;
}

bool bfti_filters_lack(struct bfti_filters *filters, uint64_t word,
                       bft_slice key)
{
    uint32_t shape = filters ? atomic_load(&filters->shape) : 0;
    uint64_t replaced = shape ? atomic_load(&filters->replaced) : 0;
    _Atomic uint64_t *sets[2];
    unsigned n = shape ? sets_of(filters, shape, word, sets) : 0;
    uint64_t hash = hash_key(key.data, key.len);
    bool lacks = false;
    for (unsigned i = 0; !lacks && i < n; i++)
        lacks = set_lacks(sets[i], shape_words(shape), word, hash);
    /* [filter] The tag alone does not tell: another's filter may have come into the
     * place, and this one back, while we looked. */
    return lacks && atomic_load(&filters->replaced) == replaced;
}

/* --- making --------------------------------------------------------------- */

static void set_bits(uint64_t *bits, unsigned words,
                     const struct bfti_content *content)
{
    uint8_t key[BFTI_KEY_MAX];
    for (unsigned r = 0; r < content->count; r++)
        for (unsigned i = 0; i < bfti_run_count(content->run[r]); i++) {
            struct bfti_view view = bfti_run_view(content->run[r], i);
            uint64_t hash;
            bfti_view_key(&view, key);
            hash = hash_key(key, bfti_view_key_len(&view));
            for (unsigned p = 0; p < PROBES; p++) {
                unsigned bit = probe(hash, p, (words - 1) * 64);
                bits[bit / 64] |= UINT64_C(1) << bit % 64;
            }
        }
}

/* Where a new filter goes: its own place, a free one, or, of many, any. */
static _Atomic uint64_t *choose(_Atomic uint64_t *set, unsigned words,
                                uint64_t word, uint64_t *tag)
{
    _Atomic uint64_t *chosen = NULL;
    for (unsigned i = 0; i < SET_WORDS; i += words) {
        uint64_t there = atomic_load(set + i);
        if (there == word || (there == 0 && !chosen)) {
            chosen = set + i;
            *tag = there;
        }
        if (there == word)
            break;
    }
    if (chosen)
        return chosen;
    chosen = set + mix(word) % (SET_WORDS / words) * words;
    *tag = atomic_load(chosen);
    return chosen;
}

/* One more filter made room for another.  Is it time for a larger table? */
static bool is_crowded(struct bfti_filters *filters, uint32_t shape)
{
    uint64_t ousted =
        atomic_fetch_add_explicit(&filters->ousted, 1, memory_order_relaxed);
    uint64_t all =
        (uint64_t)shape_chunks(shape) * CHUNK_WORDS / shape_words(shape);
    return ousted >= all / OUSTED_SHARE &&
           shape_chunks(shape) < filters->chunks_max;
}

bool bfti_filters_add(struct bfti_filters *filters, uint64_t word,
                      const struct bfti_content *content)
{
    uint64_t bits[SET_WORDS] = {0}, tag;
    size_t records = bfti_runs_records(content->run, content->count);
    _Atomic uint64_t *filter;
    uint32_t shape;
    unsigned words;
    if (!filters)
        return false;
    if (atomic_load(&filters->shape) == 0)
        grow(filters, records);
    shape = atomic_load(&filters->shape);
    words = shape_words(shape);
    if (words == 0 || records * BITS_LEAST > (size_t)(words - 1) * 64)
        return false;
    filter =
        choose(set_of(filters, shape_chunks(shape), word), words, word, &tag);
    if (tag == word || tag == BUSY)
        return false;
    set_bits(bits, words, content);
    if (!atomic_compare_exchange_strong(filter, &tag, BUSY)) /* [filter] */
        return false;
    if (tag)
        atomic_fetch_add(&filters->replaced, 1); /* [filter] */
    PARK("filters:taken");
    /* [filter] release: who sees a bit sees that the tag is BUSY. */
    for (unsigned i = 1; i < words; i++)
        atomic_store_explicit(&filter[i], bits[i - 1], memory_order_release);
    PARK("filters:written");
    atomic_store(filter, word); /* [filter] */
    atomic_fetch_add_explicit(&filters->added, 1, memory_order_relaxed);
    if (tag && is_crowded(filters, shape))
        grow(filters, records);
    return true;
}

static void set_forget(_Atomic uint64_t *set, unsigned words, uint64_t place)
{
    for (unsigned i = 0; i < SET_WORDS; i += words) {
        uint64_t tag = atomic_load(set + i);
        /* Should another one come there meanwhile, it stays. */
        if (bfti_word_on_disk(tag) && bfti_word_extent(tag) == place &&
            !bfti_fault_on(BFTI_FAULT_FILTERS_KEPT))
            (void)atomic_compare_exchange_strong(set + i, &tag, 0);
    }
}

void bfti_filters_forget(struct bfti_filters *filters, uint64_t place)
{
    uint32_t shape = filters ? atomic_load(&filters->shape) : 0;
    _Atomic uint64_t *sets[2];
    unsigned n = shape ? sets_of(filters, shape, place, sets) : 0;
    for (unsigned i = 0; i < n; i++)
        set_forget(sets[i], shape_words(shape), place);
}
