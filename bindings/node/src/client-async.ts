/*
 * cojson's asynchronous client interface over a native database.  What may wait
 * for the disk is done by other threads: native/pace.h.
 */
import { logger } from "cojson";
import type {
  DBClientInterfaceAsync,
  DBTransactionInterfaceAsync,
  SignatureAfterRow,
  StorageApiAsync,
  StoredCoValueRow,
  StoredSessionRow,
  TransactionRow,
} from "cojson";
import { BftreeError } from "./bftree-error.ts";
import { Kind, change, pack } from "./changes.ts";
import type { Change } from "./changes.ts";
import {
  CONFLICTS_MAX,
  coValueChange,
  isConflict,
  syncStateChanges,
} from "./client-sync.ts";
import { acceptedDurability, durabilityNumber } from "./durability.ts";
import type { Durability } from "./durability.ts";
import { DurableQueue } from "./durable-queue.ts";
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
import { StoreBatch } from "./store-batch.ts";
import { TransactionRows, rowOf } from "./transaction-rows.ts";
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

/* Whatever the tests of an application make of timers. */
const { setImmediate } = globalThis;

type Callback = (tx: DBTransactionInterfaceAsync) => Promise<unknown>;

/* So many transactions are erased in a short call. */
const SHORT_ERASURE = 256;

class TransactionAsync implements DBTransactionInterfaceAsync {
  /* The CoValue to erase. */
  erased: CoID | undefined;

  constructor(
    private readonly client: BftreeClientAsync,
    readonly rows: TransactionRows,
  ) {}

  /* What is known here, or took no thread, is not waited for. */
  async getSingleCoValueSession(coValue: number, sessionID: SesID) {
    const known = this.rows.session(coValue, sessionID);
    if (known !== null) return known;
    const cached = this.client.cachedSession(coValue, sessionID);
    if (cached === null) return this.rows.sessionAssumed(coValue, sessionID);
    /* A copy: a batch may change the cached one before this has ended. */
    const found = cached
      ? rowOf(cached.rowID, cached)
      : this.client.session(coValue, sessionID);
    if (!(found instanceof Promise))
      return this.rows.sessionRead(coValue, sessionID, found);
    const row = await found;
    /* It may have been read by another call, or written, meanwhile. */
    const since = this.rows.session(coValue, sessionID);
    if (since !== null) return since;
    return this.rows.sessionRead(coValue, sessionID, row);
  }

  async markCoValueAsDeleted(id: CoID) {
    this.rows.markDeleted(id);
  }

  async addSessionUpdate(update: SessionUpdate) {
    return this.rows.putSession(update);
  }

  /* Without a promise: there are many, and there is nothing to wait for. */
  addTransaction(session: number, idx: number, tx: Tx) {
    this.rows.putTransaction(session, idx, tx);
  }

  async addSignatureAfter(signature: SignatureAfter) {
    this.rows.putSignature(signature);
  }

  async deleteCoValueContent({ id }: Pick<StoredCoValueRow, "rowID" | "id">) {
    this.erased = id;
  }

  async getStorageReconciliationLock(key: string) {
    return this.rows.lock(key) ?? (await this.client.lock(key));
  }

  async putStorageReconciliationLock(row: LockRow) {
    this.rows.putLock(row);
  }
}

export class BftreeClientAsync implements DBClientInterfaceAsync {
  private readonly cache = new RowCache();
  private readonly ahead: ReadAhead;
  private readonly known: KnownAhead;
  /* Starts of transactions that wait for their turn. */
  private readonly waiting: (() => void)[] = [];
  private busy = false;
  /* How far this client's commits reach that are known to be accepted. */
  private lsn = 0;
  /* How often something was found that another handle may have written, and how
   * often before a commit was asked for that reaches to `lsn` at most: what was
   * found since may lie behind it. */
  private found = 0;
  private covered = 0;
  /* Commits on their way. */
  private readonly underWay = new Set<Promise<unknown>>();
  private readonly durable: DurableQueue;
  /* What is asked of a commit itself. */
  private readonly acceptance: number;

  constructor(
    private readonly handle: Handle,
    private readonly durability: Durability,
  ) {
    this.ahead = new ReadAhead(handle);
    this.known = new KnownAhead(handle);
    handle.onReopen = () => {
      this.cache.clear();
      this.ahead.clear();
      this.known.clear();
      this.lsn = 0;
      this.found++;
    };
    this.durable = new DurableQueue(handle);
    this.acceptance = durabilityNumber(acceptedDurability(durability));
  }

  private ask<T>({ kind, read }: Read<T>): T | Promise<T> {
    return this.handle.attempt(kind, read);
  }

  /* --- Writing --- */

