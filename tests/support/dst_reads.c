/*
 * What clients look at.  Of its own keys a client knows what each read gives;
 * of others' that no value is torn, and that the money of the bank is all there.
 */
#include "dst_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- single records ------------------------------------------------------------ */

bool dst_is_sure(const struct dst_client *c, unsigned k)
{
    const struct dst_book *book = &c->w->oracle.book[c->number];

    for (size_t i = book->count;
         i > 0 && book->commit[i - 1].ended == UINT64_MAX; i--)
        for (unsigned j = 0; j < book->commit[i - 1].count; j++)
            if (book->commit[i - 1].change[j].key == k)
                return false;
    return true;
}

bool dst_is_right(struct dst_client *c, unsigned k, uint64_t id,
                  uint64_t from_ms, const char *what)
{
    const struct dst_oracle *o = &c->w->oracle;
    uint64_t expected = o->book[c->number].now[k];
    char buf[DST_KEY_BYTES];

    if (c->w->crashed || !dst_is_sure(c, k) ||
        dst_may_be(o, expected, id, from_ms, dst_now_ms(c->w)))
        return true;
    (void)dst_key(c->number, k, buf);
    return dst_failure(c->w,
                       "client %u: %s of %s in tree %u gave value %llu, not "
                       "%llu",
                       c->number, what, buf, k / DST_NUMBERS,
                       (unsigned long long)id, (unsigned long long)expected);
}

/* STATUS and LEN of a read into C->got, as a value's number; false: it failed. */
static bool read_id(struct dst_client *c, unsigned k, bft_status status,
                    size_t len, const char *what, uint64_t *id)
{
    char buf[DST_KEY_BYTES];

    *id = 0;
    if (status == BFT_NOT_FOUND)
        return true;
    if (!dst_fine(c->w, status, what))
        return false;
    *id = dst_value_id(k / DST_NUMBERS, c->got, len);
    if (*id)
        return true;
    (void)dst_key(c->number, k, buf);
    return dst_failure(c->w, "client %u: %s of %s gave %zu bytes of no value",
                       c->number, what, buf, len);
}

static unsigned draw_key(struct dst_client *c, unsigned trees)
{
    return (unsigned)dst_draw(c->w, trees) * DST_NUMBERS +
           (unsigned)dst_draw(c->w, c->w->oracle.numbers);
}

void dst_read_own(struct dst_client *c)
{
    char buf[DST_KEY_BYTES];
    unsigned k = draw_key(c, DST_TREES);
    bft_slice key = dst_key(c->number, k, buf);
    uint64_t from = dst_now_ms(c->w), id;
    size_t len;
    bft_status status =
        bft_get(c->w->tree[k / DST_NUMBERS], key, c->got, sizeof(c->got), &len);

    dst_say(c->w, "%u: got %s", c->number, buf);
    if (read_id(c, k, status, len, "bft_get", &id))
        (void)dst_is_right(c, k, id, from, "bft_get");
}

/* A change that failed is there or is not, all of it; bft_get() tells which. */
void dst_ask_again(struct dst_client *c)
{
    struct dst_oracle *o = &c->w->oracle;
    const struct dst_book *book = &o->book[c->number];
    const struct dst_commit *commit;
    unsigned there = 0, changed = 0;

    assert(book->count > 0);
    commit = &book->commit[book->count - 1];
    if (commit->ended != UINT64_MAX ||
        (book->count > 1 && commit[-1].ended == UINT64_MAX))
        return; /* several, each of which may be there */
    for (unsigned i = 0; i < commit->count; i++) {
        unsigned k = commit->change[i].key;
        char buf[DST_KEY_BYTES];
        bft_status status;
        uint64_t id;
        size_t len;

        if (k / DST_NUMBERS == DST_TTL_TREE)
            return; /* either may have expired */
        status =
            bft_get(c->w->tree[k / DST_NUMBERS], dst_key(c->number, k, buf),
                    c->got, sizeof(c->got), &len);
        if (!read_id(c, k, status, len, "bft_get of what failed", &id) ||
            c->w->crashed)
            return;
        if (id != commit->change[i].id && id != book->now[k])
            (void)dst_failure(c->w,
                              "client %u: %s is value %llu after a "
                              "failure",
                              c->number, buf, (unsigned long long)id);
        changed += commit->change[i].id != book->now[k];
        there +=
            commit->change[i].id != book->now[k] && id == commit->change[i].id;
    }
    if (there != 0 && there != changed)
        (void)dst_failure(c->w,
                          "client %u: %u of %u changes of a commit that "
                          "failed are there",
                          c->number, there, changed);
    dst_say(c->w, "%u: what failed is %s", c->number,
            there ? "there" : "not there");
    if (changed == 0) /* that it was done cannot be seen, nor that it was not */
        return;
    if (there)
        dst_accepted(o, c->number, 1);
    else
        dst_refused(o, c->number);
    c->stuck = false;
    c->w->run->counts.again++;
}

