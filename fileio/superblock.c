/*
 * The two superblocks.  Each has a block of its own, so that writing one
 * cannot tear the other.  512 bytes of it mean something, the last four of
 * them the checksum of those before: magic, version and checksum stay where
 * they are in every format, so that an older library can tell a newer
 * database from a damaged one.
 */
#include <assert.h>
#include <string.h>

#include "error.h"
#include "extent_pool.h"
#include "fault.h"
#include "pagefile_internal.h"
#include "wal.h"

static const char magic[8] = "BFTREE\1\n";

/* Superblock, format 1. */
struct disk_superblock {
    char magic[8];               /*   0 */
    le16 major;                  /*   8  a reader of another major stops */
    le16 minor;                  /*  10 */
    le32 grain;                  /*  12  512 */
    le64 must_know;              /*  16  features; without them: do not open */
    le64 must_know_to_write;     /*  24  ... do not write */
    le64 may_ignore;             /*  32  ... nothing is lost */
    uint8_t database_id[16];     /*  40 */
    le32 incarnation;            /*  56 */
    le32 next_tree_id;           /*  60 */
    le64 sequence;               /*  64 */
    le64 redo_lsn;               /*  72 */
    le64 durable_mark;           /*  80 */
    le64 log_segment_bytes;      /*  88 */
    le64 page_ids;               /*  96 */
    le32 map_count;              /* 104 */
    le32 root_count;             /* 108 */
    le64 map[BFTI_MAP_PLACES];   /* 112 */
    le64 root[BFTI_ROOT_PLACES]; /* 240 */
    uint8_t reserved[204];       /* 304  0 */
    le32 checksum;               /* 508  crc32c of the bytes before */
};
_Static_assert(sizeof(struct disk_superblock) == 512, "format 1");
_Static_assert(offsetof(struct disk_superblock, sequence) == 64, "format 1");
_Static_assert(offsetof(struct disk_superblock, map) == 112, "format 1");
_Static_assert(offsetof(struct disk_superblock, checksum) == 508, "format 1");

/* Features that this library knows; format 1.0 began with none. */
static const uint64_t known_features =
    BFTI_FEATURE_DELTA_LISTS | BFTI_FEATURE_EXPIRY | BFTI_FEATURE_TOMBS |
    BFTI_FEATURE_DICTIONARIES | BFTI_FEATURE_SHARED;

static void superblock_encode(const struct bfti_superblock *sb,
                              struct disk_superblock *disk)
{
    memset(disk, 0, sizeof *disk);
    memcpy(disk->magic, magic, sizeof disk->magic);
    disk->major = le16_of(sb->major);
    disk->minor = le16_of(sb->minor);
    disk->grain = le32_of(BFTI_GRAIN);
    disk->must_know = le64_of(sb->must_know);
    disk->must_know_to_write = le64_of(sb->must_know_to_write);
    disk->may_ignore = le64_of(sb->may_ignore);
    memcpy(disk->database_id, sb->database_id, sizeof disk->database_id);
    disk->incarnation = le32_of(sb->incarnation);
    disk->next_tree_id = le32_of(sb->next_tree_id);
    disk->sequence = le64_of(sb->sequence);
    disk->redo_lsn = le64_of(sb->redo_lsn);
    disk->durable_mark = le64_of(sb->durable_mark);
    disk->log_segment_bytes = le64_of(sb->log_segment_bytes);
    disk->page_ids = le64_of(sb->page_ids);
    disk->map_count = le32_of(sb->map_count);
    disk->root_count = le32_of(sb->root_count);
    for (uint32_t i = 0; i < sb->map_count; i++)
        disk->map[i] = le64_of(sb->map[i]);
    for (uint32_t i = 0; i < sb->root_count; i++)
        disk->root[i] = le64_of(sb->root[i]);
    disk->checksum = le32_of(
        bfti_crc32c(0, disk, offsetof(struct disk_superblock, checksum)));
}

/* Copy out of DISK, which has been checked. */
static void superblock_decode(const struct disk_superblock *disk,
                              struct bfti_superblock *sb)
{
    sb->major = le16_get(disk->major);
    sb->minor = le16_get(disk->minor);
    sb->must_know = le64_get(disk->must_know);
    sb->must_know_to_write = le64_get(disk->must_know_to_write);
    sb->may_ignore = le64_get(disk->may_ignore);
    memcpy(sb->database_id, disk->database_id, sizeof sb->database_id);
    sb->incarnation = le32_get(disk->incarnation);
    sb->next_tree_id = le32_get(disk->next_tree_id);
    sb->sequence = le64_get(disk->sequence);
    sb->redo_lsn = le64_get(disk->redo_lsn);
    sb->durable_mark = le64_get(disk->durable_mark);
    sb->log_segment_bytes = le64_get(disk->log_segment_bytes);
    sb->page_ids = le64_get(disk->page_ids);
    sb->map_count = le32_get(disk->map_count);
    sb->root_count = le32_get(disk->root_count);
    for (uint32_t i = 0; i < sb->map_count; i++)
        sb->map[i] = le64_get(disk->map[i]);
    for (uint32_t i = 0; i < sb->root_count; i++)
        sb->root[i] = le64_get(disk->root[i]);
}

static bft_status too_new(const struct bfti_pagefile *pf, unsigned slot,
                          const struct disk_superblock *disk)
{
    return bfti_fail(BFT_TOO_NEW,
                     "%s: superblock %u has format %u.%u with features "
                     "%#llx and %#llx; this library knows %d.%d with %#llx",
                     pf->path, slot, le16_get(disk->major),
                     le16_get(disk->minor),
                     (unsigned long long)le64_get(disk->must_know),
                     (unsigned long long)le64_get(disk->must_know_to_write),
                     BFTI_FORMAT_MAJOR, BFTI_FORMAT_MINOR,
                     (unsigned long long)known_features);
}

