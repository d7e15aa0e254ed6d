#include "fuzz.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "random.h"
#include "tally.h"

static uint64_t seed;
static unsigned now;
static char about[400];

void fuzz_start(void)
{
    seed = random_start();
}

static unsigned number_of(const char *name, unsigned otherwise)
{
    const char *text = getenv(name);

    return text ? (unsigned)strtoul(text, NULL, 0) : otherwise;
}

bool fuzz_counts(void)
{
    return !getenv("BFT_FUZZ_ONLY");
}

bool fuzz_next(unsigned *round, unsigned usual, uint64_t salt)
{
    unsigned next = *round + 1, last = usual;

    last *= number_of("BFT_FUZZ_ROUNDS", 1);
    if (!fuzz_counts()) {
        unsigned only = number_of("BFT_FUZZ_ONLY", 1);
        if (*round >= only)
            return false;
        next = last = only;
    }
    if (next > last) {
        tally(TALLY_EXECUTIONS, *round);
        return false;
    }
    *round = now = next;
    about[0] = 0;
    random_seed(seed + salt * 0x9e3779b97f4a7c15u + next * 0xd1342543de82ef95u);
    return true;
}

void fuzz_say(const char *format, ...)
{
    size_t len = strlen(about);
    va_list args;

    if (!now)
        return;
    va_start(args, format);
    vsnprintf(about + len, sizeof(about) - len, format, args);
    va_end(args);
    if (getenv("BFT_FUZZ_SAY")) {
        printf("round %u:%s\n", now, about + len);
        fflush(stdout);
    }
}

void fuzz_fail_at(const char *file, int line, const char *format, ...)
{
    char text[600];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (now) /* a round, not another's input */
        print_error("BFT_SEED=%llu BFT_FUZZ_ONLY=%u:", (unsigned long long)seed,
                    now);
    print_error("%s: %s\n", about, text);
    _fail(file, line);
}

/* --- damage --------------------------------------------------------------- */

/* Where a piece of LEN bytes may start, a multiple of GRAIN from FROM. */
static size_t piece_at(const struct fuzz_bytes *b, size_t from, size_t grain,
                       size_t len)
{
    return from + random_below((b->len - from - len) / grain + 1) * grain;
}

static void pieces_meet(struct fuzz_bytes *b, size_t from, size_t grain,
                        size_t len, bool swap)
{
    size_t x = piece_at(b, from, grain, len), y = piece_at(b, from, grain, len);

    fuzz_say(" %zu bytes at %zu and %zu %s", len, x, y,
             swap ? "swapped" : "made the same");
    for (size_t i = 0; i < len; i++) {
        uint8_t had = b->byte[x + i];
        b->byte[x + i] = b->byte[y + i];
        if (swap)
            b->byte[y + i] = had;
    }
}

static void end_moves(struct fuzz_bytes *b, size_t from, size_t grain)
{
    size_t more = grain * (1 + random_below(8));

    if (random_below(4) == 0 && b->cap - b->len >= more) {
        memset(b->byte + b->len, random_below(2) ? 0 : 0xa5, more);
        b->len += more;
        fuzz_say(" grown to %zu", b->len);
        return;
    }
    b->len = random_below(2) ? from + random_below(b->len - from)
                             : piece_at(b, from, grain, 0);
    fuzz_say(" cut to %zu", b->len);
}

void fuzz_harm(struct fuzz_bytes *b, size_t from, size_t grain)
{
    size_t room, piece, at;

    if (b->len <= from)
        return;
    room = b->len - from;
    piece = grain << random_below(4);
    while (piece > grain && piece > room)
        piece /= 2;
    at = from + random_below(room);
    switch (random_below(room < piece ? 2 : 8)) {
    case 0:
    case 1:
        b->byte[at] ^= (uint8_t)(1u << random_below(8));
        fuzz_say(" a bit of %zu flipped", at);
        break;
    case 2: {
        size_t len = 1 + random_below(64);
        if (len > b->len - at)
            len = b->len - at;
        random_bytes(b->byte + at, len);
        fuzz_say(" %zu bytes at %zu written over", len, at);
        break;
    }
    case 3:
    case 4:
        at = piece_at(b, from, grain, piece);
        memset(b->byte + at, 0, piece);
        fuzz_say(" %zu bytes at %zu zeroed", piece, at);
        break;
    case 5:
        pieces_meet(b, from, grain, piece, true);
        break;
    case 6:
        pieces_meet(b, from, grain, piece, false);
        break;
    default:
        end_moves(b, from, grain);
    }
}

uint8_t *fuzz_damaged_copy(const void *byte, size_t *len)
{
    struct fuzz_bytes b = {malloc(*len + 600), *len, *len + 600};
    uint8_t *exact;

    assert_non_null(b.byte);
    memcpy(b.byte, byte, *len);
    for (size_t n = 1 + random_below(4); n > 0; n--)
        fuzz_harm(&b, random_below(2) ? 0 : random_below(b.len + 1),
                  (size_t)1 << random_below(5));
    exact = malloc(b.len ? b.len : 1);
    assert_non_null(exact);
    memcpy(exact, b.byte, b.len);
    free(b.byte);
    *len = b.len;
    return exact;
}
