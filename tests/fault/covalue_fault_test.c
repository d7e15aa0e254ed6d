/*
 * Would the checks of the covalue store notice?  Each planted fault is switched
 * on in turn, and the check that is named for what it breaks must fail; with all
 * of them off, every check must pass.
 *
 * Needs a build with BFT_FAULTS; says so and skips otherwise.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "covalue_checks.h"
#include "covalue_crash.h"
#include "storage/covalue_fault.h"

#ifdef BFT_FAULTS

struct planted {
    enum bfti_covalue_fault_bit fault;
    const char *name;
    const char *(*check)(void);
    const char *check_name;
};

#define PLANTED(fault, check)            \
    {                                    \
        (fault), #fault, (check), #check \
    }

static const struct planted planted[] = {
    PLANTED(BFTI_COVALUE_FAULT_ATOMICITY, a_failed_transaction_changes_nothing),
    PLANTED(BFTI_COVALUE_FAULT_DURABILITY, a_sync_commit_is_durable_on_return),
    PLANTED(BFTI_COVALUE_FAULT_ERASURE, an_erasure_leaves_no_content),
    PLANTED(BFTI_COVALUE_FAULT_BYTES_SINCE, bytes_since_last_signature_is_kept),
    PLANTED(BFTI_COVALUE_FAULT_HEADER, an_existing_header_is_kept),
    PLANTED(BFTI_COVALUE_FAULT_REQUEUE, a_finished_deletion_stays_finished),
    PLANTED(BFTI_COVALUE_FAULT_ATOMICITY,
            every_crash_leaves_whole_transactions),
    PLANTED(BFTI_COVALUE_FAULT_DURABILITY,
            what_was_synced_survives_every_crash),
};
enum { PLANTED_COUNT = sizeof(planted) / sizeof(planted[0]) };

static void every_check_passes_without_a_fault(void **state)
{
    (void)state;
    for (size_t i = 0; i < PLANTED_COUNT; i++) {
        const char *said = planted[i].check();

        if (said != NULL)
            fail_msg("%s: %s", planted[i].check_name, said);
    }
}

static void check_is_noticed(const struct planted *p)
{
    const char *said;

    atomic_store(&bfti_covalue_fault_mask, (unsigned)p->fault);
    said = p->check();
    atomic_store(&bfti_covalue_fault_mask, 0);
    if (said == NULL)
        fail_msg("%s does not notice %s", p->check_name, p->name);
    print_message("%s, %s: %s\n", p->name, p->check_name, said);
}

static void lost_atomicity_is_noticed(void **state)
{
    (void)state;
    check_is_noticed(&planted[0]);
}

static void lost_durability_is_noticed(void **state)
{
    (void)state;
    check_is_noticed(&planted[1]);
}

static void rows_left_by_an_erasure_are_noticed(void **state)
{
    (void)state;
    check_is_noticed(&planted[2]);
}

static void lost_bytes_since_last_signature_are_noticed(void **state)
{
    (void)state;
    check_is_noticed(&planted[3]);
}

static void an_overwritten_header_is_noticed(void **state)
{
    (void)state;
    check_is_noticed(&planted[4]);
}

static void a_requeued_deletion_is_noticed(void **state)
{
    (void)state;
    check_is_noticed(&planted[5]);
}

static void lost_atomicity_is_noticed_after_a_crash(void **state)
{
    (void)state;
    check_is_noticed(&planted[6]);
}

static void lost_durability_is_noticed_after_a_crash(void **state)
{
    (void)state;
    check_is_noticed(&planted[7]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_check_passes_without_a_fault),
        cmocka_unit_test(lost_atomicity_is_noticed),
        cmocka_unit_test(lost_durability_is_noticed),
        cmocka_unit_test(rows_left_by_an_erasure_are_noticed),
        cmocka_unit_test(lost_bytes_since_last_signature_are_noticed),
        cmocka_unit_test(an_overwritten_header_is_noticed),
        cmocka_unit_test(a_requeued_deletion_is_noticed),
        cmocka_unit_test(lost_atomicity_is_noticed_after_a_crash),
        cmocka_unit_test(lost_durability_is_noticed_after_a_crash),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

static void planted_faults_need_their_build(void **state)
{
    (void)state;
    skip();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(planted_faults_need_their_build),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
