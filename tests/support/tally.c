#include "tally.h"

#include <inttypes.h>
#include <stdio.h>

/* As levels.txt has them. */
static const char *const names[TALLIES] = {
    [TALLY_IMAGES] = "crash images",
    [TALLY_CUTS] = "crashes in recovery",
    [TALLY_POINTS] = "crashes at each step",
    [TALLY_SEQUENCES] = "crashed sequences",
    [TALLY_KILLS] = "kills",
    [TALLY_FAULTS] = "faults",
    [TALLY_FLIPS] = "bytes flipped",
    [TALLY_DAMAGED] = "damaged images",
    [TALLY_SEEDS] = "simulated seeds",
    [TALLY_OPERATIONS] = "model operations",
    [TALLY_COMPARED] = "operations compared",
    [TALLY_BACKUPS] = "backups compared",
    [TALLY_HISTORIES] = "histories",
    [TALLY_EXECUTIONS] = "fuzz executions",
    [TALLY_INTERLEAVINGS] = "interleavings",
    [TALLY_REMOVED] = "guards taken away",
    [TALLY_SOAK] = "soaked minutes",
    [TALLY_POWER_CUTS] = "power cuts",
};

void tally(enum tally what, uint64_t n)
{
    printf("tally: %" PRIu64 " %s\n", n, names[what]);
    (void)fflush(stdout);
}

void tally_is(enum tally what, uint64_t n)
{
    printf("tally: =%" PRIu64 " %s\n", n, names[what]);
    (void)fflush(stdout);
}
