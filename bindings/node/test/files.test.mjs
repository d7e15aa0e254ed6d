/* Files that are not as they were left, and places that cannot be written. */
import assert from "node:assert/strict";
import {
  chmodSync,
  cpSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { BftreeError, openJazzStorage } from "../dist/index.js";
import { load, message, scratch, store } from "./support/messages.mjs";

const COVALUES = 200;
const id = (i) => `co_z${i}`;

/* A closed database. */
async function made() {
  const path = join(scratch(), "db");
  const storage = openJazzStorage(path, { mode: "sync" });
  for (let i = 0; i < COVALUES; i++)
    await store(storage, message(id(i), 0, 5, { length: 300 }));
  await storage.close();
  return path;
}

function is(error, code, ...words) {
  assert.ok(error instanceof BftreeError, String(error));
  assert.equal(error.code, code, error.message);
  for (const word of words)
    assert.ok(error.message.includes(word), `${word}: ${error.message}`);
  return true;
}

/* Open PATH and read all of it; the first error. */
async function firstError(path, mode) {
  let storage;
  try {
    storage = openJazzStorage(path, { mode, mustExist: true });
    for (let i = 0; i < COVALUES; i++) {
      const coValue = await storage.dbClient.getCoValue(id(i));
      const [session] = await storage.dbClient.getCoValueSessions(coValue.rowID);
      const rows = await storage.dbClient.getNewTransactionInSession(
        session.rowID,
        0,
        4,
      );
      assert.equal(rows.length, 5);
    }
    await storage.database.verify();
  } catch (error) {
    return error;
  } finally {
    await storage?.database.close().catch(() => undefined);
  }
}

for (const mode of ["sync", "async"]) {
  test(`a truncated file is told: mode ${mode}`, async () => {
    const path = await made();
    const data = join(path, "data");
    const whole = readFileSync(data);
    for (const share of [0.9, 0.5, 0.1, 0]) {
      truncateSync(data, Math.floor(whole.length * share));
      is(await firstError(path, mode), "BFT_CORRUPT", data);
      writeFileSync(data, whole);
    }
    rmSync(data);
    is(await firstError(path, mode), "BFT_NOT_FOUND", path);
    writeFileSync(data, whole);
    assert.equal(await firstError(path, mode), undefined);
  });

  test(`a flipped bit is told or of no account: mode ${mode}`, async () => {
    const path = await made();
    const data = join(path, "data");
    const whole = readFileSync(data);
    let told = 0;
    for (let at = 8192 + 90; at < whole.length; at += whole.length >> 4) {
      const bytes = Buffer.from(whole);
      bytes[at] ^= 0x10;
      writeFileSync(data, bytes);
      const error = await firstError(path, mode);
      if (error) {
        is(error, "BFT_CORRUPT", data);
        told++;
      }
      writeFileSync(data, whole);
    }
    assert.ok(told > 5, `${told}`);
  });
}

/* crc32c, bit by bit. */
function crc32c(bytes) {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++)
      crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  }
  return ~crc >>> 0;
}

test("a database of a newer format is named, and left alone", async () => {
  const path = await made();
  const data = join(path, "data");
  const bytes = readFileSync(data);
  for (const at of [0, 4096]) {
    bytes.writeUInt16LE(9, at + 8);
    bytes.writeUInt32LE(crc32c(bytes.subarray(at, at + 508)), at + 508);
  }
  writeFileSync(data, bytes);
  assert.throws(
    () => openJazzStorage(path),
    (error) => is(error, "BFT_TOO_NEW", path, "format 9.0"),
  );
  assert.deepEqual(readFileSync(data), bytes);
});

/* As somebody whom permissions bind, as long as WORK takes. */
function unprivileged(work) {
  const root = process.geteuid() === 0;
  if (root) process.seteuid(65534);
  try {
    return work();
  } finally {
    if (root) process.seteuid(0);
  }
}

test("a directory that cannot be written is refused", async () => {
  const dir = scratch();
  const path = join(dir, "there");
  cpSync(await made(), path, { recursive: true });
  /* Its files too: whoever runs this may own them. */
  const names = [".", ...readdirSync(dir, { recursive: true })];
  const places = names.map((name) => join(dir, name));
  const modes = new Map(places.map((place) => [place, statSync(place).mode]));
  for (const [place, mode] of modes) chmodSync(place, mode & 0o555);
  for (const place of [path, join(dir, "new")]) {
    unprivileged(() =>
      assert.throws(
        () => openJazzStorage(place),
        (error) => is(error, "BFT_READ_ONLY", place),
      ),
    );
  }
  for (const [place, mode] of modes) chmodSync(place, mode);
  const storage = openJazzStorage(path, { mustExist: true });
  assert.equal(Object.keys(await load(storage, id(1))).length, 1);
  await storage.database.close();
});

test("something in the place of a file is named", async () => {
  const path = await made();
  for (const name of ["lock", "data"]) {
    const copy = join(scratch(), "db");
    cpSync(path, copy, { recursive: true });
    rmSync(join(copy, name));
    mkdirSync(join(copy, name));
    assert.throws(
      () => openJazzStorage(copy),
      (error) => is(error, "BFT_INVALID", join(copy, name)),
    );
    assert.ok(statSync(join(copy, name)).isDirectory());
  }
});

test("options that contradict an open database name the option", async () => {
  const path = await made();
  const options = { memoryBytes: 2 << 20, logBytes: 1 << 20 };
  const storage = openJazzStorage(path, options);
  await openJazzStorage(path, options).close();
  await openJazzStorage(path).close();
  for (const [other, name] of [
    [{ ...options, memoryBytes: 3 << 20 }, "memoryBytes"],
    [{ ...options, logBytes: 64 << 20 }, "logBytes"],
    [{ ...options, compress: true }, "compress"],
  ])
    assert.throws(
      () => openJazzStorage(path, other),
      (error) => is(error, "BFT_INVALID", path, name),
    );
  await storage.database.close();
});
