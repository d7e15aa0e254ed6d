/*
 * compare_engines' adapter for the Rust crate bf-tree, through the shim in
 * bench/rust-bf-tree.
 *
 * Advice that was followed, from the crate's config.rs and README:
 *   Config::new  ":memory:" for a tree in memory; a file else.
 *   storage_backend  "for better performance, consider platform specific
 *       backends": io_uring (the blocking form) where the kernel lets us, else
 *       direct I/O, as its own benchmark does.
 *   cb_size_byte  three quarters of the budget: it takes powers of two only,
 *       and with all of 64 MiB the process was killed for passing the bound.
 *   The rest: "you don't have to change the default configuration".
 * Its log is off, as in its authors' measurements: a put with the log waits
 * until a background thread has written it, a millisecond at most, and nothing
 * syncs it.  So no write survives a kill of the process, and there is no row
 * with a sync.  It has no batch, no scan from high to low, and opens a file
 * again only from a snapshot.
 */
#include <stdlib.h>

#include "bench/rust-bf-tree/bf_tree_shim.h"
#include "peer.h"

struct peer {
    void *tree;
    size_t value_len;
};

struct peer_session {
    struct peer *peer;
};

static size_t cache_bytes(const struct peer_config *config)
{
    size_t bytes = 65536, most = config->memory_bytes;

    if (config->setting == PEER_LARGER)
        most = most / 4 * 3;
    while (bytes * 2 <= most)
        bytes *= 2;
    return bytes;
}

static void describe(FILE *to, const struct peer_config *config)
{
    fprintf(
        to,
        "bf-tree (Rust) %s: circular buffer %zu MiB, %s, no log (nothing "
        "survives a kill), leaf 4096, defaults else",
        bf_tree_shim_version(), cache_bytes(config) / PEER_MIB,
        config->setting == PEER_LARGER
            ? (bf_tree_shim_has_uring() ? "io_uring, blocking" : "direct I/O")
            : ":memory:");
}

static struct peer *open_peer(const struct peer_config *config)
{
    struct peer *peer = calloc(1, sizeof(*peer));
    char path[4096];

    if (!peer)
        rig_die("out of memory");
    peer->value_len = config->value_len;
    rig_make_dir(config->dir);
    if (config->setting == PEER_LARGER)
        snprintf(path, sizeof(path), "%s/bench.bftree", config->dir);
    else
        snprintf(path, sizeof(path), ":memory:");
    peer->tree = bf_tree_shim_open(path, cache_bytes(config));
    if (!peer->tree)
        rig_die("bf-tree-rust: the configuration was refused");
    return peer;
}

static void close_peer(struct peer *peer)
{
    bf_tree_shim_close(peer->tree);
    free(peer);
}

static void settle(struct peer *peer)
{
    (void)peer;
}

static struct peer_session *session_open(struct peer *peer)
{
    struct peer_session *session = calloc(1, sizeof(*session));

    if (!session)
        rig_die("out of memory");
    session->peer = peer;
    return session;
}

static void session_close(struct peer_session *session)
{
    free(session);
}

static bool get(struct peer_session *session, const uint8_t *key,
                uint8_t *value)
{
    int64_t len = bf_tree_shim_read(session->peer->tree, key, RIG_KEY, value,
                                    PEER_VALUE_MAX);

    if (len < 0)
        return false;
    if ((size_t)len != session->peer->value_len)
        rig_die("bf-tree-rust: a value of %lld bytes", (long long)len);
    return true;
}

static void put(struct peer_session *session, const uint8_t *key,
                const uint8_t *value, bool exists)
{
    (void)exists;
    if (!bf_tree_shim_insert(session->peer->tree, key, RIG_KEY, value,
                             session->peer->value_len))
        rig_die("bf-tree-rust: insert was refused");
}

static void erase(struct peer_session *session, const uint8_t *key)
{
    bf_tree_shim_delete(session->peer->tree, key, RIG_KEY);
}

static void put_many(struct peer_session *session,
                     const struct peer_record *records, size_t n, bool exist)
{
    for (size_t i = 0; i < n; i++)
        put(session, records[i].key, records[i].value, exist);
}

static size_t get_many(struct peer_session *session,
                       struct peer_record *records, size_t n)
{
    size_t found = 0;

    for (size_t i = 0; i < n; i++)
        found += get(session, records[i].key, records[i].value);
    return found;
}

static bool row(void *context, const uint8_t *key, size_t key_len,
                const uint8_t *value, size_t value_len)
{
    return peer_scan_row(context, key, key_len, value, value_len);
}

static void scan(struct peer_session *session, struct peer_scan *scan)
{
    static const uint8_t lowest[1] = {0};

    bf_tree_shim_scan(session->peer->tree, scan->from ? scan->from : lowest,
                      scan->from ? RIG_KEY : 1, scan->rows, row, scan);
}

const struct peer_kind peer_bf_tree_rust = {
    .name = "bf-tree-rust",
    .abilities = 0,
    .multi_get_by = "gets one by one",
    .settled = "nothing: it has no such call",
    .describe = describe,
    .open = open_peer,
    .close = close_peer,
    .settle = settle,
    .session_open = session_open,
    .session_close = session_close,
    .get = get,
    .put = put,
    .erase = erase,
    .put_many = put_many,
    .get_many = get_many,
    .scan = scan,
};
