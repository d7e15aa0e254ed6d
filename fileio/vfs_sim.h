/*
 * A simulated disk under a file system in memory: it loses power when told to,
 * fails what it is told to fail, and does the same again from the same seed.
 *
 * Of every file it holds two images: the *cache*, which reads see and which
 * survives the program, and the *disk*, which survives the power.  A write
 * changes the cache and waits; sync brings what waits for that file to the
 * disk.  Names wait too: a file, directory or rename is on the disk only after
 * sync_dir of the directory that holds the name, whatever was synced of the
 * file itself.  A rename across directories waits in each of them by itself.
 *
 * Threads: all calls take one mutex, except that hooks run outside it.  With
 *          one thread everything follows from the seed and the calls made.
 */
#ifndef BFTI_VFS_SIM_H
#define BFTI_VFS_SIM_H

#include "env.h"
#include "vfs.h"

enum { BFTI_SIM_SECTOR = 512 }; /* what a disk writes whole or not at all */

/* NULL: no memory.  The root directory is there and on the disk; "/db",
 * "db" and "./db" are one place. */
struct bfti_vfs *bfti_vfs_sim_create(const struct bfti_env *env, uint64_t seed);
/* All files of SIM are closed by now.  Images of it live on. */
void bfti_vfs_sim_destroy(struct bfti_vfs *sim);

/* --- steps --------------------------------------------------------------- */

/* Calls by what they do to the disk; bits of a mask.  Those in
 * BFTI_SIM_STEPS are steps: counted, and shown to the hook. */
enum bfti_sim_op {
    BFTI_SIM_WRITE = 1,
    BFTI_SIM_SYNC = 2,
    BFTI_SIM_TRUNCATE = 4,
    BFTI_SIM_PUNCH = 8,
    BFTI_SIM_CREATE = 16, /* an open that makes the file */
    BFTI_SIM_MAKE_DIR = 32,
    BFTI_SIM_REMOVE = 64,
    BFTI_SIM_RENAME = 128,
    BFTI_SIM_SYNC_DIR = 256,
    BFTI_SIM_READ = 512,
    BFTI_SIM_OPEN = 1024,  /* any other open */
    BFTI_SIM_QUERY = 2048, /* size, identify, list, lock, map */
};
enum { BFTI_SIM_STEPS = 511, BFTI_SIM_ALL = 4095 };

/* One step, as it is about to happen. */
struct bfti_sim_step {
    uint64_t number; /* from 0 */
    enum bfti_sim_op op;
    const char *path; /* of a rename: the old name */
    const char *to;   /* of a rename: the new name, else NULL */
    uint64_t offset;
    uint64_t len; /* of a truncate: 0, and OFFSET is the new size */
};

/* Steps taken so far, failed ones included: the number of the next one. */
uint64_t bfti_sim_steps(struct bfti_vfs *sim);

/*
 * Call HOOK before every step takes effect; NULL: no longer.  HOOK may look
 * at SIM, take images and cut the power, but takes no steps of its own.
 *
 * Threads: set it while no other thread uses SIM.
 */
void bfti_sim_on_step(struct bfti_vfs *sim,
                      void (*hook)(void *arg, const struct bfti_sim_step *step),
                      void *arg);

/*
 * Call DELAY where a disk takes its time: before each call but close takes
 * effect, and once a read, a write or a sync has; NULL: no longer.  Outside the
 * mutex, so that other threads' calls come between.
 *
 * Threads: set it while no other thread uses SIM.
 */
void bfti_sim_set_delay(struct bfti_vfs *sim,
                        void (*delay)(void *arg, enum bfti_sim_op op),
                        void *arg);

/*
 * Cut the power before step NUMBER: that step and every later call but close
 * fails with BFT_IO, "simulated power cut", so that the program unwinds.  A
 * NUMBER of bfti_sim_steps() or less cuts it now.  UINT64_MAX: never, and the
 * power is back, with the cache as it was.
 */
void bfti_sim_crash_at(struct bfti_vfs *sim, uint64_t number);

/* --- what is left after a crash ------------------------------------------ */

/* What became of the changes that waited. */
enum bfti_sim_policy {
    /* The program was killed, the system lives: the cache is as it was, and
     * what waited goes on waiting. */
    BFTI_SIM_KILL,
    /* The power went.  In all of these the cache is what the disk then holds,
     * and nothing waits. */
    BFTI_SIM_DROP,    /* nothing that waited reached the disk */
    BFTI_SIM_KEEP,    /* all of it did */
    BFTI_SIM_PREFIX,  /* those before a random moment did */
    BFTI_SIM_REORDER, /* a random choice of them did */
    /* As REORDER; and of each surviving write and punch only a random choice
     * of sectors may have made it.  A file may have grown without them. */
    BFTI_SIM_TORN,
};
enum { BFTI_SIM_POLICIES = 6 };
const char *bfti_sim_policy_name(enum bfti_sim_policy policy);

