#!/usr/bin/env bash
# Installs what the tests need, builds, and runs every suite.
#
#   bash tests/run.sh              all suites but those of the long levels alone
#   bash tests/run.sh SUITE...     these suites, in this order
#   bash tests/run.sh --list       what there is
#   bash tests/run.sh nightly      far more of it, in slices: tests/long_run.sh
#   bash tests/run.sh release
#
# Each suite prints its result and its minutes; a table closes the run; the exit
# status is non-zero when a suite failed.  All output goes below build/, each
# suite's log to build/logs/SUITE.log.
set -u
cd "$(dirname "$0")/.." || exit 2
. tests/setup.sh
. tests/tally.sh

jobs=2

# --- What suites are made of ---------------------------------------------------

# Exit status of a suite whose folder holds no test.
no_tests=77

build_preset() {
    cmake --preset "$1"
    cmake --build "build/$1" -j "$jobs"
}

# ctest_labels PRESET LABEL...: build PRESET, or of it what tests with these labels
# need, and run those.  Label unit has some that need all.
ctest_labels() {
    local preset="$1" label have="" targets=()
    shift
    for label in "$@"; do
        # include_direction_test is there before any C test is.
        if [ "$label" = unit ] || compgen -G "tests/$label/*_test.c" >/dev/null; then
            have="$have${have:+|}$label"
            targets+=("${label}_tests")
        fi
    done
    if [ -z "$have" ]; then
        echo "no tests with label $*"
        return $no_tests
    fi
    case "|$have|" in *'|unit|'*) targets=(all) ;; esac
    cmake --preset "$preset"
    cmake --build "build/$preset" -j "$jobs" --target "${targets[@]}"
    run_ctest "$preset" -L "^($have)\$"
}

# run_ctest PRESET WHICH...: run these tests and collect what they count.
run_ctest() {
    local preset="$1" status=0 before=()
    shift
    # The thread sanitizer of clang 14 gives up where the kernel randomises
    # addresses more widely than it knows.
    if [ "$preset" = tsan ] && setarch "$(uname -m)" -R true 2>/dev/null; then
        before=(setarch "$(uname -m)" -R)
    fi
    ${before[@]+"${before[@]}"} ctest --test-dir "build/$preset" "$@" \
        -j "$jobs" --output-on-failure --no-tests=error || status=$?
    tally_collect "$preset" build/logs/tally.txt
    return $status
}

# Tests with a fault planted in the library, which they are to notice.
planted_faults() {
    local tests
    tests=$(awk '!/^#/ && NF { print $2 }' tests/planted_faults.txt | sort -u)
    cmake --preset faults
    # shellcheck disable=SC2086 # a list of words
    cmake --build build/faults -j "$jobs" --target $tests
    bash tests/planted_faults.sh "$PWD/build/faults" "$jobs" "$PWD/build/logs/tally.txt"
}

# On a library of its own, with its other tests left out.
interleave_suite() {
    cmake --preset interleave
    cmake --build build/interleave -j "$jobs" --target interleave_test
    run_ctest interleave -L '^interleave$'
}

# What a build for WebAssembly has of unit, model and golden.  The model test
# takes fewer operations than where it is at home.
wasm_suite() {
    local log=build/wasm/Testing/Temporary/LastTest.log
    bft_setup_wasm
    bft_setup_node
    build_preset wasm
    BFT_MODEL_OPS=100000 ctest --test-dir build/wasm -j "$jobs" \
        --output-on-failure --no-tests=error
    grep -o '^.* operations' "$log"
    awk '/^[a-z0-9_]+_test: [0-9]+ ran, / { programs++; ran += $2; skipped += $6; out += $8 }
        END { printf "%d tests of %d programs ran, %d skipped, %d left out: see tests/wasm/left_out.txt\n",
            ran, programs, skipped, out }' "$log"
}

# At least so many of a hundred lines of the library are reached by these tests
# alone; those about crashes and threads come on top.
coverage_least=96
# And of the branches of log, recovery, superblock, extents and space no more than so
# many are neither taken nor explained in tests/branches.txt.
branches_most=0
coverage() {
    build_preset coverage
    find build/coverage -name '*.gcda' -delete
    BFT_MODEL_OPS=200000 ctest --test-dir build/coverage -L '^(unit|model|golden|fault)$' \
        -j "$jobs" --output-on-failure --no-tests=error
    python3 tests/coverage.py build/coverage $coverage_least $branches_most --branches
}

