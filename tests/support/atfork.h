/*
 * A pthread_atfork() of the program's own, which refuses to order: a definition
 * here comes before the C library's.  For the one file of a test that includes
 * it.  ATFORK_ORDERS is 0 where there can be none: without threads, where the
 * library is a file, which has the C library's in it, and with the thread
 * sanitizer, which calls it before instrumented code can run.
 */
#ifndef TESTS_ATFORK_H
#define TESTS_ATFORK_H

#include <errno.h>
#include <stddef.h>

#if !BFT_WITH_THREADS || BFT_TESTS_SHARED || defined(__SANITIZE_THREAD__)
#define ATFORK_ORDERS 0
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define ATFORK_ORDERS 0
#endif
#endif
#ifndef ATFORK_ORDERS
#define ATFORK_ORDERS 1
#endif

#if ATFORK_ORDERS

static unsigned atfork_refusals; /* so many requests are refused, first */
static unsigned atfork_prepared; /* that were not, and do something before */

/* What the C library's pthread_atfork(), which is part of each program,
 * calls. */
int __register_atfork(void (*prepare)(void), void (*parent)(void),
                      void (*child)(void), void *dso);
int pthread_atfork(void (*prepare)(void), void (*parent)(void),
                   void (*child)(void));

int pthread_atfork(void (*prepare)(void), void (*parent)(void),
                   void (*child)(void))
{
    if (prepare != NULL && atfork_refusals > 0) {
        atfork_refusals--;
        return ENOMEM;
    }
    atfork_prepared += prepare != NULL;
    return __register_atfork(prepare, parent, child, NULL);
}

#endif

#endif
