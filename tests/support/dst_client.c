/*
 * What clients do.  A commit is in the book before the call, so that a crash
 * within it finds it there; a call that fails for what is in store ends the
 * client's changes, because what became of it only the next opening tells.
 */
#include "dst_internal.h"

#include <assert.h>
#include <string.h>

/* --- what is drawn ----------------------------------------------------------- */

static unsigned draw_key(struct dst_client *c)
{
    return (unsigned)dst_draw(c->w, DST_TREES) * DST_NUMBERS +
           (unsigned)dst_draw(c->w, c->w->oracle.numbers);
}

/* A new value for key K; *EXPIRES is of the tree whose records do. */
static uint64_t draw_value(struct dst_client *c, unsigned k, uint64_t *expires)
{
    *expires = 0;
    if (k / DST_NUMBERS == DST_TTL_TREE && !dst_chance(c->w, 3))
        *expires = dst_now_ms(c->w) + 1 + dst_draw(c->w, 400);
    return dst_new_id(&c->w->oracle, *expires);
}

static bft_durability draw_durability(struct dst_client *c)
{
    static const bft_durability some[] = {BFT_DEFAULT, BFT_NONE, BFT_BUFFERED,
                                          BFT_SYNC};

    return some[dst_draw(c->w, 4)];
}

static bft_tree *tree_of(const struct dst_client *c, unsigned k)
{
    return c->w->tree[k / DST_NUMBERS];
}

static bft_slice value_of(struct dst_client *c, unsigned k, uint64_t id)
{
    return (bft_slice){c->value, dst_value(id, k / DST_NUMBERS, c->value)};
}

static uint64_t now_of(const struct dst_client *c, unsigned k)
{
    return c->w->oracle.book[c->number].now[k];
}

/* --- commits ------------------------------------------------------------------- */

/* The newest COUNT commits came back with STATUS; they began at MOMENT. */
static void end_commits(struct dst_client *c, bft_status status, size_t count,
                        uint64_t moment, bft_durability durability,
                        const char *what)
{
    struct dst_world *w = c->w;

    if (w->crashed) /* whatever it says */
        return;
    if (!dst_fine(w, status, what)) {
        c->stuck = true;
        if (c->roomy)
            (void)dst_failure(w,
                              "client %u: %s: %d, though the disk has room "
                              "again",
                              c->number, what, (int)status);
        return;
    }
    w->run->counts.commits += count;
    dst_accepted(&w->oracle, c->number, count);
    dst_survives(&w->oracle, moment,
                 durability == BFT_DEFAULT ? w->options.durability : durability,
                 (int)c->number);
}

/* It changes nothing. */
static void end_refused(struct dst_client *c, bft_status status)
{
    sched_trace(c->w->s, (uint64_t)(int64_t)status);
    if (!c->w->crashed)
        dst_refused(&c->w->oracle, c->number);
}

static void op_put(struct dst_client *c)
{
    char buf[DST_KEY_BYTES];
    unsigned k = draw_key(c);
    uint64_t expires, id = draw_value(c, k, &expires);
    bft_slice key = dst_key(c->number, k, buf), value = value_of(c, k, id);
    struct dst_commit *commit = dst_begin(&c->w->oracle, c->number);
    uint64_t moment = commit->begun;

    dst_note(commit, k, id);
    dst_say(c->w, "%u: put %s = %llu, %zu bytes", c->number, buf,
            (unsigned long long)id, value.len);
    end_commits(c,
                expires ? bft_put_until(tree_of(c, k), key, value, expires)
                        : bft_put(tree_of(c, k), key, value),
                1, moment, BFT_DEFAULT, "bft_put");
}

static void op_delete(struct dst_client *c)
{
    char buf[DST_KEY_BYTES];
    unsigned k = draw_key(c);
    struct dst_commit *commit = dst_begin(&c->w->oracle, c->number);
    uint64_t moment = commit->begun;

    dst_note(commit, k, 0);
    (void)dst_key(c->number, k, buf);
    dst_say(c->w, "%u: delete %s", c->number, buf);
    end_commits(c, bft_delete(tree_of(c, k), dst_key(c->number, k, buf)), 1,
                moment, BFT_DEFAULT, "bft_delete");
}

