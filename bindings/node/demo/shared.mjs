/*
 * What the three programs of the demo agree on: the random numbers, the
 * flavours of the storage, and what a digest is.
 *
 * The writer tells its parent one line of JSON for each thing that the storage
 * has called stored:
 *
 *   { account, secret }                 an account that can be logged in to
 *   { n, id, type, account }            a CoValue, that is its header
 *   { n, id, session, idx, tx, what? }  a transaction: `tx` is the digest of it
 *                                       as it was signed, `what` says what it
 *                                       means to the application
 *
 * `what` is made by the writer and compared by the checker:
 *
 *   ["map", key, n, digest]             a key was set
 *   ["list", n, digest]                 an item was appended
 *   ["group", member, role]             a member was added
 *   ["chunk", index, digest]            a piece of a binary stream
 *   ["end", bytes, digest]              the stream is complete
 */
import { createHash } from "node:crypto";
import { cojsonInternals } from "cojson";

/* mulberry32: numbers below 1 that follow from SEED. */
export function randomFrom(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

export function digestOfBytes(...pieces) {
  const hash = createHash("sha256");
  for (const piece of pieces) hash.update(piece);
  return hash.digest("base64url");
}

export const digestOf = (value) =>
  digestOfBytes(cojsonInternals.stableStringify(value));
