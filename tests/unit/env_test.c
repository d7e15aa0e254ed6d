/*
 * The real surroundings: threads, waiting, memory, numbers, and what a fork
 * leaves of them and of open files.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fileio/fileio.h"

enum { THREADS = 4, MAP_LEN = 8192 };

static const struct bfti_env *env;

static struct bfti_thread *start(void (*run)(void *arg), void *arg)
{
    struct bfti_thread *thread;

    assert_int_equal(BFT_OK, env->thread_start(env->ctx, run, arg, &thread));
    assert_non_null(thread);
    return thread;
}

static void join(struct bfti_thread *thread)
{
    env->thread_join(env->ctx, thread);
}

/* --- the mutex ------------------------------------------------------------ */

struct counted {
    struct bfti_mutex mutex;
    uint64_t count; /* under mutex; not atomic, so that a race shows */
};

enum { TURNS = 20000 };

static void count_up(void *arg)
{
    struct counted *c = arg;

    for (int i = 0; i < TURNS; i++) {
        bfti_mutex_lock(env, &c->mutex);
        c->count++;
        if (i % 1000 == 0)
            env->yield(env->ctx);
        bfti_mutex_unlock(env, &c->mutex);
    }
}

static void the_mutex_excludes(void **state)
{
    struct counted c = {0};
    struct bfti_thread *threads[THREADS];

    (void)state;
    for (int i = 0; i < THREADS; i++)
        threads[i] = start(count_up, &c);
    for (int i = 0; i < THREADS; i++)
        join(threads[i]);
    assert_int_equal((uint64_t)THREADS * TURNS, c.count);
    assert_int_equal(0, atomic_load(&c.mutex.word));
}

struct contender {
    struct bfti_mutex mutex;
    _Atomic bool taken;
};

static void take_and_release(void *arg)
{
    struct contender *c = arg;

    bfti_mutex_lock(env, &c->mutex);
    atomic_store(&c->taken, true);
    bfti_mutex_unlock(env, &c->mutex);
}

static void a_sleeper_gets_the_mutex_when_it_is_free(void **state)
{
    struct contender c = {0};
    struct bfti_thread *thread;

    (void)state;
    assert_true(bfti_mutex_try(&c.mutex));
    assert_false(bfti_mutex_try(&c.mutex));
    thread = start(take_and_release, &c);
    /* Until it sleeps, or is just about to. */
    while (atomic_load(&c.mutex.word) != 2)
        env->yield(env->ctx);
    assert_false(atomic_load(&c.taken));
    bfti_mutex_unlock(env, &c.mutex);
    join(thread);
    assert_true(atomic_load(&c.taken));
    assert_true(bfti_mutex_try(&c.mutex));
    bfti_mutex_unlock(env, &c.mutex);
}

/* --- wait and wake -------------------------------------------------------- */

struct gate {
    _Atomic uint32_t word;
    _Atomic uint32_t waiting;
};

static void wait_at_gate(void *arg)
{
    struct gate *gate = arg;

    atomic_fetch_add(&gate->waiting, 1);
    while (atomic_load(&gate->word) == 0)
        env->wait(env->ctx, &gate->word, 0, UINT64_MAX);
}

static void wake_ends_every_wait(void **state)
{
    struct gate gate = {0};
    struct bfti_thread *threads[THREADS];

    (void)state;
    for (int i = 0; i < THREADS; i++)
        threads[i] = start(wait_at_gate, &gate);
    while (atomic_load(&gate.waiting) < THREADS)
        env->yield(env->ctx);
    atomic_store(&gate.word, 1);
    env->wake(env->ctx, &gate.word, true);
    for (int i = 0; i < THREADS; i++)
        join(threads[i]);
}

/* --- threads -------------------------------------------------------------- */

static void note_mask(void *arg)
{
    pthread_sigmask(SIG_SETMASK, NULL, arg);
}

static void our_threads_take_no_signals(void **state)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGCHLD, SIGUSR1, SIGALRM};
    sigset_t theirs;
    sigset_t ours;

    (void)state;
    sigemptyset(&theirs);
    join(start(note_mask, &theirs));
    pthread_sigmask(SIG_SETMASK, NULL, &ours);
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        assert_int_equal(1, sigismember(&theirs, signals[i]));
        assert_int_equal(0, sigismember(&ours, signals[i]));
    }
}

/* --- numbers -------------------------------------------------------------- */

enum { NUMBERS = 1000 };

static void draw(void *arg)
{
    uint64_t *numbers = arg;

    for (int i = 0; i < NUMBERS; i++)
        numbers[i] = env->random(env->ctx);
}

