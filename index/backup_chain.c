/*
 * A whole backup and increments, each to the one before it, as one page file:
 * a block is read from the newest of them that has it.
 *
 * That is done by blocks and not by extents: an increment has every block of its
 * image that is not, byte by byte, what the chain before it has there.  So it
 * does not matter what a block that no image reaches holds in one of them.
 *
 *   increment, format 1, little-endian
 *    0  magic
 *    8  le32 version, 1
 *   12  le32 0
 *   16  the base's database id
 *   32  le64 number of runs
 *   40  runs: le64 first block, le64 count; ascending, apart
 *    .  le32 crc32c of all before
 */
#include "backup.h"

#include <stdlib.h>

static const char magic[8] = "BFTINCR\n";
enum { VERSION = 1, HEAD = 40, RUN = 16, SUM = 4 };
#define RUNS_MAX (UINT64_C(1) << 32)
static const char between[] = " and "; /* names in a text */

struct member {
    const char *dir;
    char *path;             /* of its data file */
    bool named;             /* in a text that is being made */
    struct bfti_file *lock; /* or NULL */
    struct bfti_file *data;
    uint64_t bytes; /* of its data file */
    struct bfti_superblock sb;
    struct bfti_block_runs runs; /* all of an increment's blocks */
};

struct bfti_chain {
    struct bfti_vfs self; /* in which every name is the page file */
    const struct bfti_env *env;
    struct bfti_vfs *vfs;
    char *names; /* of data files, for a text: room for all of them */
    size_t count;
    struct member member[];
};

/* --- runs -------------------------------------------------------------------- */

bft_status bfti_block_runs_add(const struct bfti_env *env,
                               struct bfti_block_runs *runs, uint64_t first,
                               uint64_t count)
{
    struct bfti_block_run *last =
        runs->count ? &runs->run[runs->count - 1] : NULL;
    if (last && last->first + last->count == first) {
        last->count += count;
        return BFT_OK;
    }
    if (!runs->run || runs->count == runs->max) {
        size_t max = runs->max ? runs->max * 2 : 64;
        void *more = bfti_realloc(env, runs->run, max * sizeof(*runs->run));
        if (!more)
            return bfti_fail(BFT_NO_MEMORY, "no memory for a list of blocks");
        runs->run = more;
        runs->max = max;
    }
    runs->run[runs->count++] = (struct bfti_block_run){first, count};
    return BFT_OK;
}

void bfti_block_runs_free(const struct bfti_env *env,
                          struct bfti_block_runs *runs)
{
    bfti_free(env, runs->run);
    memset(runs, 0, sizeof(*runs));
}

static int by_first(const void *a, const void *b)
{
    uint64_t x = ((const struct bfti_block_run *)a)->first;
    uint64_t y = ((const struct bfti_block_run *)b)->first;
    return (x > y) - (x < y);
}

/* Ascending and apart. */
static void runs_order(struct bfti_block_runs *runs)
{
    size_t kept = 0;
    if (runs->count > 0)
        qsort(runs->run, runs->count, sizeof(*runs->run), by_first);
    for (size_t i = 0; i < runs->count; i++) {
        struct bfti_block_run run = runs->run[i];
        struct bfti_block_run *last = kept ? &runs->run[kept - 1] : NULL;
        if (last && last->first + last->count >= run.first) {
            if (run.first + run.count > last->first + last->count)
                last->count = run.first + run.count - last->first;
        } else {
            runs->run[kept++] = run;
        }
    }
    runs->count = kept;
}

/* Index of the first run that ends behind BLOCK. */
static size_t runs_find(const struct bfti_block_runs *runs, uint64_t block)
{
    size_t low = 0, high = runs->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (runs->run[mid].first + runs->run[mid].count > block)
            high = mid;
        else
            low = mid + 1;
    }
    return low;
}

/* --- the list of an increment ------------------------------------------------ */

