/*
 * Replays a log of log_disk up to many points, as the disk that a power cut
 * there may leave, and looks whether the file system and the database on it
 * survive:
 *
 *   power_replay LOG FILE-SYSTEM DIRECTORY SEED LIVES STEPS BYTES IMAGES
 *                [RECORD [IMAGE-SEED FATE]]
 *
 * LOG was made with power_work's SEED, LIVES and STEPS on a disk of BYTES;
 * DIRECTORY is where images are mounted.  With RECORD, IMAGES images of that
 * record alone, or one alone: that of a loss.  BFT_SEED draws points and
 * images.
 *
 * A disk has all that was written before the last flush that it answered, and
 * of what came since anything: all, nothing, some writes, some blocks of them,
 * or all up to one that is torn at a sector.  Each image is a file in memory
 * behind a loop device that detaches itself; mounts are in a name space of this
 * process: both are gone when it is, however it ends.
 *
 * Exit status 0: no image lost anything; 1: a database did; 2: something else,
 * a file system for one.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "power_life.h"
#include "power_log.h"
#include "power_loop.h"
#include "random.h"
#include "tally.h"

enum {
    BLOCK = 4096,
    SECTOR = 512,
    CHECK_SECONDS = 120, /* then it hangs */
    TRIES = 100,         /* of an unmount, 20 ms apart */
};

/* What becomes of writes that no flush has covered. */
enum fate { FATE_ALL, FATE_NONE, FATE_SOME, FATE_BLOCKS, FATE_TORN, FATES };
static const char *const fate_name[FATES] = {"all", "none", "some", "blocks",
                                             "torn"};

static struct replay {
    const uint8_t *log;
    size_t log_len;
    size_t *at; /* [record] where in the log */
    size_t count;
    size_t first;  /* record behind which the file system is to survive */
    uint8_t *disk; /* all that was flushed */
    uint64_t bytes;
    bool *used; /* [block] was written to */
    const char *type, *dir;
    struct power power;      /* what was written, without a database */
    uint64_t begun, durable; /* commits, at the record reached */
    uint64_t images[FATES], flushed, changed, unmounted;
    enum fate fate; /* of each image; FATES: as it comes */
    uint64_t seed;  /* likewise, of the one image */
} r;

__attribute__((noreturn)) static void trouble(const char *what)
{
    perror(what);
    exit(2);
}

static void *grow(void *memory, size_t bytes)
{
    memory = realloc(memory, bytes);
    if (!memory)
        trouble("memory");
    return memory;
}

/* --- the log -------------------------------------------------------------- */

static struct power_record record_at(size_t i)
{
    struct power_record record;
    memcpy(&record, r.log + r.at[i], sizeof(record));
    return record;
}

static const uint8_t *bytes_of(size_t i)
{
    return r.log + r.at[i] + sizeof(struct power_record);
}

static size_t body(const struct power_record *record)
{
    return record->type == POWER_WRITE || record->type == POWER_MARK
               ? (size_t)record->len
               : 0;
}

/* The letter of a mark, and its number; 0: it is none. */
static char mark_at(size_t i, uint64_t *number)
{
    struct power_record record = record_at(i);
    char text[POWER_MARK_MAX + 1] = "";

    if (record.type != POWER_MARK || record.len > POWER_MARK_MAX)
        return 0;
    memcpy(text, bytes_of(i), record.len);
    *number = strtoull(text + 1, NULL, 10);
    return text[0];
}

static void read_log(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t at = 0, cap = 0;
    uint64_t number;
    struct stat st;

    if (fd < 0 || fstat(fd, &st) != 0)
        trouble(path);
    r.log_len = (size_t)st.st_size;
    r.log = mmap(NULL, r.log_len, PROT_READ, MAP_PRIVATE, fd, 0);
    if (r.log == MAP_FAILED)
        trouble(path);
    (void)close(fd);
    while (r.log_len - at >= sizeof(struct power_record)) {
        struct power_record record;

        if (r.count == cap) {
            cap = 2 * cap + 1024;
            r.at = grow(r.at, cap * sizeof(*r.at));
        }
        r.at[r.count++] = at;
        record = record_at(r.count - 1);
        at += sizeof(record);
        if (record.type < POWER_WRITE || record.type > POWER_MARK ||
            body(&record) > r.log_len - at || record.offset > r.bytes ||
            record.len > r.bytes - record.offset) {
            fprintf(stderr, "record %zu makes no sense\n", r.count - 1);
            exit(2);
        }
        at += body(&record);
        if (!r.first && mark_at(r.count - 1, &number) == 'm')
            r.first = r.count - 1;
    }
    if (!r.first) {
        fprintf(stderr, "no mark says that the file system was mounted\n");
        exit(2);
    }
}

