/*
 * Changes, packed for bft_covalue_apply_packed(): storage/bftree_stores.h says
 * how they lie.
 */
import { BftreeError } from "./bftree-error.ts";
import { completeUsual, packed, packing, refuseText } from "./native.ts";
import type { Tx } from "./rows.ts";

export const Kind = {
  COVALUE: 1,
  SESSION: 2,
  TRANSACTION: 3,
  SIGNATURE: 4,
  DELETED: 5,
  UNSYNCED: 6,
  SYNCED: 7,
  UNTRACK: 8,
  LOCK: 9,
} as const;

export const Flag = { FIND: 1, OVERWRITE: 2, EXPECT: 4, LATEST: 8 } as const;

/* In the place of bytes: it is not known how many. */
export const NONE = -1;

export type Change = {
  kind: number;
  flags: number;
  row: number;
  idx: number;
  bytes: number;
  expectRow: number;
  expectIdx: number;
  id: string;
  value: string;
  /* Of a transaction in its usual shape: itself, while `value` is its
   * encryptedChanges, `key` the JSON text of its keyUsed, `bytes` its madeAt. */
  usual: object | undefined;
  key: string;
};

export function change(
  kind: number,
  flags: number,
  row: number,
  idx: number,
  id: string,
  value: string,
): Change {
  return {
    kind,
    flags,
    row,
    idx,
    bytes: 0,
    expectRow: 0,
    expectIdx: 0,
    id,
    value,
    usual: undefined,
    key: "",
  };
}

/* --- JSON texts --- */

export function jsonOf(value: unknown, what: string): string {
  const text = JSON.stringify(value) as string | undefined;
  if (text === undefined)
    throw new BftreeError("BFT_INVALID", `storing: ${what} is not JSON`);
  return text;
}

/* The members of a private transaction, as cojson's Rust core makes it. */
const USUAL = ["encryptedChanges", "keyUsed", "madeAt", "privacy"];

/* In which madeAt has so many digits: to the year 2286. */
const DIGITS = 13;
const MADE_AT_MIN = 1e12;
const MADE_AT_END = 1e13;

/* Many transactions use one key.  Empty: the text is not ASCII. */
let lastKey = "";
let lastKeyText = '""';

function textOfKey(key: string) {
  if (key !== lastKey) {
    const text = JSON.stringify(key);
    lastKeyText = /^[ -~]*$/.test(text) ? text : "";
    lastKey = key;
  }
  return lastKeyText;
}

/*
 * The JSON text of the usual transaction is put together by native code: to
 * join strings here and have them made one is most of what a transaction costs.
 * False: TX is another one.
 */
function setUsual(item: Change, tx: Tx): boolean {
  if (tx.privacy !== "private") return false;
  const { encryptedChanges, keyUsed, madeAt } = tx;
  let members = 0;
  for (const name in tx) if (name !== USUAL[members++]) return false;
  if (
    members !== USUAL.length ||
    typeof encryptedChanges !== "string" ||
    typeof keyUsed !== "string" ||
    !Number.isInteger(madeAt) ||
    madeAt < MADE_AT_MIN ||
    madeAt >= MADE_AT_END
  )
    return false;
  const key = textOfKey(keyUsed);
  if (key === "") return false;
  item.usual = tx;
  item.value = encryptedChanges;
  item.key = key;
  item.bytes = madeAt;
  return true;
}

/* Have the value of ITEM be TX in JSON. */
export function setTransaction(item: Change, tx: Tx | undefined) {
  if (!tx || !setUsual(item, tx)) item.value = jsonOf(tx, "a transaction");
}

/* Have it be made here: there is something to escape in it, or not ASCII. */
function makeUnusual(item: Change) {
  item.value = jsonOf(item.usual, "a transaction");
  item.usual = undefined;
  item.key = "";
  item.bytes = 0;
}

/* --- The packed form --- */

const HEAD = 24;
const LONG_HEAD = 48;
const UNIT_MAX = 3; /* bytes of a character */
const ESCAPED_MAX = 6; /* of one that JSON may have to escape */
const ID_MAX = 0xffff;

/* Lengths of what native/usual.c puts around the members of a transaction. */
const BEFORE_CHANGES = '{"encryptedChanges":"'.length;
const BEFORE_KEY = '","keyUsed":'.length;
const BEFORE_MADE_AT = ',"madeAt":'.length;
const AFTER_MADE_AT = DIGITS + ',"privacy":"private"}'.length;
const AROUND = BEFORE_CHANGES + BEFORE_KEY + BEFORE_MADE_AT + AFTER_MADE_AT;

/* Of an entry in the table for completeUsual(), which lies behind the changes:
 * where the text starts, the lengths of the changes and of the key. */
const ENTRY_BYTES = 12;

const ROOM_FIRST = 32 * 1024;
/* What is longer is not kept for the next changes. */
const ROOM_KEPT = 4 * 1024 * 1024;

function putNone(view: DataView, at: number) {
  view.setUint32(at, 0xffffffff, true);
  view.setUint32(at + 4, 0xffffffff, true);
}

function putNumber(view: DataView, at: number, number: number) {
  if (!Number.isSafeInteger(number) || number < 0)
    throw new BftreeError(
      "BFT_INVALID",
      `storing: ${String(number)} is no row or index`,
    );
  view.setUint32(at, number >>> 0, true);
  view.setUint32(at + 4, Math.floor(number / 0x100000000), true);
}

