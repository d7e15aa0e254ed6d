/* Bytes of a file in memory, in pages that copies share. */
#include "sparse.h"

#include <assert.h>
#include <string.h>

#include "error.h"

enum { BLOCKS_PER_PAGE = BFTI_SPARSE_PAGE / BFTI_SPARSE_BLOCK };

/* Bytes of an absent block, and bytes behind the end of the file, are zero:
 * so that reading is a copy, and growing costs nothing. */
struct bfti_sparse_page {
    _Atomic uint32_t refs; /* [page] */
    uint32_t blocks;       /* bit i: block i was written; owner only */
    uint8_t bytes[BFTI_SPARSE_PAGE];
};

/* An entry of the table: a pointer, and meant to be. */
/* NOLINTNEXTLINE(bugprone-sizeof-expression) */
enum { ENTRY_BYTES = sizeof(struct bfti_sparse_page *) };

static void page_release(const struct bfti_env *env,
                         struct bfti_sparse_page *page)
{
    if (page == NULL)
        return;
    /* [page] release: what this owner read lies before the next owner's
     * writes.  acquire: the last one frees after all the others read. */
    if (atomic_fetch_sub_explicit(&page->refs, 1, memory_order_acq_rel) == 1)
        bfti_free(env, page);
}

void bfti_sparse_free(const struct bfti_env *env, struct bfti_sparse *sparse)
{
    for (size_t i = 0; i < sparse->page_count; i++)
        page_release(env, sparse->pages[i]);
    bfti_free(env, sparse->pages);
    *sparse = (struct bfti_sparse){0};
}

bft_status bfti_sparse_copy(const struct bfti_env *env, struct bfti_sparse *to,
                            const struct bfti_sparse *from)
{
    struct bfti_sparse_page **pages = NULL;

    assert(to->page_count == 0);
    if (from->page_count > 0) {
        pages = bfti_alloc(env, from->page_count * ENTRY_BYTES);
        if (pages == NULL)
            return bfti_fail(BFT_NO_MEMORY, "copy of a file: no memory");
    }
    for (size_t i = 0; i < from->page_count; i++) {
        pages[i] = from->pages[i];
        /* [page] relaxed: FROM holds one already, so it cannot go away. */
        if (pages[i] != NULL)
            atomic_fetch_add_explicit(&pages[i]->refs, 1, memory_order_relaxed);
    }
    *to = *from;
    to->pages = pages;
    return BFT_OK;
}

static struct bfti_sparse_page *page_at(const struct bfti_sparse *sparse,
                                        uint64_t index)
{
    return index < sparse->page_count ? sparse->pages[index] : NULL;
}

/* Bytes from OFFSET to the end of its page, LEN at most. */
static size_t in_page(uint64_t offset, uint64_t len)
{
    uint64_t left = BFTI_SPARSE_PAGE - offset % BFTI_SPARSE_PAGE;

    return (size_t)(left < len ? left : len);
}

/* The bits of the blocks that [START, START + LEN) of a page touches. */
static uint32_t blocks_touched(size_t start, size_t len)
{
    uint32_t bits = 0;

    for (size_t b = start / BFTI_SPARSE_BLOCK;
         b * BFTI_SPARSE_BLOCK < start + len; b++)
        bits |= 1u << b;
    return bits;
}

size_t bfti_sparse_read(const struct bfti_sparse *sparse, uint64_t offset,
                        void *buf, size_t len)
{
    size_t done = 0;

    if (offset >= sparse->size)
        return 0;
    if (len > sparse->size - offset)
        len = (size_t)(sparse->size - offset);
    while (done < len) {
        uint64_t at = offset + done;
        size_t n = in_page(at, len - done);
        const struct bfti_sparse_page *page =
            page_at(sparse, at / BFTI_SPARSE_PAGE);

        if (page != NULL)
            memcpy((char *)buf + done, page->bytes + at % BFTI_SPARSE_PAGE, n);
        else
            memset((char *)buf + done, 0, n);
        done += n;
    }
    return len;
}

static bft_status table_grow(const struct bfti_env *env,
                             struct bfti_sparse *sparse, uint64_t index)
{
    size_t count = sparse->page_count < 8 ? 8 : sparse->page_count;
    struct bfti_sparse_page **pages = NULL;

    if (index < sparse->page_count)
        return BFT_OK;
    while (count <= index && count < SIZE_MAX / ((size_t)2 * ENTRY_BYTES))
        count *= 2;
    if (count > index)
        pages = bfti_realloc(env, sparse->pages, count * ENTRY_BYTES);
    if (pages == NULL)
        return bfti_fail(BFT_NO_MEMORY, "file in memory: no memory to grow");
    memset(pages + sparse->page_count, 0,
           (count - sparse->page_count) * ENTRY_BYTES);
    sparse->pages = pages;
    sparse->page_count = count;
    return BFT_OK;
}

