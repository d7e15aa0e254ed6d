/*
 * Builds with planted faults: BFT_FAULT=NAME in the environment has one on from
 * the start of the program.
 */
#include "fileio/fault.h"

#ifdef BFT_FAULTS
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct planted {
    const char *name, *what;
    enum bfti_fault_number number;
};

static const struct planted planted[] = {
#define PLANTED(name, number, what) {#name, what, BFTI_FAULT_##name},
    BFTI_FAULT_MAP(PLANTED)
#undef PLANTED
};
enum { PLANTED_COUNT = sizeof(planted) / sizeof(planted[0]) };

/* Before main: no test need know of it. */
__attribute__((constructor)) static void plant(void)
{
    const char *name = getenv("BFT_FAULT"); /* NOLINT(concurrency-mt-unsafe) */
    size_t i = 0;

    if (name == NULL)
        return;
    while (i < PLANTED_COUNT && strcmp(planted[i].name, name) != 0)
        i++;
    if (i == PLANTED_COUNT) {
        fprintf(stderr, "BFT_FAULT=%s: there is no such fault\n", name);
        exit(2); /* NOLINT(concurrency-mt-unsafe): no other thread yet */
    }
    printf("planted: %s: %s\n", planted[i].name, planted[i].what);
    atomic_store(&bfti_fault, BFTI_FAULT_BIT(planted[i].number));
}
#endif
