/*
 * Changes, packed for bft_covalue_apply_packed(): storage/bftree_stores.h says
 * how they lie.
 */
import { BftreeError } from "./bftree-error.ts";
import { arePlain, packed, packing, refuseText } from "./native.ts";
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
  /* Bytes of the value: `value`, then `long`, then `end`. */
  value: string;
  long: string;
  end: string;
  /* What the value is the JSON text of, if that was put together by hand.  It
   * holds only if native code finds no character to escape in `long`, or in
   * `value` from plainAt on, plainLength characters. */
  object: object | undefined;
  plainAt: number;
  plainLength: number;
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
    long: "",
    end: "",
    object: undefined,
    plainAt: 0,
    plainLength: 0,
  };
}

/* --- JSON texts --- */

export function jsonOf(value: unknown, what: string): string {
  const text = JSON.stringify(value) as string | undefined;
  if (text === undefined)
    throw new BftreeError("BFT_INVALID", `storing: ${what} is not JSON`);
  return text;
}

/* A longer string does not go through JSON.stringify(): most need no escape. */
const LONG_STRING = 4096;
const PLACE = "\u0001long string\u0001";

/* Have the value of ITEM be OBJECT in JSON; false: it has no long string. */
function setLongValue(item: Change, object: object): boolean {
  if ("toJSON" in object) return false;
  for (const [key, string] of Object.entries(object)) {
    if (typeof string !== "string" || string.length < LONG_STRING) continue;
    if (!string.isWellFormed()) return false;
    const [value, end, more] = JSON.stringify({
      ...object,
      [key]: PLACE,
    }).split(PLACE_TEXT);
    if (end === undefined || more !== undefined) return false;
    item.value = value!;
    item.long = string;
    item.end = end;
    item.object = object;
    return true;
  }
  return false;
}

const PLACE_TEXT = JSON.stringify(PLACE).slice(1, -1);

/* The members of a private transaction, as cojson's Rust core makes it. */
const PRIVATE = ["encryptedChanges", "keyUsed", "madeAt", "privacy"];
const PRIVATE_START = '{"encryptedChanges":"';

/* Many transactions use one key. */
let lastKey = "";
let lastKeyText = '""';

function textOfKey(key: string) {
  if (key !== lastKey) {
    lastKeyText = JSON.stringify(key);
    lastKey = key;
  }
  return lastKeyText;
}

/* The same for the usual transaction, in half the time of JSON.stringify();
 * false: TX is another one. */
function setPrivateValue(item: Change, tx: Tx): boolean {
  if (tx.privacy !== "private") return false;
  const { encryptedChanges, keyUsed, madeAt } = tx;
  let members = 0;
  for (const name in tx) if (name !== PRIVATE[members++]) return false;
  if (
    members !== PRIVATE.length ||
    typeof encryptedChanges !== "string" ||
    typeof keyUsed !== "string" ||
    !Number.isSafeInteger(madeAt)
  )
    return false;
  item.value = `${PRIVATE_START}${encryptedChanges}","keyUsed":${textOfKey(keyUsed)},"madeAt":${madeAt},"privacy":"private"}`;
  item.object = tx;
  item.plainAt = PRIVATE_START.length;
  item.plainLength = encryptedChanges.length;
  return true;
}

const isLong = (tx: Tx) =>
  (tx.privacy === "private" ? tx.encryptedChanges : tx.changes)?.length >
  LONG_STRING;

/* Have the value of ITEM be TX in JSON. */
export function setTransaction(item: Change, tx: Tx | undefined) {
  const made =
    tx && (isLong(tx) ? setLongValue(item, tx) : setPrivateValue(item, tx));
  if (!made) item.value = jsonOf(tx, "a transaction");
}

/* Make the text of ITEM again: there is something to escape in it. */
function escape(item: Change) {
  item.value = jsonOf(item.object, "a transaction");
  item.long = "";
  item.end = "";
  item.object = undefined;
  item.plainAt = 0;
}

/* --- The packed form --- */

