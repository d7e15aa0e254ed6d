/*
 * A backend that loses something: the signatures between the first and the
 * last of a session.  The tests must notice, or they do not test the backend.
 */
import type { StorageApiAsync, StorageApiSync } from "cojson";
import * as memory from "./backend.memory.ts";

type Client = { dbClient: { getSignatures: () => unknown } };

export function openSync(path: string): StorageApiSync {
  const storage = memory.openSync(path);
  (storage as unknown as Client).dbClient.getSignatures = () => [];
  return storage;
}

export async function openAsync(path: string): Promise<StorageApiAsync> {
  const storage = await memory.openAsync(path);
  (storage as unknown as Client).dbClient.getSignatures = async () => [];
  return storage;
}

export const raw = memory.raw;
