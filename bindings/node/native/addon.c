/*
 * The Node-API side: this file and addon_jobs.c alone know of it.
 *
 * JavaScript puts the arguments of a call into two memories that both sides see
 * all the time, numbers into `registers` and texts into `request`, and finds the
 * results there again; creating values through Node-API costs more than most
 * calls.  One text, JSON, comes back as a value, and strings too long for it.
 * What is to be cut out of a text, and numbers of what has many, are in a third,
 * `places`.
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
#include "addon.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "long_strings.h"
#include "usual.h"

enum {
    REGISTERS = 32,
    TEXT_LENGTHS = BFTN_NUMBERS, /* the registers behind the numbers */
    /* A longer write is not a short call. */
    SHORT_WRITE_MAX = 256 << 10,
};

_Static_assert(BFTN_RESULTS + 1 <= REGISTERS, "results fit");
_Static_assert(TEXT_LENGTHS + BFTN_TEXTS <= REGISTERS, "arguments fit");

/* --- values -------------------------------------------------------------------- */

napi_value bftn_throw(napi_env env, bft_status status, const char *message)
{
    bool thrown = false;
    const char *code = "BFT_INVALID";

    switch (status) {
#define STATUS_CODE(name, number, text) \
    case BFT_##name:                    \
        code = "BFT_" #name;            \
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
    memcpy(addon->places, call->place, call->place_bytes);
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
napi_value bftn_answer(struct addon *addon, struct bftn_call *call)
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
    return addon->stores[handle - 1].store;
}

/* A handle of STORE, or 0. */
static size_t store_add(struct addon *addon, struct bftn_store *store)
{
    if (addon->store_count == addon->store_room) {
        size_t room = addon->store_room == 0 ? 16 : 2 * addon->store_room;
        struct bftn_slot *stores =
            realloc(addon->stores, room * sizeof(*stores));

        if (stores == NULL)
            return 0;
        addon->stores = stores;
        addon->store_room = room;
    }
    addon->stores[addon->store_count++].store = store;
    return addon->store_count;
}

void bftn_store_close(struct bftn_store *store)
{
    struct bftn_call call = {.kind = BFTN_CLOSE, .store = store};

    bftn_call_run(&call);
    bftn_call_free(&call);
}

/* After a call that opens: r0 becomes the handle. */
void bftn_opened(struct addon *addon, struct bftn_call *call)
{
    if (call->status != BFT_OK)
        return;
    call->result[0] = store_add(addon, call->store);
    call->results = 1;
    if (call->result[0] == 0) {
        bftn_call_refuse(call, BFT_NO_MEMORY, "no memory for a handle");
        bftn_store_close(call->store); /* with the path that the text has */
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
bool bftn_arguments_read(const struct addon *addon, struct bftn_call *call)
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
        (void)bftn_throw(env, BFT_INVALID,
                         "bftree: a call takes a handle and its kind");
        return false;
    }
    *addon = data;
    *kind = (enum bftn_call_kind)number;
    return true;
}

/* CALL gets the store of HANDLE; one that closes takes it away. */
bool bftn_store_take(struct addon *addon, struct bftn_call *call,
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
        addon->stores[handle - 1].store = NULL;
    return true;
}

/* --- run(handle, kind) -------------------------------------------------------------------- */

static napi_value run_here(struct addon *addon, uint32_t handle,
                           enum bftn_call_kind kind)
{
    struct bftn_call *call = &addon->call;
    napi_value answer;

    call->kind = kind;
    if (bftn_store_take(addon, call, handle) &&
        bftn_arguments_read(addon, call))
        bftn_call_run(call);
    if (kind == BFTN_OPEN)
        bftn_opened(addon, call);
    answer = bftn_answer(addon, call);
    bftn_call_trim(call);
    return answer;
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

static napi_value addon_submit(napi_env env, napi_callback_info info)
{
    struct addon *addon;
    enum bftn_call_kind kind;
    uint32_t handle;

    if (!call_start(env, info, &addon, &handle, &kind))
        return NULL;
    return bftn_run_elsewhere(addon, handle, kind);
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
        return bftn_run_elsewhere(addon, handle, kind);
    start = bftn_now_ns();
    if (!bftn_pace_here(&store->pace, store->db, bftn_call_shapes[kind].writes,
                        start) ||
        (kind == BFTN_APPLY &&
         addon->registers[TEXT_LENGTHS] > SHORT_WRITE_MAX))
        return bftn_run_elsewhere(addon, handle, kind);
    answer = run_here(addon, handle, kind);
    bftn_pace_took(&store->pace, store->db, start, bftn_now_ns());
    return answer;
}

/* --- changes(handle) ----------------------------------------------------------------------------- */

/* How many changes the store has counted; of a closed one none. */
static napi_value addon_changes(napi_env env, napi_callback_info info)
{
    const struct bftn_store *store;
    napi_value argument;
    napi_value value = NULL;
    size_t count = 1;
    uint32_t handle;
    void *data;

    if (napi_get_cb_info(env, info, &count, &argument, NULL, &data) !=
            napi_ok ||
        count != 1 || napi_get_value_uint32(env, argument, &handle) != napi_ok)
        return bftn_throw(env, BFT_INVALID, "bftree: changes() of no handle");
    store = store_of(data, handle);
    (void)napi_create_double(
        env, store == NULL ? 0 : (double)bft_covalue_changes(store->covalues),
        &value);
    return value;
}

/* --- completeUsual(table, count) ------------------------------------------------------------------- */

/* As usual.h has it, of the texts in the request that COUNT entries at TABLE
 * name.  False in *THERE: they are not all there. */
static bool complete_usual(struct addon *addon, uint32_t table, uint32_t count,
                           bool *there)
{
    uint32_t entry[3]; /* start, lengths of changes and key */

    *there = table <= addon->request_len &&
             count <= (addon->request_len - table) / sizeof(entry);
    for (uint32_t i = 0; *there && i < count; i++) {
        memcpy(entry, addon->request + table + i * sizeof(entry),
               sizeof(entry));
        *there = entry[0] <= table;
        if (*there &&
            !bftn_usual_complete(addon->request + entry[0], table - entry[0],
                                 entry[1], entry[2]))
            return false;
    }
    return *there;
}

static napi_value addon_complete_usual(napi_env env, napi_callback_info info)
{
    napi_value argument[2];
    napi_value value = NULL;
    size_t count = 2;
    uint32_t table;
    uint32_t entries;
    bool there = false;
    bool complete;
    void *data;

    if (napi_get_cb_info(env, info, &count, argument, NULL, &data) != napi_ok ||
        count != 2 ||
        napi_get_value_uint32(env, argument[0], &table) != napi_ok ||
        napi_get_value_uint32(env, argument[1], &entries) != napi_ok)
        return bftn_throw(env, BFT_INVALID,
                          "bftree: completeUsual() takes a place and a count");
    complete = complete_usual(data, table, entries, &there);
    if (!there)
        return bftn_throw(env, BFT_INVALID,
                          "bftree: completeUsual() of what is not there");
    (void)napi_get_boolean(env, complete, &value);
    return value;
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
        return bftn_throw(env, BFT_INVALID,
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
        return bftn_throw(env, BFT_INVALID,
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

/* Whatever was left open is closed: nothing is lost, and no thread of an engine
 * outlives those that use it.  process.exit() does not come here: src/native.ts
 * sees to that. */
static void addon_end(void *arg)
{
    struct addon *addon = arg;

    bftn_jobs_end(addon);
    for (size_t i = 0; i < addon->store_count; i++) {
        if (addon->stores[i].store != NULL)
            bftn_store_close(addon->stores[i].store);
    }
    bftn_call_free(&addon->call);
    (void)pthread_cond_destroy(&addon->one_more);
    (void)pthread_mutex_destroy(&addon->lock);
    free(addon->stores);
    free(addon);
}

/* A Float64Array of COUNT numbers, exported as NAME. */
static bool memory_make(napi_env env, napi_value exports, const char *name,
                        size_t count, void *memory, napi_ref *ref)
{
    napi_value buffer;
    napi_value numbers;

    return napi_create_arraybuffer(env, count * sizeof(double), memory,
                                   &buffer) == napi_ok &&
           napi_create_typedarray(env, napi_float64_array, count, buffer, 0,
                                  &numbers) == napi_ok &&
           napi_create_reference(env, numbers, 1, ref) == napi_ok &&
           napi_set_named_property(env, exports, name, numbers) == napi_ok;
}

static bool memories_make(struct addon *addon, napi_env env, napi_value exports)
{
    void *registers;
    void *places;

    if (!memory_make(env, exports, "registers", REGISTERS, &registers,
                     &addon->registers_ref) ||
        !memory_make(env, exports, "places",
                     BFTN_PLACES_MAX * sizeof(*addon->places) / sizeof(double),
                     &places, &addon->places_ref))
        return false;
    addon->registers = registers;
    addon->places = places;
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
struct name {
    const char *name;
    int32_t number;
};

static const struct name call_names[] = {
#define CALL_NAME(name, what, writes, numbers, texts) {#name, BFTN_##name},
    BFTN_CALL_MAP(CALL_NAME)
#undef CALL_NAME
};

static const struct name status_names[] = {
#define STATUS_NAME(name, number, text) {"BFT_" #name, number},
    BFT_STATUS_MAP(STATUS_NAME)
#undef STATUS_NAME
};

static bool names_export(napi_env env, napi_value exports, const char *as,
                         const struct name *names, size_t count)
{
    napi_value object;

    if (napi_create_object(env, &object) != napi_ok)
        return false;
    for (size_t i = 0; i < count; i++) {
        if (!number_export(env, object, names[i].name, names[i].number))
            return false;
    }
    return napi_set_named_property(env, exports, as, object) == napi_ok;
}

static bool version_export(napi_env env, napi_value exports)
{
    napi_value version;

    return napi_create_string_latin1(env, bft_version(), NAPI_AUTO_LENGTH,
                                     &version) == napi_ok &&
           napi_set_named_property(env, exports, "version", version) == napi_ok;
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
        return bftn_throw(env, BFT_NO_MEMORY, "bftree: no memory to start");
    addon->env = env;
    addon->finished_last = &addon->finished;
    (void)pthread_mutex_init(&addon->lock, NULL);
    (void)pthread_cond_init(&addon->one_more, NULL);
    /* Hooks run newest first: what is made before the hook is there in it. */
    if (bftn_jobs_start(addon) && memories_make(addon, env, exports) &&
        names_export(env, exports, "calls", call_names,
                     sizeof(call_names) / sizeof(*call_names)) &&
        names_export(env, exports, "statuses", status_names,
                     sizeof(status_names) / sizeof(*status_names)) &&
        version_export(env, exports) &&
        function_export(env, exports, "run", addon_run, addon) &&
        function_export(env, exports, "submit", addon_submit, addon) &&
        function_export(env, exports, "attempt", addon_attempt, addon) &&
        function_export(env, exports, "changes", addon_changes, addon) &&
        function_export(env, exports, "completeUsual", addon_complete_usual,
                        addon) &&
        function_export(env, exports, "deliverTo", addon_deliver_to, addon) &&
        function_export(env, exports, "setRequest", addon_set_request, addon) &&
        napi_add_env_cleanup_hook(env, addon_end, addon) == napi_ok)
        return exports;
    addon_end(addon);
    return bftn_throw(env, BFT_NO_MEMORY, "bftree: Node-API refused");
}