/*
 * Make the file system that a crash now would leave: another simulation, on,
 * unlocked, at step 0, without hook, faults, capacity or together.  SEED decides what
 * POLICY leaves open, and seeds the new one.  SIM is not changed, and may have
 * lost its power already.
 *
 * A sector is whole, and was at some time in the cache: a surviving write
 * brings along what the cache held of its sectors when it was made.
 *
 * Memory: shares the pages that neither changes: an image costs a pointer for
 *         every 16 KiB of file, plus what waited.
 * Errors: BFT_NO_MEMORY.
 */
BFT_MUST_CHECK bft_status bfti_sim_image(struct bfti_vfs *sim,
                                         enum bfti_sim_policy policy,
                                         uint64_t seed,
                                         struct bfti_vfs **image);

/* How many changes wait for a sync: 0 makes all policies one. */
uint64_t bfti_sim_waiting(struct bfti_vfs *sim);

/* Bring all that waits to the disk, as if it had been synced. */
BFT_MUST_CHECK bft_status bfti_sim_settle(struct bfti_vfs *sim);

/* --- faults -------------------------------------------------------------- */

enum bfti_sim_harm {
    /* The call fails and changes nothing; but a sync that fails forgets what
     * waited, as Linux does: the cache keeps it, and it reaches the disk only
     * if it is written again.  (What waited in a directory goes on waiting.) */
    BFTI_SIM_REFUSE,
    /* Of a write a random part, from its start, is done; then it fails. */
    BFTI_SIM_PART,
    /* The call succeeds, and one bit is wrong: of a read, in what is returned;
     * of a write, in what is written. */
    BFTI_SIM_FLIP,
    /* A read succeeds with fewer bytes than are there. */
    BFTI_SIM_SHORT,
};

struct bfti_sim_fault {
    unsigned ops;     /* of enum bfti_sim_op */
    const char *path; /* only calls whose path contains it; NULL: all.
                             Borrowed as long as the fault is set. */
    uint64_t nth;     /* strikes the nth matching call from now on: 1.. */
    bool sticky;      /* and every one after it */
    enum bfti_sim_harm harm;
    bft_status status; /* of REFUSE and PART: BFT_IO, BFT_NO_SPACE, ... */
};

enum { BFTI_SIM_FAULTS_MAX = 16 };

/* Set one more fault.  At most BFTI_SIM_FAULTS_MAX at a time (asserted). */
void bfti_sim_fail(struct bfti_vfs *sim, const struct bfti_sim_fault *fault);
/* Take all faults away. */
void bfti_sim_heal(struct bfti_vfs *sim);
/* How many calls were struck so far. */
uint64_t bfti_sim_struck(struct bfti_vfs *sim);

/* All files together may take BYTES, in blocks of 4 KiB, holes not counted;
 * UINT64_MAX: no limit.  A write beyond does what fits, then fails with
 * BFT_NO_SPACE. */
void bfti_sim_set_capacity(struct bfti_vfs *sim, uint64_t bytes);
uint64_t bfti_sim_used(struct bfti_vfs *sim);

/* Offer map, as the real file system does, to files opened from now on.  Off
 * at first.  Stores are seen at the next call on SIM: it compares the mapping
 * with the cache, so other threads' stores are a data race to a tool. */
void bfti_sim_set_map(struct bfti_vfs *sim, bool on);

/* Say that reads handed over together are worked on together, as a drive does, so
 * that whoever asks hands over several.  They are done one after the other all the
 * same, each a call of its own to faults.  Off at first. */
void bfti_sim_set_together(struct bfti_vfs *sim, bool on);

/* --- looking and tampering: no steps, no faults, also without power ------ */

enum bfti_sim_side { BFTI_SIM_CACHE, BFTI_SIM_DISK };

/* Read a file in the cache; or on the disk, found by its name there. */
BFT_MUST_CHECK bft_status bfti_sim_read(struct bfti_vfs *sim,
                                        enum bfti_sim_side side,
                                        const char *path, uint64_t offset,
                                        void *buf, size_t len, size_t *got);
BFT_MUST_CHECK bft_status bfti_sim_size(struct bfti_vfs *sim,
                                        enum bfti_sim_side side,
                                        const char *path, uint64_t *bytes);

/* Flip the bits of MASK in the byte at OFFSET: in the cache, on the disk, and
 * in what waits.  Errors: BFT_NOT_FOUND, BFT_INVALID behind the end. */
BFT_MUST_CHECK bft_status bfti_sim_flip(struct bfti_vfs *sim, const char *path,
                                        uint64_t offset, uint8_t mask);
/* Cut the file to BYTES, or let it grow by a hole, in both images; what waited
 * for it is brought to the disk first. */
BFT_MUST_CHECK bft_status bfti_sim_cut(struct bfti_vfs *sim, const char *path,
                                       uint64_t bytes);
/* Make or replace the contents of a file in both images.  Brings to the disk
 * what waited for it and for its directory. */
BFT_MUST_CHECK bft_status bfti_sim_put(struct bfti_vfs *sim, const char *path,
                                       const void *data, size_t len);

#endif
