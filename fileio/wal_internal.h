/*
 * What the files of the write-ahead log share: the frame on disk and in
 * memory, segments, the log itself, and the reader that recovery uses.
 */
#ifndef BFTI_WAL_INTERNAL_H
#define BFTI_WAL_INTERNAL_H

#include <assert.h>
#include <stddef.h>

#include "endian.h"
#include "env.h"
#include "vfs.h"
#include "wal.h"

/* --- on disk ------------------------------------------------------------- */

/* Frame header, format 1.  The payload follows, then zeros up to a multiple of
 * eight bytes; the next frame starts there, so every position in the log at
 * which a frame starts is a multiple of eight. */
struct wal_frame_header {
    le32 checksum;    /*  0  crc32c of the header from byte 4 on */
    le32 len;         /*  4  payload bytes */
    le64 lsn;         /*  8  the frame's own position: nothing moves unseen */
    le64 mark;        /* 16  the log was durable to here when it was linked */
    le32 incarnation; /* 24  grows with each recovery */
    le32 payload_crc; /* 28  crc32c of the payload */
    uint8_t type;     /* 32  for the caller */
    uint8_t zero[7];  /* 33 */
};
static_assert(sizeof(struct wal_frame_header) == BFTI_FRAME_HEADER, "format 1");
static_assert(offsetof(struct wal_frame_header, lsn) == 8, "format 1");
static_assert(offsetof(struct wal_frame_header, type) == 32, "format 1");
static_assert(_Alignof(struct wal_frame_header) == 1, "readable anywhere");

enum {
    WAL_ALIGN = 8,
    WAL_PAYLOAD_MAX = 1 << 30,
    WAL_PATH_BYTES = 4096,    /* the longest path of a segment, zero included */
    WAL_SPARES_MAX = 4,       /* segments kept for reuse */
    WAL_CHUNK = 1 << 20,      /* bytes read at once by recovery */
    WAL_FEED_CHUNK = 1 << 16, /* and by a feed */
};
static_assert(BFTI_FRAME_HEADER % WAL_ALIGN == 0, "payloads are aligned");

/* Bytes that a frame with LEN payload bytes takes in the log. */
static inline uint64_t wal_frame_bytes(uint64_t len)
{
    return (BFTI_FRAME_HEADER + len + WAL_ALIGN - 1) &
           ~(uint64_t)(WAL_ALIGN - 1);
}

/* --- in memory ----------------------------------------------------------- */

/* A frame from creation until its bytes are in the file and nobody names it.
 * All but `next` is fixed once the frame is linked. */
struct bfti_frame {
    struct bfti_frame *_Atomic next; /* [link] NULL: the last one */
    struct bfti_frame *retired_next; /* on a thread's retired list */
    uint64_t lsn;                    /* [link] */
    uint32_t total;                  /* bytes in the log; 0: the first frame */
    uint32_t len;                    /* payload bytes */
    uint64_t image[];                /* header, payload, zeros */
};

static inline uint64_t wal_frame_end(const struct bfti_frame *frame)
{
    return frame->lsn + frame->total;
}

/* One segment file.  The struct lives until the log is closed, so that a
 * look-up may read `index` of one that was just given another. */
struct wal_segment {
    _Atomic uint64_t index;   /* [segment]; WAL_NO_SEGMENT: not in the log */
    struct bfti_file *file;   /* [segment]; NULL: a vacant struct */
    void *addr;               /* [segment]; NULL: written by system calls */
    uint64_t name;            /* index in its file name; under segment_lock */
    struct wal_segment *next; /* spares or vacant; under segment_lock */
    struct wal_segment *all;  /* every struct; under segment_lock */
    _Atomic uint32_t readers; /* [reader] feeds that read the file */
    bool touched;             /* wal_open only: to be synced */
};
#define WAL_NO_SEGMENT UINT64_MAX

/* A new one is written full of zeros: what is over this is a mistake, and would
 * fill the disk before anybody noticed. */
#define WAL_SEGMENT_BYTES_MAX (UINT64_C(1) << 30)

/* Segments by index: two levels, the index taken modulo their size, which is
 * the most segments that the log can have at once. */
