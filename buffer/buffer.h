/*
 * The door of buffer/: mini-pages in bounded memory over the page file.
 */
#ifndef BFTI_BUFFER_H
#define BFTI_BUFFER_H

#include "ahead.h"
#include "core.h"
#include "fileio/fileio.h"
#include "filters.h"
#include "minipage.h"
#include "place.h"
#include "pool.h"
#include "run.h"
#include "threads.h"

#endif
