/* cojson's synchronous client interface over a native database. */
import { logger } from "cojson";
import type {
  DBClientInterfaceSync,
  DBTransactionInterfaceSync,
  SessionRow,
} from "cojson";
import { BftreeError } from "./bftree-error.ts";
import { Kind, change, jsonOf, pack } from "./changes.ts";
import type { Change } from "./changes.ts";
import { durabilityNumber } from "./durability.ts";
import type { Durability } from "./durability.ts";
import { KnownAhead } from "./known-ahead.ts";
import {
  appliedChanges,
  appliedRow,
  calls,
  result,
  setNumber,
  setText,
} from "./native.ts";
import type { Handle } from "./native.ts";
import { ReadAhead } from "./read-ahead.ts";
import * as reads from "./reads.ts";
import type { Read } from "./reads.ts";
import { RowCache } from "./row-cache.ts";
import { NEW_COVALUE, TransactionRows } from "./transaction-rows.ts";
import type {
  CoID,
  Header,
  LockRow,
  SesID,
  SessionUpdate,
  SignatureAfter,
  SyncUpdate,
  Tx,
} from "./rows.ts";

/* Times that a transaction is run again because another handle was faster. */
export const CONFLICTS_MAX = 100;

export const isConflict = (error: unknown) =>
  error instanceof BftreeError && error.code === "BFT_CONFLICT";

/* Find the CoValue or make it: most that come with a header are new. */
export const coValueChange = (id: string, header: Header) =>
  change(Kind.COVALUE, 0, 0, 0, id, jsonOf(header, "a header"));

/* The changes of trackCoValuesSyncState(). */
export function syncStateChanges(updates: readonly SyncUpdate[]): Change[] {
  return updates.map(({ id, peerId, synced }) =>
    change(synced ? Kind.SYNCED : Kind.UNSYNCED, 0, 0, 0, id, peerId),
  );
}

class TransactionSync implements DBTransactionInterfaceSync {
  constructor(
    private readonly client: BftreeClientSync,
    readonly rows: TransactionRows,
  ) {}

  getSingleCoValueSession(coValueRow: number, sessionID: SesID) {
    const coValue = this.client.rowOf(coValueRow);
    const known = this.rows.session(coValue, sessionID);
    if (known !== null) return known;
    const cached = this.client.cachedSession(coValue, sessionID);
    return cached === null
      ? this.rows.sessionAssumed(coValue, sessionID)
      : this.rows.sessionRead(
          coValue,
          sessionID,
          cached ?? this.client.session(coValue, sessionID),
        );
  }

  markCoValueAsDeleted(id: CoID) {
    this.rows.markDeleted(id);
  }

  addSessionUpdate({ sessionUpdate }: SessionUpdate) {
    const coValue = this.client.rowOf(sessionUpdate.coValue);
    if (coValue === sessionUpdate.coValue)
      return this.rows.putSession({ sessionUpdate });
    return this.rows.putSession({
      sessionUpdate: { ...sessionUpdate, coValue },
    });
  }

  addTransaction(session: number, idx: number, tx: Tx) {
    this.rows.putTransaction(session, idx, tx);
  }

  addSignatureAfter(signature: SignatureAfter) {
    this.rows.putSignature(signature);
  }

  getStorageReconciliationLock(key: string) {
    return this.rows.lock(key) ?? this.client.lock(key);
  }

  putStorageReconciliationLock(row: LockRow) {
    this.rows.putLock(row);
  }
}

/* Taking a CoValue for new that is not costs a conflict: then the next ones,
 * which may well come from the same peer, are looked up. */
const KNOWN_BEFORE = 64;

/* A CoValue that is made by the first transaction that writes to it. */
type NewCoValue = {
  id: string;
  makes: Change;
  /* 0: not made yet. */
  row: number;
};

export class BftreeClientSync implements DBClientInterfaceSync {
  private readonly cache = new RowCache();
  /* Within how many message(). */
  private messages = 0;
  private newCoValue: NewCoValue | undefined;
  /* So many are not taken for new: one was not. */
  private knownBefore = 0;
  private readonly ahead: ReadAhead;
  private readonly known: KnownAhead;
  private readonly durability: number;
  /* Something was found, since the last commit, that another handle may have
   * written with less durability, or not yet that of its own. */
  private found = false;

  constructor(
    private readonly handle: Handle,
    durability: Durability,
  ) {
    this.durability = durabilityNumber(durability);
    this.ahead = new ReadAhead(handle);
    this.known = new KnownAhead(handle);
    handle.onReopen = () => {
      this.cache.clear();
      this.ahead.clear();
      this.known.clear();
    };
  }

  private ask<T>({ kind, read }: Read<T>): T {
    return read(this.handle.run(kind));
  }

  /* --- Writing --- */

  /* The changes that are in the request. */
  private apply() {
    setNumber(0, this.durability);
    this.handle.run(calls.APPLY);
    this.found = false;
  }

  /* Changes that read nothing before. */
  private write(changes: readonly Change[]) {
    pack(changes);
    this.apply();
    this.cache.committed(appliedChanges());
  }

  transaction(callback: (tx: DBTransactionInterfaceSync) => unknown): unknown {
    for (let conflicts = 0; ; conflicts++) {
      const made = this.newCoValue;
      const rows = new TransactionRows(
        "fail",
        made?.row === 0 ? made.makes : undefined,
      );
      const value = callback(new TransactionSync(this, rows));
      if (rows.assumes) {
        this.makeCoValue();
        this.cache.forgetSessions();
        continue;
      }
      if (rows.isEmpty) {
        this.found = true;
        return value;
      }
      try {
        rows.pack();
        this.apply();
      } catch (error) {
        this.cache.forgetSessions();
        if (!isConflict(error) || conflicts >= CONFLICTS_MAX) throw error;
        if (made?.row === 0) this.knownBefore = KNOWN_BEFORE;
        this.makeCoValue();
        continue;
      }
      const row = rows.committed(this.cache);
      if (row !== 0) made!.row = row;
      return value;
    }
  }

