/*
 * Transactions: a snapshot to read, writes kept aside, and a commit that says
 * whether it may be.
 *
 * The commit is a batch.  Before it is published, with the latches of all leaves
 * that it writes held, nothing that the transaction read or writes may have
 * changed since its snapshot, or it must be as it was again.  That is looked up
 * without latch; what was looked at is watched, and must be unchanged and
 * unlatched once the latches are held.  So it is for each read as if it had been
 * done then, and of two that each read what the other writes, one sees the
 * other's latch: the commit of Silo (Tu et al., SOSP 2013), with leaves for
 * records and values for their versions.  From that look on what was read is kept
 * as it is, until the writes are visible (reads.c): readers do not wait for one
 * who holds a latch, as they do in Silo.
 *
 * What changed since a snapshot the histories know, and while a snapshot is open
 * nothing changes without them: so to watch a range of keys that nobody changed
 * is to watch the histories' leaves.
 */
#include "cache.h"
#include "expiry.h"
#include "snapshot.h"
#include "tomb.h"

#include <assert.h>

enum {
    MAGIC_TXN = 0x62667478,
    HEIGHT_MAX = 16,
    ROUNDS_MAX = 24, /* of a commit, until it takes what comes between for a
                        conflict */
    GIVE_WAY_NS = 1000 * 1000,
    PIECE = 16 * 1024,
    LAY_BYTES = 1 << 20, /* of values that are laid over a copy, or one value */
};

/* A write: a node of a skip list (Pugh 1990). */
struct write {
    bft_tree *tree;
    struct bfti_tree
        *inside;          /* the tree, which stays while snapshots are open */
    bft_slice key, value; /* key behind the node; VALUE as it is stored */
    void *memory;         /* of VALUE */
    bool there;           /* false: a removal */
    unsigned height;
    struct write *next[];
};

/* Keys that were looked for. */
struct read {
    struct bfti_tree *tree;
    uint8_t *bytes;           /* the bounds */
    size_t low_len, high_len; /* high 0: up to the end */
};

struct bft_txn {
    uint32_t magic;
    bft_db *db;
    const struct bfti_env *env;
    bft_snapshot *snapshot;
    bft_isolation isolation;
    bool ended;
    unsigned uses;    /* the caller's, and cursors: one thread's */
    uint64_t changes; /* so far, for cursors to see */
    uint64_t random;
    size_t bytes; /* of writes and reads */
    struct write *first[HEIGHT_MAX];
    struct read *read;
    size_t reads, reads_cap;
    struct bfti_watch *watch;
    size_t watches, watches_cap;
    struct bfti_reads *shown; /* of a commit: all that was read */
};

static bft_status no_memory(void)
{
    return bfti_fail(BFT_NO_MEMORY, "no memory for a transaction");
}

/* --- begin and end -------------------------------------------------------- */

static void writes_free(struct bft_txn *txn)
{
    struct write *w = txn->first[0];
    while (w) {
        struct write *next = w->next[0];
        bfti_free(txn->env, w->memory);
        bfti_free(txn->env, w);
        w = next;
    }
    memset(txn->first, 0, sizeof(txn->first));
}

static void content_free(struct bft_txn *txn)
{
    writes_free(txn);
    for (size_t i = 0; i < txn->reads; i++)
        bfti_free(txn->env, txn->read[i].bytes);
    bfti_free(txn->env, txn->read);
    bfti_free(txn->env, txn->watch);
    txn->read = NULL;
    txn->watch = NULL;
    txn->reads = txn->reads_cap = txn->watches = txn->watches_cap = 0;
}

void bfti_txn_use(struct bft_txn *txn)
{
    txn->uses++;
}

void bfti_txn_leave(struct bft_txn *txn)
{
    if (--txn->uses)
        return;
    txn->magic = 0;
    bfti_free(txn->env, txn);
}

static void end(struct bft_txn *txn)
{
    content_free(txn);
    bft_snapshot_release(txn->snapshot);
    txn->snapshot = NULL;
    txn->ended = true;
    bfti_txn_leave(txn);
}

