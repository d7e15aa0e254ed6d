/*
 * Changes, packed for bft_covalue_apply_packed(): storage/bftree_stores.h says
 * how they lie.
 */
import { BftreeError } from "./bftree-error.ts";
import { isPlain, packed, packing } from "./native.ts";

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
  /* Bytes of the value: `value`, then `long` as a JSON string without its
   * quotes, then `end`. */
  value: string;
  long: string;
  end: string;
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
  };
}

/* A longer string does not go through JSON.stringify(): most need no escape. */
const LONG_STRING = 4096;
const PLACE = "\u0001long string\u0001";

/* Have the value of ITEM be OBJECT in JSON; false: it has no long string. */
export function setLongValue(item: Change, object: object): boolean {
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
    return true;
  }
  return false;
}

const PLACE_TEXT = JSON.stringify(PLACE).slice(1, -1);

/* Write it at AT, and return where it ends; undefined: it is no longer long, and
 * all is to be packed again. */
function putLong(item: Change, bytes: Buffer, at: number): number | undefined {
  const start = at + bytes.write(item.value, at);
  const length = bytes.write(item.long, start);
  if (isPlain(start, length))
    return start + length + bytes.write(item.end, start + length);
  item.value += JSON.stringify(item.long).slice(1, -1) + item.end;
  item.long = "";
  item.end = "";
  return undefined;
}

const HEAD = 24;
const LONG_HEAD = 48;
const UNIT_MAX = 3; /* bytes of a character */
const ID_MAX = 0xffff;

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

/* Put CHANGES into the request, for APPLY. */
export function pack(changes: readonly Change[]): void {
  let room = 0;
  for (const { id, value, long, end } of changes)
    room +=
      LONG_HEAD +
      UNIT_MAX * (id.length + value.length + long.length + end.length);
  const { bytes, view } = packing(room);
  let at = 0;
  for (const item of changes) {
    const long = item.kind === Kind.SESSION || item.kind === Kind.LOCK;
    const start = at;
    at += long ? LONG_HEAD : HEAD;
    const idLength = item.id.length === 0 ? 0 : bytes.write(item.id, at);
    if (idLength > ID_MAX)
      throw new BftreeError(
        "BFT_TOO_BIG",
        `storing: an id of ${idLength} bytes`,
      );
    at += idLength;
    const valueAt = at;
    if (item.long.length > 0) {
      const end = putLong(item, bytes, at);
      if (end === undefined) return pack(changes);
      at = end;
    } else if (item.value.length > 0) at += bytes.write(item.value, at);
    view.setUint8(start, item.kind);
    view.setUint8(start + 1, item.flags);
    view.setUint16(start + 2, idLength, true);
    view.setUint32(start + 4, at - valueAt, true);
    putNumber(view, start + 8, item.row);
    putNumber(view, start + 16, item.idx);
    if (!long) continue;
    if (item.bytes === NONE) putNone(view, start + 24);
    else putNumber(view, start + 24, item.bytes);
    putNumber(view, start + 32, item.expectRow);
    putNumber(view, start + 40, item.expectIdx);
  }
  packed(at);
}
