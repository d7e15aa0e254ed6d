/*
 * The search.  A configuration is a set of operations that have been ordered and
 * the values that the keys have after them.  The next may be any operation whose
 * call is not behind the end of one that is still to come (Wing and Gong).  A
 * configuration that was reached before is not gone on from again (Lowe).
 *
 * Differences: an operation that changes nothing, and answers as the keys are,
 * is ordered as soon as it may be.  That needs no second way: in any order that
 * goes on from here it could be moved to the front, since nobody would notice.
 * So only writes branch.  And operations of many keys join these keys into one
 * object; objects are judged one by one.
 */
#include "linear_check.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    SET_WORDS = LINEAR_OPS_MAX / 64,
    TRIED_MAX = 1 << 18, /* configurations of an object; then it gives up */
    TRIED_MIN = 64,
};

struct configuration {
    uint64_t done[SET_WORDS]; /* by place in the search's order */
    uint32_t state[LINEAR_KEYS];
};

struct frame {
    struct configuration at;
    size_t next;    /* the place to try from */
    size_t ordered; /* so many */
};

struct search {
    const struct linear_history *h;
    size_t
        place[LINEAR_OPS_MAX]; /* of the object's operations, by their call */
    size_t count;
    size_t words; /* of the sets */
    uint32_t keys;
    size_t order[LINEAR_OPS_MAX];
    struct frame *stack;
    size_t depth;
    struct configuration *tried; /* hashed; the slots that are used say so */
    bool *used;
    size_t tried_count, tried_cap;
    struct linear_report *report;
};

static void *take(size_t count, size_t bytes)
{
    void *memory = calloc(count, bytes);
    if (!memory)
        abort();
    return memory;
}

void linear_init(struct linear_history *h)
{
    memset(h, 0, sizeof(*h));
}

void linear_free(struct linear_history *h)
{
    free(h->op);
    linear_init(h);
}

void linear_add(struct linear_history *h, const struct linear_op *op)
{
    if (h->count == h->cap) {
        size_t cap = h->cap ? h->cap * 2 : 64;
        struct linear_op *grown = realloc(h->op, cap * sizeof(*grown));
        if (!grown)
            abort();
        h->op = grown;
        h->cap = cap;
    }
    h->op[h->count++] = *op;
}

void linear_set(struct linear_op *op, unsigned key, uint32_t value)
{
    assert(key < LINEAR_KEYS);
    op->writes |= 1u << key;
    op->value[key] = value;
}

/* --- operations ----------------------------------------------------------- */

static uint32_t keys_of(const struct linear_op *op)
{
    bool many = op->kind == LINEAR_BATCH || op->kind == LINEAR_SNAPSHOT ||
                op->kind == LINEAR_COMMIT;
    return many ? op->writes | op->reads | op->torn : 1u << op->key;
}

static bool has_seen(const struct linear_op *op, const uint32_t *state)
{
    for (unsigned key = 0; key < LINEAR_KEYS; key++)
        if (op->reads >> key & 1 && state[key] != op->seen[key])
            return false;
    return !op->torn;
}

/* Would it have answered as it did? */
static bool answers(const struct linear_op *op, const uint32_t *state)
{
    switch (op->kind) {
    case LINEAR_GET:
    case LINEAR_REPLACE:
        return state[op->key] == op->expected;
    case LINEAR_INSERT:
        return state[op->key] == LINEAR_ABSENT;
    case LINEAR_EXISTS:
        return state[op->key] != LINEAR_ABSENT;
    case LINEAR_CONFLICT:
        return state[op->key] != op->expected;
    case LINEAR_SNAPSHOT:
    case LINEAR_COMMIT:
        return has_seen(op, state);
    case LINEAR_PUT:
    case LINEAR_DELETE:
    case LINEAR_BATCH:
        break;
    }
    return true;
}

static void apply(const struct linear_op *op, uint32_t *state)
{
    for (unsigned key = 0; key < LINEAR_KEYS; key++)
        if (op->writes >> key & 1)
            state[key] = op->value[key];
}

