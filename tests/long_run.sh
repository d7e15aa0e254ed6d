#!/usr/bin/env bash
# The two long levels of the tests, a slice after another:
#
#   bash tests/long_run.sh nightly [--hours H]
#   bash tests/long_run.sh release [--hours H]
#
# First all suites that each commit has, unless they have passed at this one.  Then a
# slice is one suite of run.sh with new seeds and more of everything, of the count
# that is furthest behind what tests/levels.txt asks for.  It ends when all is
# reached, or with the first slice that ends after H hours; what was done is kept in
# build/long/LEVEL.txt for each commit, and the next call goes on from there.  A slice
# that fails leaves its logs in build/long/, with the seeds, and the run goes on: the
# exit status is 1 then, at this commit.  It is 3 when nothing failed and there is more
# to do.  A count to which its slice adds nothing, as the suite cannot run here or ends
# too early, is left to the next call.
set -u
cd "$(dirname "$0")/.." || exit 2
. tests/tally.sh

level="${1-}"
case $level in
nightly | release) shift ;;
*)
    sed -n '2,/^set /{s/^# \{0,1\}//p}' "$0" >&2
    exit 2
    ;;
esac
hours=1000000
if [ "${1-}" = --hours ]; then
    hours="${2-}"
    shift $(($# > 1 ? 2 : 1))
fi
if [ $# -ne 0 ] || ! [[ $hours =~ ^[0-9]+(\.[0-9]+)?$ ]]; then
    echo "usage: bash tests/long_run.sh $level [--hours H]" >&2
    exit 2
fi

commit=$(git rev-parse --short=12 HEAD)
[ -z "$(git status --porcelain -uno)" ] || commit=$commit-changed
# Not below build/logs, which is each run's own.
mkdir -p build/long
record=build/long/$level.txt
touch "$record"

# Lines of the record: commit, seconds, suite, and "passed" or "failed"; or
# commit, "tally", and a line of the tests.  The suite "all" is those of each commit.
# What a machine, or a user, could not run may be possible by now: each call tries.
sed -i "/^$commit tally skipped /d" "$record"

tallies() {
    awk -v commit="$commit" '$1 == commit && $2 == "tally" {
        sub(/^[^ ]+ tally /, ""); print }' "$record"
}

seconds() {
    awk -v commit="$commit" '$1 == commit && $2 != "tally" { s += $2 } END { print s + 0 }' "$record"
}

all_passed() {
    grep -qE "^$commit [0-9]+ all passed\$" "$record"
}

# How much there is of count WHAT.
count_of() {
    tallies | tally_sum | awk -F '\t' -v what="$1" '$2 == what { n = $1 } END { print n + 0 }'
}

# The count that is furthest behind, its suite and that one's environment; nothing
# when all are reached.
next_slice() {
    tallies | tally_sum | awk -F '\t' -v level="$level" -v left="$left" '
        function trim(text) { gsub(/^ +| +$/, "", text); return text }
        FILENAME == "tests/levels.txt" {
            if ($0 ~ /^#/) next
            split($0, field, "|")
            what = trim(field[1])
            suite[what] = trim(field[2])
            wanted[what] = trim(field[level == "nightly" ? 4 : 5])
            environment[what] = trim(field[6])
            next
        }
        $1 == "skipped" { next } # it has been tried: see left
        { done[$2] = $1 }
        END {
            least = 1
            for (what in suite)
                if (!index(left, "|" what "|") && done[what] < wanted[what] * least) {
                    least = done[what] / wanted[what]
                    next_one = what
                }
            if (next_one != "") print next_one "|" suite[next_one] " " environment[next_one]
        }' tests/levels.txt -
}

failed=0 slices=0 left="|"
started=$SECONDS

# one_slice NAME COMMAND...: run it, and record it as NAME.
one_slice() {
    local before=$SECONDS result=passed name="$1"
    shift
    slices=$((slices + 1))
    printf '\n=== %s: %s, %.2f hours so far at %s\n' "$level" "$*" \
        "$(awk -v s="$(seconds)" 'BEGIN { print s / 3600 }')" "$commit"
    if ! "$@"; then
        result=failed failed=1
        cp -r build/logs "build/long/failed-$commit-$name-$(date +%s)"
    fi
    sed "s/^/$commit tally /" build/logs/tally.txt >>"$record"
    echo "$commit $((SECONDS - before)) $name $result" >>"$record"
}

over() {
    awk -v s=$((SECONDS - started)) -v h="$hours" 'BEGIN { exit s < h * 3600 }'
}

all_passed || one_slice all bash tests/run.sh
while { [ "$slices" -eq 0 ] || ! over; } &&
    IFS='|' read -r what command < <(next_slice); do
    suite="${command%% *}" environment="${command#* }" before=$(count_of "$what")
    # shellcheck disable=SC2086 # words of its own
    one_slice "$suite" env $environment bash tests/run.sh "$suite"
    if [ "$(count_of "$what")" = "$before" ]; then
        echo "no more $what than before: left to the next call"
        left="$left$what|"
    fi
done

printf '\n%s at %s: %.2f hours\n' "$level" "$commit" \
    "$(awk -v s="$(seconds)" 'BEGIN { print s / 3600 }')"
tallies >build/long/tally.txt
complete=yes
tally_print build/long/tally.txt "$level" || complete=no
all_passed || complete=no
[ $complete = yes ] || echo "not complete: run it again"
failures=$(awk -v commit="$commit" '$1 == commit && $4 == "failed"' "$record" | wc -l)
echo "slices that failed at this commit: $failures"
[ "$failed" -eq 0 ] && [ "$failures" -eq 0 ] || exit 1
[ $complete = yes ] || exit 3
