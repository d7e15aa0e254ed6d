/* What the files of the page file share and nobody else sees. */
#ifndef BFTI_PAGEFILE_INTERNAL_H
#define BFTI_PAGEFILE_INTERNAL_H

#include "pagefile.h"

/* The form of bfti_crc32c for processors without an instruction for it; its
 * own name lets a test compare the two. */
uint32_t bfti_crc32c_table(uint32_t crc, const void *data, size_t len);

#endif
