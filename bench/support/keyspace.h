/*
 * The records of compare_engines without a table of them: a process that is
 * bound to little memory can make any key, value and order by computing.
 *
 * Key i of n is 8 constant bytes and, big-endian, a number in the i-th of n
 * equal parts of 2^64, at a scrambled place in it.  So keys ascend with i, lie
 * evenly and do not compress.  Places are 0 modulo 4 for loaded records, 1 for
 * records inserted later, 2 for keys that nobody writes.
 */
#ifndef KEYSPACE_H
#define KEYSPACE_H

#include "peer.h"

struct keyspace {
    uint64_t n;
    uint64_t part; /* 2^64 / n */
    size_t value_len;
    uint8_t *noise;
    unsigned feistel_bits; /* of each half */
    /* For zipf: see keyspace_make(). */
    double zeta, eta, zeta2, alpha;
};

enum distribution { DRAW_UNIFORM, DRAW_ZIPF, DRAW_LATEST };

void keyspace_make(struct keyspace *space, uint64_t n, size_t value_len);

void keyspace_key(const struct keyspace *space, uint64_t i,
                  uint8_t key[RIG_KEY]);
void keyspace_inserted_key(const struct keyspace *space, uint64_t insertion,
                           uint8_t key[RIG_KEY]);
void keyspace_absent_key(const struct keyspace *space, uint64_t i,
                         uint64_t salt, uint8_t key[RIG_KEY]);
void keyspace_value(const struct keyspace *space, const uint8_t key[RIG_KEY],
                    uint64_t version, uint8_t *value);
/* By its head and tail, at known places in the noise. */
bool keyspace_value_fits(const struct keyspace *space,
                         const uint8_t key[RIG_KEY], const uint8_t *value);

/* The I-th of all records in an order without pattern, chosen by SEED. */
uint64_t keyspace_shuffled(const struct keyspace *space, uint64_t seed,
                           uint64_t i);
/* The I-th in an order that goes through STRETCH records after STRETCH
 * records, and through each such stretch without pattern. */
uint64_t keyspace_shuffled_within(const struct keyspace *space,
                                  uint64_t stretch, uint64_t i);
/* A record; zipf: YCSB's scrambled zipfian, 0.99. */
uint64_t keyspace_draw(const struct keyspace *space, enum distribution how,
                       struct rig_random *random);
/* How much of what is drawn so falls on the COUNT records drawn most. */
double keyspace_share(const struct keyspace *space, enum distribution how,
                      uint64_t count);
/* A zipfian rank below n, unscrambled: 0 is the most frequent. */
uint64_t keyspace_rank(const struct keyspace *space, struct rig_random *random);

#endif
