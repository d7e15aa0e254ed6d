/*
 * Which codec the extents of a tree get, by what it saves: grains of short
 * extents, which share blocks, else blocks.  README.md section 2 has the words,
 * 6 the edge [dictionary], 8 the measurements behind the numbers here.
 */
#include "codec_internal.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "error.h"
#include "extent_pool.h"
#include "fault.h"
#include "pagefile_internal.h"

enum {
    LOOK_EVERY = 64, /* of extents whose choice is made, looked at again */
    WINDOW = 32,     /* looks that make a choice */
    MARGIN = 16, /* a codec saves that part at least of what is without it */
    SAMPLE_EVERY = 4,
    SAMPLES_LEAST = 7, /* training wants five, besides those it is tried on */
    SAMPLES_SHARE = 4, /* part of them that a dictionary is at most */
    SAMPLES_BYTES = 256 << 10,
    SAMPLES_BYTES_EAGER = 64 << 10,
    DICTIONARY_BYTES = 16 << 10,
    DICTIONARY_MEMORY = 128 << 10, /* that one takes, about */
    PASSED_MAX = 256, /* samples of other trees, then it is their turn */
    PASSED_MAX_EAGER = 4,
    FIRST_LEAVES = 256, /* eight times as many from each training to the next */
    FIRST_LEAVES_EAGER = 1,
};
_Static_assert(DICTIONARY_BYTES <= BFTI_EXTENT_RAW_MAX, "it has an extent");

/* --- trees ---------------------------------------------------------------- */

static struct bfti_codec *codec_find(const struct bfti_pagefile *pf,
                                     uint32_t tree_id)
{
    /* seq_cst: pairs with the store in codec_of(). */
    struct bfti_codec *codec =
        atomic_load(&pf->codecs.bucket[tree_id % CODEC_BUCKETS]);
    while (codec != NULL && codec->tree_id != tree_id)
        codec = atomic_load(&codec->next);
    return codec;
}

/* The same among those of trees that went. */
static struct bfti_codec *codec_gone(const struct bfti_pagefile *pf,
                                     uint32_t tree_id)
{
    struct bfti_codec *codec = atomic_load(&pf->codecs.gone);
    while (codec != NULL && codec->tree_id != tree_id)
        codec = codec->gone;
    return codec;
}

/* The same, made if it is not there; NULL: there is no memory. */
static struct bfti_codec *codec_of(struct bfti_pagefile *pf, uint32_t tree_id)
{
    struct bfti_codecs *all = &pf->codecs;
    struct bfti_codec *codec = codec_find(pf, tree_id);
    if (codec != NULL)
        return codec;
    bfti_mutex_lock(pf->env, &all->lock);
    codec = codec_find(pf, tree_id);
    if (codec == NULL) /* somebody who is late */
        codec = codec_gone(pf, tree_id);
    if (codec == NULL &&
        (codec = bfti_alloc(pf->env, sizeof(*codec))) != NULL) {
        memset(codec, 0, sizeof(*codec));
        codec->tree_id = tree_id;
        atomic_init(&codec->next,
                    atomic_load(&all->bucket[tree_id % CODEC_BUCKETS]));
        atomic_store(&all->bucket[tree_id % CODEC_BUCKETS], codec);
    }
    bfti_mutex_unlock(pf->env, &all->lock);
    return codec;
}

/* From here until unpin() what `newest` leads to is not freed.  [dictionary] */
static struct bfti_dictionary *pin(struct bfti_codec *codec)
{
    atomic_fetch_add(&codec->pins, 1);
    return atomic_load(&codec->newest);
}

static void unpin(struct bfti_codec *codec)
{
    /* [dictionary] release: what was read comes before it is freed. */
    atomic_fetch_sub_explicit(&codec->pins, 1, memory_order_release);
}

