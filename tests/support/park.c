#include "park.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "fileio/fault.h"

#ifndef NDEBUG
static _Thread_local struct parked *self;

static void stop_here(const char *point)
{
    if (!self || !atomic_load(&self->closed) || strcmp(point, self->point) != 0)
        return;
    if (atomic_load(&self->skip)) {
        atomic_fetch_sub(&self->skip, 1);
        return;
    }
    atomic_store(&self->reached, true);
    while (atomic_load(&self->closed))
        sched_yield();
}

static void *parked_main(void *arg)
{
    self = arg;
    self->run(self->arg);
    atomic_store(&self->done, true);
    return NULL;
}
#endif

bool park_start(struct parked *parked, const char *point, unsigned skip,
                void (*run)(void *arg), void *arg)
{
    memset(parked, 0, sizeof(*parked));
    parked->point = point;
    parked->run = run;
    parked->arg = arg;
    atomic_store(&parked->skip, skip);
#ifdef NDEBUG
    fail_msg("no PARK points in this build");
    return false;
#else
    atomic_store(&parked->closed, true);
    atomic_store(&bfti_park, stop_here);
    assert_int_equal(
        0, pthread_create(&parked->thread, NULL, parked_main, parked));
    while (!atomic_load(&parked->reached) && !atomic_load(&parked->done))
        sched_yield();
    return atomic_load(&parked->reached);
#endif
}

void park_end(struct parked *parked)
{
    atomic_store(&parked->closed, false);
    assert_int_equal(0, pthread_join(parked->thread, NULL));
}