enum { WAL_TABLE_BITS = 10, WAL_TABLE = 1 << WAL_TABLE_BITS };
#define WAL_SEGMENTS_MAX ((uint64_t)WAL_TABLE << WAL_TABLE_BITS)
struct wal_table {
    _Atomic(struct wal_segment *) at[WAL_TABLE];
};

enum { WAL_LINE = 64 };

struct bfti_wal {
    /* Fixed after open. */
    const struct bfti_env *env;
    struct bfti_vfs *vfs;
    char *dir;
    uint64_t segment_bytes;
    uint64_t opened_at; /* where this incarnation's first frame went */
    uint32_t incarnation;
    bool map;
    bool nowhere; /* as of the options */

    /* Linkers. */
    char pad0[WAL_LINE];
    _Atomic(struct bfti_frame *) tail; /* last frame, or the one before it */
    _Atomic uint64_t end;              /* [end] behind TAIL, or later */

    /* Copiers.  COPIED is the last frame known to be wholly in the file; the
     * mark never passes its end. */
    char pad1[WAL_LINE];
    _Atomic(struct bfti_frame *) copied;
    _Atomic uint64_t copied_mark;
    _Atomic bool copying;   /* somebody is in bfti_wal_copy_behind, or a thread
                               was stopped there: a hint */
    _Atomic(void *) gather; /* an idle gather buffer, or NULL */

    /* Syncers.  An odd sync_word: somebody flushes; it grows by one at each
     * start and each end of a flush, by two to wake whoever sleeps. */
    char pad2[WAL_LINE];
    _Atomic uint32_t sync_word;
    _Atomic uint32_t sleepers;
    _Atomic uint64_t durable; /* advanced by the flusher only */
    _Atomic uint64_t settled; /* the most that was told.  Never falls */
    _Atomic bool poisoned;    /* sticky */
    _Atomic uint64_t syncs, sync_waits, segments_made, segments_reused;

    char pad3[WAL_LINE];
    _Atomic(struct bfti_wal_thread *) threads; /* push only */

    struct bfti_mutex segment_lock;
    _Atomic uint64_t first;        /* [first] kept from here on; raised under
                               segment_lock, before segments below it go */
    struct bfti_wal_feed *holding; /* under segment_lock */
    uint64_t oldest;               /* under segment_lock */
    uint64_t kept_from; /* nothing above is dropped; under segment_lock */
    struct wal_segment *spares;                   /* under segment_lock */
    unsigned spare_count;                         /* under segment_lock */
    struct wal_segment *vacant;                   /* under segment_lock */
    struct wal_segment *all;                      /* under segment_lock */
    _Atomic(struct wal_table *) table[WAL_TABLE]; /* [segment] */
};

/* --- segments: wal_segment.c --------------------------------------------- */

/* Are paths of segments in DIR short enough?  Asked once, by whoever begins to
 * work there. */
BFT_MUST_CHECK bft_status bfti_wal_check_dir(const char *dir);
/* Write the path of segment INDEX of a log in DIR. */
void bfti_wal_path(const char *dir, uint64_t segment_bytes, uint64_t index,
                   char path[WAL_PATH_BYTES]);

/* Adopt what is in the directory and make [REWRITE_FROM, END) durable; see
 * bfti_wal_open.  After a failure bfti_segments_close is still to be called. */
BFT_MUST_CHECK bft_status bfti_segments_open(struct bfti_wal *wal,
                                             uint64_t first_needed,
                                             uint64_t rewrite_from,
                                             uint64_t end);
void bfti_segments_close(struct bfti_wal *wal);

/*
 * Store LEN bytes at position LSN, making segments that are missing.  Many
 * threads may store the same bytes at the same time.  The caller's in-flight
 * slot is not above LSN.  LSN, LEN and BYTES are multiples of WAL_ALIGN.
 */
BFT_MUST_CHECK bft_status bfti_segments_store(struct bfti_wal *wal,
                                              uint64_t lsn, const void *bytes,
                                              size_t len);

/* Sync the segments that hold [FROM, TO), oldest first.  FROM is the durable
 * mark, so that none of them is dropped meanwhile. */
