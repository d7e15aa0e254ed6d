#!/usr/bin/env bash
# Includes run downward and through doors, memory comes through the allocator's
# door, and no file name occurs twice.
#
#   check_includes.sh ROOT
#
# A file in a folder may include: its own folder's headers, the doors
# fileio/fileio.h and buffer/buffer.h of folders below it, and the installed
# headers of its own folder and those below by bare name.  Prints each breach;
# exit status 1 when there is one.
set -uo pipefail
cd "$1" || exit 2

folders="fileio buffer index storage bindings"
breaches=$(mktemp)
trap 'rm -f "$breaches"' EXIT

level() {
    case $1 in
    fileio) echo 1 ;; buffer) echo 2 ;; index) echo 3 ;;
    storage) echo 4 ;; bindings) echo 5 ;; *) echo 9 ;;
    esac
}

# Whether a file of folder $1, lying in directory $2, may include "$3".
allowed() {
    [ ! -f "$2/$3" ] || case $3 in *..*) ;; *) return 0 ;; esac
    case $3 in
    fileio/fileio.h | buffer/buffer.h)
        [ "$(level "${3%%/*}")" -le "$(level "$1")" ] ;;
    bft_status.h) return 0 ;;
    bftree.h | bftree_backup.h | bftree_bulk.h | bftree_feed.h) [ "$(level "$1")" -ge "$(level index)" ] ;;
    bftree_stores.h) [ "$(level "$1")" -ge "$(level storage)" ] ;;
    *..*) return 1 ;;
    "$1"/*) return 0 ;;
    *) return 1 ;;
    esac
}

sources() {
    for folder in $folders; do
        [ ! -d "$folder" ] ||
            find "$folder" \( -name node_modules -o -name build \) -prune -o \
                -type f \( -name '*.[ch]' -o -name '*.cc' -o -name '*.hh' -o -name '*.cpp' \) -print
    done
}

# Pipes and no <(...): that needs /dev/fd, and without it nothing was checked.
sources | while IFS= read -r file; do
    grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' "$file" |
        sed -E 's/^([0-9]+):[^"]*"([^"]*)".*/\1 \2/' |
        while read -r line included; do
            allowed "${file%%/*}" "$(dirname "$file")" "$included" ||
                echo "$file:$line: may not include \"$included\"" >>"$breaches"
        done
    # A path from the root in angle brackets would be the same breach unseen.
    grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]*<(fileio|buffer|index|storage|bindings)/' "$file" |
        sed "s|^\([0-9]*\):.*|$file:\1: includes a folder of ours in angle brackets|" >>"$breaches"
    # Below the bindings all memory comes from struct bfti_env, whose system
    # allocator is the one file excepted.
    case $file in
    bindings/* | fileio/alloc.c) ;;
    *)
        grep -nE '(^|[^_[:alnum:]>.])(m|c|re|aligned_)alloc *\(|(^|[^_[:alnum:]>.])(free|strn?dup|posix_memalign) *\(' "$file" |
            sed "s|^\([0-9]*\):.*|$file:\1: memory past the allocator's door|" >>"$breaches"
        ;;
    esac
done

# Names that a tool prescribes for each folder are excepted; libFuzzer names inputs
# by their contents.
find . \( -name .git -o -name build -o -name node_modules -o -name corpus \) -prune -o -type f -print |
    sed 's|.*/||' |
    grep -vxE 'README\.md|run\.sh|CMakeLists\.txt|package\.json|package-lock\.json|tsconfig\.json|\.npmrc|\.gitignore|\.gitattributes|\.npmignore|LICENSE|index\..*' |
    sort | uniq -d | sed 's|$|: this file name occurs more than once in the tree|' >>"$breaches"

cat "$breaches"
[ ! -s "$breaches" ]
