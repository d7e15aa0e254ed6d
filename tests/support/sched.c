/*
 * Threads are contexts of ucontext.h with stacks of their own; whoever gives up
 * its turn switches to the next one itself.  What a thread of the system has of
 * its own in the library goes in and out with them: bfti_error_swap(),
 * bfti_threads_swap().  The sanitizers are told of each switch.
 */
#include "sched.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "buffer/threads_internal.h"
#include "fileio/alloc.h"
#include "fileio/fault.h"
#include "random.h"

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#ifdef WITH_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#if BFTI_TSAN
#include <sanitizer/tsan_interface.h>
#endif

enum {
    THREADS_MAX = SCHED_THREADS_MAX,
    STACK = 512 << 10,
    GUARD = 64 << 10,
    POINT_NS = 200,
    STALL_NS = 20 * 1000 * 1000,
};

enum state { READY, WAITING, SLEEPING, ENDED };

struct bfti_thread {
    struct sched *s;
    unsigned number;
    enum state state;
    _Atomic uint32_t *word; /* that it waits at */
    struct bfti_thread *joins;
    uint64_t until; /* UINT64_MAX: for ever */
    void (*run)(void *arg);
    void *arg;
    const char *at; /* the point that it came to last */
    ucontext_t context;
    void *stack; /* GUARD first */
    /* Of the thread that runs: what the program's thread has. */
    struct bfti_error_own error;
    struct bfti_threads_own threads;
    /* For the address sanitizer: its stack, and what it keeps of it. */
    const void *bottom;
    size_t bytes;
    void *fake;
    void *tsan;
};

struct sched {
    struct bfti_env env;
    struct bfti_thread *thread[THREADS_MAX];
    unsigned count, live;
    struct bfti_thread home; /* where sched_run() was called */
    struct bfti_thread *current;
    const struct sched_guide *guide; /* or NULL */
    uint64_t random, points_max;
    struct sched_counts counts;
    char failure[1500];
};

/* The one that runs: for PARK points, which know of none. */
static struct sched *running;

/* --- numbers --------------------------------------------------------------- */

uint64_t sched_random(struct sched *s)
{
    return random_of(&s->random);
}

void sched_trace(struct sched *s, uint64_t what)
{
    s->counts.trace =
        random_mix((s->counts.trace ^ what) + UINT64_C(0x9e3779b97f4a7c15));
}

struct sched_counts sched_counts(const struct sched *s)
{
    return s->counts;
}

const char *sched_failure(const struct sched *s)
{
    return s->failure;
}

unsigned sched_self(const struct sched *s)
{
    return s->current->number;
}

/* --- switching -------------------------------------------------------------- */

static void swap_own(struct bfti_thread *thread)
{
    bfti_error_swap(&thread->error);
    bfti_threads_swap(&thread->threads);
}

static void announce(struct bfti_thread *from, struct bfti_thread *to)
{
#ifdef WITH_ASAN
    __sanitizer_start_switch_fiber(from->state == ENDED ? NULL : &from->fake,
                                   to->bottom, to->bytes);
#endif
#if BFTI_TSAN
    from->tsan = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(to->tsan, 0);
#endif
    (void)from, (void)to;
}

/* NOW has the turn, for the first time or again. */
static void arrived(struct bfti_thread *now)
{
#ifdef WITH_ASAN
    const void *bottom;
    size_t bytes;

    __sanitizer_finish_switch_fiber(now->fake, &bottom, &bytes);
    if (now->s->home.bottom == NULL) { /* only the first comes from there */
        now->s->home.bottom = bottom;
        now->s->home.bytes = bytes;
    }
#endif
    (void)now;
}

static void switch_to(struct sched *s, struct bfti_thread *to)
{
    struct bfti_thread *from = s->current;

    if (from == to)
        return;
    if (from != &s->home)
        swap_own(from);
    if (to != &s->home)
        swap_own(to);
    s->counts.switches++;
    sched_trace(s, to->number);
    s->current = to;
    announce(from, to);
    if (swapcontext(&from->context, &to->context) != 0)
        abort();
    arrived(from);
}

static void go_home(struct sched *s)
{
    switch_to(s, &s->home);
}

void sched_fail(struct sched *s, const char *text)
{
    if (s->failure[0] == '\0')
        snprintf(s->failure, sizeof(s->failure), "%s", text);
    go_home(s);
    abort(); /* nobody comes back */
}

