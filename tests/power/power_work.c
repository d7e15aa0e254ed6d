/*
 * Lives of a database, with marks of what was acknowledged:
 *
 *   power_work DATABASE MARKS SEED LIVES STEPS
 *
 * Each life is a process of its own; those that are to be killed kill
 * themselves.  Exit status 3: a call of the engine failed.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "power_life.h"

static void live(struct power *p)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (power_live(p))
        (void)raise(SIGKILL);
    _exit(0);
}

int main(int argc, char **argv)
{
    struct power power;
    unsigned lives;

    if (argc != 6) {
        fprintf(stderr, "usage: power_work DATABASE MARKS SEED LIVES STEPS\n");
        return 2;
    }
    power_begin(&power, strtoull(argv[3], NULL, 0),
                (unsigned)strtoul(argv[5], NULL, 0));
    power.marks = open(argv[2], O_WRONLY | O_CLOEXEC);
    if (power.marks < 0) {
        perror(argv[2]);
        return 2;
    }
    power.dir = argv[1];
    power_mark(&power, 'm', 0);
    lives = (unsigned)strtoul(argv[4], NULL, 0);
    for (unsigned i = 0; i < lives; i++) {
        int status;
        bool killed;
        pid_t pid = fork();

        if (pid < 0) {
            perror("fork");
            return 2;
        }
        power.dir = argv[1];
        if (pid == 0)
            live(&power);
        if (waitpid(pid, &status, 0) != pid)
            return 2;
        /* What it did, so that the next one goes on from there. */
        power.dir = NULL;
        killed = power_live(&power);
        if (killed ? !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL
                   : status != 0) {
            fprintf(stderr, "life %u ended with status 0x%x\n", i,
                    (unsigned)status);
            return WIFEXITED(status) ? WEXITSTATUS(status) : 3;
        }
    }
    printf("%u lives, %llu commits\n", lives,
           (unsigned long long)power.oracle->issued);
    power_end(&power);
    return 0;
}
