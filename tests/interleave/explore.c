#include "explore.h"

#include <assert.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "atomic_points.h"
#include "fileio/fault.h"

enum {
    DECISIONS_MAX = 1 << 16, /* of a run */
    POINTS_MAX = 1 << 20,
    CELLS = 1 << 14,
    SITES_OF_CELL = 6,
    SPINS = 3,         /* operations on one variable in a row that count */
    PATIENCE = 20,     /* yields in a row of one that goes on looking */
    SWITCHES_MAX = 64, /* of a schedule that is given */
    POINT_NAME = 48,
};

/* Several threads might have had the turn. */
struct decision {
    unsigned option[SCENE_THREADS]; /* the first is what happens by itself */
    unsigned count, chosen;
    size_t point;
};

/* SELF came to AT, or it was passed there. */
struct point {
    const char *at;
    unsigned self;
};

/* Memory that an atomic operation of this run was about. */
struct cell {
    const volatile void *at;
    uint64_t run;
    unsigned readers, writers; /* bits of threads */
    struct atomic_site *site[SITES_OF_CELL];
    unsigned sites;
};

/* A@merge:read#2>B: at its second coming to merge:read A gives the turn to B. */
struct given {
    unsigned self, to, nth;
    char at[POINT_NAME];
};

struct search {
    struct exploration *e;
    struct sched *s;
    struct stage *stage;
    bool playing;
    bool over[SCENE_THREADS + 1]; /* has played */
    struct decision *path;
    size_t depth, replayed;
    unsigned preempted;
    struct point *point;
    size_t points;
    struct cell *cell;
    uint64_t run; /* of CELL */
    bool learnt;  /* a line is a point that was none before */
    struct last {
        const struct atomic_site *site;
        const volatile void *at;
        unsigned times;
    } last[SCENE_THREADS + 1]; /* what it did last, without a switch since */
    /* Whose turn was taken in front of an operation on AT, which others have not
     * met since. */
    struct taken {
        const volatile void *at;
        bool writes;
    } taken_at[SCENE_THREADS + 1];
    /* What the thread that runs is about to do; NULL: no atomic operation. */
    const struct atomic_site *coming;
    const volatile void *coming_at;
    bool redundant;
    unsigned yields[SCENE_THREADS + 1]; /* in a row */
    bool stays[SCENE_THREADS + 1];      /* and goes on looking meanwhile */
    struct given given[SWITCHES_MAX];
    size_t givens, taken;
};

/* The one under way: hooks know of none. */
static struct search *search;

/* Every line that was come to. */
static struct atomic_site *sites;

/* --- telling ----------------------------------------------------------------- */

static char letter(unsigned thread)
{
    return (char)('A' + thread - 1);
}

/* How often THREAD had come to AT, by the point I. */
static unsigned comings(const struct search *x, size_t i)
{
    const struct point *p = &x->point[i];
    unsigned n = 0;

    for (size_t k = 0; k <= i; k++)
        n += x->point[k].self == p->self && strcmp(x->point[k].at, p->at) == 0;
    return n;
}

/* The choices of the run, up to now, that did not make themselves. */
static size_t tell_schedule(const struct search *x, char *text, size_t len)
{
    size_t n = (size_t)snprintf(text, len, "BFT_SCHEDULE='%s%s",
                                x->e->scene->name, x->e->fine ? "/fine" : "");

    for (size_t i = 0; i < x->depth && n < len; i++) {
        const struct decision *d = &x->path[i];
        const struct point *p = &x->point[d->point];

        if (d->chosen != 0)
            n += (size_t)snprintf(text + n, len - n, " %c@%s#%u>%c",
                                  p->self ? letter(p->self) : '-', p->at,
                                  comings(x, d->point),
                                  letter(d->option[d->chosen]));
    }
    if (n < len)
        n += (size_t)snprintf(text + n, len - n, "'");
    return n < len ? n : len - 1;
}

static void on_signal(int number)
{
    static char text[1500];
    size_t n = 0;

    if (search) {
        n = tell_schedule(search, text, sizeof(text) - 2);
        text[n++] = '\n';
    }
    if (write(STDERR_FILENO, text, n) < 0)
        n = 0;
    (void)signal(number, SIG_DFL);
    (void)raise(number);
}

/* cmocka has handlers of its own, which would go on with what is left. */
static void watch_for_crashes(void)
{
    static char stack[64 << 10];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof(stack)};
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};

    if (sigaltstack(&alternate, NULL) != 0 ||
        sigaction(SIGABRT, &action, NULL) != 0 ||
        sigaction(SIGSEGV, &action, NULL) != 0)
        abort();
}

/* --- a schedule that is given --------------------------------------------------- */

