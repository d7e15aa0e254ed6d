/*
 * In place of the system's, which WebAssembly has not: what a single thread can
 * do of POSIX threads.  To make another one ends the test as failed.
 */
#ifndef WASM_PTHREAD_H
#define WASM_PTHREAD_H

#include <sched.h>
#include <stddef.h>
#include <sys/types.h>

static inline int pthread_mutex_init(pthread_mutex_t *mutex, const void *how)
{
    (void)mutex, (void)how;
    return 0;
}
static inline int pthread_mutex_destroy(pthread_mutex_t *mutex)
{
    (void)mutex;
    return 0;
}
static inline int pthread_mutex_lock(pthread_mutex_t *mutex)
{
    (void)mutex;
    return 0;
}
static inline int pthread_mutex_unlock(pthread_mutex_t *mutex)
{
    (void)mutex;
    return 0;
}
static inline pthread_t pthread_self(void)
{
    return NULL;
}
static inline int pthread_equal(pthread_t one, pthread_t other)
{
    return one == other;
}
static inline int pthread_barrier_init(pthread_barrier_t *barrier,
                                       const void *how, unsigned count)
{
    (void)barrier, (void)how, (void)count;
    return 0;
}
static inline int pthread_barrier_wait(pthread_barrier_t *barrier)
{
    (void)barrier;
    return 0;
}
static inline int pthread_barrier_destroy(pthread_barrier_t *barrier)
{
    (void)barrier;
    return 0;
}
static inline int pthread_key_create(pthread_key_t *key, void (*end)(void *))
{
    (void)end;
    *key = 0;
    return 0;
}
static inline int pthread_key_delete(pthread_key_t key)
{
    (void)key;
    return 0;
}
static inline int pthread_setspecific(pthread_key_t key, const void *value)
{
    (void)key, (void)value;
    return 0;
}
static inline int pthread_join(pthread_t thread, void **result)
{
    (void)thread, (void)result;
    return 0;
}
/* See absent.h. */
int pthread_create(pthread_t *thread, const void *how, void *(*run)(void *arg),
                   void *arg);

#endif
