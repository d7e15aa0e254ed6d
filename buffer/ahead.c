/*
 * Reading ahead: what several leaves have on disk, in batches.
 *
 * Which extents these are is found without keeping a name: a leaf's word leads to
 * its head, and that, once read, to what lies beneath.  All of them are in use
 * after the number of releases was looked at, so what was read of them holds as
 * long as that stays the same.
 */
#include "ahead.h"

#include <assert.h>
#include <string.h>

#include "core.h"
#include "threads_internal.h"

enum {
    SETS = 4,         /* of a thread: scans that take turns have one each */
    DEVICE_NS = 8000, /* a read from the page cache takes a microsecond or two,
                          one from the fastest drives ten times that */
    CACHED_NS = 2000, /* each further one of a batch */
    AWAITED = 64,
};

struct set {
    const void *owner; /* whom it was read for; only compared */
    uint64_t used;     /* a number that grows with each use */
    uint64_t released; /* before the first of the leaves was looked at */
    size_t count;
    uint64_t place[BFTI_AHEAD]; /* 0: it was taken, or not read */
    size_t at[BFTI_AHEAD];      /* in BYTES */
    uint8_t *bytes;
    size_t used_bytes, cap;
};

struct bfti_ahead {
    struct set set[SETS];
    uint64_t uses;
};

void bfti_note_reads(struct bfti_rec *rec, size_t n, uint64_t ns)
{
    if (ns >= DEVICE_NS + (n - 1) * CACHED_NS)
        rec->awaited = AWAITED;
    else
        rec->awaited -= rec->awaited < n ? rec->awaited : (uint32_t)n;
}

static void count_bytes(struct bfti_rec *rec, size_t more, size_t less)
{
    /* relaxed: a figure. */
    atomic_fetch_add_explicit(&rec->threads->bytes, more - less,
                              memory_order_relaxed);
}

void bfti_ahead_free(struct bfti_rec *rec)
{
    const struct bfti_env *env = rec->threads->env;
    struct bfti_ahead *ahead = rec->ahead;
    if (!ahead)
        return;
    for (size_t i = 0; i < SETS; i++) {
        bfti_free(env, ahead->set[i].bytes);
        count_bytes(rec, 0, ahead->set[i].cap);
    }
    count_bytes(rec, 0, sizeof(*ahead));
    bfti_free(env, ahead);
    rec->ahead = NULL;
}

void bfti_ahead_drop(struct bfti_rec *rec, const void *owner)
{
    for (size_t i = 0; rec->ahead && i < SETS; i++)
        if (rec->ahead->set[i].owner == owner)
            rec->ahead->set[i].count = 0;
}

/* --- finding what was read ------------------------------------------------ */

/* Where PLACE is among what was read and still holds, or NULL. */
static struct set *find(const struct bfti_buffer *buffer,
                        const struct bfti_rec *rec, uint64_t place, size_t *i)
{
    struct bfti_ahead *ahead = rec->ahead;
    for (size_t n = 0; ahead && n < SETS; n++) {
        struct set *set = &ahead->set[n];
        for (*i = 0; *i < set->count; ++*i)
            if (set->place[*i] == place &&
                bfti_space_released(buffer->pf) == set->released)
                return set;
    }
    return NULL;
}

const void *bfti_ahead_take(const struct bfti_buffer *buffer,
                            struct bfti_rec *rec, uint64_t place)
{
    size_t i;
    struct set *set = find(buffer, rec, place, &i);
    if (!set)
        return NULL;
    set->place[i] = 0;
    return set->bytes + set->at[i];
}

/* The head beneath the pages that WORD leads to; 0: they have all, or change. */
static uint64_t head_beneath(struct bfti_buffer *buffer, struct bfti_rec *rec,
                             struct bfti_entry *entry, uint64_t word)
{
    const struct bfti_minipage *top = bfti_page_at(buffer, word), *page = top;
    uint64_t beneath;
    bfti_hazard_set(rec, BFTI_HAZARD_TOP, word);
    if (bfti_entry_word(entry) != word)
        return 0;
    beneath = atomic_load(&top->beneath); /* [beneath] */
    if (bfti_word_in_memory(beneath)) {
        bfti_hazard_set(rec, BFTI_HAZARD_FROZEN, beneath);
        if (bfti_entry_word(entry) != word ||
            atomic_load(&top->beneath) != beneath)
            return 0;
        page = bfti_page_at(buffer, beneath);
        beneath = atomic_load(&page->beneath);
    }
    return page->flags & BFTI_PAGE_COMPLETE ? 0 : beneath;
}

uint64_t bfti_ahead_head(struct bfti_buffer *buffer, struct bfti_rec *rec,
                         uint64_t id, bool *fetched)
{
    struct bfti_entry *entry = bfti_table_entry(buffer->table, id);
    uint64_t word = bfti_entry_word(entry);
    size_t i;
    *fetched = false;
    if (bfti_word_in_memory(word)) {
        word = head_beneath(buffer, rec, entry, word);
        bfti_hazard_clear(rec, BFTI_HAZARD_TOP);
        bfti_hazard_clear(rec, BFTI_HAZARD_FROZEN);
    }
    if (!bfti_word_on_disk(word))
        return 0;
    *fetched = find(buffer, rec, bfti_word_extent(word), &i) != NULL;
    return word;
}

