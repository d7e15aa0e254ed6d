/* Failures of the engine, as JavaScript sees them. */

/* Name of each status, without the one that says all is well. */
export type BftreeErrorCode =
  | "BFT_NOT_FOUND"
  | "BFT_TOO_SMALL"
  | "BFT_NO_MEMORY"
  | "BFT_NO_SPACE"
  | "BFT_IO"
  | "BFT_CORRUPT"
  | "BFT_EXISTS"
  | "BFT_CONFLICT"
  | "BFT_BUSY"
  | "BFT_INVALID"
  | "BFT_TOO_BIG"
  | "BFT_TOO_NEW"
  | "BFT_READ_ONLY"
  | "BFT_POISONED"
  | "BFT_FORKED"
  | "BFT_GONE"
  | "BFT_UNSUPPORTED";

const names = new Map<number, BftreeErrorCode>();

/* Learn the names from the native side, which has them from bft_status.h. */
export function nameStatuses(statuses: Record<string, number>) {
  for (const [name, status] of Object.entries(statuses))
    names.set(status, name as BftreeErrorCode);
}

/* `message` names what was done, where, and what is wrong. */
export class BftreeError extends Error {
  override readonly name = "BftreeError";
  readonly code: BftreeErrorCode;

  constructor(status: number | BftreeErrorCode, message: string) {
    super(`bftree: ${message}`);
    this.code =
      typeof status === "number"
        ? (names.get(status) ?? "BFT_INVALID")
        : status;
  }
}
