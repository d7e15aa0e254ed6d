/*
 * Reading a damaged log.  A frame names its own position, so that behind a hole
 * the log is found again by trying every position that a frame could have; and
 * frames carry the mark up to which the log was durable when they were linked,
 * so that a hole can be told from the torn tail of a crash (wal_scan.c).
 */
#include "wal_internal.h"

#include <string.h>

#include "error.h"

struct salvage {
    struct wal_reader reader;
    const struct bfti_wal_salvage_calls *calls;
    struct bfti_wal_salvaged seen;
    uint64_t durable; /* highest mark known */
    uint32_t last;    /* incarnation of the last frame */
};

/* --- frames -------------------------------------------------------------- */

/* Take the frames from POS on until there is none; *WHY. */
static bft_status take_frames(struct salvage *s, uint64_t *pos,
                              const char **why)
{
    for (;;) {
        struct wal_frame_view view;
        const uint8_t *payload;
        bft_status status = bfti_wal_reader_frame(&s->reader, *pos, s->last,
                                                  &view, &payload, why);
        if (status != BFT_OK || *why != NULL)
            return status;
        s->last = view.incarnation;
        if (view.mark > s->durable)
            s->durable = view.mark;
        s->seen.frames++;
        *pos = view.end;
        if (s->calls->frame != NULL)
            status = s->calls->frame(s->calls->arg, view.lsn, view.type,
                                     payload, view.len);
        if (status != BFT_OK)
            return status;
    }
}

/* The first whole frame at or above *POS; *FOUND false: there is none. */
static bft_status find_frame(struct salvage *s, uint64_t *pos, bool *found)
{
    for (;; *pos += WAL_ALIGN) {
        struct wal_frame_view view;
        const uint8_t *payload;
        const char *why;
        bft_status status = bfti_wal_reader_seek(&s->reader, pos, &view, found);
        if (status != BFT_OK || !*found)
            return status;
        status = bfti_wal_reader_frame(&s->reader, *pos, s->last, &view,
                                       &payload, &why);
        if (status != BFT_OK || why == NULL)
            return status;
    }
}

/* Does anything from POS on say that the log was durable further than END? */
static bft_status find_mark(struct salvage *s, uint64_t end, uint64_t pos)
{
    while (s->durable <= end) {
        struct wal_frame_view view;
        bool found;
        bft_status status =
            bfti_wal_reader_seek(&s->reader, &pos, &view, &found);
        if (status != BFT_OK || !found)
            return status;
        pos += WAL_ALIGN;
        if (view.incarnation >= s->last && view.mark > s->durable)
            s->durable = view.mark;
    }
    return BFT_OK;
}

static bft_status tell_gap(struct salvage *s, uint64_t from, uint64_t to,
                           const char *why)
{
    s->seen.gaps++;
    s->seen.gap_bytes += to - from;
    s->seen.unbroken = to;
    return s->calls->gap != NULL ? s->calls->gap(s->calls->arg, from, to, why)
                                 : BFT_OK;
}

/* The log breaks off at *POS for the reason WHY: go to where it is found again.
 * *MORE false: that was its end. */
static bft_status pass_gap(struct salvage *s, uint64_t *pos, const char *why,
                           bool *more)
{
    uint64_t from = *pos, to = from;
    bft_status status = find_mark(s, from, from);
    *more = false;
    if (status != BFT_OK || s->durable <= from)
        return status; /* the tail */
    status = find_frame(s, &to, more);
    if (status != BFT_OK)
        return status;
    if (!*more)
        to = s->durable;
    *pos = to;
    return tell_gap(s, from, to, why);
}

static bft_status salvage_log(struct salvage *s, uint64_t start)
{
    uint64_t pos = start;
    const char *why = NULL;
    bool more = true;
    bft_status status = BFT_OK;

    if (start == BFTI_WAL_OLDEST) {
        pos = 0;
        status = find_frame(s, &pos, &more);
        pos = more ? pos : 0;
    }
    s->seen.unbroken = pos;
    /* Ends: every round goes on behind a frame that no former one reached. */
    while (status == BFT_OK && more) {
        if (s->seen.frames == 0)
            s->seen.first = pos;
        status = take_frames(s, &pos, &why);
        if (status == BFT_OK)
            status = pass_gap(s, &pos, why, &more);
    }
    s->seen.end = pos;
    if (s->seen.frames == 0)
        s->seen.first = pos;
    return status;
}

