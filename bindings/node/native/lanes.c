/* See lanes.h. */
#include "lanes.h"

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

enum { WORKERS_MAX = 4, WAITERS_MAX = 16, STACK_BYTES = 1 << 20 };

struct lane {
    unsigned threads_max; /* fixed */
    pthread_mutex_t lock;
    pthread_cond_t pushed;
    /* Under lock: */
    struct bftn_task *first, **last;
    unsigned waiting; /* tasks in the queue */
    unsigned threads, idle;
};

static struct lane lanes[BFTN_LANES] = {
    [BFTN_LANE_WORK] = {.threads_max = WORKERS_MAX,
                        .lock = PTHREAD_MUTEX_INITIALIZER,
                        .pushed = PTHREAD_COND_INITIALIZER,
                        .last = &lanes[BFTN_LANE_WORK].first},
    [BFTN_LANE_WAIT] = {.threads_max = WAITERS_MAX,
                        .lock = PTHREAD_MUTEX_INITIALIZER,
                        .pushed = PTHREAD_COND_INITIALIZER,
                        .last = &lanes[BFTN_LANE_WAIT].first},
};

/* The next task; the lock is held before and after. */
static struct bftn_task *next_task(struct lane *lane)
{
    struct bftn_task *task;

    lane->idle++;
    while (lane->first == NULL)
        (void)pthread_cond_wait(&lane->pushed, &lane->lock);
    lane->idle--;
    task = lane->first;
    lane->first = task->next;
    if (lane->first == NULL)
        lane->last = &lane->first;
    lane->waiting--;
    return task;
}

static void *lane_thread(void *arg)
{
    struct lane *lane = arg;

    (void)pthread_mutex_lock(&lane->lock);
    for (;;) {
        struct bftn_task *task = next_task(lane);

        (void)pthread_mutex_unlock(&lane->lock);
        task->run(task);
        (void)pthread_mutex_lock(&lane->lock);
    }
    return NULL;
}

/* Signals are for the program's own threads, but for those that a thread's own
 * fault raises: where they are blocked no handler of the program is asked. */
static void fill_blocked(sigset_t *blocked)
{
    static const int own[] = {SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGTRAP, SIGSYS};

    (void)sigfillset(blocked);
    for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
        (void)sigdelset(blocked, own[i]);
}

/* One more thread, under the lock. */
static bool thread_add(struct lane *lane)
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t blocked;
    sigset_t before;
    bool started;

    if (pthread_attr_init(&attributes) != 0)
        return false;
    (void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    (void)pthread_attr_setstacksize(&attributes, STACK_BYTES);
    fill_blocked(&blocked);
    (void)pthread_sigmask(SIG_SETMASK, &blocked, &before);
    started = pthread_create(&thread, &attributes, lane_thread, lane) == 0;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    (void)pthread_attr_destroy(&attributes);
    if (started)
        lane->threads++;
    return started;
}

bft_status bftn_lanes_push(enum bftn_lane which, struct bftn_task *task)
{
    struct lane *lane = &lanes[which];
    bft_status status = BFT_OK;

    (void)pthread_mutex_lock(&lane->lock);
    /* A thread just started is not idle yet: it may be one too many. */
    if (lane->waiting >= lane->idle && lane->threads < lane->threads_max &&
        !thread_add(lane) && lane->threads == 0)
        status = BFT_NO_MEMORY;
    if (status == BFT_OK) {
        task->next = NULL;
        *lane->last = task;
        lane->last = &task->next;
        lane->waiting++;
    }
    (void)pthread_mutex_unlock(&lane->lock);
    if (status == BFT_OK)
        (void)pthread_cond_signal(&lane->pushed);
    return status;
}
