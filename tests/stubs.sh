#!/usr/bin/env bash
# Takes each function of the installed headers away from the tests, one at a time:
# it claims success and does nothing (stubs/stubs.c).  A test has to turn red.
#
#   bash tests/stubs.sh BUILD JOBS TALLY [FUNCTION...]
#
# BUILD is a build folder with -DBFT_STUBS=ON, TALLY a file that gets a line of how
# many functions were noticed (tally.sh).  Suite by suite, the quick ones first,
# each program runs with nothing taken away: it has to pass, and leaves a mark for
# each function that it calls.  Then those programs run without each function that
# call it, the quickest first, until one turns red; one that has no end counts.  A
# suite is left out when nothing is left for it.
#
# The programs of `refusals`, and tests with names like those of `refused`, are no
# witnesses: they call with what is to be refused, so they would notice of any
# function that it succeeds, whatever else it does.
#
# To repeat a line, with the seed that the run says:
#
#   BFT_STUB=FUNCTION BFT_SEED=... BUILD/tests/PROGRAM
set -u
build="$1" jobs="$2" tally="$3"
shift 3
only=("$@")
refusals=" status_of_calls_test bad_input_test covalue_input_test "
refused='_(is|are)_refused'
stubs="$build/tests/stubs"
runs="$stubs/runs"
export BFT_SEED="${BFT_SEED:-$((RANDOM * 32768 + RANDOM))}"
# What the long suites do is repetition.
export BFT_MODEL_OPS="${BFT_MODEL_OPS:-20000}" BFT_HISTORIES="${BFT_HISTORIES:-100}"
# Seconds of the machine and of a clock that a program has to itself, beside a
# multiple of what it takes with nothing taken away.
cpu_least="${BFT_STUBS_SECONDS:-30}" clock_least=$((${BFT_STUBS_SECONDS:-30} * 2))
rm -rf "$runs"
mkdir -p "$runs"

mapfile -t functions < <(awk '$1 == "function" { print $2 }' "$stubs/declared.txt")
declare -A index
for i in "${!functions[@]}"; do index[${functions[i]}]=$i; done
for function in ${only[@]+"${only[@]}"}; do
    if [ -z "${index[$function]-}" ]; then
        echo "no installed header declares $function" >&2
        exit 2
    fi
done

# run NAME PROGRAM SECONDS [NAME=VALUE...]: the program, which took SECONDS before;
# NAME.log and NAME.marks are left.  Its exit status.
run() {
    local name="$runs/$1" program="$2" cpu="$3" clock="$3" rc
    shift 3
    cpu=$((cpu * 10 + cpu_least)) clock=$((clock * 10 + clock_least))
    rm -rf "$name.tmp" "$name.marks"
    mkdir -p "$name.tmp"
    # A shell of its own: what it says of a program that is killed goes to the log.
    # Without a function a program may fill memory and disk.
    bash -c 'cd "$1" && ulimit -c 0 -t "$2" -f 8388608 -v 33554432 && shift 2 && "$@"; exit $?' \
        run "$name.tmp" $cpu env "TMPDIR=$name.tmp" "BFT_STUB_MARKS=$name.marks" "$@" \
        timeout -s KILL $clock "$build/tests/$program" >"$name.log" 2>&1
    rc=$?
    rm -rf "$name.tmp"
    return $rc
}

# called NAME FUNCTION: whether that run came to it.
called() {
    local marks=""
    [ ! -s "$runs/$1.marks" ] || read -r marks <"$runs/$1.marks"
    [ "${marks:${index[$2]}:1}" = "#" ]
}

# control PROGRAM: nothing is taken away.  Leaves PROGRAM.seconds when it passes.
control() {
    local began=$EPOCHREALTIME rc=0 seconds
    run "$1" "$1" 300 || rc=$?
    if [ $rc -ne 0 ]; then
        echo "$1: FAILED with nothing taken away, status $rc"
        tail -n 20 "$runs/$1.log"
        return
    fi
    seconds=$(awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }')
    echo "$seconds" >"$runs/$1.seconds"
    echo "$1: passed, $seconds s"
}

