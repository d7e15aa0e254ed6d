/*
 * Opening what is there: choose a superblock, find the log's end, make both
 * rest on durable bytes under a new incarnation, load the image, apply the log.
 */
#include "image.h"
#include "tomb.h"

bool bfti_recover_log_named(void *arg, uint64_t place)
{
    const struct bfti_engine *engine = arg;
    if (!engine->recovering)
        return false;
    for (size_t i = 0; i < engine->log_named.count; i++)
        if (engine->log_named.place[i] == place)
            return true;
    return false;
}

static void forget_named(struct bfti_engine *engine, uint64_t place)
{
    struct bfti_places *named = &engine->log_named;
    for (size_t i = 0; i < named->count; i++) {
        if (named->place[i] != place)
            continue;
        named->place[i] = named->place[--named->count];
        return; /* a frame names it once; another may again */
    }
}

static struct bfti_wal_options wal_options(struct bfti_engine *engine,
                                           uint64_t segment_bytes)
{
    return (struct bfti_wal_options){.env = engine->env,
                                     .vfs = engine->vfs,
                                     .dir = engine->path,
                                     .segment_bytes = segment_bytes,
                                     .map = true,
                                     .nowhere = engine->buffer.forgets};
}

/* --- choosing ------------------------------------------------------------ */

static bool newer(const struct bfti_superblock *a,
                  const struct bfti_superblock *b)
{
    return a->sequence != b->sequence ? a->sequence > b->sequence
                                      : a->incarnation > b->incarnation;
}

static bft_status no_superblock(const struct bfti_engine *engine,
                                const char *but)
{
    return bfti_fail(BFT_CORRUPT,
                     "%s/data: there is no superblock to be read, at byte 0 or "
                     "at byte %d, but %s",
                     engine->path, (int)BFTI_BLOCK, but);
}

/* *SLOT: the newest valid one, or -1 for a database that was never finished
 * being made.  *UNREAD: the other one may be newer, and whole. */
static bft_status choose(struct bfti_engine *engine,
                         struct bfti_superblock sb[2], int *slot, bool *unread)
{
    bft_status verdict[2];
    bft_status status = bfti_superblock_read(engine->buffer.pf, sb, verdict);
    *slot = -1;
    *unread = false;
    if (status != BFT_OK)
        return status;
    for (int i = 0; i < 2; i++) {
        if (verdict[i] == BFT_TOO_NEW)
            return BFT_TOO_NEW; /* by what, the text of the last failure says */
        if (verdict[i] == BFT_OK && (*slot < 0 || newer(&sb[i], &sb[*slot])))
            *slot = i;
    }
    *unread = verdict[0] == BFT_IO || verdict[1] == BFT_IO;
    return *unread && *slot < 0 ? BFT_IO : BFT_OK;
}

/* --- the log ------------------------------------------------------------- */

struct redo {
    struct bfti_engine *engine;
    struct bfti_rec *rec;
    uint64_t sequence; /* of the superblock that it starts from */
    bft_status (*record)(void *redo, const struct bfti_frame_record *record);
    uint64_t frames; /* that the log has, as far as is known */
};

/* First pass: extents that the log names must not be given to anyone. */
static bft_status note_record(void *arg, const struct bfti_frame_record *record)
{
    struct redo *redo = arg;
    struct bfti_large large;
    if (!(record->flags & BFTI_REC_LARGE))
        return BFT_OK;
    memcpy(&large, record->value.data, sizeof(large));
    return bfti_places_add(redo->engine->env, &redo->engine->log_named,
                           le64_get(large.place));
}

/* What was loaded is in the image that redo starts from, or was in an older
 * one. */
static bft_status check_load(const struct redo *redo, const void *payload,
                             size_t len)
{
    char name[BFTI_NAME_MAX + 1];
    struct bfti_frame_tree load;
    bft_status status =
        bfti_frame_tree_get(BFTI_FRAME_LOAD, payload, len, &load);
    if (status != BFT_OK || load.sequence <= redo->sequence)
        return status;
    bfti_frame_name(load.name, name);
    return bfti_fail(BFT_CORRUPT,
                     "%s/data: the superblock of checkpoint %llu, at byte %d, "
                     "is lost, which has what was loaded into tree %s",
                     redo->engine->path, (unsigned long long)load.sequence,
                     redo->engine->superblock_slot ? 0 : (int)BFTI_BLOCK, name);
}