/* --- whose turn it is -------------------------------------------------------- */

/* Those whose time has come are ready. */
static void wake_sleepers(struct sched *s)
{
    for (unsigned i = 0; i < s->count; i++) {
        struct bfti_thread *thread = s->thread[i];

        if ((thread->state == SLEEPING || thread->state == WAITING) &&
            thread->until <= s->counts.now_ns)
            thread->state = READY;
    }
}

/* One that is ready, and not BUT; NULL: there is none. */
static struct bfti_thread *draw_ready(struct sched *s,
                                      const struct bfti_thread *but)
{
    struct sched_choice choice = {.at = s->current->at,
                                  .self = s->current->number,
                                  .goes_on = s->current->state == READY &&
                                             s->current != but};

    for (unsigned i = 0; i < s->count; i++)
        if (s->thread[i]->state == READY && s->thread[i] != but)
            choice.ready[choice.count++] = i;
    if (choice.count == 0)
        return NULL;
    if (s->guide)
        return s->thread[s->guide->choose(s->guide->arg, &choice)];
    return s->thread[choice.ready[sched_below(s, choice.count)]];
}

static void tell_deadlock(struct sched *s)
{
    size_t n = (size_t)snprintf(s->failure, sizeof(s->failure),
                                "all threads wait for each other:");

    for (unsigned i = 0; i < s->count && n < sizeof(s->failure); i++)
        if (s->thread[i]->state != ENDED)
            n += (size_t)snprintf(s->failure + n, sizeof(s->failure) - n,
                                  " %u at %s;", i, s->thread[i]->at);
}

/* The calling thread is not ready: somebody else is, or time passes. */
static struct bfti_thread *draw_next(struct sched *s)
{
    for (;;) {
        struct bfti_thread *next = draw_ready(s, NULL);
        uint64_t first = UINT64_MAX;

        if (next != NULL)
            return next;
        for (unsigned i = 0; i < s->count; i++)
            if (s->thread[i]->state != ENDED && s->thread[i]->until < first)
                first = s->thread[i]->until;
        if (first == UINT64_MAX) {
            tell_deadlock(s);
            return &s->home;
        }
        s->counts.now_ns = first;
        wake_sleepers(s);
    }
}

/* Time passes and others' sleep ends; has the run gone on for too long? */
static void count_point(struct sched *s, const char *name)
{
    s->current->at = name;
    s->counts.now_ns += POINT_NS;
    wake_sleepers(s);
    if (++s->counts.points > s->points_max) {
        char text[200];

        snprintf(text, sizeof(text), "no end after %llu points; last at %s",
                 (unsigned long long)s->counts.points, name);
        sched_fail(s, text);
    }
}

/* Give up the turn until TIME, or until somebody changes the state. */
static void give_up(struct sched *s, enum state state, uint64_t until)
{
    s->current->state = state;
    s->current->until = until;
    switch_to(s, draw_next(s));
}

static uint64_t later(const struct sched *s, uint64_t ns)
{
    return ns < UINT64_MAX - s->counts.now_ns ? s->counts.now_ns + ns
                                              : UINT64_MAX;
}

void sched_sleep(struct sched *s, uint64_t ns)
{
    count_point(s, "sleep");
    give_up(s, SLEEPING, later(s, ns));
}

void sched_step(struct sched *s, const char *name)
{
    struct bfti_thread *next;

    count_point(s, name);
    if (s->guide == NULL && s->counts.stall_every != UINT32_MAX &&
        sched_below(s, s->counts.stall_every) == 0) {
        s->counts.stalls++;
        give_up(s, SLEEPING, later(s, 1 + sched_below(s, STALL_NS)));
        return;
    }
    if (s->guide == NULL && s->counts.switch_every > 1 &&
        sched_below(s, s->counts.switch_every) != 0)
        return;
    next = draw_ready(s, NULL);
    assert(next != NULL); /* at least the caller */
    switch_to(s, next);
}

/* --- surroundings ------------------------------------------------------------ */

/* Does the caller have a turn to give?  Not within what is no thread of a run:
 * while a database is opened outside, say. */
static bool is_inside(const struct sched *s)
{
    return running == s && s->current != &s->home;
}

