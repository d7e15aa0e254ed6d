/* The scan of a log whose frames are forged. */
#include "fuzz_inputs.h"
#include "target.h"

void target_run(const uint8_t *bytes, size_t len)
{
    unsigned frames;

    (void)bytes;
    (void)len;
    (void)fuzz_log(&frames);
}
