/*
 * Large values: bytes outside the leaf, in extents of up to 508 KiB, listed in
 * one extent more when there are several.
 */
#include "expiry.h"

#include <stdio.h>

enum { HEADS = 64 }; /* more than those of extent and run, by their share */

bool bfti_is_large(const struct bfti_tree *tree, size_t key_len,
                   uint64_t value_len)
{
    /* Alone in its leaf a record fits beside two fences of the greatest length. */
    size_t most = tree->leaf_bytes / 8 * BFTI_INLINE_PARTS - HEADS;
    /* Beside a key of the greatest length a short value takes no more room than
     * a reference would; and only a value with bytes has an extent. */
    return value_len > sizeof(struct bfti_large) &&
           sizeof(struct bfti_slot) + key_len + value_len > most;
}

void bfti_large_discard(struct bfti_engine *engine, struct bfti_places *extents)
{
    while (extents->count)
        bfti_extent_discard(engine->buffer.pf,
                            extents->place[--extents->count]);
}

/* Write one extent of LEN bytes at BUF and add its place.  NAMED: the log may
 * name it. */
static bft_status write_part(struct bfti_engine *engine,
                             const struct bfti_tree *tree,
                             enum bfti_extent_type type, const void *buf,
                             size_t len, bool named,
                             struct bfti_places *extents)
{
    struct bfti_pagefile *pf = engine->buffer.pf;
    struct bfti_extent_info info = {type, tree->id, 0, 0};
    uint64_t place;
    bft_status status =
        named ? bfti_extent_write_alone(pf, &info, buf, len, &place)
              : bfti_extent_write(pf, &info, buf, len, &place);
    if (status != BFT_OK)
        return status;
    status = bfti_places_add(engine->env, extents, place);
    if (status != BFT_OK)
        bfti_extent_discard(engine->buffer.pf, place);
    return status;
}

static bft_status write_list(struct bfti_engine *engine, struct bfti_rec *rec,
                             const struct bfti_tree *tree, bool named,
                             struct bfti_places *extents)
{
    size_t parts = extents->count;
    bft_status status = bfti_rec_buf(rec, 2, parts * sizeof(le64));
    if (status != BFT_OK)
        return status;
    for (size_t i = 0; i < parts; i++)
        ((le64 *)rec->buf[2])[i] = le64_of(extents->place[i]);
    return write_part(engine, tree, BFTI_EXTENT_VALUE_LIST, rec->buf[2],
                      parts * sizeof(le64), named, extents);
}

/* Of a value of BYTES, the length of the part that begins at DONE. */
static size_t part_bytes(uint64_t bytes, uint64_t done)
{
    return bytes - done < BFTI_EXTENT_RAW_MAX ? (size_t)(bytes - done)
                                              : BFTI_EXTENT_RAW_MAX;
}

/* Of a value that begins with the LEN bytes at BUF: when it expires, which its
 * reference tells too. */
static uint64_t stamp_seconds(const struct bfti_tree *tree, const void *buf,
                              size_t len)
{
    bft_slice stored = {buf, len};
    uint64_t expires = tree->ttl_ms ? bfti_stored_expires(stored) : 0;
    if (expires > BFTI_EXPIRES_LAST)
        return 0;
    return (expires + BFTI_SECOND_MS - 1) / BFTI_SECOND_MS;
}

bft_status
bfti_large_write(struct bfti_engine *engine, struct bfti_rec *rec,
                 const struct bfti_tree *tree, uint64_t bytes, bool named,
                 bft_status (*read)(void *ctx, void *buf, size_t len),
                 void *ctx, struct bfti_large *large,
                 struct bfti_places *extents)
{
    bft_status status = BFT_OK;
    uint64_t seconds = 0;
    /* Memory of its own: READ may call the library on this thread. */
    void *buf = bfti_alloc(engine->env, part_bytes(bytes, 0));
    memset(large, 0, sizeof(*large));
    if (!buf)
        return bfti_fail(BFT_NO_MEMORY, "no memory for a part of a value");
    for (uint64_t done = 0; status == BFT_OK && done < bytes;) {
        size_t len = part_bytes(bytes, done);
        status = read(ctx, buf, len);
        if (done == 0 && status == BFT_OK)
            seconds = stamp_seconds(tree, buf, len);
        if (status == BFT_OK)
            status = write_part(engine, tree, BFTI_EXTENT_VALUE, buf, len,
                                named, extents);
        done += len;
    }
    bfti_free(engine->env, buf);
    if (status == BFT_OK && bfti_large_is_list(bytes))
        status = write_list(engine, rec, tree, named, extents);
    if (status != BFT_OK) {
        bfti_large_discard(engine, extents);
        return status;
    }
    large->bytes = le64_of(bytes | seconds << BFTI_SECONDS_AT);
    large->place = le64_of(extents->place[extents->count - 1]);
    return BFT_OK;
}