static void put64(uint8_t *at, uint64_t value)
{
    le64 stored = le64_of(value);
    memcpy(at, &stored, sizeof(stored));
}

static void put32(uint8_t *at, uint32_t value)
{
    le32 stored = le32_of(value);
    memcpy(at, &stored, sizeof(stored));
}

static uint64_t get64(const uint8_t *at)
{
    le64 stored;
    memcpy(&stored, at, sizeof(stored));
    return le64_get(stored);
}

static uint32_t get32(const uint8_t *at)
{
    le32 stored;
    memcpy(&stored, at, sizeof(stored));
    return le32_get(stored);
}

static bft_status write_and_sync(const struct bfti_backup_dir *dir,
                                 const uint8_t *bytes, size_t len)
{
    struct bfti_file *file;
    bft_status status = bfti_open_name(dir->env, dir->vfs, dir->path,
                                       BFTI_INCREMENT, BFTI_OPEN_CREATE, &file);
    if (status != BFT_OK)
        return status;
    status = file->ops->write(file, 0, bytes, len);
    if (status == BFT_OK)
        status = file->ops->sync(file);
    file->ops->close(file);
    return status;
}

bft_status bfti_increment_write(const struct bfti_backup_dir *dir,
                                const uint8_t base[16],
                                struct bfti_block_runs *runs)
{
    size_t len;
    uint8_t *bytes, *at;
    bft_status status;
    runs_order(runs);
    len = HEAD + runs->count * RUN + SUM;
    bytes = bfti_alloc(dir->env, len);
    if (!bytes)
        return bfti_fail(BFT_NO_MEMORY, "no memory for a list of blocks");
    memset(bytes, 0, HEAD);
    memcpy(bytes, magic, sizeof(magic));
    put32(bytes + 8, VERSION);
    memcpy(bytes + 16, base, 16);
    put64(bytes + 32, runs->count);
    at = bytes + HEAD;
    for (size_t i = 0; i < runs->count; i++, at += RUN) {
        put64(at, runs->run[i].first);
        put64(at + 8, runs->run[i].count);
    }
    put32(at, bfti_crc32c(0, bytes, len - SUM));
    status = write_and_sync(dir, bytes, len);
    bfti_free(dir->env, bytes);
    return status;
}

static bft_status list_corrupt(const struct member *m, const char *what)
{
    return bfti_fail(BFT_CORRUPT, "%s/%s: %s", m->dir, BFTI_INCREMENT, what);
}

/* BYTES is the whole file; M has the length of its data. */
static bft_status list_decode(const struct bfti_env *env, struct member *m,
                              const uint8_t *bytes, size_t len)
{
    uint64_t blocks = (m->bytes + BFTI_BLOCK - 1) / BFTI_BLOCK;
    uint64_t count = get64(bytes + 32), end = 0;
    const uint8_t *at = bytes + HEAD;
    if (memcmp(bytes, magic, sizeof(magic)) != 0)
        return list_corrupt(m, "it does not begin as one");
    if (get32(bytes + 8) != VERSION)
        return bfti_fail(BFT_TOO_NEW,
                         "%s/%s: version %u; this library knows %d", m->dir,
                         BFTI_INCREMENT, get32(bytes + 8), VERSION);
    if (get32(bytes + len - SUM) != bfti_crc32c(0, bytes, len - SUM))
        return list_corrupt(m, "its checksum is another");
    if (count > RUNS_MAX || len != HEAD + count * RUN + SUM)
        return list_corrupt(m, "its length is not what it says");
    for (uint64_t i = 0; i < count; i++, at += RUN) {
        uint64_t first = get64(at), n = get64(at + 8);
        bft_status status;
        if (first < end || n == 0)
            return list_corrupt(m, "its blocks are not in order");
        if (first > blocks || n > blocks - first)
            return list_corrupt(m, "data ends before its blocks do");
        end = first + n;
        status = bfti_block_runs_add(env, &m->runs, first, n);
        if (status != BFT_OK)
            return status;
    }
    return BFT_OK;
}

