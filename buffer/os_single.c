/*
 * The system of a build without threads: no other thread to fence, to end or
 * to lock out, and memory in place of address space.
 */
#include "os.h"

#include <stdint.h>
#include <string.h>

#include "fileio/fileio.h"

bool bfti_os_init(void)
{
    return true;
}

bool bfti_os_fence_init(void)
{
    return false;
}

void bfti_os_fence_all(void)
{
}

bool bfti_os_at_thread_exit(void)
{
    /* The one thread ends with the process. */
    return true;
}

void bfti_os_process_lock(void)
{
}

void bfti_os_process_unlock(void)
{
}

enum { PAGE = 4096 };

/* All of BYTES at once: linear memory of WebAssembly has no other form.  In
 * front of it stands which block it lies in: 16 bytes at least, as blocks are
 * aligned to that. */
void *bfti_os_map(size_t bytes)
{
    uint8_t *block = NULL, *at;

    if (bytes <= SIZE_MAX - PAGE)
        block = bfti_alloc(bfti_env_system(), bytes + PAGE);
    if (block == NULL)
        return NULL;
    at = block + (PAGE - (uintptr_t)block % PAGE);
    memcpy(at - sizeof(block), &block, sizeof(block));
    memset(at, 0, bytes);
    return at;
}

void bfti_os_unmap(void *at, size_t bytes)
{
    uint8_t *block;

    (void)bytes;
    memcpy(&block, (uint8_t *)at - sizeof(block), sizeof(block));
    bfti_free(bfti_env_system(), block);
}