static int compare_numbers(const void *one, const void *two)
{
    uint64_t a = *(const uint64_t *)one;
    uint64_t b = *(const uint64_t *)two;

    return a < b ? -1 : a > b;
}

static void no_two_threads_draw_one_number(void **state)
{
    static uint64_t numbers[THREADS * NUMBERS];
    struct bfti_thread *threads[THREADS];

    (void)state;
    for (int i = 0; i < THREADS; i++)
        threads[i] = start(draw, numbers + (size_t)i * NUMBERS);
    for (int i = 0; i < THREADS; i++)
        join(threads[i]);
    qsort(numbers, THREADS * NUMBERS, sizeof(numbers[0]), compare_numbers);
    for (size_t i = 1; i < THREADS * NUMBERS; i++)
        assert_true(numbers[i - 1] != numbers[i]);
}

/* --- fork ------------------------------------------------------------------ */

/* Runs CHECK(ARG) in a child; 0 when it returned 0 there. */
static int in_child(int (*check)(void *arg), void *arg)
{
    int status;
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0)
        _exit(check(arg));
    assert_int_equal(child, waitpid(child, &status, 0));
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int check_generation(void *arg)
{
    const uint32_t *before = arg;

    if (bfti_fork_generation() == *before)
        return 1;
    return bfti_fork_generation() == 0 ? 2 : 0;
}

static void a_child_is_another_generation(void **state)
{
    uint32_t before = bfti_fork_generation();

    (void)state;
    assert_int_not_equal(0, before);
    assert_int_equal(0, in_child(check_generation, &before));
    assert_int_equal(before, bfti_fork_generation());
}

static int send_number(void *arg)
{
    uint64_t number = env->random(env->ctx);
    const int *pipe_fds = arg;

    return write(pipe_fds[1], &number, sizeof(number)) != sizeof(number);
}

static void a_child_draws_other_numbers(void **state)
{
    uint64_t theirs[2];
    uint64_t ours;
    int fds[2];

    (void)state;
    (void)env->random(env->ctx);
    assert_int_equal(0, pipe(fds));
    for (int i = 0; i < 2; i++) {
        assert_int_equal(0, in_child(send_number, fds));
        assert_int_equal(sizeof(theirs[i]),
                         read(fds[0], &theirs[i], sizeof(theirs[i])));
    }
    ours = env->random(env->ctx);
    assert_true(theirs[0] != theirs[1]);
    assert_true(theirs[0] != ours && theirs[1] != ours);
    close(fds[0]);
    close(fds[1]);
}

static void leave_well(int signal)
{
    (void)signal;
    _exit(0);
}

static void store_past_the_end(void *arg)
{
    *(volatile char *)arg = 's';
}

/* Returns only if no handler is called. */
static int meet_a_fault(void *arg)
{
    char *page = mmap(NULL, MAP_LEN, PROT_READ | PROT_WRITE, MAP_SHARED,
                      *(const int *)arg, 0);

    if (page == MAP_FAILED || signal(SIGBUS, leave_well) == SIG_ERR)
        return 2;
    join(start(store_past_the_end, page));
    return 1;
}

/* Where such a signal is blocked, none is called. */
static void a_fault_of_our_thread_reaches_the_handler(void **state)
{
    static const int signals[] = {SIGBUS, SIGSEGV, SIGFPE,
                                  SIGILL, SIGTRAP, SIGSYS};
    FILE *empty = tmpfile();
    sigset_t theirs;
    int fd;

    (void)state;
    sigemptyset(&theirs);
    join(start(note_mask, &theirs));
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        assert_int_equal(0, sigismember(&theirs, signals[i]));
    assert_non_null(empty);
    fd = fileno(empty);
    assert_int_equal(0, in_child(meet_a_fault, &fd));
    fclose(empty);
}

struct forked {
    char path[300];
    struct bfti_file *file;
    void *map;
    int ready[2]; /* the child writes */
    int leave[2]; /* the parent closes */
};

static struct bfti_file *open_file(const char *path)
{
    struct bfti_vfs *vfs = bfti_vfs_posix();
    struct bfti_file *file;

    assert_int_equal(BFT_OK,
                     vfs->ops->open(vfs, path, BFTI_OPEN_CREATE, &file));
    return file;
}

static void forked_open(struct forked *f)
{
    static const char zeros[MAP_LEN];
    const char *tmp = getenv("TMPDIR");

    snprintf(f->path, sizeof(f->path), "%s/env_test_XXXXXX",
             tmp != NULL ? tmp : "/tmp");
    close(mkstemp(f->path));
    f->file = open_file(f->path);
    assert_int_equal(BFT_OK, f->file->ops->write(f->file, 0, zeros, MAP_LEN));
    assert_int_equal(BFT_OK, f->file->ops->lock(f->file));
    assert_int_equal(BFT_OK, f->file->ops->map(f->file, MAP_LEN, &f->map));
}