  /*
   * Have the changes in the request accepted.  Whoever wants to know when they
   * are durable asks whenDurable(); nobody waits for it here.
   */
  private apply<T>(read: () => T): T | Promise<T> {
    const { found } = this;
    setNumber(0, this.acceptance);
    const running = this.handle.attempt(calls.APPLY, () => {
      this.accepted(found);
      return read();
    });
    if (running instanceof Promise) {
      const forget = () => void this.underWay.delete(running);
      this.underWay.add(running);
      running.then(forget, forget);
    }
    return running;
  }

  /* A commit has been accepted that was asked for when FOUND was so.  Other
   * threads make commits: their answers may come in another order. */
  private accepted(found: number) {
    this.lsn = Math.max(this.lsn, result(0));
    this.covered = Math.max(this.covered, found);
  }

  /* Changes that read nothing before. */
  private write<T>(changes: readonly Change[], read: () => T): T | Promise<T> {
    pack(changes);
    return this.apply(() => {
      this.cache.committed(appliedChanges());
      return read();
    });
  }

  /*
   * Run CALLBACK, after those before it have ended, and have what it wrote
   * accepted.
   */
  transaction(callback: Callback): Promise<unknown> {
    if (!this.busy) return this.run(callback);
    return new Promise((resolve) => {
      this.waiting.push(() => resolve(this.run(callback)));
    });
  }

  private async run(callback: Callback): Promise<unknown> {
    this.busy = true;
    try {
      for (let conflicts = 0; ; conflicts++) {
        const rows = new TransactionRows("overwrite");
        const tx = new TransactionAsync(this, rows);
        const value = await callback(tx);
        if (rows.assumes) {
          this.cache.forgetSessions();
          continue;
        }
        const again = conflicts < CONFLICTS_MAX;
        let done = this.committed(tx, again);
        if (done instanceof Promise) done = await done;
        if (done) return value;
      }
    } finally {
      this.endTurn();
    }
  }

  private endTurn() {
    this.busy = false;
    this.waiting.shift()?.();
  }

  /* Have BATCH accepted, after the transactions before it have ended. */
  together(batch: StoreBatch): void | Promise<void> {
    if (this.busy)
      return new Promise((resolve) => {
        this.waiting.push(() => resolve(this.togetherInTurn(batch)));
      });
    const running = this.applyTogether(batch);
    if (!(running instanceof Promise)) return;
    this.busy = true;
    return running.finally(() => this.endTurn());
  }

  private async togetherInTurn(batch: StoreBatch) {
    this.busy = true;
    try {
      await this.applyTogether(batch);
    } finally {
      this.endTurn();
    }
  }

  private applyTogether(batch: StoreBatch): void | Promise<void> {
    if (!this.cache.isCurrent(this.handle.changes()) && batch.assumes)
      throw new BftreeError("BFT_CONFLICT", "storing: something has changed");
    if (batch.isEmpty) {
      this.found++;
      return;
    }
    batch.pack();
    return this.apply(() => batch.committed());
  }

  /* For the messages of STORAGE, which is above this client. */
  newBatch(storage: StorageApiAsync): StoreBatch {
    return new StoreBatch(this.cache, storage);
  }

  /* Commit; false: what was read is no longer so, and may be tried AGAIN. */
  private committed(
    tx: TransactionAsync,
    again: boolean,
  ): boolean | Promise<boolean> {
    const failed = (error: unknown) => {
      this.cache.forgetSessions();
      if (again && isConflict(error)) return false;
      throw error;
    };
    try {
      const running = this.commit(tx);
      if (!(running instanceof Promise)) return true;
      return running.then(() => true, failed);
    } catch (error) {
      return failed(error);
    }
  }

  private commit({ rows, erased }: TransactionAsync): void | Promise<void> {
    if (erased !== undefined) {
      if (rows.isEmpty) return this.erase(erased);
      throw new BftreeError(
        "BFT_UNSUPPORTED",
        `storing in ${this.handle.path}: an erasure is a transaction by itself`,
      );
    }
    if (rows.isEmpty) {
      this.found++;
      return;
    }
    rows.pack();
    return this.apply(() => {
      rows.committed(this.cache);
    });
  }

  private async erase(id: CoID): Promise<void> {
    const known = await this.getCoValueKnownState(id);
    const transactions = Object.values(known?.sessions ?? {});
    const total = transactions.reduce((sum, count) => sum + count, 0);
    const read = () => {
      this.lsn = Math.max(this.lsn, result(0));
      this.cache.forgetSessions();
    };
    setNumber(0, this.acceptance);
    setText(id);
    await (total <= SHORT_ERASURE
      ? this.handle.attempt(calls.ERASE, read)
      : this.handle.submit(calls.ERASE, read));
  }

  async upsertCoValue(id: string, header?: Header) {
    const cached = this.cache.coValue(id);
    if (cached !== undefined) {
      this.found++;
      return cached;
    }
    if (header) {
      this.cache.highest ??= await this.ask(reads.count());
      return this.write([coValueChange(id, header)], () => {
        const row = appliedRow(0);
        this.cache.found(id, row);
        return row;
      });
    }
    const row = await this.ask(reads.row(id));
    if (row === undefined) return undefined;
    this.found++;
    this.cache.rememberCoValue(id, row);
    return row;
  }

