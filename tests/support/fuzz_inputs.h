/*
 * What fuzzers do with one input, those that draw it themselves and libFuzzer's
 * targets alike.  Where an input is not bytes but random numbers, random_from()
 * makes it bytes again.
 */
#ifndef TEST_FUZZ_INPUTS_H
#define TEST_FUZZ_INPUTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "covalue_fixture.h"
#include "engine_fixture.h"

/* --- parsers of bytes: true if they took them, and all of it is of use ------- */

bool fuzz_run(const uint8_t *bytes, size_t len);
bool fuzz_node(const uint8_t *bytes, size_t len);
/* *RECORDS: that were read before the first that is none. */
bool fuzz_records(const uint8_t *bytes, size_t len, unsigned *records);
/* The frame of a deleted range, or of one that was cleared, in part. */
bool fuzz_range(const uint8_t *bytes, size_t len);
/* Deleted ranges as a catalogue's entry has them: how many there are. */
unsigned fuzz_pieces(const uint8_t *bytes, size_t len);
/* How many of the two parts of a key are there at its begin: what is read is what
 * its writing gives again. */
unsigned fuzz_key_parts(const uint8_t *bytes, size_t len);

/* --- rounds that random numbers decide ---------------------------------------- */

/* Scan a log of forged frames, some of them damaged.  *FRAMES: that it had. */
bft_status fuzz_log(unsigned *frames);
/* Apply forged changes to the store: all of them, or none. */
bft_status fuzz_packed(struct covalue_fixture *f);
/* Open a database with odd options, and use it: BFT_OK or BFT_INVALID. */
bft_status fuzz_options(void);

#endif
