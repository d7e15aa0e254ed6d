/*
 * Memory cgroups by their files.  A group is made below our own, or below the
 * nearest ancestor of it where that is allowed: version 2 lets no group have
 * processes and bounded children both.
 */
#include "cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rig.h"

static bool write_file(const char *dir, const char *file, const char *text)
{
    char path[4224];
    int to;
    bool fine;

    snprintf(path, sizeof(path), "%s/%s", dir, file);
    to = open(path, O_WRONLY | O_CLOEXEC);
    if (to < 0)
        return false;
    fine = write(to, text, strlen(text)) == (ssize_t)strlen(text);
    close(to);
    return fine;
}

/* Where the hierarchy with the memory controller is mounted. */
static bool find_mount(char mount[2048], bool *version2)
{
    FILE *from = fopen("/proc/self/mountinfo", "re");
    char line[4096];
    bool found = false;

    while (from && !found && fgets(line, sizeof(line), from)) {
        const char *dash = strstr(line, " - ");
        char point[2048], type[64], options[1024], controllers[2176];

        if (!dash || sscanf(line, "%*d %*d %*s %*s %2047s", point) != 1 ||
            sscanf(dash, " - %63s %*s %1023s", type, options) != 2)
            continue;
        snprintf(controllers, sizeof(controllers), "%s/cgroup.controllers",
                 point);
        if (strcmp(type, "cgroup") == 0 && strstr(options, "memory")) {
            *version2 = false;
            found = true;
        } else if (strcmp(type, "cgroup2") == 0) {
            FILE *list = fopen(controllers, "re");

            found = list && fgets(line, sizeof(line), list) &&
                    strstr(line, "memory");
            *version2 = true;
            if (list)
                fclose(list);
        }
        if (found)
            snprintf(mount, 2048, "%s", point);
    }
    if (from)
        fclose(from);
    return found;
}

/* This process's own place below the mount. */
static void own_place(bool version2, char place[1024])
{
    FILE *from = fopen("/proc/self/cgroup", "re");
    char line[2048];

    place[0] = 0;
    while (from && fgets(line, sizeof(line), from)) {
        char *controllers = strchr(line, ':');
        char *path = controllers ? strchr(controllers + 1, ':') : NULL;
        bool ours;

        if (!path)
            continue;
        *path++ = 0;
        path[strcspn(path, "\n")] = 0;
        ours = version2 ? controllers[1] == 0
                        : strstr(controllers, "memory") != NULL;
        if (ours)
            snprintf(place, 1024, "%s", strcmp(path, "/") ? path : "");
    }
    if (from)
        fclose(from);
}

/* Bound the new group in PATH. */
static bool bound(const struct cgroup *group, uint64_t bytes)
{
    char text[32];

    snprintf(text, sizeof(text), "%llu", (unsigned long long)bytes);
    if (group->version2) {
        write_file(group->path, "memory.swap.max", "0");
        return write_file(group->path, "memory.max", text);
    }
    write_file(group->path, "memory.swappiness", "0");
    return write_file(group->path, "memory.limit_in_bytes", text);
}

static bool make_below(struct cgroup *group, const char *parent,
                       const char *name, uint64_t bytes)
{
    if (group->version2)
        write_file(parent, "cgroup.subtree_control", "+memory");
    if (snprintf(group->path, sizeof(group->path), "%s/%s", parent, name) >=
        (int)sizeof(group->path))
        return false;
    if (mkdir(group->path, 0755) && errno != EEXIST)
        return false;
    if (bound(group, bytes))
        return true;
    rmdir(group->path);
    return false;
}

bool cgroup_make(struct cgroup *group, const char *name, uint64_t bytes,
                 char *reason, size_t reason_len)
{
    char mount[2048], place[1024], parent[3200];

    if (!find_mount(mount, &group->version2)) {
        snprintf(reason, reason_len, "no memory cgroup is mounted here");
        return false;
    }
    own_place(group->version2, place);
    for (;;) {
        char *slash;

        snprintf(parent, sizeof(parent), "%s%s", mount, place);
        if (make_below(group, parent, name, bytes))
            return true;
        slash = strrchr(place, '/');
        if (!slash)
            break;
        *slash = 0;
    }
    snprintf(reason, reason_len, "no memory cgroup may be made in %s (%s)",
             mount, strerror(errno));
    return false;
}

void cgroup_enter(const struct cgroup *group)
{
    char text[32];

    snprintf(text, sizeof(text), "%ld", (long)getpid());
    if (!write_file(group->path, "cgroup.procs", text))
        rig_die("%s: cannot move into it: %s", group->path, strerror(errno));
}

void cgroup_remove(const struct cgroup *group)
{
    /* A dead process may still be leaving. */
    for (int tries = 0; rmdir(group->path) && errno == EBUSY && tries < 100;
         tries++)
        usleep(10000);
}
