/*
 * Reading sessions, transactions and signatures into the caller's buffer.
 *
 * Nothing here takes the writers' turn.  A commit to what is read shows in a
 * counter, and the read starts again, a few times ([commit], README 6); then
 * each of its scans takes an instant of its own: that costs writers something,
 * so it is not the way from the start.  An erasure in several batches is many
 * commits: every read notes the count of erasures too, regards as erased what is
 * listed as hidden, and starts again when one has begun or ended ([erase]).
 */
#include <assert.h>
#include <string.h>

#include "storage/covalue_internal.h"
#include "storage/covalue_pack.h"

/* How often a read starts again because of commits. */
enum { COMMITS_MAX = 3 };

/* What a read is of; each uses its own of these. */
struct wish {
    bft_covalue_what what;
    bft_slice id;
    uint64_t row;
    enum bfti_cotree tree;
    uint64_t session, from, to;
};

/* One read under way. */
struct reading {
    bft_covalue_store *store;
    struct bfti_pack pack;
    bft_covalue_view view;
    bool text_open;       /* "[...]" is at the end of the front */
    size_t sessions_back; /* `back` when the table began */
    size_t signatures_back;
    bool has_header;
    bft_slice header; /* in the buffer */
    bool instant;     /* each scan shows one of its own */
    /* NULL: what is read takes one look. */
    const _Atomic uint64_t *watched;
    uint64_t commits; /* of what is watched, before it was read */
};

static bft_status reading_start(struct reading *r, bft_covalue_store *store,
                                void *buf, size_t len)
{
    memset(r, 0, sizeof(*r));
    r->store = store;
    r->view.changes = atomic_load(&store->shared->changes);
    return bfti_pack_init(&r->pack, buf, len, sizeof(r->view));
}

static bft_status reading_finish(struct reading *r, size_t *used)
{
    const struct bfti_pack_table tables[] = {
        {sizeof(bft_session_row), r->view.session_count, &r->view.sessions},
        {sizeof(bft_signature_row), r->view.signature_count,
         &r->view.signatures},
        {sizeof(bft_transaction_row), r->view.transaction_count,
         &r->view.transactions},
    };
    bft_status status = bfti_pack_finish(
        &r->pack, tables, sizeof(tables) / sizeof(tables[0]), used);

    if (status != BFT_OK)
        return bfti_fail(status, "covalue store: the read takes %zu bytes",
                         *used);
    memcpy(r->pack.buf, &r->view, sizeof(r->view));
    return BFT_OK;
}

/* Before anything is read that commits to SLOT change. */
static void watch(struct reading *r, unsigned slot)
{
    r->watched = &r->store->shared->commits[slot];
    r->commits = atomic_load(r->watched);
}

/* [commit]: may what was read be of before a commit here, of behind it there?
 * Whoever saw a row of it sees its beginning counted. */
static bool disturbed(const struct reading *r)
{
    return r->watched != NULL && !r->instant &&
           (r->commits % 2 != 0 || atomic_load(r->watched) != r->commits);
}

/* A cursor of TREE, which goes back by reading_cursor_put(). */
static bft_status reading_cursor_get(struct reading *r, enum bfti_cotree tree,
                                     bft_cursor **cursor)
{
    return r->instant ? bft_cursor_open(r->store->tree[tree], cursor)
                      : bfti_covalue_cursor_get(r->store, tree, cursor);
}

static void reading_cursor_put(struct reading *r, enum bfti_cotree tree,
                               bft_cursor *cursor)
{
    if (r->instant)
        bft_cursor_close(cursor);
    else
        bfti_covalue_cursor_put(r->store, tree, cursor);
}