/* *BASE: of which backup this is an increment; BFT_NOT_FOUND: it is a whole
 * one. */
static bft_status list_read(struct bfti_chain *c, struct member *m,
                            uint8_t base[16])
{
    struct bfti_file *file;
    uint8_t *bytes = NULL;
    uint64_t len;
    size_t got;
    bft_status status = bfti_open_name(c->env, c->vfs, m->dir, BFTI_INCREMENT,
                                       BFTI_OPEN_READ_ONLY, &file);
    if (status != BFT_OK)
        return status;
    status = file->ops->size(file, &len);
    if (status == BFT_OK && (len < HEAD + SUM || len > SIZE_MAX / 2 ||
                             len > HEAD + RUNS_MAX * RUN + SUM))
        status = list_corrupt(m, "its length cannot be");
    if (status == BFT_OK && !(bytes = bfti_alloc(c->env, (size_t)len)))
        status = bfti_fail(BFT_NO_MEMORY, "no memory for a list of blocks");
    if (status == BFT_OK)
        status = file->ops->read(file, 0, bytes, (size_t)len, &got);
    if (status == BFT_OK && got < len)
        status = list_corrupt(m, "it ends too early");
    if (status == BFT_OK)
        status = list_decode(c->env, m, bytes, (size_t)len);
    if (status == BFT_OK)
        memcpy(base, bytes + 16, 16);
    bfti_free(c->env, bytes);
    file->ops->close(file);
    return status;
}

/* --- reading ----------------------------------------------------------------- */

/* The newest member that has BLOCK, and up to which block that is so. */
static struct member *member_of(struct bfti_chain *c, uint64_t block,
                                uint64_t *end)
{
    *end = UINT64_MAX / BFTI_BLOCK;
    for (size_t i = c->count; i-- > 1;) {
        struct bfti_block_runs *runs = &c->member[i].runs;
        size_t at = runs_find(runs, block);
        if (at == runs->count)
            continue;
        if (runs->run[at].first <= block) {
            uint64_t run_end = runs->run[at].first + runs->run[at].count;
            *end = run_end < *end ? run_end : *end;
            return &c->member[i];
        }
        if (runs->run[at].first < *end)
            *end = runs->run[at].first;
    }
    return &c->member[0];
}

bft_status bfti_chain_read(struct bfti_chain *chain, uint64_t offset, void *buf,
                           size_t len)
{
    uint8_t *to = buf;
    while (len > 0) {
        uint64_t end;
        struct member *m = member_of(chain, offset / BFTI_BLOCK, &end);
        uint64_t left = end * BFTI_BLOCK - offset;
        size_t n = len < left ? len : (size_t)left, got = 0;
        bft_status status = BFT_OK;
        if (offset < m->bytes)
            status = m->data->ops->read(m->data, offset, to, n, &got);
        if (status != BFT_OK)
            return status;
        memset(to + got, 0, n - got);
        to += n;
        offset += n;
        len -= n;
    }
    return BFT_OK;
}

/* --- as a file --------------------------------------------------------------- */

struct chain_file {
    struct bfti_file file;
    struct bfti_chain *chain;
};

/* Longer than any: a block of zeros behind the end of the base is as the base has
 * it, so the image may end with one that nobody stores. */
static bft_status chain_size(struct bfti_file *file, uint64_t *bytes)
{
    (void)file;
    *bytes = INT64_MAX / BFTI_BLOCK * BFTI_BLOCK;
    return BFT_OK;
}

static bft_status chain_file_read(struct bfti_file *file, uint64_t offset,
                                  void *buf, size_t len, size_t *got)
{
    *got = len;
    return bfti_chain_read(((struct chain_file *)file)->chain, offset, buf,
                           len);
}

