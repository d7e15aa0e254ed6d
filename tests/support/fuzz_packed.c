/* Forged changes for the covalue store. */
#include "fuzz_inputs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fuzz.h"
#include "random.h"

static size_t pack_op(uint8_t *to, unsigned covalues)
{
    uint8_t kind = (uint8_t)(1 + random_below(9)), id[16], value[40];
    size_t id_len = random_below(8) ? 3 : random_below(16);
    size_t value_len = random_below(40), at = 24;
    bool more = kind == BFT_OP_SESSION || kind == BFT_OP_LOCK;
    le64 number[5];

    memset(id, 'a' + (int)random_below(5), sizeof(id));
    memset(value, 'v', sizeof(value));
    to[0] = kind;
    to[1] = (uint8_t)(random_below(3) ? 0 : random_below(16));
    to[2] = (uint8_t)id_len;
    to[3] = 0;
    le32 len = le32_of((uint32_t)value_len);
    memcpy(to + 4, &len, 4);
    for (unsigned i = 0; i < 5; i++)
        number[i] = le64_of(random_below(12) ? random_below(covalues + 2)
                                             : random_next());
    memcpy(to + 8, number, 16);
    if (more) {
        memcpy(to + at, number + 2, 24);
        at += 24;
    }
    memcpy(to + at, id, id_len);
    memcpy(to + at + id_len, value, value_len);
    return at + id_len + value_len;
}

bft_status fuzz_packed(struct covalue_fixture *f)
{
    uint8_t packed[20 * 120];
    size_t len = 0;
    uint64_t rows[8], before = bft_covalue_changes(f->store);
    uint64_t count = bft_covalue_count(f->store);
    bft_covalue_applied applied;
    uint8_t *bytes;
    bft_status status;

    for (size_t n = 1 + random_below(random_below(4) ? 2 : 18); n > 0; n--)
        len += pack_op(packed + len, (unsigned)count);
    if (random_below(2)) {
        bytes = fuzz_damaged_copy(packed, &len);
    } else {
        bytes = malloc(len ? len : 1);
        assert_non_null(bytes);
        memcpy(bytes, packed, len);
    }
    status = bft_covalue_apply_packed(f->store, bytes, len, BFT_DEFAULT, rows,
                                      random_below(9), &applied);
    free(bytes);
    if (status == BFT_OK)
        return status;
    fuzz_assert(status == BFT_INVALID || status == BFT_EXISTS ||
                status == BFT_NOT_FOUND || status == BFT_CONFLICT ||
                status == BFT_TOO_BIG);
    fuzz_assert(bft_covalue_changes(f->store) == before);
    fuzz_assert(bft_covalue_count(f->store) == count);
    fuzz_assert(applied.lsn == 0);
    return status;
}
