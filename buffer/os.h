/*
 * What buffer/ asks of the system beyond struct bfti_env: a fence in other
 * threads, a word when a thread ends, pages of address space.  One file for
 * each system: os_linux.c; os_single.c in a build without threads.
 */
#ifndef BFTI_OS_H
#define BFTI_OS_H

#include <stdbool.h>
#include <stddef.h>

/* Before anything else here; any number of times.  False: out of memory. */
bool bfti_os_init(void);

/* May readers leave out their fences, because bfti_os_fence_all puts one into
 * every running thread?  Asked once in a process, under the process lock. */
bool bfti_os_fence_init(void);
/* Returns after each thread of the process has passed a full fence since the
 * call began.  Only where _init said true. */
void bfti_os_fence_all(void);

/* Have bfti_threads_leave() called when the calling thread ends; again after
 * it was called, should another exit handler come back to us.  False: out of
 * memory. */
bool bfti_os_at_thread_exit(void);

/* One lock for the process, innermost, held for a few loads and stores only.
 * Nobody holds it in the child of a fork. */
void bfti_os_process_lock(void);
void bfti_os_process_unlock(void);

/* Address space that takes memory as it is touched; zeroed; page aligned.
 * NULL when the system refuses. */
void *bfti_os_map(size_t bytes);
void bfti_os_unmap(void *at, size_t bytes);

#endif