/* --- the disk ------------------------------------------------------------- */

/* LEN bytes of record I from byte FROM of it on, into DISK. */
static void apply(uint8_t *disk, size_t i, uint64_t from, uint64_t len)
{
    struct power_record record = record_at(i);
    uint64_t to = record.offset + from, end = to + len;

    /* Block by block: a mkfs zeroes all of a disk that is empty. */
    while (to < end) {
        uint64_t block = to / BLOCK, some = BLOCK - to % BLOCK;

        if (some > end - to)
            some = end - to;
        if (record.type == POWER_WRITE) {
            memcpy(disk + to, bytes_of(i) + (to - record.offset), some);
            r.used[block] = true;
        } else if (r.used[block]) {
            memset(disk + to, 0, some);
        }
        to += some;
    }
}

static bool changes(size_t i)
{
    struct power_record record = record_at(i);
    return record.type == POWER_WRITE || record.type == POWER_ZERO;
}

/* Where these file systems have superblocks, which they write in place and find
 * by a checksum over more than one sector: they ask for a disk on which such a
 * block is not torn, and so does everybody who uses them. */
static bool is_superblock(uint64_t offset)
{
    if (strcmp(r.type, "ext4") == 0)
        return offset < BLOCK;
    if (strcmp(r.type, "btrfs") == 0)
        return offset / BLOCK == (64u << 10) / BLOCK ||
               offset / BLOCK == (64u << 20) / BLOCK;
    return false;
}

/* Of record I, all before a sector of it. */
static void apply_torn(uint8_t *disk, size_t i, uint64_t *rng)
{
    struct power_record record = record_at(i);
    uint64_t sectors = record.len / SECTOR;
    uint64_t len = sectors ? random_of(rng) % sectors * SECTOR : 0;

    if (is_superblock(record.offset + len)) {
        uint64_t start = (record.offset + len) / BLOCK * BLOCK;
        len = start > record.offset ? start - record.offset : 0;
    }
    apply(disk, i, 0, len);
}

/* Of record I the blocks that chance keeps, KEEP of 256. */
static void apply_blocks(uint8_t *disk, size_t i, unsigned keep, uint64_t *rng)
{
    struct power_record record = record_at(i);
    uint64_t from = 0;

    while (from < record.len) {
        uint64_t len = BLOCK - (record.offset + from) % BLOCK;

        if (len > record.len - from)
            len = record.len - from;
        if (random_of(rng) % 256 < keep)
            apply(disk, i, from, len);
        from += len;
    }
}

/* DISK, which has what was flushed, gets of the COUNT records of PENDING what a
 * power cut with that fate leaves. */
static void cut_power(uint8_t *disk, const size_t *pending, size_t count,
                      enum fate fate, uint64_t *rng)
{
    static const unsigned keeps[] = {16, 128, 240};
    unsigned keep = keeps[random_of(rng) % 3];
    /* Of some one alone is kept, or lost. */
    size_t odd = random_of(rng) % 3 == 0 ? random_of(rng) % (count + 1) : count;
    bool odd_stays = random_of(rng) % 2;

    for (size_t i = 0; i < count; i++) {
        uint64_t len = record_at(pending[i]).len;

        switch (fate) {
        case FATE_ALL:
            break;
        case FATE_SOME:
            if (odd < count ? (i == odd) != odd_stays
                            : random_of(rng) % 256 >= keep)
                continue;
            break;
        case FATE_BLOCKS:
            apply_blocks(disk, pending[i], keep, rng);
            continue;
        case FATE_TORN:
            if (i + 1 < count)
                break;
            apply_torn(disk, pending[i], rng);
            continue;
        default:
            continue;
        }
        apply(disk, pending[i], 0, len);
    }
}

/* --- an image ------------------------------------------------------------- */

static void unmount(void)
{
    for (int i = 0; i < TRIES; i++) {
        if (umount2(r.dir, 0) == 0)
            return;
        if (errno != EBUSY)
            break;
        (void)usleep(20000);
    }
    trouble("umount");
}