const HEAD = 24;
const LONG_HEAD = 48;
const UNIT_MAX = 3; /* bytes of a character */
const ESCAPED_MAX = 6; /* of one that JSON may have to escape */
const ID_MAX = 0xffff;

/* Of an entry in the table of places for arePlain(), which lies behind the
 * changes: where it starts, how many bytes. */
const PLACE_BYTES = 8;

const ROOM_FIRST = 32 * 1024;

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


/* Write ITEM's value at AT and return where it ends.  PLACES gets where and how
 * long strings are that must be plain. */
function putValue(
  item: Change,
  bytes: Buffer,
  at: number,
  places: number[],
): number {
  const { value, long, end, plainAt } = item;
  let next = value.length === 0 ? at : at + bytes.write(value, at);
  if (plainAt !== 0) {
    if (next - at === value.length)
      places.push(at + plainAt, item.plainLength);
    else {
      /* A character of several bytes: its place is not known. */
      escape(item);
      return putValue(item, bytes, at, places);
    }
  }
  if (long.length === 0) return next;
  const length = bytes.write(long, next);
  places.push(next, length);
  next += length;
  return next + bytes.write(end, next);
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

/* Do those in PLACES need no escape?  The table of them goes to AT. */
function placesArePlain(
  places: readonly number[],
  view: DataView,
  at: number,
): boolean {
  for (let i = 0; i < places.length; i++)
    view.setUint32(at + 4 * i, places[i]!, true);
  return arePlain(at, places.length / 2);
}

/* So many bytes ITEM takes at most. */
function roomOf({ id, value, long, end, plainAt }: Change): number {
  if (typeof id !== "string") refuseText("storing: an id", id);
  if (typeof value !== "string") refuseText("storing: a signature", value);
  return (
    LONG_HEAD +
    PLACE_BYTES +
    UNIT_MAX * (id.length + long.length + end.length) +
    (plainAt === 0 ? UNIT_MAX : ESCAPED_MAX) * value.length
  );
}

/* Write ITEM at AT, where there is room for it, and return where it ends. */
function putChange(
  item: Change,
  bytes: Buffer,
  view: DataView,
  start: number,
  places: number[],
): number {
  const long = item.kind === Kind.SESSION || item.kind === Kind.LOCK;
  let at = start + (long ? LONG_HEAD : HEAD);
  const idLength = item.id.length === 0 ? 0 : bytes.write(item.id, at);
  if (idLength > ID_MAX)
    throw new BftreeError("BFT_TOO_BIG", `storing: an id of ${idLength} bytes`);
  at += idLength;
  const valueAt = at;
  at = putValue(item, bytes, at, places);
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
  const places: number[] = [];
  let at = 0;
  for (const item of changes) at = putChange(item, bytes, view, at, places);
  if (places.length === 0 || placesArePlain(places, view, at)) {
    packed(at);
    return;
  }
  for (const item of changes) if (item.object !== undefined) escape(item);
  pack(changes);
}

/* Changes that are put one by one and lie aside until they are asked for. */
export class PackedChanges {
  private bytes: Buffer;
  private view: DataView;
  private readonly places: number[] = [];
  /* Bytes that there are. */
  length = 0;

  constructor() {
    this.bytes = Buffer.allocUnsafeSlow(ROOM_FIRST);
    this.view = new DataView(this.bytes.buffer);
  }

  clear() {
    this.length = 0;
    this.places.length = 0;
  }

  private makeRoom(length: number) {
    const old = this.bytes;
    this.bytes = Buffer.allocUnsafeSlow(Math.max(length, 2 * old.length));
    this.view = new DataView(this.bytes.buffer);
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
      this.places,
    );
  }

  /* Put them into the request, for APPLY.  False: there is something to escape in
   * a transaction; what is in the request is no JSON. */
  pack(): boolean {
    const { length, places } = this;
    const { bytes, view } = packing(length + (PLACE_BYTES / 2) * places.length);
    this.bytes.copy(bytes, 0, 0, length);
    if (places.length > 0 && !placesArePlain(places, view, length)) return false;
    packed(length);
    return true;
  }
}
