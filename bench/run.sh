#!/usr/bin/env bash
# Installs what the benchmarks need, builds the release preset, and runs them.
#
#   bash bench/run.sh                  all three programs: the engine by itself and
#                                      beside SQLite, 5 minutes, then the default
#                                      grid of compare_engines, up to 2.5 hours
#   bash bench/run.sh quick            the three on less data, about 5 minutes
#   bash bench/run.sh full             every product of compare_engines; goes on
#                                      where an earlier one was broken off
#   bash bench/run.sh engines [ARG...] only bench/compare_engines, with ARGs
#   bash bench/run.sh compare [ARG...] only bench/compare_sqlite, with ARGs
#   bash bench/run.sh engine [ARG...]  only bench/engine_bench, with ARGs
#   bash bench/run.sh larger [ARG...]  only bench/larger, with ARGs
#   bash bench/run.sh space [ARG...]   only bench/space, with ARGs
#   bash bench/run.sh open [ARG...]    only bench/open, with ARGs
#   bash bench/run.sh cold_reads [ARG...]  only bench/cold_reads, with ARGs
#   bash bench/run.sh scaling [ARG...]   only bench/scaling, with ARGs
#   --plots, anywhere                  also draw build/results/*.svg, with gnuplot
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
case "$what" in
all | quick | full | engines | compare | engine) ;;
larger | space | scaling | open | cold_reads) ;;
*)
    echo "no '$what': see the head of bench/run.sh" >&2
    exit 2
    ;;
esac

# The engines to compare with: each is left out, with a line, where it cannot be
# had.
install_peers() {
    local package
    for package in liblmdb-dev librocksdb-dev libleveldb-dev libwiredtiger-dev; do
        bft_apt "$package" ||
            echo "run.sh: $package cannot be installed: compare_engines goes without"
    done
}
build_rust_peer() {
    local log=build/rust-bf-tree.log
    if ! command -v cargo >/dev/null; then
        echo "run.sh: no cargo here: compare_engines goes without the Rust bf-tree"
        return 0
    fi
    mkdir -p build
    if ! cargo build --release --manifest-path bench/rust-bf-tree/Cargo.toml \
        --target-dir build/rust-bf-tree >"$log" 2>&1; then
        tail -n 3 "$log"
        echo "run.sh: cargo cannot build bench/rust-bf-tree ($log): compare_engines goes without"
    fi
}

bft_setup_build
bft_apt libsqlite3-dev
[ -z "$plots" ] || bft_apt gnuplot-nox
case "$what" in
all | quick | full | engines)
    install_peers
    build_rust_peer
    ;;
esac
cmake --preset release
cmake --build build/release -j 2
mkdir -p build/results

engines() {
    build/release/bench/compare_engines "$@"
}
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
    engines
    ;;
quick)
    compare --quick
    engine --records=60000 --benchmark_min_time=0.05
    engines --quick
    ;;
full) engines --full --resume "$@" ;;
engines) engines "$@" ;;
compare) compare "$@" ;;
engine) engine "$@" ;;
larger) build/release/bench/larger "$@" ;;
space) build/release/bench/space "$@" ;;
scaling) build/release/bench/scaling "$@" ;;
open) build/release/bench/open "$@" ;;
cold_reads) build/release/bench/cold_reads "$@" ;;
esac

[ -z "$plots" ] || bash bench/plot.sh build/results
