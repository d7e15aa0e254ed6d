/*
 * The reads that both clients have: each sets the arguments of a call and tells
 * what its results mean.  The one client runs them, the other submits them.
 */
import { What, readHeader, readLoaded, readRange } from "./answers.ts";
import type { Loaded } from "./answers.ts";
import { calls, result, setNumbers, setText, setTexts } from "./native.ts";
import type { Answer } from "./native.ts";
import type {
  SignatureAfterRow,
  StorageReconciliationAcquireResult,
  StoredCoValueRow,
  StoredSessionRow,
  TransactionRow,
} from "cojson";
import { cojsonInternals } from "cojson";
import { lockKey } from "./rows.ts";
import type { CoID, Header, LockRow, SesID } from "./rows.ts";

/* A call whose arguments are set. */
export type Read<T> = {
  kind: number;
  read: (answer: Answer) => T;
};

const json =
  <T>() =>
  (answer: Answer) =>
    JSON.parse(answer as string) as T;

/* --- CoValues --- */

const readRow = () => result(0) || undefined;

export function row(id: string): Read<number | undefined> {
  setText(id);
  return { kind: calls.ROW, read: readRow };
}

/* "broken": something in it is not JSON; then ask for header(). */
function readLoad(answer: Answer): Loaded | "broken" | undefined {
  if (answer === undefined) return undefined;
  const changes = result(1);
  try {
    return readLoaded(answer as string, changes);
  } catch {
    return "broken";
  }
}

export function load(id: string): Read<Loaded | "broken" | undefined> {
  setNumbers(What.CONTENT);
  setText(id);
  return { kind: calls.LOAD, read: readLoad };
}

export function header(id: string): Read<StoredCoValueRow | undefined> {
  setNumbers(What.ROWS);
  setText(id);
  return {
    kind: calls.LOAD,
    read: (answer) => {
      const rowID = result(0);
      const found: Header | undefined =
        answer === undefined ? undefined : readHeader(id, answer as string);
      return found && { rowID, id: id as CoID, header: found };
    },
  };
}

/* --- Sessions and what they hold --- */

const readSessions = json<StoredSessionRow[]>();

export function sessions(coValue: number): Read<StoredSessionRow[]> {
  setNumbers(coValue);
  return { kind: calls.SESSIONS, read: readSessions };
}

const readSession = (answer: Answer) =>
  answer === undefined ? undefined : (JSON.parse(answer as string) as StoredSessionRow);

export function session(
  coValue: number,
  sessionID: SesID,
): Read<StoredSessionRow | undefined> {
  setNumbers(coValue);
  setText(sessionID);
  return { kind: calls.SESSION, read: readSession };
}

/* FROM to TO, as much as comes at once. */
export function range(
  sessionRow: number,
  from: number,
  to: number,
): Read<{ rows: TransactionRow[] | undefined; next: number }> {
  setNumbers(sessionRow, from, to);
  return {
    kind: calls.TRANSACTIONS,
    read: (answer) => readRange(sessionRow, answer),
  };
}

const readSignatures = json<SignatureAfterRow[]>();

export function signatures(
  sessionRow: number,
  from: number,
): Read<SignatureAfterRow[]> {
  setNumbers(sessionRow, Math.max(from, 0));
  return { kind: calls.SIGNATURES, read: readSignatures };
}

/* --- Lists --- */

const readIDs = json<CoID[]>();
const readIDObjects = json<{ id: CoID }[]>();
const readNumber = () => result(0);

export function ids(limit: number, after: number): Read<{ id: CoID }[]> {
  setNumbers(after, limit);
  return { kind: calls.IDS, read: readIDObjects };
}

export function waitingForDelete(): Read<CoID[]> {
  return { kind: calls.DELETIONS, read: readIDs };
}

export function unsynced(): Read<CoID[]> {
  return { kind: calls.UNSYNCED, read: readIDs };
}

export function count(): Read<number> {
  return { kind: calls.COUNT, read: readNumber };
}

/* --- Locks: single steps of the store, atomic by themselves --- */

const readLock = (answer: Answer) =>
  answer === undefined ? undefined : (JSON.parse(answer as string) as LockRow);

export function lock(key: string): Read<LockRow | undefined> {
  setText(key);
  return { kind: calls.LOCK_GET, read: readLock };
}

const reasons = { 1: "not_due", 2: "lock_held" } as const;

function readAcquired(): StorageReconciliationAcquireResult {
  const reason = reasons[result(0) as 1 | 2];
  return reason === undefined
    ? { acquired: true, lastProcessedOffset: result(1) }
    : { acquired: false, reason };
}

/* The limits are read at each call: they can be changed.  Times are whole, so
 * less than the one is less than the next whole number, and what is up to the
 * other is up to the one before it. */
export function acquireLock(
  holder: SesID,
  peer: string,
): Read<StorageReconciliationAcquireResult> {
  const limits = cojsonInternals.STORAGE_RECONCILIATION_CONFIG;
  setNumbers(
    Date.now(),
    Math.ceil(limits.RECONCILIATION_INTERVAL_MS),
    Math.floor(limits.LOCK_TTL_MS),
  );
  setTexts(lockKey(peer), holder);
  return { kind: calls.LOCK_ACQUIRE, read: readAcquired };
}

const readNothing = () => undefined;

export function renewLock(
  holder: SesID,
  peer: string,
  offset: number,
): Read<void> {
  setNumbers(offset);
  setTexts(lockKey(peer), holder);
  return { kind: calls.LOCK_RENEW, read: readNothing };
}

export function releaseLock(holder: SesID, peer: string): Read<void> {
  setNumbers(Date.now());
  setTexts(lockKey(peer), holder);
  return { kind: calls.LOCK_RELEASE, read: readNothing };
}
