/* A page file in memory, for the tests of its parts: with memory and writes
 * that can be made to fail, and numbers that come from a printed seed. */
#ifndef PAGEFILE_FIXTURE_H
#define PAGEFILE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fileio/fileio.h"

#define EXPECT_STATUS(want, call) \
    assert_string_equal(bft_strerror(call), bft_strerror(want))

struct pagefile_fixture {
    struct bfti_env env;
    struct bfti_vfs *vfs;
    struct bfti_pagefile_options options;
    struct bfti_pagefile *pf;
    struct bfti_scratch scratch;
};

/* Open an empty page file with an empty space; close it, and check that all
 * memory was given back.  One at a time. */
void pagefile_fixture_open(struct pagefile_fixture *f, bool compress);
void pagefile_fixture_close(struct pagefile_fixture *f);
/* Close the page file and open it again, its space not loaded. */
void pagefile_fixture_reopen(struct pagefile_fixture *f);

/* From now on the NTH allocation fails (1: the next one), once; 0: none.
 * Whether it has failed since. */
void pf_fail_alloc(uint64_t nth);
bool pf_alloc_failed(void);

/* The next N calls on the page file's file of this kind fail with STATUS. */
void pf_fail_io(struct pagefile_fixture *f, enum bfti_io_op op, unsigned n,
                bft_status status);

/* Call HOOK when the file is about to be cut short, once. */
void pf_on_truncate(struct pagefile_fixture *f, void (*hook)(void *arg),
                    void *arg);

/* From now on the file's holes are refused with STATUS (BFT_OK: made); TOLD, if
 * there is one, is told of each, before it is, and may say how the next fare. */
void pf_on_punch(struct pagefile_fixture *f, bft_status status,
                 void (*told)(void *arg, uint64_t block, uint64_t n),
                 void *arg);

/* LEN bytes that follow from SALT. */
void pf_fill(void *buf, size_t len, uint64_t salt);

/* Write an extent of LEN such bytes into blocks of its own; give its place. */
uint64_t pf_write(struct pagefile_fixture *f, size_t len, uint64_t salt);
/* ... into a block that it shares, if it is short. */
uint64_t pf_share(struct pagefile_fixture *f, size_t len, uint64_t salt);
/* Assert that the extent at PLACE still holds them. */
void pf_expect(struct pagefile_fixture *f, uint64_t place, size_t len,
               uint64_t salt);

/* Cut, write the map in OLD's stead, finish; PLACES and *COUNT are both. */
void pf_checkpoint(struct pagefile_fixture *f, uint64_t *places, size_t *count,
                   uint64_t redo_lsn);

#endif
