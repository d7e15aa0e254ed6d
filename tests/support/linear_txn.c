/* Transactions and snapshots as operations of a history. */
#include "linear_check.h"

#include <assert.h>
#include <string.h>

void linear_txn_begin(struct linear_txn *txn, unsigned thread,
                      bool serializable, uint64_t call, uint64_t end)
{
    memset(txn, 0, sizeof(*txn));
    txn->serializable = serializable;
    txn->begin.kind = LINEAR_SNAPSHOT;
    txn->begin.thread = thread;
    txn->begin.call = call;
    txn->begin.end = end;
}

void linear_txn_read(struct linear_txn *txn, unsigned key, uint32_t value)
{
    uint32_t bit = 1u << key;
    bool own = txn->writes & bit;
    const uint32_t *known = own ? txn->value : txn->begin.seen;
    assert(key < LINEAR_KEYS);
    if ((own || txn->begin.reads & bit) && known[key] != value)
        txn->begin.torn |= bit;
    if (own)
        return;
    txn->begin.reads |= bit;
    txn->begin.seen[key] = value;
}

void linear_txn_write(struct linear_txn *txn, unsigned key, uint32_t value)
{
    assert(key < LINEAR_KEYS);
    txn->writes |= 1u << key;
    txn->value[key] = value;
}

void linear_txn_end(const struct linear_txn *txn, bool committed, uint64_t call,
                    uint64_t end, struct linear_history *h)
{
    struct linear_op commit = txn->begin;
    if (txn->begin.reads || txn->begin.torn)
        linear_add(h, &txn->begin);
    if (!committed || !txn->writes)
        return;
    commit.kind = LINEAR_COMMIT;
    commit.call = call;
    commit.end = end;
    commit.torn = 0; /* the begin says so */
    if (!txn->serializable)
        commit.reads &= txn->writes;
    commit.writes = txn->writes;
    memcpy(commit.value, txn->value, sizeof(commit.value));
    linear_add(h, &commit);
}
