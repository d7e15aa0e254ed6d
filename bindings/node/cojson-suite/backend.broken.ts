/*
 * The chosen backend, made to lose something: the signatures between the first
 * and the last of a session.  The tests must notice, or they do not test it.
 */
import type { StorageApiAsync, StorageApiSync } from "cojson";
import * as whole from "whole-backend";

type Client = { dbClient: { getSignatures: () => unknown } };

export function openSync(path: string): StorageApiSync {
  const storage = whole.openSync(path);
  (storage as unknown as Client).dbClient.getSignatures = () => [];
  return storage;
}

export async function openAsync(path: string): Promise<StorageApiAsync> {
  const storage = await whole.openAsync(path);
  (storage as unknown as Client).dbClient.getSignatures = async () => [];
  return storage;
}

export const raw = whole.raw;
