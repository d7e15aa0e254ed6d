/*
 * Inside backups: what their files share.
 *
 *   backup.c        a copy of a database in use, whole or of what has changed
 *   backup_dir.c    the directory that is written: refused by bft_open() until
 *                   it is whole
 *   backup_log.c    the log that goes with an image, and what it names
 *   backup_chain.c  a whole backup and increments, read as one page file
 *   restore.c       a database made of them
 */
#ifndef BFTI_BACKUP_H
#define BFTI_BACKUP_H

#include "engine.h"

/* --- the directory (backup_dir.c) ------------------------------------------- */

/* Zero-initialised but for the first three. */
struct bfti_backup_dir {
    const struct bfti_env *env;
    struct bfti_vfs *vfs;
    const char *path;
    struct bfti_file *lock_file;
    bool ours; /* what the directory has came from us, and may be removed */
};

/* Find PATH new, empty, or with an unfinished backup, which is removed; make it
 * and mark it as unfinished.  BFT_EXISTS, BFT_BUSY. */
BFT_MUST_CHECK bft_status bfti_backup_dir_begin(struct bfti_backup_dir *dir);
/* Make all in it durable, then write SB, with an id of its own (a life of its own
 * begins; its log's frames are of the source's), and then take the mark off. */
BFT_MUST_CHECK bft_status bfti_backup_dir_finish(struct bfti_backup_dir *dir,
                                                 struct bfti_pagefile *pf,
                                                 struct bfti_superblock *sb);
/* Let go of it; what is not finished is removed but for the mark. */
void bfti_backup_dir_end(struct bfti_backup_dir *dir);
/* Its page file, which is new. */
BFT_MUST_CHECK bft_status bfti_backup_dir_pagefile(
    const struct bfti_backup_dir *dir, struct bfti_pagefile **pf);
/* Is NAME one of a database's files but the lock, or an increment's? */
bool bfti_backup_is_content(const char *name);

/* --- the log (backup_log.c) -------------------------------------------------- */

struct bfti_backup_log {
    struct bfti_vfs *vfs;
    const char *dir;            /* where it is */
    struct bfti_buffer *buffer; /* whose page file has what it names */
    struct bfti_rec *rec;
    /* Called for each extent of each large value that it names. */
    bft_status (*extent)(void *ctx, uint64_t place);
    void *ctx;
};

/* Read all of the log that the image of SB is redone with: it goes to END.
 * BFT_CORRUPT: it does not, or what it names is damaged. */
BFT_MUST_CHECK bft_status bfti_backup_log_read(struct bfti_backup_log *log,
                                               const struct bfti_superblock *sb,
                                               uint64_t end);

/* --- blocks of the page file (backup_chain.c) -------------------------------- */

struct bfti_block_run {
    uint64_t first, count;
};
struct bfti_block_runs {
    struct bfti_block_run *run;
    size_t count, max;
};

BFT_MUST_CHECK bft_status bfti_block_runs_add(const struct bfti_env *env,
                                              struct bfti_block_runs *runs,
                                              uint64_t first, uint64_t count);
void bfti_block_runs_free(const struct bfti_env *env,
                          struct bfti_block_runs *runs);

/* --- increments (backup_chain.c) --------------------------------------------- */

/*
 * An increment is a backup whose page file has only the blocks that its base had
 * not, or had otherwise, at their usual places; the file of this name lists them
 * and says which backup the base is.
 */
#define BFTI_INCREMENT "increment"

/* Write and sync the list, in order, of an increment to the backup with BASE for
 * its database id.  Puts RUNS in order. */
BFT_MUST_CHECK bft_status
bfti_increment_write(const struct bfti_backup_dir *dir, const uint8_t base[16],
                     struct bfti_block_runs *runs);

struct bfti_chain;

/*
 * Open a whole backup, PATH[0], and COUNT - 1 increments, each to the one before
 * it.  Their locks keep writers out meanwhile.
 *
 * Errors: BFT_INVALID: PATH[0] is an increment, another one is none, or is one to
 *         another backup; or one was opened as a database since, and may have
 *         changed.  BFT_NOT_FOUND, BFT_BUSY, BFT_CORRUPT, BFT_TOO_NEW.
 */
BFT_MUST_CHECK bft_status bfti_chain_open(const struct bfti_env *env,
                                          struct bfti_vfs *vfs,
                                          const char *const *path, size_t count,
                                          struct bfti_chain **chain);
void bfti_chain_close(struct bfti_chain *chain);
/* LEN bytes at OFFSET of the page file that they are together; beyond its end,
 * zeros. */
BFT_MUST_CHECK bft_status bfti_chain_read(struct bfti_chain *chain,
                                          uint64_t offset, void *buf,
                                          size_t len);
/* That page file, to read its image; closed before the chain is. */
BFT_MUST_CHECK bft_status bfti_chain_pagefile(struct bfti_chain *chain,
                                              struct bfti_pagefile **pf);
/* Of the last one. */
const struct bfti_superblock *bfti_chain_superblock(const struct bfti_chain *c);

#endif
