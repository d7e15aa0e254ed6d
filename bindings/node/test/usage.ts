/* How programs use the package; compiled, not run. */
import type { LocalNode, StorageAPI } from "cojson";
import { BftreeError, openJazzStorage, openJazzStorageAsync } from "bftree";
import type {
  BftreeErrorCode,
  Durability,
  JazzStorageAsync,
  JazzStorageOptions,
  JazzStorageSync,
} from "bftree";

export function oneLine(node: LocalNode) {
  node.setStorage(openJazzStorage("jazz.db"));
}

export const byDefault: JazzStorageAsync = openJazzStorage("jazz.db");
export const synchronous: JazzStorageSync = openJazzStorage("jazz.db", {
  mode: "sync",
  durability: "sync",
});

export async function elsewhere(options: JazzStorageOptions) {
  const storage: StorageAPI = await openJazzStorageAsync("jazz.db", options);
  await storage.close();
}

export function codeOf(error: unknown): BftreeErrorCode | undefined {
  return error instanceof BftreeError ? error.code : undefined;
}

export const levels: Durability[] = ["none", "buffered", "sync"];

// @ts-expect-error: there is no such durability
openJazzStorage("jazz.db", { durability: "often" });
// @ts-expect-error: there is no such option
openJazzStorage("jazz.db", { durabilty: "sync" });
