/*
 * A file system in memory: for databases that need not outlive the process,
 * and for tests.
 */
#ifndef BFTI_VFS_MEMORY_H
#define BFTI_VFS_MEMORY_H

#include "env.h"
#include "vfs.h"

/*
 * Make an empty file system; NULL: no memory.  Only the root directory is
 * there: relative and absolute paths start at it.
 *
 * Memory:  files outlive their handles and go with _destroy, or once they are
 *          removed and closed.  All of it comes from ENV.
 * Threads: any number, as vfs.h says; calls on one file take turns.
 */
struct bfti_vfs *bfti_vfs_memory_create(const struct bfti_env *env);

/* Remove the files in the directory PATH, if it is one, and then itself, if it has no
 * others in it. */
void bfti_vfs_memory_remove_dir(struct bfti_vfs *vfs, const char *path);

/* All files of VFS are closed by now. */
void bfti_vfs_memory_destroy(struct bfti_vfs *vfs);

#endif
