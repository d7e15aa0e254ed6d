#!/usr/bin/env bash
# check_interface.sh lets a complete tree pass and fails for each planted gap.
set -u
check="$(cd "$(dirname "$0")" && pwd)/check_interface.sh"
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
failed=0

complete_tree() {
    rm -rf "${root:?}"/*
    mkdir -p "$root"/{fileio,index,storage,tests/unit}
    cat >"$root/fileio/bft_status.h" <<'END'
/* Outcomes. */
#define BFT_STATUS_MAP(X)                 \
    X(OK, 0, "success")                   \
    X(NOT_FOUND, -1, "no such thing")     \
    X(IO, -5, "the disk")                 \
    X(INVALID, -10, "an argument")        \
    X(GONE, -16, "dropped")
#define BFT_API
BFT_API const char *bft_strerror(bft_status status);
END
    cat >"$root/index/bftree.h" <<'END'
/* Trees.  A closed handle answers BFT_INVALID.  A bft_tree that was
 * dropped answers BFT_GONE. */
typedef struct bft_db bft_db;
typedef struct bft_tree bft_tree;
enum bft_durability {
    BFT_NONE = 1, /* never BFT_GONE */
    BFT_SYNC,
};
/* Open; needs BFT_SYNC. */
BFT_API BFT_MUST_CHECK bft_status bft_open(const char *path,
                                           bft_db **db);
/* Close. */
BFT_API bft_status bft_close(bft_db *db);
/* Look.  Errors: BFT_NOT_FOUND,
 * BFT_IO. */
BFT_API BFT_MUST_CHECK bft_status bft_get(bft_tree *tree /* of now */);
BFT_API BFT_MUST_CHECK bft_status bft_peek(bft_tree *tree);
/* Count.  A bft_close() under way answers BFT_IO.
 * Errors: as bft_get(). */
BFT_API BFT_MUST_CHECK bft_status bft_count(bft_tree *tree);
END
    echo '/* Salvage. */' >"$root/index/bftree_backup.h"
    echo '/* Loads. */' >"$root/index/bftree_bulk.h"
    echo '/* Feeds. */' >"$root/index/bftree_feed.h"
    echo '/* Stores. */' >"$root/storage/bftree_stores.h"
    cat >"$root/tests/unit/all_test.c" <<'END'
#define FAILS(status, call) assert_int_equal(status, call)
/* every call below provokes: BFT_INVALID BFT_GONE BFT_NOT_FOUND */
static void trees(bft_tree *tree)
{
    note("/* ", bft_get(tree));
    note(" */", bft_peek(tree));
    note('"', bft_count(tree));
}
static void others(void)
{
    FAILS(BFT_OK, bft_open(bft_strerror(BFT_IO), &db));
    FAILS(BFT_INVALID,
          bft_close(db));
    FAILS(BFT_IO, bft_get(tree)); /* provokes: bft_peek BFT_IO */
    /* provokes: bft_close BFT_IO,
     *           bft_count BFT_IO */
    again(db);
}
END
    cat >"$root/nm" <<'END'
#!/bin/sh
echo 'bft_strerror T 1000 10'
for name in open close get peek count; do echo "bft_$name T 2000 20"; done
END
    chmod +x "$root/nm"
}

run_check() {
    NM="$root/nm" bash "$check" "$root" libbftree.so 2>&1
}

# gap NAME WORDS FILE SED: FILE edited by SED must be reported with WORDS.
gap() {
    complete_tree
    sed -i "$4" "$root/$3"
    if output=$(run_check); then
        echo "FAILED: not noticed: $1"
        failed=1
    elif ! grep -qF "$2" <<<"$output"; then
        echo "FAILED: noticed, but not named: $1: $output"
        failed=1
    elif grep -qvF "$2" <<<"$output"; then
        echo "FAILED: noticed, and more than that: $1: $output"
        failed=1
    else
        echo "noticed: $1"
    fi
}

complete_tree
if output=$(run_check); then
    echo "a complete tree passes"
else
    echo "FAILED: a complete tree is refused: $output"
    failed=1