static void bytes_change(struct bfti_pagefile *pf, size_t more, size_t less)
{
    /* relaxed: a figure. */
    atomic_fetch_add_explicit(&pf->codecs.bytes, more - less,
                              memory_order_relaxed);
}

size_t bfti_codec_bytes(const struct bfti_pagefile *pf)
{
    return atomic_load_explicit(&pf->codecs.bytes, memory_order_relaxed);
}

static void chain_free(struct bfti_pagefile *pf, struct bfti_dictionary *d)
{
    while (d != NULL) {
        struct bfti_dictionary *older = d->older;
        bytes_change(pf, 0, bfti_dictionary_bytes(d));
        bfti_dictionary_free(d);
        d = older;
    }
}

static void samples_drop(struct bfti_pagefile *pf, struct codec_samples *s)
{
    bytes_change(pf, 0, s->cap);
    bfti_free(pf->env, s->bytes);
    memset(s, 0, sizeof(*s));
}

static void codec_free(struct bfti_pagefile *pf, struct bfti_codec *codec)
{
    assert(atomic_load(&codec->pins) == 0);
    chain_free(pf, atomic_load(&codec->newest));
    chain_free(pf, codec->left);
    bfti_free(pf->env, codec);
}

void bfti_codecs_free(struct bfti_pagefile *pf)
{
    struct bfti_codec *codec, *next;
    for (unsigned i = 0; i < CODEC_BUCKETS; i++)
        for (codec = atomic_load(&pf->codecs.bucket[i]); codec; codec = next) {
            next = atomic_load(&codec->next);
            codec_free(pf, codec);
        }
    for (codec = atomic_load(&pf->codecs.gone); codec; codec = next) {
        next = codec->gone;
        codec_free(pf, codec);
    }
    samples_drop(pf, &pf->codecs.samples);
}

static void stats_add(struct bfti_codec *codec, struct bfti_codec_stats *out)
{
    out->choice = (enum bfti_codec_choice)atomic_load(&codec->leaves.choice);
    out->raw_bytes += atomic_load(&codec->raw_bytes);
    out->stored_bytes += atomic_load(&codec->stored_bytes);
    for (const struct bfti_dictionary *d = pin(codec); d; d = d->older) {
        out->dictionaries++;
        out->dictionary_bytes += d->len;
    }
    unpin(codec);
}

void bfti_codec_stats(struct bfti_pagefile *pf, uint32_t tree_id,
                      struct bfti_codec_stats *out)
{
    struct bfti_codec *codec = codec_find(pf, tree_id);
    memset(out, 0, sizeof(*out));
    if (codec != NULL)
        stats_add(codec, out);
}

void bfti_codec_stats_all(struct bfti_pagefile *pf,
                          struct bfti_codec_stats *out)
{
    struct bfti_codec *codec;
    memset(out, 0, sizeof(*out));
    /* Lest one be counted twice that goes meanwhile. */
    bfti_mutex_lock(pf->env, &pf->codecs.lock);
    for (unsigned i = 0; i < CODEC_BUCKETS; i++)
        for (codec = atomic_load(&pf->codecs.bucket[i]); codec;
             codec = atomic_load(&codec->next))
            stats_add(codec, out);
    for (codec = atomic_load(&pf->codecs.gone); codec; codec = codec->gone)
        stats_add(codec, out);
    bfti_mutex_unlock(pf->env, &pf->codecs.lock);
    out->choice = BFTI_CODEC_OPEN;
}

/* --- choosing ------------------------------------------------------------- */

/* Grains that LEN bytes of payload cost: what is longer than half a block
 * seldom shares one. */
static unsigned grains_for(size_t len)
{
    unsigned grains = grains_of(BFTI_EXTENT_HEADER + len);
    return grains <= SHARE_SMALL
               ? grains
               : (grains + BLOCK_GRAINS - 1) / BLOCK_GRAINS * BLOCK_GRAINS;
}

