/* See store_answer.h. */
#include "store_answer.h"

#include <string.h>

#include "long_strings.h"

/* The head of what a read left at BYTES, and a table at PLACE behind it.  The
 * store aligns both to 8. */
static const bft_covalue_view *view_at(const uint8_t *bytes)
{
    return (const void *)bytes;
}

static const void *table_at(const uint8_t *bytes, uint32_t place)
{
    return bytes + place;
}

/* --- rows ------------------------------------------------------------------------ */

static void add_session(struct bftn_text *out, const uint8_t *view,
                        const bft_session_row *row)
{
    bftn_text_comma(out);
    bftn_text_put(out, "{");
    bftn_text_member(out, "rowID", row->row);
    bftn_text_member(out, "coValue", row->covalue);
    bftn_text_key(out, "sessionID");
    bftn_text_string(out, view + row->id, row->id_len);
    bftn_text_member(out, "lastIdx", row->last_idx);
    bftn_text_key(out, "lastSignature");
    bftn_text_string(out, view + row->signature, row->signature_len);
    bftn_text_key(out, "bytesSinceLastSignature");
    if (row->bytes_since == BFT_COVALUE_NONE)
        bftn_text_put(out, "null");
    else
        bftn_text_number(out, row->bytes_since);
    bftn_text_put(out, "}");
}

void bftn_answer_sessions(struct bftn_text *out, const uint8_t *view)
{
    const bft_covalue_view *head = view_at(view);
    const bft_session_row *rows = table_at(view, head->sessions);

    bftn_text_put(out, "[");
    for (uint32_t i = 0; i < head->session_count; i++)
        add_session(out, view, &rows[i]);
    bftn_text_put(out, "]");
}

uint64_t bftn_answer_session(struct bftn_text *out, const uint8_t *view)
{
    const bft_session_row *row = table_at(view, view_at(view)->sessions);

    if (view_at(view)->session_count == 0) {
        bftn_text_put(out, "null");
        return 0;
    }
    add_session(out, view, row);
    return row->row;
}

void bftn_answer_signatures(struct bftn_text *out, const uint8_t *view)
{
    const bft_covalue_view *head = view_at(view);
    const bft_signature_row *rows = table_at(view, head->signatures);

    for (uint32_t i = 0; i < head->signature_count; i++) {
        bftn_text_comma(out);
        bftn_text_put(out, "{");
        bftn_text_member(out, "ses", rows[i].session);
        bftn_text_member(out, "idx", rows[i].idx);
        bftn_text_key(out, "signature");
        bftn_text_string(out, view + rows[i].signature, rows[i].signature_len);
        bftn_text_put(out, "}");
    }
}

/* --- whole CoValues ----------------------------------------------------------------- */

/* Are COUNT transactions those with index 0, 1, 2, ...? */
static bool from_zero(const bft_transaction_row *rows, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (rows[i].idx != i)
            return false;
    }
    return true;
}

static void add_contents(struct bftn_text *out, const uint8_t *view)
{
    const bft_covalue_view *head = view_at(view);
    const bft_session_row *sessions = table_at(view, head->sessions);
    const bft_transaction_row *rows = table_at(view, head->transactions);

    for (uint32_t i = 0; i < head->session_count; i++) {
        uint32_t flags = sessions[i].flags;

        if (!from_zero(rows, sessions[i].transaction_count))
            flags &= ~(uint32_t)BFT_SESSION_CONTENT;
        rows += sessions[i].transaction_count;
        bftn_text_comma(out);
        bftn_text_put(out, "[");
        bftn_text_number(out, flags);
        bftn_text_put(out, ",");
        bftn_text_number(out, sessions[i].signature_count);
        bftn_text_put(out, ",");
        bftn_text_number(out, sessions[i].transaction_count);
        bftn_text_put(out, "]");
    }
}

void bftn_answer_load(struct bftn_text *out, const uint8_t *view, bool without)
{
    const bft_covalue_view *head = view_at(view);

    bftn_text_put(out, "[");
    bftn_text_number(out, head->row);
    bftn_text_put(out, ",");
    bftn_answer_sessions(out, view);
    bftn_text_put(out, ",[");
    add_contents(out, view);
    bftn_text_put(out, "],[");
    bftn_answer_signatures(out, view);
    bftn_text_put(out, "],");
    if (without) {
        bftn_text_put(out, "[");
        bftn_text_add(out, view + head->header, head->header_len);
        bftn_text_put(out, "]");
    } else {
        bftn_text_add(out, view + head->text, head->text_len);
    }
    bftn_text_put(out, "]");
}

bool bftn_answer_usual_load(struct bftn_text *out, const uint8_t *view,
                            uint64_t number[BFTN_USUAL_LOAD_NUMBERS])
{
    const bft_covalue_view *head = view_at(view);
    const bft_session_row *session = table_at(view, head->sessions);

    if (head->session_count != 1 || session->flags != BFT_SESSION_CONTENT ||
        !from_zero(table_at(view, head->transactions),
                   session->transaction_count) ||
        !bftn_is_ascii(view + session->id, session->id_len) ||
        !bftn_is_ascii(view + session->signature, session->signature_len))
        return false;
    number[0] = session->row;
    number[1] = session->last_idx;
    number[2] = session->bytes_since + 1; /* of NONE: 0 */
    number[3] = session->id_len;
    number[4] = session->signature_len;
    bftn_text_add(out, view + session->id, session->id_len);
    bftn_text_add(out, view + session->signature, session->signature_len);
    bftn_text_add(out, view + head->header, head->header_len);
    return true;
}

/* --- transactions ---------------------------------------------------------------------- */

