/* The parsers of runs, inner nodes, log records, deleted ranges and keys: which of
 * them the first byte says, the others are what is parsed. */
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "buffer/buffer.h"
#include "fuzz_inputs.h"
#include "target.h"

enum { RANGES = 254 };

void target_run(const uint8_t *bytes, size_t len)
{
    unsigned records;
    uint8_t *exact;

    if (len == 0)
        return;
    exact = malloc(--len ? len : 1);
    assert_non_null(exact);
    memcpy(exact, bytes + 1, len);
    /* Those that came later have bytes of their own, so that each input stays what
     * it is. */
    switch (bytes[0] >= RANGES ? bytes[0] : bytes[0] % 5) {
    case RANGES:
        (void)fuzz_range(exact, len);
        break;
    case RANGES + 1:
        (void)fuzz_pieces(exact, len);
        break;
    case 0: /* of the length that it has */
        if (len >= sizeof(struct bfti_run))
            ((struct bfti_run *)exact)->bytes = le32_of((uint32_t)len);
        (void)fuzz_run(exact, len);
        break;
    case 1:
        (void)fuzz_run(exact, len);
        break;
    case 2:
        (void)fuzz_node(exact, len);
        break;
    case 3:
        (void)fuzz_records(exact, len, &records);
        break;
    default:
        (void)fuzz_key_parts(exact, len);
    }
    free(exact);
}