/* The longest payload that costs less than LEN bytes do; 0: there is none. */
static size_t room_for_less(size_t len)
{
    unsigned grains = grains_for(len), less = grains - 1;
    if (grains > BLOCK_GRAINS)
        less = grains - BLOCK_GRAINS;
    else if (grains == BLOCK_GRAINS)
        less = SHARE_SMALL;
    return less == 0 ? 0 : (size_t)less * BFTI_GRAIN - BFTI_EXTENT_HEADER;
}

/* What LEN bytes of payload cost: 0, what RAW_LEN of them do. */
static uint64_t cost(const struct bfti_pagefile *pf, size_t len, size_t raw_len)
{
    size_t bytes = len > 0 ? len : raw_len;
    return pf->codecs.eager ? BFTI_EXTENT_HEADER + bytes : grains_for(bytes);
}

static bool saves(const struct bfti_pagefile *pf, uint64_t with,
                  uint64_t without)
{
    return pf->codecs.eager ? with < without
                            : with * MARGIN <= without * (MARGIN - 1);
}

static void measure_reset(struct codec_measure *m)
{
    m->looks = 0;
    m->plain = m->zstd = m->dictionary = 0;
}

/* One extent of RAW_LEN was looked at: 0 for what did not save anything.  HAS: it
 * was tried with a dictionary. */
static void measure_add(struct bfti_pagefile *pf, struct codec_measure *m,
                        size_t raw_len, size_t zstd, size_t dictionary,
                        bool has)
{
    uint64_t least;
    uint32_t choice = BFTI_CODEC_NONE;

    bfti_mutex_lock(pf->env, &pf->codecs.lock);
    m->plain += cost(pf, 0, raw_len);
    m->zstd += cost(pf, zstd, raw_len);
    m->dictionary += cost(pf, has ? dictionary : 0, raw_len);
    if (++m->looks == WINDOW) {
        least = m->plain;
        if (saves(pf, m->zstd, least)) {
            choice = BFTI_CODEC_ZSTD;
            least = m->zstd;
        }
        if (saves(pf, m->dictionary, least))
            choice = BFTI_CODEC_DICTIONARY;
        atomic_store(&m->choice, choice);
        measure_reset(m);
    }
    bfti_mutex_unlock(pf->env, &pf->codecs.lock);
}

/* --- samples -------------------------------------------------------------- */

/* Under the lock: may samples of CODEC be taken? */
static bool samples_begin(struct bfti_pagefile *pf, struct codec_samples *s,
                          struct bfti_codec *codec)
{
    size_t cap = pf->codecs.eager ? SAMPLES_BYTES_EAGER : SAMPLES_BYTES;
    unsigned most = pf->codecs.eager ? PASSED_MAX_EAGER : PASSED_MAX;
    if (s->of == codec)
        return true;
    if (s->full || (s->of != NULL && s->passed++ < most))
        return false;
    s->of = codec;
    s->used = s->count = s->passed = 0;
    if (s->bytes != NULL)
        return true;
    if (!pf->codecs.eager && cap > pf->codecs.limit / 2)
        cap = (size_t)(pf->codecs.limit / 2);
    s->bytes = cap > 0 ? bfti_alloc(pf->env, cap) : NULL;
    if (s->bytes == NULL) {
        s->of = NULL;
        return false;
    }
    s->cap = cap;
    bytes_change(pf, cap, 0);
    return true;
}

