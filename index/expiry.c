/*
 * Records that expire: the clock by which they do, and the stamps before their
 * values.
 */
#include "expiry.h"
#include "tomb.h"

/* --- the clock ------------------------------------------------------------ */

uint64_t bfti_now(struct bfti_engine *engine)
{
    uint64_t now = engine->env->wall_ms(engine->env->ctx);
    uint64_t seen = atomic_load(&engine->clock_ms);
    if (now == 0) /* of a host without a clock: 0 says that nothing expires */
        now = 1;
    /* Ends: SEEN only grows.  A record that was seen to have expired is not to
     * come back because somebody set the clock. */
    while (now > seen &&
           !atomic_compare_exchange_weak(&engine->clock_ms, &seen, now))
        ;
    return now > seen ? now : seen;
}

uint64_t bft_now_ms(bft_db *db)
{
    struct bfti_engine *engine;
    return bfti_gate(db, &engine) == BFT_OK ? bfti_now(engine) : 0;
}

/* --- stamps --------------------------------------------------------------- */

uint64_t bfti_stored_expires(bft_slice stored)
{
    le64 stamp;
    if (stored.len < sizeof(stamp))
        return 0;
    memcpy(&stamp, stored.data, sizeof(stamp));
    return le64_get(stamp);
}

uint64_t bfti_large_expires(const struct bfti_large *large)
{
    return (le64_get(large->bytes) >> BFTI_SECONDS_AT) * BFTI_SECOND_MS;
}

uint64_t bfti_view_expires(const struct bfti_view *view)
{
    struct bfti_large large;
    bft_slice stored = {view->value, view->value_len};
    if (!(view->flags & BFTI_REC_LARGE))
        return bfti_stored_expires(stored);
    memcpy(&large, view->value, sizeof(large));
    return bfti_large_expires(&large);
}

bft_slice bfti_payload(bft_slice stored)
{
    bft_slice none = {NULL, 0};
    if (stored.len < BFTI_STAMP)
        return none;
    stored.data = (const uint8_t *)stored.data + BFTI_STAMP;
    stored.len -= BFTI_STAMP;
    return stored;
}

uint64_t bfti_expires_at(const struct bfti_tree *tree, uint64_t wish,
                         size_t key_len, uint64_t bytes)
{
    uint64_t at = wish;
    if (wish == BFTI_EXPIRES_DEFAULT) {
        uint64_t now = bfti_now(tree->engine);
        at = tree->ttl_ms > BFTI_EXPIRES_LAST ||
                     now > BFTI_EXPIRES_LAST - tree->ttl_ms
                 ? 0
                 : now + tree->ttl_ms;
    }
    /* As its reference will have it, which counts seconds. */
    if (bfti_is_large(tree, key_len, bfti_stored_bytes(tree, bytes)))
        at = (at + BFTI_SECOND_MS - 1) / BFTI_SECOND_MS * BFTI_SECOND_MS;
    return at;
}

void bfti_tree_set_ttl(struct bfti_tree *tree, uint64_t ttl_ms)
{
    tree->ttl_ms = ttl_ms;
    if (ttl_ms)
        atomic_store(&tree->engine->expires, true);
}

bft_status bfti_check_expires(const struct bfti_tree *tree, uint64_t wish)
{
    if (tree->ttl_ms || wish >= BFTI_EXPIRES_STORED)
        return BFT_OK;
    return bfti_fail(BFT_INVALID,
                     "tree %s was made without ttl_ms: its records do not "
                     "expire",
                     tree->name);
}

void bfti_stamp_put(void *to, uint64_t expires)
{
    le64 stamp = le64_of(expires);
    memcpy(to, &stamp, sizeof(stamp));
}
static_assert(sizeof(le64) == BFTI_STAMP, "a stamp");

bft_status bfti_stamp(const struct bfti_env *env, bft_slice payload,
                      uint64_t expires, struct bfti_stamped *stamped)
{
    size_t bytes = payload.len + BFTI_STAMP;
    uint8_t *to = stamped->small;
    stamped->memory = NULL;
    if (bytes > sizeof(stamped->small)) {
        stamped->memory = to = bfti_alloc(env, bytes);
        if (!to)
            return bfti_fail(BFT_NO_MEMORY,
                             "no memory for a value of %zu bytes", bytes);
    }
    bfti_stamp_put(to, expires);
    if (payload.len)
        memcpy(to + BFTI_STAMP, payload.data, payload.len);
    stamped->value = (bft_slice){to, bytes};
    return BFT_OK;
}

void bfti_stamped_free(const struct bfti_env *env, struct bfti_stamped *stamped)
{
    bfti_free(env, stamped->memory);
    stamped->memory = NULL;
}

bft_status bfti_stamped_read(void *ctx, void *buf, size_t len)
{
    struct bfti_stamped_source *source = ctx;
    uint8_t *to = buf;
    if (!source->begun) {
        /* The first piece of a large value is longer than a stamp. */
        bfti_stamp_put(to, source->expires);
        to += BFTI_STAMP;
        len -= BFTI_STAMP;
        source->begun = true;
    }
    return source->read(source->ctx, to, len);
}

/* --- the time of one record ------------------------------------------------ */

static bft_status read_expiry(struct bfti_tree *tree, struct bfti_rec *rec,
                              bft_slice key, uint64_t *expires_ms)
{
    struct bfti_reader reader;
    struct bfti_view view;
    bool found = false;
    bft_status status = BFT_OK;
    if (!bfti_tomb_hides(tree, rec, key, BFTI_TOMB_NEWEST)) {
        status = bfti_leaf_find(&reader, tree, rec, key, &found, &view);
        if (status != BFT_OK)
            return status;
        if (found)
            *expires_ms = bfti_view_expires(&view);
        bfti_reader_close(&reader);
    }
    if (found && !bfti_expired(*expires_ms, bfti_now(tree->engine)))
        return BFT_OK;
    *expires_ms = 0;
    return bfti_fail_plain(BFT_NOT_FOUND,
                           "the tree has no record with that key");
}

bft_status bft_expiry(bft_tree *handle, bft_slice key, uint64_t *expires_ms)
{
    struct bfti_engine *engine;
    struct bfti_tree *tree;
    struct bfti_rec *rec;
    bft_status status;
    if (!expires_ms)
        return bfti_fail(BFT_INVALID, "bft_expiry: an output is NULL");
    *expires_ms = 0;
    status = bfti_gate_tree(handle, &engine, &rec);
    if (status == BFT_OK)
        status = bfti_check_key(key);
    if (status == BFT_OK)
        status = bfti_check_expires(bfti_handle_tree(handle), 0);
    if (status != BFT_OK)
        return status;
    do { /* ends: a round is repeated only after a truncation */
        tree = bfti_handle_tree(handle);
        status = read_expiry(tree, rec, key, expires_ms);
    } while (bfti_handle_moved(handle, tree, status));
    return status;
}