  /*
   * Run WORK, which stores a message: a CoValue that comes with it and is new is
   * made by the first transaction of the message that writes, or when one has
   * not, or at the end.  So most messages take one commit.  cojson asks for a
   * correction, which others answer, after a transaction only.
   */
  message<T>(work: () => T): T {
    this.messages++;
    try {
      const value = work();
      this.makeCoValue();
      this.settle();
      return value;
    } catch (error) {
      try {
        this.makeCoValue();
      } catch {
        /* What failed first says more. */
      }
      throw error;
    } finally {
      if (--this.messages === 0) this.newCoValue = undefined;
    }
  }

  /* What a message has found is to last as what it has written: below a commit
   * that does, if only of nothing. */
  private settle() {
    if (!this.found || this.durability !== durabilityNumber("sync")) return;
    pack([]);
    this.apply();
  }

  /* Make what message() has put off. */
  private makeCoValue() {
    const made = this.newCoValue;
    if (made === undefined || made.row !== 0) return;
    this.write([made.makes]);
    made.row = appliedRow(0);
    this.cache.found(made.id, made.row);
  }

  /* ROW as cojson has it: what was NEW_COVALUE may have been made meanwhile. */
  rowOf(row: number): number {
    return row === NEW_COVALUE ? this.newCoValue?.row || row : row;
  }

  /* May the CoValue that comes with the message be taken for new? */
  private mayPutOff(): boolean {
    if (this.messages === 0 || this.newCoValue !== undefined) return false;
    if (this.knownBefore === 0) return true;
    this.knownBefore--;
    return false;
  }

  upsertCoValue(id: string, header?: Header): number | undefined {
    const cached = this.cache.coValue(id);
    if (cached !== undefined) {
      this.found = true;
      return cached;
    }
    if (header) {
      this.cache.highest ??= this.ask(reads.count());
      const makes = coValueChange(id, header);
      if (this.mayPutOff()) {
        this.newCoValue = { id, makes, row: 0 };
        return NEW_COVALUE;
      }
      this.write([makes]);
      const row = appliedRow(0);
      this.cache.found(id, row);
      return row;
    }
    const row = this.ask(reads.row(id));
    if (row !== undefined) {
      this.found = true;
      this.cache.rememberCoValue(id, row);
    }
    return row;
  }

  trackCoValuesSyncState(updates: SyncUpdate[]) {
    if (updates.length > 0) this.write(syncStateChanges(updates));
  }

  stopTrackingSyncState(id: CoID) {
    this.write([change(Kind.UNTRACK, 0, 0, 0, id, "")]);
  }

  eraseCoValueButKeepTombstone(id: CoID) {
    setNumber(0, this.durability);
    setText(id);
    this.handle.run(calls.ERASE);
    this.cache.forgetSessions();
    if (result(2) === 0)
      logger.warn(`CoValue ${id} not found, skipping deletion`);
  }

  /* --- Reading --- */

  getCoValue(id: string) {
    const loaded = this.ask(reads.load(id));
    if (loaded === undefined) return undefined;
    if (loaded === "broken") return this.ask(reads.header(id));
    this.ahead.add(loaded);
    return { rowID: loaded.rowID, id: id as CoID, header: loaded.header };
  }

  getCoValueSessions(coValue: number) {
    return this.ahead.sessions(coValue) ?? this.ask(reads.sessions(coValue));
  }

  /* For transactions; as RowCache.session(). */
  cachedSession(coValue: number, sessionID: SesID) {
    if (coValue === NEW_COVALUE) return null;
    if (!this.cache.has(coValue)) return undefined;
    return this.cache.session(coValue, sessionID, this.handle.changes());
  }

  session(coValue: number, sessionID: SesID) {
    return this.ask(reads.session(coValue, sessionID));
  }

  lock(key: string) {
    return this.ask(reads.lock(key));
  }

  getNewTransactionInSession(session: number, from: number, to: number) {
    const ahead = this.ahead.transactions(session, from, to);
    if (ahead) return ahead;
    const all = [];
    for (let next = Math.max(from, 0); next <= to; ) {
      const piece = this.ask(reads.range(session, next, to));
      if (!piece.rows) return [];
      if (piece.next === 0 && all.length === 0) return piece.rows;
      for (const row of piece.rows) all.push(row);
      if (piece.next === 0) break;
      next = piece.next;
    }
    return all;
  }

  getSignatures(session: number, from: number) {
    return (
      this.ahead.signatures(session, from) ??
      this.ask(reads.signatures(session, from))
    );
  }

  getAllCoValuesWaitingForDelete() {
    return this.ask(reads.waitingForDelete());
  }

  getUnsyncedCoValueIDs() {
    return this.ask(reads.unsynced());
  }

  getCoValueKnownState(id: string) {
    return this.known.take(id) ?? this.ask(this.known.read(id));
  }

  getCoValueIDs(limit: number, offset: number) {
    return this.ask(reads.ids(limit, offset));
  }

  getCoValueCount() {
    return this.ask(reads.count());
  }

  /* --- Reconciliation locks --- */

  tryAcquireStorageReconciliationLock(session: SesID, peer: string) {
    return this.ask(reads.acquireLock(session, peer));
  }

  renewStorageReconciliationLock(session: SesID, peer: string, offset: number) {
    this.ask(reads.renewLock(session, peer, offset));
  }

  releaseStorageReconciliationLock(session: SesID, peer: string) {
    this.ask(reads.releaseLock(session, peer));
  }
}