/* Leaf number N of CODEC: keep RAW as a sample, if some are wanted. */
static void sample(struct bfti_pagefile *pf, struct bfti_codec *codec,
                   uint32_t n, const void *raw, size_t raw_len)
{
    struct codec_samples *s = &pf->codecs.samples;
    bool eager = pf->codecs.eager;

    if ((!eager && (n % SAMPLE_EVERY != 0 || pf->codecs.limit == 0)) ||
        n < atomic_load(&codec->collect_from) ||
        atomic_load(&codec->count) == BFTI_DICTIONARIES_MAX ||
        atomic_load(&codec->dropped))
        return;
    bfti_mutex_lock(pf->env, &pf->codecs.lock);
    if (samples_begin(pf, s, codec) && !s->full) {
        s->full = s->cap - s->used < raw_len;
        if (!s->full) {
            memcpy(s->bytes + s->used, raw, raw_len);
            s->len[s->count++] = raw_len;
            s->used += raw_len;
            s->passed = 0;
            s->full =
                s->count == SAMPLES_MAX || (eager && s->count == SAMPLES_LEAST);
        }
    }
    bfti_mutex_unlock(pf->env, &pf->codecs.lock);
}

bool bfti_codec_ready(struct bfti_pagefile *pf, uint32_t *tree_id)
{
    struct codec_samples *s = &pf->codecs.samples;
    bfti_mutex_lock(pf->env, &pf->codecs.lock);
    bool ready = s->full && s->of != NULL;
    *tree_id = ready ? s->of->tree_id : 0;
    bfti_mutex_unlock(pf->env, &pf->codecs.lock);
    return ready;
}

/* --- packing -------------------------------------------------------------- */

/* An extent that is being compressed. */
struct packing {
    struct bfti_pagefile *pf;
    struct write_buffer *buffer;
    const void *raw;
    size_t raw_len;
    void *to;
    size_t room;
    uint32_t choice; /* enum bfti_codec_choice */
};

/* 0: there is none to write with, or it saves nothing. */
static size_t with_dictionary(const struct packing *p,
                              const struct bfti_dictionary *d)
{
    return d != NULL && d->writer != NULL
               ? bfti_compress(p->pf, p->buffer, d, p->to, p->room, p->raw,
                               p->raw_len)
               : 0;
}

static size_t with_zstd(const struct packing *p)
{
    return bfti_compress(p->pf, p->buffer, NULL, p->to, p->room, p->raw,
                         p->raw_len);
}

/* The bytes in P->TO are those of what was tried last. */
static size_t pack(const struct packing *p, struct codec_measure *m,
                   const struct bfti_dictionary *d, bool look,
                   unsigned *dictionary)
{
    bool first = p->choice == BFTI_CODEC_DICTIONARY;
    size_t zstd = 0, own = 0;

    if (!first && look)
        own = with_dictionary(p, d);
    if (!first || look)
        zstd = with_zstd(p);
    if (first)
        own = with_dictionary(p, d);
    if (look)
        measure_add(p->pf, m, p->raw_len, zstd, own, d != NULL);
    if (!first)
        return zstd;
    if (own > 0)
        *dictionary = d->number;
    return own;
}

size_t bfti_codec_pack(struct bfti_pagefile *pf, struct write_buffer *buffer,
                       const struct bfti_extent_info *info, const void *raw,
                       size_t raw_len, void *to, unsigned *dictionary)
{
    bool leaf = info->type == BFTI_EXTENT_LEAF, eager;
    struct packing p = {
        pf, buffer, raw, raw_len, to, room_for_less(raw_len), BFTI_CODEC_OPEN};
    size_t len = 0;

    *dictionary = 0;
    eager = leaf && pf->codecs.eager && raw_len > 0;
    if (eager && grains_for(raw_len) <= BLOCK_GRAINS)
        p.room = raw_len;
    if (p.room == 0 || info->type == BFTI_EXTENT_DICTIONARY)
        return 0;
    struct bfti_codec *codec = codec_of(pf, info->tree_id);
    if (codec == NULL)
        return with_zstd(&p);
    struct codec_measure *m = leaf ? &codec->leaves : &codec->others;
    /* relaxed: any order will do. */
    uint32_t n =
        atomic_fetch_add_explicit(&m->written, 1, memory_order_relaxed);
    p.choice = atomic_load(&m->choice);
    bool look = p.choice == BFTI_CODEC_OPEN || n % LOOK_EVERY == 0;
    if (leaf)
        sample(pf, codec, n, raw, raw_len);
    if (p.choice != BFTI_CODEC_NONE || look) {
        const struct bfti_dictionary *d = leaf ? pin(codec) : NULL;
        len = pack(&p, m, d, look, dictionary);
        if (leaf)
            unpin(codec);
    }
    /* relaxed: statistics. */
    atomic_fetch_add_explicit(&codec->raw_bytes,
                              (uint64_t)grains_for(raw_len) * BFTI_GRAIN,
                              memory_order_relaxed);
    atomic_fetch_add_explicit(&codec->stored_bytes,
                              (uint64_t)grains_for(len > 0 ? len : raw_len) *
                                  BFTI_GRAIN,
                              memory_order_relaxed);
    return len;
}

