#!/usr/bin/env bash
# The unit, golden and fault tests in valgrind's memcheck, which knows of each byte
# whether it was ever written, as no sanitizer of the other suites does.
#
#   bash tests/valgrind.sh BUILD-FOLDER TALLY-FILE
#
# Programs that run for more than a few seconds without it take minutes with it, and
# what they do is repetition: they are left out.  A leak is the business of asan.
set -u
build="$1" tally="$2"

too_long=(backup_test backup_race_test bad_input_test bulk_race_test bulk_test cache_test
    clean_test cursor_test damage_sweep_test engine_test feed_end_test feed_test
    image_race_test large_value_test linear_check_test memory_test minipage_test
    original_faults_test range_test recovery_fault_test restore_test rounds_test salvage_log_test
    salvage_test scenario_fault_test space_model_test space_test staged_test wal_stall_test
    wal_test)
# They start processes, have stacks of their own, or ask the kernel for what memcheck
# does not know.
cannot=(vfs_uring_test vfs_direct_test read_only_test open_test sched_test threads_test)

programs=0 failed=0
for program in $(cd "$build" && ctest -N -L '^(unit|golden|fault)$' |
    sed -n 's/^ *Test *#[0-9]*: //p'); do
    [ -x "$build/tests/$program" ] || continue
    [[ " ${too_long[*]} ${cannot[*]} " != *" $program "* ]] || continue
    printf '%s: ' "$program"
    if (cd "$build/tests/scratch" && TMPDIR="$PWD" timeout 1200 valgrind -q \
        --error-exitcode=99 --track-origins=yes "../$program") \
        >"$build/valgrind.txt" 2>&1; then
        echo "clean"
    else
        echo "FAILED"
        cat "$build/valgrind.txt"
        failed=1
    fi
    programs=$((programs + 1))
done
echo "tally: $programs programs in memcheck" | tee /dev/stderr | sed 's/^tally: //' >>"$tally"
exit $failed
