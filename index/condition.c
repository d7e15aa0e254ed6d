/*
 * Conditional writes: is the record of a key as the caller expects it?
 *
 * It is decided under the leaf's latch, where nothing may be read from disk.
 * What the pages in memory cannot tell is looked up without latch beforehand;
 * hazard slots keep what was seen from coming back as something else before the
 * decision.
 */
#include "expiry.h"

/* The value that LARGE refers to is as EXPECTED behind SKIP bytes.  *STABLE
 * false: the record changed meanwhile. */
static bft_status large_equals(struct bfti_reader *r, bft_slice key,
                               const struct bfti_large *large, size_t skip,
                               bft_slice expected, bool *same, bool *stable)
{
    const struct bfti_env *env = r->tree->engine->env;
    size_t part =
        expected.len < BFTI_EXTENT_RAW_MAX ? expected.len : BFTI_EXTENT_RAW_MAX;
    void *buf = bfti_alloc(env, part);
    struct bfti_view view;
    bft_status status = BFT_OK;
    *same = *stable = true;
    if (!buf)
        return bfti_fail(BFT_NO_MEMORY, "no memory to compare a value");
    memset(&view, 0, sizeof(view));
    view.value = (const uint8_t *)large;
    view.value_len = sizeof(*large);
    view.flags = BFTI_REC_LARGE;
    for (size_t at = 0; at < expected.len && *same; at += part) {
        size_t len = expected.len - at < part ? expected.len - at : part;
        status = bfti_large_read(r, key, &view, skip + at, buf, len, stable);
        if (status != BFT_OK || !*stable)
            break;
        *same = memcmp(buf, (const uint8_t *)expected.data + at, len) == 0;
    }
    bfti_free(env, buf);
    return status;
}

/* Bytes before what the caller calls the value. */
static size_t stamp_of(const struct bfti_condition *c)
{
    return c->now ? BFTI_STAMP : 0;
}

/* Is a record with VIEW (NULL: none) as expected? */
static enum bfti_verdict judge(const struct bfti_condition *c,
                               const struct bfti_view *view,
                               const struct bfti_evidence *evidence)
{
    struct bfti_large large;
    size_t skip = stamp_of(c);
    bool found = view && bfti_op_has_value(view->op);
    bool there = found && !bfti_view_expired(view, c->now);
    if (c->expired)
        return found && !there ? BFTI_HOLDS : BFTI_FAILS;
    if (!there || !c->present)
        return there == c->present ? BFTI_HOLDS : BFTI_FAILS;
    if (!(view->flags & BFTI_REC_LARGE))
        return view->value_len == c->value.len + skip &&
                       (c->value.len == 0 ||
                        memcmp(view->value + skip, c->value.data,
                               c->value.len) == 0)
                   ? BFTI_HOLDS
                   : BFTI_FAILS;
    memcpy(&large, view->value, sizeof(large));
    if (bfti_large_bytes(&large) != c->value.len + skip)
        return BFTI_FAILS;
    return evidence->large &&
                   memcmp(&large, &evidence->value, sizeof(large)) == 0
               ? BFTI_HOLDS
               : BFTI_UNKNOWN;
}

enum bfti_verdict bfti_condition_check(const struct bfti_condition *c,
                                       struct bfti_buffer *buffer,
                                       const struct bfti_entry *entry,
                                       bft_slice key,
                                       const struct bfti_evidence *evidence)
{
    uint64_t beneath = bfti_entry_word(entry);
    struct bfti_view view;
    while (bfti_word_in_memory(beneath)) {
        const struct bfti_minipage *page = bfti_page_at(buffer, beneath);
        if (bfti_minipage_find(page, key, &view))
            return judge(c, &view, evidence);
        if (page->flags & BFTI_PAGE_COMPLETE)
            return judge(c, NULL, evidence);
        beneath = atomic_load(&page->beneath);
    }
    if (beneath == 0)
        return judge(c, NULL, evidence);
    return evidence->disk && evidence->head == beneath ? BFTI_HOLDS
                                                       : BFTI_UNKNOWN;
}

void bfti_evidence_drop(struct bfti_rec *rec, struct bfti_evidence *evidence)
{
    if (evidence->open)
        for (unsigned i = 0; i < BFTI_HAZARDS; i++)
            bfti_hazard_clear(rec, i);
    memset(evidence, 0, sizeof(*evidence));
}

/* The record is a large value of the expected length: is it the expected one?
 * From here on its extent does not become another's. */
static bft_status judge_large(const struct bfti_condition *c,
                              struct bfti_reader *r, bft_slice key,
                              const struct bfti_view *view,
                              struct bfti_evidence *evidence,
                              enum bfti_verdict *verdict, bool *stable)
{
    bool same;
    bft_status status;
    memcpy(&evidence->value, view->value, sizeof(evidence->value));
    status = large_equals(r, key, &evidence->value, stamp_of(c), c->value,
                          &same, stable);
    if (status != BFT_OK || !*stable)
        return status;
    *verdict = same ? BFTI_HOLDS : BFTI_FAILS;
    evidence->large = same;
    /* The head of the disk content stays named by its own slot. */
    bfti_hazard_set(r->rec, BFTI_HAZARD_BENEATH,
                    le64_get(evidence->value.place));
    *stable = bfti_reader_still(r);
    return BFT_OK;
}

bft_status bfti_evidence_gather(const struct bfti_condition *c,
                                struct bfti_tree *tree, struct bfti_rec *rec,
                                bft_slice key, struct bfti_evidence *evidence,
                                enum bfti_verdict *verdict)
{
    struct bfti_reader reader;
    struct bfti_view view;
    bool found, stable = false;
    bfti_evidence_drop(rec, evidence);
    /* Ends: a round is repeated only after another thread changed the leaf. */
    while (!stable) {
        bft_status status =
            bfti_leaf_find(&reader, tree, rec, key, &found, &view);
        if (status != BFT_OK)
            return status;
        stable = true;
        evidence->large = false;
        *verdict = judge(c, found ? &view : NULL, evidence);
        if (*verdict == BFTI_UNKNOWN)
            status =
                judge_large(c, &reader, key, &view, evidence, verdict, &stable);
        if (status != BFT_OK) {
            bfti_reader_close(&reader);
            evidence->large = false;
            return status;
        }
    }
    /* The reader stays open, so that no place that it names can come back as
     * another extent before the decision. */
    evidence->open = true;
    evidence->disk =
        (reader.disk.count > 0 || reader.lacks) && *verdict == BFTI_HOLDS;
    evidence->head = reader.head;
    return BFT_OK;
}
