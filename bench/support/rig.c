/*
 * Clocks, random numbers, records and statistics of the benchmarks.
 *
 * The skew is the generator of Gray and others, "Quickly generating
 * billion-record synthetic databases" (SIGMOD 1994), as YCSB uses it; its ranks
 * are scattered over the records by a hash.
 */
#include "rig.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void rig_die(const char *format, ...)
{
    va_list args;

    fflush(stdout);
    fputs("bench: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

static void *must_allocate(size_t n, size_t size)
{
    void *memory = calloc(n, size);

    if (!memory)
        rig_die("out of memory");
    return memory;
}

/* --- clocks and random numbers ------------------------------------------- */

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;

    if (clock_gettime(clock, &now))
        rig_die("no clock");
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t rig_now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

uint64_t rig_cpu_ns(void)
{
    return clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

/* The finalizer of splitmix64. */
uint64_t rig_mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

uint64_t rig_random_next(struct rig_random *random)
{
    random->state += UINT64_C(0x9e3779b97f4a7c15);
    return rig_mix(random->state);
}

uint64_t rig_random_below(struct rig_random *random, uint64_t bound)
{
    /* The bias, below 2^-32 for our bounds, is of no account here. */
    return rig_random_next(random) % bound;
}

static double random_unit(struct rig_random *random)
{
    return (double)(rig_random_next(random) >> 11) * 0x1p-53;
}

void rig_pick_uniform(uint64_t seed, uint32_t n, uint32_t *picks, size_t count)
{
    struct rig_random random = {seed};

    for (size_t i = 0; i < count; i++)
        picks[i] = (uint32_t)rig_random_below(&random, n);
}

void rig_pick_zipf(uint64_t seed, uint32_t n, uint32_t *picks, size_t count)
{
    const double theta = 0.99, alpha = 1 / (1 - theta);
    const double zeta2 = 1 + pow(0.5, theta);
    struct rig_random random = {seed};
    double zeta = 0, eta;

    for (uint32_t i = 1; i <= n; i++)
        zeta += pow(1.0 / i, theta);
    eta = (1 - pow(2.0 / n, 1 - theta)) / (1 - zeta2 / zeta);
    for (size_t i = 0; i < count; i++) {
        double u = random_unit(&random), uz = u * zeta;
        uint64_t rank;

        if (uz < 1)
            rank = 0;
        else if (uz < zeta2)
            rank = 1;
        else
            rank = (uint64_t)(n * pow(eta * u - eta + 1, alpha));
        picks[i] = (uint32_t)(rig_mix(rank + 1) % n);
    }
}

void rig_shuffle(uint64_t seed, uint32_t n, uint32_t *picks)
{
    struct rig_random random = {seed};

    for (uint32_t i = 0; i < n; i++) {
        uint32_t j = (uint32_t)rig_random_below(&random, i + 1u);

        picks[i] = picks[j];
        picks[j] = i;
    }
}

/* --- records --------------------------------------------------------------- */

enum { NOISE = 1 << 20, NOISE_AT = 12 };

static int compare_numbers(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

    return (a > b) - (a < b);
}

void rig_records_make(struct rig_records *records, uint32_t n)
{
    struct rig_random random = {2026};

    if (n == 0)
        rig_die("no records");
    records->n = n;
    records->number = must_allocate(n, sizeof(*records->number));
    records->noise = must_allocate(1, NOISE);
    for (uint32_t i = 0; i < n; i++)
        records->number[i] = rig_mix(i + UINT64_C(1));
    qsort(records->number, n, sizeof(*records->number), compare_numbers);
    for (size_t i = 0; i < NOISE; i += 8) {
        uint64_t word = rig_random_next(&random);

        memcpy(records->noise + i, &word, 8);
    }
}

void rig_records_free(struct rig_records *records)
{
    free(records->number);
    free(records->noise);
}

void rig_key(uint64_t number, uint8_t key[RIG_KEY])
{
    memcpy(key, "bench:k/", 8);
    for (int i = 0; i < 8; i++)
        key[8 + i] = (uint8_t)(number >> (56 - 8 * i));
}

void rig_absent_key(const struct rig_records *records, uint32_t i,
                    uint8_t key[RIG_KEY])
{
    /* rig_mix is a bijection, and records are made from 1..n. */
    rig_key(rig_mix(records->n + UINT64_C(1) + i), key);
}

void rig_value(const struct rig_records *records, uint64_t number,
               uint64_t version, uint8_t value[RIG_VALUE])
{
    uint32_t at = (uint32_t)(rig_mix(number + version) % (NOISE - RIG_VALUE));

    memcpy(value, &number, 8);
    memcpy(value + 8, &at, 4);
    memcpy(value + NOISE_AT, records->noise + at, RIG_VALUE - NOISE_AT);
}

bool rig_value_begins(const uint8_t *key, const uint8_t *value,
                      size_t value_len)
{
    uint64_t number = 0, found;

    if (value_len != RIG_VALUE)
        return false;
    memcpy(&found, value, 8);
    for (int i = 0; i < 8; i++)
        number = number << 8 | key[8 + i];
    return found == number;
}

bool rig_value_fits(const struct rig_records *records, const uint8_t *key,
                    const uint8_t *value, size_t value_len)
{
    uint32_t at;

    if (!rig_value_begins(key, value, value_len))
        return false;
    memcpy(&at, value + 8, 4);
    return at < NOISE - RIG_VALUE &&
           memcmp(value + NOISE_AT, records->noise + at,
                  RIG_VALUE - NOISE_AT) == 0;
}

/* --- statistics ---------------------------------------------------------- */

static int compare_doubles(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;

    return (a > b) - (a < b);
}

double rig_median(const double *values, size_t n)
{
    double sorted[RIG_ROUNDS_MAX];

    if (n == 0 || n > RIG_ROUNDS_MAX)
        rig_die("a median of %zu values", n);
    memcpy(sorted, values, n * sizeof(*values));
    qsort(sorted, n, sizeof(*sorted), compare_doubles);
    return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

double rig_spread(const double *values, size_t n)
{
    double least = values[0], greatest = values[0];
    double median = rig_median(values, n);

    for (size_t i = 1; i < n; i++) {
        least = fmin(least, values[i]);
        greatest = fmax(greatest, values[i]);
    }
    return median > 0 ? (greatest - least) / median * 100 : 0;
}

const char *rig_short(double value, char text[16])
{
    if (value >= 1e6)
        snprintf(text, 16, "%.2fM", value / 1e6);
    else if (value >= 1e5)
        snprintf(text, 16, "%.0fk", value / 1e3);
    else if (value >= 1e3)
        snprintf(text, 16, "%.1fk", value / 1e3);
    else
        snprintf(text, 16, "%.0f", value);
    return text;
}
