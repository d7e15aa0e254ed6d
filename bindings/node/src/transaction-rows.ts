/*
 * A transaction under way: what it read, what it wants to write, and what it
 * sees of that itself.  All of it crosses into native code in one call, which
 * also tells whether what it read is still so.
 */
import type { SessionRow, StoredSessionRow } from "cojson";
import { BftreeError } from "./bftree-error.ts";
import { Flag, Kind, NONE, change, pack, setTransaction } from "./changes.ts";
import type { Change } from "./changes.ts";
import { appliedChanges, appliedRow } from "./native.ts";
import type { RowCache } from "./row-cache.ts";
import type {
  CoID,
  LockRow,
  SesID,
  SessionUpdate,
  SignatureAfter,
  Tx,
} from "./rows.ts";

/* A session that the transaction has to do with. */
type Touched = {
  coValue: number;
  sessionID: SesID;
  /* What was read: the row, null for none, undefined for not read. */
  before: StoredSessionRow | null | undefined;
  after: StoredSessionRow | undefined;
  /* `before` was not read but taken for granted, and no commit checks it. */
  assumed: boolean;
  /* Place of its last SESSION among those with a row id as result. */
  result: number;
};

/* Row ids come out of the commit; this many fit into the results. */
export const RESULTS_MAX = 22;

export type OnConflict = "fail" | "overwrite";

/* In the place of a CoValue's row id: the one that the transaction makes. */
export const NEW_COVALUE = -1;

/* A row for somebody who may change it.  Not by spreading: V8 gives each object
 * made so a shape of its own, and everything that it meets becomes slow. */
export const rowOf = (rowID: number, row: SessionRow) =>
  ({
    rowID,
    coValue: row.coValue,
    sessionID: row.sessionID,
    lastIdx: row.lastIdx,
    lastSignature: row.lastSignature,
    bytesSinceLastSignature: row.bytesSinceLastSignature,
  }) as StoredSessionRow;

const copyOf = (row: StoredSessionRow) => rowOf(row.rowID, row);

export class TransactionRows {
  private readonly changes: Change[] = [];
  private readonly touched: Touched[] = [];
  private locks: Map<string, LockRow> | undefined;
  private results = 0;
  /* The session that LATEST stands for. */
  private latest: Touched | undefined;
  private readonly flags: number;

  /* MAKES: the change that makes NEW_COVALUE; it is part of the transaction if
   * that writes to it. */
  constructor(
    onConflict: OnConflict,
    private readonly makes?: Change,
  ) {
    this.flags = onConflict === "overwrite" ? Flag.OVERWRITE : 0;
  }

  get isEmpty(): boolean {
    return this.changes.length === 0;
  }

  /* --- Sessions --- */

  private find(coValue: number, sessionID: SesID): Touched | undefined {
    for (const touched of this.touched)
      if (touched.sessionID === sessionID && touched.coValue === coValue)
        return touched;
    return undefined;
  }

  private touch(
    coValue: number,
    sessionID: SesID,
    before: StoredSessionRow | null | undefined,
  ): Touched {
    const touched = {
      coValue,
      sessionID,
      before,
      after: undefined,
      assumed: false,
      result: 0,
    };
    this.touched.push(touched);
    return touched;
  }

  /* What this transaction knows of a session; null: nothing yet. */
  session(
    coValue: number,
    sessionID: SesID,
  ): StoredSessionRow | undefined | null {
    const touched = this.find(coValue, sessionID);
    if (touched?.after) return copyOf(touched.after);
    if (!touched || touched.before === undefined) return null;
    return touched.before ? copyOf(touched.before) : undefined;
  }

  /* It has been read: it must still be so at the commit. */
  sessionRead(
    coValue: number,
    sessionID: SesID,
    row: StoredSessionRow | undefined,
  ): StoredSessionRow | undefined {
    this.touch(coValue, sessionID, row ?? null);
    return row && copyOf(row);
  }

  /* Nothing is known of it, and most likely there is nothing. */
  sessionAssumed(coValue: number, sessionID: SesID): undefined {
    this.touch(coValue, sessionID, null).assumed = true;
  }

