/*
 * The Node-API side: the only file that knows of it.
 *
 * JavaScript puts the arguments of a call into two memories that both sides see
 * all the time, numbers into `registers` and texts into `request`, and finds the
 * results there again; creating values through Node-API costs more than most
 * calls.  One text, JSON, comes back as a value, and strings too long for it.
 *
 * run() makes a call on the JavaScript thread.  submit() has another thread make
 * it and returns a ticket, which comes back with the results through the
 * function given to deliverTo().  attempt() is run() while the engine answers
 * from memory, else submit(): pace.h.
 *
 * A handle is a number that is never given twice, so that a closed one is
 * noticed.  It is worth something in the JavaScript thread that opened it only;
 * others open the database again, and the engine is shared below.
 */
#include <node_api.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bftree_stores.h"
#include "lanes.h"
#include "long_strings.h"
#include "store_call.h"

enum {
    REGISTERS = 32,
    TEXT_LENGTHS = BFTN_NUMBERS, /* the registers behind the numbers */
    SPARES_MAX = 8,
    /* A longer write is not a short call. */
    SHORT_WRITE_MAX = 256 << 10,
};

_Static_assert(BFTN_RESULTS + 1 <= REGISTERS, "results fit");
_Static_assert(TEXT_LENGTHS + BFTN_TEXTS <= REGISTERS, "arguments fit");

struct job {
    struct bftn_task task; /* first */
    struct addon *addon;
    struct job *next;      /* finished or spare */
    struct bftn_call call;
    uint8_t *texts;        /* copies: JavaScript goes on */
    size_t texts_room;
    uint32_t ticket;
};

/* Of one JavaScript thread.  What has no other note is for that thread only. */
struct addon {
    napi_env env;
    napi_ref registers_ref, request_ref, deliver_ref;
    double *registers;
    const uint8_t *request;
    size_t request_len;

