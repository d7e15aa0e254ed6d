/*
 * Late writers: those who decided to write before a snapshot's number was there,
 * and have not published when it is taken.  Who takes the snapshot does not wait
 * for them.  What they are about to change he reads, as it is, and the snapshot
 * keeps it; if nothing of theirs is visible by then, they come behind the
 * snapshot, and it has what the records were.  Else they are before it.
 *
 * The frame that a writer shows (fileio/wal.h) names the records.  He holds the
 * latches of their leaves until all is published, so nobody else changes them.
 */
#include "snapshot.h"
#include "tomb.h"

#include <stdlib.h>

enum {
    KEPT_SHARE = 16, /* of the memory budget, that a snapshot keeps at most */
    CAP_FIRST = 16,
};

/* What a record was: its key, and behind it the value. */
struct bfti_late_record {
    uint8_t *bytes;
    uint32_t tree_id;
    bool there;
    size_t key_len, value_len;
    const struct bfti_rec *writer; /* who is about to change it, */
    uint64_t publishing; /* at which number; both until that is decided */
};

static bft_slice key_of(const struct bfti_late_record *record)
{
    bft_slice key = {record->bytes, record->key_len};
    return key;
}

void bfti_late_free(const struct bfti_env *env, struct bfti_late *late)
{
    for (size_t i = 0; i < late->count; i++)
        bfti_free(env, late->record[i].bytes);
    bfti_free(env, late->record);
    memset(late, 0, sizeof(*late));
}

/* --- looking -------------------------------------------------------------- */

static int order_of(const struct bfti_late_record *record, uint32_t tree_id,
                    bft_slice key)
{
    if (record->tree_id != tree_id)
        return record->tree_id < tree_id ? -1 : 1;
    return bfti_key_compare(key_of(record), key);
}

