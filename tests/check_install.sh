#!/usr/bin/env bash
# What is installed is enough for a program elsewhere: the README's example is
# compiled against it by pkg-config and by CMake, each with the static and with
# the shared library, and run; and as C++.
#
#   check_install.sh SOURCE_DIR BUILD_DIR CC FLAGS
set -euo pipefail
source="$1" build="$2" cc="$3" flags="$4"

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
prefix="$dir/prefix"
cmake --install "$build" --prefix "$prefix" >/dev/null
# It may be moved.
mv "$prefix" "$dir/moved"
prefix="$dir/moved"

# The first block of C in the README, made a program.
{
    echo '#include <stdio.h>'
    echo '#include <bftree_stores.h>'
    echo 'int main(void) {'
    awk '/^```c$/ { on = 1; next } /^```$/ { on = 0; if (n) exit } on { print; n++ }' \
        "$source/README.md"
    echo 'puts(bft_version());'
    echo 'return bft_close(db) != BFT_OK; }'
} >"$dir/program.c"

# ran NAME: run $dir/NAME where its database has room.
ran() {
    local out
    mkdir "$dir/$1.d"
    out=$(cd "$dir/$1.d" && "$dir/$1")
    [ "$out" = "$(sed -n 's/^#define BFT_VERSION "\(.*\)"/\1/p' "$prefix/include/bftree.h")" ] || {
        echo "$1: says '$out'"
        exit 1
    }
    [ -s "$dir/$1.d/data/data" ] || {
        echo "$1: made no database"
        exit 1
    }
    echo "$1: ok"
}

pc=$(dirname "$(find "$prefix" -name bftree.pc)")
export PKG_CONFIG_PATH="$pc${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}"
libdir=$(pkg-config --variable=libdir bftree)
strict="-std=c11 -Wall -Wextra -Werror"
# shellcheck disable=SC2046,SC2086 # lists of words
{
    $cc $strict $flags "$dir/program.c" -o "$dir/pkg-config-shared" \
        $(pkg-config --cflags --libs bftree) -Wl,-rpath,"$libdir"
    ran pkg-config-shared
    $cc $strict $flags "$dir/program.c" -o "$dir/pkg-config-static" \
        $(pkg-config --static --cflags --libs bftree | sed 's/-lbftree\b/-l:libbftree.a/')
    ran pkg-config-static
    # For the headers alone: its designators are C's.
    echo '#include <bftree_stores.h>
          int main() { return bft_version()[0] == 0; }' >"$dir/plus.cc"
    $cc -x c++ -Wall -Wextra -Werror $flags -c "$dir/plus.cc" -o "$dir/plus.o" \
        $(pkg-config --cflags bftree)
}

mkdir "$dir/outside"
cat >"$dir/outside/CMakeLists.txt" <<'END'
cmake_minimum_required(VERSION 3.21)
project(outside LANGUAGES C)
find_package(bftree 0.1 REQUIRED)
foreach(kind IN ITEMS "" _shared)
    add_executable(cmake${kind} ../program.c)
    target_link_libraries(cmake${kind} PRIVATE bftree::bftree${kind})
    target_compile_options(cmake${kind} PRIVATE -Wall -Wextra -Werror)
endforeach()
END
cmake -S "$dir/outside" -B "$dir/outside/build" -DCMAKE_PREFIX_PATH="$prefix" \
    -DCMAKE_C_COMPILER="$cc" -DCMAKE_C_FLAGS="$flags" \
    -DCMAKE_RUNTIME_OUTPUT_DIRECTORY="$dir" >/dev/null
cmake --build "$dir/outside/build" >"$dir/build.log" 2>&1 || {
    cat "$dir/build.log"
    exit 1
}
ran cmake
ran cmake_shared