static void chain_file_close(struct bfti_file *file)
{
    bfti_free(((struct chain_file *)file)->chain->env, file);
}

static bft_status chain_file_open(struct bfti_vfs *vfs, const char *path,
                                  int flags, struct bfti_file **out)
{
    struct bfti_chain *c = (struct bfti_chain *)vfs;
    struct chain_file *f = bfti_alloc(c->env, sizeof(*f));
    (void)flags;
    if (!f)
        return bfti_fail(BFT_NO_MEMORY, "%s: no memory to open it", path);
    f->file.ops = vfs->ops;
    f->chain = c;
    *out = &f->file;
    return BFT_OK;
}

static char *put_text(char *at, const char *text)
{
    size_t len = strlen(text);
    memcpy(at, text, len + 1);
    return at + len;
}

/* The data files that blocks are read from, of which one at least is to blame for
 * what they are together. */
static const char *chain_path_of(void *ctx, uint64_t block, uint64_t blocks)
{
    struct bfti_chain *c = ctx;
    char *at = c->names;
    for (size_t i = 0; i < c->count; i++)
        c->member[i].named = false;
    for (uint64_t end = block + blocks, next; block < end; block = next)
        member_of(c, block, &next)->named = true;
    for (size_t i = 0; i < c->count; i++) {
        if (!c->member[i].named)
            continue;
        if (at > c->names)
            at = put_text(at, between);
        at = put_text(at, c->member[i].path);
    }
    return c->names;
}

/* What reading an image takes, and no more. */
static const struct bfti_vfs_ops chain_ops = {
    .name = "chain",
    .open = chain_file_open,
    .close = chain_file_close,
    .read = chain_file_read,
    .size = chain_size,
};

bft_status bfti_chain_pagefile(struct bfti_chain *chain,
                               struct bfti_pagefile **pf)
{
    struct bfti_pagefile_options options;
    memset(&options, 0, sizeof(options));
    options.env = chain->env;
    options.vfs = &chain->self;
    options.path = chain->member[chain->count - 1].path;
    options.read_only = true;
    options.path_of = chain_path_of;
    options.path_of_ctx = chain;
    return bfti_pagefile_open(&options, pf);
}

/* --- opening ----------------------------------------------------------------- */

/* The superblock of M, which has one, written by the backup itself. */
static bft_status member_superblock(struct bfti_chain *c, struct member *m)
{
    struct bfti_pagefile_options options;
    struct bfti_superblock sb[2];
    bft_status verdict[2], status;
    struct bfti_pagefile *pf;
    memset(&options, 0, sizeof(options));
    options.env = c->env;
    options.vfs = c->vfs;
    options.path = m->path;
    options.read_only = true;
    status = bfti_pagefile_open(&options, &pf);
    if (status != BFT_OK)
        return status;
    status = bfti_superblock_read(pf, sb, verdict);
    bfti_pagefile_close(pf);
    if (status != BFT_OK)
        return status;
    m->sb = sb[0];
    if (verdict[1] == BFT_NOT_FOUND && verdict[0] == BFT_OK)
        return BFT_OK;
    if (verdict[0] == BFT_TOO_NEW)
        return bfti_fail(BFT_TOO_NEW, "%s is of a newer format", m->dir);
    if (verdict[0] == BFT_IO || verdict[1] == BFT_IO)
        return BFT_IO; /* the other one does not tell whether it was opened */
    if (verdict[1] == BFT_OK)
        return bfti_fail(BFT_INVALID,
                         "%s was opened as a database since it was made: it is "
                         "a backup no longer",
                         m->dir);
    return bfti_fail(BFT_CORRUPT, "%s/data: its superblock is damaged", m->dir);
}

