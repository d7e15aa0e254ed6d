#include "dst_oracle.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "random.h"

/* --- keys and values --------------------------------------------------------- */

bft_slice dst_key_at(unsigned client, unsigned tree, unsigned n,
                     char buf[DST_KEY_BYTES])
{
    int len = tree == 0 ? snprintf(buf, DST_KEY_BYTES, "%04u-%u", n, client)
                        : snprintf(buf, DST_KEY_BYTES, "%u-%04u", client, n);

    return (bft_slice){buf, (size_t)len};
}

bft_slice dst_key(unsigned client, unsigned k, char buf[DST_KEY_BYTES])
{
    return dst_key_at(client, k / DST_NUMBERS, k % DST_NUMBERS, buf);
}

bool dst_key_of(bft_slice key, unsigned tree, unsigned *client, unsigned *k)
{
    char text[DST_KEY_BYTES], again[DST_KEY_BYTES];
    unsigned n;

    if (key.len != 6)
        return false;
    memcpy(text, key.data, 6);
    text[6] = '\0';
    if (tree == 0 ? sscanf(text, "%4u-%1u", &n, client) != 2
                  : sscanf(text, "%1u-%4u", client, &n) != 2)
        return false;
    *k = tree * DST_NUMBERS + n;
    if (n >= DST_NUMBERS || *client >= DST_CLIENTS)
        return false;
    (void)dst_key(*client, *k, again);
    return memcmp(text, again, 6) == 0;
}

/* Mostly short ones; some fill a leaf, some lie outside of any, where the time
 * of those that expire would be rounded. */
static size_t value_len(uint64_t id, unsigned tree)
{
    uint64_t bits = random_mix(id);

    if (tree != DST_TTL_TREE && bits % 64 == 0)
        return 3000 + (bits >> 8) % (DST_VALUE_MAX - 3000);
    if (tree != DST_TTL_TREE && bits % 8 == 1)
        return 100 + (bits >> 8) % 300;
    return 8 + (bits >> 8) % 60;
}

size_t dst_value(uint64_t id, unsigned tree, void *buf)
{
    size_t len = value_len(id, tree);
    uint8_t *at = buf;

    for (size_t i = 0; i < len; i += 8) {
        uint64_t word = i ? random_mix(id + i) : id;
        memcpy(at + i, &word, len - i < 8 ? len - i : 8);
    }
    return len;
}

uint64_t dst_value_id(unsigned tree, const void *bytes, size_t len)
{
    static uint8_t made[DST_VALUE_MAX + 8];
    uint64_t id;

    if (len < sizeof(id))
        return 0;
    memcpy(&id, bytes, sizeof(id));
    if (id == 0 || value_len(id, tree) != len)
        return 0;
    (void)dst_value(id, tree, made);
    return memcmp(made, bytes, len) == 0 ? id : 0;
}

/* --- what is known ------------------------------------------------------------- */

void dst_oracle_init(struct dst_oracle *o, unsigned clients, unsigned numbers)
{
    assert(clients <= DST_CLIENTS && numbers <= DST_NUMBERS);
    memset(o, 0, sizeof(*o));
    o->clients = clients;
    o->numbers = numbers;
}

void dst_oracle_free(struct dst_oracle *o)
{
    for (unsigned c = 0; c < DST_CLIENTS; c++)
        free(o->book[c].commit);
    free(o->expires);
}

uint64_t dst_new_id(struct dst_oracle *o, uint64_t expires_ms)
{
    uint64_t id = ++o->last_id;

    if (id >= o->expires_cap) {
        o->expires_cap = 2 * o->expires_cap + 1024;
        o->expires = realloc(o->expires, o->expires_cap * sizeof(*o->expires));
        assert(o->expires);
    }
    o->expires[id] = expires_ms;
    return id;
}

struct dst_commit *dst_begin(struct dst_oracle *o, unsigned client)
{
    struct dst_book *book = &o->book[client];
    struct dst_commit *commit;

    if (book->count == book->cap) {
        book->cap = 2 * book->cap + 64;
        book->commit = realloc(book->commit, book->cap * sizeof(*commit));
        assert(book->commit);
    }
    commit = &book->commit[book->count++];
    commit->begun = ++o->moment;
    commit->ended = UINT64_MAX;
    commit->count = 0;
    return commit;
}

void dst_note(struct dst_commit *commit, unsigned key, uint64_t id)
{
    assert(key < DST_KEYS);
    for (unsigned i = 0; i < commit->count; i++)
        if (commit->change[i].key == key) { /* the last one wins */
            commit->change[i].id = id;
            return;
        }
    assert(commit->count < DST_CHANGES);
    commit->change[commit->count++] = (struct dst_change){key, id};
}

void dst_accepted(struct dst_oracle *o, unsigned client, size_t count)
{
    struct dst_book *book = &o->book[client];

    o->moment++;
    assert(count <= book->count);
    for (size_t i = book->count - count; i < book->count; i++) {
        struct dst_commit *commit = &book->commit[i];

        commit->ended = o->moment;
        for (unsigned j = 0; j < commit->count; j++)
            book->now[commit->change[j].key] = commit->change[j].id;
    }
}

void dst_refused(struct dst_oracle *o, unsigned client)
{
    assert(o->book[client].count > 0);
    o->book[client].count--;
}

/* How many of BOOK's commits had ended before MOMENT. */
static size_t ended_before(const struct dst_book *book, uint64_t moment)
{
    size_t n = book->count;

    while (n > 0 && book->commit[n - 1].ended >= moment)
        n--;
    return n;
}

static size_t accepted(const struct dst_book *book)
{
    return ended_before(book, UINT64_MAX);
}