  /* Does what the caller was told rest on an assumption? */
  get assumes(): boolean {
    for (const { assumed } of this.touched) if (assumed) return true;
    return false;
  }

  /* A new session has a negative row id, good for this transaction only. */
  putSession({ sessionUpdate }: SessionUpdate): number {
    const { coValue, sessionID } = sessionUpdate;
    const touched =
      this.find(coValue, sessionID) ?? this.touch(coValue, sessionID, undefined);
    const rowID =
      touched.after?.rowID ??
      touched.before?.rowID ??
      -(this.touched.indexOf(touched) + 1);
    const first = touched.after === undefined;
    touched.after = rowOf(rowID, sessionUpdate);
    this.pushSession(touched, first && touched.before !== undefined);
    return rowID;
  }

  /* Its row id is the first of the results. */
  private pushCoValue() {
    if (this.makes === undefined || this.changes[0] === this.makes) return;
    this.changes.unshift(this.makes);
    for (const touched of this.touched) touched.result++;
    this.results++;
  }

  private pushSession(touched: Touched, expecting: boolean) {
    const { coValue, sessionID, before, after } = touched;
    const row = after!;
    const isNew = coValue === NEW_COVALUE && this.makes !== undefined;
    if (isNew) this.pushCoValue();
    touched.assumed &&= !expecting;
    const item = change(
      Kind.SESSION,
      (expecting ? Flag.EXPECT : 0) | (isNew ? Flag.LATEST : 0),
      isNew ? 0 : coValue,
      row.lastIdx,
      sessionID,
      row.lastSignature,
    );
    item.bytes = row.bytesSinceLastSignature ?? NONE;
    item.expectRow = before?.rowID ?? 0;
    item.expectIdx = before?.lastIdx ?? 0;
    this.changes.push(item);
    touched.result = this.results++;
    this.latest = touched;
  }

  /* A change of SESSION's content, without its value. */
  private pushContent(kind: number, session: number, idx: number): Change {
    if (session >= 0) {
      const item = change(kind, this.flags, session, idx, "", "");
      this.changes.push(item);
      return item;
    }
    const touched = this.touched[-session - 1];
    if (!touched?.after)
      throw new BftreeError(
        "BFT_INVALID",
        `storing: session row ${session} was good for its transaction only`,
      );
    if (this.latest !== touched) this.pushSession(touched, false);
    const item = change(kind, this.flags | Flag.LATEST, 0, idx, "", "");
    this.changes.push(item);
    return item;
  }

  putTransaction(session: number, idx: number, tx: Tx) {
    setTransaction(this.pushContent(Kind.TRANSACTION, session, idx), tx);
  }

  putSignature({ sessionRowID, idx, signature }: SignatureAfter) {
    this.pushContent(Kind.SIGNATURE, sessionRowID, idx).value = signature;
  }

  /* --- The rest --- */

  markDeleted(id: CoID) {
    this.changes.push(change(Kind.DELETED, 0, 0, 0, id, ""));
  }

  lock(key: string): LockRow | undefined {
    const row = this.locks?.get(key);
    return row && { ...row };
  }

  putLock(row: LockRow) {
    const item = change(
      Kind.LOCK,
      0,
      row.acquiredAt,
      row.lastProcessedOffset,
      row.key,
      row.holderSessionId,
    );
    item.bytes = row.releasedAt ?? 0;
    this.changes.push(item);
    this.locks ??= new Map();
    this.locks.set(row.key, { ...row });
  }

  /* --- Commit --- */

  /* Put it all into the request, for APPLY. */
  pack() {
    pack(this.changes);
  }

  /* After APPLY went well, and only once: what CACHE should know.  Returns the
   * row of what was NEW_COVALUE; 0: it was not made. */
  committed(cache: RowCache): number {
    const made =
      this.makes !== undefined && this.changes[0] === this.makes
        ? appliedRow(0)
        : 0;
    cache.committed(appliedChanges());
    if (made !== 0) cache.found(this.makes!.id, made);
    for (const { after, result: place } of this.touched) {
      if (!after || place >= RESULTS_MAX) continue;
      after.rowID = appliedRow(place);
      if (after.coValue === NEW_COVALUE) after.coValue = made;
      cache.remember(after);
    }
    return made;
  }
}