static void must_parse(bool ok, const char *text)
{
    if (ok)
        return;
    fprintf(stderr, "BFT_SCHEDULE: not understood at '%s'\n", text);
    exit(2);
}

/* TEXT is what tell_schedule() tells, without the name of the scene. */
static void parse_schedule(struct search *x, const char *text)
{
    while (*(text += strspn(text, " ")) != '\0') {
        struct given *g = &x->given[x->givens];
        const char *at = text + 2, *mark = strchr(at, '#');
        char *end;

        must_parse(x->givens < SWITCHES_MAX && text[0] != '\0' &&
                       text[1] == '@' && mark != NULL &&
                       (size_t)(mark - at) < sizeof(g->at),
                   text);
        g->self = text[0] == '-' ? 0 : (unsigned)(text[0] - 'A' + 1);
        memcpy(g->at, at, (size_t)(mark - at));
        g->at[mark - at] = '\0';
        g->nth = (unsigned)strtoul(mark + 1, &end, 10);
        must_parse(*end == '>' && end[1] >= 'A' && end[1] < 'A' + SCENE_THREADS,
                   text);
        g->to = (unsigned)(end[1] - 'A' + 1);
        text = end + 2;
        x->givens++;
    }
}

/* The place in OPTION of whom the schedule gives the turn at the last point. */
static unsigned given_choice(struct search *x, const unsigned *option,
                             unsigned count)
{
    const struct point *p = &x->point[x->points - 1];
    const struct given *g = &x->given[x->taken];

    if (x->taken == x->givens || g->self != p->self ||
        strcmp(g->at, p->at) != 0 || g->nth != comings(x, x->points - 1))
        return 0;
    for (unsigned i = 0; i < count; i++)
        if (option[i] == g->to) {
            x->taken++;
            return i;
        }
    return 0;
}

/* --- choosing -------------------------------------------------------------------- */

static void note_point(struct search *x, unsigned self, const char *at)
{
    if (x->points == POINTS_MAX)
        sched_fail(x->s, "too many points");
    x->point[x->points++] = (struct point){.at = at, .self = self};
    x->e->points++;
}

/* Points that say nothing.  Who takes a lock, or is in front of a PARK point, is
 * about to do an atomic operation. */
static bool is_idle(const struct search *x, const struct atomic_site *coming,
                    const char *at)
{
    static const char *const idle[] = {"lock", "wake", "start", "join"};

    for (size_t i = 0; i < sizeof(idle) / sizeof(*idle); i++)
        if (strcmp(at, idle[i]) == 0)
            return true;
    return x->e->fine && coming == NULL && strchr(at, ':') != NULL;
}

/* The one of a run that is repeated, else the first. */
static unsigned decide(struct search *x, const unsigned *option, unsigned count)
{
    struct decision *d = &x->path[x->depth];

    if (x->depth == DECISIONS_MAX)
        sched_fail(x->s, "too many decisions");
    if (x->depth < x->replayed) {
        if (d->count != count || d->point != x->points - 1 ||
            memcmp(d->option, option, count * sizeof(*option)) != 0)
            sched_fail(x->s, "the same choices led elsewhere");
    } else {
        d->count = count;
        d->point = x->points - 1;
        d->chosen = x->e->schedule ? given_choice(x, option, count) : 0;
        memcpy(d->option, option, count * sizeof(*option));
    }
    x->depth++;
    return option[d->chosen];
}

/* Who may have the turn, who keeps it first.  Not thread 0, which waits for the
 * end of all others. */
static unsigned list_options(const struct sched_choice *choice,
                             unsigned *option)
{
    unsigned count = 0;

    if (choice->goes_on)
        option[count++] = choice->self;
    for (unsigned i = 0; i < choice->count; i++)
        if (choice->ready[i] != 0 &&
            !(choice->goes_on && choice->ready[i] == choice->self))
            option[count++] = choice->ready[i];
    return count;
}

/*
 * TO gets the turn.  If it was taken from it in front of an operation that has met
 * nobody since, then that might as well have happened before: that is the run in
 * which the turn was taken behind it.
 */
static void pass_on(struct search *x, const struct sched_choice *choice,
                    const struct atomic_site *coming, unsigned to)
{
    struct taken *mine = &x->taken_at[choice->self];

    memset(x->last, 0, sizeof(x->last));
    mine->at = NULL;
    if (choice->goes_on) {
        x->preempted++;
        if (coming) {
            mine->at = x->coming_at;
            mine->writes = coming->writes;
        }
    }
    if (x->taken_at[to].at != NULL && !x->e->schedule)
        x->redundant = true;
}

/*
 * SELF yields, because it waits for another: OPTION.  At the first of its yields in
 * a row there is the choice whether whom it waits for goes on now, or is stopped for
 * longer than it has patience.  Otherwise the others have their turns, or it has.
 */
