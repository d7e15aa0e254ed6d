/*
 * What a process does once before it goes on, and tries again after it was refused:
 * there may be memory, or a key, by then.
 */
#ifndef BFTI_ONCE_H
#define BFTI_ONCE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

struct bfti_once {
    pthread_once_t first;
    pthread_mutex_t again;
    _Atomic bool done; /* by INIT, when it was not refused */
};
#define BFTI_ONCE                                           \
    {                                                       \
        PTHREAD_ONCE_INIT, PTHREAD_MUTEX_INITIALIZER, false \
    }

/* Call INIT unless it has been done; was it?  Any thread. */
static inline bool bfti_once(struct bfti_once *once, void (*init)(void))
{
    (void)pthread_once(&once->first, init);
    if (atomic_load(&once->done))
        return true;
    /* The first call is not made under the lock: in the child of a fork meanwhile
     * pthread_once() makes it again, and the lock would be held for ever. */
    (void)pthread_mutex_lock(&once->again);
    if (!atomic_load(&once->done))
        init();
    (void)pthread_mutex_unlock(&once->again);
    return atomic_load(&once->done);
}

#endif
