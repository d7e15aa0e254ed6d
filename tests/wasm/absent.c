/*
 * What absent.h declares, and headers of absent/.
 */
#include "absent.h"

#include <pthread.h>
#include <sys/wait.h>

#include "cmocka.h"

static void absent(const char *what)
{
    print_error("this build has no %s: name the test in left_out.txt\n", what);
    fail();
}

int pthread_create(pthread_t *thread, const void *how, void *(*run)(void *arg),
                   void *arg)
{
    (void)thread, (void)how, (void)run, (void)arg;
    absent("threads");
    return -1;
}

char *mkdtemp(char *template)
{
    (void)template;
    absent("mkdtemp()");
    return NULL;
}

int system(const char *command)
{
    (void)command;
    absent("system()");
    return -1;
}

pid_t fork(void)
{
    absent("fork()");
    return -1;
}

pid_t waitpid(pid_t pid, int *status, int options)
{
    (void)pid, (void)status, (void)options;
    absent("waitpid()");
    return -1;
}

int mkfifo(const char *path, mode_t mode)
{
    (void)path, (void)mode;
    absent("mkfifo()");
    return -1;
}

unsigned alarm(unsigned seconds)
{
    (void)seconds;
    absent("alarm()");
    return 0;
}

int chmod(const char *path, mode_t mode)
{
    (void)path, (void)mode;
    absent("chmod()");
    return -1;
}

uid_t geteuid(void)
{
    return 1;
}

int setuid(uid_t user)
{
    (void)user;
    absent("setuid()");
    return -1;
}
