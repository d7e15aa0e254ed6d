/* Odd options. */
#include "fuzz_inputs.h"
#include "target.h"

void target_run(const uint8_t *bytes, size_t len)
{
    (void)bytes;
    (void)len;
    (void)fuzz_options();
}
