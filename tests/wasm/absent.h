/*
 * What our tests use of POSIX, and WebAssembly's C library has not in headers
 * that it does have; absent/ has those that it has not.  Called, a function ends
 * the test as failed: tests that need one are named in left_out.txt, and the
 * other tests of their files run.
 */
#ifndef WASM_ABSENT_H
#define WASM_ABSENT_H

#include <sys/types.h>

char *mkdtemp(char *template);
int system(const char *command);
pid_t fork(void);
int mkfifo(const char *path, mode_t mode);
int chmod(const char *path, mode_t mode);
uid_t geteuid(void);
int setuid(uid_t user);
unsigned alarm(unsigned seconds);
#endif
