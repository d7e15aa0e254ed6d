/* The C face of the Rust crate bf-tree: what bench/ needs of it, see src/lib.rs. */
#ifndef BF_TREE_SHIM_H
#define BF_TREE_SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

const char *bf_tree_shim_version(void);
/* May this process set up an io_uring? */
bool bf_tree_shim_has_uring(void);
/* A tree in the file PATH, or in memory at ":memory:"; NULL when the crate
 * refuses the configuration. */
void *bf_tree_shim_open(const char *path, size_t cache_bytes);
void bf_tree_shim_close(void *tree);
bool bf_tree_shim_insert(void *tree, const uint8_t *key, size_t key_len,
                         const uint8_t *value, size_t value_len);
/* The length of the value, or -1 when there is none. */
int64_t bf_tree_shim_read(void *tree, const uint8_t *key, size_t key_len,
                          uint8_t *value, size_t value_max);
void bf_tree_shim_delete(void *tree, const uint8_t *key, size_t key_len);
/* Call EACH for at most ROWS records from FROM on, until it returns false. */
void bf_tree_shim_scan(void *tree, const uint8_t *from, size_t from_len,
                       size_t rows,
                       bool (*each)(void *context, const uint8_t *key,
                                    size_t key_len, const uint8_t *value,
                                    size_t value_len),
                       void *context);

#endif
