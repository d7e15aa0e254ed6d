/*
 * The rows of one store, as maps.  Headers and transactions are kept as JSON
 * text: each read gives a fresh object, and what a caller does to it stays
 * with the caller.
 *
 * Every change takes an undo list and appends to it; a transaction that fails
 * runs its list backwards.
 */
import { cojsonInternals, logger } from "cojson";
import type {
  SessionRow,
  SignatureAfterRow,
  StorageReconciliationAcquireResult,
  StorageReconciliationLockRow,
  StoredCoValueRow,
  StoredSessionRow,
  TransactionRow,
} from "cojson";

export type CoID = StoredCoValueRow["id"];
export type SesID = SessionRow["sessionID"];
export type Header = StoredCoValueRow["header"];
export type Tx = TransactionRow["tx"];
export type Signature = SignatureAfterRow["signature"];
export type KnownState = {
  id: CoID;
  header: boolean;
  sessions: Record<SesID, number>;
};
export type SyncUpdate = { id: CoID; peerId: string; synced: boolean };

/* What addTransaction() and addSignatureAfter() do where a row is already. */
export type OnConflict = "fail" | "overwrite";

export type Undo = (() => void)[];

export function rollBack(undo: Undo) {
  while (undo.length > 0) undo.pop()!();
}

/* Set KEY of MAP, or remove it where VALUE is undefined. */
function assign<K, V>(map: Map<K, V>, key: K, value: V | undefined, undo: Undo) {
  const old = map.get(key);
  undo.push(() => (old === undefined ? map.delete(key) : map.set(key, old)));
  if (value === undefined) map.delete(key);
  else map.set(key, value);
}

/* Values by index: both bounds inclusive, ascending, gaps skipped. */
class Indexed<V> {
  private values: (V | undefined)[] = [];

  get(idx: number): V | undefined {
    return this.values[idx];
  }

  put(idx: number, value: V, onConflict: OnConflict, undo: Undo) {
    const old = this.values[idx];
    if (old !== undefined && onConflict === "fail")
      throw new Error(`there is a row with index ${idx}`);
    undo.push(() => (this.values[idx] = old));
    this.values[idx] = value;
  }

  range(from: number, to: number): { idx: number; value: V }[] {
    const found: { idx: number; value: V }[] = [];
    const end = Math.min(to, this.values.length - 1);
    for (let idx = Math.max(from, 0); idx <= end; idx++) {
      const value = this.values[idx];
      if (value !== undefined) found.push({ idx, value });
    }
    return found;
  }
}

export class MemoryTables {
  /* CoValue rows are dense, from 1: getCoValueIDs() counts on it. */
  private readonly coValues: { id: CoID; header: string }[] = [];
  private readonly coValueRowIDs = new Map<string, number>();
  private readonly sessions = new Map<number, StoredSessionRow>();
  private readonly sessionsByCoValue = new Map<number, Map<SesID, number>>();
  private sessionRowIDs = 0;
  private readonly transactions = new Map<number, Indexed<string>>();
  private readonly signatures = new Map<number, Indexed<Signature>>();
  private readonly deleted = new Map<CoID, "pending" | "done">();
  private readonly unsynced = new Map<CoID, Set<string>>();
  private readonly locks = new Map<string, StorageReconciliationLockRow>();
  /* The end of the last asynchronous transaction, failed or not. */
  private lastTransaction: Promise<unknown> = Promise.resolve();

  /* --- CoValues --- */

  coValueRowID(id: string): number | undefined {
    return this.coValueRowIDs.get(id);
  }

  coValue(id: string): StoredCoValueRow | undefined {
    const rowID = this.coValueRowIDs.get(id);
    if (rowID === undefined) return undefined;
    const row = this.coValues[rowID - 1]!;
    try {
      return { rowID, id: row.id, header: JSON.parse(row.header) as Header };
    } catch (err) {
      logger.warn("Invalid JSON in header", { id, err });
      return undefined;
    }
  }

  /* A header that is there is never replaced. */
  upsertCoValue(id: string, header?: Header): number | undefined {
    const rowID = this.coValueRowIDs.get(id);
    if (rowID !== undefined || !header) return rowID;
    this.coValues.push({ id: id as CoID, header: JSON.stringify(header) });
    this.coValueRowIDs.set(id, this.coValues.length);
    return this.coValues.length;
  }

  /* OFFSET is a row id. */
  coValueIDs(limit: number, offset: number): { id: CoID }[] {
    return this.coValues
      .slice(offset, offset + limit)
      .map(({ id }) => ({ id }));
  }

  coValueCount(): number {
    return this.coValues.length;
  }

  knownState(id: string): KnownState | undefined {
    const rowID = this.coValueRowIDs.get(id);
    if (rowID === undefined) return undefined;
    const known: KnownState = { id: id as CoID, header: true, sessions: {} };
    for (const { sessionID, lastIdx } of this.sessionsOf(rowID))
      known.sessions[sessionID] = lastIdx;
    return known;
  }

  /* --- Sessions, their transactions and signatures --- */

  /* In the order in which they were first stored. */
  sessionsOf(coValue: number): StoredSessionRow[] {
    return [...(this.sessionsByCoValue.get(coValue)?.values() ?? [])]
      .sort((a, b) => a - b)
      .map((rowID) => ({ ...this.sessions.get(rowID)! }));
  }

  session(coValue: number, sessionID: SesID): StoredSessionRow | undefined {
    const rowID = this.sessionsByCoValue.get(coValue)?.get(sessionID);
    return rowID === undefined ? undefined : { ...this.sessions.get(rowID)! };
  }