bool bftn_answer_indexes(struct bftn_text *out, const uint8_t *view,
                         uint64_t *first)
{
    const bft_covalue_view *head = view_at(view);
    const bft_transaction_row *rows = table_at(view, head->transactions);
    uint32_t count = head->transaction_count;

    *first = count == 0 ? 0 : rows[0].idx;
    /* Indexes ascend: without a gap the last one tells. */
    if (count == 0 || rows[count - 1].idx - *first == count - 1)
        return false;
    bftn_text_put(out, "[[");
    for (uint32_t i = 0; i < count; i++) {
        bftn_text_comma(out);
        bftn_text_number(out, rows[i].idx);
    }
    bftn_text_put(out, "],");
    bftn_text_add(out, view + head->text, head->text_len);
    bftn_text_put(out, "]");
    return true;
}

/* Add USUAL's strings; BEFORE is what was added before it, or NULL. */
static struct bftn_place add_usual(struct bftn_text *out,
                                   const struct bftn_usual *usual,
                                   const struct bftn_usual *before)
{
    struct bftn_place place = {(double)usual->changes.len, -1,
                               (double)usual->made_at};

    bftn_text_add(out, usual->changes.data, usual->changes.len);
    if (before != NULL && before->key.len == usual->key.len &&
        memcmp(before->key.data, usual->key.data, usual->key.len) == 0)
        return place;
    place.key_len = (double)usual->key.len;
    bftn_text_add(out, usual->key.data, usual->key.len);
    return place;
}

unsigned bftn_answer_usual(struct bftn_text *out, const uint8_t *view,
                           struct bftn_place *place, unsigned max)
{
    const bft_covalue_view *head = view_at(view);
    const bft_transaction_row *rows = table_at(view, head->transactions);
    struct bftn_usual usual[2];
    size_t start = out->len;

    if (head->transaction_count > max)
        return 0;
    for (uint32_t i = 0; i < head->transaction_count; i++) {
        struct bftn_usual *this = &usual[i & 1];
        bft_slice value = {view + rows[i].value, rows[i].value_len};

        if (!bftn_usual_read(value, this)) {
            out->len = start;
            return 0;
        }
        place[i] = add_usual(out, this, i == 0 ? NULL : &usual[~i & 1]);
    }
    return head->transaction_count;
}

/* Add what lies between FROM and TO. */
static void add_between(struct bftn_text *out, const uint8_t *from,
                        const uint8_t *to)
{
    bftn_text_add(out, from, (size_t)(to - from));
}

unsigned bftn_answer_strings(struct bftn_text *out, const uint8_t *view,
                             bft_slice *strings, unsigned max)
{
    const bft_covalue_view *head = view_at(view);
    const bft_transaction_row *rows = table_at(view, head->transactions);
    const uint8_t *text = view + head->text;
    unsigned count = 0;

    for (uint32_t i = 0; i < head->transaction_count && count < max; i++) {
        struct bftn_long_string found;
        bft_slice value = {view + rows[i].value, rows[i].value_len};

        if (!bftn_long_string_find(value, &found))
            continue;
        bftn_text_put(out, count == 0 ? "[[" : ",");
        bftn_text_number(out, i);
        bftn_text_put(out, ",");
        bftn_text_string(out, found.key.data, found.key.len);
        strings[count++] = found.string;
    }
    if (count == 0)
        return 0;
    bftn_text_put(out, "],");
    for (unsigned i = 0; i < count; i++) {
        add_between(out, text, strings[i].data);
        text = (const uint8_t *)strings[i].data + strings[i].len;
    }
    add_between(out, text, view + head->text + head->text_len);
    bftn_text_put(out, "]");
    return count;
}

/* --- lists and records -------------------------------------------------------------------- */

bft_slice bftn_answer_ids(struct bftn_text *out, const uint8_t *list,
                          bool as_objects)
{
    const bft_id_list *head = (const void *)list;
    const uint32_t *ends = table_at(list, head->ends);
    const uint8_t *text = list + head->text;
    bft_slice id = {NULL, 0};
    uint32_t start = 0;

    for (uint32_t i = 0; i < head->count; i++) {
        id = (bft_slice){text + start, ends[i] - start};
        start = ends[i];
        bftn_text_comma(out);
        if (as_objects)
            bftn_text_put(out, "{\"id\":");
        bftn_text_string(out, id.data, id.len);
        if (as_objects)
            bftn_text_put(out, "}");
    }
    return id;
}

/* Times are never before 1970. */
static uint64_t milliseconds(int64_t time)
{
    return time < 0 ? 0 : (uint64_t)time;
}

void bftn_answer_lock(struct bftn_text *out, bft_slice key,
                      const bft_covalue_lock *lock)
{
    bftn_text_put(out, "{");
    bftn_text_key(out, "key");
    bftn_text_string(out, key.data, key.len);
    bftn_text_key(out, "holderSessionId");
    bftn_text_string(out, lock->holder, lock->holder_len);
    bftn_text_member(out, "acquiredAt", milliseconds(lock->acquired));
    if (lock->released != 0)
        bftn_text_member(out, "releasedAt", milliseconds(lock->released));
    bftn_text_member(out, "lastProcessedOffset", lock->offset);
    bftn_text_put(out, "}");
}

/* clang-format off */
#define CENSUS_MAP(X) \
    X(covalues) X(sessions) X(transactions) X(signatures) X(unsynced) \
    X(deletions_waiting) X(deletions_done) X(locks) \
    X(orphan_transactions) X(orphan_signatures) X(erasures_unfinished)
/* clang-format on */

void bftn_answer_census(struct bftn_text *out, const bft_covalue_census *census)
{
    bftn_text_put(out, "{");
#define CENSUS_MEMBER(name) bftn_text_member(out, #name, census->name);
    CENSUS_MAP(CENSUS_MEMBER)
#undef CENSUS_MEMBER
    bftn_text_put(out, "}");
}
