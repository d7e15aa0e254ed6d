/*
 * Calls that other threads make for a JavaScript thread, and their results' way
 * back: a list that its thread-safe function empties, all of it at each call.
 */
#include "addon.h"

#include <stdlib.h>
#include <string.h>

#include "lanes.h"

enum {
    SPARES_MAX = 8,
    /* Room for the texts of a spare one: a storage's messages together, and most
     * that come alone. */
    TEXTS_KEEP = 1 << 20,
};

struct job {
    struct bftn_task task; /* first */
    struct addon *addon;
    struct job *next; /* finished or spare */
    struct bftn_call call;
    uint8_t *texts; /* copies: JavaScript goes on */
    size_t texts_room;
    uint32_t ticket;
};

/* --- handing over ----------------------------------------------------------- */

static void job_free(struct job *job)
{
    bftn_call_free(&job->call);
    free(job->texts);
    free(job);
}

static struct job *job_get(struct addon *addon)
{
    struct job *job = addon->spare;

    if (job == NULL) {
        job = calloc(1, sizeof(*job));
        if (job != NULL)
            job->addon = addon;
        return job;
    }
    addon->spare = job->next;
    addon->spares--;
    return job;
}

static void job_put(struct addon *addon, struct job *job)
{
    if (addon->spares == SPARES_MAX) {
        job_free(job);
        return;
    }
    bftn_call_trim(&job->call);
    if (job->texts_room > TEXTS_KEEP) {
        free(job->texts);
        job->texts = NULL;
        job->texts_room = 0;
    }
    job->next = addon->spare;
    addon->spare = job;
    addon->spares++;
}

/* JOB's texts shall stay when JavaScript goes on. */
static bool texts_copy(struct job *job)
{
    struct bftn_call *call = &job->call;
    unsigned texts = bftn_call_shapes[call->kind].texts;
    size_t len = 0;

    for (unsigned i = 0; i < texts; i++)
        len += call->text[i].len;
    if (len > job->texts_room) {
        uint8_t *copy = malloc(len);

        if (copy == NULL) {
            bftn_call_refuse(call, BFT_NO_MEMORY, "no memory for its texts");
            return false;
        }
        free(job->texts);
        job->texts = copy;
        job->texts_room = len;
    }
    if (len != 0)
        memcpy(job->texts, call->text[0].data, len);
    len = 0;
    for (unsigned i = 0; i < texts; i++) {
        call->text[i].data = job->texts + len;
        len += call->text[i].len;
    }
    return true;
}

/* On a thread of the lanes. */
static void job_run(struct bftn_task *task)
{
    struct job *job = (struct job *)task;
    struct addon *addon = job->addon;
    struct bftn_store *store =
        job->call.kind == BFTN_CLOSE ? NULL : job->call.store;

    bftn_call_run(&job->call);
    if (store != NULL)
        bftn_store_leave(store);
    (void)pthread_mutex_lock(&addon->lock);
    job->next = NULL;
    *addon->finished_last = job;
    addon->finished_last = &job->next;
    /* Under the lock: the JavaScript thread, which takes it before it leaves,
     * cannot have freed what is called here. */
    if (addon->finished_count++ == 0)
        (void)napi_call_threadsafe_function(addon->deliver, NULL,
                                            napi_tsfn_nonblocking);
    (void)pthread_cond_signal(&addon->one_more);
    (void)pthread_mutex_unlock(&addon->lock);
}

/* A ticket for JOB; while there is one the event loop stays. */
static napi_value ticket_give(struct addon *addon, uint32_t ticket)
{
    napi_value value = NULL;

    if (addon->pending++ == 0)
        (void)napi_ref_threadsafe_function(addon->env, addon->deliver);
    (void)napi_create_uint32(addon->env, ticket, &value);
    return value;
}

static enum bftn_lane lane_of(enum bftn_call_kind kind)
{
    return kind == BFTN_DURABLE ? BFTN_LANE_WAIT : BFTN_LANE_WORK;
}

/* Hand JOB over; false: it was refused. */
static bool job_push(struct addon *addon, struct job *job, uint32_t handle)
{
    struct bftn_call *call = &job->call;
    bft_status status;

    if (call->kind != BFTN_OPEN && call->kind != BFTN_CLOSE)
        bftn_store_enter(call->store);
    job->task.run = job_run;
    status = bftn_lanes_push(lane_of(call->kind), &job->task);
    if (status == BFT_OK)
        return true;
    if (call->kind == BFTN_CLOSE)
        addon->stores[handle - 1].store = call->store;
    else if (call->kind != BFTN_OPEN)
        bftn_store_leave(call->store);
    bftn_call_refuse(call, status, "no thread could be started");
    return false;
}