static bool all_zero(const void *data, size_t len)
{
    const uint8_t *at = data;
    for (size_t i = 0; i < len; i++)
        if (at[i] != 0)
            return false;
    return true;
}

/* Judge the bytes of SLOT; fill *SB, all zeros, when they are good. */
static bft_status superblock_judge(const struct bfti_pagefile *pf,
                                   unsigned slot,
                                   const struct disk_superblock *disk,
                                   struct bfti_superblock *sb)
{
    if (all_zero(disk, sizeof *disk))
        return bfti_fail(BFT_NOT_FOUND, "%s: superblock %u was never written",
                         pf->path, slot);
    if (memcmp(disk->magic, magic, sizeof magic) != 0)
        return bfti_fail(BFT_CORRUPT,
                         "%s: superblock %u, at byte %u: that is none of "
                         "bftree",
                         pf->path, slot, slot * (unsigned)BFTI_BLOCK);
    if (le32_get(disk->checksum) !=
            bfti_crc32c(0, disk, offsetof(struct disk_superblock, checksum)) &&
        !bfti_fault_on(BFTI_FAULT_FORGED))
        return bfti_fail(BFT_CORRUPT,
                         "%s: superblock %u, at byte %u: its checksum does "
                         "not match",
                         pf->path, slot, slot * (unsigned)BFTI_BLOCK);
    /* Whoever opens a page file here writes it, so the features that only a
     * writer has to know count as well. */
    if (le16_get(disk->major) > BFTI_FORMAT_MAJOR ||
        (le64_get(disk->must_know) & ~known_features) != 0 ||
        (le64_get(disk->must_know_to_write) & ~known_features) != 0)
        return too_new(pf, slot, disk);
    if (le16_get(disk->major) < 1 || le32_get(disk->grain) != BFTI_GRAIN ||
        le32_get(disk->map_count) > BFTI_MAP_PLACES ||
        le32_get(disk->root_count) > BFTI_ROOT_PLACES ||
        !bfti_wal_segment_bytes_valid(le64_get(disk->log_segment_bytes)))
        return bfti_fail(BFT_CORRUPT,
                         "%s: superblock %u, at byte %u: it has an impossible "
                         "field",
                         pf->path, slot, slot * (unsigned)BFTI_BLOCK);
    superblock_decode(disk, sb);
    return BFT_OK;
}

static bft_status superblock_fetch(const struct bfti_pagefile *pf,
                                   unsigned slot, struct disk_superblock *disk)
{
    size_t got; /* a short file: the rest counts as zero */
    bft_status status = pf->file->ops->read(
        pf->file, slot * (uint64_t)BFTI_BLOCK, disk, sizeof *disk, &got);
    if (status != BFT_OK)
        return bfti_fail_in(status, "%s: superblock %u", pf->path, slot);
    memset((uint8_t *)disk + got, 0, sizeof *disk - got);
    return BFT_OK;
}

bft_status bfti_superblock_read(struct bfti_pagefile *pf,
                                struct bfti_superblock slot[2],
                                bft_status verdict[2])
{
    struct disk_superblock disk[SUPERBLOCKS];
    char text[BFTI_ERROR_MAX]; /* of a read that was refused */
    unsigned unread = 0;

    memset(slot, 0, SUPERBLOCKS * sizeof *slot);
    for (unsigned i = 0; i < SUPERBLOCKS; i++) {
        verdict[i] = superblock_fetch(pf, i, &disk[i]);
        if (verdict[i] == BFT_OK)
            continue;
        if (verdict[i] != BFT_IO || ++unread == SUPERBLOCKS)
            return verdict[i];
        (void)bft_last_error(text, sizeof text);
    }
    for (unsigned i = 0; i < SUPERBLOCKS; i++)
        if (verdict[i] == BFT_OK)
            verdict[i] = superblock_judge(pf, i, &disk[i], &slot[i]);
    /* The text that a person needs most is the one to be noted last. */
    if (unread > 0)
        (void)bfti_fail(BFT_IO, "%s", text);
    for (unsigned i = SUPERBLOCKS; i-- > 0;)
        if (verdict[i] == BFT_TOO_NEW)
            verdict[i] = too_new(pf, i, &disk[i]);
    return BFT_OK;
}

bft_status bfti_superblock_write(struct bfti_pagefile *pf, unsigned slot,
                                 const struct bfti_superblock *sb)
{
    assert(slot < SUPERBLOCKS && sb->map_count <= BFTI_MAP_PLACES &&
           sb->root_count <= BFTI_ROOT_PLACES);
    assert(bfti_wal_segment_bytes_valid(sb->log_segment_bytes));
    /* What a failed sync lost may be what this superblock names. */
    if (atomic_load(&pf->sync_failed))
        return bfti_fail(BFT_POISONED, "%s: a sync failed before", pf->path);

    struct write_buffer *buffer;
    bft_status status = bfti_buffer_take(pf, &buffer);
    if (status != BFT_OK)
        return status;
    struct disk_superblock disk;
    superblock_encode(sb, &disk);
    memcpy(buffer->bytes, &disk, sizeof disk);
    memset(buffer->bytes + sizeof disk, 0, BFTI_BLOCK - sizeof disk);
    status = pf->file->ops->write(pf->file, slot * (uint64_t)BFTI_BLOCK,
                                  buffer->bytes, BFTI_BLOCK);
    bfti_buffer_give(pf, buffer);
    if (status == BFT_OK)
        status = bfti_pagefile_sync(pf);
    return status;
}