# .clang-tidy has the checks, and what NOLINT stands for says why.
tidy() {
    cmake --preset dev
    run-clang-tidy-14 -p build/dev -j "$jobs" -quiet \
        '/(fileio|buffer|index|storage)/[^/]*\.c$'
}

# cojson_suite BACKEND [SUITE...]: cojson's own tests on backend.BACKEND.ts.
cojson_suite() {
    local dir=bindings/node/cojson-suite backend="backend.$1.ts"
    shift
    bft_setup_node
    bft_npm_ci "$dir"
    STORAGE_BACKEND="$backend" node "$dir/run.mjs" "$@"
}

# Build the addon and the package of bindings/node.
node_build() {
    bft_setup_node
    bft_npm_ci bindings/node
    node bindings/node/build.mjs
}

node_suite() {
    node_build
    # What the tests write is below the build folder.
    mkdir -p build/node/tmp
    (cd bindings/node && TMPDIR="$bft_root/build/node/tmp" npm test)
}

cojson_native() {
    node_build
    cojson_suite bftree "$@"
}

# --- The suites ------------------------------------------------------------------

suites=()
declare -A suite_command suite_says
# suite NAME "what it shows" COMMAND...
suite() {
    suites+=("$1")
    suite_says[$1]="$2"
    suite_command[$1]="${*:3}"
}

suite unit    "each file does what its header says"          ctest_labels dev unit
suite model   "the engine against a plain ordered map"       ctest_labels dev model
suite differential "the engine, LMDB and SQLite say the same" ctest_labels dev differential
suite crash   "every prefix of the writes recovers"          ctest_labels dev crash
suite fault   "every I/O call fails once"                    ctest_labels dev fault
suite dst     "the whole engine, simulated from seeds"       ctest_labels dev dst
suite faults  "what is planted in the library is noticed"    planted_faults
suite models  "the protocols, each order of their steps"     bash tests/models/run.sh build/models build/logs/tally.txt
suite interleave "short plays of each protocol, every order of turns" interleave_suite
suite coverage "tests reach nearly all lines"                coverage
suite golden  "stored images of each format still open"      ctest_labels dev golden
suite fuzz    "damaged bytes and odd arguments, for a while" ctest_labels dev fuzz
suite libfuzzer "inputs that coverage leads to, a minute of each target" env BFT_TALLY=build/logs/tally.txt bash tests/libfuzzer.sh
suite stress  "many threads"                                 ctest_labels dev stress
suite asan    "memory errors and undefined behaviour"        ctest_labels asan unit model crash fault fuzz
suite tsan    "data races"                                   ctest_labels tsan stress
suite tidy    "what clang-tidy finds in the library"         tidy
suite wasm    "one thread and no libraries, 32 bits, under Node" wasm_suite
suite node    "the Node addon and the package bftree"        node_suite
suite cojson-memory "cojson's own tests, client in JavaScript memory" cojson_suite memory
suite cojson-bftree "cojson's own tests, native client"      cojson_native

# --- Too long for every commit: only when they are named, or in the long levels --------

every_commit=("${suites[@]}")

# For BFT_MUTATION_HOURS.
mutation_suite() {
    local status=0
    python3 tests/mutation/mutate.py --hours "${BFT_MUTATION_HOURS-0.25}" |
        tee build/logs/mutants.txt || status=$?
    sed -n 's/^tally: //p' build/logs/mutants.txt >>build/logs/tally.txt
    return $status
}

# Each function of the installed headers is taken away from the tests.
stubs_suite() {
    build_preset stubs
    bash tests/stubs.sh "$PWD/build/stubs" "$jobs" "$PWD/build/logs/tally.txt"
}

memcheck() {
    bft_apt valgrind || echo "valgrind cannot be installed"
    command -v valgrind >/dev/null || return $no_tests
    cmake --preset valgrind
    cmake --build build/valgrind -j "$jobs"
    bash tests/valgrind.sh "$PWD/build/valgrind" "$PWD/build/logs/tally.txt"
}