static unsigned choose_at_yield(struct search *x, unsigned self,
                                unsigned *option, unsigned count)
{
    unsigned to, row = x->yields[self]++;

    if (row == 0 && !x->redundant) {
        option[count] = self;
        to = decide(x, option, count + 1);
        x->stays[self] = to == self;
        return to;
    }
    if (row == 0)
        x->stays[self] = false;
    return x->stays[self] && row < PATIENCE ? self : option[row % count];
}

static unsigned choose(void *arg, const struct sched_choice *choice)
{
    struct search *x = arg;
    const struct atomic_site *coming = x->coming;
    unsigned option[SCENE_THREADS + 2], count, to;
    bool alone = !x->playing || choice->self == 0 || x->over[choice->self];

    x->coming = NULL;
    if (choice->goes_on && (alone || is_idle(x, coming, choice->at)))
        return choice->self;
    if (!x->playing)
        return choice->ready[0];
    count = list_options(choice, option);
    note_point(x, choice->self, x->over[choice->self] ? "end" : choice->at);
    if (count == 0)
        return choice->ready[0];
    to = option[0];
    if (!choice->goes_on && strcmp(choice->at, "yield") == 0)
        to = choose_at_yield(x, choice->self, option, count);
    else if (count > 1 && !x->redundant &&
             (!choice->goes_on || x->preempted < x->e->preemptions ||
              x->givens))
        to = decide(x, option, count);
    if (strcmp(choice->at, "yield") != 0)
        x->yields[choice->self] = 0;
    if (to != choice->self)
        pass_on(x, choice, coming, to);
    return to;
}

/* --- atomic operations -------------------------------------------------------------- */

static void name_site(struct atomic_site *site)
{
    const char *slash = strrchr(site->file, '/');

    snprintf(site->name, sizeof(site->name), "%s:%d",
             slash ? slash + 1 : site->file, site->line);
    site->next = sites;
    sites = site;
}

static void make_shared(struct search *x, struct atomic_site *site)
{
    if (site->shared)
        return;
    site->shared = true;
    x->e->shared++;
    x->learnt = true;
}

static struct cell *cell_of(struct search *x, const volatile void *at)
{
    size_t i = (size_t)((uintptr_t)at * UINT64_C(0x9e3779b97f4a7c15) >> 50);

    for (size_t tries = 0; tries < CELLS; tries++, i = (i + 1) % CELLS) {
        struct cell *cell = &x->cell[i];

        if (cell->run != x->run)
            *cell = (struct cell){.at = at, .run = x->run};
        if (cell->at == at)
            return cell;
    }
    return NULL;
}

/* SELF is about to use AT. */
static void note_use(struct search *x, unsigned self, struct atomic_site *site,
                     const volatile void *at)
{
    struct cell *cell = cell_of(x, at);
    unsigned i = 0, all;

    if (cell == NULL)
        sched_fail(x->s, "too many atomic variables");
    if (site->writes)
        cell->writers |= 1u << self;
    else
        cell->readers |= 1u << self;
    while (i < cell->sites && cell->site[i] != site)
        i++;
    if (i == SITES_OF_CELL)
        make_shared(x, site); /* no room to remember it */
    else if (i == cell->sites)
        cell->site[cell->sites++] = site;
    all = cell->readers | cell->writers;
    if (cell->writers != 0 && (all & (all - 1)) != 0)
        for (i = 0; i < cell->sites; i++)
            make_shared(x, cell->site[i]);
}

/* SELF does it. */
static void meet_others(struct search *x, unsigned self,
                        const struct atomic_site *site, const volatile void *at)
{
    for (unsigned i = 0; i <= SCENE_THREADS; i++)
        if (i != self && x->taken_at[i].at == at &&
            (site->writes || x->taken_at[i].writes))
            x->taken_at[i].at = NULL;
}

/* Does it only look again, as who spins?  Nobody else has done anything, so it
 * sees the same. */
static bool is_repeated(struct last *last, const struct atomic_site *site,
                        const volatile void *at)
{
    bool same = last->site == site && last->at == at;

    last->times = last->at == at ? last->times + 1 : 0;
    last->site = site;
    last->at = at;
    return same || last->times > SPINS;
}

static void on_atomic(struct atomic_site *site, const volatile void *at)
{
    struct search *x = search;
    unsigned self;

    if (x == NULL || !x->playing || !x->e->fine)
        return;
    self = sched_self(x->s);
    if (self == 0 || self > SCENE_THREADS || x->over[self])
        return;
    if (site->name[0] == '\0')
        name_site(site);
    note_use(x, self, site, at);
    /* Of a schedule that is given nothing was learnt. */
    if (!is_repeated(&x->last[self], site, at) &&
        (site->shared || x->e->schedule)) {
        x->coming = site;
        x->coming_at = at;
        sched_step(x->s, site->name);
    }
    meet_others(x, self, site, at);
}