    struct bftn_store **stores; /* by handle - 1; NULL: closed */
    size_t store_count, store_room;
    struct bftn_call call;      /* of run() */
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

/* --- values -------------------------------------------------------------------- */

static napi_value throw_error(napi_env env, bft_status status,
                              const char *message)
{
    bool thrown = false;
    const char *code = "BFT_INVALID";

    switch (status) {
#define STATUS_CODE(name, number, text)                                       \
    case BFT_##name:                                                          \
        code = "BFT_" #name;                                                  \
        break;
        BFT_STATUS_MAP(STATUS_CODE)
#undef STATUS_CODE
    }
    /* What failed may have left an exception that says more. */
    if (napi_is_exception_pending(env, &thrown) != napi_ok || !thrown)
        (void)napi_throw_error(env, code, message);
    return NULL;
}

static napi_value string_of(napi_env env, bft_slice text)
{
    napi_value value = NULL;
    napi_status status =
        bftn_is_ascii(text.data, text.len)
            ? napi_create_string_latin1(env, text.data, text.len, &value)
            : napi_create_string_utf8(env, text.data, text.len, &value);

    return status == napi_ok ? value : NULL;
}

static void registers_fill(struct addon *addon, const struct bftn_call *call)
{
    addon->registers[0] = call->status;
    for (unsigned i = 0; i < call->results; i++)
        addon->registers[i + 1] = (double)call->result[i];
}

/* CALL's text and its strings, as an array if there are strings; NULL: too long
 * for a value. */
static napi_value texts_of(napi_env env, const struct bftn_call *call)
{
    napi_value text = string_of(env, call->answer);
    napi_value all;

    if (text == NULL || call->strings == 0)
        return text;
    if (napi_create_array_with_length(env, call->strings + 1, &all) !=
            napi_ok ||
        napi_set_element(env, all, 0, text) != napi_ok)
        return NULL;
    for (unsigned i = 0; i < call->strings; i++) {
        napi_value string = string_of(env, call->string[i]);

        if (string == NULL ||
            napi_set_element(env, all, i + 1, string) != napi_ok)
            return NULL;
    }
    return all;
}

/* What goes back of a call besides the registers: its texts, or what went
 * wrong, or NULL for undefined. */
static napi_value answer_of(struct addon *addon, struct bftn_call *call)
{
    napi_value value = NULL;
    bft_slice message;

    if (call->status == BFT_OK && call->answered) {
        value = texts_of(addon->env, call);
        if (value == NULL)
            bftn_call_refuse(call, BFT_TOO_BIG,
                             "the answer is too long for a string");
    }
    registers_fill(addon, call);
    if (call->status == BFT_OK)
        return value;
    message = (bft_slice){call->message, strlen(call->message)};
    return string_of(addon->env, message);
}

/* --- handles ----------------------------------------------------------------------- */

static struct bftn_store *store_of(const struct addon *addon, uint32_t handle)
{
    if (handle == 0 || handle > addon->store_count)
        return NULL;
    return addon->stores[handle - 1];
}

/* A handle of STORE, or 0. */
static size_t store_add(struct addon *addon, struct bftn_store *store)
{
    if (addon->store_count == addon->store_room) {
        size_t room = addon->store_room == 0 ? 16 : 2 * addon->store_room;
        struct bftn_store **stores =
            realloc(addon->stores, room * sizeof(*stores));

        if (stores == NULL)
            return 0;
        addon->stores = stores;
        addon->store_room = room;
    }
    addon->stores[addon->store_count++] = store;
    return addon->store_count;
}

static void store_close(struct bftn_store *store)
{
    struct bftn_call call = {.kind = BFTN_CLOSE, .store = store};

    bftn_call_run(&call);
    bftn_call_free(&call);
}

/* After a call that opens: r0 becomes the handle. */
static void opened(struct addon *addon, struct bftn_call *call)
{
    if (call->status != BFT_OK)
        return;
    call->result[0] = store_add(addon, call->store);
    call->results = 1;
    if (call->result[0] == 0) {
        store_close(call->store);
        bftn_call_refuse(call, BFT_NO_MEMORY, "no memory for a handle");
    }
    call->store = NULL;
}

/* --- arguments ------------------------------------------------------------------------ */

/* A whole number; Infinity and what else is over 2^53: no limit. */
static bool number_of(double value, uint64_t *number)
{
    static const double exact = 9007199254740992.0; /* 2^53 */

    if (!(value >= 0))
        return false;
    if (value >= exact) {
        *number = UINT64_MAX;
        return true;
    }
    *number = (uint64_t)value;
    return (double)*number == value;
}

/* Fill CALL from the memories; its texts lie in `request`. */
static bool arguments_read(const struct addon *addon, struct bftn_call *call)
{
    const struct bftn_call_shape *shape = &bftn_call_shapes[call->kind];
    size_t at = 0;

    for (unsigned i = 0; i < shape->numbers; i++) {
        if (!number_of(addon->registers[i], &call->number[i])) {
            bftn_call_refuse(call, BFT_INVALID,
                             "a number is negative, broken or none");
            return false;
        }
    }
    for (unsigned i = 0; i < shape->texts; i++) {
        uint64_t len;

        if (!number_of(addon->registers[TEXT_LENGTHS + i], &len) ||
            len > addon->request_len - at) {
            bftn_call_refuse(call, BFT_INVALID, "a text is not there");
            return false;
        }
        call->text[i] = (bft_slice){addon->request + at, (size_t)len};
        at += (size_t)len;
    }
    return true;
}

/* The call that JavaScript names: handle and kind.  False: it threw. */
static bool call_start(napi_env env, napi_callback_info info,
                       struct addon **addon, uint32_t *handle,
                       enum bftn_call_kind *kind)
{
    napi_value argument[2];
    size_t count = 2;
    void *data;
    uint32_t number;

