/* What all of libFuzzer's targets share. */
#include "target.h"

#include <stdlib.h>

#include "random.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    /* What an assertion of cmocka does outside its tests. */
    return setenv("CMOCKA_TEST_ABORT", "1", 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    random_from(bytes, len);
    target_run(bytes, len);
    return 0;
}