/* Read WISH by ONCE, again while commits or erasures come between. */
static bft_status
read_undisturbed(bft_covalue_store *store, const struct wish *wish,
                 bft_status (*once)(struct reading *r, const struct wish *wish),
                 void *buf, size_t len, size_t *used)
{
    struct reading r;
    uint64_t erasures;
    int times = 0;
    bft_status status;

    if (used == NULL)
        return bfti_fail(BFT_INVALID, "covalue store: an output is NULL");
    *used = 0;
    status = bfti_covalue_gate(store);
    if (status == BFT_OK)
        status = bfti_covalue_check_slice(wish->id, "an id");
    if (status == BFT_OK && (unsigned)wish->what > BFT_LOAD_CONTENT)
        status = bfti_fail(BFT_INVALID, "covalue store: what to load is %d",
                           (int)wish->what);
    if (status != BFT_OK)
        return status;
    /* Ends: after a few, each turn takes an erasure that began or ended
     * meanwhile. */
    do {
        erasures = atomic_load(&store->shared->erasures);
        status = reading_start(&r, store, buf, len);
        r.instant = times++ > COMMITS_MAX;
        if (status == BFT_OK)
            status = once(&r, wish);
        if (status != BFT_OK)
            return status;
        /* [erase]: an erasure's first removal comes after its count, so whoever
         * saw a removal sees the count; and whoever found it hidden and later
         * no more sees the one after the last removal. */
    } while (atomic_load(&store->shared->erasures) != erasures ||
             disturbed(&r));
    return reading_finish(&r, used);
}

/* --- the text ------------------------------------------------------------------------ */

static void text_start(struct reading *r)
{
    r->view.text = bfti_pack_bytes(&r->pack, "[]", 2);
    r->view.text_len = 2;
    r->text_open = true;
}

/* Where the next value goes, over the closing bracket: after a comma if it is
 * not the first. */
static size_t text_comma(const struct reading *r)
{
    return r->view.text_len > 2 ? 1 : 0;
}

/* Close the text again behind LEN bytes that lie where text_comma() says, and
 * return their place. */
static uint32_t text_close(struct reading *r, size_t len)
{
    size_t comma = text_comma(r);
    size_t at = r->view.text + r->view.text_len - 1;

    if (comma != 0)
        r->pack.buf[at] = ',';
    r->pack.buf[at + comma + len] = ']';
    r->view.text_len += (uint32_t)(comma + len);
    return (uint32_t)(at + comma);
}

/* Add VALUE; 0 when there is no room. */
static uint32_t text_add(struct reading *r, bft_slice value)
{
    size_t comma = text_comma(r);
    uint8_t *room = bfti_pack_room(&r->pack, comma + value.len);

    assert(r->text_open);
    if (room == NULL)
        return 0;
    if (value.len != 0)
        memcpy(room - 1 + comma, value.data, value.len);
    return text_close(r, value.len);
}

/* --- what may be left out -------------------------------------------------------------- */

struct mark {
    size_t front, back;
    uint32_t text_len, session_count, signature_count, transaction_count;
};

static struct mark mark_set(const struct reading *r)
{
    return (struct mark){r->pack.front,           r->pack.back,
                         r->view.text_len,        r->view.session_count,
                         r->view.signature_count, r->view.transaction_count};
}

/* Forget what was added since MARK was set, when all had fitted. */
static void mark_return(struct reading *r, const struct mark *mark)
{
    assert(mark->front + mark->back <= r->pack.len);
    r->pack.front = mark->front;
    r->pack.back = mark->back;
    r->pack.over = false;
    r->view.text_len = mark->text_len;
    r->view.session_count = mark->session_count;
    r->view.signature_count = mark->signature_count;
    r->view.transaction_count = mark->transaction_count;
    if (r->text_open)
        r->pack.buf[r->view.text + r->view.text_len - 1] = ']';
}

/* --- transactions and signatures ------------------------------------------------------- */

static void transaction_row(struct reading *r, uint64_t session, uint64_t idx,
                            uint32_t place, size_t len)
{
    bft_transaction_row *row = bfti_pack_row(&r->pack, sizeof(*row));

    r->view.transaction_count++;
    if (row != NULL)
        *row = (bft_transaction_row){session, idx, place, (uint32_t)len};
}