bft_status bfti_txn_check(const struct bft_txn *txn)
{
    if (!txn)
        return bfti_fail(BFT_INVALID, "the transaction is NULL");
    if (txn->magic != MAGIC_TXN || txn->ended)
        return bfti_fail(BFT_INVALID, "the transaction has ended");
    return BFT_OK;
}

bft_snapshot *bfti_txn_snapshot(const struct bft_txn *txn)
{
    return txn->snapshot;
}

const uint64_t *bfti_txn_changes(const struct bft_txn *txn)
{
    return &txn->changes;
}

bft_status bft_txn_begin(bft_db *db, bft_isolation isolation, bft_txn **out)
{
    struct bfti_engine *engine;
    bft_txn *txn;
    bft_status status;
    if (!out)
        return bfti_fail(BFT_INVALID, "bft_txn_begin: an output is NULL");
    *out = NULL;
    if ((unsigned)isolation > BFT_SNAPSHOT_ISOLATION)
        return bfti_fail(BFT_INVALID, "isolation %d is unknown",
                         (int)isolation);
    status = bfti_gate(db, &engine);
    if (status == BFT_OK)
        status = bfti_check_keeps(engine, "it has no transactions");
    if (status != BFT_OK)
        return status;
    txn = bfti_alloc(engine->env, sizeof(*txn));
    if (!txn)
        return no_memory();
    memset(txn, 0, sizeof(*txn));
    txn->magic = MAGIC_TXN;
    txn->db = db;
    txn->env = engine->env; /* outlives the handle */
    txn->isolation = isolation;
    txn->uses = 1;
    txn->random = 1;
    status = bft_snapshot_take(db, &txn->snapshot);
    if (status != BFT_OK) {
        bfti_free(txn->env, txn);
        return status;
    }
    *out = txn;
    return BFT_OK;
}

void bft_txn_abort(bft_txn *txn)
{
    if (txn && txn->magic == MAGIC_TXN && !txn->ended)
        end(txn);
}

/* --- its own writes ------------------------------------------------------- */

static bft_status too_big(const struct bfti_engine *engine)
{
    return bfti_fail(BFT_TOO_BIG,
                     "a transaction of more than %llu bytes, 1/8 of the memory "
                     "budget or 512 MiB",
                     (unsigned long long)bfti_batch_most(engine));
}

static int order_of(const struct write *w, uint64_t tree_id, bft_slice key)
{
    if (w->inside->id != tree_id)
        return w->inside->id < tree_id ? -1 : 1;
    return bfti_key_compare(w->key, key);
}

/* The first write at KEY or behind it; BEFORE (may be NULL): the links to it. */
static struct write *seek(struct bft_txn *txn, uint64_t tree_id, bft_slice key,
                          struct write ***before)
{
    struct write **link = txn->first;
    for (unsigned level = HEIGHT_MAX; level-- > 0;) {
        while (link[level] && order_of(link[level], tree_id, key) < 0)
            link = link[level]->next;
        if (before)
            before[level] = &link[level];
    }
    return link[0];
}

static struct write *find_write(struct bft_txn *txn,
                                const struct bfti_tree *tree, bft_slice key)
{
    struct write *w = seek(txn, tree->id, key, NULL);
    return w && order_of(w, tree->id, key) == 0 ? w : NULL;
}

/* The last write below KEY; len 0: the tree's last. */
static struct write *seek_below(struct bft_txn *txn,
                                const struct bfti_tree *tree, bft_slice key)
{
    struct write **before[HEIGHT_MAX];
    (void)seek(txn, (uint64_t)tree->id + (key.len == 0), key, before);
    /* The lowest link to what follows is in the write, or at the begin. */
    return before[0] == txn->first
               ? NULL
               : (struct write *)(void *)((uint8_t *)before[0] -
                                          offsetof(struct write, next));
}

