/* Calls, good and odd, against a model. */
#include "api_fuzz.h"
#include "target.h"

enum { CALLS = 300 };

void target_run(const uint8_t *bytes, size_t len)
{
    (void)bytes;
    (void)len;
    api_life(CALLS, random_left);
}
