#!/usr/bin/env bash
# Plants each fault of planted_faults.txt and runs the test that is to notice it.
#
#   bash tests/planted_faults.sh BUILD JOBS TALLY [FAULT...]
#
# BUILD is a build folder with -DBFT_FAULTS=ON and the programs, TALLY a file that
# gets a line of how many faults were noticed (tally.sh).  A table closes
# the run: each fault, who noticed it, with which seed: of a range the one that
# failed.  BFT_SEED gives all runs that one.  BUILD/tests/planted/again.txt has a
# line for each, which repeats what it did.
set -u
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
build="$1" jobs="$2" tally="$3"
shift 3
only=" $* "
cpu_seconds_max=120 # of one that runs in a circle, whatever else the machine does
seconds_max=1200    # of one that waits for ever
runs="$build/tests/planted"
mkdir -p "$runs"

# --- one run ---------------------------------------------------------------------

# What the log of a run says went wrong, in one line: where several do, the first
# kind of these.
said() {
    local kind
    for kind in 'Assertion' '^ERROR: ' ', not -?[0-9]+ ?\(?' '^at step ' '^\[  ERROR ' \
        '^\[   LINE' '^[A-Za-z].*, .*: '; do
        grep -aE -- "$kind" "$1" | head -1 | grep . && break
    done | sed -E 's/^\[[ A-Z]*\] --- //; s|/[^ ]*/||g; s/^ERROR: (BFT_SEED=[0-9]+ )?//; s/[^ ]*_test: //' |
        cut -c1-90
}

# one_run NUMBER FAULT PROGRAM TEST [NAME=VALUE...|itself]: writes NUMBER.line and
# NUMBER.again.
one_run() {
    local number="$1" fault="$2" program="$3" test="$4" itself=no setting env
    local dir="$runs/$1" log="$runs/$1.log" began suite rc verdict seed
    shift 4
    env=("TMPDIR=$dir" "BFT_TEST=$test"
        "BFT_SEED=${BFT_SEED:-$((RANDOM * 32768 + RANDOM))}")
    for setting in "$@"; do
        if [ "$setting" = itself ]; then itself=yes; else env+=("$setting"); fi
    done
    if [ "$fault" != none ] && [ $itself = no ]; then env+=("BFT_FAULT=$fault"); fi
    rm -rf "$dir"
    mkdir -p "$dir"
    began=$EPOCHREALTIME
    # A shell of its own: what it says of a test that is killed goes to the log.
    bash -c 'cd "$1" && ulimit -t "$2" && shift 2 && "$@"; exit $?' run "$dir" \
        $cpu_seconds_max env "${env[@]}" timeout -s KILL $seconds_max \
        "$build/tests/$program" >"$log" 2>&1
    rc=$?
    suite=$(basename "$(dirname "$(ls "$here"/*/"$program.c")")")
    if ! grep -aq '^\[ RUN ' "$log"; then
        verdict="NO TEST"
    elif [ $rc -eq 137 ] || [ $rc -eq 152 ]; then # killed, or SIGXCPU
        verdict="NO END"
    elif [ "$fault" = none ]; then
        verdict=passed
        [ $rc -eq 0 ] || verdict="FAILED"
    elif [ $itself = yes ]; then
        verdict=noticed
        [ $rc -eq 0 ] || verdict="MISSED"
    else
        verdict=noticed
        [ $rc -ne 0 ] || verdict="MISSED"
    fi
    seed=$(grep -aoE 'BFT_SEED=[0-9]+' "$log" | tail -n 1)
    env[2]=${seed:-${env[2]}}
    echo "env ${env[*]:1} $build/tests/$program" >"$runs/$number.again"
    printf '%-19s %-7s %-12s %-20s %-54s %20s %6.1f s  %s\n' "$fault" "$verdict" \
        "$suite" "$program" "$test" "${env[2]#BFT_SEED=}" \
        "$(awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN { print b - a }')" \
        "$(if [ "$verdict" = noticed ]; then said "$log"; fi)" >"$runs/$number.line"
    if ! [[ $verdict =~ ^[a-z]+$ ]]; then
        { printf '\n'; cat "$runs/$number.line"; tail -n 20 "$log"; } >&2
    fi
    rm -rf "$dir"
}

# --- all of them -----------------------------------------------------------------

# Each fault of the headers has a line in the list.
check_list() {
    local fault bad=0
    for fault in $(sed -n 's/^    X(\([A-Z_]*\), [0-9].*/\1/p' "$here/../fileio/fault.h") \
        $(sed -n 's/^    BFTI_\(COVALUE\)_FAULT\(_[A-Z_]*\) = .*/\1\2/p' \
            "$here/../storage/covalue_fault.h"); do
        if ! grep -q "^$fault " "$here/planted_faults.txt"; then
            echo "nobody is said to notice $fault: planted_faults.txt" >&2
            bad=1
        fi
    done
    return $bad
}

check_list || exit 1
number=0 running=0
rm -f "$runs"/*.line "$runs"/*.again
while read -r -a words; do
    if [ ${#words[@]} -lt 3 ] || [[ ${words[0]} = \#* ]]; then continue; fi
    if [ "$only" != "  " ] && [[ $only != *" ${words[0]} "* ]]; then continue; fi
    number=$((number + 1))
    if [ $running -ge "$jobs" ]; then
        wait -n
        running=$((running - 1))
    fi
    one_run "$(printf '%03d' $number)" "${words[@]}" &
    running=$((running + 1))
done <"$here/planted_faults.txt"
wait

printf '\n%-19s %-7s %-12s %-20s %-54s %20s %8s  %s\n' \
    FAULT "" SUITE PROGRAM TEST BFT_SEED "" SAID
cat "$runs"/*.line
cat "$runs"/*.again >"$runs/again.txt"
noticed=$(awk '$2 == "noticed" { print $1 }' "$runs"/*.line | sort -u | wc -l)
bad=$(grep -vcE '^[A-Za-z_]+ +(noticed|passed) ' <(cat "$runs"/*.line))
echo "$noticed faults noticed" >>"$tally"
echo "$number runs: $noticed faults noticed, $bad runs not as they should be"
[ "$bad" -eq 0 ]
