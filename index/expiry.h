/*
 * Inside index/: records that expire.
 *
 * In a tree made with ttl_ms each stored value begins with a stamp, le64: when
 * its record expires, in milliseconds since 1970, 0 never.  All that stores,
 * logs or copies values has it as a part of them; it is put before the caller's
 * bytes and taken off at the public calls only.  A reference to a large value
 * has the stamp once more, in whole seconds, in the upper half of its length:
 * so that nobody reads extents to learn that their value has expired.
 */
#ifndef BFTI_EXPIRY_H
#define BFTI_EXPIRY_H

#include "engine.h"

enum {
    BFTI_STAMP = 8,
    BFTI_SECOND_MS = 1000,
    BFTI_SECONDS_AT = 32, /* bit of bfti_large.bytes where seconds begin */
};
/* The last time that a stamp may be: more is never. */
#define BFTI_EXPIRES_LAST (UINT64_C(0xffffffff) * BFTI_SECOND_MS)
/* Instead of a time: as long as the tree says; or the value has its stamp. */
#define BFTI_EXPIRES_DEFAULT UINT64_MAX
#define BFTI_EXPIRES_STORED  (UINT64_MAX - 1)

/* Milliseconds since 1970, never 0, never less than an earlier call said. */
uint64_t bfti_now(struct bfti_engine *engine);

/* By which records of TREE are judged; 0: they do not expire, and their values
 * have no stamps. */
static inline uint64_t bfti_tree_now(const struct bfti_tree *tree)
{
    return tree->ttl_ms ? bfti_now(tree->engine) : 0;
}

/* A value of so many bytes with its stamp, if it gets one; a wrong length stays
 * a wrong one. */
static inline uint64_t bfti_stored_bytes(const struct bfti_tree *tree,
                                         uint64_t bytes)
{
    return tree->ttl_ms && bytes <= BFT_VALUE_MAX ? bytes + BFTI_STAMP : bytes;
}

/* When a stored value expires, 0: never. */
uint64_t bfti_stored_expires(bft_slice stored);
uint64_t bfti_large_expires(const struct bfti_large *large);
uint64_t bfti_view_expires(const struct bfti_view *view);
static inline bool bfti_expired(uint64_t expires, uint64_t now)
{
    return expires && expires <= now;
}
/* NOW 0: nothing does. */
static inline bool bfti_view_expired(const struct bfti_view *view, uint64_t now)
{
    return now && bfti_expired(bfti_view_expires(view), now) &&
           !bfti_fault_on(BFTI_FAULT_EXPIRED_READ);
}
/* What a stored value is to the caller of the library; empty if it has not even
 * a stamp. */
bft_slice bfti_payload(bft_slice stored);

/* --- stamping ------------------------------------------------------------ */

/* The time that the stamp of a value of BYTES is to have, given the caller's
 * wish: that, or as long from now as the tree says. */
uint64_t bfti_expires_at(const struct bfti_tree *tree, uint64_t wish,
                         size_t key_len, uint64_t bytes);
/* What a caller says, as a wish. */
static inline uint64_t bfti_expires_wish(uint64_t expires_ms)
{
    return expires_ms > BFTI_EXPIRES_LAST ? 0 : expires_ms;
}
/* BFT_INVALID: WISH is a time, and records of the tree do not expire. */
BFT_MUST_CHECK bft_status bfti_check_expires(const struct bfti_tree *tree,
                                             uint64_t wish);
void bfti_stamp_put(void *to, uint64_t expires);

/* A value behind its stamp, in memory of its own. */
struct bfti_stamped {
    bft_slice value;
    void *memory; /* or NULL: it is in SMALL */
    uint8_t small[256];
};
BFT_MUST_CHECK bft_status bfti_stamp(const struct bfti_env *env,
                                     bft_slice payload, uint64_t expires,
                                     struct bfti_stamped *stamped);
void bfti_stamped_free(const struct bfti_env *env,
                       struct bfti_stamped *stamped);

/* The same of what a callback hands over. */
struct bfti_stamped_source {
    uint64_t expires;
    bool begun;
    bft_status (*read)(void *ctx, void *buf, size_t len);
    void *ctx;
};
bft_status bfti_stamped_read(void *source, void *buf, size_t len);

/* TREE is made with TTL_MS; nobody has found it yet. */
void bfti_tree_set_ttl(struct bfti_tree *tree, uint64_t ttl_ms);

/* --- purge.c --------------------------------------------------------------- */

/* May the background remove records?  It waits for nobody: neither log nor pool are
 * filled. */
bool bfti_may_remove(const struct bfti_engine *engine);
/* CHANGE of TREE is published: for the passes that remove what expires.  Not
 * before: a pass may begin in between, and be over when it is. */
void bfti_expires_note(struct bfti_tree *tree,
                       const struct bfti_change *change);
/* A step of the passes: LEAVES at most.  Waits for nobody. */
BFT_MUST_CHECK bft_status bfti_purge(struct bfti_engine *engine,
                                     struct bfti_rec *rec, unsigned leaves);

/* In the log the records of such trees are marked, so that who reads a frame
 * alone knows: beside BFTI_REC_LARGE. */
enum { BFTI_FRAME_STAMPED = 2 };

#endif