static bft_status member_open(struct bfti_chain *c, size_t i, const char *dir)
{
    struct member *m = &c->member[i];
    struct bfti_file *unfinished;
    uint8_t base[16];
    bft_status status;
    m->dir = dir;
    status = bfti_join_path(c->env, dir, "data", &m->path);
    if (status == BFT_OK)
        status = bfti_lock_source(c->env, c->vfs, dir, &m->lock);
    if (status == BFT_OK)
        status = bfti_open_name(c->env, c->vfs, dir, BFTI_UNFINISHED,
                                BFTI_OPEN_READ_ONLY, &unfinished);
    if (status == BFT_OK) {
        unfinished->ops->close(unfinished);
        return bfti_fail(BFT_CORRUPT, "%s holds a backup that was not finished",
                         dir);
    }
    if (status == BFT_NOT_FOUND)
        status =
            c->vfs->ops->open(c->vfs, m->path, BFTI_OPEN_READ_ONLY, &m->data);
    if (status == BFT_NOT_FOUND)
        return bfti_fail(BFT_NOT_FOUND, "there is no backup in %s", dir);
    if (status == BFT_OK)
        status = m->data->ops->size(m->data, &m->bytes);
    if (status == BFT_OK)
        status = member_superblock(c, m);
    if (status != BFT_OK)
        return status;
    status = list_read(c, m, base);
    if (status == BFT_NOT_FOUND)
        return i == 0 ? BFT_OK
                      : bfti_fail(BFT_INVALID,
                                  "%s is a whole backup and no increment", dir);
    if (status != BFT_OK)
        return status;
    if (i == 0)
        return bfti_fail(BFT_INVALID,
                         "%s is an increment: the whole backup is to be named "
                         "first",
                         dir);
    if (memcmp(base, m[-1].sb.database_id, sizeof(base)) != 0)
        return bfti_fail(BFT_INVALID, "%s is no increment to %s", dir,
                         m[-1].dir);
    return BFT_OK;
}

static bft_status make_room_for_names(struct bfti_chain *c)
{
    size_t room = 1;
    for (size_t i = 0; i < c->count; i++)
        room += strlen(c->member[i].path) + strlen(between);
    c->names = bfti_alloc(c->env, room);
    return c->names ? BFT_OK
                    : bfti_fail(BFT_NO_MEMORY, "no memory to read backups");
}

bft_status bfti_chain_open(const struct bfti_env *env, struct bfti_vfs *vfs,
                           const char *const *path, size_t count,
                           struct bfti_chain **chain)
{
    struct bfti_chain *c =
        bfti_alloc(env, sizeof(*c) + count * sizeof(c->member[0]));
    bft_status status = BFT_OK;
    *chain = NULL;
    if (!c)
        return bfti_fail(BFT_NO_MEMORY, "no memory to read backups");
    memset(c, 0, sizeof(*c) + count * sizeof(c->member[0]));
    c->self.ops = &chain_ops;
    c->env = env;
    c->vfs = vfs;
    c->count = count;
    for (size_t i = 0; i < count && status == BFT_OK; i++)
        status = path[i] && *path[i]
                     ? member_open(c, i, path[i])
                     : bfti_fail(BFT_INVALID, "the path of backup %zu is %s", i,
                                 path[i] ? "empty" : "NULL");
    if (status == BFT_OK)
        status = make_room_for_names(c);
    if (status == BFT_OK)
        *chain = c;
    else
        bfti_chain_close(c);
    return status;
}

void bfti_chain_close(struct bfti_chain *chain)
{
    if (!chain)
        return;
    for (size_t i = 0; i < chain->count; i++) {
        struct member *m = &chain->member[i];
        bfti_block_runs_free(chain->env, &m->runs);
        if (m->data)
            m->data->ops->close(m->data);
        if (m->lock)
            m->lock->ops->close(m->lock);
        bfti_free(chain->env, m->path);
    }
    bfti_free(chain->env, chain->names);
    bfti_free(chain->env, chain);
}

const struct bfti_superblock *bfti_chain_superblock(const struct bfti_chain *c)
{
    return &c->member[c->count - 1].sb;
}
