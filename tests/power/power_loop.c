#include "power_loop.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Others may take what is free, and a new device's name may come late: so many
 * tries, 20 ms apart. */
enum { TRIES = 100, WAIT_US = 20000 };

int power_attach(int file, char name[POWER_LOOP_NAME])
{
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), fd = -1;
    struct loop_config config = {.fd = (__u32)file,
                                 .info = {.lo_flags = LO_FLAGS_AUTOCLEAR}};
    int failed = errno;

    if (control < 0)
        return -1;
    for (int i = 0; fd < 0 && i < TRIES; i++) {
        int number = ioctl(control, LOOP_CTL_GET_FREE);

        if (number >= 0) {
            (void)snprintf(name, POWER_LOOP_NAME, "/dev/loop%d", number);
            fd = open(name, O_RDWR | O_CLOEXEC);
        }
        failed = errno;
        if (fd >= 0 && ioctl(fd, LOOP_CONFIGURE, &config) != 0) {
            failed = errno;
            (void)close(fd);
            fd = -1;
        }
        if (fd < 0)
            (void)usleep(WAIT_US);
    }
    (void)close(control);
    errno = failed;
    return fd;
}
