/*
 * Salvage: what is whole of a damaged database goes into a new one.
 *
 * The steps: the superblocks, and how much of the log there is; names of trees,
 * from a catalogue; pages, through the map if there is one, else all through
 * the file; the log; names.  README.md section 9 says what each can know.
 */
#include <string.h>

#include "salvage.h"

/* --- telling ------------------------------------------------------------- */

void bfti_salvage_tell(struct salvage *s, bft_salvage_damage *damage)
{
    bft_salvage_report *r = &s->report;
    char text[SALVAGE_TEXT];
    r->extents_damaged += damage->kind == BFT_SALVAGE_EXTENT;
    r->records_lost += damage->kind == BFT_SALVAGE_RECORD;
    r->ranges_lost += damage->kind == BFT_SALVAGE_LOST;
    r->ranges_old += damage->kind == BFT_SALVAGE_OLD;
    if (!s->options.damage)
        return;
    if (!damage->text) {
        bft_last_error(text, sizeof(text));
        damage->text = text;
    }
    s->options.damage(s->options.damage_ctx, damage);
}

void bfti_salvage_extent(struct salvage *s, uint64_t place, uint64_t page,
                         uint32_t tree_id)
{
    const struct salvage_tree *tree = bfti_salvage_find(s, tree_id);
    bft_salvage_damage damage;
    memset(&damage, 0, sizeof(damage));
    damage.kind = BFT_SALVAGE_EXTENT;
    damage.file = "data";
    damage.offset = bfti_disk_grain(place) * BFTI_GRAIN;
    damage.bytes = (uint64_t)bfti_disk_grains(place) * BFTI_GRAIN;
    damage.page = page;
    damage.tree_id = tree_id;
    damage.tree = tree && tree->named ? tree->name : NULL;
    bfti_salvage_tell(s, &damage);
}

bft_status bfti_salvage_meta(struct salvage *s, uint64_t place,
                             enum bfti_extent_type type, uint64_t page_id,
                             bool *whole, uint64_t *lsn, const void **raw,
                             size_t *len)
{
    struct bfti_extent_info info;
    bft_status status =
        bfti_extent_read(s->source.pf, place, &s->meta, &info, raw, len);
    if (status == BFT_OK && (info.type != type || (page_id != UINT64_MAX &&
                                                   info.page_id != page_id)))
        status = bfti_fail(
            BFT_CORRUPT,
            "%s: the extent at byte %llu is of type %d, not the "
            "one of type %d that should be there",
            s->from, (unsigned long long)bfti_disk_grain(place) * BFTI_GRAIN,
            (int)info.type, (int)type);
    *whole = status == BFT_OK;
    if (*whole && lsn)
        *lsn = info.lsn;
    if (!salvage_is_damage(status))
        return status;
    bfti_salvage_extent(s, place, 0, 0);
    return BFT_OK;
}

/* --- superblocks --------------------------------------------------------- */

static void tell_superblock(struct salvage *s, unsigned slot)
{
    bft_salvage_damage damage;
    memset(&damage, 0, sizeof(damage));
    damage.kind = BFT_SALVAGE_EXTENT;
    damage.text = "a superblock cannot be read";
    damage.file = "data";
    damage.offset = slot * (uint64_t)BFTI_BLOCK;
    damage.bytes = BFTI_BLOCK;
    bfti_salvage_tell(s, &damage);
}

/* Was SLOT never written, in a database that had one checkpoint at most? */
static bool is_unwritten(const struct bfti_superblock sb[2],
                         const bft_status verdict[2], unsigned slot)
{
    return slot == 1 && verdict[1] == BFT_NOT_FOUND && verdict[0] == BFT_OK &&
           sb[0].sequence == 1;
}

/* The newest superblock into s->sb; *OTHER, of the image before it, if there is
 * one (sequence 0: none).  *LOST: one of the two is, perhaps the newest. */
static bft_status read_superblocks(struct salvage *s,
                                   struct bfti_superblock *other, bool *lost)
{
    struct bfti_superblock sb[2];
    bft_status verdict[2];
    bft_status status = bfti_superblock_read(s->source.pf, sb, verdict);
    unsigned newest;
    memset(other, 0, sizeof(*other));
    *lost = false;
    if (status != BFT_OK)
        return status;
    for (unsigned i = 0; i < 2; i++) {
        if (verdict[i] == BFT_TOO_NEW)
            return BFT_TOO_NEW; /* by what, the last failure's text says */
        if (verdict[i] == BFT_OK || is_unwritten(sb, verdict, i))
            continue;
        *lost = true;
        tell_superblock(s, i);
    }
    if (verdict[0] != BFT_OK && verdict[1] != BFT_OK)
        return BFT_OK;
    newest =
        verdict[0] != BFT_OK ||
        (verdict[1] == BFT_OK && (sb[1].sequence > sb[0].sequence ||
                                  (sb[1].sequence == sb[0].sequence &&
                                   sb[1].incarnation > sb[0].incarnation)));
    s->sb = sb[newest];
    s->has_sb = true;
    if (verdict[newest ^ 1] == BFT_OK)
        *other = sb[newest ^ 1];
    return BFT_OK;
}