/* A key of a tree whose records do not expire. */
static unsigned draw_lasting(struct dst_client *c)
{
    return (unsigned)dst_draw(c->w, DST_TTL_TREE) * DST_NUMBERS +
           (unsigned)dst_draw(c->w, c->w->oracle.numbers);
}

static void op_insert(struct dst_client *c)
{
    char buf[DST_KEY_BYTES];
    unsigned k = draw_lasting(c);
    uint64_t id = dst_new_id(&c->w->oracle, 0), before = now_of(c, k);
    bft_slice key = dst_key(c->number, k, buf), value = value_of(c, k, id);
    struct dst_commit *commit = dst_begin(&c->w->oracle, c->number);
    uint64_t moment = commit->begun;
    bft_status status;

    dst_note(commit, k, id);
    dst_say(c->w, "%u: insert %s = %llu", c->number, buf,
            (unsigned long long)id);
    status = bft_insert(tree_of(c, k), key, value);
    if (status == BFT_EXISTS && before != 0)
        end_refused(c, status);
    else if (status == BFT_OK && before != 0 && !c->w->crashed)
        (void)dst_failure(c->w, "client %u: inserted %s, which is there",
                          c->number, buf);
    else
        end_commits(c, status, 1, moment, BFT_DEFAULT, "bft_insert");
}

static void op_replace(struct dst_client *c)
{
    char buf[DST_KEY_BYTES];
    unsigned k = draw_lasting(c);
    uint64_t id = dst_new_id(&c->w->oracle, 0), before = now_of(c, k);
    bool right = !dst_chance(c->w, 4);
    bft_slice key = dst_key(c->number, k, buf), value, expected;
    struct dst_commit *commit = dst_begin(&c->w->oracle, c->number);
    uint64_t moment = commit->begun;
    bft_status status;

    if (dst_chance(c->w, 4) && before)
        id = 0;
    dst_note(commit, k, id);
    value = value_of(c, k, id ? id : 1);
    expected.data = c->got; /* the client's own: others may come between */
    expected.len =
        dst_value(right ? before : before + 1, k / DST_NUMBERS, c->got);
    dst_say(c->w, "%u: replace %s: %llu by %llu%s", c->number, buf,
            (unsigned long long)before, (unsigned long long)id,
            right ? "" : ", wrongly");
    status =
        bft_replace(tree_of(c, k), key, right && !before ? NULL : &expected,
                    id ? &value : NULL);
    if (!right && status == BFT_CONFLICT)
        end_refused(c, status);
    else if (!right && status == BFT_OK && !c->w->crashed)
        (void)dst_failure(c->w, "client %u: replaced what %s has not",
                          c->number, buf);
    else
        end_commits(c, status, 1, moment, BFT_DEFAULT, "bft_replace");
}

static void tell_commit(struct dst_client *c, const char *what,
                        const struct dst_commit *commit,
                        bft_durability durability)
{
    char buf[DST_KEY_BYTES];

    dst_say(c->w, "%u: commit %s of %u, durability %d", c->number, what,
            commit->count, (int)durability);
    for (unsigned i = 0; i < commit->count; i++)
        dst_say(
            c->w, "   %s = %llu",
            (const char *)dst_key(c->number, commit->change[i].key, buf).data,
            (unsigned long long)commit->change[i].id);
}