  upsertSession(update: SessionRow, undo: Undo): number {
    let ofCoValue = this.sessionsByCoValue.get(update.coValue);
    if (!ofCoValue) {
      ofCoValue = new Map();
      this.sessionsByCoValue.set(update.coValue, ofCoValue);
    }
    let rowID = ofCoValue.get(update.sessionID);
    if (rowID === undefined) {
      rowID = ++this.sessionRowIDs;
      assign(ofCoValue, update.sessionID, rowID, undo);
    }
    assign(this.sessions, rowID, { ...update, rowID }, undo);
    return rowID;
  }

  insertTransaction(
    session: number,
    idx: number,
    tx: string,
    onConflict: OnConflict,
    undo: Undo,
  ) {
    const rows = this.transactions.get(session) ?? new Indexed<string>();
    assign(this.transactions, session, rows, undo);
    rows.put(idx, tx, onConflict, undo);
  }

  transactionText(session: number, idx: number): string | undefined {
    return this.transactions.get(session)?.get(idx);
  }

  transactionsOf(session: number, from: number, to: number): TransactionRow[] {
    const rows = this.transactions.get(session)?.range(from, to) ?? [];
    try {
      return rows.map(({ idx, value }) => ({
        ses: session,
        idx,
        tx: JSON.parse(value) as Tx,
      }));
    } catch (err) {
      logger.warn("Invalid JSON in transaction", { err });
      return [];
    }
  }

  insertSignature(
    session: number,
    idx: number,
    signature: Signature,
    onConflict: OnConflict,
    undo: Undo,
  ) {
    const rows = this.signatures.get(session) ?? new Indexed<Signature>();
    assign(this.signatures, session, rows, undo);
    rows.put(idx, signature, onConflict, undo);
  }

  signaturesOf(session: number, from: number): SignatureAfterRow[] {
    const rows = this.signatures.get(session)?.range(from, Infinity) ?? [];
    return rows.map(({ idx, value }) => ({
      ses: session,
      idx,
      signature: value,
    }));
  }

  /* --- Deletion --- */

  /* What is done stays done. */
  markDeleted(id: CoID, undo: Undo) {
    if (!this.deleted.has(id)) assign(this.deleted, id, "pending", undo);
  }

  waitingForDelete(): CoID[] {
    return [...this.deleted]
      .filter(([, status]) => status === "pending")
      .map(([id]) => id)
      .sort();
  }

  /* All sessions but those whose id ends in $: they carry the deletion. */
  erase({ id, rowID }: { id: CoID; rowID: number }, undo: Undo) {
    const ofCoValue = this.sessionsByCoValue.get(rowID);
    for (const { sessionID, rowID: session } of this.sessionsOf(rowID)) {
      if (sessionID.endsWith("$")) continue;
      assign(this.transactions, session, undefined, undo);
      assign(this.signatures, session, undefined, undo);
      assign(this.sessions, session, undefined, undo);
      assign(ofCoValue!, sessionID, undefined, undo);
    }
    assign(this.deleted, id, "done", undo);
  }

  /* --- Which peers have what --- */

  trackSyncState(updates: SyncUpdate[]) {
    for (const { id, peerId, synced } of updates) {
      const peers = this.unsynced.get(id) ?? new Set();
      if (synced) peers.delete(peerId);
      else peers.add(peerId);
      if (peers.size > 0) this.unsynced.set(id, peers);
      else this.unsynced.delete(id);
    }
  }

  unsyncedIDs(): CoID[] {
    return [...this.unsynced.keys()].sort();
  }

  stopTracking(id: CoID) {
    this.unsynced.delete(id);
  }

  /* --- Reconciliation locks --- */

  lock(key: string): StorageReconciliationLockRow | undefined {
    const row = this.locks.get(key);
    return row && { ...row };
  }

  putLock(row: StorageReconciliationLockRow, undo: Undo) {
    assign(this.locks, row.key, { ...row }, undo);
  }

  /* The limits are read at each call: tests change them. */
  acquireLock(
    session: SesID,
    peer: string,
    undo: Undo,
  ): StorageReconciliationAcquireResult {
    const limits = cojsonInternals.STORAGE_RECONCILIATION_CONFIG;
    const key = `lock#${peer}`;
    const now = Date.now();
    const row = this.locks.get(key);
    if (
      row?.releasedAt &&
      now - row.releasedAt < limits.RECONCILIATION_INTERVAL_MS
    )
      return { acquired: false, reason: "not_due" };
    const held = row !== undefined && !row.releasedAt;
    if (
      held &&
      row.acquiredAt + limits.LOCK_TTL_MS >= now &&
      row.holderSessionId !== session
    )
      return { acquired: false, reason: "lock_held" };
    const lastProcessedOffset = held ? row.lastProcessedOffset : 0;
    this.putLock(
      { key, holderSessionId: session, acquiredAt: now, lastProcessedOffset },
      undo,
    );
    return { acquired: true, lastProcessedOffset };
  }

  renewLock(session: SesID, peer: string, offset: number, undo: Undo) {
    const row = this.lock(`lock#${peer}`);
    if (row && row.holderSessionId === session && !row.releasedAt)
      this.putLock({ ...row, lastProcessedOffset: offset }, undo);
  }

  releaseLock(session: SesID, peer: string, undo: Undo) {
    const row = this.lock(`lock#${peer}`);
    if (row && row.holderSessionId === session)
      this.putLock(
        { ...row, releasedAt: Date.now(), lastProcessedOffset: 0 },
        undo,
      );
  }

  /* --- Transactions --- */

  /* Run WORK once all transactions of this store before it have ended. */
  inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.lastTransaction.then(work);
    this.lastTransaction = result.catch(() => {});
    return result;
  }
}
