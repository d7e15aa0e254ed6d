/*
 * A bound on a process's memory, the page cache it brings in included: a
 * memory cgroup, version 1 or 2.
 */
#ifndef CGROUP_H
#define CGROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cgroup {
    char path[4096];
    bool version2;
};

/* Make the group NAME bounded to BYTES.  False, with why in REASON, when this
 * system has none, or none that we may make. */
bool cgroup_make(struct cgroup *group, const char *name, uint64_t bytes,
                 char *reason, size_t reason_len);
/* Move the calling process in. */
void cgroup_enter(const struct cgroup *group);
/* Its processes are gone. */
void cgroup_remove(const struct cgroup *group);

#endif
