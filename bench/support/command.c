/*
 * Options by getopt_long(), which prints what is wrong with a name itself.
 */
#include "command.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rig.h"

enum { OPTIONS_MAX = 32 };

static const char *const value_name[] = {
    [COMMAND_FLAG] = "",    [COMMAND_COUNT] = " N",   [COMMAND_BIG] = " N",
    [COMMAND_MIB] = " MIB", [COMMAND_TEXT] = " TEXT", [COMMAND_LIST] = " N",
};

/* The usual value of OPTION, before the command line was read. */
static void say_usual(FILE *to, const struct command_option *option)
{
    if (option->kind == COMMAND_COUNT)
        fprintf(to, ": %u", *(unsigned *)option->to);
    else if (option->kind == COMMAND_BIG)
        fprintf(to, ": %" PRIu64, *(uint64_t *)option->to);
    else if (option->kind == COMMAND_MIB && *(uint64_t *)option->to)
        fprintf(to, ": %" PRIu64, *(uint64_t *)option->to >> 20);
    else if (option->kind == COMMAND_TEXT && *(const char **)option->to)
        fprintf(to, ": %s", *(const char **)option->to);
    else if (option->kind == COMMAND_LIST) {
        const struct command_list *list = option->to;

        fputs("; may be given again:", to);
        for (unsigned i = 0; i < list->n; i++)
            fprintf(to, " %g", list->values[i]);
    }
}

/* The text is made before the first value is set: it has the usual ones. */
static char *usage_text(const char *program,
                        const struct command_option *options, size_t n)
{
    char *text = NULL;
    size_t len = 0;
    FILE *to = open_memstream(&text, &len);
    const char *slash = strrchr(program, '/');

    if (!to)
        rig_die("out of memory");
    fprintf(to, "%s [OPTION]...\n", slash ? slash + 1 : program);
    for (size_t i = 0; i < n; i++) {
        int wide = fprintf(to, "  --%s%s", options[i].name,
                           value_name[options[i].kind]);

        fprintf(to, "%*s%s", wide < 20 ? 20 - wide : 1, "", options[i].says);
        say_usual(to, &options[i]);
        fputc('\n', to);
    }
    if (fclose(to))
        rig_die("out of memory");
    return text;
}

static bool number_of(const struct command_option *option, const char *text,
                      uint64_t *value)
{
    uint64_t most = option->most ? option->most : UINT64_MAX >> 20;
    char *end;

    errno = 0;
    *value = strtoull(text, &end, 10);
    if (!errno && *text >= '0' && *text <= '9' && !*end &&
        *value >= option->least && *value <= most)
        return true;
    fprintf(stderr, "--%s %s: not a number from %" PRIu64 " to %" PRIu64 "\n",
            option->name, text, option->least, most);
    return false;
}

static bool add_to_list(const struct command_option *option, const char *text)
{
    struct command_list *list = option->to;
    char *end;
    double value = strtod(text, &end);

    if (!list->given)
        list->n = 0;
    list->given = true;
    if (end != text && !*end && value > 0 && list->n < COMMAND_LIST_MAX) {
        list->values[list->n++] = value;
        return true;
    }
    fprintf(stderr, "--%s %s: not a positive number, or one of more than %d\n",
            option->name, text, COMMAND_LIST_MAX);
    return false;
}

static bool set(const struct command_option *option, const char *text)
{
    uint64_t value;

    switch (option->kind) {
    case COMMAND_FLAG:
        *(bool *)option->to = true;
        return true;
    case COMMAND_TEXT:
        *(const char **)option->to = text;
        return true;
    case COMMAND_LIST:
        return add_to_list(option, text);
    default:
        break;
    }
    if (!number_of(option, text, &value))
        return false;
    if (option->kind == COMMAND_COUNT)
        *(unsigned *)option->to = (unsigned)value;
    else
        *(uint64_t *)option->to =
            option->kind == COMMAND_MIB ? value << 20 : value;
    return true;
}

void command_parse(int argc, char **argv, const struct command_option *options,
                   size_t n)
{
    struct option known[OPTIONS_MAX + 1] = {0};
    char *usage = usage_text(argv[0], options, n);
    bool understood = true;
    int at = 0;

    if (n > OPTIONS_MAX)
        rig_die("too many options");
    for (size_t i = 0; i < n; i++) {
        known[i].name = options[i].name;
        known[i].has_arg =
            options[i].kind == COMMAND_FLAG ? no_argument : required_argument;
    }
    for (;;) {
        int code = getopt_long(argc, argv, "", known, &at);

        if (code == -1)
            break;
        understood = code == 0 && set(&options[at], optarg);
        if (!understood)
            break;
    }
    if (understood && optind < argc) {
        fprintf(stderr, "'%s' is no option\n", argv[optind]);
        understood = false;
    }
    if (!understood) {
        fputs(usage, stderr);
        exit(2);
    }
    free(usage);
}