static void content_add(struct reading *r, enum bfti_cotree tree,
                        uint64_t session, uint64_t idx, bft_slice value)
{
    if (tree == TRANSACTIONS) {
        uint32_t place = text_add(r, value);

        transaction_row(r, session, idx, place, value.len);
    } else {
        uint32_t place = bfti_pack_bytes(&r->pack, value.data, value.len);
        bft_signature_row *row = bfti_pack_row(&r->pack, sizeof(*row));

        r->view.signature_count++;
        if (row != NULL)
            *row =
                (bft_signature_row){session, idx, place, (uint32_t)value.len};
    }
}

/* The one transaction IDX: read to where it belongs, without a cursor. */
static bft_status transaction_get(struct reading *r, uint64_t session,
                                  uint64_t idx)
{
    struct bfti_cokey key;
    size_t room;
    size_t len;
    /* Over the closing bracket if there is no comma, else behind it. */
    uint8_t *spot = bfti_pack_spot(&r->pack, &room) - 1 + text_comma(r);
    bft_status status =
        bft_get(r->store->tree[TRANSACTIONS],
                bfti_cokey_content(&key, session, idx), spot, room, &len);

    if (status == BFT_NOT_FOUND)
        return BFT_OK;
    if (status != BFT_OK && status != BFT_TOO_SMALL)
        return status;
    if (bfti_pack_room(&r->pack, text_comma(r) + len) != NULL)
        transaction_row(r, session, idx, text_close(r, len), len);
    else
        transaction_row(r, session, idx, 0, len);
    return BFT_OK;
}

/* What SESSION has in TREE from FROM to TO, as much as fits; *NEXT is the first
 * index that did not, or BFT_COVALUE_NONE. */
static bft_status content_scan(struct reading *r, enum bfti_cotree tree,
                               bft_cursor *cursor, uint64_t session,
                               uint64_t from, uint64_t to, uint64_t *next)
{
    struct bfti_cokey low;
    struct bfti_cokey high;
    bool first = true;
    bft_status status =
        bft_cursor_bounds(cursor, bfti_cokey_content(&low, session, from),
                          bfti_cokey_above(&high, session, to));

    *next = BFT_COVALUE_NONE;
    if (status == BFT_OK)
        status = bft_cursor_first(cursor);
    for (; status == BFT_OK; status = bft_cursor_next(cursor)) {
        struct mark mark = mark_set(r);
        bft_slice key, value;
        uint64_t number;

        status = bft_cursor_value(cursor, &value);
        /* A long value, erased since the cursor came to it. */
        if (status == BFT_NOT_FOUND)
            continue;
        if (status == BFT_OK)
            status = bft_cursor_key(cursor, &key);
        if (status == BFT_OK)
            status = bfti_covalue_number(key, "a content key", &number, &key);
        if (status == BFT_OK)
            status = bfti_covalue_number(key, "a content key", &number, NULL);
        if (status != BFT_OK)
            return status;
        content_add(r, tree, session, number, value);
        if (r->pack.over) {
            *next = number;
            /* The first one stays counted: it says what length would do. */
            if (!first)
                mark_return(r, &mark);
            return BFT_OK;
        }
        if (number == to)
            return BFT_OK;
        first = false;
    }
    return status == BFT_NOT_FOUND ? BFT_OK : status;
}

static bft_status content_read(struct reading *r, enum bfti_cotree tree,
                               uint64_t session, uint64_t from, uint64_t to,
                               uint64_t *next)
{
    bft_cursor *cursor;
    bft_status status;

    *next = BFT_COVALUE_NONE;
    if (from > to)
        return BFT_OK;
    if (tree == TRANSACTIONS && from == to) {
        status = transaction_get(r, session, from);
        if (r->pack.over)
            *next = from;
        return status;
    }
    status = reading_cursor_get(r, tree, &cursor);
    if (status != BFT_OK)
        return status;
    status = content_scan(r, tree, cursor, session, from, to, next);
    reading_cursor_put(r, tree, cursor);
    return status;
}

