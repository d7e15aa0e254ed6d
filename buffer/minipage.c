/*
 * Mini-pages: a run and behind it a tail.  Tail slots start at the first
 * multiple of four behind the run and grow up, their keys and values grow down
 * from the block's end.
 */
#include <assert.h>

#include "minipage.h"
#include "run_internal.h"

_Static_assert(BFTI_TAIL_LONG < BFTI_TAIL_FROZEN, "the count leaves the bit");

/* Offset of the tail's slots from the page's start. */
static inline size_t tail_start(size_t run_bytes)
{
    return (sizeof(struct bfti_minipage) + run_bytes + 3) & ~(size_t)3;
}

static inline size_t tail_offset(const struct bfti_minipage *page)
{
    return tail_start(le32_get(bfti_minipage_run(page)->bytes));
}

static inline const struct bfti_slot *
tail_slots(const struct bfti_minipage *page)
{
    return (const struct bfti_slot *)((const uint8_t *)page +
                                      tail_offset(page));
}

/* A tail record's key is whole. */
static struct bfti_view tail_view(const struct bfti_minipage *page,
                                  const struct bfti_slot *slot)
{
    const uint8_t *start = (const uint8_t *)page;
    return bfti_slot_view(page, slot, start + le16_get(slot->offset), 0);
}

/* The count without order: for those under the latch, who order appends. */
static unsigned tail_under_latch(const struct bfti_minipage *page)
{
    /* relaxed: only changed under the latch that the caller holds. */
    return atomic_load_explicit(&page->tail, memory_order_relaxed);
}

size_t bfti_minipage_size(const struct bfti_run_spec *spec, unsigned records,
                          size_t bytes)
{
    return tail_start(bfti_run_size(spec)) +
           records * sizeof(struct bfti_slot) + bytes;
}

static uint16_t dirty_records(const struct bfti_run *run)
{
    const struct bfti_slot *slots = bfti_run_slots(run);
    unsigned count = bfti_run_count(run), dirty = 0;
    for (unsigned i = 0; i < count; i++)
        dirty += bfti_op_is_dirty(slots[i].op);
    return (uint16_t)dirty;
}

void bfti_minipage_build(void *block, size_t bytes,
                         const struct bfti_run_spec *spec, uint64_t page_id,
                         uint16_t flags, uint64_t beneath)
{
    struct bfti_minipage *page = block;
    struct bfti_run *run = (struct bfti_run *)(page + 1);

    /* Slots of the tail hold 16-bit offsets from the page's start. */
    assert(bytes <= UINT16_MAX);
    assert(sizeof *page + bfti_run_size(spec) <= bytes);
    bfti_run_build(run, spec);
    atomic_init(&page->beneath, beneath);
    atomic_init(&page->batch, 0);
    page->previous = 0;
    atomic_init(&page->batch_word, NULL);
    atomic_init(&page->tail_before, BFTI_TAIL_NONE);
    page->closed_by = 0;
    page->page_id = page_id;
    atomic_init(&page->tail, 0);
    page->bytes = (uint32_t)bytes;
    page->heap_used = 0;
    atomic_init(&page->tail_sorted, 0);
    page->flags = flags;
    page->dirty = dirty_records(run);
    page->tail_dirty = 0;
    page->leaf_bytes = 0;
}

/* Would a record of KEY follow TAIL records that are all in order? */
static bool goes_on(const struct bfti_minipage *page, unsigned tail,
                    bft_slice key)
{
    struct bfti_view last;
    if (bfti_minipage_sorted(page, tail) != tail)
        return false;
    if (tail == 0)
        return true;
    last = tail_view(page, tail_slots(page) + tail - 1);
    return bfti_view_compare_key(&last, key) < 0;
}

/* Is there room for RECORDS, so many of them OUT OF ORDER? */
static bool has_room(const struct bfti_minipage *page, size_t records,
                     size_t out_of_order, size_t *left)
{
    unsigned tail = tail_under_latch(page) & ~(unsigned)BFTI_TAIL_FROZEN;
    size_t used = tail_offset(page) +
                  (tail + records) * sizeof(struct bfti_slot) + page->heap_used;
    size_t rest = tail - bfti_minipage_sorted(page, tail);
    *left = used <= page->bytes ? page->bytes - used : 0;
    return used <= page->bytes && tail + records <= BFTI_TAIL_LONG &&
           rest + out_of_order <= BFTI_TAIL_MAX;
}

bool bfti_minipage_fits(const struct bfti_minipage *page, size_t key_len,
                        size_t value_len)
{
    size_t left;
    return has_room(page, 1, 1, &left) && key_len <= left &&
           value_len <= left - key_len;
}

