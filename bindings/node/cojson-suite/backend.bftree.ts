/*
 * The suites' backend in the native engine: what package bftree hands out.
 * Each database, when its last handle closes, leaves a line on what it did and
 * held in the file that SUITE_COUNTERS names; run.mjs adds them up.
 */
import { appendFileSync } from "node:fs";
import { openJazzStorage } from "../src/index.ts";
import type { JazzStorageAsync, JazzStorageSync } from "../src/index.ts";
import type { RawRows } from "./backend.types.ts";

/* The tests remove a file at PATH; a database is a directory. */
const directory = (path: string) => `${path}.bftree`;

/* Have STORAGE tell what it did before it closes. */
function counted<S extends JazzStorageAsync | JazzStorageSync>(storage: S): S {
  const close = storage.close.bind(storage);
  let closed = false;
  storage.close = (() => {
    if (!closed) {
      closed = true;
      report(storage);
    }
    return close();
  }) as typeof storage.close;
  return storage;
}

function report({ database }: JazzStorageAsync | JazzStorageSync) {
  const counters = { ...database.stats(), ...database.censusNow() };
  const file = process.env.SUITE_COUNTERS;
  if (file) appendFileSync(file, `${JSON.stringify(counters)}\n`);
}

export function openSync(path: string): JazzStorageSync {
  return counted(openJazzStorage(directory(path), { mode: "sync" }));
}

export async function openAsync(path: string): Promise<JazzStorageAsync> {
  return counted(openJazzStorage(directory(path)));
}

export function raw(path: string): RawRows {
  const storage = openJazzStorage(directory(path), { mode: "sync" });
  const { dbClient: client } = storage as unknown as { dbClient: any };
  return {
    coValue: (id) => client.upsertCoValue(id),
    sessions: (coValue) => client.getCoValueSessions(coValue),
    transaction: (session, idx) => {
      const [row] = client.getNewTransactionInSession(session, idx, idx);
      return row && JSON.stringify(row.tx);
    },
    insertTransaction: (session, idx, tx) =>
      client.transaction((transaction: any) =>
        transaction.addTransaction(session, idx, JSON.parse(tx)),
      ),
    close: () => storage.close(),
  };
}
