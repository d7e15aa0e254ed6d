/*
 * A log in a file system of its own, for tests: in memory, or on disk below
 * TMPDIR; with hooks in front of its writes and syncs, and with memory that
 * can be made to run out.  Memory comes full of garbage, and it is an error to
 * leave any, or a file that is open or mapped, behind.
 */
#ifndef TESTS_WAL_FIXTURE_H
#define TESTS_WAL_FIXTURE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "fileio/fileio.h"

enum wal_medium { WAL_IN_MEMORY, WAL_ON_DISK, WAL_ON_DISK_MAPPED };

/* Asked before a call reaches the file system; what is not BFT_OK is returned
 * in its place. */
struct wal_hooks {
    bft_status (*write)(void *arg, uint64_t offset, const void *buf,
                        size_t len);
    bft_status (*sync)(void *arg);
    void *arg;
};

struct wal_fixture {
    enum wal_medium medium;
    char dir[256];
    struct bfti_env env; /* the system's, with memory counted */
    struct bfti_wal_options options;
    struct bfti_wal *wal;
    struct bfti_wal_thread thread;
    uint32_t incarnation;
};

/* An empty directory; no log is open.  One fixture at a time: the hooks are
 * global, because a file knows only its table of functions. */
struct wal_fixture *wal_fixture_new(enum wal_medium medium,
                                    uint64_t segment_bytes);
void wal_fixture_free(struct wal_fixture *f);

extern struct wal_hooks wal_hooks;
/* Syncs of files so far, failed ones included. */
extern _Atomic uint64_t wal_syncs_called;
extern _Atomic uint64_t wal_bytes_read; /* of files, so far */
/* The allocation to fail, counted from 0 down; negative: none. */
extern _Atomic int64_t wal_fail_alloc;
/* That the log has of each now. */
extern _Atomic int64_t wal_files_open, wal_files_mapped, wal_blocks;
/* The env's, for who stands in front of it. */
void wal_env_free(void *ctx, void *block);

/* Open the log of F, which is empty or was scanned to END; asserts. */
void wal_fixture_open(struct wal_fixture *f, uint64_t first_needed,
                      uint64_t end);
/* Scan from START, then open at what was found, in a new incarnation. */
void wal_fixture_recover(struct wal_fixture *f, uint64_t start);
void wal_fixture_close(struct wal_fixture *f);

struct wal_place {
    uint64_t lsn, end;
};
/* Link a frame of LEN bytes made from ID, between enter and leave. */
struct wal_place wal_link_in(struct wal_fixture *f,
                             struct bfti_wal_thread *thread, uint64_t id,
                             size_t len);
/* The same with enter, leave, and a copy in between. */
struct wal_place wal_append(struct wal_fixture *f, uint64_t id, size_t len);
struct wal_place wal_append_sync(struct wal_fixture *f, uint64_t id,
                                 size_t len);

/* The byte at I of the payload made from ID: its first eight are ID. */
uint8_t wal_payload_byte(uint64_t id, size_t i);

/* What a scan came across. */
enum { WAL_SEEN_MAX = 20000 };
struct wal_seen {
    size_t count;
    bool garbled; /* a payload that no ID makes */
    struct {
        uint64_t id, lsn;
        size_t len;
        uint8_t type;
    } at[WAL_SEEN_MAX];
    struct bfti_wal_found found;
};
/* Scan F's log; SEEN is overwritten. */
bft_status wal_scan(struct wal_fixture *f, uint64_t start, uint64_t sb_mark,
                    struct wal_seen *seen);

/* Files of the directory whose name begins with "log-"; only whole names of
 * segments, when SEGMENTS is set. */
size_t wal_file_count(struct wal_fixture *f, bool segments);
/* Access to the bytes at position LSN, in whichever segment they are. */
void wal_peek(struct wal_fixture *f, uint64_t lsn, void *buf, size_t len);
void wal_poke(struct wal_fixture *f, uint64_t lsn, const void *buf, size_t len);
void wal_segment_path(struct wal_fixture *f, uint64_t lsn, char path[320]);

#endif
