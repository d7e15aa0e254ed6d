/*
 * Raw disk and memory.
 */
#include "limits.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rig.h"

enum {
    BLOCK = 4096,
    FILE_BLOCKS = 16384, /* 64 MiB */
    DEPTH = 32,
    CHASE_BYTES = 64 << 20,
    LINE = 64,
};

const char *const limit_name[LIMITS] = {
    [LIMIT_READ_1] = "4 KiB random reads, one at a time, O_DIRECT",
    [LIMIT_READ_32] = "4 KiB random reads, 32 at a time, O_DIRECT",
    [LIMIT_OVERWRITE] = "fdatasync after 4 KiB written in place",
    [LIMIT_APPEND] = "fdatasync after 4 KiB appended",
    [LIMIT_MEMORY_NS] = "one dependent load, 64 MiB",
    [LIMIT_MEMORY_GIBS] = "memory read by one thread",
};

const char *const limit_unit[LIMITS] = {
    [LIMIT_READ_1] = "/s",    [LIMIT_READ_32] = "/s",
    [LIMIT_OVERWRITE] = "/s", [LIMIT_APPEND] = "/s",
    [LIMIT_MEMORY_NS] = "ns", [LIMIT_MEMORY_GIBS] = "GiB/s",
};

struct reader {
    int file;
    uint64_t end, reads, seed;
    pthread_t thread;
};

static void *aligned(size_t bytes)
{
    void *memory = NULL;

    if (posix_memalign(&memory, BLOCK, bytes))
        rig_die("out of memory");
    return memory;
}

static void *read_loop(void *context)
{
    struct reader *reader = context;
    struct rig_random random = {reader->seed};
    void *block = aligned(BLOCK);

    do {
        off_t at = (off_t)rig_random_below(&random, FILE_BLOCKS) * BLOCK;

        if (pread(reader->file, block, BLOCK, at) != BLOCK)
            rig_die("a raw read failed: %s", strerror(errno));
        reader->reads++;
    } while (rig_now_ns() < reader->end);
    free(block);
    return NULL;
}

static double reads_per_second(int file, unsigned depth, double seconds)
{
    struct reader readers[DEPTH];
    uint64_t start = rig_now_ns(), reads = 0;

    for (unsigned i = 0; i < depth; i++) {
        readers[i] = (struct reader){
            .file = file,
            .end = start + (uint64_t)(seconds * 1e9),
            .seed = start + i,
        };
        if (pthread_create(&readers[i].thread, NULL, read_loop, &readers[i]))
            rig_die("no thread");
    }
    for (unsigned i = 0; i < depth; i++) {
        pthread_join(readers[i].thread, NULL);
        reads += readers[i].reads;
    }
    return (double)reads / ((double)(rig_now_ns() - start) / 1e9);
}

static double syncs_per_second(int file, bool append, double seconds)
{
    uint64_t start = rig_now_ns(), end = start + (uint64_t)(seconds * 1e9);
    uint64_t syncs = 0;
    void *block = aligned(BLOCK);
    off_t at = append ? (off_t)FILE_BLOCKS * BLOCK : 0;

    memset(block, 7, BLOCK);
    do {
        if (pwrite(file, block, BLOCK, at) != BLOCK || fdatasync(file))
            rig_die("a raw write failed: %s", strerror(errno));
        at += BLOCK;
        if (!append)
            at %= (off_t)FILE_BLOCKS * BLOCK;
        syncs++;
    } while (rig_now_ns() < end);
    free(block);
    return (double)syncs / ((double)(rig_now_ns() - start) / 1e9);
}

static void measure_disk(struct limits *limits, const char *dir, double seconds)
{
    char path[4096];
    uint64_t *block = aligned(BLOCK);
    struct rig_random random = {5};
    int file, direct;

    snprintf(path, sizeof(path), "%s/compare_engines.limits", dir);
    file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (file < 0)
        rig_die("%s: %s", path, strerror(errno));
    for (off_t i = 0; i < FILE_BLOCKS; i++) {
        for (size_t word = 0; word < BLOCK / 8; word++)
            block[word] = rig_random_next(&random);
        if (pwrite(file, block, BLOCK, i * BLOCK) != BLOCK)
            rig_die("%s: %s", path, strerror(errno));
    }
    fsync(file);
    direct = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (direct >= 0) { /* some file systems have none: no figure */
        limits->value[LIMIT_READ_1] = reads_per_second(direct, 1, seconds);
        limits->value[LIMIT_READ_32] = reads_per_second(direct, DEPTH, seconds);
        close(direct);
    }
    limits->value[LIMIT_OVERWRITE] = syncs_per_second(file, false, seconds);
    limits->value[LIMIT_APPEND] = syncs_per_second(file, true, seconds);
    close(file);
    unlink(path);
    free(block);
}

/* One cycle through all lines, in random order (Sattolo). */
static void measure_memory(struct limits *limits, double seconds)
{
    enum { LINES = CHASE_BYTES / LINE, WORDS = LINE / 8 };
    uint64_t *memory = aligned(CHASE_BYTES);
    struct rig_random random = {6};
    uint64_t start, steps = 0, at = 0, sum = 0, passes = 0;

    for (uint64_t i = 0; i < LINES; i++)
        memory[i * WORDS] = i;
    for (uint64_t i = LINES - 1; i > 0; i--) {
        uint64_t j = rig_random_below(&random, i);
        uint64_t was = memory[i * WORDS];

        memory[i * WORDS] = memory[j * WORDS];
        memory[j * WORDS] = was;
    }
    start = rig_now_ns();
    do {
        for (unsigned i = 0; i < 4096; i++)
            at = memory[at * WORDS];
        steps += 4096;
    } while ((double)(rig_now_ns() - start) < seconds * 1e9);
    limits->value[LIMIT_MEMORY_NS] =
        (double)(rig_now_ns() - start) / (double)steps;
    start = rig_now_ns();
    do {
        for (uint64_t i = 0; i < CHASE_BYTES / 8; i++)
            sum += memory[i];
        passes++;
    } while ((double)(rig_now_ns() - start) < seconds * 1e9);
    limits->value[LIMIT_MEMORY_GIBS] = (double)passes * CHASE_BYTES /
                                       (double)(rig_now_ns() - start) * 1e9 /
                                       (double)(1 << 30);
    /* The sums have to be made for this. */
    if (at + sum == 1)
        printf(" ");
    free(memory);
}

void limits_measure(struct limits *limits, const char *dir, double seconds)
{
    *limits = (struct limits){{0}};
    measure_disk(limits, dir, seconds);
    measure_memory(limits, seconds);
}
