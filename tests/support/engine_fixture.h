/*
 * A database to test on any backend, opened and reopened with surroundings of
 * the test's own.  What a test does not expect to fail is asserted here.
 */
#ifndef ENGINE_FIXTURE_H
#define ENGINE_FIXTURE_H

#include <stdatomic.h>

#include "bftree_backup.h"
#include "bftree_bulk.h"
#include "fileio/vfs_sim.h"
#include "index/engine.h"

enum engine_backend {
    ENGINE_MEMORY,
    ENGINE_SIM,
    /* The machine's files, which a build without threads has not: */
    ENGINE_POSIX,
    ENGINE_DIRECT,
    ENGINE_URING,
};
enum { ENGINE_BACKENDS = BFT_WITH_THREADS ? 5 : 2 };
const char *engine_backend_name(enum engine_backend backend);

struct engine_fixture {
    enum engine_backend backend;
    char path[256];
    struct bfti_env env; /* counts; refuses when told to */
    struct bfti_vfs *vfs;
    struct bfti_surroundings surroundings;
    bool keep; /* the directory is the test's, and stays when all is freed */
    bft_options options; /* of the next open */
    bool eager; /* dictionaries are made of little, and used; once it is open */
    bft_db *db;
    bft_stats past; /* counters of earlier openings */
    /* The first that the report callback was told. */
    _Atomic int reported;
    char report_text[400];
    /* Before the opening: what steps may report at any time, as they meet what
     * the test has in store for its own calls. */
    bft_status tolerated;
    struct bfti_mutex memory_lock;
    struct engine_block *memory; /* in use; under memory_lock */
    size_t memory_lost;          /* blocks that may be in use at the end */
    _Atomic int64_t allocs;      /* so far */
    _Atomic int64_t allocs_left; /* then memory runs out; negative: never */
    bool allocs_sticky;          /* for good, not for one time */
    _Atomic uint64_t random;     /* of what the engine draws, once seeded */
    _Atomic bool slow;           /* reads seem to wait for a device */
    _Atomic uint64_t slow_ns;    /* that they seem to have taken so far */
};

/* A new database, tiny: 256 KiB of memory, 128 KiB of log in segments of
 * 64 KiB, leaves of 512 bytes.  _make leaves it to the test to set f->options
 * and open it. */
struct engine_fixture *engine_fixture_make(enum engine_backend backend);
struct engine_fixture *engine_fixture_open(enum engine_backend backend);
/* What the engine draws from now on repeats with SEED, else nothing does. */
void engine_seed(struct engine_fixture *f, uint64_t seed);
/* Before an opening: from that on reads seem to wait for a device, and to be
 * worked on together if several are handed over (not with memory and posix, which
 * do one after the other), so that much is read ahead; or no more. */
void engine_slow_reads(struct engine_fixture *f, bool on);
bft_status engine_open_status(struct engine_fixture *f);
void engine_open(struct engine_fixture *f);
void engine_close(struct engine_fixture *f);
void engine_reopen(struct engine_fixture *f);
/* End the background threads.  What they were at is done; from then on gauges
 * move only by the test's own calls. */
void engine_end_background(struct engine_fixture *f);
/* Only sim: open what a crash now leaves; what the old one closes with is
 * ignored. */
void engine_crash(struct engine_fixture *f, enum bfti_sim_policy policy,
                  uint64_t seed);
/* Close it, if it is open, and free all there is: no more than f->memory_lost
 * blocks of memory are left in use. */
void engine_fixture_free(struct engine_fixture *f);

/* Bytes that the engine has from f->env now (a pool of 1 MiB or more it maps). */
size_t engine_env_bytes(struct engine_fixture *f);
/* Counters since the fixture was made, gauges now. */
bft_stats engine_stats(struct engine_fixture *f);
bft_tree *engine_tree(struct engine_fixture *f, const char *name,
                      uint32_t leaf_bytes);

/* Assert that STATUS is as expected, with the last error's text if not. */
void engine_expect(bft_status expected, bft_status status, const char *what,
                   const char *file, int line);
#define expect_status(expected, call) \
    engine_expect(expected, call, #call, __FILE__, __LINE__)
#define expect_ok(call) expect_status(BFT_OK, call)

#endif
