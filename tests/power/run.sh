#!/usr/bin/env bash
# Power cuts under the file systems of this kernel.
#
#   bash tests/power/run.sh --possible         whether this machine lets us
#   bash tests/power/run.sh BUILD WORK TALLY
#
# BUILD is the folder of the target power_tests in a build with -DBFT_FAULTS=ON,
# WORK one for logs of disks, some hundred MB, TALLY a file that gets a line of how
# many images were looked at (tally.sh).  For each file system a disk that keeps a
# log (log_disk) is formatted and mounted, a database lives on it (power_work), and
# the log is replayed up to BFT_POWER_IMAGES (100) points (power_replay).  Then
# the same with faults planted in the library, which a replay is to notice.  And a
# disk of each runs full under a database (power_full).
#
# BFT_SEED repeats what is written, not what the kernel makes of it: a log that
# showed a loss stays in WORK, with the command that looks again.  BFT_POWER_ON
# names the file systems, else it is those that there are tools and a kernel for;
# BFT_POWER_STEPS is how much each of a database's lives does.
#
# Needs root, FUSE and loop devices.  What is mounted is so in a name space of its
# own, and loop devices detach themselves: all is gone with the last process,
# however it ended.
set -u

if [ "${1-}" = --possible ]; then
    [ "$(id -u)" -eq 0 ] && [ -c /dev/fuse ] && [ -c /dev/loop-control ] &&
        losetup --find >/dev/null 2>&1 &&
        unshare --mount true 2>/dev/null
    exit
fi
if [ "${BFT_POWER_APART-}" != yes ]; then
    BFT_POWER_APART=yes exec unshare --mount --propagation private bash "$0" "$@"
fi
build="$1" work="$2" tally="$3"
images="${BFT_POWER_IMAGES-100}"
lives=6 steps="${BFT_POWER_STEPS-250}"
seconds_max=300 # of a program that waits for ever; a replay has 5 more per image
# Which a replay has to notice on each file system; the others of the library are
# other tests' business (planted_faults.txt).
faults="LOG_NOT_SYNCED DATA_NOT_SYNCED TORN_FRAME EXTENT_REUSED_EARLY GATHER_SKIPS_SPLIT"
# Of each, with seeds of their own: what the kernel writes when is chance, and a
# frame must be torn where it shows, which two of three replays see.
tries=12

# --- one disk --------------------------------------------------------------------

# In MiB: the least that the tools take, or somewhat more.
declare -A megabytes=([ext4]=64 [xfs]=304 [btrfs]=192)

# options FILE-SYSTEM NUMBER: how mkfs is called, and after "--" mount.
options() {
    local -a some
    case $1 in
    ext4) some=('-b 4096 --' '-b 1024 -- -o commit=1' '-b 4096 -- -o data=journal'
        '-b 4096 -- -o data=writeback,commit=1' '-b 1024 -- -o nodelalloc'
        '-b 4096 -- -o discard,commit=1') ;;
    xfs) some=('--' '-- -o discard' '-m reflink=0 -- -o logbsize=256k' '-m crc=1 -b size=1024 --') ;;
    btrfs) some=('--' '-- -o commit=1' '-- -o nodatacow' '-- -o discard=sync,flushoncommit'
        '-m single -- -o compress=zstd') ;;
    esac
    echo "${some[$(($2 % ${#some[@]}))]}"
}

disk="" daemon=""

# In the foreground, so that a Ctrl-C reaches it.
limited() {
    timeout --foreground --kill-after=10 "$@"
}

# Mounted at most: DISK/mnt on a loop device on DISK/fuse/disk.
take_apart() {
    [ -n "$disk" ] || return 0
    local busy=0
    if mountpoint -q "$disk/mnt"; then
        timeout 60 umount "$disk/mnt" || { busy=1; umount -l "$disk/mnt"; }
    fi
    if mountpoint -q "$disk/fuse"; then
        # The loop device lets go of it a moment after the unmount.
        for _ in {1..600}; do
            fusermount3 -u "$disk/fuse" 2>/dev/null && break
            sleep 0.05
        done
        ! mountpoint -q "$disk/fuse" || { busy=1; fusermount3 -uz "$disk/fuse"; }
    fi
    if [ -n "$daemon" ]; then
        for _ in {1..200}; do
            kill -0 "$daemon" 2>/dev/null || break
            sleep 0.05
        done
        kill "$daemon" 2>/dev/null
        wait "$daemon" 2>/dev/null
    fi
    daemon="" disk=""
    return $busy
}
trap take_apart EXIT
trap 'exit 130' INT TERM HUP

# record FILE-SYSTEM SEED [NAME=VALUE]: let a database live on such a disk, whose
# log is then WORK/FILE-SYSTEM/disk.log.
record() {
    local type="$1" seed="$2" fault="${3-}" mkfs mount bytes status=0
    bytes=$((megabytes[$type] << 20))
    mkfs=$(options "$type" "$seed")
    mount="${mkfs#*--}" mkfs="${mkfs%%--*}"
    disk="$work/$type"
    mkdir -p "$disk/mnt" "$disk/fuse"
    "$build/log_disk" "$disk/fuse" "$disk/disk.log" $bytes &
    daemon=$!
    for _ in {1..600}; do
        [ ! -e "$disk/fuse/disk" ] || break
        sleep 0.05
    done
    # shellcheck disable=SC2016 # for that shell
    limited $seconds_max "$build/on_loop" "$disk/fuse/disk" bash -c \
        "mkfs.$type -q $mkfs"' "$LOOP" && '"mount -t $type $mount"' "$LOOP" "$1"' \
        mkfs "$disk/mnt" >"$disk/mkfs.txt" 2>&1 &&
        limited $seconds_max env ${fault:+"$fault"} "$build/power_work" "$disk/mnt/db" \
            "$disk/fuse/marks" "$seed" $lives "$steps" || status=$?
    [ $status -eq 0 ] || cat "$work/$type/mkfs.txt" 2>/dev/null
    if ! take_apart; then
        echo "$type: it could not be taken apart" >&2
        [ $status -ne 0 ] || status=2
    fi
    return $status
}

