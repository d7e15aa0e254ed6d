/* Histories as text, to be written by hand, printed, and read again. */
#include "linear_check.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[LINEAR_KINDS] = {
    "get",     "put",      "delete", "insert",   "exists",
    "replace", "conflict", "batch",  "snapshot", "commit",
};

/* --- reading -------------------------------------------------------------- */

static void skip_blanks(const char **at)
{
    while (**at == ' ' || **at == '\t')
        (*at)++;
}

static bool at_end(const char *at)
{
    return *at == '\0' || *at == '\n' || *at == ';';
}

/* A number, or - for NONE. */
static bool number(const char **at, uint64_t none, uint64_t *out)
{
    char *end;
    skip_blanks(at);
    if (**at == '-') {
        (*at)++;
        *out = none;
        return true;
    }
    if (!isdigit((unsigned char)**at))
        return false;
    *out = strtoull(*at, &end, 10);
    *at = end;
    return true;
}

static bool value_behind(const char **at, char sign, uint32_t *value)
{
    uint64_t n;
    if (**at != sign)
        return false;
    (*at)++;
    if (!number(at, LINEAR_ABSENT, &n))
        return false;
    *value = (uint32_t)n;
    return true;
}

static bool key_of(const char **at, unsigned *key)
{
    skip_blanks(at);
    if (**at < 'a' || **at >= 'a' + LINEAR_KEYS)
        return false;
    *key = (unsigned)(**at - 'a');
    (*at)++;
    return true;
}

static bool kind_of(const char **at, enum linear_kind *kind)
{
    skip_blanks(at);
    for (size_t i = 0; i < LINEAR_KINDS; i++) {
        size_t len = strlen(names[i]);
        if (strncmp(*at, names[i], len) != 0)
            continue;
        *kind = (enum linear_kind)i;
        *at += len;
        return true;
    }
    return false;
}

/* What a snapshot or a commit has of one key: what it read, what it sets. */
static bool read_seen(const char **at, struct linear_op *op)
{
    uint32_t value;
    unsigned key;
    bool any = false;
    if (!key_of(at, &key))
        return false;
    if (**at == '!') {
        (*at)++;
        op->torn |= 1u << key;
        return true;
    }
    if (value_behind(at, ':', &value)) {
        op->reads |= 1u << key;
        op->seen[key] = value;
        any = true;
    }
    if (op->kind == LINEAR_COMMIT && value_behind(at, '=', &value)) {
        linear_set(op, key, value);
        any = true;
    }
    return any;
}

/* What KIND has behind its name, for one key. */
static bool read_key(const char **at, struct linear_op *op)
{
    uint32_t value = LINEAR_ABSENT;
    bool compares = op->kind == LINEAR_REPLACE || op->kind == LINEAR_CONFLICT;
    if (op->kind == LINEAR_SNAPSHOT || op->kind == LINEAR_COMMIT)
        return read_seen(at, op);
    if (!key_of(at, &op->key))
        return false;
    if (compares && !value_behind(at, ':', &op->expected))
        return false;
    switch (op->kind) {
    case LINEAR_GET:
        return value_behind(at, '=', &op->expected);
    case LINEAR_EXISTS:
    case LINEAR_CONFLICT:
        return true;
    case LINEAR_DELETE:
        linear_set(op, op->key, LINEAR_ABSENT);
        return true;
    default:
        if (!value_behind(at, '=', &value))
            return false;
        linear_set(op, op->key, value);
        return true;
    }
}

static bool word(const char **at, const char *text)
{
    size_t len = strlen(text);
    skip_blanks(at);
    if (strncmp(*at, text, len) != 0)
        return false;
    *at += len;
    return true;
}

static bool read_times(const char **at, struct linear_op *op)
{
    return number(at, 0, &op->call) && number(at, LINEAR_NEVER, &op->end) &&
           op->call < op->end;
}

/* The end of a transaction; false: it goes on. */
static bool read_txn_end(const char **at, const struct linear_txn *txn,
                         struct linear_history *h, bool *bad)
{
    struct linear_op commit = {.call = 0};
    bool committed = word(at, "commit");
    if (!committed && !word(at, "conflict") && !word(at, "abort"))
        return false;
    *bad = committed &&
           (!read_times(at, &commit) || commit.call <= txn->begin.end);
    linear_txn_end(txn, committed, commit.call, commit.end, h);
    return true;
}

/* Behind its begin, which is in OP. */
static bool read_txn(const char **at, const struct linear_op *op,
                     bool serializable, struct linear_history *h)
{
    struct linear_txn txn;
    bool bad = false;
    linear_txn_begin(&txn, op->thread, serializable, op->call, op->end);
    while (!read_txn_end(at, &txn, h, &bad)) {
        unsigned key;
        uint32_t value;
        if (!key_of(at, &key))
            return false;
        if (value_behind(at, ':', &value))
            linear_txn_read(&txn, key, value);
        else if (value_behind(at, '=', &value))
            linear_txn_write(&txn, key, value);
        else
            return false;
    }
    return !bad;
}