bool bfti_minipage_fits_all(const struct bfti_minipage *page, bft_slice first,
                            size_t records, size_t bytes)
{
    unsigned tail = tail_under_latch(page) & ~(unsigned)BFTI_TAIL_FROZEN;
    size_t left;
    return has_room(page, records, goes_on(page, tail, first) ? 0 : records,
                    &left) &&
           bytes <= left;
}

void bfti_minipage_append_soon(const struct bfti_minipage *page, size_t bytes)
{
    enum { LINE = 64 };
    const char *start = (const char *)page;
    const char *end = start + page->bytes - page->heap_used;
    __builtin_prefetch(start + tail_offset(page) +
                           tail_under_latch(page) * sizeof(struct bfti_slot),
                       1);
    for (size_t at = 1; at < bytes + LINE; at += LINE)
        __builtin_prefetch(end - at, 1);
}

void bfti_minipage_append(struct bfti_minipage *page, bft_slice key,
                          bft_slice value, uint8_t op, uint8_t flags)
{
    unsigned tail = tail_under_latch(page);
    uint8_t *start = (uint8_t *)page;

    assert(!(tail & BFTI_TAIL_FROZEN));
    assert(key.len > 0 && key.len <= BFTI_KEY_MAX);
    assert(bfti_op_has_value(op) || (value.len == 0 && flags == 0));
    assert(!(flags & BFTI_REC_LARGE) || value.len == sizeof(struct bfti_large));
    bool in_order = goes_on(page, tail, key);
    assert(bfti_minipage_fits_all(page, key, 1, key.len + value.len));
    page->heap_used = (uint16_t)(page->heap_used + key.len + value.len);
    uint8_t *at = start + page->bytes - page->heap_used;
    struct bfti_slot *slots = (struct bfti_slot *)(start + tail_offset(page));
    slots[tail] = (struct bfti_slot){
        .head = le32_of(bfti_head(key.data, key.len)),
        .offset = le16_of((uint16_t)(at - start)),
        .key_len = le16_of((uint16_t)key.len),
        .value_len = le16_of((uint16_t)value.len),
        .op = op,
        .flags = flags,
    };
    memcpy(at, key.data, key.len);
    if (value.len > 0)
        memcpy(at + key.len, value.data, value.len);
    page->tail_dirty += bfti_op_is_dirty(op);
    if (in_order)
        atomic_store_explicit(&page->tail_sorted, (uint16_t)(tail + 1),
                              memory_order_relaxed);
    /* [tail] release: pairs with the acquire in bfti_minipage_tail.  Who sees
     * the count sees the slot and its bytes. */
    atomic_store_explicit(&page->tail, tail + 1, memory_order_release);
}

void bfti_minipage_freeze(struct bfti_minipage *page)
{
    unsigned tail = tail_under_latch(page);
    /* [tail] release: as in bfti_minipage_append, for whoever sees the bit
     * first and then reads the records. */
    atomic_store_explicit(&page->tail, tail | BFTI_TAIL_FROZEN,
                          memory_order_release);
}

/* Among the first SORTED records, in half as many with each look. */
static bool find_in_order(const struct bfti_minipage *page, unsigned sorted,
                          bft_slice key, struct bfti_view *out)
{
    const struct bfti_slot *slots = tail_slots(page);
    unsigned low = 0, high = sorted;

    while (low < high) {
        unsigned at = low + (high - low) / 2;
        struct bfti_view view = tail_view(page, slots + at);
        int way = bfti_view_compare_key(&view, key);
        if (way == 0) {
            *out = view;
            return true;
        }
        if (way < 0)
            low = at + 1;
        else
            high = at;
    }
    return false;
}

static bool find_in_tail(const struct bfti_minipage *page, unsigned tail,
                         bft_slice key, struct bfti_view *out)
{
    const struct bfti_slot *slots = tail_slots(page);
    uint32_t head = bfti_head(key.data, key.len);
    unsigned sorted = bfti_minipage_sorted(page, tail);

    for (unsigned i = tail; i-- > sorted;) {
        const struct bfti_slot *slot = slots + i;
        if (le32_get(slot->head) != head || le16_get(slot->key_len) != key.len)
            continue;
        const uint8_t *at = (const uint8_t *)page + le16_get(slot->offset);
        if (bfti_compare_beyond_head(at, key.len, key.data, key.len) == 0) {
            *out = tail_view(page, slot);
            return true;
        }
    }
    return find_in_order(page, sorted, key, out);
}

bool bfti_minipage_find(const struct bfti_minipage *page, bft_slice key,
                        struct bfti_view *out)
{
    const struct bfti_run *run = bfti_minipage_run(page);
    unsigned tail = bfti_minipage_visible(page);
    bool found;

