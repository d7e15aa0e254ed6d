/* Arguments of calls, good and odd, and what a call may answer to them. */
#include "api_fuzz.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

const char *const api_tree_name[API_TREES] = {"small", "usual",
                                              "comes and goes"};
const uint32_t api_leaf_bytes[API_TREES] = {512, 4096, 1024};
uint8_t api_bytes[API_BYTES];
struct api_reached api_reached;

void api_blame(struct allowed *a, bft_status status)
{
    a->mask |= 1u << -(int)status;
    a->odd = true;
}

/* True when STATUS is BFT_OK. */
bool api_judge(struct allowed a, bft_status good, bft_status status,
               const char *call)
{
    char text[300];

    if (!a.odd)
        a.mask = 1u << -(int)good;
    if (!(a.mask >> -(int)status & 1)) {
        bft_last_error(text, sizeof(text));
        fuzz_fail("%s gave %d, of %#x: %s", call, (int)status, a.mask, text);
    }
    if (status != BFT_OK && status != BFT_NOT_FOUND) {
        fuzz_assert(bft_last_error(text, sizeof(text)) > 0 && text[0]);
        api_reached.of[-(int)status]++;
    }
    api_reached.good += !a.odd;
    api_reached.odd += a.odd;
    return status == BFT_OK;
}

/* --- arguments ------------------------------------------------------------ */

struct tree_arg api_any_tree(struct life *life, struct allowed *a)
{
    struct tree_arg arg = {NULL, (unsigned)random_below(API_TREES)};

    switch (random_below(40)) {
    case 0:
        api_blame(a, BFT_INVALID);
        return arg;
    case 1:
        if (!life->dropped)
            break;
        arg = (struct tree_arg){life->dropped, 2};
        api_blame(a, BFT_GONE);
        return arg;
    case 2:
        arg.handle = life->closed;
        api_blame(a, BFT_INVALID);
        return arg;
    }
    arg.handle = life->tree[arg.t];
    if (!arg.handle)
        arg.handle = life->tree[arg.t = 0];
    return arg;
}

/* LEAF: bytes of the leaves that are to hold it; 0: it is only looked for. */
bft_slice api_any_key(struct allowed *a, uint32_t leaf, char *buf)
{
    size_t len = 0;

    switch (random_below(40)) {
    case 0:
        api_blame(a, BFT_INVALID);
        return (bft_slice){NULL, random_below(2) * 5};
    case 1:
        api_blame(a, BFT_INVALID);
        return (bft_slice){buf, 0};
    case 2: /* lengths near the largest number, for sums that wrap around */
        api_blame(a, BFT_TOO_BIG);
        return (bft_slice){api_bytes, SIZE_MAX - random_below(40000)};
    case 3:
        len = 100 + random_below(60);
        break;
    case 4:
        len = BFT_KEY_MAX - 1 + random_below(4);
        break;
    }
    if (len == 0) {
        int n = snprintf(buf, 32, "key %u", (unsigned)random_below(API_KEYS));
        return (bft_slice){buf, (size_t)n};
    }
    if (len > BFT_KEY_MAX || (leaf && len > leaf / 4))
        api_blame(a, BFT_TOO_BIG);
    return (bft_slice){api_bytes, len};
}

bft_slice api_any_value(struct life *life, struct allowed *a,
                        struct model_value *value)
{
    *value = (struct model_value){++life->number, random_below(50)};
    switch (random_below(40)) {
    case 0:
        api_blame(a, BFT_INVALID);
        return (bft_slice){NULL, 5};
    case 1:
        api_blame(a, BFT_TOO_BIG);
        return (bft_slice){api_bytes, SIZE_MAX - random_below(40000)};
    case 2:
        value->len = random_below(12000);
        break;
    case 3:
        value->len = 0;
        return (bft_slice){NULL, 0};
    }
    static uint8_t room[12000];
    model_value_bytes(*value, 0, room, (size_t)value->len);
    return (bft_slice){room, (size_t)value->len};
}

/* As api_any_tree(), or of another database. */
struct tree_arg api_any_tree_at_all(struct life *life, struct allowed *a)
{
    if (random_below(30))
        return api_any_tree(life, a);
    api_blame(a, BFT_INVALID);
    return (struct tree_arg){life->foreign, 0};
}

bft_slice api_any_bound(struct allowed *a, char *buf)
{
    struct allowed own = {0, false};
    bft_slice bound = api_any_key(&own, 0, buf);

    if (bound.len == 0)
        return bound; /* no bound */
    if (!bound.data)
        api_blame(a, BFT_INVALID);
    else if (bound.len > BFT_KEY_MAX)
        api_blame(a, BFT_TOO_BIG);
    return bound;
}

void api_expect_value(const struct model_value *want, uint64_t at,
                      const void *buf, size_t len)
{
    if (!want || !model_value_is(*want, at, buf, len))
        fuzz_fail("%zu bytes that are not the value", len);
}

void api_expect_len(struct allowed a, const struct model_value *want,
                    size_t len)
{
    size_t expected = !a.odd && want ? (size_t)want->len : 0;
    if (len != expected)
        fuzz_fail("a length of %zu, not %zu", len, expected);
}

void api_expect_whole(const struct model_value *want, const void *buf,
                      size_t len)
{
    if (!want || want->len != len)
        fuzz_fail("%zu bytes, which is not the value's length", len);
    api_expect_value(want, 0, buf, len);
}