bft_status bfti_codec_unpack(struct bfti_pagefile *pf, uint32_t tree_id,
                             unsigned number, void *raw, size_t raw_len,
                             const void *at, size_t len)
{
    if (number == 0)
        return bfti_decompress(pf, NULL, raw, raw_len, at, len);
    if (!BFT_WITH_ZSTD)
        return BFT_UNSUPPORTED;
    struct bfti_codec *codec = codec_find(pf, tree_id);
    if (codec == NULL)
        codec = codec_gone(pf, tree_id);
    if (codec == NULL)
        return BFT_NOT_FOUND;
    uint32_t frame_id = bfti_frame_id(at, len);
    const struct bfti_dictionary *d = pin(codec);
    /* Numbers that a crash took back were given again: the frame knows which. */
    while (d != NULL && (d->number != number || d->frame_id != frame_id))
        d = d->older;
    bft_status status = d != NULL
                            ? bfti_decompress(pf, d, raw, raw_len, at, len)
                        : atomic_load(&codec->dropped) ? BFT_GONE
                                                       : BFT_NOT_FOUND;
    unpin(codec);
    return status;
}

/* --- training ------------------------------------------------------------- */

/* What the last samples, which it was not trained with, cost with D, and with the
 * best of what there is without it. */
static bft_status compare(struct bfti_pagefile *pf,
                          const struct codec_samples *s, unsigned from,
                          size_t at, const struct bfti_dictionary *d,
                          const struct bfti_dictionary *before, bool *better)
{
    uint64_t plain = 0, zstd = 0, old = 0, with = 0;
    struct write_buffer *buffer;
    bft_status status = bfti_buffer_take(pf, &buffer);
    *better = false;
    if (status != BFT_OK)
        return status;
    for (unsigned i = from; i < s->count; at += s->len[i], i++) {
        struct packing p = {pf,
                            buffer,
                            s->bytes + at,
                            s->len[i],
                            buffer->bytes,
                            BUFFER_BYTES,
                            BFTI_CODEC_OPEN};
        plain += cost(pf, 0, s->len[i]);
        zstd += cost(pf, with_zstd(&p), s->len[i]);
        old += cost(pf, with_dictionary(&p, before), s->len[i]);
        with += cost(pf, with_dictionary(&p, d), s->len[i]);
    }
    bfti_buffer_give(pf, buffer);
    if (zstd < plain)
        plain = zstd;
    if (before != NULL && old < plain)
        plain = old;
    *better = saves(pf, with, plain);
    return BFT_OK;
}

/* A dictionary from S that is worth it, or NULL. */
static bft_status make(struct bfti_pagefile *pf, const struct codec_samples *s,
                       struct bfti_codec *codec, struct bfti_dictionary **out)
{
    unsigned from = s->count - s->count / 4;
    size_t room = DICTIONARY_BYTES, at = 0;
    const struct bfti_dictionary *before = atomic_load(&codec->newest);
    bool better = false;