static unsigned draw_height(struct bft_txn *txn)
{
    uint64_t x = txn->random =
        txn->random * 6364136223846793005u + 1442695040888963407u;
    unsigned height = 1;
    while (height < HEIGHT_MAX && (x >> (62 - 2 * height) & 3) == 0)
        height++;
    return height;
}

static struct write *make_write(struct bft_txn *txn, bft_tree *tree,
                                struct bfti_tree *inside, bft_slice key)
{
    unsigned height = draw_height(txn);
    size_t links = height * sizeof(struct write *);
    struct write *w = bfti_alloc(txn->env, sizeof(*w) + links + key.len);
    if (!w)
        return NULL;
    memset(w, 0, sizeof(*w) + links);
    w->tree = tree;
    w->inside = inside;
    w->key = (bft_slice){(uint8_t *)w + sizeof(*w) + links, key.len};
    memcpy((uint8_t *)w + sizeof(*w) + links, key.data, key.len);
    w->height = height;
    return w;
}

/* What every call with a key asks first. */
static bft_status check_call(bft_txn *txn, bft_tree *tree, bft_slice key,
                             struct bfti_engine **engine, struct bfti_rec **rec)
{
    bft_status status = bfti_txn_check(txn);
    if (status == BFT_OK)
        status = bfti_snapshot_gate(txn->snapshot, tree, engine, rec);
    return status == BFT_OK ? bfti_check_key(key) : status;
}

/* May KEY be set to VALUE, or removed? */
static bft_status check_write(const bft_txn *txn,
                              const struct bfti_engine *engine,
                              const struct bfti_tree *tree, bft_slice key,
                              bft_slice value, uint64_t expires)
{
    uint64_t most = bfti_batch_most(engine);
    bft_status status;
    if (!value.data && value.len)
        return bfti_fail(BFT_INVALID, "the value is NULL with a length");
    status = bfti_check_writable(engine);
    if (status == BFT_OK)
        status = bfti_check_expires(tree, expires);
    if (status == BFT_OK)
        status =
            bfti_check_record(tree, key, bfti_stored_bytes(tree, value.len));
    if (status == BFT_OK &&
        (value.len > most || txn->bytes + key.len +
                                     bfti_stored_bytes(tree, value.len) +
                                     sizeof(struct write) >
                                 most))
        status = too_big(engine);
    return status;
}

/* *VALUE as it is to be stored, in memory of the transaction's own. */
static bft_status copy_value(const bft_txn *txn, struct bfti_tree *tree,
                             bft_slice key, uint64_t expires, bft_slice *value,
                             void **memory)
{
    size_t bytes = (size_t)bfti_stored_bytes(tree, value->len);
    size_t stamp = bytes - value->len;
    if (bytes == 0)
        return BFT_OK;
    *memory = bfti_alloc(txn->env, bytes);
    if (!*memory)
        return no_memory();
    if (stamp)
        bfti_stamp_put(*memory,
                       bfti_expires_at(tree, expires, key.len, value->len));
    if (value->len)
        memcpy((uint8_t *)*memory + stamp, value->data, value->len);
    *value = (bft_slice){*memory, bytes};
    return BFT_OK;
}

static bft_status write_key(bft_txn *txn, bft_tree *tree, bft_slice key,
                            bool there, bft_slice value, uint64_t expires)
{
    struct write **before[HEIGHT_MAX], *w;
    struct bfti_engine *engine;
    struct bfti_rec *rec;
    struct bfti_tree *inside;
    void *memory = NULL;
    bft_status status = check_call(txn, tree, key, &engine, &rec);
    if (status != BFT_OK)
        return status;
    inside = bfti_handle_tree(tree);
    status = check_write(txn, engine, inside, key, value, expires);
    if (status == BFT_OK && there)
        status = copy_value(txn, inside, key, expires, &value, &memory);
    if (status != BFT_OK)
        return status;
    w = seek(txn, inside->id, key, before);
    if (!w || order_of(w, inside->id, key) != 0) {
        w = make_write(txn, tree, inside, key);
        if (!w) {
            bfti_free(txn->env, memory);
            return no_memory();
        }
        for (unsigned level = 0; level < w->height; level++) {
            w->next[level] = *before[level];
            *before[level] = w;
        }
        txn->bytes += key.len + sizeof(*w);
    }
    txn->bytes += value.len - w->value.len;
    bfti_free(txn->env, w->memory);
    w->memory = memory;
    w->value = (bft_slice){memory, value.len};
    w->there = there;
    txn->changes++;
    return BFT_OK;
}

