# shellcheck shell=bash
# Sourced by run.sh and long_run.sh: what tests say they have done (support/tally.h),
# added up, beside what a level asks for (levels.txt).  A count that begins with "="
# is no more of it, but what there is by now.

# tally_collect PRESET FILE: what the tests said that ctest has just run.
tally_collect() {
    sed -n 's/^tally: //p' "build/$1/Testing/Temporary/LastTest.log" >>"$2"
}

# Of such lines, a line for each count: its sum, a tab, and what it is.
tally_sum() {
    awk '{ n = $1; sub(/^[^ ]+ /, "") }
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
        { done[$2] = $1 }
        END {
            for (i = 1; i <= rows; i++) {
                low = (order[i] in done ? done[order[i]] : 0) < wanted[order[i]] + 0
                bad += low
                if (order[i] in done || (low && level != "commit"))
                    printf "%-21s %12.0f of %12.0f%s\n", order[i], done[order[i]],
                        wanted[order[i]], low ? "  not yet" : ""
            }
            exit bad > 0
        }' tests/levels.txt -
}
