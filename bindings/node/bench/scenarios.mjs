/*
 * What is written and read: four shapes of Jazz data, made by a real LocalNode.
 *
 *   A  many CoMaps, 10 transactions in each, one store() for each CoMap
 *   B  the same, but one store() for each transaction, going round the CoMaps
 *   C  one CoMap, one store() for each transaction
 *   D  one binary stream in chunks of 100 KB, one store() for each
 */
import { LocalNode } from "cojson";

const TRANSACTIONS_EACH = 10;
const CHUNK_BYTES = 100_000;

export const scenarios = {
  A: {
    says: "CoMaps of 10 transactions, one store() for each CoMap",
    full: 2000,
    quick: 1000,
    count: (size) => size * TRANSACTIONS_EACH,
    unit: "tx",
    loads: (size) => size,
    loadUnit: "CoValues",
  },
  B: {
    says: "CoMaps of 10 transactions, one store() for each transaction",
    full: 2000,
    quick: 500,
    count: (size) => size * TRANSACTIONS_EACH,
    unit: "tx",
    loads: (size) => size,
    loadUnit: "CoValues",
  },
  C: {
    says: "transactions of one CoMap, one store() for each",
    full: 20_000,
    quick: 5000,
    count: (size) => size,
    unit: "tx",
    loads: (size) => size,
    loadUnit: "tx",
  },
  D: {
    says: "MB of a binary stream, one store() for each 100 KB",
    full: 20,
    quick: 10,
    count: (size) => size,
    unit: "MB",
    loads: (size) => size,
    loadUnit: "MB",
  },
};

let crypto;
export async function cryptoProvider() {
  const { NapiCrypto } = await import("cojson/crypto/NapiCrypto");
  crypto ??= await NapiCrypto.create();
  return crypto;
}

/* Between two stores: a message goes to the storage in a microtask, and an
 * asynchronous storage gets its answers from the event loop. */
const nextTurn = () => new Promise(setImmediate);

/* About 60 bytes as JSON. */
const value = (i) => ({ v: i, s: `some text that somebody wrote down ${i}` });

/* A node with an account and a group, which everything belongs to. */
export async function newNode(storage) {
  const { node, accountID, accountSecret } =
    await LocalNode.withNewlyCreatedAccount({
      creationProps: { name: "bench" },
      crypto: await cryptoProvider(),
      ...(storage && { storage }),
    });
  const group = node.createGroup();
  await nextTurn();
  return { node, group, accountID, accountSecret };
}

const write = {
  async A(group, size) {
    const ids = [];
    for (let m = 0; m < size; m++) {
      const map = group.createMap();
      for (let i = 0; i < TRANSACTIONS_EACH; i++) map.set(`k${i}`, value(i));
      ids.push(map.id);
      await nextTurn();
    }
    return ids;
  },

  async B(group, size) {
    const maps = [];
    for (let m = 0; m < size; m++) {
      maps.push(group.createMap());
      await nextTurn();
    }
    for (let i = 0; i < TRANSACTIONS_EACH; i++)
      for (const map of maps) {
        map.set(`k${i}`, value(i));
        await nextTurn();
      }
    return maps.map(({ id }) => id);
  },

  async C(group, size) {
    const map = group.createMap();
    for (let i = 0; i < size; i++) {
      map.set(`k${i % 100}`, value(i));
      await nextTurn();
    }
    return [map.id];
  },

  async D(group, size) {
    const stream = group.createBinaryStream();
    const chunk = new Uint8Array(CHUNK_BYTES);
    stream.startBinaryStream({ mimeType: "application/octet-stream" });
    await nextTurn();
    for (let i = 0; i < (size * 1_000_000) / CHUNK_BYTES; i++) {
      /* Bytes that a compressor gets nothing out of, without their cost. */
      for (let at = 0; at < chunk.length; at += 8)
        chunk[at] = (i * 31 + at * 17) & 0xff;
      stream.pushBinaryStreamChunk(chunk);
      await nextTurn();
    }
    stream.endBinaryStream();
    await nextTurn();
    return [stream.id];
  },
};

/* Write SCENARIO into GROUP; resolves to the ids of its CoValues. */
export const writeScenario = (scenario, group, size) =>
  write[scenario](group, size);

/* --- Recording ------------------------------------------------------------------- */

/* A storage that keeps the messages and calls them stored. */
class Recorder {
  messages = [];

  store(msg, _correct, done) {
    /* What is added later to what a message refers to is not part of it. */
    this.messages.push(structuredClone(msg));
    done?.();
  }

  waitForSync = async () => {};
  markDeleteAsValid() {}
  enableDeletedCoValuesErasure() {}
  async eraseAllDeletedCoValues() {}
  load = (_id, _callback, done) => done(false);
  loadKnownState = (_id, callback) => callback(undefined);
  getKnownState = (id) => ({ id, header: false, sessions: {} });
  trackCoValuesSyncState = (_updates, done) => done?.();
  getUnsyncedCoValueIDs = (callback) => callback([]);
  stopTrackingSyncState() {}
  onCoValueUnmounted() {}
  close() {}
}

/*
 * The messages of SCENARIO as a LocalNode hands them to its storage: those that
 * make account and group, then the others, and the ids to load.
 */
export async function record(scenario, size) {
  const recorder = new Recorder();
  const { group } = await newNode(recorder);
  const before = recorder.messages;
  recorder.messages = [];
  const ids = await writeScenario(scenario, group, size);
  return { before, messages: recorder.messages, ids };
}

/* --- Reading back ------------------------------------------------------------------ */

/* What is in LOADED value of a scenario; the same for every storage. */
export function readValue(scenario, value) {
  if (scenario === "D")
    return value.getBinaryChunks().chunks.reduce((n, c) => n + c.length, 0);
  let sum = 0;
  for (const key of value.keys()) sum += value.get(key).v;
  return sum;
}