/* How many are below KEY. */
static size_t search(const struct bfti_late *late, uint32_t tree_id,
                     bft_slice key)
{
    size_t low = 0, high = late->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (order_of(&late->record[middle], tree_id, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct bfti_version version_of(const struct bfti_late_record *record)
{
    struct bfti_version version;
    memset(&version, 0, sizeof(version));
    version.kind = record->there ? BFTI_WAS_VALUE : BFTI_WAS_ABSENT;
    version.bytes = record->value_len;
    version.value =
        (bft_slice){record->bytes + record->key_len, record->value_len};
    return version;
}

bool bfti_late_find(const struct bfti_late *late, const struct bfti_tree *tree,
                    bft_slice key, struct bfti_version *version)
{
    size_t i = late->count ? search(late, tree->id, key) : 0;
    if (i == late->count || order_of(&late->record[i], tree->id, key) != 0)
        return false;
    *version = version_of(&late->record[i]);
    return true;
}

bft_status bfti_late_range(const struct bfti_late *late,
                           const struct bfti_tree *tree, bft_slice low,
                           bft_slice high,
                           bft_status (*each)(void *ctx, bft_slice key,
                                              const struct bfti_version *v),
                           void *ctx)
{
    bft_status status = BFT_OK;
    for (size_t i = late->count ? search(late, tree->id, low) : 0;
         i < late->count && status == BFT_OK; i++) {
        const struct bfti_late_record *record = &late->record[i];
        struct bfti_version version = version_of(record);
        if (record->tree_id != tree->id ||
            (high.len && bfti_key_compare(key_of(record), high) >= 0))
            break;
        status = each(ctx, key_of(record), &version);
    }
    return status;
}

/* --- keeping -------------------------------------------------------------- */

/* Of a snapshot that is being taken. */
struct keeping {
    struct bfti_engine *engine;
    struct bfti_rec *rec;
    struct bfti_late *late;
    uint64_t number;
    const struct bfti_rec *writer; /* who is being looked at, */
    uint64_t publishing;           /* at this number */
    bft_status status;
};

static bft_status no_memory(void)
{
    return bfti_fail(BFT_NO_MEMORY, "no memory for a snapshot");
}

/* Forget all but the first COUNT. */
static void forget(struct keeping *k, size_t count, size_t bytes)
{
    while (k->late->count > count)
        bfti_free(k->engine->env, k->late->record[--k->late->count].bytes);
    k->late->bytes = bytes;
}

static bft_status add(struct keeping *k, const struct bfti_tree *tree,
                      bft_slice key, bool there, bft_slice value)
{
    struct bfti_late *late = k->late;
    uint8_t *block;
    if (late->count == late->cap) {
        size_t cap = late->cap ? late->cap * 2 : CAP_FIRST;
        struct bfti_late_record *grown =
            bfti_realloc(k->engine->env, late->record, cap * sizeof(*grown));
        if (!grown)
            return no_memory();
        late->record = grown;
        late->cap = cap;
    }
    block = bfti_alloc(k->engine->env, key.len + value.len);
    if (!block)
        return no_memory();
    memcpy(block, key.data, key.len);
    if (value.len)
        memcpy(block + key.len, value.data, value.len);
    late->record[late->count++] =
        (struct bfti_late_record){.bytes = block,
                                  .tree_id = tree->id,
                                  .there = there,
                                  .key_len = key.len,
                                  .value_len = value.len,
                                  .writer = k->writer,
                                  .publishing = k->publishing};
    late->bytes += key.len + value.len + sizeof(*late->record);
    return BFT_OK;
}

/* What KEY is.  BFT_TOO_BIG: too much for a snapshot to keep. */
static bft_status keep(struct keeping *k, struct bfti_tree *tree, bft_slice key)
{
    uint64_t most = k->engine->options.memory_bytes / KEPT_SHARE;
    struct bfti_take take = {.env = k->engine->env};
    bool found;
    bft_status status = bfti_value_read(tree, k->rec, key, &take, &found);
    if (status == BFT_TOO_SMALL)
        status = BFT_OK;
    if (status == BFT_OK && k->late->bytes + key.len + take.value_len +
                                    sizeof(struct bfti_late_record) >
                                most)
        return bfti_fail_plain(BFT_TOO_BIG, "too much for a snapshot to keep");
    take.allocate = true;
    if (status == BFT_OK)
        status = bfti_value_read(tree, k->rec, key, &take, &found);
    if (status == BFT_OK) {
        bft_slice value = {take.buf, found ? take.value_len : 0};
        status = add(k, tree, key, found, value);
    }
    bft_free(take.buf);
    return status == BFT_GONE ? BFT_OK : status;
}

static bft_status keep_logged(void *arg, const struct bfti_frame_record *logged)
{
    struct keeping *k = arg;
    struct bfti_tree *tree = bfti_tree_by_id(k->engine, logged->tree_id);
    /* Or it is deleted for the snapshot, and the writer will find that out. */
    if (!tree || bfti_tomb_hides(tree, k->rec, logged->key, k->number))
        return BFT_OK;
    return keep(k, tree, logged->key);
}

/* Has WRITER, who is at NUMBER, nothing visible yet of what it publishes? */
static bool is_hidden(const struct keeping *k, const struct bfti_rec *writer,
                      uint64_t number)
{
    uint64_t place = atomic_load(&writer->publishes);
    bool hidden;
    if (place == 0) {
        hidden = atomic_load(&writer->batch) != 0; /* [batch] */
    } else {
        bfti_hazard_set(k->rec, BFTI_HAZARD_TOP, place);
        /* While it publishes the page is its leaf's, and stays. */
        hidden = bfti_publish_is_at(writer, number) &&
                 bfti_minipage_tail(bfti_page_at(&k->engine->buffer, place)) ==
                     atomic_load(&writer->publishes_tail);
        bfti_hazard_clear(k->rec, BFTI_HAZARD_TOP);
    }
    return hidden && bfti_publish_is_at(writer, number);
}

/* A writer that does not go on.  False: it is to be waited for. */
static bool stays(void *ctx, struct bfti_rec *writer, uint64_t number)
{
    struct keeping *k = ctx;
    size_t count = k->late->count, bytes = k->late->bytes, len;
    bft_status status = BFT_OK;
    const void *payload;
    bool hidden;
    if (k->status != BFT_OK)
        return true;
    k->writer = writer;
    k->publishing = number;
    payload = bfti_wal_look(&k->rec->wal, &writer->wal, &len);
    PARK("late:frame-named");
    /* If it is still there, the frame is the one that it publishes. */
    if (payload && bfti_publish_is_at(writer, number))
        status =
            bfti_frame_each(k->engine->path, 0, payload, len, keep_logged, k);
    bfti_wal_look_away(&k->rec->wal);
    PARK("late:records-read");
    hidden = is_hidden(k, writer, number);
    if (!hidden || status != BFT_OK)
        forget(k, count, bytes);
    /* Of one that went on, or whose changes are visible, nothing is needed. */
    if (!hidden || status == BFT_OK)
        return true;
    if (status == BFT_NO_MEMORY)
        k->status = status;
    return status == BFT_NO_MEMORY;
}

/* Drop what is kept of those who have become visible since they were looked at.
 * False: of nobody. */
static bool drop_visible(const struct keeping *k)
{
    struct bfti_late *late = k->late;
    const struct bfti_rec *writer = NULL;
    bool hidden = false;
    size_t left = 0, count = late->count;
    for (size_t i = 0; i < count; i++) {
        struct bfti_late_record record = late->record[i];
        if (record.writer != writer) /* those of one are side by side */
            hidden = is_hidden(k, record.writer, record.publishing);
        writer = record.writer;
        if (hidden) {
            late->record[left++] = record;
        } else {
            late->bytes -= record.key_len + record.value_len + sizeof(record);
            bfti_free(k->engine->env, record.bytes);
        }
    }
    late->count = left;
    return left < count;
}

static int by_key(const void *a, const void *b)
{
    const struct bfti_late_record *x = a, *y = b;
    return order_of(x, y->tree_id, key_of(y));
}

bft_status bfti_late_keep(struct bfti_engine *engine, struct bfti_rec *rec,
                          uint64_t number, struct bfti_late *late)
{
    struct keeping k = {
        .engine = engine, .rec = rec, .late = late, .number = number};
    bfti_publish_wait(engine->buffer.threads, stays, &k);
    /* Of two late writers the first may be hidden when he is looked at, and the
     * second visible, who came behind him.  So all who are kept were hidden when
     * the last look began, and all others are visible: that is the instant.  Ends:
     * each round drops somebody. */
    PARK("late:collected");
    while (drop_visible(&k))
        continue;
    if (k.status != BFT_OK)
        bfti_late_free(engine->env, late);
    if (late->count)
        qsort(late->record, late->count, sizeof(*late->record), by_key);
    return k.status;
}
