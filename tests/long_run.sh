#!/usr/bin/env bash
# The two long levels of the tests, a slice after another:
#
#   bash tests/long_run.sh nightly [--hours H]
#   bash tests/long_run.sh release [--hours H]
#
# A slice is one suite of run.sh with new seeds and more of everything; the next
# one is of the count that is furthest behind what tests/levels.txt asks for.  It
# ends when all is reached, or with the first slice that ends after H hours; what
# was done is kept in build/long/LEVEL.txt for each commit, and the next call goes
# on from there.  A slice that fails leaves its log in build/long/, with the seeds,
# and the run goes on: the exit status is 1 then.
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
# commit, "tally", and a line of the tests.  What a machine, or a user, could not
# run may be possible by now: each call tries it anew.
sed -i "/^$commit tally skipped /d" "$record"

tallies() {
    awk -v commit="$commit" '$1 == commit && $2 == "tally" {
        sub(/^[^ ]+ tally /, ""); print }' "$record"
}

seconds() {
    awk -v commit="$commit" '$1 == commit && $2 != "tally" { s += $2 } END { print s + 0 }' "$record"
}

# The suite of the count that is furthest behind, and its environment; nothing
# when all are reached.
next_slice() {
    tallies | awk -v level="$level" '
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
        $1 == "skipped" {
            sub(/^skipped /, "")
            skipped[substr($0, 1, index($0, ":") - 1)]
            next
        }
        { n = $1; sub(/^[0-9]+ /, ""); done[$0] += n }
        END {
            least = 1
            for (what in suite)
                if (!(what in skipped) && done[what] / wanted[what] < least) {
                    least = done[what] / wanted[what]
                    next_one = what
                }
            if (next_one != "") print suite[next_one], environment[next_one]
        }' tests/levels.txt -
}

failed=0 idle=0
started=$SECONDS
while read -r suite environment < <(next_slice); do
    before=$SECONDS result=passed
    printf '\n=== %s: %s %s, %.2f hours so far at %s\n' "$level" "$suite" "$environment" \
        "$(awk -v s="$(seconds)" 'BEGIN { print s / 3600 }')" "$commit"
    # shellcheck disable=SC2086 # words of its own
    if ! env $environment bash tests/run.sh "$suite"; then
        result=failed failed=1
        cp "build/logs/$suite.log" "build/long/failed-$commit-$suite-$(date +%s).log"
    fi
    sed "s/^/$commit tally /" build/logs/tally.txt >>"$record"
    echo "$commit $((SECONDS - before)) $suite $result" >>"$record"
    # A suite that counts nothing, and no other one either, would go on for ever.
    [ -s build/logs/tally.txt ] && idle=0 || idle=$((idle + 1))
    [ "$idle" -lt 3 ] || break
    if awk -v s=$((SECONDS - started)) -v h="$hours" 'BEGIN { exit s < h * 3600 }'; then
        break
    fi
done

printf '\n%s at %s: %.2f hours\n' "$level" "$commit" \
    "$(awk -v s="$(seconds)" 'BEGIN { print s / 3600 }')"
tallies >build/long/tally.txt
tally_print build/long/tally.txt "$level" || echo "not complete: run it again"
failures=$(awk -v commit="$commit" '$1 == commit && $4 == "failed"' "$record" | wc -l)
echo "slices that failed at this commit: $failures"
[ "$failed" -eq 0 ] && [ "$failures" -eq 0 ]
