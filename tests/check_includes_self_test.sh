#!/usr/bin/env bash
# check_includes.sh lets a clean tree pass and fails for each planted breach.
set -u
check="$(cd "$(dirname "$0")" && pwd)/check_includes.sh"
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
failed=0

clean_tree() {
    rm -rf "${root:?}"/*
    mkdir -p "$root"/{fileio,buffer,index,storage,bindings/node,tests/unit,build}
    echo '#include "bft_status.h"' >"$root/fileio/fileio.h"
    printf '#include "fileio/extent.h"\nenv->free(env->ctx, bfti_alloc(env, 1));\n' >"$root/fileio/pagefile.c"
    echo 'return malloc(bytes);' >"$root/fileio/alloc.c"
    printf '#include <endian.h>\n' >"$root/fileio/extent.h"
    printf '#include "fileio/fileio.h"\n#include "pool.h"\n' >"$root/buffer/pool.c"
    : >"$root/buffer/pool.h"
    : >"$root/fileio/bft_status.h"
    printf '#include "buffer/buffer.h"\n#include "bftree.h"\n' >"$root/index/db.c"
    printf '#include "bftree.h"\n# include "bftree_stores.h"\n' >"$root/storage/covalue.c"
    printf '#include "bftree_stores.h"\n' >"$root/bindings/node/addon.c"
    printf '#include "buffer/pool.h"\n' >"$root/tests/unit/pool_test.c"
    : >"$root/fileio/README.md"
    : >"$root/buffer/README.md"
    : >"$root/build/pool.c"
}

# breach NAME FILE LINE: FILE with LINE in it must be reported, by its name.
breach() {
    clean_tree
    echo "$3" >>"$root/$2"
    if output=$(bash "$check" "$root"); then
        echo "FAILED: not noticed: $1"
        failed=1
    elif ! grep -q "${2##*/}" <<<"$output"; then
        echo "FAILED: noticed, but not named: $1: $output"
        failed=1
    else
        echo "noticed: $1"
    fi
}

clean_tree
if output=$(bash "$check" "$root"); then
    echo "a clean tree passes"
else
    echo "FAILED: a clean tree is refused: $output"
    failed=1
fi
breach "upward" fileio/extent.c '#include "buffer/buffer.h"'
breach "upward, installed header" buffer/merge.c '#include "bftree.h"'
breach "upward, indented" index/leaf.c '  #  include "bftree_stores.h"'
breach "past a door" index/tree.c '#include "buffer/pool.h"'
breach "past two doors" storage/series.c '#include "fileio/extent.h"'
breach "by a relative path" buffer/evict.c '#include "../fileio/extent.h"'
breach "a binding past the doors" bindings/node/jazz.cc '#include "index/db.h"'
breach "in angle brackets" fileio/wal.c '#include <buffer/pool.h>'
breach "memory past the door" index/db.c '    db = calloc(1, sizeof(*db));'
breach "memory given back past the door" storage/covalue.c '	free(store);'
breach "a name used twice" storage/pool.c '/* as in buffer/ */'
exit $failed
