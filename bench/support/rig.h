/*
 * What the benchmark programs share: clocks, random numbers, the records that
 * every engine is given, statistics, the machine, and the files of results.
 *
 * A benchmark has nothing to save when something goes wrong: whatever fails
 * here says why on stderr and ends the program.
 */
#ifndef RIG_H
#define RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

void rig_die(const char *format, ...)
    __attribute__((noreturn, format(printf, 1, 2)));

/* --- clocks and random numbers ------------------------------------------- */

uint64_t rig_now_ns(void); /* monotonic */
uint64_t rig_cpu_ns(void); /* of this process, all threads, kernel included */

struct rig_random {
    uint64_t state;
};
uint64_t rig_random_next(struct rig_random *random);
/* Below BOUND, which is at least 1. */
uint64_t rig_random_below(struct rig_random *random, uint64_t bound);
/* A bijection of 64-bit numbers without visible order. */
uint64_t rig_mix(uint64_t x);

/* COUNT positions below N; zipf: skewed like YCSB's scrambled zipfian, 0.99. */
void rig_pick_uniform(uint64_t seed, uint32_t n, uint32_t *picks, size_t count);
void rig_pick_zipf(uint64_t seed, uint32_t n, uint32_t *picks, size_t count);
/* The positions 0..N-1 in random order. */
void rig_shuffle(uint64_t seed, uint32_t n, uint32_t *picks);

/* --- records --------------------------------------------------------------- */

enum { RIG_KEY = 16, RIG_VALUE = 100 };

/* N keys in ascending order: 8 constant bytes and a scrambled number. */
struct rig_records {
    uint32_t n;
    uint64_t *number; /* ascending */
    uint8_t *noise;   /* incompressible; values are cut from it */
};
void rig_records_make(struct rig_records *records, uint32_t n);
void rig_records_free(struct rig_records *records);
void rig_key(uint64_t number, uint8_t key[RIG_KEY]);
/* A key that no record has, from the same range. */
void rig_absent_key(const struct rig_records *records, uint32_t i,
                    uint8_t key[RIG_KEY]);
/* The value of record NUMBER in its VERSION: number, place in the noise, noise. */
void rig_value(const struct rig_records *records, uint64_t number,
               uint64_t version, uint8_t value[RIG_VALUE]);
/* Is VALUE a whole value of KEY, in any version? */
bool rig_value_fits(const struct rig_records *records, const uint8_t *key,
                    const uint8_t *value, size_t value_len);
/* Cheaper: is it one by its first bytes? */
bool rig_value_begins(const uint8_t *key, const uint8_t *value,
                      size_t value_len);

/* --- statistics ---------------------------------------------------------- */

enum { RIG_ROUNDS_MAX = 32 };

double rig_median(const double *values, size_t n); /* n at most ROUNDS_MAX */
/* (greatest - least) / median, in percent. */
double rig_spread(const double *values, size_t n);
/* 1234567 -> "1.23M", in a buffer of 16 bytes. */
const char *rig_short(double value, char text[16]);

/* --- the machine and the results ----------------------------------------- */

/* Lines about processor, memory, kernel, the file system of DIR, compiler. */
void rig_machine(FILE *to, const char *dir);

struct rig_cell {
    const char *bench, *setting, *workload, *engine, *metric, *config;
    unsigned threads;
    const double *rounds;
    size_t n;
    const char *reason; /* why there is no figure, when N is 0 */
};
/* One JSON line; the value is the median, or null beside the reason. */
void rig_json(FILE *to, const struct rig_cell *cell);

/* The file of them, DIR/BENCH.jsonl, made anew; the second says where it is. */
FILE *rig_results(const char *dir, const char *bench);
void rig_results_written(FILE *results, const char *dir, const char *bench);

static inline double rig_mib(uint64_t bytes)
{
    return (double)bytes / (1 << 20);
}

/* Resident bytes of this process; pages of files, which the mapped log is too,
 * apart: the system takes those back as it likes. */
struct rig_memory {
    uint64_t anonymous, file;
};
struct rig_memory rig_look(void);

/* Have nothing of DIR's files in memory.  Returns by what: the whole cache was
 * dropped, or, where that is not allowed or not WHOLE, the files' pages. */
const char *rig_drop_cache(const char *dir, bool whole);

/* Make DIR, and the folders above it. */
void rig_make_dir(const char *dir);
/* Remove DIR with the files and folders in it; none is fine. */
void rig_remove_dir(const char *dir);

#ifdef __cplusplus
}
#endif

#endif