static bft_status read_slice(void *ctx, void *buf, size_t len)
{
    bft_slice *rest = ctx;
    memcpy(buf, rest->data, len);
    rest->data = (const uint8_t *)rest->data + len;
    rest->len -= len;
    return BFT_OK;
}

bft_status bfti_large_write_slice(struct bfti_engine *engine,
                                  struct bfti_rec *rec,
                                  const struct bfti_tree *tree, bft_slice value,
                                  struct bfti_large *large,
                                  struct bfti_places *extents)
{
    bft_slice rest = value;
    return bfti_large_write(engine, rec, tree, value.len,
                            value.len > BFTI_LOGGED_VALUE_MAX, read_slice,
                            &rest, large, extents);
}

/* --- reading ------------------------------------------------------------- */

/* What a thread keeps of the memory that it read a part into. */
enum { SCRATCH_KEPT = 32 << 10 };

/* What a read of a large value goes through. */
struct large_read {
    struct bfti_reader *reader;
    bft_slice key;
    struct bfti_large large;
};

/* Does the key still have that very value?  Finds the leaf again if need be. */
static bft_status confirm(struct large_read *lr, bool *same)
{
    struct bfti_reader *r = lr->reader;
    struct bfti_view view;
    bool found;
    bft_status status;
    *same = bfti_reader_still(r);
    if (*same)
        return BFT_OK;
    status = bfti_leaf_find(r, r->tree, r->rec, lr->key, &found, &view);
    if (status != BFT_OK)
        return status;
    *same = found && (view.flags & BFTI_REC_LARGE) &&
            memcmp(view.value, &lr->large, sizeof(lr->large)) == 0;
    return BFT_OK;
}

/* STATUS is a failure in an extent of the value: say whose it is. */
static bft_status of_value(const struct large_read *lr, bft_status status)
{
    return bfti_reader_blame(lr->reader, bfti_fail_in(status, "a value"));
}

/* Read the extent at PLACE, which the value refers to.  *SAME false: it does
 * not any more. */
static bft_status read_part(struct large_read *lr, uint64_t place,
                            enum bfti_extent_type type, const void **raw,
                            size_t *raw_len, bool *same)
{
    struct bfti_engine *engine = lr->reader->tree->engine;
    struct bfti_rec *rec = lr->reader->rec;
    struct bfti_extent_info info;
    bft_status status;
    /* Ends: a round is repeated only after the leaf has changed again. */
    for (;;) {
        PARK("large:part-chosen");
        bfti_hazard_set(rec, BFTI_HAZARD_BENEATH, place);
        if (bfti_reader_still(lr->reader))
            break;
        status = confirm(lr, same); /* uses the slot itself */
        if (status != BFT_OK || !*same)
            return status;
    }
    *same = true;
    status = bfti_extent_read(engine->buffer.pf, place,
                              &rec->scratch[BFTI_SCRATCH_VALUE], &info, raw,
                              raw_len);
    if (status == BFT_OK && info.type != type)
        status = bfti_extent_wrong(engine->buffer.pf, place,
                                   "it is no part of a value");
    return status == BFT_CORRUPT ? of_value(lr, status) : status;
}

/* Copy what [offset, offset+len) has of the part at [part_at, +part_len). */
static void copy_part(uint8_t *buf, uint64_t offset, size_t len,
                      const void *part, uint64_t part_at, size_t part_len)
{
    uint64_t from = offset > part_at ? offset : part_at;
    uint64_t end = offset + len, part_end = part_at + part_len;
    uint64_t to = end < part_end ? end : part_end;
    if (from < to)
        memcpy(buf + (from - offset), (const uint8_t *)part + (from - part_at),
               (size_t)(to - from));
}