/* In a process of its own: open the database that a cut left, and compare. */
static int check_db(uint64_t *rng)
{
    bft_options options = power_options(rng);
    char path[300], text[700] = "";
    bft_status status = BFT_OK;
    uint64_t cut = 0, must = r.durable;
    bft_db *db;

    (void)alarm(CHECK_SECONDS);
    (void)snprintf(path, sizeof(path), "%s/db", r.dir);
    /* Once after the cut, and once more after what that wrote. */
    for (int round = 0; round < 2; round++) {
        status = bft_open(path, &options, &db);
        if (status == BFT_OK)
            status = bft_verify(db);
        if (status != BFT_OK)
            break;
        if (!crash_check(r.power.oracle, db, must, round ? must : r.begun, &cut,
                         text, sizeof(text))) {
            printf("  opening %d: %s\n", round + 1, text);
            return 1;
        }
        must = cut;
        status = bft_close(db);
        if (status != BFT_OK)
            break;
    }
    if (status == BFT_OK)
        return 0;
    (void)bft_last_error(text, sizeof(text));
    printf("  %d (%s): %s\n", (int)status, bft_strerror(status), text);
    return 1;
}

/* Mount and open it.  False: something is lost. */
static bool survives(int file, uint64_t *rng)
{
    char device[POWER_LOOP_NAME];
    int loop = power_attach(file, device), status = 0;
    pid_t pid;

    if (loop < 0)
        trouble("a loop device");
    if (mount(device, r.dir, r.type, MS_NOATIME, NULL) != 0) {
        printf("  the file system cannot be mounted: %s\n", strerror(errno));
        r.unmounted++;
        (void)close(loop);
        return false;
    }
    (void)close(loop);
    (void)fflush(stdout);
    pid = fork();
    if (pid < 0)
        trouble("fork");
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        status = check_db(rng);
        (void)fflush(stdout);
        _exit(status);
    }
    if (waitpid(pid, &status, 0) != pid)
        trouble("waitpid");
    if (status != 0 && !(WIFEXITED(status) && WEXITSTATUS(status) == 1))
        printf("  the opening ended with status 0x%x\n", (unsigned)status);
    unmount();
    return status == 0;
}

/* Is there anything in a block? */
static bool empty(const uint8_t *block)
{
    return block[0] == 0 && memcmp(block, block + 1, BLOCK - 1) == 0;
}

/* Make the image that FATE leaves at record POINT, and look at it. */
static bool look(size_t point, const size_t *pending, size_t count,
                 enum fate fate, uint64_t seed)
{
    int file = memfd_create("power", MFD_CLOEXEC);
    uint64_t rng = seed;
    uint8_t *image;
    bool fine;

