# Sourced by run.sh and long_run.sh: what tests say they have done (support/tally.h),
# added up, beside what a level asks for (levels.txt).

# tally_collect PRESET FILE: what the tests said that ctest has just run.
tally_collect() {
    sed -n 's/^tally: //p' "build/$1/Testing/Temporary/LastTest.log" >>"$2"
}

# tally_print FILE LEVEL: a line for each count that there is; 1 when one is too
# low, or not there.
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
        { n = $1; sub(/^[0-9]+ /, ""); done[$0] += n }
        END {
            for (i = 1; i <= rows; i++) {
                low = (order[i] in done ? done[order[i]] : 0) < wanted[order[i]] + 0
                bad += low
                if (order[i] in done)
                    printf "%-20s %12.0f of %12.0f%s\n", order[i], done[order[i]],
                        wanted[order[i]], low ? "  not yet" : ""
            }
            exit bad > 0
        }' tests/levels.txt "$1"
}
