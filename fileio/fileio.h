/*
 * The door of fileio/: bytes at offsets that survive a crash.  Surroundings
 * (env.h), files (vfs.h), the page file (pagefile.h) and the log (wal.h).
 */
#ifndef BFTI_FILEIO_H
#define BFTI_FILEIO_H

#include "bft_status.h"
#include "codec.h"
#include "endian.h"
#include "env.h"
#include "error.h"
#include "fault.h"
#include "pagefile.h"
#include "vfs.h"
#include "vfs_memory.h"
#include "vfs_overlay.h"
#include "wal.h"

#endif