    if (napi_get_cb_info(env, info, &count, argument, NULL, &data) != napi_ok ||
        count != 2 ||
        napi_get_value_uint32(env, argument[0], handle) != napi_ok ||
        napi_get_value_uint32(env, argument[1], &number) != napi_ok ||
        number >= BFTN_CALLS) {
        (void)throw_error(env, BFT_INVALID,
                          "bftree: a call takes a handle and its kind");
        return false;
    }
    *addon = data;
    *kind = (enum bftn_call_kind)number;
    return true;
}

/* CALL gets the store of HANDLE; one that closes takes it away. */
static bool store_take(struct addon *addon, struct bftn_call *call,
                       uint32_t handle)
{
    call->store = NULL;
    if (call->kind == BFTN_OPEN)
        return true;
    call->store = store_of(addon, handle);
    if (call->store == NULL) {
        bftn_call_refuse(call, BFT_INVALID, "the database is closed");
        return false;
    }
    if (call->kind == BFTN_CLOSE)
        addon->stores[handle - 1] = NULL;
    return true;
}

/* --- run(handle, kind) -------------------------------------------------------------------- */

static napi_value run_here(struct addon *addon, uint32_t handle,
                           enum bftn_call_kind kind)
{
    struct bftn_call *call = &addon->call;

    call->kind = kind;
    if (store_take(addon, call, handle) && arguments_read(addon, call))
        bftn_call_run(call);
    if (kind == BFTN_OPEN)
        opened(addon, call);
    return answer_of(addon, call);
}

static napi_value addon_run(napi_env env, napi_callback_info info)
{
    struct addon *addon;
    enum bftn_call_kind kind;
    uint32_t handle;

    if (!call_start(env, info, &addon, &handle, &kind))
        return NULL;
    return run_here(addon, handle, kind);
}

/* --- submit(handle, kind) ------------------------------------------------------------------- */

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
        addon->stores[handle - 1] = call->store;
    else if (call->kind != BFTN_OPEN)
        bftn_store_leave(call->store);
    bftn_call_refuse(call, status, "no thread could be started");
    return false;
}

static napi_value run_elsewhere(struct addon *addon, uint32_t handle,
                                enum bftn_call_kind kind)
{
    struct job *job = job_get(addon);
    struct bftn_call *call;
    napi_value answer;

    if (job == NULL)
        return throw_error(addon->env, BFT_NO_MEMORY,
                           "bftree: no memory for a call");
    call = &job->call;
    call->kind = kind;
    call->store = NULL;
    /* A database is not taken for closing before all else is well. */
    if (arguments_read(addon, call) && texts_copy(job) &&
        store_take(addon, call, handle)) {
        uint32_t ticket = job->ticket = ++addon->last_ticket;

        if (job_push(addon, job, handle))
            return ticket_give(addon, ticket);
    }
    answer = answer_of(addon, call);
    job_put(addon, job);
    return answer;
}

static napi_value addon_submit(napi_env env, napi_callback_info info)
{
    struct addon *addon;
    enum bftn_call_kind kind;
    uint32_t handle;

    if (!call_start(env, info, &addon, &handle, &kind))
        return NULL;
    return run_elsewhere(addon, handle, kind);
}

/* --- attempt(handle, kind) ------------------------------------------------------------------- */