void dst_read_many(struct dst_client *c)
{
    enum { MANY = 8, EACH = DST_VALUE_MAX / MANY };
    bft_answer answer[MANY];
    char buf[MANY][DST_KEY_BYTES];
    unsigned k[MANY], tree = (unsigned)dst_draw(c->w, DST_TREES);
    uint64_t from = dst_now_ms(c->w), id;
    bft_status status;

    for (unsigned i = 0; i < MANY; i++) {
        k[i] =
            tree * DST_NUMBERS + (unsigned)dst_draw(c->w, c->w->oracle.numbers);
        answer[i] = (bft_answer){.key = dst_key(c->number, k[i], buf[i]),
                                 .buf = c->value + (size_t)i * EACH,
                                 .buf_len = EACH};
    }
    dst_say(c->w, "%u: read many", c->number);
    status = bft_multi_get(c->w->tree[tree], answer, MANY);
    if (!dst_fine(c->w, status, "bft_multi_get"))
        return;
    for (unsigned i = 0; i < MANY; i++) {
        if (answer[i].status == BFT_TOO_SMALL)
            continue;
        memcpy(c->got, answer[i].buf, answer[i].value_len);
        if (!read_id(c, k[i], answer[i].status, answer[i].value_len,
                     "bft_multi_get", &id) ||
            !dst_is_right(c, k[i], id, from, "bft_multi_get"))
            return;
    }
}

/* The first or the LAST record between two keys must be own key K; none, if that
 * is UINT32_MAX. */
static void read_end(struct dst_client *c, bft_slice low, bft_slice high,
                     bool last, unsigned k)
{
    struct dst_world *w = c->w;
    unsigned client, found;
    bft_record *record;
    bft_status status = last ? bft_last(w->tree[1], low, high, &record)
                             : bft_first(w->tree[1], low, high, &record);

    if (status == BFT_NOT_FOUND && k == UINT32_MAX)
        return;
    if (!dst_fine(w, status, last ? "bft_last" : "bft_first"))
        return;
    if (!dst_key_of(record->key, 1, &client, &found) || found != k ||
        client != c->number)
        (void)dst_failure(w, "client %u: the %s of its range is %.*s",
                          c->number, last ? "last" : "first",
                          (int)record->key.len, (const char *)record->key.data);
    bft_free(record);
}

/* How many, and the first and the last one, of a part of its own range. */
void dst_read_range(struct dst_client *c)
{
    struct dst_world *w = c->w;
    unsigned base = DST_NUMBERS, numbers = w->oracle.numbers;
    unsigned low = (unsigned)dst_draw(w, numbers);
    unsigned high = low + 1 + (unsigned)dst_draw(w, numbers - low);
    unsigned first = UINT32_MAX, last = UINT32_MAX;
    char from[DST_KEY_BYTES], to[DST_KEY_BYTES];
    bft_slice from_key = dst_key_at(c->number, 1, low, from);
    bft_slice to_key = dst_key_at(c->number, 1, high, to);
    uint64_t count, expected = 0;

    for (unsigned k = base + low; k < base + high; k++) {
        if (!dst_is_sure(c, k))
            return;
        if (!w->oracle.book[c->number].now[k])
            continue;
        expected++;
        first = first == UINT32_MAX ? k : first;
        last = k;
    }
    dst_say(w, "%u: read the range %s to %s", c->number, from, to);
    if (!dst_fine(w, bft_count(w->tree[1], from_key, to_key, &count),
                  "bft_count"))
        return;
    if (count != expected && !w->crashed)
        (void)dst_failure(w, "client %u: bft_count of %s to %s: %llu, not %llu",
                          c->number, from, to, (unsigned long long)count,
                          (unsigned long long)expected);
    read_end(c, from_key, to_key, false, first);
    if (!w->crashed)
        read_end(c, from_key, to_key, true, last);
}