static const struct linear_op *op_at(const struct search *s, size_t i)
{
    return &s->h->op[s->place[i]];
}

/* --- what was tried ------------------------------------------------------- */

static uint64_t hash_of(const struct search *s, const struct configuration *c)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < s->words; i++)
        hash = (hash ^ c->done[i]) * 0x9e3779b97f4a7c15u, hash ^= hash >> 29;
    for (size_t i = 0; i < LINEAR_KEYS; i++)
        hash = (hash ^ c->state[i]) * 0x9e3779b97f4a7c15u, hash ^= hash >> 32;
    return hash;
}

/* The slot of C, or where it would be. */
static size_t slot_of(const struct search *s, const struct configuration *c)
{
    size_t i = (size_t)hash_of(s, c) & (s->tried_cap - 1);
    while (s->used[i] && memcmp(&s->tried[i], c, sizeof(*c)) != 0)
        i = (i + 1) & (s->tried_cap - 1);
    return i;
}

static void tried_grow(struct search *s)
{
    struct configuration *old = s->tried;
    bool *used = s->used;
    size_t cap = s->tried_cap;
    s->tried_cap = cap ? cap * 2 : TRIED_MIN;
    s->tried = take(s->tried_cap, sizeof(*s->tried));
    s->used = take(s->tried_cap, sizeof(*s->used));
    for (size_t i = 0; i < cap; i++)
        if (used[i]) {
            size_t slot = slot_of(s, &old[i]);
            s->tried[slot] = old[i];
            s->used[slot] = true;
        }
    free(old);
    free(used);
}

/* Note C; false: it was there. */
static bool is_new(struct search *s, const struct configuration *c)
{
    size_t slot;
    if (s->tried_count * 2 >= s->tried_cap)
        tried_grow(s);
    slot = slot_of(s, c);
    if (s->used[slot])
        return false;
    s->tried[slot] = *c;
    s->used[slot] = true;
    s->tried_count++;
    return true;
}

/* --- the search ----------------------------------------------------------- */

static bool is_done(const struct configuration *c, size_t i)
{
    return c->done[i / 64] >> i % 64 & 1;
}

/* The earliest end of those that are not done; what is called behind it has to
 * wait.  *LEFT: one of them has an end. */
static uint64_t earliest_end(const struct search *s,
                             const struct configuration *c, bool *left)
{
    uint64_t end = LINEAR_NEVER;
    for (size_t i = 0; i < s->count && op_at(s, i)->call <= end; i++)
        if (!is_done(c, i) && op_at(s, i)->end < end)
            end = op_at(s, i)->end;
    *left = end != LINEAR_NEVER;
    return end;
}

static void do_next(struct search *s, struct frame *f, size_t i)
{
    apply(op_at(s, i), f->at.state);
    f->at.done[i / 64] |= (uint64_t)1 << i % 64;
    s->order[f->ordered++] = s->place[i];
}

/* Order what changes nothing and may be next, as long as there is such.  False:
 * nothing with an end is left, and all is in order. */
static bool do_reads(struct search *s, struct frame *f)
{
    bool left, more = true;
    while (more) {
        uint64_t end = earliest_end(s, &f->at, &left);
        more = false;
        for (size_t i = 0; left && i < s->count && op_at(s, i)->call <= end;
             i++) {
            const struct linear_op *op = op_at(s, i);
            if (op->writes || is_done(&f->at, i) || !answers(op, f->at.state))
                continue;
            do_next(s, f, i);
            more = true;
        }
    }
    return left;
}

/* The next write that F may go on with, from F->next: s->count when none. */
static size_t next_write(const struct search *s, struct frame *f)
{
    bool left;
    uint64_t end = earliest_end(s, &f->at, &left);
    for (size_t i = f->next; i < s->count && op_at(s, i)->call <= end; i++)
        if (!is_done(&f->at, i) && op_at(s, i)->writes &&
            answers(op_at(s, i), f->at.state)) {
            f->next = i + 1;
            return i;
        }
    return s->count;
}

