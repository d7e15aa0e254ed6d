/*
 * Names of files and directories in memory, for the backends that have no
 * system below them.  A node is a file or a directory; the backend's own data
 * follow it.  Paths are taken from one root, with or without a leading slash;
 * "" and "." are the root too.
 *
 * Threads: the caller serialises.
 */
#ifndef BFTI_NAMES_H
#define BFTI_NAMES_H

#include "env.h"

struct bfti_node;

struct bfti_name {
    char *text;
    struct bfti_node *node; /* borrowed: the table counts no references */
};

/* Zero-initialised: empty.  In order of insertion. */
struct bfti_names {
    struct bfti_name *list;
    size_t count, max;
};

struct bfti_node {
    bool is_dir;
    uint64_t id; /* of its backend, never used twice */
    struct bfti_names names;
};

/* Where a path leads: an entry NAME of DIR, NODE or NULL when it is missing.
 * The root has no DIR and an empty name.  NAME points into the path. */
struct bfti_spot {
    struct bfti_node *dir;
    const char *name;
    size_t name_len;
    struct bfti_node *node;
};

/* A number that differs between any two calls in this process: the device of
 * a backend. */
uint64_t bfti_names_device(void);

/* NULL when missing. */
struct bfti_node *bfti_names_get(const struct bfti_names *names,
                                 const char *name, size_t name_len);
/* Set NAME to NODE, adding it when it is missing.  *OLD is what it was. */
BFT_MUST_CHECK bft_status bfti_names_set(const struct bfti_env *env,
                                         struct bfti_names *names,
                                         const char *name, size_t name_len,
                                         struct bfti_node *node,
                                         struct bfti_node **old);
/* Take NAME out; what it was, or NULL. */
struct bfti_node *bfti_names_remove(const struct bfti_env *env,
                                    struct bfti_names *names, const char *name,
                                    size_t name_len);
void bfti_names_free(const struct bfti_env *env, struct bfti_names *names);

/*
 * Follow PATH from ROOT.  A missing last name is no error.
 *
 * Errors: BFT_NOT_FOUND when a directory on the way is missing, BFT_INVALID
 *         when it is a file, or for "..".
 */
BFT_MUST_CHECK bft_status bfti_spot_find(struct bfti_node *root,
                                         const char *path,
                                         struct bfti_spot *spot);
/* The same for what must be there: anything, a file, a directory. */
BFT_MUST_CHECK bft_status bfti_spot_find_any(struct bfti_node *root,
                                             const char *path,
                                             struct bfti_spot *spot);
BFT_MUST_CHECK bft_status bfti_spot_find_file(struct bfti_node *root,
                                              const char *path,
                                              struct bfti_spot *spot);
BFT_MUST_CHECK bft_status bfti_spot_find_dir(struct bfti_node *root,
                                             const char *path,
                                             struct bfti_spot *spot);
/* The same for a file or directory that may be made at PATH. */
BFT_MUST_CHECK bft_status bfti_spot_find_free(struct bfti_node *root,
                                              const char *path,
                                              struct bfti_spot *spot);
/* Both ends of a rename that the rules of POSIX allow, but that a directory
 * replaces nothing. */
BFT_MUST_CHECK bft_status bfti_spot_find_rename(struct bfti_node *root,
                                                const char *from,
                                                const char *to,
                                                struct bfti_spot *from_spot,
                                                struct bfti_spot *to_spot);

/* The names of a directory at one instant, so that a listing can be read
 * while nothing is locked.  COPIES is one block: COUNT texts behind each
 * other. */
BFT_MUST_CHECK bft_status bfti_names_texts(const struct bfti_env *env,
                                           const struct bfti_names *names,
                                           char **copies, size_t *count);
/* Tell EACH of them, which may come back to the file system, and free them. */
void bfti_names_tell(const struct bfti_env *env, char *copies, size_t count,
                     void (*each)(void *arg, const char *name), void *arg);

#endif
