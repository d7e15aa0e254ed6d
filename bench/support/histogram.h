/*
 * Latencies counted in buckets, 32 to each power of two: 3 % apart.
 */
#ifndef HISTOGRAM_H
#define HISTOGRAM_H

#include <stdint.h>

enum { HISTOGRAM_SUB = 5, HISTOGRAM_BUCKETS = 64 << HISTOGRAM_SUB };

struct histogram {
    uint64_t count[HISTOGRAM_BUCKETS];
    uint64_t total, longest_ns;
};

void histogram_note(struct histogram *histogram, uint64_t ns);
void histogram_add(struct histogram *to, const struct histogram *from);
/* In microseconds, of the SHARE (0 to 1) of all that are the shortest; 0 when
 * there are none. */
double histogram_us(const struct histogram *histogram, double share);

#endif