static bft_status content_once(struct reading *r, const struct wish *wish)
{
    uint64_t next;
    bool hidden;
    bft_status status =
        bfti_covalue_session_hidden(r->store, wish->session, &hidden);

    text_start(r);
    if (status != BFT_OK || hidden)
        return status;
    watch(r, bfti_commit_slot_session(wish->session));
    status =
        content_read(r, wish->tree, wish->session, wish->from, wish->to, &next);
    if (next != BFT_COVALUE_NONE && !r->pack.over)
        r->view.next = next;
    return status;
}

bft_status bft_covalue_transactions(bft_covalue_store *store, uint64_t session,
                                    uint64_t from, uint64_t to, void *buf,
                                    size_t len, size_t *used)
{
    const struct wish wish = {
        .tree = TRANSACTIONS, .session = session, .from = from, .to = to};

    return read_undisturbed(store, &wish, content_once, buf, len, used);
}

bft_status bft_covalue_signatures(bft_covalue_store *store, uint64_t session,
                                  uint64_t from, void *buf, size_t len,
                                  size_t *used)
{
    const struct wish wish = {
        .tree = SIGNATURES, .session = session, .from = from, .to = UINT64_MAX};

    return read_undisturbed(store, &wish, content_once, buf, len, used);
}

/* --- sessions ---------------------------------------------------------------------------- */

static bft_session_row *session_at(const struct reading *r, size_t i)
{
    return bfti_pack_row_at(&r->pack, r->sessions_back, sizeof(bft_session_row),
                            i);
}

static void session_add(struct reading *r, uint64_t covalue, bft_slice id,
                        const struct bfti_session *session,
                        bft_covalue_what what)
{
    bft_slice signature = session->signature;
    bft_session_row row = {.row = session->row,
                           .covalue = covalue,
                           .last_idx = session->last_idx,
                           .bytes_since = session->bytes_since,
                           .id_len = (uint32_t)id.len};
    bft_session_row *room;

    if (what == BFT_LOAD_KNOWN)
        signature.len = 0;
    row.flags = session->has_signatures ? BFT_SESSION_SIGNED : 0;
    row.id = bfti_pack_bytes(&r->pack, id.data, id.len);
    row.signature_len = (uint32_t)signature.len;
    row.signature = bfti_pack_bytes(&r->pack, signature.data, signature.len);
    r->view.session_count++;
    room = bfti_pack_row(&r->pack, sizeof(row));
    if (room != NULL)
        *room = row;
}

static bool session_above(const bft_session_row *a, const bft_session_row *b)
{
    return a->covalue != b->covalue ? a->covalue > b->covalue : a->row > b->row;
}

static bool sessions_sorted(const struct reading *r)
{
    for (size_t i = 1; i < r->view.session_count; i++) {
        if (session_above(session_at(r, i - 1), session_at(r, i)))
            return false;
    }
    return true;
}

/* By CoValue and row id.  The tree has those of a CoValue by session id; there
 * are few, and mostly in order. */
static void sessions_sort(struct reading *r)
{
    size_t count = r->view.session_count;
    size_t gap = 1;

    if (sessions_sorted(r))
        return;
    while (gap < count / 3)
        gap = 3 * gap + 1;
    for (; gap != 0; gap /= 3) {
        for (size_t i = gap; i < count; i++) {
            bft_session_row row = *session_at(r, i);
            size_t j = i;

            for (; j >= gap && session_above(session_at(r, j - gap), &row);
                 j -= gap)
                *session_at(r, j) = *session_at(r, j - gap);
            *session_at(r, j) = row;
        }
    }
}

/* Add the session that CURSOR is at, if it is there for readers.  *COVALUE is
 * whose it is. */
