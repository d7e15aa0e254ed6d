#!/usr/bin/env bash
# stubs.sh lets tests pass that notice each stub, and fails for those that do not.
set -u
stubs="$(cd "$(dirname "$0")" && pwd)/stubs.sh"
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
export BFT_STUBS_SECONDS=3
failed=0

# program SUITE NAME CALLED COMMAND: its marks are CALLED, its end is COMMAND's.
program() {
    echo "$1 $2" >>"$root/tests/stubs/programs.txt"
    cat >"$root/tests/$2" <<END
#!/bin/bash
echo '$3' >"\$BFT_STUB_MARKS"
echo '[ RUN      ] a_test_of_$2'
$4
exit 0
END
    chmod +x "$root/tests/$2"
}

# Two functions and a program for each, of different suites.
complete_tests() {
    rm -rf "${root:?}"/*
    mkdir -p "$root/tests/stubs"
    printf '%s\n' 'function bft_get index/bftree.h' 'function bft_put index/bftree.h' \
        'inline bft_twice index/bftree.h' 'type bft_db index/bftree.h' \
        >"$root/tests/stubs/declared.txt"
    program unit get_test '#.' '[ "${BFT_STUB-}" != bft_get ] || exit 1'
    program stress put_test '##' '[ "${BFT_STUB-}" != bft_put ] || kill -SEGV $$'
}

run_stubs() {
    rm -f "$root/tally"
    bash "$stubs" "$root" 2 "$root/tally" "$@" 2>&1
}

# says WORDS...: each is in OUTPUT.
says() {
    local words
    for words in "$@"; do
        grep -qF -- "$words" <<<"$output" || return 1
    done
}

# passes NAME WORDS...: with what is set up; gap: it fails.
passes() {
    local name="$1"
    shift
    if ! output=$(run_stubs) || ! says "$@"; then
        echo "FAILED: $name: $output"
        failed=1
    else
        echo "passes: $name"
    fi
}
gap() {
    local name="$1"
    shift
    if output=$(run_stubs) || ! says "$@"; then
        echo "FAILED: $name: $output"
        failed=1
    else
        echo "noticed: $name"
    fi
}

complete_tests
passes "each stub turns a test red" \
    'bft_get: noticed by get_test: a_test_of_get_test, failed' \
    'bft_put: noticed by put_test: a_test_of_put_test, signal 11' \
    'bft_twice: inline' '1 types' '2 functions: 2 noticed, 0 not'
if [ "$(cat "$root/tally")" != "2 stubs noticed" ]; then
    echo "FAILED: the tally is '$(cat "$root/tally")'"
    failed=1
fi

complete_tests
program unit more_test '##' 'if [ "${BFT_STUB-}" = bft_put ]; then while :; do :; done; fi'
passes "what runs in a circle counts" 'bft_put: noticed by more_test: a_test_of_more_test, no end'

complete_tests
program unit more_test '##' '[ "${BFT_STUB-}" != bft_put ] || sleep 1000'
passes "what waits for ever counts" 'bft_put: noticed by more_test: a_test_of_more_test, no end'

complete_tests
program unit more_test '##' 'if [ "${BFT_STUB-}" = bft_put ]; then
    echo "[  FAILED  ] no_handle_is_refused"; echo "[  FAILED  ] a_put_is_there"; exit 1; fi'
passes "a test counts that fails beside a refusal" \
    'bft_put: noticed by more_test: a_put_is_there, failed'

complete_tests
program unit more_test '##' 'if [ "${BFT_STUB-}" = bft_put ]; then
    echo "[  FAILED  ] no_handle_is_refused"; echo "[ RUN      ] a_wait"; sleep 1000; fi'
passes "what waits for ever beside a refusal counts" \
    'bft_put: noticed by more_test: a_wait, no end'

complete_tests
echo 'function bft_scan index/bftree.h' >>"$root/tests/stubs/declared.txt"
gap "a function that no test calls" 'bft_scan: NOT NOTICED' '3 functions: 2 noticed, 1 not'
if [ "$(cat "$root/tally")" != "2 stubs noticed" ]; then
    echo "FAILED: the tally is '$(cat "$root/tally")' with one not noticed"
    failed=1
fi

complete_tests
sed -i 's/bft_put/bft_other/' "$root/tests/put_test"
gap "a function whose callers pass without it" 'bft_put: NOT NOTICED'

complete_tests
sed -i "s/'##'/'#.'/" "$root/tests/put_test"
gap "a program that fails, and has not come to the stub" 'bft_put: NOT NOTICED'

complete_tests
program unit status_of_calls_test '##' '[ -z "${BFT_STUB-}" ] || exit 1'
sed -i 's/bft_put/bft_other/' "$root/tests/put_test"
gap "a function of which refusals only are noticed" 'bft_put: NOT NOTICED'

complete_tests
program unit more_test '##' 'if [ "${BFT_STUB-}" = bft_put ]; then
    echo "[  FAILED  ] no_handle_is_refused"; exit 1; fi'
sed -i 's/bft_put/bft_other/' "$root/tests/put_test"
gap "a function of which one test's refusal only is noticed" 'bft_put: NOT NOTICED'

complete_tests
program unit more_test '##' 'exit 1'
gap "a program that fails with nothing taken away" \
    'more_test: FAILED with nothing taken away' 'bft_put: noticed by put_test' \
    '1 programs fail'

complete_tests
if output=$(run_stubs bft_gte) || ! says 'no installed header declares bft_gte'; then
    echo "FAILED: a name that is none: $output"
    failed=1
fi
exit $failed