    *out = NULL;
    /* Samples may be of before the last that there may be was published. */
    if (s->count < SAMPLES_LEAST ||
        atomic_load(&codec->count) >= BFTI_DICTIONARIES_MAX ||
        (!pf->codecs.eager &&
         bfti_codec_bytes(pf) + DICTIONARY_MEMORY > pf->codecs.limit))
        return BFT_OK;
    for (unsigned i = 0; i < from; i++)
        at += s->len[i];
    if (room > at / SAMPLES_SHARE)
        room = at / SAMPLES_SHARE;
    uint8_t *bytes = bfti_alloc(pf->env, DICTIONARY_BYTES);
    if (bytes == NULL)
        return bfti_fail(BFT_NO_MEMORY, "%s: no memory for a dictionary",
                         pf->path);
    size_t len = bfti_dictionary_train(bytes, room, s->bytes, s->len, from);
    bft_status status = BFT_OK;
    if (len > 0)
        status = bfti_dictionary_make(pf->env, atomic_load(&codec->count) + 1,
                                      bytes, len, true, out);
    bfti_free(pf->env, bytes);
    if (status == BFT_OK && *out != NULL)
        status = compare(pf, s, from, at, *out, before, &better);
    if (status == BFT_OK && better)
        return BFT_OK;
    bfti_dictionary_free(*out);
    *out = NULL;
    /* What it made itself it cannot use: then there is none. */
    return status == BFT_CORRUPT ? BFT_OK : status;
}

static bft_status place_write(struct bfti_pagefile *pf, uint32_t tree_id,
                              struct bfti_dictionary *d, uint64_t lsn)
{
    struct bfti_extent_info info = {BFTI_EXTENT_DICTIONARY, tree_id, d->number,
                                    lsn};
    uint64_t place;
    bft_status status = bfti_extent_write(pf, &info, d->raw, d->len, &place);
    if (status == BFT_OK) {
        bfti_extent_link(pf, place, 0);
        d->place = place;
    }
    return status;
}

/* Leaves of CODEC may be written with D from now on. */
static void publish(struct bfti_pagefile *pf, struct bfti_codec *codec,
                    struct bfti_dictionary *d)
{
    bytes_change(pf, bfti_dictionary_bytes(d), 0);
    d->older = atomic_load(&codec->newest);
    atomic_store(&codec->newest, d); /* [dictionary] */
    atomic_fetch_add(&codec->count, 1);
    bfti_mutex_lock(pf->env, &pf->codecs.lock);
    measure_reset(&codec->leaves);
    atomic_store(&codec->leaves.choice, BFTI_CODEC_DICTIONARY);
    bfti_mutex_unlock(pf->env, &pf->codecs.lock);
}

/* After each training, of use or not, the tree is to have eight times as many
 * leaves written. */
static void attempts_note(const struct bfti_pagefile *pf,
                          struct bfti_codec *codec)
{
    uint32_t first = pf->codecs.eager ? FIRST_LEAVES_EAGER : FIRST_LEAVES;
    if (codec->attempts < BFTI_DICTIONARIES_MAX * 2)
        codec->attempts++;
    atomic_store(&codec->collect_from, first << (3 * codec->attempts - 3));
}

/* Nobody writes with any but the newest. */
static void retire(struct bfti_pagefile *pf, struct bfti_codec *codec)
{
    struct bfti_dictionary *d = atomic_load(&codec->newest);
    if (d == NULL || atomic_load(&codec->pins) != 0) /* [dictionary] */
        return;
    for (d = d->older; d != NULL; d = d->older) {
        size_t before = bfti_dictionary_bytes(d);
        bfti_dictionary_retire(d);
        bytes_change(pf, bfti_dictionary_bytes(d), before);
    }
}

