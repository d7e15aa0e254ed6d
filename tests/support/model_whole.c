/* Operations of a model run on whole trees and databases: bulk loads, and
 * backups. */
#include <string.h>

#include <cmocka.h>

#include "engine_fixture.h"
#include "model_ops.h"
#include "random.h"

/* --- bulk loads ----------------------------------------------------------- */

struct load {
    struct model_map map;
    size_t n, fail_at;
    uint64_t at; /* of the value that is read */
};

static bft_status load_read(void *ctx, void *buf, size_t len)
{
    struct load *load = ctx;
    model_value_bytes(load->map.record[load->n - 1].value, load->at, buf, len);
    load->at += len;
    return BFT_OK;
}

static bft_status load_next(void *ctx, bft_bulk_record *record)
{
    struct load *load = ctx;
    struct model_value value;
    if (load->n == load->fail_at)
        return BFT_UNSUPPORTED;
    if (load->n == load->map.count)
        return BFT_NOT_FOUND;
    value = load->map.record[load->n].value;
    record->key = model_map_key(&load->map, load->n++);
    load->at = 0;
    if (random_below(4) == 0) {
        record->bytes = value.len;
        record->read = load_read;
    } else {
        record->value = model_value_slice(value);
    }
    return BFT_OK;
}

/* Mostly; a truncation is refused while there are snapshots. */
static void make_empty(struct model_slot *s)
{
    uint64_t deleted;
    if (s->map.count == 0 || random_below(8) == 0)
        return;
    if (!model_past_is_open() && random_below(2)) {
        expect_ok(bft_tree_truncate(model_run.f->db, s->name));
    } else {
        expect_ok(bft_delete_range(s->tree, (bft_slice){NULL, 0},
                                   (bft_slice){NULL, 0}, &deleted));
        assert_int_equal(s->map.count, deleted);
    }
    model_map_clear(&s->map);
}

static void check_load(struct model_slot *s, struct load *load,
                       bft_status status, uint64_t records)
{
    bool fails = load->fail_at <= load->map.count;
    if (s->map.count || fails) {
        expect_status(s->map.count ? BFT_EXISTS : BFT_UNSUPPORTED, status);
    } else if (model_done_alone(status)) {
        assert_int_equal(load->map.count, records);
        model_map_clear(&s->map); /* of room for records: it has none */
        s->map = load->map;
        memset(&load->map, 0, sizeof(load->map));
        model_run.deeds[MODEL_LOADS]++;
        return;
    }
    assert_int_equal(0, records);
}

/* To be loaded into S. */
static void draw_load(struct model_slot *s, struct load *load)
{
    memset(load, 0, sizeof(*load));
    load->fail_at = SIZE_MAX;
    for (size_t n = 1 + random_below(random_below(8) ? 100 : 2000); n > 0;
         n--) {
        struct model_key key = model_key_of(s, random_below(MODEL_KEYS));
        model_map_put(&load->map, model_slice(&key), model_any_value(s));
    }
    if (random_below(8) == 0)
        load->fail_at = random_below(load->map.count + 1);
}

static void load_tree(struct model_slot *s)
{
    bft_bulk_options options = {.size = sizeof(options),
                                .fill_percent =
                                    10 + (uint32_t)random_below(91)};
    struct load load;
    uint64_t records = 77;
    bft_status status;
    draw_load(s, &load);
    make_empty(s);
    status = bft_bulk_load(s->tree, random_below(2) ? &options : NULL,
                           load_next, &load, &records);
    check_load(s, &load, status, records);
    model_map_clear(&load.map);
    model_check_scan(s, random_below(2));
}

void model_op_load(void)
{
    load_tree(model_any_slot());
}

void model_op_load_refused(void)
{
    struct model_slot *least = NULL;
    for (struct model_slot *s = model_run.slot;
         s < model_run.slot + MODEL_TREES; s++)
        if (s->live && (!least || s->map.count < least->map.count))
            least = s;
    if (least && least->map.count < 500) /* it is emptied record by record */
        load_tree(least);
}

void model_op_merge(void)
{
    struct model_slot *s = model_any_slot();
    struct load load;
    uint64_t records = 77;
    bool fails;
    draw_load(s, &load);
    fails = load.fail_at <= load.map.count;
    expect_status(fails ? BFT_UNSUPPORTED : BFT_OK,
                  bft_bulk_merge(s->tree, load_next, &load, &records));
    assert_true(fails ? records <= load.fail_at : records == load.map.count);
    for (size_t i = 0; i < records; i++)
        model_map_put(&s->map, model_map_key(&load.map, i),
                      load.map.record[i].value);
    model_map_clear(&load.map);
    model_check_scan(s, random_below(2));
}

/* --- backups -------------------------------------------------------------- */

/* Writes that come behind its instant; what they free must not be reused yet. */
static bft_status write_more(void *ctx, const bft_backup_progress *now)
{
    unsigned *calls = ctx;
    assert_true(now->copied_bytes <= now->total_bytes);
    if (++*calls > 2)
        return BFT_OK;
    for (size_t n = random_below(150); n > 0; n--) {
        if (random_below(3))
            model_op_put();
        else
            model_op_delete();
        if (n % 50 == 0)
            expect_ok(bft_checkpoint(model_run.f->db));
    }
    return BFT_OK;
}

static bft_db *copy_open(const char *path)
{
    struct bfti_surroundings surroundings = {.env = &model_run.f->env};
    bft_options options = {.size = sizeof(options),
                           .storage = BFT_STORAGE_MEMORY,
                           .memory_bytes = 1 << 20,
                           .must_exist = true,
                           .no_threads = true,
                           .internal = &surroundings};
    bft_db *db;
    expect_ok(bft_open(path, &options, &db));
    return db;
}

static bool count_tree(void *ctx, const char *name)
{
    (void)name;
    ++*(size_t *)ctx;
    return true;
}

static void copy_check(bft_db *db, const struct model_map *then)
{
    bft_tree_options options = {.size = sizeof(options), .must_exist = true};
    size_t trees = 0, live = 0;
    expect_ok(bft_verify(db));
    expect_ok(bft_tree_list(db, count_tree, &trees));
    for (size_t t = 0; t < MODEL_TREES; t++) {
        struct model_slot s = model_run.slot[t];
        if (!s.live)
            continue;
        live++;
        s.map = then[t];
        expect_ok(bft_tree_open(db, s.name, &options, &s.tree));
        model_check_scan(&s, random_below(2));
    }
    assert_int_equal(live, trees);
}

void model_op_backup(void)
{
    static const char path[] = "copy of the model's";
    unsigned calls = 0;
    bft_backup_options options = {.size = sizeof(options),
                                  .progress = write_more,
                                  .ctx = &calls,
                                  .to = BFT_BACKUP_MEMORY};
    struct model_map then[MODEL_TREES];
    bft_db *db;
    for (size_t t = 0; t < MODEL_TREES; t++)
        model_map_copy(&then[t], &model_run.slot[t].map);
    expect_ok(bft_backup(model_run.f->db, path, &options));
    db = copy_open(path);
    copy_check(db, then);
    expect_ok(bft_close(db));
    for (size_t t = 0; t < MODEL_TREES; t++)
        model_map_clear(&then[t]);
    model_run.deeds[MODEL_BACKUPS]++;
}
