/*
 * Runs a command with a loop device on FILE, whose name is $LOOP:
 *
 *   on_loop FILE COMMAND [ARGUMENT...]
 *
 * The device is there until the command has ended and what it mounted is
 * unmounted.  losetup(8) cannot say so before somebody has the device open.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "power_loop.h"

int main(int argc, char **argv)
{
    char name[POWER_LOOP_NAME];
    int file, loop;

    if (argc < 3) {
        fprintf(stderr, "usage: on_loop FILE COMMAND [ARGUMENT...]\n");
        return 2;
    }
    file = open(argv[1], O_RDWR | O_CLOEXEC);
    loop = file < 0 ? -1 : power_attach(file, name);
    /* The command keeps it open. */
    if (loop < 0 || fcntl(loop, F_SETFD, 0) != 0 ||
        setenv("LOOP", name, 1) != 0) {
        perror(argv[1]);
        return 2;
    }
    execvp(argv[2], argv + 2);
    perror(argv[2]);
    return 2;
}