afl_suite() {
    bft_apt afl++ || echo "afl++ cannot be installed"
    command -v afl-clang-fast >/dev/null || return $no_tests
    BFT_TALLY=build/logs/tally.txt bash tests/afl.sh
}

# On the file systems of the kernel, which root alone may mount, over FUSE and loop
# devices.
power_suite() {
    local needs="needs root, /dev/fuse and loop devices"
    if ! bash tests/power/run.sh --possible; then
        echo "skipped: $needs"
        echo "skipped power cuts: $needs" >>build/logs/tally.txt
        return $no_tests
    fi
    bft_apt fuse3 libfuse3-dev xfsprogs btrfs-progs e2fsprogs
    cmake --preset faults
    cmake --build build/faults -j "$jobs" --target power_tests
    bash tests/power/run.sh "$PWD/build/faults/tests" "$PWD/build/power" \
        "$PWD/build/logs/tally.txt"
}

# On a database that the next run goes on with.
soak_suite() {
    export BFT_SOAK_HOME="$PWD/build/soak"
    ctest_labels dev soak
}

suite mutation "small changes to what keeps data are noticed" mutation_suite
suite stubs   "a function that does nothing is noticed"      stubs_suite
suite memcheck "no byte is used that was never written"       memcheck
suite afl     "inputs that AFL++ makes"                      afl_suite
suite power   "power cuts lose nothing on ext4, xfs and btrfs" power_suite
suite soak    "much work on one database takes no more and more" soak_suite

# --- The run ----------------------------------------------------------------------

case ${1-} in
nightly | release) exec bash tests/long_run.sh "$@" ;;
esac
if [ "${1-}" = --list ]; then
    for name in "${suites[@]}"; do
        printf '%-16s %s\n' "$name" "${suite_says[$name]}"
    done
    exit 0
fi
chosen=("$@")
[ $# -gt 0 ] || chosen=("${every_commit[@]}")
for name in "${chosen[@]}"; do
    if [ -z "${suite_command[$name]-}" ]; then
        echo "no suite '$name': see bash tests/run.sh --list" >&2
        exit 2
    fi
done

mkdir -p build/logs
: >build/logs/tally.txt
bft_setup_build || exit 1
# Whose source it is that a seed in a log repeats on; git is there by now.
BFT_COMMIT=$(git describe --always --dirty 2>/dev/null) || BFT_COMMIT=unknown
export BFT_COMMIT
echo "commit $BFT_COMMIT"

failed=0
failures=()
table=""
for name in "${chosen[@]}"; do
    printf '\n=== %s: %s\n' "$name" "${suite_says[$name]}"
    started=$(date +%s)
    # shellcheck disable=SC2086 # a command and its words
    (set -eo pipefail; ${suite_command[$name]}) 2>&1 | tee "build/logs/$name.log"
    case ${PIPESTATUS[0]} in
    0) result=passed ;;
    "$no_tests") result="no tests" ;;
    *) result=FAILED failed=1 failures+=("$name") ;;
    esac
    minutes=$(awk -v s=$(($(date +%s) - started)) 'BEGIN { printf "%.1f", s / 60 }')
    printf -- '--- %s: %s, %s minutes\n' "$name" "$result" "$minutes"
    table+=$(printf '%-16s %-9s %5s min  %s' "$name" "$result" "$minutes" "${suite_says[$name]}")$'\n'
done

printf '\n%s' "$table"
printf '\nwhat the tests did, of what a run of all does at least:\n'
if ! tally_print build/logs/tally.txt commit && [ $# -eq 0 ]; then
    echo "too little was done"
    failed=1
fi
# The end is what is left to read of a run elsewhere.
for name in ${failures[@]+"${failures[@]}"}; do
    printf '\n%s FAILED; lines of build/logs/%s.log:\n' "$name" "$name"
    grep -aE '\[  ERROR|ERROR: |\[   LINE|BFT_SEED=|Assertion|Sanitizer|, not -?[0-9]|: error|\((Failed|Timeout|Subprocess|SEGFAULT)|\*\*\*' \
        "build/logs/$name.log" | cut -c1-200 | tail -n 40
done
if [ $failed -ne 0 ]; then
    echo "FAILED: see build/logs/"
    exit 1
fi
echo "no failures"