static napi_value addon_attempt(napi_env env, napi_callback_info info)
{
    struct addon *addon;
    struct bftn_store *store;
    enum bftn_call_kind kind;
    uint32_t handle;
    uint64_t start;
    napi_value answer;

    if (!call_start(env, info, &addon, &handle, &kind))
        return NULL;
    store = kind == BFTN_CLOSE ? NULL : store_of(addon, handle);
    if (store == NULL)
        return run_elsewhere(addon, handle, kind);
    start = bftn_now_ns();
    if (!bftn_pace_here(&store->pace, store->db, bftn_call_shapes[kind].writes,
                        start) ||
        (kind == BFTN_APPLY &&
         addon->registers[TEXT_LENGTHS] > SHORT_WRITE_MAX))
        return run_elsewhere(addon, handle, kind);
    answer = run_here(addon, handle, kind);
    bftn_pace_took(&store->pace, store->db, start, bftn_now_ns());
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
        opened(addon, &job->call);
    if (napi_open_handle_scope(env, &scope) != napi_ok)
        return;
    (void)napi_get_undefined(env, &receiver);
    (void)napi_create_uint32(env, job->ticket, &argument[0]);
    argument[1] = answer_of(addon, &job->call);
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

/* --- isPlain(start, length) ---------------------------------------------------------------------- */

/* Of a text in the request: could it stand between quotes in JSON as it is? */
static napi_value addon_is_plain(napi_env env, napi_callback_info info)
{
    const struct addon *addon;
    napi_value argument[2];
    napi_value plain = NULL;
    size_t count = 2;
    uint32_t start;
    uint32_t len;
    void *data;

    if (napi_get_cb_info(env, info, &count, argument, NULL, &data) != napi_ok ||
        count != 2 ||
        napi_get_value_uint32(env, argument[0], &start) != napi_ok ||
        napi_get_value_uint32(env, argument[1], &len) != napi_ok)
        return throw_error(env, BFT_INVALID,
                           "bftree: isPlain() takes a place and a length");
    addon = data;
    if (start > addon->request_len || len > addon->request_len - start)
        return throw_error(env, BFT_INVALID,
                           "bftree: isPlain() of what is not there");
    (void)napi_get_boolean(env, bftn_is_plain(addon->request + start, len),
                           &plain);
    return plain;
}

/* --- deliverTo(function), setRequest(bytes) ----------------------------------------------------------- */

static napi_value addon_deliver_to(napi_env env, napi_callback_info info)
{
    struct addon *addon;
    napi_value function;
    napi_valuetype type;
    size_t count = 1;
    void *data;

    if (napi_get_cb_info(env, info, &count, &function, NULL, &data) !=
            napi_ok ||
        count != 1 || napi_typeof(env, function, &type) != napi_ok ||
        type != napi_function)
        return throw_error(env, BFT_INVALID,
                           "bftree: deliverTo() takes a function");
    addon = data;
    if (addon->deliver_ref != NULL)
        (void)napi_delete_reference(env, addon->deliver_ref);
    (void)napi_create_reference(env, function, 1, &addon->deliver_ref);
    return NULL;
}

static napi_value addon_set_request(napi_env env, napi_callback_info info)
{
    struct addon *addon;
    napi_value bytes;
    napi_ref ref;
    bool is_view = false;
    size_t count = 1;
    size_t len;
    void *data;
    void *start;

    if (napi_get_cb_info(env, info, &count, &bytes, NULL, &data) != napi_ok ||
        count != 1 || napi_is_buffer(env, bytes, &is_view) != napi_ok ||
        !is_view || napi_get_buffer_info(env, bytes, &start, &len) != napi_ok ||
        napi_create_reference(env, bytes, 1, &ref) != napi_ok)
        return throw_error(env, BFT_INVALID,
                           "bftree: setRequest() takes a Buffer");
    addon = data;
    if (addon->request_ref != NULL)
        (void)napi_delete_reference(env, addon->request_ref);
    addon->request_ref = ref;
    addon->request = start;
    addon->request_len = len;
    return NULL;
}

/* --- beginning and end of a JavaScript thread ----------------------------------------------------------- */

/* Wait until no thread uses ADDON any more, and free what finished jobs hold. */
static void jobs_end(struct addon *addon)
{
    struct job *job;

    (void)pthread_mutex_lock(&addon->lock);
    while (addon->finished_count < addon->pending)
        (void)pthread_cond_wait(&addon->one_more, &addon->lock);
    (void)pthread_mutex_unlock(&addon->lock);
    for (job = finished_take(addon); job != NULL;) {
        struct job *next = job->next;

        if (job->call.kind == BFTN_OPEN && job->call.status == BFT_OK)
            store_close(job->call.store);
        job_free(job);
        job = next;
    }
}

/* Whatever was left open is closed: nothing is lost, and no thread of an engine
 * outlives those that use it. */
static void addon_end(void *arg)
{
    struct addon *addon = arg;

    jobs_end(addon);
    for (size_t i = 0; i < addon->store_count; i++) {
        if (addon->stores[i] != NULL)
            store_close(addon->stores[i]);
    }
    while (addon->spare != NULL) {
        struct job *job = addon->spare;

        addon->spare = job->next;
        job_free(job);
    }
    bftn_call_free(&addon->call);
    (void)pthread_cond_destroy(&addon->one_more);
    (void)pthread_mutex_destroy(&addon->lock);
    free(addon->stores);
    free(addon);
}

static bool deliver_make(struct addon *addon, napi_env env)
{
    napi_value name;

    return napi_create_string_latin1(env, "bftree", NAPI_AUTO_LENGTH, &name) ==
               napi_ok &&
           napi_create_threadsafe_function(env, NULL, NULL, name, 0, 1, NULL,
                                           NULL, addon, deliver_all,
                                           &addon->deliver) == napi_ok &&
           napi_unref_threadsafe_function(env, addon->deliver) == napi_ok;
}

static bool registers_make(struct addon *addon, napi_env env,
                           napi_value exports)
{
    napi_value buffer;
    napi_value registers;
    void *memory;

    if (napi_create_arraybuffer(env, REGISTERS * sizeof(double), &memory,
                                &buffer) != napi_ok ||
        napi_create_typedarray(env, napi_float64_array, REGISTERS, buffer, 0,
                               &registers) != napi_ok ||
        napi_create_reference(env, registers, 1, &addon->registers_ref) !=
            napi_ok ||
        napi_set_named_property(env, exports, "registers", registers) !=
            napi_ok)
        return false;
    addon->registers = memory;
    return true;
}

static bool number_export(napi_env env, napi_value object, const char *name,
                          int32_t number)
{
    napi_value value;

    return napi_create_int32(env, number, &value) == napi_ok &&
           napi_set_named_property(env, object, name, value) == napi_ok;
}

/* The names that both sides share: kinds of calls, and statuses. */
static bool names_export(napi_env env, napi_value exports)
{
    napi_value calls;
    napi_value statuses;

    if (napi_create_object(env, &calls) != napi_ok ||
        napi_create_object(env, &statuses) != napi_ok)
        return false;
#define CALL_NAME(name, what, writes, numbers, texts)                         \
    if (!number_export(env, calls, #name, BFTN_##name))                       \
        return false;
    BFTN_CALL_MAP(CALL_NAME)
#undef CALL_NAME
#define STATUS_NAME(name, number, text)                                       \
    if (!number_export(env, statuses, "BFT_" #name, number))                  \
        return false;
    BFT_STATUS_MAP(STATUS_NAME)
#undef STATUS_NAME
    return napi_set_named_property(env, exports, "calls", calls) == napi_ok &&
           napi_set_named_property(env, exports, "statuses", statuses) ==
               napi_ok;
}

static bool version_export(napi_env env, napi_value exports)
{
    napi_value version;

    return napi_create_string_latin1(env, bft_version(), NAPI_AUTO_LENGTH,
                                     &version) == napi_ok &&
           napi_set_named_property(env, exports, "version", version) ==
               napi_ok;
}

static bool function_export(napi_env env, napi_value exports, const char *name,
                            napi_callback callback, struct addon *addon)
{
    napi_value function;

    return napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, addon,
                                &function) == napi_ok &&
           napi_set_named_property(env, exports, name, function) == napi_ok;
}

/* Defined by the macro below. */
int32_t NODE_API_MODULE_GET_API_VERSION(void);

NAPI_MODULE_INIT()
{
    struct addon *addon = calloc(1, sizeof(*addon));

    if (addon == NULL)
        return throw_error(env, BFT_NO_MEMORY, "bftree: no memory to start");
    addon->env = env;
    addon->finished_last = &addon->finished;
    (void)pthread_mutex_init(&addon->lock, NULL);
    (void)pthread_cond_init(&addon->one_more, NULL);
    /* Hooks run newest first: what is made before the hook is there in it. */
    if (deliver_make(addon, env) && registers_make(addon, env, exports) &&
        names_export(env, exports) && version_export(env, exports) &&
        function_export(env, exports, "run", addon_run, addon) &&
        function_export(env, exports, "submit", addon_submit, addon) &&
        function_export(env, exports, "attempt", addon_attempt, addon) &&
        function_export(env, exports, "isPlain", addon_is_plain, addon) &&
        function_export(env, exports, "deliverTo", addon_deliver_to, addon) &&
        function_export(env, exports, "setRequest", addon_set_request,
                        addon) &&
        napi_add_env_cleanup_hook(env, addon_end, addon) == napi_ok)
        return exports;
    addon_end(addon);
    return throw_error(env, BFT_NO_MEMORY, "bftree: Node-API refused");
}
