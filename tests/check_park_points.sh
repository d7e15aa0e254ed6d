#!/usr/bin/env bash
# Every park point of the library has a test that stops a thread there.
#
#   check_park_points.sh ROOT
#
# It is stall_test, or the one that tests/stress/stopped_elsewhere.txt says.  Prints
# each point without, and each line of that file which is not true; exit status 1
# when there is one.
set -uo pipefail
cd "$1" || exit 2

list=tests/stress/stopped_elsewhere.txt
stall=tests/stress/stall_test.c
points=$(grep -rhoE 'PARK\("[^"]+"\)' --include='*.c' index buffer fileio storage |
    cut -d'"' -f2 | sort -u)
breaches=0
breach() {
    echo "$1"
    breaches=$((breaches + 1))
}

[ -n "$points" ] || breach "no park points found"
while read -r point test _; do
    case $point in '' | '#'*) continue ;; esac
    file=$(find tests -name "$test.c")
    grep -qxF "$point" <<<"$points" || breach "$list: there is no point $point"
    ! grep -qF "\"$point\"" "$stall" || breach "$list: $stall has $point"
    { [ -n "$file" ] && grep -qF "\"$point\"" "$file"; } ||
        breach "$list: $test does not stop at $point"
done <"$list"
for point in $points; do
    grep -qF "\"$point\"" "$stall" || grep -q "^$point " "$list" ||
        breach "no test stops at $point"
done
[ "$breaches" = 0 ]
