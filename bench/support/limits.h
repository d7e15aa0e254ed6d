/*
 * What the hardware allows, measured beside the engines: no row can be faster
 * than the limits of what it does.
 */
#ifndef LIMITS_H
#define LIMITS_H

enum {
    LIMIT_READ_1,      /* 4 KiB random reads a second, one at a time */
    LIMIT_READ_32,     /* the same, 32 at a time */
    LIMIT_OVERWRITE,   /* fdatasync a second after writing 4 KiB in place */
    LIMIT_APPEND,      /* the same after an append */
    LIMIT_MEMORY_NS,   /* one dependent load from memory */
    LIMIT_MEMORY_GIBS, /* GiB a second read by one thread */
    LIMITS
};

struct limits {
    double value[LIMITS];
};

extern const char *const limit_name[LIMITS], *const limit_unit[LIMITS];

/* In DIR, for about SECONDS each. */
void limits_measure(struct limits *limits, const char *dir, double seconds);

#endif