/* --- reading -------------------------------------------------------------- */

/* The set to read OWNER's into, empty.  NULL: no memory. */
static struct set *set_of(struct bfti_rec *rec, const void *owner)
{
    struct bfti_ahead *ahead = rec->ahead;
    struct set *set;
    if (!ahead) {
        ahead = bfti_alloc(rec->threads->env, sizeof(*ahead));
        if (!ahead)
            return NULL;
        memset(ahead, 0, sizeof(*ahead));
        count_bytes(rec, sizeof(*ahead), 0);
        rec->ahead = ahead;
    }
    set = &ahead->set[0];
    for (size_t i = 0; i < SETS && set->owner != owner; i++)
        if (ahead->set[i].owner == owner || ahead->set[i].used < set->used)
            set = &ahead->set[i];
    set->owner = owner;
    set->used = ++ahead->uses;
    set->count = set->used_bytes = 0;
    return set;
}

/* Add the extent of WORD, with room for it.  False: there is none. */
static bool set_add(struct bfti_rec *rec, struct set *set, uint64_t word,
                    size_t bytes)
{
    uint64_t place = bfti_word_extent(word);
    size_t need = set->used_bytes + bfti_extent_stored_max(place);
    if (set->count == BFTI_AHEAD || need > bytes)
        return false;
    if (need > set->cap) {
        size_t cap = 2 * need < bytes ? 2 * need : bytes;
        uint8_t *grown = bfti_realloc(rec->threads->env, set->bytes, cap);
        if (!grown)
            return false;
        count_bytes(rec, cap, set->cap);
        set->bytes = grown;
        set->cap = cap;
    }
    set->place[set->count] = place;
    set->at[set->count++] = set->used_bytes;
    set->used_bytes = need;
    return true;
}

/* Read what SET has from FROM on. */
static void set_fetch(struct bfti_buffer *buffer, struct bfti_rec *rec,
                      struct set *set, size_t from)
{
    struct bfti_fetch fetch[BFTI_AHEAD];
    size_t n = set->count - from;
    uint64_t began = buffer->env->now_ns(buffer->env->ctx);
    if (n == 0)
        return;
    for (size_t i = 0; i < n; i++)
        fetch[i] = (struct bfti_fetch){
            .place = set->place[from + i],
            .stored = set->bytes + set->at[from + i],
        };
    bfti_extents_fetch(buffer->pf, fetch, n);
    bfti_note_reads(rec, n, buffer->env->now_ns(buffer->env->ctx) - began);
    for (size_t i = 0; i < n; i++)
        if (fetch[i].status != BFT_OK)
            set->place[from + i] = 0;
}

/* The word of what lies beneath the delta that was read as number I, to which
 * WORD led; 0: nothing that could be read ahead. */
static uint64_t beneath(struct bfti_buffer *buffer, struct bfti_rec *rec,
                        const struct set *set, size_t i, uint64_t word)
{
    struct bfti_extent_info info;
    const struct bfti_run *run;
    const void *raw;
    size_t raw_len;
    uint64_t next;
    if (bfti_word_deltas(word) == 0 || set->place[i] == 0 ||
        bfti_extent_open(buffer->pf, set->place[i], set->bytes + set->at[i],
                         &rec->scratch[BFTI_SCRATCH_RUN], &info, &raw,
                         &raw_len) != BFT_OK ||
        info.type != BFTI_EXTENT_DELTA || bfti_run_check(raw, raw_len))
        return 0;
    run = raw;
    next = le64_get(run->beneath);
    return bfti_word_on_disk(next) &&
                   bfti_word_deltas(next) == bfti_word_deltas(word) - 1
               ? next
               : 0;
}

size_t bfti_ahead_read(struct bfti_buffer *buffer, struct bfti_rec *rec,
                       const void *owner, const uint64_t *ids, size_t n,
                       size_t bytes)
{
    uint64_t word[BFTI_AHEAD] = {0};
    size_t regarded = 0, from = 0, extents = 0;
    struct set *set = set_of(rec, owner);
    if (!set)
        return 0;
    set->released = bfti_space_released(buffer->pf); /* [released] first */
    for (; regarded < n; regarded++) {
        bool fetched;
        uint64_t head = bfti_ahead_head(buffer, rec, ids[regarded], &fetched);
        if (head == 0 || fetched)
            continue;
        /* With what lies beneath: a head alone saves nobody a wait. */
        extents += bfti_word_deltas(head) + 1u;
        if (extents > BFTI_AHEAD || !set_add(rec, set, head, bytes))
            break;
        word[set->count - 1] = head;
    }
    /* Ends: each round is about lists that are shorter by one. */
    while (from < set->count) {
        size_t end = set->count;
        set_fetch(buffer, rec, set, from);
        for (; from < end; from++) {
            uint64_t next = beneath(buffer, rec, set, from, word[from]);
            if (next && set_add(rec, set, next, bytes))
                word[set->count - 1] = next;
        }
    }
    return regarded;
}
