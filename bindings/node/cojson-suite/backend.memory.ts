/* The suites' backend in JavaScript memory: a store for each path. */
import { StorageApiAsync, StorageApiSync } from "cojson";
import type { RawRows } from "./backend.types.ts";
import { MemoryClientAsync, MemoryClientSync } from "./memory-client.ts";
import { MemoryTables } from "./memory-tables.ts";

const stores = new Map<string, MemoryTables>();

function store(path: string): MemoryTables {
  let tables = stores.get(path);
  if (!tables) {
    tables = new MemoryTables();
    stores.set(path, tables);
  }
  return tables;
}

export function openSync(path: string): StorageApiSync {
  return new StorageApiSync(new MemoryClientSync(store(path)));
}

export async function openAsync(path: string): Promise<StorageApiAsync> {
  return new StorageApiAsync(new MemoryClientAsync(store(path)));
}

export function raw(path: string): RawRows {
  const tables = store(path);
  return {
    coValue: (id) => tables.coValueRowID(id),
    sessions: (coValue) =>
      tables
        .sessionsOf(coValue)
        .map(({ rowID, lastIdx }) => ({ rowID, lastIdx })),
    transaction: (session, idx) => tables.transactionText(session, idx),
    insertTransaction: (session, idx, tx) =>
      tables.insertTransaction(session, idx, tx, "fail", []),
    close: () => {},
  };
}