bft_status bfti_codec_train(struct bfti_pagefile *pf, uint32_t tree_id,
                            bool wanted, uint64_t lsn)
{
    struct bfti_codec *codec = codec_find(pf, tree_id);
    struct bfti_dictionary *fresh = NULL;
    struct codec_samples samples;
    bft_status status = BFT_OK;

    bfti_mutex_lock(pf->env, &pf->codecs.lock);
    samples = pf->codecs.samples;
    assert(samples.full && samples.of == codec);
    memset(&pf->codecs.samples, 0, sizeof(samples));
    bfti_mutex_unlock(pf->env, &pf->codecs.lock);
    attempts_note(pf, codec);
    retire(pf, codec);
    PARK("dictionary:sampled");
    if (wanted)
        status = make(pf, &samples, codec, &fresh);
    samples_drop(pf, &samples);
    if (fresh != NULL)
        status = place_write(pf, tree_id, fresh, lsn);
    if (status == BFT_OK && fresh != NULL)
        publish(pf, codec, fresh);
    else
        bfti_dictionary_free(fresh);
    return status;
}

/* --- images --------------------------------------------------------------- */

unsigned bfti_codec_count(struct bfti_pagefile *pf, uint32_t tree_id)
{
    struct bfti_codec *codec = codec_find(pf, tree_id);
    return codec != NULL ? atomic_load(&codec->count) : 0;
}

unsigned bfti_codec_places(struct bfti_pagefile *pf, uint32_t tree_id,
                           bool naming, uint64_t places[BFTI_DICTIONARIES_MAX])
{
    struct bfti_codec *codec = codec_find(pf, tree_id);
    unsigned count = 0;
    if (codec == NULL || atomic_load(&codec->dropped))
        return 0;
    for (struct bfti_dictionary *d = atomic_load(&codec->newest); d != NULL;
         d = d->older) {
        bool late = bfti_fault_on(BFTI_FAULT_DICTIONARY_LATE) && !d->named;
        assert(d->number >= 1 && d->number <= BFTI_DICTIONARIES_MAX);
        places[d->number - 1] = d->place;
        d->named = d->named || naming;
        if (count == 0 && !(naming && late))
            count = d->number;
    }
    return count;
}

static bool has(const struct bfti_codec *codec, const struct bfti_dictionary *d)
{
    const struct bfti_dictionary *at = atomic_load(&codec->newest);
    while (at != NULL &&
           (at->number != d->number || at->frame_id != d->frame_id))
        at = at->older;
    return at != NULL;
}

bft_status bfti_codec_offer(struct bfti_pagefile *pf,
                            const struct bfti_extent_info *info,
                            const void *raw, size_t len)
{
    struct bfti_codec *codec = codec_of(pf, info->tree_id);
    struct bfti_dictionary *d;
    bft_status status;

    if (codec == NULL)
        return bfti_fail(BFT_NO_MEMORY, "%s: no memory for a dictionary",
                         pf->path);
    status = bfti_dictionary_make(pf->env, (unsigned)info->page_id, raw, len,
                                  pf->compress, &d);
    if (status == BFT_CORRUPT)
        return bfti_fail(status, "%s: tree %" PRIu32 ": it is no dictionary",
                         pf->path, info->tree_id);
    if (status == BFT_OK && has(codec, d)) {
        bfti_dictionary_free(d);
    } else if (status == BFT_OK) {
        publish(pf, codec, d);
        /* A salvage may come with any number. */
        codec->attempts =
            (unsigned)((info->page_id - 1) % BFTI_DICTIONARIES_MAX);
        attempts_note(pf, codec);
    }
    return status;
}

static bft_status load_one(struct bfti_pagefile *pf, uint32_t tree_id,
                           unsigned number, uint64_t place,
                           struct bfti_scratch *scratch)
{
    struct bfti_extent_info info;
    const void *raw;
    size_t len;
    bft_status status = bfti_extent_read(pf, place, scratch, &info, &raw, &len);
    if (status == BFT_OK && (info.type != BFTI_EXTENT_DICTIONARY ||
                             info.tree_id != tree_id || info.page_id != number))
        status = bfti_extent_wrong(pf, place, "another one lies there");
    if (status == BFT_OK) {
        status = bfti_codec_offer(pf, &info, raw, len);
        if (status == BFT_CORRUPT)
            status = bfti_extent_wrong(pf, place, "it is no dictionary");
    }
    if (status == BFT_OK) {
        struct bfti_dictionary *d =
            atomic_load(&codec_find(pf, tree_id)->newest);
        d->place = place;
        d->named = true;
        return BFT_OK;
    }
    return bfti_fail_in(status, "dictionary %u of tree %" PRIu32, number,
                        tree_id);
}