static int use_inherited(void *arg)
{
    struct forked *f = arg;
    const struct bfti_vfs_ops *ops = f->file->ops;
    uint64_t size;
    size_t got;
    char byte = 'x';
    char text[400];
    void *map;

    if (ops->read(f->file, 0, &byte, 1, &got) != BFT_FORKED)
        return 1;
    if (ops->write(f->file, 0, &byte, 1) != BFT_FORKED)
        return 2;
    if (ops->sync(f->file) != BFT_FORKED)
        return 3;
    if (ops->size(f->file, &size) != BFT_FORKED)
        return 4;
    if (ops->truncate(f->file, 0) != BFT_FORKED)
        return 5;
    if (ops->lock(f->file) != BFT_FORKED)
        return 6;
    if (ops->lock_shared(f->file) != BFT_FORKED)
        return 10;
    if (ops->map(f->file, MAP_LEN, &map) != BFT_FORKED)
        return 7;
    if (ops->punch(f->file, 0, 1) != BFT_FORKED)
        return 8;
    bft_last_error(text, sizeof(text));
    if (strstr(text, f->path) == NULL)
        return 9;
    /* Closing is allowed, and reaches nothing of the parent's. */
    ops->unmap(f->file, f->map, MAP_LEN);
    ops->close(f->file);
    return 0;
}

static void a_child_cannot_use_what_it_inherited(void **state)
{
    struct forked f = {0};
    char byte;
    size_t got;

    (void)state;
    forked_open(&f);
    assert_int_equal(0, in_child(use_inherited, &f));
    memcpy(f.map, "ours", 4);
    assert_int_equal(BFT_OK, f.file->ops->read(f.file, 0, &byte, 1, &got));
    assert_int_equal('o', byte);
    f.file->ops->unmap(f.file, f.map, MAP_LEN);
    f.file->ops->close(f.file);
    unlink(f.path);
}

/* A child that lives on, having called nothing of ours. */
static pid_t start_idle_child(struct forked *f)
{
    char byte = 0;
    pid_t child;

    assert_int_equal(0, pipe(f->ready));
    assert_int_equal(0, pipe(f->leave));
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        close(f->leave[1]);
        if (write(f->ready[1], &byte, 1) != 1)
            _exit(1);
        /* Until the parent closes its end. */
        _exit(read(f->leave[0], &byte, 1) != 0);
    }
    assert_int_equal(1, read(f->ready[0], &byte, 1));
    return child;
}

static void a_child_does_not_keep_its_parents_lock(void **state)
{
    struct forked f = {0};
    struct bfti_file *again;
    pid_t child;
    int status;

    (void)state;
    forked_open(&f);
    child = start_idle_child(&f);

    /* The parent holds it as long as it is open... */
    again = open_file(f.path);
    assert_int_equal(BFT_BUSY, again->ops->lock(again));
    /* ... and the child, which is still there, does not hold it then. */
    f.file->ops->unmap(f.file, f.map, MAP_LEN);
    f.file->ops->close(f.file);
    assert_int_equal(BFT_OK, again->ops->lock(again));
    again->ops->close(again);

    close(f.leave[1]);
    assert_int_equal(child, waitpid(child, &status, 0));
    assert_int_equal(0, status);
    close(f.leave[0]);
    close(f.ready[0]);
    close(f.ready[1]);
    unlink(f.path);
}

static int lock_again(void *arg)
{
    struct forked *f = arg;
    struct bfti_file *file = open_file(f->path);

    return file->ops->lock(file) != BFT_BUSY;
}

static void another_process_is_kept_out(void **state)
{
    struct forked f = {0};

    (void)state;
    forked_open(&f);
    assert_int_equal(0, in_child(lock_again, &f));
    f.file->ops->unmap(f.file, f.map, MAP_LEN);
    f.file->ops->close(f.file);
    unlink(f.path);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_mutex_excludes),
        cmocka_unit_test(a_sleeper_gets_the_mutex_when_it_is_free),
        cmocka_unit_test(wake_ends_every_wait),
        cmocka_unit_test(our_threads_take_no_signals),
        cmocka_unit_test(a_fault_of_our_thread_reaches_the_handler),
        cmocka_unit_test(no_two_threads_draw_one_number),
        cmocka_unit_test(a_child_is_another_generation),
        cmocka_unit_test(a_child_draws_other_numbers),
        cmocka_unit_test(a_child_cannot_use_what_it_inherited),
        cmocka_unit_test(a_child_does_not_keep_its_parents_lock),
        cmocka_unit_test(another_process_is_kept_out),
    };

    env = bfti_env_system();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
