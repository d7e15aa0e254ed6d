/*
 * Linux: membarrier(2) for the fence in other threads, a pthread key for the
 * end of a thread, mmap(2) for address space.
 */
#include "os.h"

#include <assert.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "once.h"
#include "threads_internal.h"

/* --- fences -------------------------------------------------------------- */

static long membarrier(int command)
{
    return syscall(SYS_membarrier, command, 0, 0);
}

bool bfti_os_fence_init(void)
{
    long commands = membarrier(MEMBARRIER_CMD_QUERY);
    const long needed = MEMBARRIER_CMD_PRIVATE_EXPEDITED |
                        MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED;

    if (commands < 0 || (commands & needed) != needed)
        return false;
    /* Holds for the process and, after a fork, for its child. */
    return membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0;
}

void bfti_os_fence_all(void)
{
    /* Once registered the call fails only while the kernel lacks a few bytes
     * for a processor mask.  Readers rely on it, so there is no other way out
     * than to have it done; the loop ends when the kernel has them. */
    while (membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) != 0)
        (void)sched_yield();
}

/* --- the process lock and the end of a thread ----------------------------- */

static pthread_mutex_t process_lock = PTHREAD_MUTEX_INITIALIZER;
static struct bfti_once once = BFTI_ONCE;
static bool forks_watched;     /* by init(), one call at a time */
static pthread_key_t exit_key; /* fixed once that is done */

void bfti_os_process_lock(void)
{
    int error = pthread_mutex_lock(&process_lock);

    assert(error == 0);
    (void)error;
}

void bfti_os_process_unlock(void)
{
    int error = pthread_mutex_unlock(&process_lock);

    assert(error == 0);
    (void)error;
}

static void thread_exits(void *value)
{
    (void)value;
    bfti_threads_leave();
}

static void init(void)
{
    /* A fork while another thread holds the lock would leave it held in the
     * child for ever, and with it every thread end there.  Never call this
     * under the lock: the C library may run the handlers under the one that
     * guards their list. */
    if (!forks_watched)
        forks_watched =
            pthread_atfork(bfti_os_process_lock, bfti_os_process_unlock,
                           bfti_os_process_unlock) == 0;
    if (forks_watched)
        atomic_store(&once.done,
                     pthread_key_create(&exit_key, thread_exits) == 0);
}

bool bfti_os_init(void)
{
    return bfti_once(&once, init);
}

bool bfti_os_at_thread_exit(void)
{
    /* Any value but NULL: the handler runs for those only. */
    return pthread_setspecific(exit_key, &exit_key) == 0;
}

/* --- address space -------------------------------------------------------- */

/* From here on huge pages pay: a pool is met in random order, and with small
 * ones most visits would miss the processor's address cache. */
enum { HUGE_FROM = 32 << 20 };

void *bfti_os_map(size_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (at == MAP_FAILED)
        return NULL;
    if (bytes >= HUGE_FROM)
        (void)madvise(at, bytes, MADV_HUGEPAGE); /* a wish: may be refused */
    return at;
}

void bfti_os_unmap(void *at, size_t bytes)
{
    int error = munmap(at, bytes);

    assert(error == 0);
    (void)error;
}