  async trackCoValuesSyncState(updates: SyncUpdate[]) {
    if (updates.length > 0)
      await this.write(syncStateChanges(updates), () => {});
  }

  async stopTrackingSyncState(id: CoID) {
    await this.write([change(Kind.UNTRACK, 0, 0, 0, id, "")], () => {});
  }

  /* Through transaction(), so that it takes its turn among them. */
  async eraseCoValueButKeepTombstone(id: CoID) {
    const rowID = this.cache.coValue(id) ?? (await this.ask(reads.row(id)));
    if (rowID === undefined) {
      logger.warn(`CoValue ${id} not found, skipping deletion`);
      return;
    }
    await this.transaction((tx) => tx.deleteCoValueContent({ id, rowID }));
  }

  /* --- Durability --- */

  /*
   * Call THEN once all that this client has written, and found, survives what
   * its durability says; never if a sync fails.
   */
  whenDurable(then: () => void) {
    if (this.durability !== "sync") {
      then();
      return;
    }
    if (this.covered === this.found) {
      this.durable.wait(this.lsn, then);
      return;
    }
    this.lastCommit().then(
      (lsn) => this.durable.wait(lsn, then),
      (err) => logger.error("bftree: a sync could not be asked for", { err }),
    );
  }

  /* The store's: what was found lies below it. */
  private async lastCommit(): Promise<number> {
    pack([]);
    return this.apply(() => this.lsn);
  }

  /* All that was asked for is durable, or never will be.  Ends: nobody stores
   * any more but who is told that something before was stored. */
  async settled(): Promise<void> {
    do {
      await Promise.allSettled(this.underWay);
      /* Who waits for a commit is told of it by then, and asks what is next. */
      await new Promise<void>((resolve) => void setImmediate(resolve));
      await this.durable.settled();
    } while (this.underWay.size > 0);
  }

  /* --- Reading --- */

  async getCoValue(id: string) {
    const loaded = await this.ask(reads.load(id));
    if (loaded === undefined) return undefined;
    if (loaded === "broken") return this.ask(reads.header(id));
    this.ahead.add(loaded);
    return { rowID: loaded.rowID, id: id as CoID, header: loaded.header };
  }

  async getCoValueSessions(coValue: number): Promise<StoredSessionRow[]> {
    return this.ahead.sessions(coValue) ?? this.ask(reads.sessions(coValue));
  }

  /* For transactions; as RowCache.session(). */
  cachedSession(coValue: number, sessionID: SesID) {
    if (!this.cache.has(coValue)) return undefined;
    return this.cache.session(coValue, sessionID, this.handle.changes());
  }

  session(coValue: number, sessionID: SesID) {
    return this.ask(reads.session(coValue, sessionID));
  }

  lock(key: string) {
    return this.ask(reads.lock(key));
  }

  async getNewTransactionInSession(
    session: number,
    from: number,
    to: number,
  ): Promise<TransactionRow[]> {
    const ahead = this.ahead.transactions(session, from, to);
    if (ahead) return ahead;
    const all: TransactionRow[] = [];
    for (let next = Math.max(from, 0); next <= to; ) {
      const piece = await this.ask(reads.range(session, next, to));
      if (!piece.rows) return [];
      if (piece.next === 0 && all.length === 0) return piece.rows;
      for (const row of piece.rows) all.push(row);
      if (piece.next === 0) break;
      next = piece.next;
    }
    return all;
  }

  async getSignatures(
    session: number,
    from: number,
  ): Promise<SignatureAfterRow[]> {
    return (
      this.ahead.signatures(session, from) ??
      this.ask(reads.signatures(session, from))
    );
  }

  async getAllCoValuesWaitingForDelete() {
    return this.ask(reads.waitingForDelete());
  }

  async getUnsyncedCoValueIDs() {
    return this.ask(reads.unsynced());
  }

  async getCoValueKnownState(id: string) {
    return this.known.take(id) ?? this.ask(this.known.read(id));
  }

  async getCoValueIDs(limit: number, offset: number) {
    return this.ask(reads.ids(limit, offset));
  }

  async getCoValueCount() {
    return this.ask(reads.count());
  }

  /* --- Reconciliation locks --- */

  async tryAcquireStorageReconciliationLock(session: SesID, peer: string) {
    return this.ask(reads.acquireLock(session, peer));
  }

  async renewStorageReconciliationLock(
    session: SesID,
    peer: string,
    offset: number,
  ) {
    await this.ask(reads.renewLock(session, peer, offset));
  }

  async releaseStorageReconciliationLock(session: SesID, peer: string) {
    await this.ask(reads.releaseLock(session, peer));
  }
}
