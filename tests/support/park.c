#include "park.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "fileio/fault.h"

#ifndef NDEBUG
/* Waits for a test are long: it leaves the processor to those who work, which
 * sched_yield hardly does where calls are traced. */
static void pause_a_little(void)
{
    const struct timespec pause = {.tv_nsec = 200 * 1000};
    nanosleep(&pause, NULL);
}

static _Thread_local struct parked *self;

/* For a thread of the library's: whom to stop for, from where on. */
static const char *_Atomic offered_at;
static struct parked *_Atomic offered;

static void take_up(const char *point)
{
    const char *at = atomic_load(&offered_at);
    if (at && strcmp(point, at) == 0)
        self = atomic_exchange(&offered, NULL);
}

static void stop_here(const char *point)
{
    struct parked *parked;
    const char *at;
    if (!self)
        take_up(point);
    parked = self;
    if (!parked || !atomic_load(&parked->closed))
        return;
    at = atomic_load(&parked->point);
    if (strcmp(point, at) != 0)
        return;
    if (atomic_load(&parked->skip)) {
        atomic_fetch_sub(&parked->skip, 1);
        return;
    }
    if (parked->theirs)
        self = NULL; /* it outlives PARKED */
    atomic_store(&parked->reached, true);
    while (atomic_load(&parked->closed) && atomic_load(&parked->point) == at)
        pause_a_little();
    atomic_store(&parked->left, true);
}

static void *parked_main(void *arg)
{
    struct parked *parked = arg;
    if (!parked->theirs)
        self = parked;
    parked->run(parked->arg);
    atomic_store(&parked->done, true);
    return NULL;
}
#endif

static bool reaches(const struct parked *parked)
{
    while (!atomic_load(&parked->reached) && !atomic_load(&parked->done))
        sched_yield();
    return atomic_load(&parked->reached);
}

/* The fields of PARKED are set. */
static bool start(struct parked *parked)
{
#ifdef NDEBUG
    (void)parked;
    fail_msg("no PARK points in this build");
    return false;
#else
    atomic_store(&parked->closed, true);
    atomic_store(&bfti_park, stop_here);
    if (parked->theirs) {
        atomic_store(&offered, parked);
        atomic_store(&offered_at, parked->theirs);
    }
    assert_int_equal(
        0, pthread_create(&parked->thread, NULL, parked_main, parked));
    return reaches(parked);
#endif
}

bool park_start(struct parked *parked, const char *point, unsigned skip,
                void (*run)(void *arg), void *arg)
{
    memset(parked, 0, sizeof(*parked));
    atomic_store(&parked->point, point);
    parked->run = run;
    parked->arg = arg;
    atomic_store(&parked->skip, skip);
    return start(parked);
}

bool park_start_theirs(struct parked *parked, const char *theirs,
                       const char *point, void (*run)(void *arg), void *arg)
{
    memset(parked, 0, sizeof(*parked));
    atomic_store(&parked->point, point);
    parked->theirs = theirs;
    parked->run = run;
    parked->arg = arg;
    return start(parked);
}

bool park_move(struct parked *parked, const char *point)
{
    assert_null(parked->theirs);
    atomic_store(&parked->reached, false);
    atomic_store(&parked->point, point);
    return reaches(parked);
}

void park_end(struct parked *parked)
{
    atomic_store(&parked->closed, false);
    /* Nobody else keeps a thread of the library's from using PARKED. */
    while (parked->theirs && !atomic_load(&parked->left))
        sched_yield();
    assert_int_equal(0, pthread_join(parked->thread, NULL));
}
