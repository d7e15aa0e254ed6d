/*
 * Buckets by the highest bits of the number, as HdrHistogram has them.
 */
#include "histogram.h"

enum { SUB = HISTOGRAM_SUB };

static unsigned bucket_of(uint64_t ns)
{
    unsigned top;

    if (ns < 1u << SUB)
        return (unsigned)ns;
    top = 63u - (unsigned)__builtin_clzll(ns);
    return ((top - SUB + 1) << SUB) |
           (unsigned)((ns >> (top - SUB)) & ((1u << SUB) - 1));
}

/* The least latency of a bucket. */
static double bucket_ns(unsigned bucket)
{
    unsigned group = bucket >> SUB, low = bucket & ((1u << SUB) - 1);

    if (group == 0)
        return low;
    return (double)((UINT64_C(1) << SUB | low)) *
           (double)(UINT64_C(1) << (group - 1));
}

void histogram_note(struct histogram *histogram, uint64_t ns)
{
    histogram->count[bucket_of(ns)]++;
    histogram->total++;
    if (ns > histogram->longest_ns)
        histogram->longest_ns = ns;
}

void histogram_add(struct histogram *to, const struct histogram *from)
{
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        to->count[i] += from->count[i];
    to->total += from->total;
    if (from->longest_ns > to->longest_ns)
        to->longest_ns = from->longest_ns;
}

double histogram_us(const struct histogram *histogram, double share)
{
    uint64_t seen = 0;

    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += histogram->count[i];
        if (seen && (double)seen >= share * (double)histogram->total)
            return bucket_ns(i) / 1e3;
    }
    return 0;
}