# first_red LOG STATUS: the first test that failed and is a witness, or, when the
# program was killed, the one that was running; nothing when there is none.
first_red() {
    local tests
    tests=$(sed -nE 's/^\[  FAILED  \] ([a-z0-9_]+)$/\1/p' "$1")
    if [ -z "$tests" ] || [ "$2" -ge 124 ]; then
        tests+=$'\n'$(sed -nE 's/^\[ RUN      \] ([a-z0-9_]+)$/\1/p' "$1" | tail -n 1)
    fi
    grep -E '^.' <<<"$tests" | grep -vE -m1 -- "$refused"
}

# attempt FUNCTION PROGRAM...: a line in FUNCTION.line when one of them notices.
attempt() {
    local function="$1" program seconds rc how red
    shift
    for program in "$@"; do
        seconds=$(<"$runs/$program.seconds")
        rc=0
        run "$function" "$program" "${seconds%.*}" "BFT_STUB=$function" || rc=$?
        red=$(first_red "$runs/$function.log" $rc)
        [ $rc -ne 0 ] && [ -n "$red" ] && called "$function" "$function" || continue
        case $rc in
        137 | 152) how="no end" ;; # killed, or SIGXCPU
        12[89] | 1[3-9]?) how="signal $((rc - 128))" ;;
        *) how="failed" ;;
        esac
        echo "noticed by $program: $red, $how" >"$runs/$function.line"
        break
    done
    if [ -s "$runs/$function.line" ]; then
        echo "$function: $(<"$runs/$function.line")"
    else
        echo "$function: by none of $# programs of this suite that call it"
    fi
}

running=0
# start COMMAND...: in the background, when fewer than `jobs` are.
start() {
    if [ $running -ge "$jobs" ]; then
        wait -n
        running=$((running - 1))
    fi
    "$@" &
    running=$((running + 1))
}
finish() {
    wait
    running=0
}

pending=("${only[@]}")
[ ${#pending[@]} -gt 0 ] || pending=("${functions[@]}")
total=${#pending[@]} bad=0
awk '$1 == "inline" { print $2 ": inline, so it has no symbol that could be taken away" }
    $1 == "type" { types++ }
    END { printf "%d types, which have no symbol\n", types }' "$stubs/declared.txt"
echo "BFT_SEED=$BFT_SEED BFT_MODEL_OPS=$BFT_MODEL_OPS BFT_HISTORIES=$BFT_HISTORIES"
for suite in unit golden model fault stress; do
    [ ${#pending[@]} -gt 0 ] || break
    programs=()
    for program in $(awk -v suite="$suite" '$1 == suite { print $2 }' "$stubs/programs.txt"); do
        [[ $refusals == *" $program "* ]] || programs+=("$program")
    done
    printf '\n--- %s: %d programs, nothing taken away\n' "$suite" ${#programs[@]}
    for program in ${programs[@]+"${programs[@]}"}; do
        start control "$program"
    done
    finish
    witnesses=()
    for program in ${programs[@]+"${programs[@]}"}; do
        if [ -s "$runs/$program.seconds" ]; then
            witnesses+=("$(<"$runs/$program.seconds") $program")
        else
            bad=$((bad + 1))
        fi
    done
    mapfile -t witnesses < <(printf '%s\n' ${witnesses[@]+"${witnesses[@]}"} | sort -n | awk '{ print $2 }')
    printf '\n--- %s: %d functions, each taken away\n' "$suite" ${#pending[@]}
    for function in "${pending[@]}"; do
        callers=()
        for program in ${witnesses[@]+"${witnesses[@]}"}; do
            if called "$program" "$function"; then callers+=("$program"); fi
        done
        start attempt "$function" ${callers[@]+"${callers[@]}"}
    done
    finish
    left=()
    for function in "${pending[@]}"; do
        [ -s "$runs/$function.line" ] || left+=("$function")
    done
    pending=(${left[@]+"${left[@]}"})
    echo "--- $suite: $((total - ${#pending[@]})) of $total functions noticed so far"
done

printf '\n'
for function in ${pending[@]+"${pending[@]}"}; do
    echo "$function: NOT NOTICED"
done
noticed=$((total - ${#pending[@]}))
echo "$noticed stubs noticed" >>"$tally"
echo "$total functions: $noticed noticed, ${#pending[@]} not; $bad programs fail with nothing taken away"
[ ${#pending[@]} -eq 0 ] && [ $bad -eq 0 ]