/* The page INDEX, present and ours alone; NULL: no memory. */
static struct bfti_sparse_page *
page_own(const struct bfti_env *env, struct bfti_sparse *sparse, uint64_t index)
{
    struct bfti_sparse_page *old;
    struct bfti_sparse_page *page;

    if (table_grow(env, sparse, index) != BFT_OK)
        return NULL;
    old = sparse->pages[index];
    /* [page] acquire: pairs with the release of the owner that let go. */
    if (old != NULL &&
        atomic_load_explicit(&old->refs, memory_order_acquire) == 1)
        return old;
    page = bfti_alloc(env, sizeof(*page));
    if (page == NULL) {
        (void)bfti_fail(BFT_NO_MEMORY, "file in memory: no memory to grow");
        return NULL;
    }
    if (old != NULL)
        memcpy(page->bytes, old->bytes, sizeof(page->bytes));
    else
        memset(page->bytes, 0, sizeof(page->bytes));
    page->blocks = old != NULL ? old->blocks : 0;
    atomic_init(&page->refs, 1);
    page_release(env, old);
    sparse->pages[index] = page;
    return page;
}

bft_status bfti_sparse_write(const struct bfti_env *env,
                             struct bfti_sparse *sparse, uint64_t offset,
                             const void *data, size_t len)
{
    size_t done = 0;

    assert(offset <= INT64_MAX && len <= (uint64_t)INT64_MAX - offset);
    while (done < len) {
        uint64_t at = offset + done;
        size_t start = at % BFTI_SPARSE_PAGE;
        size_t n = in_page(at, len - done);
        uint32_t bits = blocks_touched(start, n);
        struct bfti_sparse_page *page =
            page_own(env, sparse, at / BFTI_SPARSE_PAGE);

        if (page == NULL)
            return BFT_NO_MEMORY;
        memcpy(page->bytes + start, (const char *)data + done, n);
        sparse->blocks += (unsigned)__builtin_popcount(bits & ~page->blocks);
        page->blocks |= bits;
        done += n;
        if (at + n > sparse->size)
            sparse->size = at + n;
    }
    return BFT_OK;
}

static void page_drop(const struct bfti_env *env, struct bfti_sparse *sparse,
                      uint64_t index)
{
    struct bfti_sparse_page *page = sparse->pages[index];

    sparse->blocks -= (unsigned)__builtin_popcount(page->blocks);
    sparse->pages[index] = NULL;
    page_release(env, page);
}

/* Zero N bytes of the present page INDEX from START. */
static bft_status page_zero(const struct bfti_env *env,
                            struct bfti_sparse *sparse, uint64_t index,
                            size_t start, size_t n)
{
    struct bfti_sparse_page *page = page_own(env, sparse, index);
    uint32_t whole = 0;

    if (page == NULL)
        return BFT_NO_MEMORY;
    memset(page->bytes + start, 0, n);
    for (uint32_t b = 0; b < BLOCKS_PER_PAGE; b++)
        if (start <= b * (size_t)BFTI_SPARSE_BLOCK &&
            (b + 1) * (size_t)BFTI_SPARSE_BLOCK <= start + n)
            whole |= 1u << b;
    sparse->blocks -= (unsigned)__builtin_popcount(whole & page->blocks);
    page->blocks &= ~whole;
    if (page->blocks == 0)
        page_drop(env, sparse, index);
    return BFT_OK;
}

/* Zero [FROM, TO), which may reach behind the end of the file. */
static bft_status zero_range(const struct bfti_env *env,
                             struct bfti_sparse *sparse, uint64_t from,
                             uint64_t to)
{
    /* No page lies behind the table. */
    uint64_t last = (uint64_t)sparse->page_count * BFTI_SPARSE_PAGE;

    if (to > last)
        to = last;
    while (from < to) {
        uint64_t index = from / BFTI_SPARSE_PAGE;
        size_t n = in_page(from, to - from);
        bft_status status = BFT_OK;

        if (sparse->pages[index] != NULL && n == BFTI_SPARSE_PAGE)
            page_drop(env, sparse, index);
        else if (sparse->pages[index] != NULL)
            status = page_zero(env, sparse, index, from % BFTI_SPARSE_PAGE, n);
        if (status != BFT_OK)
            return status;
        from += n;
    }
    return BFT_OK;
}

bft_status bfti_sparse_resize(const struct bfti_env *env,
                              struct bfti_sparse *sparse, uint64_t bytes)
{
    if (bytes < sparse->size) {
        bft_status status = zero_range(env, sparse, bytes, UINT64_MAX);

        if (status != BFT_OK)
            return status;
    }
    sparse->size = bytes;
    return BFT_OK;
}

bft_status bfti_sparse_zero(const struct bfti_env *env,
                            struct bfti_sparse *sparse, uint64_t offset,
                            uint64_t len)
{
    uint64_t end = len > UINT64_MAX - offset ? UINT64_MAX : offset + len;

    /* The last block of the file counts as whole: what lies behind is zero. */
    return zero_range(env, sparse, offset,
                      end >= sparse->size ? UINT64_MAX : end);
}

size_t bfti_sparse_fit(const struct bfti_sparse *sparse, uint64_t offset,
                       size_t len, uint64_t blocks_max)
{
    size_t done = 0;

    while (done < len) {
        uint64_t at = offset + done;
        uint64_t left = BFTI_SPARSE_BLOCK - at % BFTI_SPARSE_BLOCK;
        const struct bfti_sparse_page *page =
            page_at(sparse, at / BFTI_SPARSE_PAGE);
        uint32_t block = (uint32_t)(at % BFTI_SPARSE_PAGE / BFTI_SPARSE_BLOCK);

        if (page == NULL || (page->blocks >> block & 1) == 0) {
            if (blocks_max == 0)
                break;
            blocks_max--;
        }
        done += (size_t)(left < len - done ? left : len - done);
    }
    return done;
}