fi
complete_tree
sed -i '/^typedef struct bft_tree/a\
static inline int bft_twice(int n)\
{\
    if (n) { return 2 * n; }\
    return 0;\
}\
typedef struct bft_slice {\
    int len; /* typedef struct bft_none bft_none; */\
} bft_slice;' "$root/index/bftree.h"
output=$(bash "$check" "$root" --list)
wanted="function bft_close index/bftree.h
function bft_count index/bftree.h
function bft_get index/bftree.h
function bft_open index/bftree.h
function bft_peek index/bftree.h
function bft_strerror fileio/bft_status.h
type bft_db index/bftree.h
type bft_tree index/bftree.h
type bft_slice index/bftree.h
inline bft_twice index/bftree.h"
if [ "$output" = "$wanted" ]; then
    echo "what the headers declare is listed"
else
    echo "FAILED: the list is: $output"
    failed=1
fi
door=index/bftree.h
test=tests/unit/all_test.c
gap "a function that no test calls" "no test calls bft_strerror" \
    $test 's/bft_strerror(BFT_IO)/path/'
gap "a call in a comment only" "no test calls bft_strerror" \
    $test 's/bft_strerror(BFT_IO)/path \/* bft_strerror(1) *\//'
gap "a status that no test provokes" "no test provokes bft_open BFT_GONE" \
    $door 's/needs BFT_SYNC/else BFT_GONE/'
gap "of the second function after a comment" "no test provokes bft_peek BFT_IO" \
    $test 's/provokes: bft_peek BFT_IO//'
gap "of a function that a sentence begins with" "no test provokes bft_close BFT_IO" \
    $test 's/bft_close BFT_IO,//;s/^     \*  *bft_count/     * bft_count/'
gap "of errors like another's" "no test provokes bft_count BFT_IO" \
    $test 's/BFT_IO,$/BFT_IO *\//;s/^     \* .*//'
gap "what the head of the file says of handles" "no test provokes bft_close BFT_INVALID" \
    $test 's/FAILS(BFT_INVALID,/FAILS(BFT_OK,/'
gap "a status in another statement" "no test provokes bft_close BFT_INVALID" \
    $test 's/FAILS(BFT_INVALID,/FAILS(BFT_INVALID, 1); FAILS(BFT_OK,/'
gap "a status in a comment only" "no test provokes bft_get BFT_IO" \
    $test 's/FAILS(BFT_IO,/FAILS(BFT_OK, \/* BFT_IO *\//'
gap "a status in a text only" "no test provokes bft_get BFT_IO" \
    $test 's/FAILS(BFT_IO,/FAILS("BFT_IO",/'
gap "a claim for what is not documented" "bft_close BFT_GONE: no header documents it" \
    $test 's/provokes: bft_close BFT_IO/provokes: bft_close BFT_GONE, bft_close BFT_IO/'
gap "a claim for what is no function" "bft_shut BFT_IO: no header documents it" \
    $test 's/provokes: bft_close BFT_IO/provokes: bft_shut BFT_IO, bft_close BFT_IO/'
gap "a claim that is none" "no function and a status" \
    $test 's/provokes: bft_close BFT_IO/provokes: always, bft_close BFT_IO/'
gap "a claim for all calls, of which one cannot" "provokes: bft_close BFT_" \
    $test '/^    note("\/\*/i\    bft_close(db);'
gap "a claim for all of no calls" "there is none" \
    $test '$a/* every call below provokes: BFT_IO */\nint x(void)\n{\n}'
gap "a name that is not defined" "names BFT_SNYC" \
    $door 's/needs BFT_SYNC/needs BFT_SNYC/'
gap "a sentence of no function" "bft_shut(), which none declares" \
    $door 's/^\/\* Close\. \*\//\/* Close.  A bft_shut() answers BFT_IO. *\//'
gap "what a test expects" "bft_close BFT_NOT_FOUND: no header documents it" \
    $test '/^    again(db);/a\    expect_status(BFT_NOT_FOUND, bft_close(db));'
gap "a function that the library lacks" "lacks bft_peek" \
    nm 's/ peek / /'
gap "a name that the library should not export" "exports bft_secret" \
    nm 's/ peek / peek secret /'
exit $failed