static bft_status session_take(struct reading *r, bft_cursor *cursor,
                               bft_covalue_what what, uint64_t *covalue)
{
    struct bfti_session session;
    bft_slice key, value, id;
    bft_status status = bft_cursor_key(cursor, &key);

    if (status == BFT_OK)
        status = bfti_covalue_number(
            (bft_slice){(const uint8_t *)key.data + 1, key.len - 1},
            "a session's CoValue", covalue, &id);
    if (status == BFT_OK)
        status = bft_cursor_value(cursor, &value);
    if (status == BFT_NOT_FOUND)
        return BFT_OK; /* long, and erased since the cursor came to it */
    if (status != BFT_OK)
        return status;
    if (!bfti_session_kept(id) &&
        bfti_covalue_hidden(r->store->shared, *covalue))
        return BFT_OK;
    if (!bfti_session_decode(value, &session))
        return bfti_fail(BFT_CORRUPT,
                         "covalue store: a session of CoValue row %llu",
                         (unsigned long long)*covalue);
    session_add(r, *covalue, id, &session, what);
    return BFT_OK;
}

static bft_status sessions_scan(struct reading *r, bft_cursor *cursor,
                                uint64_t covalue, bft_covalue_what what)
{
    struct bfti_cokey bytes;
    bft_status status =
        bft_cursor_prefix(cursor, bfti_cokey_sessions(&bytes, covalue));

    if (status == BFT_OK)
        status = bft_cursor_first(cursor);
    while (status == BFT_OK) {
        status = session_take(r, cursor, what, &covalue);
        if (status == BFT_OK)
            status = bft_cursor_next(cursor);
    }
    return status == BFT_NOT_FOUND ? BFT_OK : status;
}

static bft_status sessions_read(struct reading *r, uint64_t covalue,
                                bft_covalue_what what)
{
    bft_cursor *cursor;
    bft_status status = reading_cursor_get(r, SESSIONS, &cursor);

    if (status != BFT_OK)
        return status;
    r->sessions_back = r->pack.back;
    status = sessions_scan(r, cursor, covalue, what);
    reading_cursor_put(r, SESSIONS, cursor);
    if (status == BFT_OK && !r->pack.over)
        sessions_sort(r);
    return status;
}

/* The signatures of every session that has some.  One without room for them is
 * noted in `reserved`. */
static bft_status signatures_of_sessions(struct reading *r)
{
    r->signatures_back = r->pack.back;
    for (size_t i = 0; i < r->view.session_count; i++) {
        bft_session_row *session = session_at(r, i);
        struct mark mark = mark_set(r);
        uint64_t next;
        bft_status status;

        if ((session->flags & BFT_SESSION_SIGNED) == 0)
            continue;
        status =
            content_read(r, SIGNATURES, session->row, 0, UINT64_MAX, &next);
        if (status != BFT_OK)
            return status;
        if (next != BFT_COVALUE_NONE) {
            mark_return(r, &mark);
            session->reserved = 1;
        }
        session->signature_count =
            r->view.signature_count - mark.signature_count;
    }
    return BFT_OK;
}

/* The first segment of SESSION: up to its first signature, which is row FIRST
 * of their table if it has one. */
static bft_status segment_read(struct reading *r, bft_session_row *session,
                               size_t first)
{
    struct mark mark = mark_set(r);
    uint64_t next = BFT_COVALUE_NONE;
    uint64_t end = session->last_idx; /* not included */
    bft_status status = BFT_OK;

    if (session->signature_count != 0) {
        const bft_signature_row *row =
            bfti_pack_row_at(&r->pack, r->signatures_back, sizeof(*row), first);

        end = row->idx + 1;
    }
    if (end != 0)
        status = content_read(r, TRANSACTIONS, session->row, 0, end - 1, &next);
    if (status != BFT_OK)
        return status;
    if (next != BFT_COVALUE_NONE) {
        mark_return(r, &mark);
        return BFT_OK;
    }
    session->flags |= BFT_SESSION_CONTENT;
    session->transaction_count =
        r->view.transaction_count - mark.transaction_count;
    return BFT_OK;
}