    if (tail > 0 && find_in_tail(page, tail, key, out))
        return true;
    unsigned i = bfti_run_search(run, key, &found);
    if (found)
        *out = bfti_slot_view(run, bfti_run_slots(run) + i,
                              bfti_run_prefix(run), le16_get(run->prefix_len));
    return found;
}

/* Order of the keys of two tail slots. */
static int compare_slots(const struct bfti_minipage *page,
                         const struct bfti_slot *a, const struct bfti_slot *b)
{
    uint32_t a_head = le32_get(a->head), b_head = le32_get(b->head);
    const uint8_t *start = (const uint8_t *)page;
    if (a_head != b_head)
        return a_head < b_head ? -1 : 1;
    return bfti_compare_beyond_head(
        start + le16_get(a->offset), le16_get(a->key_len),
        start + le16_get(b->offset), le16_get(b->key_len));
}

/* A tail's records of which the newer one stays, the older one's place dead. */
static void supersede(const struct bfti_minipage *page, struct bfti_list *list,
                      unsigned newer, unsigned older)
{
    const struct bfti_slot *slots = tail_slots(page);
    struct bfti_view a = tail_view(page, slots + newer);
    struct bfti_view b = tail_view(page, slots + older);
    bfti_list_supersede(list, &a, &b);
}

/* Tail records FROM to TAIL by key, the newest of each, as their places in ORDER;
 * the large puts that these supersede into LIST's dead.  Insertion from the
 * newest on: of equal keys the one already there stays. */
static unsigned order_rest(const struct bfti_minipage *page, unsigned from,
                           unsigned tail, uint16_t order[BFTI_TAIL_MAX],
                           struct bfti_list *list)
{
    const struct bfti_slot *slots = tail_slots(page);
    unsigned count = 0;

    assert(tail - from <= BFTI_TAIL_MAX);
    for (unsigned i = tail; i-- > from;) {
        unsigned at = count;
        int way = 1;
        while (at > 0 && (way = compare_slots(page, slots + order[at - 1],
                                              slots + i)) > 0)
            at--;
        if (at > 0 && way == 0) {
            supersede(page, list, order[at - 1], i);
            continue;
        }
        memmove(order + at + 1, order + at, (count - at) * sizeof(*order));
        order[at] = (uint16_t)i;
        count++;
    }
    return count;
}

/*
 * The first TAIL tail records sorted by key, the newest of each, into LIST;
 * the large puts that these supersede into its dead: those that are in order,
 * and into them, newer all of them, the rest.
 */
static void list_tail(const struct bfti_minipage *page, unsigned tail,
                      struct bfti_list *list)
{
    const struct bfti_slot *slots = tail_slots(page);
    uint16_t order[BFTI_TAIL_MAX];
    unsigned sorted = bfti_minipage_sorted(page, tail), rest, i = 0, r = 0;
    size_t count = 0;

    list->dead_count = 0;
    rest = order_rest(page, sorted, tail, order, list);
    assert(sorted + rest <= list->cap);
    while (i < sorted || r < rest) {
        int way = i == sorted ? 1 : -1;
        if (i < sorted && r < rest)
            way = compare_slots(page, slots + i, slots + order[r]);
        if (way == 0)
            supersede(page, list, order[r], i++);
        list->view[count++] =
            tail_view(page, slots + (way < 0 ? i++ : order[r++]));
    }
    list->count = count;
}

size_t bfti_minipage_dead_max(const struct bfti_minipage *page, unsigned tail)
{
    const struct bfti_slot *slots = tail_slots(page);
    size_t dead = bfti_run_dead_max(bfti_minipage_run(page));

    for (unsigned i = 0; i < tail; i++)
        dead += (slots[i].flags & BFTI_REC_LARGE) != 0;
    return dead;
}

void bfti_minipage_list(const struct bfti_minipage *page, unsigned tail,
                        struct bfti_list *list, struct bfti_list *tmp)
{
    const struct bfti_run *run = bfti_minipage_run(page);

    assert(tail <= bfti_minipage_tail(page));
    if (tail == 0) {
        bfti_list_from_run(list, run);
        return;
    }
    /* TMP's room serves two lists: the tail's, then the run's behind it. */
    struct bfti_list newer = *tmp;
    list_tail(page, tail, &newer);
    struct bfti_list older = {
        .view = newer.view + newer.count,
        .cap = newer.cap - newer.count,
        .dead =
            newer.dead_count > 0 ? newer.dead + newer.dead_count : newer.dead,
        .dead_cap = newer.dead_cap - newer.dead_count,
    };
    bfti_list_from_run(&older, run);
    bfti_list_merge(list, &newer, &older);
}

struct bfti_view bfti_minipage_tail_view(const struct bfti_minipage *page,
                                         unsigned i)
{
    assert(i < bfti_minipage_tail(page));
    return tail_view(page, tail_slots(page) + i);
}
