/* cojson's rows, under shorter names. */
import type {
  SessionRow,
  SignatureAfterRow,
  StorageReconciliationLockRow,
  StoredCoValueRow,
  StoredSessionRow,
  TransactionRow,
} from "cojson";

export type CoID = StoredCoValueRow["id"];
export type Header = StoredCoValueRow["header"];
export type SesID = SessionRow["sessionID"];
export type Signature = SignatureAfterRow["signature"];
export type Tx = TransactionRow["tx"];
export type LockRow = StorageReconciliationLockRow;
export type SyncUpdate = { id: CoID; peerId: string; synced: boolean };
export type KnownState = {
  id: CoID;
  header: boolean;
  sessions: Record<SesID, number>;
};
export type SessionUpdate = {
  sessionUpdate: SessionRow;
  sessionRow?: StoredSessionRow | undefined;
};
export type SignatureAfter = {
  sessionRowID: number;
  idx: number;
  signature: Signature;
};

export const lockKey = (peer: string) => `lock#${peer}`;