/* Write ITEM's value at AT and return where it ends. */
function putValue(
  item: Change,
  bytes: Buffer,
  view: DataView,
  at: number,
  usual: number[],
): number {
  const { value, key } = item;
  if (item.usual === undefined)
    return value.length === 0 ? at : at + bytes.write(value, at);
  const changesAt = at + BEFORE_CHANGES;
  const length = bytes.write(value, changesAt);
  if (length !== value.length) {
    /* A character of several bytes: native code takes ASCII only. */
    makeUnusual(item);
    return putValue(item, bytes, view, at, usual);
  }
  const keyAt = changesAt + length + BEFORE_KEY;
  bytes.write(key, keyAt);
  const madeAt = keyAt + key.length + BEFORE_MADE_AT;
  putNumber(view, madeAt, item.bytes);
  usual.push(at, length, key.length);
  return madeAt + AFTER_MADE_AT;
}

function putHead(item: Change, view: DataView, at: number, long: boolean) {
  putNumber(view, at + 8, item.row);
  putNumber(view, at + 16, item.idx);
  if (!long) return;
  if (item.bytes === NONE) putNone(view, at + 24);
  else putNumber(view, at + 24, item.bytes);
  putNumber(view, at + 32, item.expectRow);
  putNumber(view, at + 40, item.expectIdx);
}

/* Put together the transactions that the table USUAL names, which goes to AT.
 * False: there is something to escape in one. */
function complete(
  usual: readonly number[],
  view: DataView,
  at: number,
): boolean {
  for (let i = 0; i < usual.length; i++)
    view.setUint32(at + 4 * i, usual[i]!, true);
  return completeUsual(at, usual.length / 3);
}

/* So many bytes ITEM takes at most, also if it turns out to be unusual. */
function roomOf({ id, value, usual, key }: Change): number {
  if (typeof id !== "string") refuseText("storing: an id", id);
  if (typeof value !== "string") refuseText("storing: a signature", value);
  const room = LONG_HEAD + UNIT_MAX * id.length;
  return usual === undefined
    ? room + UNIT_MAX * value.length
    : room + ENTRY_BYTES + AROUND + key.length + ESCAPED_MAX * value.length;
}

/* Write ITEM at AT, where there is room for it, and return where it ends. */
function putChange(
  item: Change,
  bytes: Buffer,
  view: DataView,
  start: number,
  usual: number[],
): number {
  const long = item.kind === Kind.SESSION || item.kind === Kind.LOCK;
  let at = start + (long ? LONG_HEAD : HEAD);
  const idLength = item.id.length === 0 ? 0 : bytes.write(item.id, at);
  if (idLength > ID_MAX)
    throw new BftreeError("BFT_TOO_BIG", `storing: an id of ${idLength} bytes`);
  at += idLength;
  const valueAt = at;
  at = putValue(item, bytes, view, at, usual);
  view.setUint32(
    start,
    item.kind | (item.flags << 8) | (idLength << 16),
    true,
  );
  view.setUint32(start + 4, at - valueAt, true);
  putHead(item, view, start, long);
  return at;
}

/* Put CHANGES into the request, for APPLY. */
export function pack(changes: readonly Change[]): void {
  let room = 0;
  for (const item of changes) room += roomOf(item);
  const { bytes, view } = packing(room);
  const usual: number[] = [];
  let at = 0;
  for (const item of changes) at = putChange(item, bytes, view, at, usual);
  if (usual.length === 0 || complete(usual, view, at)) {
    packed(at);
    return;
  }
  for (const item of changes) if (item.usual !== undefined) makeUnusual(item);
  pack(changes);
}

/* Changes that are put one by one and lie aside until they are asked for. */
export class PackedChanges {
  private bytes!: Buffer;
  private view!: DataView;
  private readonly usual: number[] = [];
  /* Bytes that there are. */
  length = 0;

  constructor() {
    this.take(ROOM_FIRST);
  }

  clear() {
    this.length = 0;
    this.usual.length = 0;
    if (this.bytes.length > ROOM_KEPT) this.take(ROOM_FIRST);
  }

  /* Have LENGTH bytes, with nothing in them. */
  private take(length: number) {
    this.bytes = Buffer.allocUnsafeSlow(length);
    this.view = new DataView(this.bytes.buffer);
  }

  private makeRoom(length: number) {
    const old = this.bytes;
    this.take(Math.max(length, 2 * old.length));
    old.copy(this.bytes);
  }

  /* ITEM may be used again. */
  put(item: Change) {
    const room = this.length + roomOf(item);
    if (room > this.bytes.length) this.makeRoom(room);
    this.length = putChange(
      item,
      this.bytes,
      this.view,
      this.length,
      this.usual,
    );
  }

  /* Put them into the request, for APPLY.  False: there is something to escape in
   * a transaction; what is in the request is no JSON. */
  pack(): boolean {
    const { length, usual } = this;
    const { bytes, view } = packing(length + (ENTRY_BYTES / 3) * usual.length);
    this.bytes.copy(bytes, 0, 0, length);
    if (usual.length > 0 && !complete(usual, view, length)) return false;
    packed(length);
    return true;
  }
}