static void op_batch(struct dst_client *c)
{
    struct dst_world *w = c->w;
    unsigned n = 1 + (unsigned)dst_draw(w, DST_CHANGES - 1);
    bft_durability durability = draw_durability(c);
    struct dst_commit *commit;
    uint64_t lsn, moment;
    bft_batch *batch;
    struct dst_commit changes = {.count = 0};

    if (!dst_fine(w, bft_batch_create(w->db, &batch), "bft_batch_create"))
        return;
    while (n--) {
        char buf[DST_KEY_BYTES];
        unsigned k = draw_key(c);
        bft_slice key = dst_key(c->number, k, buf);
        uint64_t expires = 0, id = 0;
        bft_status status;

        if (!dst_chance(w, 4))
            id = draw_value(c, k, &expires);
        status = !id       ? bft_batch_delete(batch, tree_of(c, k), key)
                 : expires ? bft_batch_put_until(batch, tree_of(c, k), key,
                                                 value_of(c, k, id), expires)
                           : bft_batch_put(batch, tree_of(c, k), key,
                                           value_of(c, k, id));
        if (status == BFT_TOO_BIG)
            break;
        if (!dst_fine(w, status, "bft_batch_put"))
            goto out;
        dst_note(&changes, k, id);
    }
    commit = dst_begin(&w->oracle, c->number);
    memcpy(commit->change, changes.change, sizeof(changes.change));
    commit->count = changes.count;
    moment = commit->begun;
    tell_commit(c, "a batch", commit, durability);
    end_commits(c, bft_batch_commit(batch, durability, &lsn), 1, moment,
                durability, "bft_batch_commit");
out:
    bft_batch_free(batch);
}

/* --- transactions ---------------------------------------------------------------- */

static bool txn_change(struct dst_client *c, bft_txn *txn, unsigned k,
                       struct dst_commit *commit)
{
    char buf[DST_KEY_BYTES];
    bft_slice key = dst_key(c->number, k, buf);
    uint64_t id = dst_chance(c->w, 4) ? 0 : dst_new_id(&c->w->oracle, 0);
    size_t len;
    bft_status status =
        bft_txn_get(txn, tree_of(c, k), key, c->got, sizeof(c->got), &len);

    if (status != BFT_NOT_FOUND && !dst_fine(c->w, status, "bft_txn_get"))
        return false;
    /* Its own changes count; so what it sees of a key is told only once. */
    for (unsigned i = 0; i < commit->count; i++)
        if (commit->change[i].key == k)
            return true;
    if (!dst_is_right(
            c, k,
            status == BFT_OK ? dst_value_id(k / DST_NUMBERS, c->got, len) : 0,
            dst_now_ms(c->w), "bft_txn_get"))
        return false;
    status = id ? bft_txn_put(txn, tree_of(c, k), key, value_of(c, k, id))
                : bft_txn_delete(txn, tree_of(c, k), key);
    if (status == BFT_TOO_BIG) /* all of them are more than it may keep */
        return true;
    if (!dst_fine(c->w, status, "bft_txn_put"))
        return false;
    dst_note(commit, k, id);
    return true;
}

static void op_txn(struct dst_client *c)
{
    struct dst_world *w = c->w;
    unsigned n = 1 + (unsigned)dst_draw(w, 6);
    bft_durability durability = draw_durability(c);
    struct dst_commit changes = {.count = 0}, *commit;
    bft_status status;
    uint64_t moment, lsn;
    bft_txn *txn;

    if (!dst_fine(w,
                  bft_txn_begin(w->db,
                                dst_chance(w, 2) ? BFT_SERIALIZABLE
                                                 : BFT_SNAPSHOT_ISOLATION,
                                &txn),
                  "bft_txn_begin"))
        return;
    while (n--)
        if (!txn_change(c, txn, draw_lasting(c), &changes)) {
            bft_txn_abort(txn);
            return;
        }
    if (dst_chance(w, 8)) {
        bft_txn_abort(txn);
        return;
    }
    commit = dst_begin(&w->oracle, c->number);
    memcpy(commit->change, changes.change, sizeof(changes.change));
    commit->count = changes.count;
    moment = commit->begun;
    tell_commit(c, "a transaction", commit, durability);
    status = bft_txn_commit(txn, durability, &lsn);
    if (status != BFT_CONFLICT) {
        end_commits(c, status, 1, moment, durability, "bft_txn_commit");
        return;
    }
    w->run->counts.conflicts++;
    end_refused(c, status);
}

