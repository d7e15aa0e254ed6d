/*
 * Outcomes of every bftree call, and the one type that all doors share.
 * Installed; in every door.
 */
#ifndef BFT_STATUS_H
#define BFT_STATUS_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Every outcome, once.  The enum, bft_strerror() and the constants of each
 * binding are made from this list.  Numbers are ABI: append, never renumber. */
#define BFT_STATUS_MAP(X)                                                   \
    X(OK, 0, "success")                                                     \
    X(NOT_FOUND, -1, "no record has that key")                              \
    X(TOO_SMALL, -2, "the buffer is too small for the value")               \
    X(NO_MEMORY, -3, "out of memory")                                       \
    X(NO_SPACE, -4, "the disk is full")                                     \
    X(IO, -5, "the system refused a read, a write or a sync")               \
    X(CORRUPT, -6, "a checksum or on-disk invariant is violated")           \
    X(EXISTS, -7, "a record has that key already")                          \
    X(CONFLICT, -8, "another transaction changed what this one read")       \
    X(BUSY, -9, "another process has the database open")                    \
    X(INVALID, -10, "an argument or option is not acceptable")              \
    X(TOO_BIG, -11, "a key, a value or a batch is over its limit")          \
    X(TOO_NEW, -12, "the database has a format newer than this library")    \
    X(READ_ONLY, -13, "the database or its medium cannot be written")       \
    X(POISONED, -14, "an earlier sync failed: close and reopen to recover") \
    X(FORKED, -15, "the handle belongs to the parent process")              \
    X(GONE, -16, "what was asked for has been dropped")                     \
    X(UNSUPPORTED, -17, "this build or system cannot do that")

typedef enum bft_status {
#define BFT_STATUS_ENUM(name, number, text) BFT_##name = (number),
    BFT_STATUS_MAP(BFT_STATUS_ENUM)
#undef BFT_STATUS_ENUM
} bft_status;

#if defined(__GNUC__)
#define BFT_MUST_CHECK __attribute__((warn_unused_result))
#define BFT_API        __attribute__((visibility("default")))
#else
#define BFT_MUST_CHECK
#define BFT_API
#endif

/* LEN bytes at DATA, owned by somebody else.  DATA may be NULL when LEN is 0. */
typedef struct bft_slice {
    const void *data;
    size_t len;
} bft_slice;

/* A constant English text for STATUS, never NULL. */
BFT_API const char *bft_strerror(bft_status status);

/*
 * Copy the text of this thread's last failed call into BUF, ended by a zero
 * byte and cut to LEN bytes; return the length of the whole text.  It names
 * what the status cannot: the path, the tree, the offset.
 *
 * Memory:  borrows BUF until it returns; BUF may be NULL when LEN is 0.
 * Threads: any; each sees its own text.
 */
BFT_API size_t bft_last_error(char *buf, size_t len);

#ifdef __cplusplus
}
#endif

#endif
