/*
 * What a storage backend gives to the suites.  A backend is one module,
 * backend.NAME.ts, that exports these functions; STORAGE_BACKEND names it.
 */
import type { StorageApiAsync, StorageApiSync } from "cojson";

/*
 * Behind the storage API: two tests look up a session and plant a transaction
 * at an index that the session does not count yet, as another writer would.
 */
export interface RawRows {
  /* Row id of a CoValue. */
  coValue(id: string): number | undefined;
  sessions(coValue: number): { rowID: number; lastIdx: number }[];
  /* The transaction as JSON text. */
  transaction(session: number, idx: number): string | undefined;
  insertTransaction(session: number, idx: number, tx: string): void;
  close(): void;
}

/*
 * A path may be opened again while it is open, in the same process, and is
 * often never closed: all its handles see one store.
 */
export interface Backend {
  openSync(path: string): StorageApiSync;
  openAsync(path: string): Promise<StorageApiAsync>;
  raw(path: string): RawRows;
}
