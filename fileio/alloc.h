/* Memory for struct bfti_env: mimalloc or malloc, as the build chose. */
#ifndef BFTI_ALLOC_H
#define BFTI_ALLOC_H

#include <stddef.h>

/* As alloc, realloc and free of struct bfti_env; CTX is not looked at. */
void *bfti_system_alloc(void *ctx, size_t bytes);
void *bfti_system_realloc(void *ctx, void *old, size_t bytes);
void bfti_system_free(void *ctx, void *block);

#endif