bft_status bfti_codec_load(struct bfti_pagefile *pf, uint32_t tree_id,
                           const uint64_t *places, unsigned count,
                           struct bfti_scratch *scratch)
{
    bft_status status = BFT_OK;
    for (unsigned i = 0; status == BFT_OK && i < count; i++)
        status = load_one(pf, tree_id, i + 1, places[i], scratch);
    if (count > 0 && status == BFT_OK)
        retire(pf, codec_find(pf, tree_id));
    return status;
}

bft_status bfti_codec_lift(struct bfti_pagefile *pf, uint32_t tree_id,
                           uint64_t lsn)
{
    struct bfti_codec *codec = codec_find(pf, tree_id);
    bft_status status = BFT_OK;
    if (codec == NULL || atomic_load(&codec->dropped))
        return BFT_OK;
    for (struct bfti_dictionary *d = atomic_load(&codec->newest);
         status == BFT_OK && d != NULL; d = d->older) {
        uint64_t old = d->place;
        if (!bfti_space_is_high(pf, old))
            continue;
        status = place_write(pf, tree_id, d, lsn);
        if (status == BFT_OK)
            status = bfti_extent_unlink(pf, old, 0, 0);
    }
    return status;
}

void bfti_codec_drop(struct bfti_pagefile *pf, uint32_t tree_id)
{
    struct bfti_codec *codec = codec_find(pf, tree_id);
    if (codec == NULL || atomic_exchange(&codec->dropped, true))
        return;
    /* Without memory for the list of held extents their space waits for the next
     * open. */
    for (struct bfti_dictionary *d = atomic_load(&codec->newest); d != NULL;
         d = d->older)
        (void)(bfti_extent_unlink(pf, d->place, 0, 0) == BFT_OK);
}

/* CODEC, of a tree that went, is no longer among those that are looked through.
 * Who is at it goes on to what is behind it. */
static void codec_put_aside(struct bfti_codecs *all, struct bfti_codec *codec)
{
    struct bfti_codec *_Atomic *at =
        &all->bucket[codec->tree_id % CODEC_BUCKETS];
    while (atomic_load(at) != codec)
        at = &atomic_load(at)->next;
    codec->gone = atomic_load(&all->gone);
    atomic_store(&all->gone, codec); /* found either way meanwhile */
    atomic_store(at, atomic_load(&codec->next));
}

bool bfti_codec_forget(struct bfti_pagefile *pf, uint32_t tree_id)
{
    struct bfti_codecs *all = &pf->codecs;
    struct bfti_codec *codec = codec_find(pf, tree_id);
    if (codec == NULL)
        return true;
    assert(atomic_load(&codec->dropped) || !atomic_load(&codec->newest));
    bfti_mutex_lock(pf->env, &all->lock);
    if (all->samples.of == codec)
        samples_drop(pf, &all->samples);
    bfti_mutex_unlock(pf->env, &all->lock);
    if (codec->left == NULL)
        codec->left = atomic_exchange(&codec->newest, NULL); /* [dictionary] */
    /* [dictionary] Who pins it from now on finds none. */
    if (codec->left != NULL && atomic_load(&codec->pins) == 0) {
        chain_free(pf, codec->left);
        codec->left = NULL;
    }
    if (codec->left != NULL)
        return false;
    bfti_mutex_lock(pf->env, &all->lock);
    codec_put_aside(all, codec);
    bfti_mutex_unlock(pf->env, &all->lock);
    return true;
}