static uint64_t env_now_ns(void *ctx)
{
    struct sched *s = ctx;

    return ++s->counts.now_ns; /* so that who looks until it has come ends */
}

static uint64_t env_wall_ms(void *ctx)
{
    const struct sched *s = ctx;

    return UINT64_C(1700000000000) + s->counts.now_ns / 1000000;
}

static uint64_t env_random(void *ctx)
{
    return sched_random(ctx);
}

static void env_wait(void *ctx, _Atomic uint32_t *word, uint32_t expected,
                     uint64_t timeout_ns)
{
    struct sched *s = ctx;

    if (!is_inside(s))
        abort(); /* nobody else runs: this would not end */
    sched_step(s, "wait");
    if (atomic_load(word) != expected)
        return;
    if (s->guide == NULL && sched_below(s, 64) == 0)
        return; /* it may return early, and so it does */
    s->current->word = word;
    give_up(s, WAITING, later(s, timeout_ns));
    s->current->word = NULL;
}

static void env_wake(void *ctx, _Atomic uint32_t *word, bool all)
{
    struct sched *s = ctx;
    struct bfti_thread *waiting[THREADS_MAX];
    size_t n = 0, first, woken;

    for (unsigned i = 0; i < s->count; i++)
        if (s->thread[i]->state == WAITING && s->thread[i]->word == word)
            waiting[n++] = s->thread[i];
    if (n > 0) {
        first = all || s->guide ? 0 : sched_below(s, n);
        woken = all ? n : 1;
        for (size_t i = first; i < first + woken; i++)
            waiting[i]->state = READY;
    }
    if (is_inside(s))
        sched_step(s, "wake");
}

static void env_yield(void *ctx)
{
    struct sched *s = ctx;
    struct bfti_thread *next;

    if (!is_inside(s))
        return;
    count_point(s, "yield");
    next = draw_ready(s, s->current);
    if (next != NULL)
        switch_to(s, next);
    else /* whom it waits for sleeps */
        s->counts.now_ns += 1000;
}

static void env_step(void *ctx)
{
    struct sched *s = ctx;

    if (is_inside(s))
        sched_step(s, "lock");
}

static void *env_alloc(void *ctx, size_t bytes)
{
    struct sched *s = ctx;
    void *block;

    env_step(s);
    block = bfti_system_alloc(NULL, bytes);
    s->counts.blocks += block != NULL;
    return block;
}

static void *env_realloc(void *ctx, void *old, size_t bytes)
{
    struct sched *s = ctx;
    void *block;

    env_step(s);
    block = bfti_system_realloc(NULL, old, bytes);
    s->counts.blocks += block != NULL && old == NULL;
    return block;
}

static void env_free(void *ctx, void *block)
{
    struct sched *s = ctx;

    s->counts.blocks -= block != NULL;
    bfti_system_free(NULL, block);
}

#ifndef NDEBUG
static void at_park(const char *point)
{
    if (running != NULL && is_inside(running))
        sched_step(running, point);
}
#endif

/* --- threads ------------------------------------------------------------------ */

/* The stacks of runs before this one. */
static void *spare[THREADS_MAX];
static unsigned spares;

