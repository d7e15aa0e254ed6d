/*
 * What the suite `power` writes into a database: lives of one thread's random
 * commits, of a seed alone, so that who was not there can tell what each commit
 * did.  A life ends with a close or with a kill.
 */
#ifndef POWER_LIFE_H
#define POWER_LIFE_H

#include <stdint.h>

#include "bftree.h"
#include "crash_oracle.h"

struct power {
    struct crash_oracle *oracle;
    uint64_t rng;
    unsigned lives, steps; /* lives lived; commits and so on of each, about */
    const char *dir;       /* of the database; NULL: nobody is there */
    int marks;             /* where marks go */
    bft_options options;
    bft_db *db;
    bft_tree *tree[CRASH_TREES];
    uint8_t *value;
};

void power_begin(struct power *p, uint64_t seed, unsigned steps);
void power_end(struct power *p);
/* Live one life, in DIR, or only in the oracle when that is NULL.  True: it was
 * to end with a kill, and where there is a database it is open.  A call that
 * fails ends the process with status 3. */
bool power_live(struct power *p);
/* Note LETTER and NUMBER in the log. */
void power_mark(const struct power *p, char letter, uint64_t number);

/* How they are opened, by whomever.  The backend is the caller's choice. */
bft_options power_options(uint64_t *rng);

#endif