static bft_status note_frame(void *arg, uint64_t lsn, uint8_t type,
                             const void *payload, size_t len)
{
    struct redo *redo = arg;
    if (type == BFTI_FRAME_LOAD) /* before anything is written */
        return check_load(redo, payload, len);
    return type == BFTI_FRAME_WRITE
               ? bfti_frame_each(redo->engine->path, lsn, payload, len,
                                 redo->record, redo)
               : BFT_OK;
}

/* The extents of the value LARGE that the log names. */
static bft_status named_places(struct bfti_engine *engine, struct bfti_rec *rec,
                               struct bfti_large large,
                               struct bfti_places *places)
{
    bft_status status = bfti_large_places(&engine->buffer, rec, large, places);
    return status == BFT_CORRUPT
               ? bfti_fail_in(status, "a value that the log names")
               : status;
}

/* The extents that the log names, with the parts of those that are lists. */
static bft_status reserve_named(struct bfti_engine *engine,
                                struct bfti_rec *rec,
                                const struct bfti_frame_record *record)
{
    struct bfti_places places = {NULL, 0, 0};
    struct bfti_large large;
    bft_status status;
    memcpy(&large, record->value.data, sizeof(large));
    status = named_places(engine, rec, large, &places);
    for (size_t i = 0; i < places.count && status == BFT_OK; i++)
        status = bfti_extent_reserve(engine->buffer.pf, places.place[i]);
    bfti_free(engine->env, places.place);
    return status;
}

static bft_status reserve_record(void *arg,
                                 const struct bfti_frame_record *record)
{
    struct redo *redo = arg;
    return record->flags & BFTI_REC_LARGE
               ? reserve_named(redo->engine, redo->rec, record)
               : BFT_OK;
}

static bft_status apply_large(struct redo *redo, struct bfti_tree *tree,
                              const struct bfti_frame_record *record,
                              struct bfti_change *change,
                              struct bfti_large *large,
                              struct bfti_places *places)
{
    struct bfti_engine *engine = redo->engine;
    bft_status status;
    atomic_store(&tree->has_large, true);
    if (record->flags & BFTI_REC_LARGE) {
        memcpy(large, record->value.data, sizeof(*large));
        status = named_places(engine, redo->rec, *large, places);
    } else {
        status = bfti_large_write_slice(engine, redo->rec, tree, record->value,
                                        large, places);
    }
    change->value.data = large;
    change->value.len = sizeof(*large);
    change->flags = BFTI_REC_LARGE;
    change->extents = places;
    return status;
}

/* Nobody will refer to what was reserved for this record.  But the log names it: it
 * waits like all that goes, for an image from which redo starts behind that. */
static bft_status unlink_named(struct bfti_engine *engine, struct bfti_rec *rec,
                               const struct bfti_frame_record *record)
{
    struct bfti_pagefile *pf = engine->buffer.pf;
    uint64_t lsn = bfti_last_lsn(&engine->buffer);
    struct bfti_places places = {NULL, 0, 0};
    struct bfti_large large;
    bft_status status;
    memcpy(&large, record->value.data, sizeof(large));
    forget_named(engine, le64_get(large.place));
    status = named_places(engine, rec, large, &places);
    for (size_t i = 0; status == BFT_OK && i < places.count; i++) {
        bfti_extent_link(pf, places.place[i], 0);
        status = bfti_extent_unlink(pf, places.place[i], 0, lsn);
    }
    bfti_free(engine->env, places.place);
    return status;
}

static bft_status apply_record(void *arg,
                               const struct bfti_frame_record *record)
{
    struct redo *redo = arg;
    struct bfti_engine *engine = redo->engine;
    struct bfti_tree *tree = bfti_tree_by_id(engine, record->tree_id);
    struct bfti_places places = {NULL, 0, 0};
    struct bfti_large large;
    struct bfti_change change;
    uint64_t end;
    bft_status status = BFT_OK;

    if (!tree) /* dropped later in the log, or before the image */
        return record->flags & BFTI_REC_LARGE
                   ? unlink_named(engine, redo->rec, record)
                   : BFT_OK;
    memset(&change, 0, sizeof(change));
    change.key = record->key;
    change.value = record->value;
    change.op = record->op;
    if ((record->flags & BFTI_REC_LARGE) ||
        (record->op == BFTI_OP_PUT &&
         bfti_is_large(tree, record->key.len, record->value.len)))
        status = apply_large(redo, tree, record, &change, &large, &places);
    if (status == BFT_OK)
        status = bfti_leaf_write(tree, redo->rec, &change, NULL, NULL,
                                 &bfti_unguarded, &end);
    if (record->flags & BFTI_REC_LARGE)
        forget_named(engine, le64_get(large.place));
    bfti_free(engine->env, places.place);
    return status;
}

