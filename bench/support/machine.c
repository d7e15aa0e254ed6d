/*
 * The machine that a benchmark runs on, and the files that it leaves.
 */
#include "rig.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <unistd.h>

/* Copy what follows "NAME<spaces>:" in the first such line of FILE. */
static bool find_line(const char *file, const char *name, char *to, size_t len)
{
    FILE *from = fopen(file, "re");
    char line[512];
    bool found = false;

    if (!from)
        return false;
    while (!found && fgets(line, sizeof(line), from)) {
        char *colon = strchr(line, ':');

        if (!colon || strncmp(line, name, strlen(name)) != 0)
            continue;
        colon++;
        colon += strspn(colon, " \t");
        colon[strcspn(colon, "\n")] = 0;
        snprintf(to, len, "%s", colon);
        found = true;
    }
    fclose(from);
    return found;
}

/* "ext4 on /dev/vda (options)", from the line of DIR's device. */
static bool find_mount(const char *dir, char *to, size_t len)
{
    FILE *from = fopen("/proc/self/mountinfo", "re");
    char line[1024];
    struct stat file;
    bool found = false;

    if (!from)
        return false;
    if (stat(dir, &file) == 0) {
        while (!found && fgets(line, sizeof(line), from)) {
            unsigned major_number, minor_number;
            char type[64], device[256], options[256];
            const char *dash = strstr(line, " - ");

            if (!dash ||
                sscanf(line, "%*d %*d %u:%u %*s %*s %*s", &major_number,
                       &minor_number) != 2 ||
                makedev(major_number, minor_number) != file.st_dev ||
                sscanf(dash, " - %63s %255s %255s", type, device, options) != 3)
                continue;
            snprintf(to, len, "%s on %s (%s)", type, device, options);
            found = true;
        }
    }
    fclose(from);
    return found;
}

void rig_machine(FILE *to, const char *dir)
{
    char text[1024], load[128] = "unknown";
    struct utsname system;
    FILE *from;

    if (!find_line("/proc/cpuinfo", "model name", text, sizeof(text)))
        snprintf(text, sizeof(text), "unknown");
    fprintf(to, "processor    %s, %ld online\n", text,
            sysconf(_SC_NPROCESSORS_ONLN));
    if (find_line("/proc/meminfo", "MemTotal", text, sizeof(text)))
        fprintf(to, "memory       %s\n", text);
    if (uname(&system) == 0)
        fprintf(to, "kernel       %s %s %s\n", system.sysname, system.release,
                system.machine);
    if (find_mount(dir, text, sizeof(text)))
        fprintf(to, "file system  %s\n", text);
    fprintf(to, "compiler     %s\n", __VERSION__);
    from = fopen("/proc/loadavg", "re");
    if (from) {
        if (fgets(load, sizeof(load), from))
            load[strcspn(load, "\n")] = 0;
        fclose(from);
    }
    fprintf(to, "load         %s (at the start, before this run)\n", load);
}

static void json_text(FILE *to, const char *text)
{
    fputc('"', to);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            fprintf(to, "\\%c", *text);
        else if ((unsigned char)*text < 0x20)
            fprintf(to, "\\u%04x", (unsigned)*text);
        else
            fputc(*text, to);
    }
    fputc('"', to);
}

void rig_json(FILE *to, const struct rig_cell *cell)
{
    fputs("{\"bench\":", to);
    json_text(to, cell->bench);
    fputs(",\"setting\":", to);
    json_text(to, cell->setting);
    fputs(",\"workload\":", to);
    json_text(to, cell->workload);
    fputs(",\"engine\":", to);
    json_text(to, cell->engine);
    fprintf(to, ",\"threads\":%u,\"metric\":", cell->threads);
    json_text(to, cell->metric);
    if (cell->n)
        fprintf(to, ",\"value\":%.6g", rig_median(cell->rounds, cell->n));
    else
        fputs(",\"value\":null,\"reason\":", to);
    if (!cell->n)
        json_text(to, cell->reason ? cell->reason : "");
    fputs(",\"rounds\":[", to);
    for (size_t i = 0; i < cell->n; i++)
        fprintf(to, "%s%.6g", i ? "," : "", cell->rounds[i]);
    fputs("],\"config\":", to);
    json_text(to, cell->config);
    fputs("}\n", to);
}

FILE *rig_results(const char *dir, const char *bench)
{
    char path[4096];
    FILE *results;

    rig_make_dir(dir);
    snprintf(path, sizeof(path), "%s/%s.jsonl", dir, bench);
    results = fopen(path, "we");
    if (!results)
        rig_die("%s: cannot write it: %s", path, strerror(errno));
    return results;
}

void rig_results_written(FILE *results, const char *dir, const char *bench)
{
    if (fclose(results))
        rig_die("%s/%s.jsonl: cannot write it: %s", dir, bench,
                strerror(errno));
    printf("\nwritten: %s/%s.jsonl\n", dir, bench);
}

void rig_make_dir(const char *dir)
{
    char path[4096];

    if (snprintf(path, sizeof(path), "%s", dir) >= (int)sizeof(path))
        rig_die("%s: too long a path", dir);
    for (char *slash = path + 1;; slash++) {
        char was = *slash;

        if (was != '/' && was != 0)
            continue;
        *slash = 0;
        if (mkdir(path, 0777) && errno != EEXIST)
            rig_die("%s: %s", path, strerror(errno));
        if (was == 0)
            return;
        *slash = was;
    }
}

static int remove_one(const char *path, const struct stat *file, int type,
                      struct FTW *at)
{
    (void)file;
    (void)type;
    (void)at;
    return remove(path);
}

void rig_remove_dir(const char *dir)
{
    if (nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS) && errno != ENOENT)
        rig_die("%s: cannot remove it: %s", dir, strerror(errno));
}

/* --- memory ----------------------------------------------------------------- */

struct rig_memory rig_look(void)
{
    struct rig_memory now = {0, 0};
    uint64_t resident = 0, value;
    char line[256];
    FILE *from = fopen("/proc/self/smaps_rollup", "re");

    if (!from)
        rig_die("no /proc/self/smaps_rollup here");
    while (fgets(line, sizeof(line), from)) {
        if (sscanf(line, "Rss: %" SCNu64, &value) == 1)
            resident = value * 1024;
        else if (sscanf(line, "Anonymous: %" SCNu64, &value) == 1)
            now.anonymous = value * 1024;
    }
    fclose(from);
    now.file = resident - now.anonymous;
    return now;
}

static int evict_file(const char *path, const struct stat *info, int type,
                      struct FTW *at)
{
    int file;

    (void)info;
    (void)at;
    if (type != FTW_F)
        return 0;
    file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return 0;
    fsync(file); /* dirty pages stay where they are */
    posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    close(file);
    return 0;
}

const char *rig_drop_cache(const char *dir, bool whole)
{
    int file;
    bool dropped;

    nftw(dir, evict_file, 16, FTW_PHYS);
    if (!whole)
        return "pages of the files dropped";
    file = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
    dropped = file >= 0 && write(file, "3", 1) == 1;
    if (file >= 0)
        close(file);
    return dropped ? "system's cache dropped"
                   : "drop_caches is not allowed: pages of the files dropped";
}