/* Money from one account to another: nobody's keys, so nothing is noted. */
static void op_move_money(struct dst_client *c)
{
    struct dst_world *w = c->w;
    unsigned from = (unsigned)dst_draw(w, DST_ACCOUNTS);
    unsigned to =
        (from + 1 + (unsigned)dst_draw(w, DST_ACCOUNTS - 1)) % DST_ACCOUNTS;
    int64_t amount = (int64_t)dst_draw(w, 100);
    bft_txn *txn;
    bft_status status = bft_txn_begin(
        w->db, dst_chance(w, 2) ? BFT_SERIALIZABLE : BFT_SNAPSHOT_ISOLATION,
        &txn);

    if (!dst_fine(w, status, "bft_txn_begin"))
        return;
    dst_say(w, "%u: move %lld from %u to %u", c->number, (long long)amount,
            from, to);
    for (unsigned i = 0; i < 2; i++) {
        struct dst_account account = {0, 0};
        char buf[DST_KEY_BYTES];
        bft_slice key = dst_account_key(i ? to : from, buf);
        size_t len;

        status =
            bft_txn_get(txn, w->bank, key, &account, sizeof(account), &len);
        if (status == BFT_OK) {
            account.balance += i ? amount : -amount;
            account.version++;
            status = bft_txn_put(txn, w->bank, key,
                                 (bft_slice){&account, sizeof(account)});
        }
        if (!dst_fine(w, status, "bft_txn_get and bft_txn_put")) {
            bft_txn_abort(txn);
            return;
        }
    }
    status = bft_txn_commit(txn, draw_durability(c), NULL);
    w->run->counts.conflicts += status == BFT_CONFLICT;
    /* Failed, it may have been done or not: the sum is the same. */
    if (status != BFT_CONFLICT)
        (void)dst_fine(w, status, "bft_txn_commit");
}

/* --- many records ------------------------------------------------------------------ */

/* Of the tree in which it has a range of its own: all records that are removed are
 * one commit. */
static void op_delete_range(struct dst_client *c)
{
    struct dst_world *w = c->w;
    unsigned tree = 1, first = tree * DST_NUMBERS;
    unsigned low = first + (unsigned)dst_draw(w, w->oracle.numbers);
    unsigned high = low + 1 + (unsigned)dst_draw(w, w->oracle.numbers);
    char from[DST_KEY_BYTES], to[DST_KEY_BYTES];
    struct dst_commit *commit = NULL;
    size_t records = 0;
    uint64_t deleted = 0;
    bool counts = dst_draw(w, 2); /* else they go by and by */
    bft_status status;

    if (high > first + w->oracle.numbers)
        high = first + w->oracle.numbers;
    for (unsigned k = low; k < high; k++) {
        if (now_of(c, k) == 0)
            continue;
        if (!commit)
            commit = dst_begin(&w->oracle, c->number);
        dst_note(commit, k, 0);
        records++;
    }
    if (!commit)
        return;
    dst_say(w, "%u: delete the range of %zu records", c->number, records);
    status = bft_delete_range(w->tree[tree],
                              dst_key_at(c->number, tree, low - first, from),
                              dst_key_at(c->number, tree, high - first, to),
                              counts ? &deleted : NULL);
    if (status == BFT_OK && counts && deleted != records && !w->crashed)
        (void)dst_failure(w,
                          "client %u: %llu of %zu records of a range were "
                          "deleted",
                          c->number, (unsigned long long)deleted, records);
    end_commits(c, status, 1, commit->begun, BFT_DEFAULT, "bft_delete_range");
}

/* What is merged into that range: some keys of it. */
struct merging {
    struct dst_client *client;
    unsigned key, end; /* the next one, and the first that is not */
    size_t commits;
    uint64_t moment; /* when the first one began */
    char buf[DST_KEY_BYTES];
};

/* Each record is a commit, of when it is handed over. */
static bft_status next_merged(void *ctx, bft_bulk_record *record)
{
    struct merging *m = ctx;
    struct dst_client *c = m->client;
    struct dst_commit *commit;
    uint64_t expires, id;

    if (m->key >= m->end)
        return BFT_NOT_FOUND;
    id = draw_value(c, m->key, &expires);
    commit = dst_begin(&c->w->oracle, c->number);
    dst_note(commit, m->key, id);
    m->moment = m->commits++ == 0 ? commit->begun : m->moment;
    record->key = dst_key(c->number, m->key, m->buf);
    record->value = value_of(c, m->key, id);
    record->expires_ms = expires;
    m->key += 1 + (unsigned)dst_draw(c->w, 3);
    return BFT_OK;
}