/* A planted fault: the last frame is left out. */
static bool planted_skip(const struct redo *redo)
{
    return bfti_fault_on(BFTI_FAULT_REDO_SKIPS_LAST) &&
           redo->engine->recovered_frames == redo->frames;
}

/* A range that was deleted; or a part of one, whose records went with the frame. */
static bft_status apply_range(struct redo *redo, uint64_t lsn, uint8_t type,
                              const void *payload, size_t len)
{
    struct bfti_frame_range range;
    struct bfti_tree *tree;
    bft_status status = bfti_frame_range_get(payload, len, &range);
    if (status != BFT_OK)
        return status;
    tree = bfti_tree_by_id(redo->engine, range.tree_id);
    if (!tree) /* dropped later in the log, or before the image */
        return BFT_OK;
    if (type == BFTI_FRAME_RANGE)
        return bfti_fault_on(BFTI_FAULT_RANGE_NOT_REDONE)
                   ? BFT_OK
                   : bfti_tomb_redo(tree, range.low, range.high);
    status = bfti_frame_each(redo->engine->path, lsn, range.behind,
                             range.behind_len, redo->record, redo);
    return status == BFT_OK ? bfti_tomb_redo_clear(tree, range.low, range.high)
                            : status;
}

static bft_status apply_frame(void *arg, uint64_t lsn, uint8_t type,
                              const void *payload, size_t len)
{
    struct redo *redo = arg;
    redo->engine->recovered_frames++;
    if (planted_skip(redo))
        return BFT_OK;
    switch (type) {
    case BFTI_FRAME_WRITE:
        return bfti_frame_each(redo->engine->path, lsn, payload, len,
                               redo->record, redo);
    case BFTI_FRAME_CREATE:
    case BFTI_FRAME_DROP:
    case BFTI_FRAME_TRUNCATE:
    case BFTI_FRAME_RENAME:
    case BFTI_FRAME_LOAD:
        return bfti_tree_redo(redo->engine, redo->rec, type, payload, len);
    case BFTI_FRAME_RANGE:
    case BFTI_FRAME_CLEAR:
        return apply_range(redo, lsn, type, payload, len);
    default:
        return bfti_fail(BFT_TOO_NEW, "%s: log frame at %llu has type %d",
                         redo->engine->path, (unsigned long long)lsn,
                         (int)type);
    }
}

/* --- a new database ------------------------------------------------------ */

void bfti_fill_id(const struct bfti_env *env, uint8_t id[16])
{
    for (size_t i = 0; i < 2; i++) {
        uint64_t bits = env->random(env->ctx);
        memcpy(id + 8 * i, &bits, 8);
    }
}

bft_status bfti_sync_parent(const struct bfti_env *env, struct bfti_vfs *vfs,
                            const char *path)
{
    size_t len = strlen(path), from;
    char *parent = bfti_alloc(env, len + sizeof("/.."));
    bft_status status;
    if (!parent)
        return bfti_fail(BFT_NO_MEMORY, "no memory to create %s", path);
    memcpy(parent, path, len + 1);
    while (len > 1 && path[len - 1] == '/')
        len--;
    for (from = len; from > 0 && path[from - 1] != '/';)
        from--;
    /* No name, "." and ".." begin "..": the path alone does not tell whose they are. */
    if (strncmp(path + from, "..", len - from) == 0)
        memcpy(parent + len, "/..", sizeof("/.."));
    else if (from == 0)
        memcpy(parent, ".", sizeof("."));
    else
        parent[from] = 0;
    status = vfs->ops->sync_dir(vfs, parent);
    bfti_free(env, parent);
    return status;
}

/* Who was killed while making the database may have been told of other segments
 * than we are; the one that it left has no frame. */
static bft_status remove_left(struct bfti_engine *engine)
{
    char *path;
    bft_status status = bfti_join_path(engine->env, engine->path,
                                       "log-0000000000000000", &path);
    if (status == BFT_OK)
        status = engine->vfs->ops->remove(engine->vfs, path);
    bfti_free(engine->env, path);
    return status;
}

/*
 * No superblock can be read: was the database never finished being made, or are
 * they lost?  Whoever makes one writes its first superblock before anything else
 * into the page file, and makes it durable before the first frame is linked.  A
 * part of it may be there of a write that failed.
 */
