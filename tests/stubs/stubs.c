/*
 * With -DBFT_STUBS=ON the tests call each function F of the installed headers
 * through via_F, below, which goes on to F; but with BFT_STUB=F in the environment
 * it returns zero at once, which claims success (BFT_OK, NULL, 0) and has done
 * nothing.  What the library calls itself is as ever.
 *
 * via_F touches no argument, so that it needs no prototype; hence the assembly.
 * CMakeLists.txt refuses processors for which there is none.
 *
 * In the file BFT_STUB_MARKS, a character for each function in the order of
 * functions.txt, '.' becomes '#' with the first call of it, in whichever process.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const names[] = {
#define STUB(index, name) #name,
#include "stub_list.h"
#undef STUB
};
enum { COUNT = sizeof(names) / sizeof(names[0]) };

/* Read by the assembly; written before main only. */
extern char *stub_marks;
extern int stub_chosen;
static char unread[COUNT];
char *stub_marks = unread;
int stub_chosen = -1;

#if defined(__x86_64__)
/* r11 belongs to nobody at a call; rax counts the vectors of a variadic one. */
#define STUB(index, name)                               \
    __asm__(".text\n"                                   \
            ".globl via_" #name "\n"                    \
            ".type via_" #name ", @function\n"          \
            "via_" #name ":\n"                          \
            "    endbr64\n"                             \
            "    movq stub_marks(%rip), %r11\n"         \
            "    movb $'#', " #index "(%r11)\n"         \
            "    cmpl $" #index ", stub_chosen(%rip)\n" \
            "    je 1f\n"                               \
            "    jmp " #name "\n"                       \
            "1:  xorl %eax, %eax\n"                     \
            "    xorl %edx, %edx\n"                     \
            "    pxor %xmm0, %xmm0\n"                   \
            "    ret\n"                                 \
            ".size via_" #name ", . - via_" #name "\n");
#elif defined(__aarch64__)
/* x16 and x17 belong to nobody at a call. */
#define STUB(index, name)                             \
    __asm__(".text\n"                                 \
            ".balign 4\n"                             \
            ".globl via_" #name "\n"                  \
            ".type via_" #name ", %function\n"        \
            "via_" #name ":\n"                        \
            "    hint #34\n"                          \
            "    adrp x16, stub_marks\n"              \
            "    ldr x16, [x16, :lo12:stub_marks]\n"  \
            "    mov w17, #'#'\n"                     \
            "    strb w17, [x16, #" #index "]\n"      \
            "    adrp x16, stub_chosen\n"             \
            "    ldr w16, [x16, :lo12:stub_chosen]\n" \
            "    cmp w16, #" #index "\n"              \
            "    b.eq 1f\n"                           \
            "    b " #name "\n"                       \
            "1:  mov x0, #0\n"                        \
            "    mov x1, #0\n"                        \
            "    fmov d0, xzr\n"                      \
            "    ret\n"                               \
            ".size via_" #name ", . - via_" #name "\n");
#else
#error "no via_F for this processor"
#endif
#include "stub_list.h"
#undef STUB

static void give_up(const char *name, const char *why)
{
    (void)fprintf(stderr, "BFT_STUB: %s: %s\n", name, why);
    _exit(2);
}

/* The marks go to PATH, which a parent may have begun. */
static void share_marks(const char *path)
{
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    struct stat stat;
    void *marks;

    if (file < 0 || fstat(file, &stat) != 0)
        give_up(path, "cannot be opened");
    if (stat.st_size == 0) {
        memset(unread, '.', COUNT);
        if (write(file, unread, COUNT) != COUNT)
            give_up(path, "cannot be written");
    } else if (stat.st_size != COUNT) {
        give_up(path, "has the marks of another build");
    }
    marks = mmap(NULL, COUNT, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (marks == MAP_FAILED)
        give_up(path, "cannot be mapped");
    stub_marks = marks;
    close(file);
}

/* Before main: no test need know of it. */
__attribute__((constructor)) static void choose(void)
{
    const char *name = getenv("BFT_STUB");       /* NOLINT(concurrency-*) */
    const char *path = getenv("BFT_STUB_MARKS"); /* NOLINT(concurrency-*) */
    int i = 0;

    if (path != NULL)
        share_marks(path);
    if (name == NULL)
        return;
    while (i < COUNT && strcmp(names[i], name) != 0)
        i++;
    if (i == COUNT)
        give_up(name, "the installed headers declare no such function");
    stub_chosen = i;
}