    if (file < 0 || ftruncate(file, (off_t)r.bytes) != 0)
        trouble("memfd_create");
    image = mmap(NULL, r.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (image == MAP_FAILED)
        trouble("mmap");
    for (uint64_t b = 0; b < r.bytes / BLOCK; b++)
        if (r.used[b] && !empty(r.disk + b * BLOCK))
            memcpy(image + b * BLOCK, r.disk + b * BLOCK, BLOCK);
    cut_power(image, pending, count, fate, &rng);
    (void)munmap(image, r.bytes);
    fine = survives(file, &rng);
    (void)close(file);
    r.images[fate]++;
    r.flushed += count == 0;
    r.changed += r.begun > r.durable;
    if (!fine)
        printf(
            "LOST: %s at record %zu of %zu, of %zu writes since the last flush "
            "%s, commits %" PRIu64 " of %" PRIu64
            " begun; it alone: ... 1 %zu %" PRIu64 " %s\n",
            r.type, point, r.count, count, fate_name[fate], r.durable, r.begun,
            point, seed, fate_name[fate]);
    return fine;
}

/* --- points --------------------------------------------------------------- */

/* Where the power goes: how many images are of the disk behind each record. */
static unsigned *choose(size_t wanted)
{
    unsigned *images = calloc(r.count, sizeof(*images));
    size_t chosen = 0;

    if (!images)
        trouble("memory");
    for (size_t tries = 0; chosen < wanted && tries < 1000 * wanted; tries++) {
        size_t i = r.first + random_below(r.count - r.first);
        uint32_t type = record_at(i).type;
        uint64_t number;
        /* Of each three one is anywhere, one before a flush, where most is
         * under way, and one where something was acknowledged. */
        bool fits = tries % 3 == 0   ? true
                    : tries % 3 == 1 ? type == POWER_FLUSH
                                     : mark_at(i, &number) == 's';

        if (fits && type == POWER_FLUSH)
            i--;
        if (!fits || i < r.first || images[i])
            continue;
        images[i] = 1;
        chosen++;
    }
    return images;
}

/* COUNT images of the record of ARGS, or the one that they say. */
static void choose_one(unsigned *images, int args, char **arg, unsigned count)
{
    size_t record = (size_t)strtoull(arg[0], NULL, 0);

    if (record >= r.count) {
        fprintf(stderr, "there is no record %zu\n", record);
        exit(2);
    }
    images[record] = count;
    if (args == 1)
        return;
    images[record] = 1;
    r.seed = strtoull(arg[1], NULL, 0);
    for (r.fate = FATE_ALL; r.fate < FATES; r.fate++)
        if (strcmp(fate_name[r.fate], arg[2]) == 0)
            return;
    fprintf(stderr, "there is no fate %s\n", arg[2]);
    exit(2);
}

static enum fate draw_fate(size_t pending)
{
    static const enum fate some[] = {FATE_ALL,  FATE_NONE,   FATE_NONE,
                                     FATE_SOME, FATE_SOME,   FATE_SOME,
                                     FATE_TORN, FATE_BLOCKS, FATE_BLOCKS};
    return pending ? some[random_below(sizeof(some) / sizeof(some[0]))]
                   : FATE_ALL;
}

/* True: nothing was lost.  It ends with the third loss: one says as much as
 * more do, two may differ.  With a planted fault one is enough. */
static bool replay(const unsigned *images)
{
    size_t *pending = NULL, count = 0, cap = 0;
    unsigned lost = 0, lost_max = getenv("BFT_FAULT") ? 1 : 3;

    for (size_t i = 0; i < r.count && lost < lost_max; i++) {
        uint64_t number;
        char mark = mark_at(i, &number);

        if (mark == 'b')
            r.begun = number;
        if (mark == 's')
            r.durable = number;
        if (changes(i)) {
            if (count == cap) {
                cap = 2 * cap + 1024;
                pending = grow(pending, cap * sizeof(*pending));
            }
            pending[count++] = i;
        } else if (record_at(i).type == POWER_FLUSH) {
            for (size_t k = 0; k < count; k++)
                apply(r.disk, pending[k], 0, record_at(pending[k]).len);
            count = 0;
        }
        for (unsigned n = 0; n < images[i] && lost < lost_max; n++)
            lost += !look(i, pending, count,
                          r.fate < FATES ? r.fate : draw_fate(count),
                          r.fate < FATES ? r.seed : random_next());
    }
    free(pending);
    return lost == 0;
}

/* --- the program ---------------------------------------------------------- */

/* What power_work did, lived again in the oracle. */
static void live_again(const char *seed, const char *lives, const char *steps)
{
    power_begin(&r.power, strtoull(seed, NULL, 0),
                (unsigned)strtoul(steps, NULL, 0));
    for (unsigned long n = strtoul(lives, NULL, 0); n > 0; n--)
        (void)power_live(&r.power);
}

int main(int argc, char **argv)
{
    unsigned *images;
    uint64_t all = 0;
    bool fine;

    if (argc != 9 && argc != 10 && argc != 12) {
        fprintf(stderr, "usage: power_replay LOG FILE-SYSTEM DIRECTORY SEED "
                        "LIVES STEPS BYTES IMAGES [RECORD]\n");
        return 2;
    }
    (void)random_start();
    r.type = argv[2];
    r.dir = argv[3];
    r.bytes = strtoull(argv[7], NULL, 0);
    r.fate = FATES;
    if (unshare(CLONE_NEWNS) != 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        trouble("a name space of mounts");
    live_again(argv[4], argv[5], argv[6]);
    read_log(argv[1]);
    r.used = calloc(r.bytes / BLOCK, sizeof(*r.used));
    r.disk = mmap(NULL, r.bytes, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!r.used || r.disk == MAP_FAILED)
        trouble("memory");
    images = choose(argc == 9 ? (size_t)strtoul(argv[8], NULL, 0) : 0);
    if (argc > 9)
        choose_one(images, argc - 9, argv + 9,
                   (unsigned)strtoul(argv[8], NULL, 0));
    fine = replay(images);
    printf("%s:", r.type);
    for (unsigned f = 0; f < FATES; f++) {
        printf(" %s %" PRIu64 ",", fate_name[f], r.images[f]);
        all += r.images[f];
    }
    printf(" of these %" PRIu64 " right after a flush, %" PRIu64
           " amid a commit or behind some not yet durable; %zu records\n",
           r.flushed, r.changed, r.count);
    tally(TALLY_POWER_CUTS, all);
    free(images);
    power_end(&r.power);
    return fine ? 0 : r.unmounted ? 2 : 1;
}
