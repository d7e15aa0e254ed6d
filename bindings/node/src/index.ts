/* Storage of Jazz on bftree. */
export { BftreeError } from "./bftree-error.ts";
export type { BftreeErrorCode } from "./bftree-error.ts";
export { Database } from "./database.ts";
export type { Census, Stats } from "./database.ts";
export type { Durability } from "./durability.ts";
export { version } from "./native.ts";
export {
  JazzStorageAsync,
  JazzStorageSync,
  openJazzStorage,
  openJazzStorageAsync,
} from "./storage.ts";
export type { JazzStorageOptions } from "./storage.ts";
