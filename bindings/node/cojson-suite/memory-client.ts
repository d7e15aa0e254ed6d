/* cojson's two client interfaces over one set of tables. */
import { logger } from "cojson";
import type {
  DBClientInterfaceAsync,
  DBClientInterfaceSync,
  DBTransactionInterfaceAsync,
  DBTransactionInterfaceSync,
  SessionRow,
  StorageReconciliationLockRow,
  StoredCoValueRow,
} from "cojson";
import { rollBack } from "./memory-tables.ts";
import type {
  CoID,
  Header,
  MemoryTables,
  SesID,
  Signature,
  SyncUpdate,
  Tx,
  Undo,
} from "./memory-tables.ts";

type SessionUpdate = { sessionUpdate: SessionRow };
type SignatureAfter = {
  sessionRowID: number;
  idx: number;
  signature: Signature;
};

class TransactionSync implements DBTransactionInterfaceSync {
  constructor(
    private readonly tables: MemoryTables,
    private readonly undo: Undo,
  ) {}

  getSingleCoValueSession(coValue: number, sessionID: SesID) {
    return this.tables.session(coValue, sessionID);
  }

  markCoValueAsDeleted(id: CoID) {
    this.tables.markDeleted(id, this.undo);
  }

  addSessionUpdate({ sessionUpdate }: SessionUpdate) {
    return this.tables.upsertSession(sessionUpdate, this.undo);
  }

  addTransaction(session: number, idx: number, tx: Tx) {
    const text = JSON.stringify(tx);
    this.tables.insertTransaction(session, idx, text, "fail", this.undo);
  }

  addSignatureAfter({ sessionRowID, idx, signature }: SignatureAfter) {
    this.tables.insertSignature(
      sessionRowID,
      idx,
      signature,
      "fail",
      this.undo,
    );
  }

  getStorageReconciliationLock(key: string) {
    return this.tables.lock(key);
  }

  putStorageReconciliationLock(row: StorageReconciliationLockRow) {
    this.tables.putLock(row, this.undo);
  }
}

export class MemoryClientSync implements DBClientInterfaceSync {
  constructor(private readonly tables: MemoryTables) {}

  /* All that WORK changes, or nothing. */
  private atomically<T>(work: (undo: Undo) => T): T {
    const undo: Undo = [];
    try {
      return work(undo);
    } catch (error) {
      rollBack(undo);
      throw error;
    }
  }

  transaction(callback: (tx: DBTransactionInterfaceSync) => unknown) {
    return this.atomically((undo) =>
      callback(new TransactionSync(this.tables, undo)),
    );
  }

  getCoValue(id: string) {
    return this.tables.coValue(id);
  }

  upsertCoValue(id: string, header?: Header) {
    return this.tables.upsertCoValue(id, header);
  }

  getAllCoValuesWaitingForDelete() {
    return this.tables.waitingForDelete();
  }

  getCoValueSessions(coValue: number) {
    return this.tables.sessionsOf(coValue);
  }

  getNewTransactionInSession(session: number, from: number, to: number) {
    return this.tables.transactionsOf(session, from, to);
  }

  getSignatures(session: number, from: number) {
    return this.tables.signaturesOf(session, from);
  }

  trackCoValuesSyncState(updates: SyncUpdate[]) {
    this.tables.trackSyncState(updates);
  }

  getUnsyncedCoValueIDs() {
    return this.tables.unsyncedIDs();
  }

  stopTrackingSyncState(id: CoID) {
    this.tables.stopTracking(id);
  }

  eraseCoValueButKeepTombstone(id: CoID) {
    const rowID = this.tables.coValueRowID(id);
    if (rowID === undefined) {
      logger.warn(`CoValue ${id} not found, skipping deletion`);
      return;
    }
    this.atomically((undo) => this.tables.erase({ id, rowID }, undo));
  }

  getCoValueKnownState(id: string) {
    return this.tables.knownState(id);
  }

  getCoValueIDs(limit: number, offset: number) {
    return this.tables.coValueIDs(limit, offset);
  }

  getCoValueCount() {
    return this.tables.coValueCount();
  }

  tryAcquireStorageReconciliationLock(session: SesID, peer: string) {
    return this.atomically((undo) =>
      this.tables.acquireLock(session, peer, undo),
    );
  }

  renewStorageReconciliationLock(session: SesID, peer: string, offset: number) {
    this.atomically((undo) =>
      this.tables.renewLock(session, peer, offset, undo),
    );
  }

