/*
 * For tests of salvage: a database with all there is to damage, what it held, and
 * what salvage made of a damaged image of it.
 */
#ifndef TEST_SALVAGE_RIG_H
#define TEST_SALVAGE_RIG_H

#include "bftree_backup.h"
#include "engine_fixture.h"
#include "index/engine.h"

#define FROM "/db"
#define TO   "/out"
enum { RECORDS = 5000, LONG_KEYS = 40, TOLD_MAX = 4000, PAGES_MAX = 8000 };

/* A record. */
struct entry {
    char tree[300];
    uint8_t key[64];
    size_t key_len, value_len;
    uint32_t value_crc;
};

/* All records of a database, by tree and key. */
struct dump {
    struct entry *entry;
    size_t count, cap;
    unsigned trees;
    bft_db *db;
};

/* A damage that was told, with copies of what it points to. */
struct told {
    bft_salvage_damage damage;
    char text[400], file[40], tree[300];
    uint8_t low[BFTI_KEY_MAX], high[BFTI_KEY_MAX];
};

/* A database, and an image of it that is to be damaged. */
struct rig {
    struct engine_fixture *f;
    struct bfti_vfs *clean; /* what it left */
    struct bfti_vfs *image; /* a copy, damaged */
    struct dump whole;      /* what it held */
    bft_salvage_options options;
    bft_options database;
    struct bfti_surroundings surroundings;
    bft_salvage_report report;
    struct told told[TOLD_MAX];
    unsigned told_count;
};

/* A page that the map leads to. */
struct live {
    uint64_t word, id;
    uint64_t place[BFTI_DELTAS_MAX + 1]; /* of deltas, and of the base page */
    unsigned places;
};

/* The map, as a reader of the format finds it. */
struct map {
    struct bfti_pagefile *pf;
    struct bfti_scratch scratch;
    struct bfti_superblock sb;
    unsigned slot;
    uint64_t part[64];
    size_t parts;
    struct live live[PAGES_MAX];
    size_t count;
};

/* By tree and key, for qsort and bsearch. */
int dump_entry_order(const void *a, const void *b);
/* All of the database PATH on VFS, which is opened for it, and verified. */
struct dump dump_of(struct engine_fixture *f, struct bfti_vfs *vfs,
                    const char *path);
/* The record with the tree and key of LIKE, or NULL. */
const struct entry *dump_find(const struct dump *dump,
                              const struct entry *like);
/* A may be NULL: it is not there. */
bool dump_same_value(const struct entry *a, const struct entry *b);
void dump_expect_same(const struct dump *want, const struct dump *got);
/* The trees of its records do not count any more. */
void dump_forget_names(struct dump *dump);
/* The key of number N, in BUF. */
bft_slice rig_key(char buf[32], unsigned n);
/* A record with LEN random bytes. */
void rig_put(bft_tree *tree, unsigned n, size_t len);
void rig_delete(bft_tree *tree, unsigned n);
/* COUNT random changes of the trees "narrow" and "wide". */
void rig_changes(struct engine_fixture *f, unsigned count);
/* An open, empty database, on one thread. */
struct rig *rig_make(void);
/* Records in trees of two sizes, values of several extents among them, deltas,
 * a dropped tree, a truncated and a renamed one; checkpoints between. */
void rig_fill(struct rig *r);
/* Undo all damage. */
void rig_repair(struct rig *r);
/* Take the image: of a database that was CLOSED, or killed with a log that is to
 * be applied. */
void rig_image(struct rig *r, bool closed);
/* A full one, closed, and its image. */
struct rig *rig_closed(void);
void rig_free(struct rig *r);
/* Salvage the image, with all damage noted; asserts that nothing of it changes and
 * that no memory is lost. */
bft_status rig_salvage_status(struct rig *r);
/* The same, which is to succeed: what the new database holds. */
struct dump rig_salvage(struct rig *r);
void map_open(struct map *map, struct bfti_vfs *vfs);
void map_close(struct map *map);
bft_status map_extent(struct map *map, uint64_t place,
                      struct bfti_extent_info *info, const void **raw,
                      size_t *len);
/* Of an undamaged file; closed, to be freed. */
struct map *map_read(struct bfti_vfs *vfs);
/* Flip a bit of a file, or of an extent. */
void rig_damage_at(struct rig *r, const char *file, uint64_t offset);
void rig_damage(struct rig *r, uint64_t place);
/* The first damage of KIND that was told, or NULL. */
const struct told *rig_told_of(const struct rig *r, bft_salvage_kind kind);
void rig_expect_told_place(const struct rig *r, uint64_t place);
/* Was a range told as KIND that has the key of E? */
bool rig_told_range(const struct rig *r, bft_salvage_kind kind,
                    const struct entry *e);
/* What is missing lies in ranges that were told as lost, and nothing in them is
 * there; the rest is as it was.  How many are missing. */
size_t rig_expect_all_but_lost(const struct rig *r, const struct dump *got);

#endif