bft_status bft_txn_put(bft_txn *txn, bft_tree *tree, bft_slice key,
                       bft_slice value)
{
    return write_key(txn, tree, key, true, value, BFTI_EXPIRES_DEFAULT);
}

bft_status bft_txn_put_until(bft_txn *txn, bft_tree *tree, bft_slice key,
                             bft_slice value, uint64_t expires_ms)
{
    return write_key(txn, tree, key, true, value,
                     bfti_expires_wish(expires_ms));
}

bft_status bft_txn_delete(bft_txn *txn, bft_tree *tree, bft_slice key)
{
    bft_slice none = {NULL, 0};
    return write_key(txn, tree, key, false, none, BFTI_EXPIRES_DEFAULT);
}

/* Is it a record to who reads at NOW? */
static bool is_there(const struct write *w, uint64_t now)
{
    return w->there &&
           !(now && bfti_expired(bfti_stored_expires(w->value), now));
}

/* KEY and the next key there is, in BUF. */
static bft_slice key_end(bft_slice key, uint8_t buf[BFTI_KEY_MAX])
{
    memcpy(buf, key.data, key.len);
    buf[key.len] = 0;
    return (bft_slice){buf, key.len + 1};
}
static_assert((int)BFTI_KEY_MAX > (int)BFT_KEY_MAX, "room for one more byte");

/* The first write that is laid over COPY, the way that WISH goes. */
static struct write *lay_first(struct bft_txn *txn,
                               const struct bfti_tree *tree,
                               const struct bfti_copy *copy, bool before)
{
    return before ? seek_below(txn, tree, bfti_bound_key(&copy->high))
                  : seek(txn, tree->id, bfti_bound_key(&copy->low), NULL);
}

/* Is W, the first or the next one, not? */
static bool lay_ends(const struct write *w, const struct bfti_tree *tree,
                     const struct bfti_copy *copy, bool before)
{
    bft_slice low = bfti_bound_key(&copy->low);
    bft_slice high = bfti_bound_key(&copy->high);
    if (!w || w->inside->id != tree->id)
        return true;
    return before ? bfti_key_compare(w->key, low) < 0
                  : high.len && bfti_key_compare(w->key, high) >= 0;
}

/* Cut COPY at W, which is not laid over it. */
static void lay_cut(struct bfti_copy *copy, const struct write *w, bool before)
{
    uint8_t buf[BFTI_KEY_MAX];
    bfti_copy_cut(copy, before ? key_end(w->key, buf) : w->key, before);
}

bft_status bfti_txn_lay(struct bft_txn *txn, const struct bfti_tree *tree,
                        const struct bfti_copy_wish *wish,
                        struct bfti_copy *copy)
{
    struct bfti_over over = {.item = NULL};
    struct write *w = lay_first(txn, tree, copy, wish->before);
    bft_status status = BFT_OK;
    while (status == BFT_OK && !lay_ends(w, tree, copy, wish->before)) {
        struct bfti_over_item like = {.there = is_there(w, wish->now)};
        if (over.count && (over.count >= wish->window ||
                           over.used + w->value.len > LAY_BYTES)) {
            lay_cut(copy, w, wish->before);
            break;
        }
        status =
            bfti_over_add(txn->env, &over, w->key,
                          wish->now ? bfti_payload(w->value) : w->value, &like);
        w = wish->before ? seek_below(txn, tree, w->key) : w->next[0];
    }
    if (status == BFT_OK)
        status = bfti_copy_lay(copy, &over);
    else
        copy->valid = false;
    bfti_over_free(txn->env, &over);
    return status;
}

