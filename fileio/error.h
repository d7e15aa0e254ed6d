/* The text behind a status: what and where, for bft_last_error(). */
#ifndef BFTI_ERROR_H
#define BFTI_ERROR_H

#include <stddef.h>

#include "bft_status.h"

/*
 * Note a text for this thread and return STATUS, so that a failing line reads
 * `return bfti_fail(BFT_CORRUPT, "%s: ...", path)`.  The newest text wins: the
 * function nearest to the caller of the library may say it again in its terms.
 */
bft_status bfti_fail(bft_status status, const char *format, ...)
    __attribute__((format(printf, 2, 3), cold));
#ifdef __clang_analyzer__
/* It looks at one file at a time: what comes back is STATUS, never BFT_OK. */
#define bfti_fail(status, ...) \
    ((void)(bfti_fail)(status, __VA_ARGS__), (status))
#endif

/* The same with a constant text, for failures that are everyday answers: it
 * costs one store. */
bft_status bfti_fail_plain(bft_status status, const char *words);

/*
 * Put what FORMAT gives, and ": ", before this thread's text, and return STATUS:
 * who called what failed knows whose page it was, or for what an extent stands.
 * Nothing is lost but the middle of what is longer than BFTI_ERROR_MAX.
 */
bft_status bfti_fail_in(bft_status status, const char *format, ...)
    __attribute__((format(printf, 2, 3), cold));
#ifdef __clang_analyzer__
#define bfti_fail_in(status, ...) \
    ((void)(bfti_fail_in)(status, __VA_ARGS__), (status))
#endif

enum { BFTI_ERROR_MAX = 1024 };

/* What a thread has of its own here. */
struct bfti_error_own {
    char text[BFTI_ERROR_MAX];
    size_t text_len;
    const char *constant; /* in place of text, or NULL */
};

/*
 * Exchange what the calling thread has with *OWN, which is all zeros for a
 * thread that has not failed yet.  For surroundings that run several threads of
 * the engine on one of the system's: see README.md, Surroundings.
 */
void bfti_error_swap(struct bfti_error_own *own);

#endif
