# shellcheck shell=bash
# Sourced by run.sh and long_run.sh: what tests say they have done (support/tally.h),
# added up, beside what a level asks for (levels.txt).  A count that begins with "="
# is no more of it, but what there is by now; "skipped WHAT: WHY" is of a suite that
# this machine cannot run: that count may be too low, and is said to be skipped.

# tally_collect PRESET FILE: what the tests said that ctest has just run.
tally_collect() {
    sed -n 's/^tally: //p' "build/$1/Testing/Temporary/LastTest.log" >>"$2"
}

# Of such lines, a line for each count: its sum, a tab, and what it is; and for what
# was skipped "skipped", a tab, what and why.
tally_sum() {
    awk '$1 == "skipped" { sub(/^skipped /, "skipped\t"); print; next }
        { n = $1; sub(/^[^ ]+ /, "") }
        n ~ /^=/ { done[$0] = substr(n, 2); next }
        { done[$0] += n }
        END { for (what in done) printf "%.0f\t%s\n", done[what], what }'
}

# tally_print FILE LEVEL: a line for each count that there is, of the long levels also
# for those that are missing; 1 when one is too low, or not there.
tally_print() {
    tally_sum <"$1" | awk -F '\t' -v level="$2" '
        function trim(text) { gsub(/^ +| +$/, "", text); return text }
        BEGIN { column = level == "commit" ? 3 : level == "nightly" ? 4 : 5 }
        FILENAME == "tests/levels.txt" {
            if ($0 ~ /^#/) next
            split($0, field, "|")
            order[++rows] = trim(field[1])
            wanted[trim(field[1])] = trim(field[column])
            next
        }
        $1 == "skipped" { why[substr($2, 1, index($2, ":") - 1)] = $2; next }
        { done[$2] = $1 }
        END {
            for (i = 1; i <= rows; i++) {
                what = order[i]
                low = (what in done ? done[what] : 0) < wanted[what] + 0
                says = low ? "  not yet" : ""
                if (low && what in why) {
                    low = 0
                    says = "  skipped" substr(why[what], index(why[what], ":"))
                }
                bad += low
                if (what in done || (says && level != "commit"))
                    printf "%-21s %12.0f of %12.0f%s\n", what, done[what],
                        wanted[what], says
            }
            exit bad > 0
        }' tests/levels.txt -
}
