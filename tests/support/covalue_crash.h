/*
 * The covalue store on a simulated disk that loses its power, or its program,
 * before every single step of a workload: messages stored with and without a
 * sync, and an erasure of many batches.
 *
 * Like the checks of covalue_checks.h these return NULL, or what was wrong.
 */
#ifndef COVALUE_CRASH_H
#define COVALUE_CRASH_H

/* Of every message all rows are there or none, the messages that are there are
 * the first ones, and an erasure happened or did not. */
const char *every_crash_leaves_whole_transactions(void);
/* What was acknowledged as synced is there, and after a mere kill all that was
 * acknowledged. */
const char *what_was_synced_survives_every_crash(void);

#endif
