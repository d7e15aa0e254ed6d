/*
 * Workers: fork, a socket for orders and answers, a file for what they say on
 * stderr.
 */
#include "worker.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum order_kind { FILL, RUN, RESUME, STOP };

struct order {
    enum order_kind kind;
    enum fill_order fill_order;
    uint64_t live;
    struct cell_spec spec;
};

/* --- in the worker --------------------------------------------------------- */

static void answer(int channel, const struct cell_sample *sample)
{
    if (write(channel, sample, sizeof(*sample)) != sizeof(*sample))
        _exit(1);
}

static void serve(int channel, struct cell_database *database)
{
    struct cell_sample sample = {0};
    struct order order;

    cell_open(database);
    answer(channel, &sample);
    while (read(channel, &order, sizeof(order)) == sizeof(order)) {
        sample = (struct cell_sample){0};
        if (order.kind == FILL)
            cell_fill(database, order.fill_order);
        else if (order.kind == RUN)
            sample = cell_run(database, &order.spec);
        else if (order.kind == RESUME)
            database->live = order.live, database->order = order.fill_order;
        else
            cell_close(database);
        answer(channel, &sample);
        if (order.kind == STOP)
            break;
    }
}

/* --- in the driver --------------------------------------------------------- */

/* The last line it said. */
static void read_errors(struct worker *worker, char *text, size_t len)
{
    off_t end = lseek(worker->errors, 0, SEEK_END);
    off_t from = end > (off_t)len - 1 ? end - (off_t)len + 1 : 0;
    ssize_t got = pread(worker->errors, text, len - 1, from);
    char *line;

    text[got > 0 ? got : 0] = 0;
    while (*text && text[strlen(text) - 1] == '\n')
        text[strlen(text) - 1] = 0;
    line = strrchr(text, '\n');
    if (line)
        memmove(text, line + 1, strlen(line + 1) + 1);
    if (strncmp(text, "bench: ", 7) == 0)
        memmove(text, text + 7, strlen(text + 7) + 1);
    for (char *at = text; *at; at++)
        if (*at == '|' || *at == '\t')
            *at = ' ';
}

static void bury(struct worker *worker, bool late)
{
    char said[128];
    int status = 0;

    kill(worker->pid, SIGKILL);
    while (waitpid(worker->pid, &status, 0) < 0 && errno == EINTR)
        ;
    read_errors(worker, said, sizeof(said));
    if (late)
        snprintf(worker->reason, sizeof(worker->reason),
                 "no end in sight: stopped by the bench");
    else if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL &&
             worker->group)
        snprintf(worker->reason, sizeof(worker->reason),
                 "killed for passing its memory bound");
    else if (WIFSIGNALED(status))
        snprintf(worker->reason, sizeof(worker->reason), "signal %d%s%s",
                 WTERMSIG(status), *said ? ": " : "", said);
    else
        snprintf(worker->reason, sizeof(worker->reason), "%s",
                 *said ? said : "it ended");
    close(worker->channel);
    close(worker->errors);
    worker->pid = 0;
}

static bool await(struct worker *worker, struct cell_sample *sample,
                  double limit)
{
    struct pollfd ready = {.fd = worker->channel, .events = POLLIN};
    int result;

    do
        result = poll(&ready, 1, (int)(limit * 1e3));
    while (result < 0 && errno == EINTR);
    if (result > 0 &&
        read(worker->channel, sample, sizeof(*sample)) == sizeof(*sample)) {
        kill(worker->pid, SIGSTOP);
        return true;
    }
    if (result > 0) {
        /* Closed: give it time to die of its own cause. */
        for (int tries = 0; tries < 200; tries++) {
            siginfo_t info = {0};

            if (waitid(P_PID, (id_t)worker->pid, &info,
                       WEXITED | WNOHANG | WNOWAIT) == 0 &&
                info.si_pid)
                break;
            usleep(10000);
        }
    }
    bury(worker, result == 0);
    return false;
}

static bool ask(struct worker *worker, const struct order *order,
                struct cell_sample *sample, double limit)
{
    if (!worker->pid)
        return false;
    kill(worker->pid, SIGCONT);
    if (send(worker->channel, order, sizeof(*order), MSG_NOSIGNAL) !=
        sizeof(*order)) {
        bury(worker, false);
        return false;
    }
    return await(worker, sample, limit);
}

bool worker_start(struct worker *worker, const struct peer_kind *kind,
                  const struct peer_config *config,
                  const struct keyspace *space, const struct cgroup *group)
{
    struct cell_sample none;
    int pair[2];

    *worker = (struct worker){.group = group};
    worker->errors = memfd_create("bench-errors", MFD_CLOEXEC);
    if (worker->errors < 0 ||
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        rig_die("no channel to a worker");
    fflush(NULL);
    worker->pid = fork();
    if (worker->pid < 0)
        rig_die("no process for a worker");
    if (worker->pid == 0) {
        struct cell_database database = {
            .kind = kind, .config = *config, .space = space};

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(worker->errors, STDERR_FILENO);
        close(pair[0]);
        if (group)
            cgroup_enter(group);
        serve(pair[1], &database);
        _exit(0);
    }
    close(pair[1]);
    worker->channel = pair[0];
    return await(worker, &none, 300);
}

bool worker_fill(struct worker *worker, enum fill_order fill_order,
                 double limit)
{
    struct order order = {.kind = FILL, .fill_order = fill_order};
    struct cell_sample none;

    return ask(worker, &order, &none, limit);
}

bool worker_resume(struct worker *worker, enum fill_order fill_order,
                   uint64_t live, double limit)
{
    struct order order = {
        .kind = RESUME, .fill_order = fill_order, .live = live};
    struct cell_sample none;

    return ask(worker, &order, &none, limit);
}

bool worker_run(struct worker *worker, const struct cell_spec *spec,
                struct cell_sample *sample, double limit)
{
    struct order order = {.kind = RUN, .spec = *spec};

    return ask(worker, &order, sample, limit);
}

bool worker_stop(struct worker *worker, double limit)
{
    struct order order = {.kind = STOP};
    struct cell_sample none;

    if (!worker->pid)
        return false;
    if (!ask(worker, &order, &none, limit))
        return false;
    kill(worker->pid, SIGCONT);
    while (waitpid(worker->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    close(worker->channel);
    close(worker->errors);
    worker->pid = 0;
    return true;
}
