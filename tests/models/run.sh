#!/usr/bin/env bash
# Explores the models of this folder, all their states, each as it is and with
# each of its guards taken away:
#
#   bash tests/models/run.sh BUILD TALLY [MODEL...]
#
# BUILD is a folder for what spin and the compiler make, TALLY a file that gets
# lines of what was done (../tally.sh).  models.txt says what is to be explored.  A
# model as it is must hold; one without a guard must not, by an assertion of its own
# or because a process cannot go on.  A search that was cut short is a failure.  To
# see how a model breaks, the steps are shown by
#
#   spin -t -p -g BUILD/MODEL.REMOVED/model.pml
set -u
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
build="$1" tally="$2"
shift 2
only=" $* "
cpu_seconds_max=60
memory_mb_max=1000
depth_max=100000
mkdir -p "$build"

# The guards that a model has, by its text.
guards_of() {
    grep -oE '^#if(n?def) NO_[A-Z_]+' "$here/$1.pml" | sed 's/.* //' | sort -u
}

# Each model, and each guard of one, has a line in the list, and no others do.
check_list() {
    local model guard sizes size bad=0
    for model in "$here"/*.pml; do
        model=$(basename "$model" .pml)
        for guard in none $(guards_of "$model"); do
            if ! grep -qE "^$model +$guard( |\$)" "$here/models.txt"; then
                echo "nobody explores $model with $guard removed: models.txt" >&2
                bad=1
            fi
        done
    done
    while read -r model guard sizes; do
        if [ "$guard" != none ] && ! guards_of "$model" | grep -qx "$guard"; then
            echo "$model has no guard $guard: models.txt" >&2
            bad=1
        fi
        for size in $sizes; do
            size=${size#-D}
            if ! grep -qE "^#if(n?def)? ${size%%=*}\$" "$here/$model.pml"; then
                echo "$model has no size $size: models.txt" >&2
                bad=1
            fi
        done
    done < <(grep -E '^[a-z]' "$here/models.txt")
    return $bad
}

# What the search of OUT says, in one word or two.
verdict_of() {
    local out="$1"
    if ! grep -q '^State-vector' "$out"; then
        echo "NO END"
    elif grep -q 'errors: 0$' "$out"; then
        # Of "Warning: Search not completed" all kinds, one by one.
        if grep -qE 'not completed|depth too small|out of memory|memory limit' "$out"; then
            echo "CUT SHORT"
        else
            echo holds
        fi
    elif grep -qE '^pan:1: (assertion violated +[(!]|invalid end state)' "$out"; then
        echo breaks
    else # an index out of bounds, and the like: the model's own fault
        echo "BAD MODEL"
    fi
}

# explore MODEL REMOVED [-DNAME=VALUE...]: prints a line; 0 when it is as it should.
explore() {
    local model="$1" removed="$2" expected=breaks effort=-O0 began=$EPOCHREALTIME
    local dir out states verdict
    shift 2
    dir="$build/$model.$removed"
    [ $# -eq 0 ] || dir="$dir.$(printf '%s' "$@" | tr -cd 'A-Z0-9')"
    if [ "$removed" = none ]; then
        expected=holds effort=-O1
    else
        set -- "$@" "-D$removed"
    fi
    rm -rf "$dir"
    mkdir -p "$dir"
    out="$dir/out"
    # What was left out goes into the text: `spin -t` knows of it then.
    {
        printf '%s\n' "$@" | sed -n 's/^-D\([A-Z0-9_]*\)=\{0,1\}\(.*\)/#define \1 \2/p'
        cat "$here/$model.pml"
    } >"$dir/model.pml"
    (
        cd "$dir" && spin -a model.pml >made 2>&1 && ! grep -iE 'error|warning' made &&
            gcc $effort -w -DSAFETY -DCOLLAPSE -DMEMLIM=$memory_mb_max -o pan pan.c &&
            ulimit -t $cpu_seconds_max && ./pan -m$depth_max -w22
    ) >"$out" 2>&1
    verdict=$(verdict_of "$out")
    states=$(awk '/states, stored/ { printf "%.0f", $1; exit }' "$out")
    printf '%-12s %-20s %-34s %9s %6.1f s  %s\n' "$model" "$removed" "${*/-D$removed/}" \
        "${states:-0}" "$(awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN { print b - a }')" \
        "$verdict$([ "$verdict" = "$expected" ] || echo ", not $expected")"
    rm -f "$dir"/pan "$dir"/pan.*
    if [ "$verdict" != "$expected" ]; then
        tail -n 25 "$dir/made" "$out" >&2
        return 1
    fi
    if [ "$removed" = none ]; then
        echo "${states:-0} model states" >>"$build/tally"
    else
        echo "1 guards removed" >>"$build/tally"
    fi
}

check_list || exit 1
rm -f "$build/tally"
bad=0 models=""
while read -r -a words; do
    if [ ${#words[@]} -lt 2 ] || [[ ${words[0]} = \#* ]]; then continue; fi
    if [ "$only" != "  " ] && [[ $only != *" ${words[0]} "* ]]; then continue; fi
    [ "$models" ] || printf '%-12s %-20s %-34s %9s\n' MODEL REMOVED SIZES STATES
    models+="${words[0]}"$'\n'
    explore "${words[@]}" || bad=$((bad + 1))
done <"$here/models.txt"
count=$(printf '%s' "$models" | sort -u | wc -l)
[ "$count" -gt 0 ] || { echo "no such model: $only" >&2; exit 1; }
echo "$count models" >>"$build/tally"
cat "$build/tally" >>"$tally"
awk '{ n = $1; sub(/^[0-9]+ /, ""); done[$0] += n }
    END { printf "%d models with %d states hold; without a guard %d times one broke\n",
        done["models"], done["model states"], done["guards removed"] }' "$build/tally"
echo "$bad searches not as they should be"
[ "$bad" -eq 0 ]