# replay FILE-SYSTEM SEED IMAGES [NAME=VALUE]
replay() {
    local type="$1" seed="$2"
    limited $((seconds_max + 5 * $3)) env BFT_SEED="$seed" ${4:+"$4"} \
        "$build/power_replay" "$work/$type/disk.log" "$type" "$work/$type/mnt" \
        "$seed" $lives "$steps" $((megabytes[$type] << 20)) "$3"
}

# --- all of them -----------------------------------------------------------------

# Those which this machine has tools and a kernel for.
supported() {
    local type
    for type in ext4 xfs btrfs; do
        if ! command -v "mkfs.$type" >/dev/null; then
            echo "$type: left out, there is no mkfs.$type" >&2
        elif ! grep -qw "$type" /proc/filesystems && ! modprobe -q "$type" 2>/dev/null; then
            echo "$type: left out, the kernel does not have it" >&2
        else
            echo "$type"
        fi
    done
}

# Sets RECORDED to when the replay began.  Status 1 is a replay's alone: a loss.
record_and_replay() {
    record "$@" || return 2
    recorded=$EPOCHREALTIME
    replay "$1" "$2" "$images" "${3-}"
}

# lives_on FILE-SYSTEM SEED: nothing is lost.
lives_on() {
    local type="$1" seed="$2" began=$EPOCHREALTIME recorded="" status=0
    echo "$type: BFT_SEED=$seed, mkfs and mount: $(options "$type" "$seed")"
    record_and_replay "$type" "$seed" >"$work/out.txt" 2>&1 || status=$?
    cat "$work/out.txt"
    sed -n 's/^tally: //p' "$work/out.txt" >>"$tally"
    if [ $status -eq 0 ]; then
        awk -v type="$type" -v a="$began" -v b="$recorded" -v c="$EPOCHREALTIME" -v n="$images" \
            'BEGIN { printf "%s: written in %.1f s, %.0f images a minute\n", type, b - a, n * 60 / (c - b) }'
        return 0
    fi
    mv "$work/$type/disk.log" "$work/$type-$seed.log"
    echo "$type: FAILED, status $status; to look again,"
    echo "  BFT_SEED=$seed $build/power_replay $work/$type-$seed.log $type" \
        "DIRECTORY $seed $lives $steps $((megabytes[$type] << 20)) $images"
    return 1
}

# notices FILE-SYSTEM SEED FAULT: the replay finds a loss.
notices() {
    local type="$1" seed="$2" fault="$3" status=0 try
    for ((try = 0; try < tries; try++)); do
        status=0
        record_and_replay "$type" $((seed + try)) "BFT_FAULT=$fault" \
            >"$work/out.txt" 2>&1 || status=$?
        if [ $status -eq 1 ]; then
            printf '%-20s noticed on %-6s BFT_SEED=%s: %s\n' "$fault" "$type" $((seed + try)) \
                "$(grep -m1 -B1 '^LOST' "$work/out.txt" | head -1 | sed "s|$work/||; s/^ *//" | cut -c1-120)"
            return 0
        fi
    done
    printf '%-20s MISSED on %s, BFT_SEED=%s and the next %d, last status %d\n' "$fault" "$type" \
        "$seed" $((tries - 1)) $status
    cat "$work/out.txt"
    return 1
}

# runs_full FILE-SYSTEM NUMBER: on a disk without a log.
runs_full() {
    local type="$1" mkfs mount status=0
    mkfs=$(options "$type" "$2")
    mount="${mkfs#*--}" mkfs="${mkfs%%--*}"
    disk="$work/$type"
    mkdir -p "$disk/mnt"
    truncate -s $((megabytes[$type] << 20)) "$disk/image"
    # shellcheck disable=SC2016 # for that shell
    limited $seconds_max "$build/on_loop" "$disk/image" bash -c \
        "mkfs.$type -q $mkfs"' "$LOOP" && '"mount -t $type $mount"' "$LOOP" "$1"' \
        mkfs "$disk/mnt" >"$disk/mkfs.txt" 2>&1 &&
        limited $seconds_max "$build/power_full" "$disk/mnt" || status=$?
    [ $status -eq 0 ] || { echo "$type ($mkfs, $mount): FAILED, status $status"; cat "$disk/mkfs.txt"; }
    take_apart || status=2
    return $status
}

failed=0
rm -rf "$work"
mkdir -p "$work"
seed="${BFT_SEED-$(date +%s%N)}"
types="${BFT_POWER_ON-$(supported)}"
if [ -z "$types" ]; then
    echo "there is no file system to be tried" >&2
    exit 1
fi
for type in $types; do
    for number in 0 1 2; do
        echo "$type: runs full, mkfs and mount: $(options "$type" $number)"
        runs_full "$type" $number || failed=1
        rm -rf "${work:?}/$type"
    done
    lives_on "$type" "$seed" || failed=1
    rm -rf "${work:?}/$type"
    seed=$((seed + 1))
done
for fault in $faults; do
    for type in $types; do
        notices "$type" "$seed" "$fault" || failed=1
        rm -rf "${work:?}/$type"
        seed=$((seed + 1))
    done
done
exit $failed
