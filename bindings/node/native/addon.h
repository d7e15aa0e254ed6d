/*
 * Inside the two files that know of Node-API: what one JavaScript thread has,
 * and how calls get their arguments and give their results.
 */
#ifndef BFTN_ADDON_H
#define BFTN_ADDON_H

#include <node_api.h>

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bftree_stores.h"
#include "store_call.h"

struct job;

/* Of a handle; NULL: it is closed. */
struct bftn_slot {
    struct bftn_store *store;
};

/* Of one JavaScript thread.  What has no other note is for that thread only. */
struct addon {
    napi_env env;
    napi_ref registers_ref, places_ref, request_ref, deliver_ref;
    double *registers;
    struct bftn_place *places;
    uint8_t *request;
    size_t request_len;

    struct bftn_slot *stores; /* by handle - 1 */
    size_t store_count, store_room;
    struct bftn_call call; /* of run() */
    struct job *spare;
    unsigned spares;

    napi_threadsafe_function deliver;
    uint32_t last_ticket;
    unsigned pending; /* tickets out: not delivered yet */

    pthread_mutex_t lock;
    pthread_cond_t one_more;
    struct job *finished, **finished_last; /* under lock */
    unsigned finished_count;               /* under lock */
};

/* Throw an Error with a code, unless something has been thrown; returns NULL. */
napi_value bftn_throw(napi_env env, bft_status status, const char *message);

/* --- calls (addon.c) ------------------------------------------------------ */

/* CALL gets the store of HANDLE; one that closes takes it away. */
bool bftn_store_take(struct addon *addon, struct bftn_call *call,
                     uint32_t handle);
/* Fill CALL from the memories; its texts lie in `request`. */
bool bftn_arguments_read(const struct addon *addon, struct bftn_call *call);
/* After a call that opens: r0 becomes the handle. */
void bftn_opened(struct addon *addon, struct bftn_call *call);
/* What goes back of a call besides the registers: its texts, or what went
 * wrong, or NULL for undefined. */
napi_value bftn_answer(struct addon *addon, struct bftn_call *call);
void bftn_store_close(struct bftn_store *store);

/* --- calls on other threads (addon_jobs.c) ---------------------------------- */

bool bftn_jobs_start(struct addon *addon);
/* Have another thread make a call: a ticket, or the answer of one that was
 * refused. */
napi_value bftn_run_elsewhere(struct addon *addon, uint32_t handle,
                              enum bftn_call_kind kind);
/* Wait until no thread uses ADDON any more, and free what jobs hold. */
void bftn_jobs_end(struct addon *addon);

#endif