/* --- its reads ------------------------------------------------------------ */

static bft_slice read_low(const struct read *read)
{
    bft_slice low = {read->bytes, read->low_len};
    return low;
}

static bft_slice read_high(const struct read *read)
{
    bft_slice high = {read->bytes + read->low_len, read->high_len};
    return high;
}

/* Is all of [LOW, HIGH) in READ? */
static bool read_covers(const struct read *read, bft_slice low, bft_slice high)
{
    return bfti_key_compare(read_low(read), low) <= 0 &&
           (read->high_len == 0 ||
            (high.len && bfti_key_compare(high, read_high(read)) <= 0));
}

/* Are [LOW, HIGH) and READ, taken together, one range? */
static bool read_touches(const struct read *read, bft_slice low, bft_slice high)
{
    return (high.len == 0 || bfti_key_compare(read_low(read), high) <= 0) &&
           (read->high_len == 0 || bfti_key_compare(low, read_high(read)) <= 0);
}

/* READ goes on to all of [LOW, HIGH), which touches it. */
static bft_status read_widen(struct bft_txn *txn, struct read *read,
                             bft_slice low, bft_slice high)
{
    uint8_t *bytes;
    if (bfti_key_compare(read_low(read), low) <= 0)
        low = read_low(read);
    if (read->high_len == 0 ||
        (high.len && bfti_key_compare(high, read_high(read)) <= 0))
        high = read_high(read);
    bytes = bfti_alloc(txn->env, low.len + high.len + 1);
    if (!bytes)
        return no_memory();
    if (low.len)
        memcpy(bytes, low.data, low.len);
    if (high.len)
        memcpy(bytes + low.len, high.data, high.len);
    txn->bytes += low.len + high.len;
    txn->bytes -= read->low_len + read->high_len;
    bfti_free(txn->env, read->bytes);
    read->bytes = bytes;
    read->low_len = low.len;
    read->high_len = high.len;
    return BFT_OK;
}

/* Room for one more, with memory for its bounds. */
static bft_status read_room(struct bft_txn *txn, size_t bytes, uint8_t **to)
{
    *to = NULL;
    if (txn->bytes + bytes + sizeof(struct read) >
        bfti_batch_most(txn->db->engine))
        return too_big(txn->db->engine);
    if (txn->reads == txn->reads_cap) {
        size_t cap = txn->reads_cap ? txn->reads_cap * 2 : 16;
        struct read *grown =
            bfti_realloc(txn->env, txn->read, cap * sizeof(*grown));
        if (!grown)
            return no_memory();
        txn->read = grown;
        txn->reads_cap = cap;
    }
    *to = bfti_alloc(txn->env, bytes + 1);
    return *to ? BFT_OK : no_memory();
}

bft_status bfti_txn_note(struct bft_txn *txn, struct bfti_tree *tree,
                         bft_slice low, bft_slice high)
{
    uint8_t *bytes;
    bft_status status;
    if (txn->isolation != BFT_SERIALIZABLE)
        return BFT_OK;
    if (txn->reads) {
        struct read *last = &txn->read[txn->reads - 1];
        /* As a cursor does that is asked again at the end; and one that goes
         * on, forward or back. */
        if (last->tree == tree && read_covers(last, low, high))
            return BFT_OK;
        if (last->tree == tree && read_touches(last, low, high))
            return read_widen(txn, last, low, high);
    }
    status = read_room(txn, low.len + high.len, &bytes);
    if (status != BFT_OK)
        return status;
    if (low.len)
        memcpy(bytes, low.data, low.len);
    if (high.len)
        memcpy(bytes + low.len, high.data, high.len);
    txn->read[txn->reads++] = (struct read){tree, bytes, low.len, high.len};
    txn->bytes += low.len + high.len + sizeof(struct read);
    return BFT_OK;
}