/* Segments are made in order and dropped from the oldest on. */
static bool is_segment_missing(const struct wal_reader *reader, uint64_t start)
{
    uint64_t want = start / reader->options->segment_bytes;

    for (size_t i = 0; i < reader->count; i++)
        if (reader->index[i] >= want && reader->index[i] != want++)
            return true;
    return false;
}

bft_status bfti_wal_salvage(const struct bfti_wal_options *options,
                            uint64_t start, uint64_t sb_mark,
                            const struct bfti_wal_salvage_calls *calls,
                            struct bfti_wal_salvaged *out)
{
    struct bfti_wal_options lenient = *options;
    struct salvage s = {.calls = calls, .durable = sb_mark};
    bft_status status;

    memset(out, 0, sizeof(*out));
    lenient.damaged = true;
    if (start != BFTI_WAL_OLDEST)
        start -= start % WAL_ALIGN;
    status = bfti_wal_reader_open(&s.reader, &lenient);
    if (status != BFT_OK)
        return status;
    status = salvage_log(&s, start);
    s.seen.segment_missing = is_segment_missing(&s.reader, s.seen.first);
    bfti_wal_reader_close(&s.reader);
    *out = s.seen;
    return status;
}

/* --- how long is a segment? ---------------------------------------------- */

enum { GUESSES = 64 };

struct guess {
    const struct bfti_wal_options *options;
    uint64_t lsn[GUESSES], bytes[GUESSES];
    unsigned count;
};

static void guess_note(void *arg, const char *name)
{
    struct guess *guess = arg;
    struct bfti_vfs *vfs = guess->options->vfs;
    char path[WAL_PATH_BYTES];
    struct bfti_file *file;
    uint64_t lsn, bytes;

    if (guess->count == GUESSES || !bfti_wal_parse_name(name, &lsn))
        return;
    bfti_wal_path(guess->options->dir, 1, lsn, path);
    if (vfs->ops->open(vfs, path, BFTI_OPEN_READ_ONLY, &file) != BFT_OK)
        return;
    if (file->ops->size(file, &bytes) == BFT_OK) {
        guess->lsn[guess->count] = lsn;
        guess->bytes[guess->count++] = bytes;
    }
    file->ops->close(file);
}

/* How much speaks for segments of BYTES: files of that length, and names. */
static unsigned guess_votes(const struct guess *guess, uint64_t bytes)
{
    unsigned votes = 0;

    if (!bfti_wal_segment_bytes_valid(bytes))
        return 0;
    assert(bytes > 0);
    for (unsigned i = 0; i < guess->count; i++) {
        votes += guess->lsn[i] % bytes == 0;
        votes += guess->bytes[i] == bytes;
    }
    return votes;
}

bft_status bfti_wal_guess_segment_bytes(const struct bfti_wal_options *options,
                                        uint64_t *segment_bytes)
{
    struct guess guess = {.options = options};
    unsigned most = 0;
    bft_status status;

    *segment_bytes = 0;
    status = bfti_wal_check_dir(options->dir);
    if (status == BFT_OK)
        status = options->vfs->ops->list(options->vfs, options->dir, guess_note,
                                         &guess);
    if (status != BFT_OK)
        return status;
    /* Lengths of files, and distances between names where all were cut off. */
    for (unsigned i = 0; i < guess.count; i++)
        for (unsigned j = 0; j < guess.count; j++) {
            uint64_t bytes = i == j ? guess.bytes[i]
                             : guess.lsn[i] > guess.lsn[j]
                                 ? guess.lsn[i] - guess.lsn[j]
                                 : 0;
            unsigned votes = guess_votes(&guess, bytes);
            if (votes > most ||
                (votes == most && most > 0 && bytes > *segment_bytes)) {
                most = votes;
                *segment_bytes = bytes;
            }
        }
    return BFT_OK;
}
