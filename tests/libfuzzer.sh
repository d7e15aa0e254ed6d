#!/usr/bin/env bash
# Runs libFuzzer's targets, fuzz/NAME_target.c each:
#
#   bash tests/libfuzzer.sh            all, two at a time
#   bash tests/libfuzzer.sh NAME...    these
#   BFT_FUZZ_SECONDS=n                 for n seconds each, not 60
#   BFT_TALLY=FILE                     how many minutes and inputs there were goes
#                                      there, and how many the slowest one had
#
# First the inputs of fuzz/corpus/NAME, all of them; then new ones, for images half
# of the time with checksums that are not tested.  What is worth keeping of those is
# kept in build/libfuzzer/NAME, and the next run goes on from there.  An input that
# fails lies in build/libfuzzer/ too, and goes to the corpus once it does not.
#
#   bash tests/libfuzzer.sh --keep     make the corpora anew, of both: as few
#                                      inputs as reach the same edges, and those
#                                      whose name begins with found-, which failed
#                                      once
set -u
cd "$(dirname "$0")/.." || exit 2

seconds="${BFT_FUZZ_SECONDS:-60}"
found=build/libfuzzer
# A length that is forged has memory for a value of up to 4 GiB asked for, before its
# extents are found not to have that: so what is asked for is not limited, what is
# used is.
limits="-timeout=30 -rss_limit_mb=2048 -malloc_limit_mb=5120 -max_len=1024"
export UBSAN_OPTIONS=print_stacktrace=1

# failed NAME MODE: the log of a run that failed, and how to see it again.
failed() {
    local name="$1" mode="$2" input
    sed -n '/ERROR\|error:\|BFT_SEED\|^==\|^ *#[0-9]\|SUMMARY/p' "$found/$name.log" | tail -60
    for input in "$found/$name"-{crash,leak,timeout,oom}-*; do
        [ -e "$input" ] && echo "again: $mode build/fuzz/tests/${name}_target $input"
    done
    echo "$name FAILED: see $found/$name.log"
}

# What there is to set for each run of a target.
modes() {
    echo BFT_FUZZ_MODE=usual
    [ "$1" != image ] || echo BFT_FUZZ_FORGED=1
}

# One target: its corpus, in the last of its modes; then new inputs, in each.
run_one() {
    local name="$1" run="build/fuzz/tests/${1}_target" mode share
    mkdir -p "$found/$name"
    rm -f "$found/$name"-{crash,leak,timeout,oom}-* "$found/$name-stats" "$found/$name-inputs"
    share=$((seconds / $(modes "$name" | wc -l)))
    mode=$(modes "$name" | tail -1)
    # shellcheck disable=SC2086 # a list of words
    if ! env "$mode" "$run" $limits \
        "-artifact_prefix=$found/$name-" -runs=0 \
        "tests/fuzz/corpus/$name" >"$found/$name.log" 2>&1; then
        failed "$name" "$mode"
        return 1
    fi
    for mode in $(modes "$name"); do
        # shellcheck disable=SC2086 # a list of words
        if ! env "$mode" "$run" $limits "-artifact_prefix=$found/$name-" \
            -print_final_stats=1 "-max_total_time=$share" "$found/$name" \
            "tests/fuzz/corpus/$name" >"$found/$name.log" 2>&1; then
            failed "$name" "$mode"
            return 1
        fi
        cat "$found/$name.log" >>"$found/$name-stats"
    done
    awk -v name="$name" '/^stat::number_of_executed_units/ { runs += $2 }
        /^stat::new_units_added/ { added += $2 }
        / cov: / { for (i = 1; i < NF; i++) if ($i == "cov:" && $(i + 1) > cov) cov = $(i + 1) }
        END { printf "%s: %d inputs, %d of them new ways, %d edges\n", name, runs, added, cov }' \
        "$found/$name-stats"
    awk '/^stat::number_of_executed_units/ { runs += $2 } END { print runs + 0 }' \
        "$found/$name-stats" >"$found/$name-inputs"
    rm "$found/$name-stats"
}

# One target's corpus, as small as can be.
keep_one() {
    local name="$1" corpus="tests/fuzz/corpus/$1" once mode
    once=$(mktemp -d)
    mkdir -p "$corpus" "$found/$name"
    for mode in $(modes "$name"); do
        # shellcheck disable=SC2086 # a list of words
        env "$mode" "build/fuzz/tests/${name}_target" $limits -use_counters=0 \
            -set_cover_merge=1 "$once" "$corpus" "$found/$name" \
            >"$found/$name.log" 2>&1 || { failed "$name" "$mode"; return 1; }
    done
    find "$corpus" -type f ! -name 'found-*' -delete
    cp "$once"/* "$corpus"
    rm -r "$once"
    echo "$name: $(find "$corpus" -type f | wc -l) inputs, $(du -sb "$corpus" | cut -f1) bytes"
}

case "${1-}" in
--one | --keep-one)
    step="${1#--}"
    case $step in one) run_one "$2" ;; *) keep_one "$2" ;; esac
    exit
    ;;
--keep) step=--keep-one; shift ;;
*) step=--one ;;
esac

mkdir -p "$found"
cmake --preset fuzz && cmake --build build/fuzz -j 2 --target libfuzzer_targets || exit 1
if [ $# -eq 0 ]; then
    for target in tests/fuzz/*_target.c; do
        set -- "$@" "$(basename "$target" _target.c)"
    done
fi
printf "%s\n" "$@" | xargs -P 2 -n 1 bash tests/libfuzzer.sh $step || exit 1
if [ $step = --one ]; then
    {
        echo "$(($# * seconds / 60)) minutes of libFuzzer"
        for name in "$@"; do cat "$found/$name-inputs"; done |
            awk 'NR == 1 || $1 < least { least = $1 }
                { all += $1 }
                END { printf "%d inputs of libFuzzer\n%d inputs of its slowest\n", all, least }'
    } | tee -a "${BFT_TALLY:-/dev/null}" | sed 's/^/tally: /'
fi
