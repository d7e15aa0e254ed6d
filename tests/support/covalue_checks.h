/*
 * Checks of the covalue store that cojson's own tests would not miss.  The unit
 * tests run them as they are; the fault test runs the same ones with a fault
 * planted and expects each to find its own.
 *
 * A check opens a store of its own.  It returns NULL, or what it found wrong; it
 * asserts only what no planted fault touches.
 */
#ifndef COVALUE_CHECKS_H
#define COVALUE_CHECKS_H

const char *a_failed_transaction_changes_nothing(void);
const char *a_sync_commit_is_durable_on_return(void);
const char *an_erasure_leaves_no_content(void);
const char *bytes_since_last_signature_is_kept(void);
const char *an_existing_header_is_kept(void);
const char *a_finished_deletion_stays_finished(void);

#endif
