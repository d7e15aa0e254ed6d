/*
 * Inside index/: the directories that are open in this process, and the handles
 * that were closed last.
 */
#ifndef BFTI_REGISTRY_H
#define BFTI_REGISTRY_H

#include "engine.h"

struct bfti_wanted {
    struct bfti_vfs *vfs;
    const char *path;
    bool must_exist;
    /* May the handle share ENGINE, which is open? */
    bft_status (*fits)(const struct bfti_engine *engine, void *arg);
    void *arg;
};

/*
 * One more handle for a directory, which is made when missing.  *ENGINE is shared;
 * or it is NULL, and the caller is to open one and to tell bfti_registry_opened().
 * Meanwhile, and while an engine is being closed, others who want that directory
 * wait here.
 *
 * Errors: BFT_BUSY: this thread itself is opening or closing it.  What FITS says;
 *         BFT_NOT_FOUND, BFT_IO, BFT_NO_MEMORY, BFT_NO_SPACE, BFT_READ_ONLY.
 */
BFT_MUST_CHECK bft_status bfti_registry_enter(const struct bfti_wanted *wanted,
                                              struct bfti_opened **opening,
                                              struct bfti_engine **engine);
/* ENGINE is open, or NULL: it could not be opened. */
void bfti_registry_opened(struct bfti_opened *opening,
                          struct bfti_engine *engine);

/*
 * DB is to be closed: nobody else closes it from now on, or keeps it open.
 *
 * Errors: BFT_INVALID, BFT_BUSY; BFT_FORKED, and the handle is closed.
 */
BFT_MUST_CHECK bft_status bfti_registry_close(bft_db *db,
                                              struct bfti_engine **engine);
/* It works with its engine no more, and is closed; or, true, it was the last one:
 * the caller closes the engine, says so, and then frees that. */
bool bfti_registry_leave(bft_db *db);
void bfti_registry_closed(bft_db *db);

/* The file system in memory. */
BFT_MUST_CHECK bft_status bfti_registry_memory(struct bfti_vfs **vfs);
bool bfti_registry_is_memory(const struct bfti_vfs *vfs);

/* The machine's own files, by whatever backend? */
bool bfti_vfs_is_real(const struct bfti_vfs *vfs);

#endif