static bft_status get(bft_txn *txn, bft_tree *tree, bft_slice key,
                      struct bfti_take *take)
{
    uint8_t buf[BFTI_KEY_MAX];
    struct bfti_engine *engine;
    struct bfti_rec *rec;
    struct bfti_tree *inside;
    const struct write *w;
    bool found = false;
    bft_status status = check_call(txn, tree, key, &engine, &rec);
    if (status != BFT_OK)
        return status;
    take->env = engine->env;
    inside = bfti_handle_tree(tree);
    take->now = bfti_snapshot_now(txn->snapshot, inside);
    bfti_count(rec, BFTI_N_GETS, 1);
    w = find_write(txn, inside, key);
    if (w) {
        found = is_there(w, take->now);
        status = found ? bfti_take_slice(take, w->value) : BFT_OK;
    } else {
        status = bfti_txn_note(txn, inside, key, key_end(key, buf));
        if (status == BFT_OK)
            status = bfti_snapshot_read(txn->snapshot, rec, inside, key, take,
                                        &found);
    }
    return status == BFT_OK || status == BFT_TOO_SMALL
               ? bfti_take_end(take, status, found)
               : status;
}

bft_status bft_txn_get(bft_txn *txn, bft_tree *tree, bft_slice key, void *buf,
                       size_t buf_len, size_t *value_len)
{
    struct bfti_take take = {.buf = buf, .buf_len = buf_len};
    bft_status status;
    if (value_len)
        *value_len = 0;
    if (!value_len || (!buf && buf_len))
        return bfti_fail(BFT_INVALID, "bft_txn_get: an output is NULL");
    status = get(txn, tree, key, &take);
    if (status == BFT_OK || status == BFT_TOO_SMALL)
        *value_len = take.value_len;
    return status;
}

bft_status bft_txn_get_copy(bft_txn *txn, bft_tree *tree, bft_slice key,
                            void **value, size_t *value_len)
{
    struct bfti_take take = {.allocate = true};
    bft_status status;
    if (value)
        *value = NULL;
    if (value_len)
        *value_len = 0;
    if (!value || !value_len)
        return bfti_fail(BFT_INVALID, "bft_txn_get_copy: an output is NULL");
    status = get(txn, tree, key, &take);
    if (status != BFT_OK) {
        bft_free(take.buf);
        return status;
    }
    *value = take.buf;
    *value_len = take.value_len;
    return BFT_OK;
}

/* --- commit --------------------------------------------------------------- */

static bft_status conflict(void)
{
    return bfti_fail_plain(BFT_CONFLICT,
                           "another commit changed what the transaction read "
                           "or wrote");
}

static bft_status watch(void *ctx, const struct bfti_entry *entry, uint32_t seq)
{
    struct bft_txn *txn = ctx;
    if (txn->watches == txn->watches_cap) {
        size_t cap = txn->watches_cap ? txn->watches_cap * 2 : 16;
        struct bfti_watch *grown =
            bfti_realloc(txn->env, txn->watch, cap * sizeof(*grown));
        if (!grown)
            return no_memory();
        txn->watch = grown;
        txn->watches_cap = cap;
    }
    txn->watch[txn->watches++] = (struct bfti_watch){entry, seq};
    return BFT_OK;
}

/* What is being looked at again. */
struct again {
    struct bft_txn *txn;
    struct bfti_rec *rec;
    struct bfti_tree *tree;
    struct bfti_copy copy;
};

/* Are LEN bytes from AT on of the version those in BUF? */
static bft_status piece_equal(struct again *a, const struct bfti_version *v,
                              uint64_t at, const uint8_t *buf, size_t len,
                              bool *same)
{
    uint8_t was[PIECE];
    struct bfti_take take = {
        .buf = was, .buf_len = len, .offset = at, .range = true};
    bool found;
    bft_status status = bfti_version_take(a->rec, v, &take, &found);
    *same =
        status == BFT_OK && take.value_len == len && memcmp(was, buf, len) == 0;
    return status;
}