  releaseStorageReconciliationLock(session: SesID, peer: string) {
    this.atomically((undo) => this.tables.releaseLock(session, peer, undo));
  }
}

class TransactionAsync implements DBTransactionInterfaceAsync {
  constructor(
    private readonly tables: MemoryTables,
    private readonly undo: Undo,
  ) {}

  async getSingleCoValueSession(coValue: number, sessionID: SesID) {
    return this.tables.session(coValue, sessionID);
  }

  async markCoValueAsDeleted(id: CoID) {
    this.tables.markDeleted(id, this.undo);
  }

  async addSessionUpdate({ sessionUpdate }: SessionUpdate) {
    return this.tables.upsertSession(sessionUpdate, this.undo);
  }

  async addTransaction(session: number, idx: number, tx: Tx) {
    const text = JSON.stringify(tx);
    this.tables.insertTransaction(session, idx, text, "overwrite", this.undo);
  }

  async addSignatureAfter({ sessionRowID, idx, signature }: SignatureAfter) {
    this.tables.insertSignature(
      sessionRowID,
      idx,
      signature,
      "overwrite",
      this.undo,
    );
  }

  async deleteCoValueContent(row: Pick<StoredCoValueRow, "rowID" | "id">) {
    this.tables.erase(row, this.undo);
  }

  async getStorageReconciliationLock(key: string) {
    return this.tables.lock(key);
  }

  async putStorageReconciliationLock(row: StorageReconciliationLockRow) {
    this.tables.putLock(row, this.undo);
  }
}

export class MemoryClientAsync implements DBClientInterfaceAsync {
  constructor(private readonly tables: MemoryTables) {}

  /* All that WORK changes, or nothing, after those that came before it. */
  private atomically<T>(work: (undo: Undo) => T | Promise<T>): Promise<T> {
    return this.tables.inTurn(async () => {
      const undo: Undo = [];
      try {
        return await work(undo);
      } catch (error) {
        rollBack(undo);
        throw error;
      }
    });
  }

  transaction(callback: (tx: DBTransactionInterfaceAsync) => Promise<unknown>) {
    return this.atomically((undo) =>
      callback(new TransactionAsync(this.tables, undo)),
    );
  }

  async getCoValue(id: string) {
    return this.tables.coValue(id);
  }

  async upsertCoValue(id: string, header?: Header) {
    return this.tables.upsertCoValue(id, header);
  }

  async getAllCoValuesWaitingForDelete() {
    return this.tables.waitingForDelete();
  }

  async getCoValueSessions(coValue: number) {
    return this.tables.sessionsOf(coValue);
  }

  async getNewTransactionInSession(session: number, from: number, to: number) {
    return this.tables.transactionsOf(session, from, to);
  }

  async getSignatures(session: number, from: number) {
    return this.tables.signaturesOf(session, from);
  }

  async trackCoValuesSyncState(updates: SyncUpdate[]) {
    this.tables.trackSyncState(updates);
  }

  async getUnsyncedCoValueIDs() {
    return this.tables.unsyncedIDs();
  }

  async stopTrackingSyncState(id: CoID) {
    this.tables.stopTracking(id);
  }

  /* Through transaction(): a test holds an erasure up there. */
  async eraseCoValueButKeepTombstone(id: CoID) {
    const rowID = this.tables.coValueRowID(id);
    if (rowID === undefined) {
      logger.warn(`CoValue ${id} not found, skipping deletion`);
      return;
    }
    await this.transaction((tx) => tx.deleteCoValueContent({ id, rowID }));
  }

  async getCoValueKnownState(id: string) {
    return this.tables.knownState(id);
  }

  async getCoValueIDs(limit: number, offset: number) {
    return this.tables.coValueIDs(limit, offset);
  }

  async getCoValueCount() {
    return this.tables.coValueCount();
  }

  tryAcquireStorageReconciliationLock(session: SesID, peer: string) {
    return this.atomically((undo) =>
      this.tables.acquireLock(session, peer, undo),
    );
  }

  renewStorageReconciliationLock(session: SesID, peer: string, offset: number) {
    return this.atomically((undo) =>
      this.tables.renewLock(session, peer, offset, undo),
    );
  }

  releaseStorageReconciliationLock(session: SesID, peer: string) {
    return this.atomically((undo) =>
      this.tables.releaseLock(session, peer, undo),
    );
  }
}