void dst_survives(struct dst_oracle *o, uint64_t moment,
                  bft_durability durability, int client)
{
    for (unsigned c = 0; c < o->clients; c++) {
        struct dst_book *book = &o->book[c];
        size_t n =
            (int)c == client ? accepted(book) : ended_before(book, moment);

        if (durability == BFT_SYNC && n > book->synced)
            book->synced = n;
        if (durability >= BFT_BUFFERED && n > book->buffered)
            book->buffered = n;
    }
}

void dst_cut_now(const struct dst_oracle *o, struct dst_cut *cut)
{
    for (unsigned c = 0; c < o->clients; c++) {
        cut->buffered[c] = o->book[c].buffered;
        cut->synced[c] = o->book[c].synced;
        cut->issued[c] = o->book[c].count;
    }
}

void dst_cut_all(const struct dst_oracle *o, struct dst_cut *cut)
{
    for (unsigned c = 0; c < o->clients; c++)
        cut->buffered[c] = cut->synced[c] = cut->issued[c] =
            accepted(&o->book[c]);
}

/* --- what is found ------------------------------------------------------------- */

bool dst_may_be(const struct dst_oracle *o, uint64_t expected, uint64_t id,
                uint64_t from_ms, uint64_t to_ms)
{
    uint64_t expires = expected ? o->expires[expected] : 0;

    if (id == expected)
        return !expires || from_ms < expires;
    return id == 0 && expires && expires <= to_ms;
}

/* Of one client: which of its states FOUND may be, from *LOW to *HIGH commits;
 * false: none, and *BEST is the one that it resembles most. */
static bool find_states(const struct dst_oracle *o, unsigned client,
                        size_t must, size_t issued,
                        const struct dst_found *found, size_t *low,
                        size_t *high, size_t *best)
{
    const struct dst_book *book = &o->book[client];
    uint64_t state[DST_KEYS];
    unsigned wrong = 0, least = UINT32_MAX;
    bool any = false;

    memcpy(state, book->base, sizeof(state));
    for (unsigned k = 0; k < DST_KEYS; k++)
        wrong += !dst_may_be(o, state[k], found->id[client][k], found->from_ms,
                             found->to_ms);
    for (size_t n = 0;; n++) {
        const struct dst_commit *commit;

        if (n >= must && wrong == 0) {
            *low = any ? *low : n;
            *high = n;
            any = true;
        }
        if (wrong < least) {
            least = wrong;
            *best = n;
        }
        if (n == issued)
            return any;
        commit = &book->commit[n];
        for (unsigned i = 0; i < commit->count; i++) {
            unsigned k = commit->change[i].key;
            uint64_t id = found->id[client][k];

            wrong -= !dst_may_be(o, state[k], id, found->from_ms, found->to_ms);
            state[k] = commit->change[i].id;
            wrong += !dst_may_be(o, state[k], id, found->from_ms, found->to_ms);
        }
    }
}

/* Say how FOUND differs from what CLIENT had after N commits. */
static void tell(const struct dst_oracle *o, unsigned client, size_t n,
                 size_t must, size_t issued, const struct dst_found *found,
                 char *text, size_t len)
{
    const struct dst_book *book = &o->book[client];
    uint64_t state[DST_KEYS];
    char buf[DST_KEY_BYTES];
    int at = snprintf(text, len,
                      "client %u: no state of %zu to %zu commits; but for "
                      "these it is that of %zu:",
                      client, must, issued, n);

    memcpy(state, book->base, sizeof(state));
    for (size_t i = 0; i < n; i++)
        for (unsigned j = 0; j < book->commit[i].count; j++)
            state[book->commit[i].change[j].key] = book->commit[i].change[j].id;
    for (unsigned k = 0; k < DST_KEYS && at > 0 && (size_t)at + 80 < len; k++)
        if (!dst_may_be(o, state[k], found->id[client][k], found->from_ms,
                        found->to_ms))
            at += snprintf(text + at, len - (size_t)at,
                           " %s of tree %u is value %llu and not %llu;",
                           (const char *)dst_key(client, k, buf).data,
                           k / DST_NUMBERS,
                           (unsigned long long)found->id[client][k],
                           (unsigned long long)state[k]);
}

bool dst_check(const struct dst_oracle *o, const struct dst_cut *cut,
               bool killed, const struct dst_found *found, char *text,
               size_t len)
{
    size_t low[DST_CLIENTS], high[DST_CLIENTS], best = 0;

    for (unsigned c = 0; c < o->clients; c++) {
        size_t must = killed && cut->buffered[c] > cut->synced[c]
                          ? cut->buffered[c]
                          : cut->synced[c];

        if (find_states(o, c, must, cut->issued[c], found, &low[c], &high[c],
                        &best))
            continue;
        tell(o, c, best, must, cut->issued[c], found, text, len);
        return false;
    }
    /* The order of the log: what is there had its predecessors there. */
    for (unsigned c = 0; c < o->clients; c++) {
        uint64_t begun = low[c] > 0 ? o->book[c].commit[low[c] - 1].begun : 0;

        for (unsigned d = 0; d < o->clients; d++)
            if (ended_before(&o->book[d], begun) > high[d]) {
                snprintf(text, len,
                         "client %u has its commit %zu, but client %u only "
                         "%zu, though %zu had ended when that began",
                         c, low[c], d, high[d],
                         ended_before(&o->book[d], begun));
                return false;
            }
    }
    return true;
}

void dst_rebase(struct dst_oracle *o, const struct dst_found *found)
{
    for (unsigned c = 0; c < o->clients; c++) {
        struct dst_book *book = &o->book[c];

        memcpy(book->base, found->id[c], sizeof(book->base));
        memcpy(book->now, found->id[c], sizeof(book->now));
        book->count = book->buffered = book->synced = 0;
    }
}
