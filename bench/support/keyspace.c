/*
 * Keys, values, orders and draws by computing.
 *
 * The skew is the generator of Gray, Sundaresan, Englert, Baclawski and
 * Weinberger, "Quickly generating billion-record synthetic databases" (SIGMOD
 * 1994), as YCSB's ZipfianGenerator has it (Cooper and others, "Benchmarking
 * cloud serving systems with YCSB", SoCC 2010), with its constant 0.99; ranks
 * are scattered over the records by a hash, as in ScrambledZipfianGenerator.
 * The shuffle is a Feistel network of four rounds on the next larger even
 * number of bits, walked until it lands below n (Black and Rogaway, "Ciphers
 * with arbitrary finite domains", CT-RSA 2002).
 */
#include "keyspace.h"

#include <math.h>
#include <stdlib.h>

#define THETA 0.99

enum { NOISE = 1 << 20, NOISE_AT = 12, TAIL = 8 };

static unsigned feistel_bits(uint64_t n)
{
    unsigned bits = 0;

    while (UINT64_C(1) << (2 * bits) < n)
        bits++;
    return bits;
}

void keyspace_make(struct keyspace *space, uint64_t n, size_t value_len)
{
    struct rig_random random = {2026};

    if (n < 2 || value_len > PEER_VALUE_MAX || value_len < NOISE_AT + TAIL)
        rig_die("no records of that kind");
    *space = (struct keyspace){
        .n = n, .value_len = value_len, .feistel_bits = feistel_bits(n)};
    space->part = (UINT64_MAX / n) & ~UINT64_C(3);
    space->alpha = 1 / (1 - THETA);
    space->zeta2 = 1 + pow(0.5, THETA);
    for (uint64_t i = n; i >= 1; i--) /* small terms first */
        space->zeta += pow(1.0 / (double)i, THETA);
    space->eta = (1 - pow(2.0 / (double)n, 1 - THETA)) /
                 (1 - space->zeta2 / space->zeta);
    space->noise = malloc(NOISE);
    if (!space->noise)
        rig_die("out of memory");
    for (size_t i = 0; i < NOISE; i += 8) {
        uint64_t word = rig_random_next(&random);

        memcpy(space->noise + i, &word, 8);
    }
}

/* PLACE modulo 4 says whose key it is. */
static void key_in_part(const struct keyspace *space, uint64_t i, uint64_t salt,
                        unsigned place, uint8_t key[RIG_KEY])
{
    uint64_t within = rig_mix(i ^ rig_mix(salt)) % (space->part / 4) * 4;
    uint64_t number = i * space->part + within + place;

    memcpy(key, "bench:k/", 8);
    for (int byte = 0; byte < 8; byte++)
        key[8 + byte] = (uint8_t)(number >> (56 - 8 * byte));
}

void keyspace_key(const struct keyspace *space, uint64_t i,
                  uint8_t key[RIG_KEY])
{
    key_in_part(space, i, 0, 0, key);
}

void keyspace_inserted_key(const struct keyspace *space, uint64_t insertion,
                           uint8_t key[RIG_KEY])
{
    key_in_part(space, keyspace_shuffled(space, 99, insertion % space->n),
                1 + insertion / space->n, 1, key);
}

void keyspace_absent_key(const struct keyspace *space, uint64_t i,
                         uint64_t salt, uint8_t key[RIG_KEY])
{
    key_in_part(space, i, salt, 2, key);
}

void keyspace_value(const struct keyspace *space, const uint8_t key[RIG_KEY],
                    uint64_t version, uint8_t *value)
{
    uint32_t at = (uint32_t)(rig_mix(version) % (NOISE - space->value_len));

    memcpy(value, key + 8, 8);
    memcpy(value + 8, &at, 4);
    memcpy(value + NOISE_AT, space->noise + at, space->value_len - NOISE_AT);
}

bool keyspace_value_fits(const struct keyspace *space,
                         const uint8_t key[RIG_KEY], const uint8_t *value)
{
    size_t noise_len = space->value_len - NOISE_AT;
    uint32_t at;

    memcpy(&at, value + 8, 4);
    return memcmp(value, key + 8, 8) == 0 && at < NOISE - space->value_len &&
           memcmp(value + space->value_len - TAIL,
                  space->noise + at + noise_len - TAIL, TAIL) == 0;
}

uint64_t keyspace_shuffled(const struct keyspace *space, uint64_t seed,
                           uint64_t i)
{
    uint64_t mask = (UINT64_C(1) << space->feistel_bits) - 1;

    /* Ends: the network permutes fewer than 4 n numbers, and a walk from below
     * n comes back below n. */
    do {
        uint64_t left = i >> space->feistel_bits, right = i & mask;

        for (uint64_t round = 0; round < 4; round++) {
            uint64_t was = right;

            right =
                left ^ (rig_mix(right ^ rig_mix(seed * 4 + round + 1)) & mask);
            left = was;
        }
        i = left << space->feistel_bits | right;
    } while (i >= space->n);
    return i;
}

uint64_t keyspace_shuffled_within(const struct keyspace *space,
                                  uint64_t stretch, uint64_t i)
{
    uint64_t from = i - i % stretch;
    struct keyspace part = {.n = space->n - from < stretch ? space->n - from
                                                           : stretch};

    part.feistel_bits = feistel_bits(part.n);
    return from + keyspace_shuffled(&part, from, i - from);
}

double keyspace_share(const struct keyspace *space, enum distribution how,
                      uint64_t count)
{
    double sum = 0;

    if (count >= space->n)
        return 1;
    if (how == DRAW_UNIFORM)
        return (double)count / (double)space->n;
    for (uint64_t i = count; i >= 1; i--)
        sum += pow(1.0 / (double)i, THETA);
    return sum / space->zeta;
}

uint64_t keyspace_rank(const struct keyspace *space, struct rig_random *random)
{
    double u = (double)(rig_random_next(random) >> 11) * 0x1p-53;
    double uz = u * space->zeta;
    uint64_t rank;

    if (uz < 1)
        return 0;
    if (uz < space->zeta2)
        return 1;
    rank = (uint64_t)((double)space->n *
                      pow(space->eta * u - space->eta + 1, space->alpha));
    return rank < space->n ? rank : space->n - 1;
}

uint64_t keyspace_draw(const struct keyspace *space, enum distribution how,
                       struct rig_random *random)
{
    if (how == DRAW_UNIFORM)
        return rig_random_below(random, space->n);
    return rig_mix(keyspace_rank(space, random) + 1) % space->n;
}
