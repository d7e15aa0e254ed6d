/* Histories as text, to be written by hand, printed, and read again. */
#include "linear_check.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[LINEAR_KINDS] = {
    "get", "put", "delete", "insert", "exists", "replace", "conflict", "batch",
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

/* What KIND has behind its name, for one key. */
static bool read_key(const char **at, struct linear_op *op)
{
    uint32_t value = LINEAR_ABSENT;
    bool compares = op->kind == LINEAR_REPLACE || op->kind == LINEAR_CONFLICT;
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

static bool read_op(const char **at, struct linear_history *h)
{
    struct linear_op op;
    memset(&op, 0, sizeof(op));
    if (!isupper((unsigned char)**at))
        return false;
    op.thread = (unsigned)(*(*at)++ - 'A');
    if (!number(at, 0, &op.call) || !number(at, LINEAR_NEVER, &op.end) ||
        op.call >= op.end || !kind_of(at, &op.kind))
        return false;
    do {
        if (!read_key(at, &op))
            return false;
        skip_blanks(at);
    } while (op.kind == LINEAR_BATCH && !at_end(*at));
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

static void print_op(const struct linear_op *op)
{
    fprintf(stderr, "%c %" PRIu64, 'A' + (int)op->thread, op->call);
    if (op->end == LINEAR_NEVER)
        fprintf(stderr, " - %s", names[op->kind]);
    else
        fprintf(stderr, " %" PRIu64 " %s", op->end, names[op->kind]);
    if (op->kind == LINEAR_BATCH) {
        print_keys(op->writes, op->value);
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
