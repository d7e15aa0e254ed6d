/*
 * The command line of a benchmark program: a table of its options, of which its
 * usage text is made too.
 */
#ifndef COMMAND_H
#define COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { COMMAND_LIST_MAX = 16 };

/* What an option's value is, and what TO points to. */
enum command_kind {
    COMMAND_FLAG,  /* none; bool */
    COMMAND_COUNT, /* unsigned */
    COMMAND_BIG,   /* uint64_t */
    COMMAND_MIB,   /* uint64_t, of bytes */
    COMMAND_TEXT,  /* const char *, of the command line itself */
    COMMAND_LIST,  /* struct command_list; the option may be given again */
};

struct command_list {
    double values[COMMAND_LIST_MAX];
    unsigned n;
    bool given; /* the first one given takes the place of the usual ones */
};

struct command_option {
    const char *name; /* without the dashes */
    enum command_kind kind;
    void *to;             /* holds the usual value before */
    uint64_t least, most; /* of a number; MOST 0: no bound */
    const char *says;
};

/* Sets what the command line says.  One that is not understood ends the program
 * with what is wrong and the usage text on stderr, and exit status 2. */
void command_parse(int argc, char **argv, const struct command_option *options,
                   size_t n);

#endif