napi_value bftn_run_elsewhere(struct addon *addon, uint32_t handle,
                              enum bftn_call_kind kind)
{
    struct job *job = job_get(addon);
    struct bftn_call *call;
    napi_value answer;

    if (job == NULL)
        return bftn_throw(addon->env, BFT_NO_MEMORY,
                          "bftree: no memory for a call");
    call = &job->call;
    call->kind = kind;
    call->store = NULL;
    /* A database is not taken for closing before all else is well. */
    if (bftn_arguments_read(addon, call) && texts_copy(job) &&
        bftn_store_take(addon, call, handle)) {
        uint32_t ticket = job->ticket = ++addon->last_ticket;

        if (job_push(addon, job, handle))
            return ticket_give(addon, ticket);
    }
    answer = bftn_answer(addon, call);
    job_put(addon, job);
    return answer;
}

/* --- delivery ----------------------------------------------------------------------------------- */

static struct job *finished_take(struct addon *addon)
{
    struct job *jobs;

    (void)pthread_mutex_lock(&addon->lock);
    jobs = addon->finished;
    addon->finished = NULL;
    addon->finished_last = &addon->finished;
    addon->finished_count = 0;
    (void)pthread_mutex_unlock(&addon->lock);
    return jobs;
}

/* Hand one result to JavaScript. */
static void deliver_one(struct addon *addon, struct job *job, napi_value to)
{
    napi_env env = addon->env;
    napi_handle_scope scope;
    napi_value argument[2] = {NULL, NULL};
    napi_value receiver;
    napi_value exception;

    if (job->call.kind == BFTN_OPEN)
        bftn_opened(addon, &job->call);
    if (napi_open_handle_scope(env, &scope) != napi_ok)
        return;
    (void)napi_get_undefined(env, &receiver);
    (void)napi_create_uint32(env, job->ticket, &argument[0]);
    argument[1] = bftn_answer(addon, &job->call);
    if (argument[1] == NULL)
        argument[1] = receiver;
    if (napi_call_function(env, receiver, to, 2, argument, NULL) ==
            napi_pending_exception &&
        napi_get_and_clear_last_exception(env, &exception) == napi_ok)
        (void)napi_fatal_exception(env, exception);
    (void)napi_close_handle_scope(env, scope);
}

/* Of the thread-safe function.  ENV is NULL when JavaScript is ending; CONTEXT
 * may be gone then. */
static void deliver_all(napi_env env, napi_value unused, void *context,
                        void *data)
{
    struct addon *addon = context;
    napi_value to;
    struct job *job;

    (void)unused;
    (void)data;
    if (env == NULL)
        return;
    if (napi_get_reference_value(env, addon->deliver_ref, &to) != napi_ok)
        return;
    for (job = finished_take(addon); job != NULL;) {
        struct job *next = job->next;

        if (--addon->pending == 0)
            (void)napi_unref_threadsafe_function(env, addon->deliver);
        deliver_one(addon, job, to);
        job_put(addon, job);
        job = next;
    }
}

/* --- beginning and end ---------------------------------------------------- */

bool bftn_jobs_start(struct addon *addon)
{
    napi_env env = addon->env;
    napi_value name;

    return napi_create_string_latin1(env, "bftree", NAPI_AUTO_LENGTH, &name) ==
               napi_ok &&
           napi_create_threadsafe_function(env, NULL, NULL, name, 0, 1, NULL,
                                           NULL, addon, deliver_all,
                                           &addon->deliver) == napi_ok &&
           napi_unref_threadsafe_function(env, addon->deliver) == napi_ok;
}

/* Wait until no thread uses ADDON any more, and free what finished jobs hold. */
void bftn_jobs_end(struct addon *addon)
{
    struct job *job;

    (void)pthread_mutex_lock(&addon->lock);
    while (addon->finished_count < addon->pending)
        (void)pthread_cond_wait(&addon->one_more, &addon->lock);
    (void)pthread_mutex_unlock(&addon->lock);
    for (job = finished_take(addon); job != NULL;) {
        struct job *next = job->next;

        if (job->call.kind == BFTN_OPEN && job->call.status == BFT_OK)
            bftn_store_close(job->call.store);
        job_free(job);
        job = next;
    }
    while (addon->spare != NULL) {
        job = addon->spare;
        addon->spare = job->next;
        job_free(job);
    }
}