static bft_status check_unmade(struct bfti_engine *engine)
{
    struct bfti_wal_options log =
        wal_options(engine, engine->options.log_segment_bytes);
    struct bfti_file *file = bfti_pagefile_file(engine->buffer.pf);
    struct bfti_wal_found found;
    uint64_t bytes, left;
    bool same;
    bft_status status = file->ops->size(file, &bytes);
    if (status != BFT_OK)
        return status;
    if (bytes > BFTI_BLOCK)
        return no_superblock(engine, "more was written");
    status = bfti_wal_guess_segment_bytes(&log, &left);
    if (status != BFT_OK)
        return status;
    same = !bfti_wal_segment_bytes_valid(left) || left == log.segment_bytes;
    if (!same)
        log.segment_bytes = left;
    status = bfti_wal_scan(&log, 0, 0, NULL, NULL, &found);
    /* An incarnation without a frame: of one that is not whole. */
    if (status == BFT_OK && (found.frames || found.max_incarnation))
        status = no_superblock(engine, "the log has frames");
    return status == BFT_OK && !same && !engine->options.must_exist
               ? remove_left(engine)
               : status;
}

static bft_status create(struct bfti_engine *engine)
{
    struct bfti_superblock *sb = &engine->superblock;
    struct bfti_wal_options log =
        wal_options(engine, engine->options.log_segment_bytes);
    bft_status status = bfti_space_reset(engine->buffer.pf);
    if (status == BFT_OK)
        status = bfti_wal_open(&log, 0, 0, 0, 1, &engine->buffer.wal);
    if (status != BFT_OK)
        return status;
    bfti_fill_id(engine->env, engine->database_id);
    sb->major = BFTI_FORMAT_MAJOR;
    sb->minor = BFTI_FORMAT_MINOR;
    memcpy(sb->database_id, engine->database_id, sizeof(sb->database_id));
    sb->incarnation = engine->incarnation = 1;
    sb->sequence = 1;
    sb->log_segment_bytes = engine->options.log_segment_bytes;
    sb->page_ids = 1;
    sb->next_tree_id = 1;
    sb->root_count = 1;
    engine->next_tree_id = 1;
    /* The names first, those that a killed predecessor made too: whoever finds
     * a superblock takes them as durable.  Those in the directory are since the
     * log was opened; the directory's own is left. */
    status = bfti_sync_parent(engine->env, engine->vfs, engine->path);
    return status == BFT_OK ? bfti_superblock_write(engine->buffer.pf, 0, sb)
                            : status;
}

/* --- an existing one ----------------------------------------------------- */

/* The log to its end, nothing written yet. */
static bft_status scan(struct bfti_engine *engine, struct bfti_rec *rec,
                       const struct bfti_superblock *sb,
                       struct bfti_wal_found *found)
{
    struct bfti_wal_options log = wal_options(engine, sb->log_segment_bytes);
    struct redo redo = {engine, rec, sb->sequence, note_record, 0};
    return bfti_wal_scan(&log, sb->redo_lsn, sb->durable_mark, note_frame,
                         &redo, found);
}

/* Make the chosen state durable under a new incarnation before any work. */
static bft_status settle(struct bfti_engine *engine,
                         const struct bfti_superblock *sb, int slot,
                         const struct bfti_wal_found *found)
{
    struct bfti_wal_options log = wal_options(engine, sb->log_segment_bytes);
    uint64_t mark = found->highest_mark > sb->durable_mark ? found->highest_mark
                                                           : sb->durable_mark;
    uint32_t incarnation = sb->incarnation;
    bft_status status;
    if (found->max_incarnation > incarnation)
        incarnation = found->max_incarnation;
    /* The other superblock, if it is lost, may have the next. */
    incarnation += 2;
    /* First of all: after a kill the chosen superblock may be in the system's
     * cache only, and the log gives up here what the one before it starts from. */
    status = bfti_pagefile_sync(engine->buffer.pf);
    if (status == BFT_OK)
        status = bfti_wal_open(&log, sb->redo_lsn, mark, found->end,
                               incarnation, &engine->buffer.wal);
    if (status != BFT_OK)
        return status;
    engine->superblock = *sb;
    engine->superblock.incarnation = engine->incarnation = incarnation;
    engine->superblock.durable_mark = found->end;
    engine->superblock_slot = (unsigned)slot ^ 1u;
    return bfti_superblock_write(engine->buffer.pf, engine->superblock_slot,
                                 &engine->superblock);
}

/* A planted fault: writes of the log's first half come once more. */
static bft_status planted_frame(void *arg, uint64_t lsn, uint8_t type,
                                const void *payload, size_t len)
{
    struct redo *redo = arg;
    bool is_old = redo->frames > 0;
    redo->frames -= is_old;
    return is_old && type == BFTI_FRAME_WRITE
               ? apply_frame(arg, lsn, type, payload, len)
               : BFT_OK;
}

