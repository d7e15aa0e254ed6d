/* See pace.h. */
#include "pace.h"

#include <stddef.h>
#include <sys/resource.h>
#include <time.h>

enum {
    LONG_NS = 1000000,
    AWAY_NS = 20000000,
    WRITES_BETWEEN_LOOKS = 256,
};

uint64_t bftn_now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* What has made this thread wait so far: disk reads that no cache answered, and
 * the engine's own waits.  Not counted are pages that the engine read or wrote:
 * most of those cost the system a copy and no wait. */
static uint64_t waits_of(const bft_stats *stats)
{
    struct rusage used;

    if (getrusage(RUSAGE_THREAD, &used) != 0)
        return stats->writer_waits;
    return stats->writer_waits + (uint64_t)used.ru_inblock +
           (uint64_t)used.ru_majflt;
}

/* Read the gauges; true: there was a wait since the last time. */
static bool look(struct bftn_pace *pace, bft_db *db)
{
    bft_stats stats = {.size = sizeof(stats)};
    uint64_t waits;
    bool first = !pace->looked;

    pace->writes_left = WRITES_BETWEEN_LOOKS;
    if (bft_stats_read(db, &stats) != BFT_OK)
        return false;
    pace->looked = true;
    pace->crowded = stats.memory_used_bytes >
                    stats.memory_budget_bytes - stats.memory_budget_bytes / 8;
    waits = waits_of(&stats);
    if (waits == pace->waits)
        return false;
    pace->waits = waits;
    return !first;
}

bool bftn_pace_here(struct bftn_pace *pace, bft_db *db, bool writes,
                    uint64_t now_ns)
{
    if (now_ns < pace->away_until)
        return false;
    if (!writes)
        return true;
    if (pace->writes_left-- == 0)
        (void)look(pace, db);
    return !pace->crowded;
}

void bftn_pace_took(struct bftn_pace *pace, bft_db *db, uint64_t start_ns,
                    uint64_t end_ns)
{
    if (end_ns - start_ns > LONG_NS && look(pace, db))
        pace->away_until = end_ns + AWAY_NS;
}