static bft_status check_part(const struct large_read *lr, uint64_t place,
                             size_t got, uint64_t part)
{
    char wrong[80];
    uint64_t bytes = bfti_large_bytes(&lr->large);
    uint64_t at = part * BFTI_EXTENT_RAW_MAX;
    uint64_t want =
        bytes - at < BFTI_EXTENT_RAW_MAX ? bytes - at : BFTI_EXTENT_RAW_MAX;
    if (got == want)
        return BFT_OK;
    (void)snprintf(wrong, sizeof(wrong), "part %llu has %zu bytes, not %llu",
                   (unsigned long long)part, got, (unsigned long long)want);
    return of_value(lr, bfti_extent_wrong(lr->reader->tree->engine->buffer.pf,
                                          place, wrong));
}

static bft_status read_listed(struct large_read *lr, uint64_t offset, void *buf,
                              size_t len, bool *same)
{
    struct bfti_rec *rec = lr->reader->rec;
    uint64_t bytes = bfti_large_bytes(&lr->large);
    size_t parts =
        (size_t)((bytes + BFTI_EXTENT_RAW_MAX - 1) / BFTI_EXTENT_RAW_MAX);
    const void *raw;
    size_t raw_len;
    bft_status status = read_part(lr, le64_get(lr->large.place),
                                  BFTI_EXTENT_VALUE_LIST, &raw, &raw_len, same);
    if (status != BFT_OK || !*same)
        return status;
    if (raw_len != parts * sizeof(le64))
        return of_value(lr,
                        bfti_extent_wrong(lr->reader->tree->engine->buffer.pf,
                                          le64_get(lr->large.place),
                                          "a value's list has another length"));
    status = bfti_rec_buf(rec, 2, raw_len);
    if (status != BFT_OK)
        return status;
    memcpy(rec->buf[2], raw, raw_len);
    for (uint64_t i = offset / BFTI_EXTENT_RAW_MAX;
         i < parts && i * BFTI_EXTENT_RAW_MAX < offset + len; i++) {
        uint64_t place = le64_get(((le64 *)rec->buf[2])[i]);
        status = read_part(lr, place, BFTI_EXTENT_VALUE, &raw, &raw_len, same);
        if (status == BFT_OK && *same)
            status = check_part(lr, place, raw_len, i);
        if (status != BFT_OK || !*same)
            return status;
        copy_part(buf, offset, len, raw, i * BFTI_EXTENT_RAW_MAX, raw_len);
    }
    return BFT_OK;
}

static bft_status read_single(struct large_read *lr, uint64_t offset, void *buf,
                              size_t len, bool *same)
{
    const void *raw;
    size_t raw_len;
    bft_status status = read_part(lr, le64_get(lr->large.place),
                                  BFTI_EXTENT_VALUE, &raw, &raw_len, same);
    if (status == BFT_OK && *same)
        status = check_part(lr, le64_get(lr->large.place), raw_len, 0);
    if (status == BFT_OK && *same)
        copy_part(buf, offset, len, raw, 0, raw_len);
    return status;
}

bft_status bfti_large_read(struct bfti_reader *reader, bft_slice key,
                           const struct bfti_view *view, uint64_t offset,
                           void *buf, size_t len, bool *stable)
{
    struct bfti_scratch *scratch = &reader->rec->scratch[BFTI_SCRATCH_VALUE];
    struct large_read lr = {.reader = reader, .key = key};
    bft_status status;
    memcpy(&lr.large, view->value, sizeof(lr.large));
    *stable = true;
    if (len == 0)
        return BFT_OK;
    if (bfti_large_is_list(bfti_large_bytes(&lr.large)))
        status = read_listed(&lr, offset, buf, len, stable);
    else
        status = read_single(&lr, offset, buf, len, stable);
    /* Of values there are few, of threads perhaps many: half a megabyte for each
     * would be no part of the budget. */
    if (scratch->stored_cap + scratch->raw_cap > SCRATCH_KEPT)
        bfti_scratch_free(reader->tree->engine->env, scratch);
    return status;
}
