/* Packed changes of the covalue store: those of the input itself, or forged as it
 * says. */
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fuzz.h"
#include "fuzz_inputs.h"
#include "random.h"
#include "target.h"

enum { ROUNDS = 20 };

/* A store that has something to find; one input's. */
static struct covalue_fixture *make(void)
{
    struct covalue_fixture *f = covalue_fixture_open_memory();

    (void)cv_make_covalue(f, "aaa", "bbb", 3);
    return f;
}

void target_run(const uint8_t *bytes, size_t len)
{
    struct covalue_fixture *f = make();
    uint64_t rows[8];
    bft_covalue_applied applied;

    if (random_below(2) && len > 0) {
        uint8_t *exact = malloc(len - 1 ? len - 1 : 1);
        assert_non_null(exact);
        memcpy(exact, bytes + 1, len - 1);
        (void)bft_covalue_apply_packed(f->store, exact, len - 1, BFT_DEFAULT,
                                       rows, 8, &applied);
        free(exact);
    } else {
        for (unsigned i = 0; i < ROUNDS && random_left(); i++)
            (void)fuzz_packed(f);
    }
    covalue_fixture_close(f);
}