/* Is the record of KEY what the version was? */
static bft_status is_again(struct again *a, bft_slice key,
                           const struct bfti_version *v, bool *same)
{
    uint8_t now[PIECE];
    uint64_t taken = bfti_snapshot_now(a->txn->snapshot, a->tree);
    struct bfti_take take = {.buf = now, .buf_len = 0, .now = taken};
    bool found;
    bft_status status;
    *same = false;
    if (bfti_tomb_hides(a->tree, a->rec, key, BFTI_TOMB_NEWEST)) {
        *same = !bfti_version_is_there(v, taken);
        return BFT_OK;
    }
    status = bfti_value_read(a->tree, a->rec, key, &take, &found);
    if (status != BFT_OK && status != BFT_TOO_SMALL)
        return status;
    /* What had expired by then was none, whoever has removed it since. */
    *same = found == bfti_version_is_there(v, taken) &&
            (!found || bfti_stored_bytes(a->tree, take.value_len) == v->bytes);
    if (!found || !*same)
        return BFT_OK;
    /* As they are stored: the times when they expire are compared, too. */
    for (uint64_t at = 0; at < v->bytes && *same; at += PIECE) {
        take = (struct bfti_take){
            .buf = now, .buf_len = PIECE, .offset = at, .range = true};
        status = bfti_value_read(a->tree, a->rec, key, &take, &found);
        if (status == BFT_OK && found && take.value_len)
            status = piece_equal(a, v, at, now, take.value_len, same);
        else
            *same = false;
        if (status != BFT_OK)
            return status;
    }
    return BFT_OK;
}

/* KEY was changed since: watch its leaf, if it is what it was. */
static bft_status look_again(void *ctx, bft_slice key,
                             const struct bfti_version *version)
{
    struct again *a = ctx;
    uint8_t buf[BFTI_KEY_MAX];
    struct bfti_copy_wish wish = {.key = key,
                                  .only = BFTI_COPY_COUNT,
                                  .window = 1,
                                  .high = key_end(key, buf)};
    bool same;
    bft_status status = bfti_copy_take(&a->copy, a->tree, a->rec, &wish);
    if (status == BFT_OK)
        status = watch(a->txn, a->copy.entry, a->copy.seq);
    if (status == BFT_OK)
        status = is_again(a, key, version, &same);
    PARK("txn:compared");
    return status == BFT_OK && !same ? conflict() : status;
}

/* The same of what a history has.  What those who were late changed is told of
 * apart: what a history has of it is what they made it. */
static bft_status look_unless_late(void *ctx, bft_slice key,
                                   const struct bfti_version *version)
{
    struct again *a = ctx;
    struct bfti_version late;
    return bfti_late_find(bfti_snapshot_late(a->txn->snapshot), a->tree, key,
                          &late)
               ? BFT_OK
               : look_again(ctx, key, version);
}

static bft_status look_at(struct again *a, struct bfti_tree *tree,
                          bft_slice low, bft_slice high)
{
    const struct bft_snapshot *snapshot = a->txn->snapshot;
    bool changed;
    bft_status status;
    a->tree = tree;
    /* What was cleared before that the histories have. */
    status = bfti_tomb_changed(tree, a->rec, low, high,
                               bfti_snapshot_number(snapshot),
                               bfti_snapshot_now(snapshot, tree), &changed);
    if (status == BFT_OK && changed)
        status = conflict();
    if (status != BFT_OK)
        return status;
    status = bfti_history_watch(tree->engine, a->rec, tree,
                                bfti_snapshot_number(snapshot), low, high,
                                watch, look_unless_late, a->txn, a);
    /* Those who were late have saved nothing for it. */
    return status == BFT_OK ? bfti_late_range(bfti_snapshot_late(snapshot),
                                              tree, low, high, look_again, a)
                            : status;
}