/* --- scans ------------------------------------------------------------------------ */

/* What a scan came to next: C's own keys must come in order, as EXPECTED (of
 * trees whose records do not expire) says. */
struct scan {
    struct dst_client *c;
    unsigned tree;
    bool back;
    unsigned next; /* own number that may come, counted from the beginning */
    const uint64_t *expected;
    bool unsure; /* the client is stuck */
    bool newest; /* of no instant */
};

/* Own keys from NEXT up to N were not met: must they have been? */
static bool pass_over(struct scan *s, unsigned n)
{
    struct dst_client *c = s->c;
    unsigned numbers = c->w->oracle.numbers;

    for (; s->next < n; s->next++) {
        unsigned number = s->back ? numbers - 1 - s->next : s->next;
        unsigned k = s->tree * DST_NUMBERS + number;

        if (s->expected[k] && !c->w->crashed &&
            !(s->unsure && !dst_is_sure(c, k)))
            return dst_failure(c->w,
                               "client %u: a scan %s of tree %u does not show "
                               "number %u, value %llu",
                               c->number, s->back ? "back" : "ahead", s->tree,
                               number, (unsigned long long)s->expected[k]);
    }
    return true;
}

static bool meet(struct scan *s, bft_slice key, bft_slice value)
{
    struct dst_client *c = s->c;
    struct dst_world *w = c->w;
    unsigned client, k, number, numbers = w->oracle.numbers;
    uint64_t id = dst_value_id(s->tree, value.data, value.len);

    dst_say(w, "   %u: %.*s = %llu", c->number, (int)key.len,
            (const char *)key.data, (unsigned long long)id);
    if (!dst_key_of(key, s->tree, &client, &k) || !id)
        return dst_failure(w, "client %u: a scan of tree %u shows %.*s, %s",
                           c->number, s->tree, (int)key.len,
                           (const char *)key.data,
                           id ? "nobody's key" : "a value of no one's");
    if (client != c->number)
        return true;
    number = k % DST_NUMBERS;
    if (!pass_over(s, s->back ? numbers - 1 - number : number))
        return false;
    s->next++;
    if (id == s->expected[k] || w->crashed || (s->unsure && !dst_is_sure(c, k)))
        return true;
    return dst_failure(w,
                       "client %u: a scan of tree %u shows number %u as value "
                       "%llu, not %llu",
                       c->number, s->tree, number, (unsigned long long)id,
                       (unsigned long long)s->expected[k]);
}

/* All of CURSOR, one way or the other. */
static void scan_all(struct scan *s, bft_cursor *cursor)
{
    struct dst_world *w = s->c->w;
    bft_status status;

    for (;;) {
        bft_slice key, value;

        status = s->back ? bft_cursor_prev(cursor) : bft_cursor_next(cursor);
        if (status == BFT_NOT_FOUND)
            break;
        if (!dst_fine(w, status, "a step of a scan"))
            return;
        status = bft_cursor_record(cursor, &key, &value);
        if (status == BFT_NOT_FOUND && s->newest)
            continue; /* a large value, removed since the step */
        if (!dst_fine(w, status, "a record of a scan") || !meet(s, key, value))
            return;
    }
    (void)pass_over(s, w->oracle.numbers);
}

void dst_scan(struct dst_client *c)
{
    struct dst_world *w = c->w;
    struct scan scan = {.c = c,
                        .tree = (unsigned)dst_draw(w, DST_TTL_TREE),
                        .back = dst_chance(w, 2),
                        .expected = w->oracle.book[c->number].now,
                        .unsure = true,
                        .newest = dst_chance(w, 4)};
    bft_cursor *cursor;
    bft_status status =
        scan.newest ? bft_cursor_open_newest(w->tree[scan.tree], &cursor)
                    : bft_cursor_open(w->tree[scan.tree], &cursor);

    dst_say(w, "%u: scan tree %u %s, %s", c->number, scan.tree,
            scan.back ? "back" : "ahead",
            scan.newest ? "newest" : "at an instant");
    if (!dst_fine(w, status, "bft_cursor_open"))
        return;
    scan_all(&scan, cursor);
    bft_cursor_close(cursor);
}