static bft_status content_of_sessions(struct reading *r)
{
    size_t first = 0;

    for (size_t i = 0; i < r->view.session_count; i++) {
        bft_session_row *session = session_at(r, i);

        if (session->reserved == 0) {
            bft_status status = segment_read(r, session, first);

            if (status != BFT_OK)
                return status;
        }
        session->reserved = 0;
        first += session->signature_count;
    }
    return BFT_OK;
}

/* All sessions of COVALUE, the text, and what goes into it. */
static bft_status sessions_and_content(struct reading *r, uint64_t covalue,
                                       bft_covalue_what what)
{
    bft_status status;

    watch(r, bfti_commit_slot_covalue(covalue));
    status = sessions_read(r, covalue, what);
    if (status != BFT_OK)
        return status;
    if (what == BFT_LOAD_CONTENT && !r->pack.over) {
        /* What may be left out shall not push out what may not. */
        r->pack.kept = 2 + r->header.len;
        status = signatures_of_sessions(r);
        r->pack.kept = 0;
        if (status != BFT_OK)
            return status;
    }
    text_start(r);
    if (r->has_header)
        r->view.header = text_add(r, r->header);
    if (what == BFT_LOAD_CONTENT && !r->pack.over)
        status = content_of_sessions(r);
    return status;
}

static bft_status sessions_once(struct reading *r, const struct wish *wish)
{
    r->view.row = wish->row;
    return sessions_and_content(r, wish->row, wish->what);
}

bft_status bft_covalue_sessions(bft_covalue_store *store, uint64_t row,
                                bft_covalue_what what, void *buf, size_t len,
                                size_t *used)
{
    const struct wish wish = {.row = row, .what = what};

    return read_undisturbed(store, &wish, sessions_once, buf, len, used);
}

/* --- many CoValues ------------------------------------------------------------------------ */

/* The sessions of the CoValues that CURSOR goes through, of as many as fit.  If
 * not even the first does all of its own stay counted: they say what would do. */
static bft_status known_scan(struct reading *r, bft_cursor *cursor)
{
    struct mark mark = mark_set(r); /* before those of LATEST */
    uint64_t latest = 0;
    bft_status status = bft_cursor_first(cursor);

    for (; status == BFT_OK; status = bft_cursor_next(cursor)) {
        struct mark before = mark_set(r);
        bool over = r->pack.over;
        uint64_t covalue;

        status = session_take(r, cursor, BFT_LOAD_KNOWN, &covalue);
        if (status != BFT_OK || (over && covalue != latest))
            return status;
        if (covalue != latest)
            mark = before;
        latest = covalue;
        if (r->pack.over && mark.session_count != 0) {
            mark_return(r, &mark);
            r->view.next = covalue;
            break;
        }
    }
    if (!r->pack.over)
        sessions_sort(r);
    return status == BFT_NOT_FOUND ? BFT_OK : status;
}

static bft_status known_once(struct reading *r, const struct wish *wish)
{
    struct bfti_cokey low, high;
    bft_slice end = wish->to == UINT64_MAX
                        ? bfti_cokey_tag(&high, SESSIONS_OF + 1)
                        : bfti_cokey_sessions(&high, wish->to + 1);
    bft_cursor *cursor;
    bft_status status;

    /* Of many, somebody always writes to one. */
    if (wish->from != wish->to)
        r->instant = true;
    watch(r, bfti_commit_slot_covalue(wish->from));
    status = reading_cursor_get(r, SESSIONS, &cursor);
    if (status != BFT_OK)
        return status;
    r->sessions_back = r->pack.back;
    status =
        bft_cursor_bounds(cursor, bfti_cokey_sessions(&low, wish->from), end);
    if (status == BFT_OK)
        status = known_scan(r, cursor);
    reading_cursor_put(r, SESSIONS, cursor);
    return status;
}

bft_status bft_covalue_known(bft_covalue_store *store, uint64_t from,
                             uint64_t to, void *buf, size_t len, size_t *used)
{
    const struct wish wish = {.from = from, .to = to};

    return read_undisturbed(store, &wish, known_once, buf, len, used);
}