/*
 * Where the log is to be read from, and whether the superblock is the newest.
 * One that is alone may be the older: then the log that its redo starts with is
 * gone, for the newer one let it go, and with it pages are newer than the map.
 */
static bft_status choose_log(struct salvage *s, bool lost)
{
    struct bfti_wal_options options;
    bft_status status = BFT_OK;
    s->segment_bytes = s->sb.log_segment_bytes;
    s->mapped = s->has_sb;
    s->doubted = lost;
    s->log_start = s->has_sb ? s->sb.redo_lsn : BFTI_WAL_OLDEST;
    s->log_mark = s->sb.durable_mark;
    if (!s->has_sb) {
        memset(&options, 0, sizeof(options));
        options.env = s->env;
        options.vfs = s->vfs;
        options.dir = s->from;
        status = bfti_wal_guess_segment_bytes(&options, &s->segment_bytes);
    }
    if (status == BFT_OK)
        status = bfti_salvage_log_look(s);
    if (status != BFT_OK || !s->mapped || !lost ||
        (s->log.first == s->log_start && s->log.gaps == 0 &&
         !s->log.segment_missing && s->loaded <= s->sb.sequence))
        return status;
    s->mapped = false;
    s->log_start = BFTI_WAL_OLDEST;
    return bfti_salvage_log_look(s);
}

/* --- steps --------------------------------------------------------------- */

/* Names of trees: the image's own, those of the one before, or the newest in
 * the file. */
static bft_status find_catalogue(struct salvage *s,
                                 const struct bfti_superblock *other)
{
    bool whole = false;
    bft_status status = BFT_OK;
    if (s->mapped && s->sb.root[0] == 0) {
        s->catalogue = s->catalogue_exact = true; /* it had no tree yet */
        s->catalogue_lsn = s->sb.redo_lsn;
        return BFT_OK;
    }
    if (s->mapped)
        status = bfti_salvage_catalogue(s, s->sb.root[0], true, &whole);
    if (status == BFT_OK && !whole && s->mapped && other->root[0])
        status = bfti_salvage_catalogue(s, other->root[0], false, &whole);
    return status == BFT_OK && !whole ? bfti_salvage_look_for_catalogue(s)
                                      : status;
}

/* The image's free-space map is not needed; it is looked at to be told of. */
static bft_status look_at_space(struct salvage *s)
{
    bft_status status = BFT_OK;
    for (uint32_t i = 0; status == BFT_OK && i < s->sb.map_count; i++) {
        const void *raw;
        size_t len;
        bool whole;
        status = bfti_salvage_meta(s, s->sb.map[i], BFTI_EXTENT_MAP, UINT64_MAX,
                                   &whole, NULL, &raw, &len);
    }
    return status;
}

static bft_status salvage_pages(struct salvage *s)
{
    bft_status status = BFT_OK;
    if (s->mapped)
        status = look_at_space(s);
    if (status == BFT_OK)
        status = bfti_salvage_other_dictionaries(s);
    if (status == BFT_OK && s->mapped)
        status = bfti_salvage_mapped_pages(s);
    s->report.map_read = s->mapped && s->lost_count == 0;
    if (status == BFT_OK)
        status = bfti_salvage_other_pages(s);
    for (size_t i = 0; status == BFT_OK && i < s->tree_count; i++)
        if (s->tree[i]->target && (s->mapped || s->order))
            status = bfti_salvage_tell_ranges(s, s->tree[i]);
    return status == BFT_OK ? bfti_salvage_orphans(s) : status;
}

static bft_status salvage_all(struct salvage *s)
{
    struct bfti_superblock other;
    bool lost;
    bft_status status = read_superblocks(s, &other, &lost);
    if (status == BFT_OK)
        status = choose_log(s, lost);
    if (status == BFT_OK)
        status = find_catalogue(s, &other);
    if (status == BFT_OK)
        status = salvage_pages(s);
    if (status == BFT_OK)
        status = bfti_salvage_tombs(s);
    if (status == BFT_OK)
        status = bfti_salvage_log_apply(s);
    return status == BFT_OK ? bfti_salvage_name_trees(s) : status;
}

/* --- the old database ---------------------------------------------------- */

static void note_part(void *arg, const char *name)
{
    bool *found = arg;
    *found =
        *found || strcmp(name, "data") == 0 || strncmp(name, "log-", 4) == 0;
}