/* --- one run ------------------------------------------------------------------------- */

struct player {
    struct search *x;
    unsigned thread;
    struct bfti_thread *handle;
};

static void player_main(void *arg)
{
    struct player *p = arg;
    struct search *x = p->x;

    x->e->scene->play[p->thread](x->stage, p->thread);
    x->over[p->thread + 1] = true;
}

static void run_main(void *arg)
{
    struct search *x = arg;
    const struct bfti_env *env = sched_env(x->s);
    uint64_t faults = atomic_exchange(&bfti_fault, 0) | x->e->faults;
    struct player player[SCENE_THREADS];
    unsigned count = 0;

    stage_open(x->stage);
    while (count < x->e->players && x->e->scene->play[count]) {
        player[count] = (struct player){.x = x, .thread = count};
        if (env->thread_start(env->ctx, player_main, &player[count],
                              &player[count].handle) != BFT_OK)
            sched_fail(x->s, "no thread");
        count++;
    }
    atomic_store(&bfti_fault, faults);
    x->playing = true;
    for (unsigned i = 0; i < count; i++)
        env->thread_join(env->ctx, player[i].handle);
    x->playing = false;
    atomic_store(&bfti_fault, 0);
    stage_close(x->stage);
}

/* False: it failed, and its threads are left where they are. */
static bool run_once(struct search *x)
{
    const struct sched_guide guide = {.choose = choose, .arg = x};
    const struct sched_options options = {.guide = &guide,
                                          .points_max = 1000000};
    bool ended;
    int64_t blocks;

    x->s = sched_make(&options);
    x->stage = stage_make(x->e->scene, x->s);
    x->depth = x->points = x->preempted = 0;
    x->taken = 0;
    x->run++;
    x->learnt = false;
    memset(x->over, 0, sizeof(x->over));
    memset(x->last, 0, sizeof(x->last));
    memset(x->taken_at, 0, sizeof(x->taken_at));
    memset(x->yields, 0, sizeof(x->yields));
    x->coming = NULL;
    x->redundant = false;
    search = x;
    ended = sched_run(x->s, run_main, x);
    search = NULL;
    blocks = sched_counts(x->s).blocks;
    if (!ended || blocks != 0) {
        size_t n = tell_schedule(x, x->e->failure, sizeof(x->e->failure) / 2);

        if (ended)
            snprintf(x->e->failure + n, sizeof(x->e->failure) - n,
                     ": %lld blocks of memory were not given back",
                     (long long)blocks);
        else
            snprintf(x->e->failure + n, sizeof(x->e->failure) - n, ": %s",
                     sched_failure(x->s));
        return false;
    }
    stage_free(x->stage);
    sched_free(x->s);
    if (x->depth > x->e->longest)
        x->e->longest = (unsigned)x->depth;
    return true;
}

/* --- the search ----------------------------------------------------------------------- */

/* The last choice that can be made otherwise is.  False: there is none. */
static bool go_back(struct search *x)
{
    x->replayed = x->depth;
    while (x->replayed > 0) {
        struct decision *d = &x->path[x->replayed - 1];

        if (d->chosen + 1 < d->count) {
            d->chosen++;
            return true;
        }
        x->replayed--;
    }
    return false;
}

static bool search_all(struct search *x)
{
    struct exploration *e = x->e;

    for (;;) {
        if (!run_once(x))
            return false;
        e->runs++;
        e->redundant += x->redundant;
        if (e->schedule)
            return true;
        if (x->learnt) { /* all over again, with one point more */
            e->runs = e->redundant = e->points = e->longest = 0;
            x->replayed = 0;
            continue;
        }
        if (!go_back(x)) {
            e->whole = true;
            return true;
        }
        if (e->runs_max && e->runs >= e->runs_max)
            return true;
    }
}

bool explore(struct exploration *e)
{
    struct search *x = calloc(1, sizeof(*x));
    bool ok;

    assert(x);
    x->e = e;
    x->path = calloc(DECISIONS_MAX, sizeof(*x->path));
    x->point = calloc(POINTS_MAX, sizeof(*x->point));
    x->cell = calloc(CELLS, sizeof(*x->cell));
    assert(x->path && x->point && x->cell);
    for (struct atomic_site *site = sites; site; site = site->next)
        site->shared = false;
    if (e->schedule)
        parse_schedule(x, e->schedule);
    watch_for_crashes();
    atomic_hooked = on_atomic;
    ok = search_all(x);
    atomic_hooked = NULL;
    free(x->cell);
    free(x->point);
    free(x->path);
    free(x);
    return ok;
}