/* Another thread was at a leaf, perhaps with its latch held: let it go on. */
static void give_way(const struct bft_txn *txn, unsigned round)
{
    _Atomic uint32_t never = 0; /* nobody wakes it: a bounded sleep */
    if (round > ROUNDS_MAX / 3)
        txn->env->wait(txn->env->ctx, &never, 0, GIVE_WAY_NS);
    else if (round > 1)
        txn->env->yield(txn->env->ctx);
}

/* May it be committed, as far as can be told without latch? */
static bft_status may_commit(void *ctx, struct bfti_rec *rec,
                             struct bfti_guard *guard, unsigned round)
{
    struct bft_txn *txn = ctx;
    struct again again = {.txn = txn, .rec = rec, .copy = {.env = txn->env}};
    uint8_t buf[BFTI_KEY_MAX];
    bft_status status = BFT_OK;
    if (round > ROUNDS_MAX)
        return conflict();
    give_way(txn, round);
    txn->watches = 0;
    /* Before any of it is looked at. */
    guard->history = atomic_load(&txn->db->engine->history);
    guard->tombs_made = atomic_load(&txn->db->engine->tombs_made); /* [tomb] */
    for (struct write *w = txn->first[0]; w && status == BFT_OK; w = w->next[0])
        status = look_at(&again, w->inside, w->key, key_end(w->key, buf));
    for (size_t i = 0; i < txn->reads && status == BFT_OK; i++)
        status = look_at(&again, txn->read[i].tree, read_low(&txn->read[i]),
                         read_high(&txn->read[i]));
    bfti_copy_free(&again.copy);
    guard->watch = txn->watch;
    guard->watches = txn->watches;
    guard->reads = txn->shown;
    return status;
}

/* Have all that was read as it will be shown. */
static bft_status gather_reads(struct bft_txn *txn)
{
    size_t bytes = 0;
    if (txn->reads == 0)
        return BFT_OK;
    for (size_t i = 0; i < txn->reads; i++)
        bytes += txn->read[i].low_len + txn->read[i].high_len;
    txn->shown = bfti_reads_make(txn->db->engine, txn->reads, bytes);
    if (!txn->shown)
        return no_memory();
    for (size_t i = 0; i < txn->reads; i++)
        bfti_reads_add(txn->shown, txn->read[i].tree, read_low(&txn->read[i]),
                       read_high(&txn->read[i]));
    bfti_reads_done(txn->shown);
    return BFT_OK;
}

static bft_status commit(bft_txn *txn, bft_durability durability,
                         uint64_t *commit_lsn)
{
    bft_batch *batch;
    bft_status status = bft_batch_create(txn->db, &batch);
    if (status != BFT_OK)
        return status;
    for (struct write *w = txn->first[0]; w && status == BFT_OK; w = w->next[0])
        status = w->there ? bfti_batch_put(batch, w->tree, w->key, w->value,
                                           BFTI_EXPIRES_STORED)
                          : bft_batch_delete(batch, w->tree, w->key);
    bfti_batch_set_check(batch, may_commit, txn);
    if (status == BFT_OK)
        status = gather_reads(txn);
    if (status == BFT_OK)
        status = bft_batch_commit(batch, durability, commit_lsn);
    bfti_reads_free(txn->db->engine, txn->shown);
    txn->shown = NULL;
    bft_batch_free(batch);
    return status;
}

bft_status bft_txn_commit(bft_txn *txn, bft_durability durability,
                          uint64_t *commit_lsn)
{
    struct bfti_engine *engine;
    bft_status status = bfti_txn_check(txn);
    if (commit_lsn)
        *commit_lsn = 0;
    if (status != BFT_OK)
        return status;
    status = bfti_gate(txn->db, &engine);
    if (status == BFT_OK && (unsigned)durability > BFT_SYNC)
        status =
            bfti_fail(BFT_INVALID, "durability %d is unknown", (int)durability);
    /* One that only read saw one instant, and is done. */
    if (status == BFT_OK && txn->first[0])
        status = commit(txn, durability, commit_lsn);
    end(txn);
    return status;
}
