#!/usr/bin/env bash
# Installs what the benchmarks need, builds the release preset, and runs them.
#
#   bash bench/run.sh                  the comparison, about 3 minutes, and the
#                                      engine by itself, about 2
#   bash bench/run.sh quick            the same on less data, about 2 minutes
#   bash bench/run.sh compare [ARG...] only bench/compare_sqlite, with ARGs
#   bash bench/run.sh engine [ARG...]  only bench/engine_bench, with ARGs
#   --plots, anywhere                  also draw build/results/*.png, with gnuplot
#
# Results are written below build/results/: JSON lines for programs, Markdown
# for people.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/setup.sh

plots=""
arguments=()
for argument in "$@"; do
    if [ "$argument" = --plots ]; then
        plots=1
    else
        arguments+=("$argument")
    fi
done
set -- ${arguments[@]+"${arguments[@]}"}
what="${1-all}"
[ $# -eq 0 ] || shift

bft_setup_build
bft_apt libsqlite3-dev
[ -z "$plots" ] || bft_apt gnuplot-nox
cmake --preset release
cmake --build build/release -j 2
mkdir -p build/results

compare() {
    build/release/bench/compare_sqlite "$@"
}
engine() {
    build/release/bench/engine_bench "$@"
}

case "$what" in
all)
    compare
    engine --benchmark_min_time=0.3
    ;;
quick)
    compare --quick
    engine --records=60000 --benchmark_min_time=0.05
    ;;
compare) compare "$@" ;;
engine) engine "$@" ;;
*)
    echo "no '$what': see the head of bench/run.sh" >&2
    exit 2
    ;;
esac

if [ -n "$plots" ] && [ -f build/results/compare_sqlite.jsonl ]; then
    bash bench/plot.sh build/results
fi