static bft_status open_from(struct salvage *s, struct bfti_vfs *below)
{
    struct bfti_pagefile_options options;
    bool found = false;
    char *path;
    bft_status status = below->ops->list(below, s->from, note_part, &found);
    if (status == BFT_OK && !found)
        status =
            bfti_fail(BFT_NOT_FOUND, "there is no database in %s", s->from);
    if (status == BFT_OK)
        status = bfti_lock_source(s->env, below, s->from, &s->lock);
    if (status == BFT_OK)
        status = bfti_vfs_overlay_create(s->env, below, s->from, &s->vfs);
    if (status != BFT_OK)
        return status;
    bfti_vfs_overlay_forgive(s->vfs);
    s->source.env = s->env;
    status = bfti_threads_create(s->env, &s->source.threads);
    if (status == BFT_OK)
        status = bfti_join_path(s->env, s->from, "data", &path);
    if (status != BFT_OK)
        return status;
    memset(&options, 0, sizeof(options));
    options.env = s->env;
    options.vfs = s->vfs;
    options.path = path;
    options.create = true; /* in memory, should it be missing */
    status = bfti_pagefile_open(&options, &s->source.pf);
    bfti_free(s->env, path);
    s->rec = status == BFT_OK ? bfti_rec_take(s->source.threads) : NULL;
    return status == BFT_OK && !s->rec
               ? bfti_fail(BFT_NO_MEMORY, "no memory for a thread's record")
               : status;
}

static void close_from(struct salvage *s)
{
    struct bfti_space_stats stats;
    bfti_scratch_free(s->env, &s->meta);
    bfti_free(s->env, s->places.place);
    bfti_free(s->env, s->loads.place);
    bfti_free(s->env, s->value);
    bfti_free(s->env, s->lost);
    if (s->rec)
        bfti_rec_give(s->rec);
    if (s->source.pf) {
        bfti_space_stats(s->source.pf, &stats);
        s->report.extents_read = stats.extents_read;
        bfti_pagefile_close(s->source.pf);
    }
    if (s->source.threads)
        bfti_threads_destroy(s->source.threads);
    if (s->vfs) {
        s->report.bytes_unreadable = bfti_vfs_overlay_unreadable(s->vfs);
        bfti_vfs_overlay_destroy(s->vfs);
    }
    if (s->lock)
        s->lock->ops->close(s->lock);
}

/* --- the call ------------------------------------------------------------ */

static bft_status check_apart(struct bfti_vfs *below, const char *from,
                              const char *to)
{
    uint64_t device[2], inode[2];
    bft_status status =
        below->ops->identify(below, from, &device[0], &inode[0]);
    if (status != BFT_OK)
        return status;
    if (below->ops->identify(below, to, &device[1], &inode[1]) == BFT_OK &&
        device[0] == device[1] && inode[0] == inode[1])
        return bfti_fail(BFT_INVALID, "%s and %s are one directory", from, to);
    return BFT_OK;
}

/* Open both, salvage, close both. */
static bft_status run(struct salvage *s, const char *to,
                      const bft_options *database, struct bfti_vfs *below)
{
    bft_status status = check_apart(below, s->from, to), closed;
    char text[SALVAGE_TEXT];
    if (status == BFT_OK)
        status = open_from(s, below);
    if (status == BFT_OK)
        status = bft_open(to, database, &s->to);
    if (status == BFT_OK)
        status = salvage_all(s);
    bft_last_error(text, sizeof(text));
    closed = bft_close(s->to);
    if (status == BFT_OK)
        status = closed;
    else
        (void)bfti_fail(status, "%s", text); /* the first failure's */
    bfti_salvage_trees_free(s);
    close_from(s);
    return status;
}

static bft_status check_arguments(const char *from, const char *to,
                                  const bft_salvage_options *options,
                                  const bft_salvage_report *report)
{
    if (!from || !*from || !to || !*to)
        return bfti_fail(BFT_INVALID, "bft_salvage: a path is NULL or empty");
    if (options && options->size != sizeof(*options))
        return bfti_fail(BFT_INVALID,
                         "option size is %zu, this library knows %zu",
                         options->size, sizeof(*options));
    if (options && (unsigned)options->old > BFT_SALVAGE_OLD_ALWAYS)
        return bfti_fail(BFT_INVALID, "option old: unknown");
    if (options && options->database && options->database->read_only)
        return bfti_fail(BFT_INVALID,
                         "option read_only: the new database is written");
    if (report && report->size != sizeof(*report))
        return bfti_fail(BFT_INVALID, "size of the report is %zu, not %zu",
                         report->size, sizeof(*report));
    return BFT_OK;
}

bft_status bft_salvage(const char *from, const char *to,
                       const bft_salvage_options *options,
                       bft_salvage_report *report)
{
    struct bfti_vfs *below;
    bft_options database;
    struct salvage *s;
    const struct bfti_env *env;
    bft_status status = check_arguments(from, to, options, report);
    if (status == BFT_OK)
        status = bfti_options_fill(options ? options->database : NULL,
                                   &database, &env, &below);
    if (status != BFT_OK)
        return status;
    s = bfti_alloc(env, sizeof(*s));
    if (!s)
        return bfti_fail(BFT_NO_MEMORY, "no memory to salvage %s", from);
    memset(s, 0, sizeof(*s));
    s->env = env;
    s->from = from;
    if (options)
        s->options = *options;
    s->tag = env->random(env->ctx);
    database.must_exist = false;
    database.error_if_exists = true;
    database.durability = BFT_NONE;    /* the close makes all of it durable */
    if (database.promote_percent == 0) /* filled in: never */
        database.promote_percent = 101;
    status = run(s, to, &database, below);
    s->report.size = sizeof(s->report);
    if (report)
        *report = s->report;
    bfti_free(env, s);
    return status;
}