/* --- one CoValue --------------------------------------------------------------------------- */

/* Read row id and header of ID to the front of the buffer, where the header
 * waits for its place in the text. */
static bft_status header_read(struct reading *r, bft_slice id)
{
    struct bfti_cokey key;
    size_t room;
    uint8_t *spot = bfti_pack_spot(&r->pack, &room);
    bft_slice value;
    bft_status status;

    if (id.len > BFT_COVALUE_ID_MAX)
        return BFT_NOT_FOUND;
    status =
        bft_get(r->store->tree[COVALUES], bfti_cokey_id(&key, COVALUES_ID, id),
                spot, room, &value.len);
    if (status != BFT_OK && status != BFT_TOO_SMALL)
        return status;
    r->has_header = true;
    value.data = bfti_pack_room(&r->pack, value.len);
    if (value.data == NULL) {
        /* Too long: go on with the row id, to count what is needed; the header
         * is in the buffer twice. */
        (void)bfti_pack_room(&r->pack, value.len);
        return bfti_covalue_find(r->store, id, &r->view.row);
    }
    status = bfti_covalue_number(value, "a CoValue's row id", &r->view.row,
                                 &r->header);
    r->view.header_len = (uint32_t)r->header.len;
    return status;
}

static bft_status load_once(struct reading *r, const struct wish *wish)
{
    bft_status status =
        wish->what == BFT_LOAD_KNOWN
            ? bfti_covalue_find(r->store, wish->id, &r->view.row)
            : header_read(r, wish->id);

    if (status == BFT_NOT_FOUND)
        return bfti_fail(status, "covalue store: no CoValue has that id");
    if (status != BFT_OK)
        return status;
    return sessions_and_content(r, r->view.row, wish->what);
}

bft_status bft_covalue_load(bft_covalue_store *store, bft_slice id,
                            bft_covalue_what what, void *buf, size_t len,
                            size_t *used)
{
    const struct wish wish = {.id = id, .what = what};

    return read_undisturbed(store, &wish, load_once, buf, len, used);
}

/* Read the value of session ID of row COVALUE to the front of the buffer. */
static bft_status session_read(struct reading *r, uint64_t covalue,
                               bft_slice id)
{
    struct bfti_cokey key;
    struct bfti_session session;
    size_t room;
    uint8_t *spot = bfti_pack_spot(&r->pack, &room);
    bft_slice value;
    bft_status status;

    if (id.len > BFT_COVALUE_ID_MAX ||
        (bfti_covalue_hidden(r->store->shared, covalue) &&
         !bfti_session_kept(id)))
        return BFT_NOT_FOUND;
    status =
        bft_get(r->store->tree[SESSIONS], bfti_cokey_session(&key, covalue, id),
                spot, room, &value.len);
    if (status != BFT_OK && status != BFT_TOO_SMALL)
        return status;
    value.data = bfti_pack_room(&r->pack, value.len);
    if (value.data == NULL) {
        /* The signature is in the buffer twice. */
        memset(&session, 0, sizeof(session));
        (void)bfti_pack_room(&r->pack, value.len);
    } else if (!bfti_session_decode(value, &session))
        return bfti_fail(BFT_CORRUPT,
                         "covalue store: a session of CoValue row %llu",
                         (unsigned long long)covalue);
    session_add(r, covalue, id, &session, BFT_LOAD_ROWS);
    return BFT_OK;
}

static bft_status session_once(struct reading *r, const struct wish *wish)
{
    bft_status status = session_read(r, wish->row, wish->id);

    r->view.row = wish->row;
    return status == BFT_NOT_FOUND
               ? bfti_fail(status, "covalue store: no session has that id")
               : status;
}

bft_status bft_covalue_session(bft_covalue_store *store, uint64_t row,
                               bft_slice id, void *buf, size_t len,
                               size_t *used)
{
    const struct wish wish = {.row = row, .id = id};

    return read_undisturbed(store, &wish, session_once, buf, len, used);
}
