/*
 * The simulated file system with its memory counted, and short forms of what
 * tests ask of it.  All of them assert that the calls they make succeed.
 */
#ifndef TEST_SIM_FIXTURE_H
#define TEST_SIM_FIXTURE_H

#include "fileio/fileio.h"
#include "fileio/vfs_sim.h"

extern size_t sim_bytes_live;
extern int64_t sim_allocs_left; /* then memory runs out; negative: never */

/* A simulation with seed 1, whose memory is counted. */
struct bfti_vfs *sim_create(void);
void sim_destroy(struct bfti_vfs *sim);

/* A teardown: all of it was given back. */
int sim_memory_is_free(void **state);

/* Open, and make if need be. */
struct bfti_file *sim_file_open(struct bfti_vfs *sim, const char *path);
void sim_file_close(struct bfti_file *file);

/* Write LEN bytes of VALUE at OFFSET; _fill asserts that it succeeds. */
bft_status sim_fill_status(struct bfti_file *file, uint64_t offset, size_t len,
                           int value);
void sim_fill(struct bfti_file *file, uint64_t offset, size_t len, int value);
void sim_sync(struct bfti_file *file);
void sim_sync_dir(struct bfti_vfs *sim, const char *dir);

/* A file in the root whose name and LEN bytes of VALUE are on the disk. */
struct bfti_file *sim_synced_file(struct bfti_vfs *sim, const char *path,
                                  size_t len, int value);
struct bfti_vfs *sim_image_of(struct bfti_vfs *sim, enum bfti_sim_policy policy,
                              uint64_t seed);
bool sim_is_there(struct bfti_vfs *sim, const char *path);
uint64_t sim_size_of(struct bfti_vfs *sim, const char *path);
/* All that programs see of it, to be freed; NULL when it is not there. */
uint8_t *sim_contents(struct bfti_vfs *sim, const char *path, size_t *len);

/* The byte at OFFSET, -1 behind the end. */
int sim_byte_on(struct bfti_vfs *sim, enum bfti_sim_side side, const char *path,
                uint64_t offset);
int sim_byte_at(struct bfti_vfs *sim, const char *path, uint64_t offset);

/* The one value of all LEN bytes at OFFSET; fails when they differ. */
int sim_value_at(struct bfti_vfs *sim, const char *path, uint64_t offset,
                 size_t len);

/* The same of an image. */
int sim_byte_after(struct bfti_vfs *sim, enum bfti_sim_policy policy,
                   const char *path, uint64_t offset);
bool sim_there_after(struct bfti_vfs *sim, enum bfti_sim_policy policy,
                     const char *path);

#endif
