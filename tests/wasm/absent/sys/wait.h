/* In place of the system's, which WebAssembly has not; see absent.h. */
#include <sys/types.h>

pid_t waitpid(pid_t pid, int *status, int options);
#define WIFEXITED(status)   ((status) >= 0)
#define WIFSIGNALED(status) (!WIFEXITED(status))
#define WEXITSTATUS(status) (status)
#define WTERMSIG(status)    (status)