static bft_status planted_redo(struct redo *redo,
                               const struct bfti_wal_options *log,
                               uint64_t redo_lsn, bft_status status)
{
    struct bfti_wal_found again;
    if (!bfti_fault_on(BFTI_FAULT_REDO_OLD_AGAIN) || status != BFT_OK)
        return status;
    redo->frames /= 2;
    return bfti_wal_scan(log, redo_lsn, 0, planted_frame, redo, &again);
}

static bft_status redo_log(struct bfti_engine *engine, struct bfti_rec *rec,
                           const struct bfti_wal_found *found)
{
    const struct bfti_superblock *sb = &engine->superblock;
    struct bfti_wal_options log = wal_options(engine, sb->log_segment_bytes);
    struct redo redo = {engine, rec, sb->sequence, reserve_record,
                        found->frames};
    struct bfti_wal_found again;
    bft_status status = BFT_OK;
    engine->recovering = true;
    engine->buffer.hurried = true;
    if (engine->log_named.count)
        status =
            bfti_wal_scan(&log, sb->redo_lsn, 0, note_frame, &redo, &again);
    redo.record = apply_record;
    if (status == BFT_OK)
        status =
            bfti_wal_scan(&log, sb->redo_lsn, 0, apply_frame, &redo, &again);
    status = planted_redo(&redo, &log, sb->redo_lsn, status);
    if (status == BFT_OK && again.end != found->end)
        status = bfti_fail(BFT_CORRUPT,
                           "%s: the log ended at %llu, and at %llu when read "
                           "again",
                           engine->path, (unsigned long long)found->end,
                           (unsigned long long)again.end);
    engine->recovering = false;
    engine->redone = engine->recovered_frames > 0;
    engine->buffer.hurried = false;
    bfti_free(engine->env, engine->log_named.place);
    memset(&engine->log_named, 0, sizeof(engine->log_named));
    return status;
}

/* What SLOT's superblock rests on is not there, and the other one could not be
 * read: that may be the newer, and what is missing only what that let go. */
static bft_status no_more(const struct bfti_engine *engine, int slot)
{
    return bfti_fail_in(BFT_IO,
                        "%s/data: superblock %d cannot be read, and by the "
                        "other one",
                        engine->path, slot ^ 1);
}

/* STATUS is of the look for a database, and MADE: it found one.  Who asks that
 * there be none, or one, is told; what was never finished being made is none. */
static bft_status check_asked(const struct bfti_engine *engine,
                              bft_status status, bool made)
{
    made = made || status == BFT_CORRUPT || status == BFT_TOO_NEW;
    if (made && engine->options.error_if_exists)
        return bfti_fail(BFT_EXISTS, "%s holds a database", engine->path);
    if (status == BFT_OK && !made && engine->options.must_exist)
        return bfti_fail(BFT_NOT_FOUND,
                         "%s: the database was never finished being made",
                         engine->path);
    return status;
}

bft_status bfti_recover(struct bfti_engine *engine, struct bfti_rec *rec)
{
    struct bfti_superblock sb[2];
    struct bfti_wal_found found;
    int slot;
    bool unread;
    bft_status status = choose(engine, sb, &slot, &unread);
    if (status == BFT_OK && slot < 0)
        status = check_unmade(engine);
    status = check_asked(engine, status, slot >= 0);
    if (status != BFT_OK)
        return status;
    if (slot < 0) {
        status = create(engine);
        bfti_threads_set_wal(engine->buffer.threads, engine->buffer.wal);
        return status;
    }
    memcpy(engine->database_id, sb[slot].database_id,
           sizeof(engine->database_id));
    engine->options.log_segment_bytes = sb[slot].log_segment_bytes;
    engine->superblock_slot = (unsigned)slot;
    status = scan(engine, rec, &sb[slot], &found);
    if (status == BFT_OK)
        status = bfti_image_load(engine, rec, &sb[slot]);
    if (status == BFT_CORRUPT && unread)
        status = no_more(engine, slot);
    if (status == BFT_OK)
        status = settle(engine, &sb[slot], slot, &found);
    if (status != BFT_OK)
        return status;
    bfti_threads_set_wal(engine->buffer.threads, engine->buffer.wal);
    atomic_store(&engine->redo_lsn, sb[slot].redo_lsn);
    status = redo_log(engine, rec, &found);
    /* Loads that a crash ended between their image and their frame. */
    return status == BFT_OK ? bfti_trees_clear_unnamed(engine, rec) : status;
}
