/*
 * Two trees whose records follow from a number for each key, to compare a
 * database and its copies with; and the directories that copies are in.
 */
#ifndef BACKUP_MODEL_H
#define BACKUP_MODEL_H

#include "engine_fixture.h"

enum { MODEL_TREES = 2, MODEL_KEYS = 2000 };

struct model {
    uint64_t random;
    bool exists;                               /* the trees were made */
    uint32_t version[MODEL_TREES][MODEL_KEYS]; /* 0: no record */
};

struct model *model_make(uint64_t seed);
struct model *model_copy(const struct model *model);
void model_free(struct model *model);
/* Make COUNT changes, of the database and of the model: of small and large
 * values, by puts, batches over both trees, and deletes. */
void model_change(struct model *model, bft_db *db, unsigned count);
void model_truncate(struct model *model, bft_db *db, unsigned tree);
/* Assert that DB has all records of the model's trees and no others there. */
void model_check(const struct model *model, bft_db *db);

/* A key, and the value of it with VERSION: LEN bytes in memory that holds until
 * the next call. */
bft_slice model_key(char text[32], uint64_t n);
bft_slice model_value(uint64_t n, uint32_t version);

/* Where a copy of F's may go: nothing is there. */
const char *backup_path(const struct engine_fixture *f, char path[300]);
bft_db *backup_open(struct engine_fixture *f, const char *path, bool read_only);
/* How many names there are in PATH. */
unsigned backup_names(struct engine_fixture *f, const char *path);
/* Remove what PATH has, and PATH if it is a real one. */
void backup_remove(struct engine_fixture *f, const char *path);

#endif
