# Sourced by run.sh and long_run.sh: what tests say they have done (support/tally.h),
# added up, beside what a level asks for (levels.txt).

# tally_collect PRESET FILE: what the tests said that ctest has just run.
tally_collect() {
    sed -n 's/^tally: //p' "build/$1/Testing/Temporary/LastTest.log" >>"$2"
}

# tally_print FILE LEVEL: a line for each count that there is; 1 when one is too
# low, or not there.  A line "skipped WHAT: WHY" is of a suite that this machine
# cannot run: that count is said to be skipped, and may be too low.
tally_print() {
    awk -v level="$2" '
        function trim(text) { gsub(/^ +| +$/, "", text); return text }
        BEGIN { column = level == "commit" ? 3 : level == "nightly" ? 4 : 5 }
        FILENAME == "tests/levels.txt" {
            if ($0 ~ /^#/) next
            split($0, field, "|")
            order[++rows] = trim(field[1])
            wanted[trim(field[1])] = trim(field[column])
            next
        }
        $1 == "skipped" {
            sub(/^skipped /, "")
            why[substr($0, 1, index($0, ":") - 1)] = substr($0, index($0, ":"))
            next
        }
        { n = $1; sub(/^[0-9]+ /, ""); done[$0] += n }
        END {
            for (i = 1; i <= rows; i++) {
                low = (order[i] in done ? done[order[i]] : 0) < wanted[order[i]] + 0
                says = low ? "  not yet" : ""
                if (order[i] in why)
                    says = "  skipped" why[order[i]]
                bad += low && !(order[i] in why)
                if (order[i] in done || order[i] in why)
                    printf "%-21s %12.0f of %12.0f%s\n", order[i], done[order[i]],
                        wanted[order[i]], says
            }
            exit bad > 0
        }' tests/levels.txt "$1"
}