static void *take_stack(void)
{
    void *at;

    if (spares > 0)
        return spare[--spares];
    at = mmap(NULL, GUARD + STACK, PROT_READ | PROT_WRITE,
              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return NULL;
    if (mprotect(at, GUARD, PROT_NONE) != 0)
        abort();
    return at;
}

static void give_stack(void *stack)
{
    if (spares < THREADS_MAX)
        spare[spares++] = stack;
    else if (munmap(stack, GUARD + STACK) != 0)
        abort();
}

static void thread_main(void)
{
    struct sched *s = running;
    struct bfti_thread *self = s->current;

    arrived(self);
    self->run(self->arg);
    bfti_threads_leave();
    self->state = ENDED;
    self->until = UINT64_MAX;
    s->live--;
    for (unsigned i = 0; i < s->count; i++)
        if (s->thread[i]->joins == self) {
            s->thread[i]->joins = NULL;
            s->thread[i]->state = READY;
        }
    switch_to(s, s->live > 0 ? draw_next(s) : &s->home);
    abort(); /* nobody switches to what has ended */
}

static void prepare_context(struct bfti_thread *thread)
{
    if (getcontext(&thread->context) != 0)
        abort();
    thread->context.uc_stack.ss_sp = (char *)thread->stack + GUARD;
    thread->context.uc_stack.ss_size = STACK;
    makecontext(&thread->context, thread_main, 0);
}

static bft_status env_thread_start(void *ctx, void (*run)(void *arg), void *arg,
                                   struct bfti_thread **out)
{
    struct sched *s = ctx;
    struct bfti_thread *thread = NULL;
    void *stack = NULL;

    *out = NULL;
    if (s->count < THREADS_MAX && (stack = take_stack()) != NULL)
        thread = calloc(1, sizeof(*thread));
    if (thread == NULL) {
        if (stack != NULL)
            give_stack(stack);
        return bfti_fail(BFT_NO_MEMORY, "schedule: no room for a thread");
    }
    thread->s = s;
    thread->number = s->count;
    thread->run = run;
    thread->arg = arg;
    thread->at = "its start";
    thread->until = UINT64_MAX;
    thread->stack = stack;
    thread->bottom = (char *)stack + GUARD;
    thread->bytes = STACK;
    prepare_context(thread);
#if BFTI_TSAN
    thread->tsan = __tsan_create_fiber(0);
#endif
    s->thread[s->count++] = thread;
    s->live++;
    *out = thread;
    if (is_inside(s))
        sched_step(s, "start");
    return BFT_OK;
}

static void env_thread_join(void *ctx, struct bfti_thread *thread)
{
    struct sched *s = ctx;

    sched_step(s, "join");
    while (thread->state != ENDED) {
        s->current->joins = thread;
        give_up(s, WAITING, UINT64_MAX);
    }
}

static void thread_free(struct bfti_thread *thread)
{
#if BFTI_TSAN
    __tsan_destroy_fiber(thread->tsan);
#endif
    give_stack(thread->stack);
    free(thread);
}

/* --- runs ---------------------------------------------------------------------- */

static unsigned draw_of(struct sched *s, unsigned given, const unsigned *some,
                        size_t n)
{
    unsigned drawn = some[sched_below(s, n)];

    return given ? given : drawn;
}

struct sched *sched_make(const struct sched_options *options)
{
    static const unsigned switch_every[] = {1, 2, 4, 8, 16, 64, 256};
    static const unsigned stall_every[] = {300, 1000, 5000, 20000, UINT32_MAX};
    struct sched *s = calloc(1, sizeof(*s));

    assert(s);
    s->guide = options->guide;
    s->random = random_mix(options->seed + 1);
    s->counts.switch_every =
        draw_of(s, options->switch_every, switch_every,
                sizeof(switch_every) / sizeof(*switch_every));
    s->counts.stall_every = draw_of(s, options->stall_every, stall_every,
                                    sizeof(stall_every) / sizeof(*stall_every));
    s->points_max = options->points_max ? options->points_max : 20000000;
    s->home = (struct bfti_thread){
        .s = s, .number = THREADS_MAX, .until = UINT64_MAX, .at = "home"};
    s->current = &s->home;
    s->env = (struct bfti_env){
        .ctx = s,
        .now_ns = env_now_ns,
        .wall_ms = env_wall_ms,
        .random = env_random,
        .thread_start = env_thread_start,
        .thread_join = env_thread_join,
        .wait = env_wait,
        .wake = env_wake,
        .yield = env_yield,
        .step = env_step,
        .alloc = env_alloc,
        .realloc = env_realloc,
        .free = env_free,
    };
    return s;
}

void sched_free(struct sched *s)
{
    assert(running != s);
    for (unsigned i = 0; i < s->count; i++)
        thread_free(s->thread[i]);
    free(s);
}

const struct bfti_env *sched_env(struct sched *s)
{
    return &s->env;
}

bool sched_run(struct sched *s, void (*main)(void *arg), void *arg)
{
    struct bfti_thread *first;

    assert(running == NULL && s->count == 0);
    if (env_thread_start(s, main, arg, &first) != BFT_OK)
        return false;
    running = s;
#ifndef NDEBUG
    atomic_store(&bfti_park, at_park);
#endif
    switch_to(s, first);
#ifndef NDEBUG
    atomic_store(&bfti_park, NULL);
#endif
    running = NULL;
    return s->failure[0] == '\0' && s->live == 0;
}
