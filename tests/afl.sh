#!/usr/bin/env bash
# libFuzzer's targets, fuzz/NAME_target.c each, in AFL++, which changes inputs in other
# ways and so finds others:
#
#   bash tests/afl.sh             all, two at a time
#   bash tests/afl.sh NAME...     these
#   BFT_FUZZ_SECONDS=n            for n seconds each, not 60
#   BFT_TALLY=FILE                how many minutes and inputs there were goes there
#
# It begins with the inputs of fuzz/corpus/NAME, and each run goes on from what the one
# before it found, in build/afl/found/NAME.  Images have checksums that are not tested:
# with the others libFuzzer is as good.  An input that fails, or takes 30 s, goes to the
# corpus once it does not.
set -u
cd "$(dirname "$0")/.." || exit 2

seconds="${BFT_FUZZ_SECONDS:-60}"
found=build/afl/found
# Whatever machine it is, and nobody watches.  It goes on from an older run.
export AFL_SKIP_CPUFREQ=1 AFL_NO_AFFINITY=1 AFL_NO_UI=1 AFL_AUTORESUME=1
export AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES=1
export BFT_FUZZ_FORGED=1

one() {
    local name="$1" all="$found/$1/default" input bad=0
    # It writes into the folder it is in.
    mkdir -p "$found/$name-work"
    if ! (cd "$found/$name-work" && exec afl-fuzz -V "$seconds" -t 30000 -G 1024 \
        -i "../../../../tests/fuzz/corpus/$name" -o "../$name" \
        -- "../../tests/${name}_target") >"$found/$name.log" 2>&1; then
        tail -20 "$found/$name.log"
        echo "$name FAILED: see $found/$name.log"
        return 1
    fi
    for input in "$all"/{crashes,hangs}/id*; do
        [ -e "$input" ] || continue
        echo "again: BFT_FUZZ_FORGED=1 build/afl/tests/${name}_target $input"
        bad=1
    done
    awk -v name="$name" '$1 == "execs_done" { runs = $3 } $1 == "corpus_found" { added = $3 }
        $1 == "edges_found" { edges = $3 }
        END { printf "%s: %d inputs, %d of them new ways, %d edges\n", name, runs, added, edges }' \
        "$all/fuzzer_stats"
    [ $bad -eq 0 ] || echo "$name FAILED"
    return $bad
}

if [ "${1-}" = --one ]; then
    one "$2"
    exit
fi

mkdir -p "$found"
cmake --preset afl && cmake --build build/afl -j 2 --target libfuzzer_targets || exit 1
if [ $# -eq 0 ]; then
    for target in tests/fuzz/*_target.c; do
        set -- "$@" "$(basename "$target" _target.c)"
    done
fi
inputs() {
    cat "$found"/*/default/fuzzer_stats 2>/dev/null |
        awk '$1 == "execs_done" { runs += $3 } END { print runs + 0 }'
}
before=$(inputs)
printf "%s\n" "$@" | xargs -P 2 -n 1 bash tests/afl.sh --one || exit 1
{
    echo "$(($# * seconds / 60)) minutes of AFL++"
    echo "$(($(inputs) - before)) inputs of AFL++"
} | tee -a "${BFT_TALLY:-/dev/null}" | sed 's/^/tally: /'
