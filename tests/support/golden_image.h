/*
 * Images of whole databases as text: of each file its name and length, then all of
 * its lines that are not zero, each behind its offset.
 */
#ifndef GOLDEN_IMAGE_H
#define GOLDEN_IMAGE_H

#include "engine_fixture.h"

enum { GOLDEN_LINE_BYTES = 32 }; /* in one line */

/* Make the files that the text file IMAGE describes in the directory of F's
 * database, which is not open. */
void golden_image_read(const char *image, const struct engine_fixture *f);
/* Describe F's database, which lies in files and is as a kill would leave it, in
 * the text file IMAGE. */
void golden_image_write(const char *image, const struct engine_fixture *f);

/* A database that is an image, and may be made anew. */
struct golden_image {
    const char *name; /* of its file in tests/golden */
    void (*write)(const void *ctx, const char *image);
    /* F has it, not open yet, and no threads of its own. */
    void (*check)(const void *ctx, struct engine_fixture *f);
    const void *ctx;
};

/* Check it in memory and in files; with BFT_GOLDEN_OUT=DIR that which is made in
 * DIR before. */
void golden_image_test(const struct golden_image *golden);

#endif
