/* One of libFuzzer's targets: what it does with an input. */
#ifndef FUZZ_TARGET_H
#define FUZZ_TARGET_H

#include <stddef.h>
#include <stdint.h>

/* Random numbers are made of the input, see random_from(). */
void target_run(const uint8_t *bytes, size_t len);

/* What libFuzzer calls. */
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

#endif
