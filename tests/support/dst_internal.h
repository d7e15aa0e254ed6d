/* Between the files of dst.h: a world, and the clients that live in it. */
#ifndef DST_INTERNAL_H
#define DST_INTERNAL_H

#include "bftree_backup.h"
#include "bftree_bulk.h"
#include "dst.h"
#include "dst_oracle.h"
#include "fileio/vfs_sim.h"
#include "index/engine.h"
#include "sched.h"

enum { DST_ACCOUNTS = 12, DST_MONEY = 1000 };

struct dst_client {
    struct dst_world *w;
    unsigned number;
    struct bfti_thread *thread;
    unsigned left; /* operations */
    bool stuck;    /* a commit failed: it changes nothing any more */
    bool roomy;    /* when the operation began the disk had room again */
    uint8_t value[DST_VALUE_MAX], got[DST_VALUE_MAX];
    /* A snapshot that it keeps for a while, and what its keys were then. */
    bft_snapshot *snapshot;
    uint64_t past[DST_KEYS];
    uint64_t past_from, past_to; /* when */
};

struct dst_world {
    struct dst_run *run;
    struct sched *s;
    struct bfti_vfs *sim;
    struct bfti_vfs *image; /* what the crash left, to go on with; or NULL */
    bft_options options;
    struct bfti_surroundings surroundings;
    bool map;
    unsigned slow; /* of the disk: 0 no, 1 a little, 2 at times for long */
    unsigned operations, lives;

    bft_db *db;
    bft_tree *tree[DST_TREES], *bank;
    bool bank_there; /* it was acknowledged, or found */
    unsigned life, backups;
    struct bfti_mutex copying; /* who makes a backup, and opens it */
    struct dst_client *client;
    struct dst_oracle oracle;

    /* How this life ends, and what is in store for it. */
    uint64_t crash_step; /* UINT64_MAX: with no crash */
    enum bfti_sim_policy policy;
    bool armed;   /* the crash may come */
    bool crashed; /* it has, or the run failed: the power is off */
    bool looked;  /* at what the last life left: the books go on from there */
    bool killed;  /* all crashes since the last check were of the program */
    bool faulty;  /* calls may fail */
    bool harmed;  /* and bytes may be wrong, once they are read */
    /* So many steps after the first call that finds a full disk there is room
     * again; 0: never, or the step is known. */
    uint64_t room_after, room_step;
    bool roomy; /* there is: what begins now is to succeed */
    /* Reads failed: of a tree that went when its leaves could not be read, of
     * histories too, the space is lost. */
    bool leaky;
    struct dst_cut cut; /* what may be there, once LOOKED is false */
};

static inline size_t dst_draw(struct dst_world *w, size_t limit)
{
    return sched_below(w->s, limit);
}
/* One time of ONE_OF. */
static inline bool dst_chance(struct dst_world *w, size_t one_of)
{
    return sched_below(w->s, one_of) == 0;
}

/* Note the first failure and end the run; always false. */
__attribute__((format(printf, 2, 3))) bool dst_failure(struct dst_world *w,
                                                       const char *format, ...);
/* Is STATUS BFT_OK?  Else, unless something is in store that explains it, it is
 * a failure of the run. */
bool dst_fine(struct dst_world *w, bft_status status, const char *what);
/* bft_verify(), which must find nothing. */
bool dst_verify(struct dst_world *w, bft_db *db, const char *what);
__attribute__((format(printf, 2, 3))) void dst_say(struct dst_world *w,
                                                   const char *format, ...);
/* What time it is for records that expire. */
uint64_t dst_now_ms(struct dst_world *w);

/* --- dst_client.c: what clients do -------------------------------------------- */

void dst_client_main(void *client);

/* --- dst_reads.c: what they look at -------------------------------------------- */

/* Each: false when the run failed. */
void dst_read_own(struct dst_client *c);
/* What became of the commit that failed, and left the client stuck?  Of one that can
 * be told it goes on. */
void dst_ask_again(struct dst_client *c);
void dst_read_many(struct dst_client *c);
void dst_read_range(struct dst_client *c);
void dst_scan(struct dst_client *c);
void dst_take_snapshot(struct dst_client *c);
void dst_read_snapshot(struct dst_client *c);
void dst_drop_snapshot(struct dst_client *c);
void dst_backup(struct dst_client *c);
/* All of the money is in the bank, as SNAPSHOT has it; NULL: as it is, when
 * nobody else is there. */
bool dst_check_bank(struct dst_world *w, bft_snapshot *snapshot,
                    bft_tree *bank);
/* Read all keys of TREE, of all clients. */
bool dst_find(struct dst_world *w, bft_tree *const tree[DST_TREES],
              struct dst_found *found);
/* Is what a read of CLIENT's key K gave what it must be?  It took from FROM_MS
 * to now.  ID 0: it was not there. */
bool dst_is_right(struct dst_client *c, unsigned k, uint64_t id,
                  uint64_t from_ms, const char *what);
/* May K, of a client that is stuck, be anything? */
bool dst_is_sure(const struct dst_client *c, unsigned k);

struct dst_account {
    uint64_t version;
    int64_t balance;
};
bft_slice dst_account_key(unsigned account, char buf[DST_KEY_BYTES]);

#endif