static bool read_op(const char **at, struct linear_history *h)
{
    struct linear_op op;
    bool many;
    memset(&op, 0, sizeof(op));
    if (!isupper((unsigned char)**at))
        return false;
    op.thread = (unsigned)(*(*at)++ - 'A');
    if (!read_times(at, &op))
        return false;
    if (word(at, "txn"))
        return read_txn(at, &op, true, h);
    if (word(at, "isolated"))
        return read_txn(at, &op, false, h);
    if (!kind_of(at, &op.kind))
        return false;
    many = op.kind == LINEAR_BATCH || op.kind == LINEAR_SNAPSHOT ||
           op.kind == LINEAR_COMMIT;
    do {
        if (!read_key(at, &op))
            return false;
        skip_blanks(at);
    } while (many && !at_end(*at));
    linear_add(h, &op);
    return true;
}

static bool read_start(const char **at, struct linear_history *h)
{
    unsigned key;
    *at += strlen("start");
    skip_blanks(at);
    while (!at_end(*at)) {
        if (!key_of(at, &key) || !value_behind(at, '=', &h->start[key]))
            return false;
        skip_blanks(at);
    }
    return true;
}

bool linear_parse(struct linear_history *h, const char *text,
                  const char **where)
{
    *where = text;
    while (**where) {
        bool read = true;
        skip_blanks(where);
        if (strncmp(*where, "start", 5) == 0)
            read = read_start(where, h);
        else if (!at_end(**where ? *where : ""))
            read = read_op(where, h);
        skip_blanks(where);
        if (!read || !at_end(*where))
            return false;
        if (**where)
            (*where)++;
    }
    return true;
}

/* --- printing ------------------------------------------------------------- */

static void print_value(char sign, uint32_t value)
{
    if (value == LINEAR_ABSENT)
        fprintf(stderr, "%c-", sign);
    else
        fprintf(stderr, "%c%" PRIu32, sign, value);
}

static void print_keys(uint32_t keys, const uint32_t *value)
{
    for (unsigned key = 0; key < LINEAR_KEYS; key++)
        if (keys >> key & 1) {
            fprintf(stderr, " %c", 'a' + (int)key);
            print_value('=', value[key]);
        }
}

/* All that a snapshot or a commit has. */
static void print_seen(const struct linear_op *op)
{
    for (unsigned key = 0; key < LINEAR_KEYS; key++) {
        if (op->torn >> key & 1)
            fprintf(stderr, " %c!", 'a' + (int)key);
        if (((op->reads | op->writes) >> key & 1) == 0)
            continue;
        fprintf(stderr, " %c", 'a' + (int)key);
        if (op->reads >> key & 1)
            print_value(':', op->seen[key]);
        if (op->writes >> key & 1)
            print_value('=', op->value[key]);
    }
}

static void print_op(const struct linear_op *op)
{
    fprintf(stderr, "%c %" PRIu64, 'A' + (int)op->thread, op->call);
    if (op->end == LINEAR_NEVER)
        fprintf(stderr, " - %s", names[op->kind]);
    else
        fprintf(stderr, " %" PRIu64 " %s", op->end, names[op->kind]);
    if (op->kind == LINEAR_BATCH) {
        print_keys(op->writes, op->value);
    } else if (op->kind == LINEAR_SNAPSHOT || op->kind == LINEAR_COMMIT) {
        print_seen(op);
    } else {
        fprintf(stderr, " %c", 'a' + (int)op->key);
        if (op->kind == LINEAR_REPLACE || op->kind == LINEAR_CONFLICT)
            print_value(':', op->expected);
        if (op->kind == LINEAR_GET)
            print_value('=', op->expected);
        else if (op->writes && op->kind != LINEAR_DELETE)
            print_value('=', op->value[op->key]);
    }
    fprintf(stderr, "\n");
}

static int by_call(const void *a, const void *b)
{
    const struct linear_op *x = a, *y = b;
    if (x->call != y->call)
        return x->call < y->call ? -1 : 1;
    return x->thread < y->thread ? -1 : x->thread > y->thread;
}

void linear_print(const struct linear_history *h,
                  const struct linear_report *report)
{
    struct linear_op *sorted = malloc(h->count * sizeof(*sorted) + 1);
    if (!sorted)
        abort();
    if (h->count)
        memcpy(sorted, h->op, h->count * sizeof(*sorted));
    qsort(sorted, h->count, sizeof(*sorted), by_call);
    fprintf(stderr, "start");
    print_keys((1u << LINEAR_KEYS) - 1, h->start);
    fprintf(stderr, "\n");
    for (size_t i = 0; i < h->count; i++)
        print_op(&sorted[i]);
    free(sorted);
    if (!report)
        return;
    fprintf(stderr, "\nof %zu operations on keys", report->of);
    for (unsigned key = 0; key < LINEAR_KEYS; key++)
        if (report->keys >> key & 1)
            fprintf(stderr, " %c", 'a' + (int)key);
    fprintf(stderr, " at most these %zu can be ordered, so:\n",
            report->ordered);
    for (size_t i = 0; i < report->ordered; i++)
        print_op(&h->op[report->order[i]]);
    fprintf(stderr, "then the keys have");
    print_keys(report->keys, report->state);
    fprintf(stderr, "\n");
}