/* --- snapshots --------------------------------------------------------------------- */

void dst_take_snapshot(struct dst_client *c)
{
    struct dst_world *w = c->w;

    if (c->snapshot || c->stuck)
        return;
    dst_say(w, "%u: take a snapshot", c->number);
    c->past_from = dst_now_ms(w);
    if (!dst_fine(w, bft_snapshot_take(w->db, &c->snapshot),
                  "bft_snapshot_take"))
        return;
    c->past_to = dst_now_ms(w);
    memcpy(c->past, w->oracle.book[c->number].now, sizeof(c->past));
    w->run->counts.snapshots++;
    (void)dst_check_bank(w, c->snapshot, w->bank);
}

static bool read_past(struct dst_client *c)
{
    struct dst_world *w = c->w;
    char buf[DST_KEY_BYTES];
    unsigned k = draw_key(c, DST_TREES);
    bft_slice key = dst_key(c->number, k, buf);
    uint64_t id;
    size_t len;
    bft_status status = bft_snapshot_get(c->snapshot, w->tree[k / DST_NUMBERS],
                                         key, c->got, sizeof(c->got), &len);

    if (!read_id(c, k, status, len, "bft_snapshot_get", &id))
        return false;
    if (w->crashed ||
        dst_may_be(&w->oracle, c->past[k], id, c->past_from, c->past_to))
        return true;
    return dst_failure(w,
                       "client %u: a snapshot shows %s of tree %u as value "
                       "%llu, not %llu",
                       c->number, buf, k / DST_NUMBERS, (unsigned long long)id,
                       (unsigned long long)c->past[k]);
}

void dst_read_snapshot(struct dst_client *c)
{
    struct dst_world *w = c->w;
    struct scan scan = {.c = c,
                        .tree = (unsigned)dst_draw(w, DST_TTL_TREE),
                        .back = dst_chance(w, 2),
                        .expected = c->past};
    bft_cursor *cursor;

    if (!c->snapshot)
        return;
    dst_say(w, "%u: read the snapshot", c->number);
    for (unsigned i = 0; i < 6; i++)
        if (!read_past(c))
            return;
    if (!dst_check_bank(w, c->snapshot, w->bank) || dst_chance(w, 2))
        return;
    if (!dst_fine(w,
                  bft_snapshot_cursor(c->snapshot, w->tree[scan.tree], &cursor),
                  "bft_snapshot_cursor"))
        return;
    scan_all(&scan, cursor);
    bft_cursor_close(cursor);
}

void dst_drop_snapshot(struct dst_client *c)
{
    if (c->snapshot) {
        dst_say(c->w, "%u: drop the snapshot", c->number);
        bft_snapshot_release(c->snapshot);
    }
    c->snapshot = NULL;
}

/* --- the bank ----------------------------------------------------------------------- */

bft_slice dst_account_key(unsigned account, char buf[DST_KEY_BYTES])
{
    int len = snprintf(buf, DST_KEY_BYTES, "account-%02u", account);

    return (bft_slice){buf, (size_t)len};
}

bool dst_check_bank(struct dst_world *w, bft_snapshot *snapshot, bft_tree *bank)
{
    int64_t sum = 0;
    unsigned there = 0;

    for (unsigned i = 0; i < DST_ACCOUNTS; i++) {
        struct dst_account account;
        char buf[DST_KEY_BYTES];
        bft_slice key = dst_account_key(i, buf);
        size_t len;
        bft_status status =
            snapshot ? bft_snapshot_get(snapshot, bank, key, &account,
                                        sizeof(account), &len)
                     : bft_get(bank, key, &account, sizeof(account), &len);

        if (status == BFT_NOT_FOUND)
            continue;
        if (!dst_fine(w, status, "reading an account"))
            return false;
        there++;
        sum += account.balance;
    }
    if (w->crashed)
        return true;
    if (there == 0 && !w->bank_there)
        return true;
    w->bank_there = true;
    if (there == DST_ACCOUNTS && sum == (int64_t)DST_ACCOUNTS * DST_MONEY)
        return true;
    return dst_failure(w, "%s: %u accounts have %lld",
                       snapshot ? "a snapshot of the bank" : "the bank", there,
                       (long long)sum);
}