BFT_MUST_CHECK bft_status bfti_segments_sync(struct bfti_wal *wal,
                                             uint64_t from, uint64_t to);

/* Read LEN bytes at position LSN of an open log; all of them lie below the
 * durable mark.  BFT_GONE: they were dropped, perhaps while they were read. */
BFT_MUST_CHECK bft_status bfti_segments_read(struct bfti_wal *wal, uint64_t lsn,
                                             void *buf, size_t len);

/* --- feeds: wal_feed.c --------------------------------------------------- */

/* Under segment_lock: BOUND, or lower, where a feed holds the log. */
uint64_t bfti_wal_hold_bound(struct bfti_wal *wal, uint64_t bound);

/* --- waiting: wal.c ------------------------------------------------------ */

/* Sleep while sync_word is WORD, for TIMEOUT_NS at most. */
void bfti_wal_await(struct bfti_wal *wal, uint32_t word, uint64_t timeout_ns);
/* BFT_POISONED, and its text. */
BFT_MUST_CHECK bft_status bfti_wal_fail_poisoned(const struct bfti_wal *wal);

/* --- reading: wal_scan.c ------------------------------------------------- */

/* BFT_CORRUPT: the segment PATH was cut to BYTES. */
BFT_MUST_CHECK bft_status bfti_wal_fail_short(const char *path, uint64_t bytes,
                                              uint64_t segment_bytes);

/*
 * A read at OFFSET of FILE, a segment, gave GOT bytes and not as many as were asked
 * for.  BFT_OK when the file ends there; BFT_IO when it does not: taken for the end
 * of the log, such a read would cost the frames behind it.
 */
BFT_MUST_CHECK bft_status bfti_wal_short_read(struct bfti_file *file,
                                              const char *dir, uint64_t offset,
                                              size_t got);

/*
 * Reads a log that nobody writes: bytes of missing segments, and those that a
 * short file lacks, read as zeros, which no valid frame starts with.  Or, with
 * WAL set, what is durable of an open one.
 */
struct wal_reader {
    const struct bfti_wal_options *options;
    struct bfti_wal *wal; /* NULL: the files of a log that is not open */
    size_t chunk;         /* bytes read at once */
    uint64_t *index;      /* of the segments that exist, ascending */
    size_t count;
    uint64_t limit; /* behind the last of them; of an open log: nothing at or
                       above it is read */

    struct bfti_file *file; /* the segment last read from */
    uint64_t file_index;
    uint8_t *buf; /* holds [base, base + fill) */
    size_t cap;
    uint64_t base;
    size_t fill;
};

/* A frame header that was found good. */
struct wal_frame_view {
    uint64_t lsn, end, mark;
    uint32_t len, incarnation, payload_crc;
    uint8_t type;
};

BFT_MUST_CHECK bft_status bfti_wal_reader_open(
    struct wal_reader *reader, const struct bfti_wal_options *options);
void bfti_wal_reader_close(struct wal_reader *reader);

/* *BYTES are the LEN bytes at POS, until the reader's next use. */
BFT_MUST_CHECK bft_status bfti_wal_reader_get(struct wal_reader *reader,
                                              uint64_t pos, size_t len,
                                              const uint8_t **bytes);

/* The first position at or above *POS, in any segment, that holds a good frame
 * header which names that position; *FOUND is false when there is none. */
BFT_MUST_CHECK bft_status bfti_wal_reader_seek(struct wal_reader *reader,
                                               uint64_t *pos,
                                               struct wal_frame_view *view,
                                               bool *found);

/*
 * The frame at POS that follows one of incarnation LAST.  *WHY is NULL when it
 * is valid, with its payload at *PAYLOAD until the reader's next use; else it
 * says what is wrong.
 */
BFT_MUST_CHECK bft_status bfti_wal_reader_frame(struct wal_reader *reader,
                                                uint64_t pos, uint32_t last,
                                                struct wal_frame_view *view,
                                                const uint8_t **payload,
                                                const char **why);

/* True for a name of a segment file; *LSN is its first position. */
bool bfti_wal_parse_name(const char *name, uint64_t *lsn);

#endif