static void op_merge(struct dst_client *c)
{
    struct dst_world *w = c->w;
    unsigned tree = 1, first = tree * DST_NUMBERS;
    struct merging m = {.client = c};
    uint64_t records = 0;
    bft_status status;

    m.key = first + (unsigned)dst_draw(w, w->oracle.numbers);
    m.end = m.key + 1 + (unsigned)dst_draw(w, w->oracle.numbers);
    if (m.end > first + w->oracle.numbers)
        m.end = first + w->oracle.numbers;
    dst_say(w, "%u: merge into the range from %u on", c->number, m.key - first);
    status = bft_bulk_merge(w->tree[tree], next_merged, &m, &records);
    if (status == BFT_OK && records != m.commits && !w->crashed)
        (void)dst_failure(w, "client %u: %llu of %zu records were merged",
                          c->number, (unsigned long long)records, m.commits);
    end_commits(c, status, m.commits, m.moment, BFT_DEFAULT, "bft_bulk_merge");
}

static void op_remove_expired(struct dst_client *c)
{
    bft_status status = bft_remove_expired(c->w->tree[DST_TTL_TREE], NULL);

    (void)dst_fine(c->w, status, "bft_remove_expired");
}

/* --- what makes durable --------------------------------------------------------------- */

static void op_sync(struct dst_client *c)
{
    struct dst_world *w = c->w;
    uint64_t moment = ++w->oracle.moment;

    dst_say(w, "%u: sync", c->number);
    if (dst_fine(w, bft_sync(w->db), "bft_sync") && !w->crashed)
        dst_survives(&w->oracle, moment, BFT_SYNC, (int)c->number);
}

static void op_checkpoint(struct dst_client *c)
{
    struct dst_world *w = c->w;
    uint64_t moment = ++w->oracle.moment;

    dst_say(w, "%u: checkpoint", c->number);
    if (dst_fine(w, bft_checkpoint(w->db), "bft_checkpoint") && !w->crashed)
        dst_survives(&w->oracle, moment, BFT_SYNC, (int)c->number);
}

static void op_verify(struct dst_client *c)
{
    dst_say(c->w, "%u: verify", c->number);
    (void)dst_verify(c->w, c->w->db, "bft_verify");
}

static void op_wait(struct dst_client *c)
{
    sched_sleep(c->w->s, dst_draw(c->w, 3000000));
}

/* --- which ------------------------------------------------------------------------ */

static const struct {
    unsigned weight;
    bool changes; /* what a client may have changed */
    void (*run)(struct dst_client *c);
} operations[] = {
    {24, true, op_put},
    {8, true, op_delete},
    {4, true, op_insert},
    {5, true, op_replace},
    {12, true, op_batch},
    {6, true, op_txn},
    {3, true, op_delete_range},
    {2, true, op_merge},
    {8, false, op_move_money},
    {1, false, op_remove_expired},
    {2, false, op_sync},
    {1, false, op_checkpoint},
    {1, false, op_verify},
    {2, false, op_wait},
    {16, false, dst_read_own},
    {3, false, dst_read_many},
    {3, false, dst_read_range},
    {4, false, dst_scan},
    {3, false, dst_take_snapshot},
    {5, false, dst_read_snapshot},
    {2, false, dst_drop_snapshot},
    {1, false, dst_backup},
};
enum { OPERATIONS = sizeof(operations) / sizeof(*operations) };

static void live_a_step(struct dst_client *c)
{
    unsigned sum = 0, drawn, i = 0;

    for (unsigned j = 0; j < OPERATIONS; j++)
        sum += operations[j].weight;
    for (drawn = (unsigned)dst_draw(c->w, sum); drawn >= operations[i].weight;
         i++)
        drawn -= operations[i].weight;
    c->roomy = c->w->roomy;
    if (c->roomy && c->stuck)
        dst_ask_again(c);
    if (operations[i].changes && c->stuck)
        return;
    c->w->run->counts.operations++;
    operations[i].run(c);
}

void dst_client_main(void *client)
{
    struct dst_client *c = client;

    while (c->left-- > 0 && !c->w->crashed) {
        live_a_step(c);
        sched_step(c->w->s, "between two operations");
    }
    dst_drop_snapshot(c);
}