static void note_best(struct search *s, const struct frame *f)
{
    struct linear_report *r = s->report;
    if (r->keys == s->keys && f->ordered <= r->ordered)
        return;
    r->keys = s->keys;
    r->ordered = f->ordered;
    r->of = s->count;
    memcpy(r->order, s->order, f->ordered * sizeof(*s->order));
    memcpy(r->state, f->at.state, sizeof(r->state));
}

static enum linear_verdict run(struct search *s)
{
    struct frame *f = &s->stack[0];
    memset(f, 0, sizeof(*f));
    memcpy(f->at.state, s->h->start, sizeof(f->at.state));
    s->depth = 1;
    /* Ends: each round adds a configuration, or drops one for good. */
    while (s->depth) {
        size_t i;
        f = &s->stack[s->depth - 1];
        if (f->next == 0) {
            if (!do_reads(s, f))
                return LINEAR_YES;
            note_best(s, f);
            if (!is_new(s, &f->at)) {
                s->depth--;
                continue;
            }
            if (s->tried_count > TRIED_MAX)
                return LINEAR_UNDECIDED;
        }
        i = next_write(s, f);
        if (i == s->count) {
            s->depth--;
            continue;
        }
        s->stack[s->depth] = *f;
        s->stack[s->depth].next = 0;
        do_next(s, &s->stack[s->depth++], i);
    }
    return LINEAR_NO;
}

/* --- objects -------------------------------------------------------------- */

/* Which keys are one object with KEY? */
static uint32_t object_of(const struct linear_history *h, unsigned key)
{
    uint32_t keys = 1u << key, before = 0;
    while (keys != before) {
        before = keys;
        for (size_t i = 0; i < h->count; i++)
            if (keys_of(&h->op[i]) & keys)
                keys |= keys_of(&h->op[i]);
    }
    return keys;
}

static int by_call(const void *a, const void *b)
{
    const struct linear_op *x = *(const struct linear_op *const *)a;
    const struct linear_op *y = *(const struct linear_op *const *)b;
    if (x->call != y->call)
        return x->call < y->call ? -1 : 1;
    return x < y ? -1 : 1;
}

/* Places of the operations on any of KEYS, by their call, into PLACE. */
static size_t sorted_places(const struct linear_history *h, uint32_t keys,
                            size_t *place)
{
    const struct linear_op *sorted[LINEAR_OPS_MAX];
    size_t count = 0;
    for (size_t i = 0; i < h->count; i++)
        if (keys_of(&h->op[i]) & keys)
            sorted[count++] = &h->op[i];
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers */
    qsort(sorted, count, sizeof(*sorted), by_call);
    for (size_t i = 0; i < count; i++)
        place[i] = (size_t)(sorted[i] - h->op);
    return count;
}

static enum linear_verdict check_object(const struct linear_history *h,
                                        uint32_t keys,
                                        struct linear_report *report)
{
    enum linear_verdict verdict;
    struct search *s = take(1, sizeof(*s));
    s->h = h;
    s->keys = keys;
    s->report = report;
    s->count = sorted_places(h, keys, s->place);
    s->words = (s->count + 63) / 64;
    s->stack = take(s->count + 1, sizeof(*s->stack));
    report->keys = 0;
    verdict = run(s);
    report->tried += s->tried_count;
    free(s->stack);
    free(s->tried);
    free(s->used);
    free(s);
    return verdict;
}

enum linear_verdict linear_check(const struct linear_history *h,
                                 struct linear_report *report)
{
    struct linear_report *own = take(1, sizeof(*own));
    enum linear_verdict verdict = LINEAR_YES;
    uint32_t seen = 0;
    assert(h->count <= LINEAR_OPS_MAX);
    for (unsigned key = 0; verdict == LINEAR_YES && key < LINEAR_KEYS; key++) {
        uint32_t keys;
        if (seen >> key & 1)
            continue;
        keys = object_of(h, key);
        verdict = check_object(h, keys, own);
        seen |= keys;
    }
    if (report)
        *report = *own;
    free(own);
    return verdict;
}