/* --- all there is --------------------------------------------------------------------- */

bool dst_find(struct dst_world *w, bft_tree *const tree[DST_TREES],
              struct dst_found *found)
{
    static uint8_t value[DST_VALUE_MAX];
    size_t there = 0, shown = 0;

    found->from_ms = dst_now_ms(w);
    for (unsigned c = 0; c < DST_CLIENTS; c++)
        for (unsigned k = 0; k < DST_KEYS; k++) {
            char buf[DST_KEY_BYTES];
            size_t len;
            bft_status status;

            if (k % DST_NUMBERS >= w->oracle.numbers)
                continue;
            status = bft_get(tree[k / DST_NUMBERS], dst_key(c, k, buf), value,
                             sizeof(value), &len);
            if (status == BFT_NOT_FOUND)
                continue;
            if (!dst_fine(w, status, "reading a key"))
                return false;
            found->id[c][k] = dst_value_id(k / DST_NUMBERS, value, len);
            if (!found->id[c][k])
                return dst_failure(w, "%s of tree %u has no value's bytes", buf,
                                   k / DST_NUMBERS);
            there += k / DST_NUMBERS != DST_TTL_TREE;
        }
    found->to_ms = dst_now_ms(w);
    for (unsigned t = 0; t < DST_TTL_TREE; t++) {
        uint64_t n;

        if (!dst_fine(w,
                      bft_count(tree[t], (bft_slice){NULL, 0},
                                (bft_slice){NULL, 0}, &n),
                      "bft_count"))
            return false;
        shown += n;
    }
    return shown == there ||
           dst_failure(w, "%zu records, but %zu were found", shown, there);
}

/* --- backups ---------------------------------------------------------------------------- */

/* The copy has what C had when it was begun, and all of the money. */
static void look_at_copy(struct dst_client *c, const char *path)
{
    static const char *const name[] = {"ash", "birch", "cedar", "oak"};
    struct dst_world *w = c->w;
    const struct dst_book *book = &w->oracle.book[c->number];
    bft_options options = w->options;
    bft_tree *tree[DST_TREES + 1];
    struct dst_found *found = calloc(1, sizeof(*found));
    bft_db *copy;
    bool ok;

    assert(found);
    options.no_threads = true;
    options.read_only = dst_chance(w, 2);
    if (!dst_fine(w, bft_open(path, &options, &copy), "opening a backup")) {
        free(found);
        return;
    }
    ok = dst_verify(w, copy, "bft_verify of a backup");
    for (unsigned t = 0; ok && t <= DST_TREES; t++) {
        bft_tree_options must = {.size = sizeof(must), .must_exist = true};

        ok = dst_fine(w, bft_tree_open(copy, name[t], &must, &tree[t]),
                      "a tree of a backup");
    }
    ok = ok && dst_check_bank(w, NULL, tree[DST_TREES]) &&
         dst_find(w, tree, found);
    for (unsigned k = 0; ok && k < DST_KEYS && !w->crashed; k++)
        if (dst_is_sure(c, k) &&
            !dst_may_be(&w->oracle, book->now[k], found->id[c->number][k],
                        found->from_ms, found->to_ms))
            ok = dst_failure(w,
                             "client %u: its backup has key %u as value %llu, "
                             "not %llu",
                             c->number, k,
                             (unsigned long long)found->id[c->number][k],
                             (unsigned long long)book->now[k]);
    (void)dst_fine(w, bft_close(copy), "closing a backup");
    free(found);
}

/* One at a time, and nobody else opens or closes a database meanwhile: the
 * library's list of them has a lock of the system's. */
void dst_backup(struct dst_client *c)
{
    struct dst_world *w = c->w;
    const struct bfti_env *env = sched_env(w->s);
    char path[32];
    bft_status status;

    if (w->backups > 2 * w->life) /* they are slow */
        return;
    bfti_mutex_lock(env, &w->copying);
    if (!w->crashed) {
        snprintf(path, sizeof(path), "/copy-%u", ++w->backups);
        dst_say(w, "%u: backup to %s", c->number, path);
        status = bft_backup(w->db, path, NULL);
        if (dst_fine(w, status, "bft_backup")) {
            w->run->counts.backups++;
            look_at_copy(c, path);
        }
    }
    bfti_mutex_unlock(env, &w->copying);
}
