/*
 * When is a message done?  A process runs with its syncs held up or failing, or
 * its disk full, as support/sync_control.c says, and tells what it saw.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { openJazzStorage } from "../dist/index.js";
import { buildRoot, load, packageRoot, scratch } from "./support/messages.mjs";

const session = "co_zA_session_z1";

/* Run a scenario of support/syncing.mjs; what it returned. */
async function scenario(name) {
  const dir = scratch();
  const control = join(dir, "control");
  writeFileSync(control, Buffer.alloc(4096));
  const child = spawn(
    process.execPath,
    [join(packageRoot, "test/support/syncing.mjs"), name, join(dir, "db")],
    {
      stdio: ["ignore", "pipe", "pipe"],
      env: {
        ...process.env,
        LD_PRELOAD: join(buildRoot, "sync_control.so"),
        BFT_SYNC_CONTROL: control,
      },
    },
  );
  let out = "";
  let log = "";
  child.stdout.on("data", (data) => (out += data));
  child.stderr.on("data", (data) => (log += data));
  const code = await new Promise((resolve) => child.on("close", resolve));
  assert.equal(code, 0, log);
  const asked = readFileSync(control).readUInt32LE(8);
  assert.ok(asked > 0, "no sync went through the control");
  return { db: join(dir, "db"), log, ...JSON.parse(out) };
}

test("done waits for the sync, accepted does not", async () => {
  const seen = await scenario("held");
  assert.deepEqual(seen.whileHeld, { done: 0, stored: 3, durable: false });
  assert.deepEqual(seen.afterwards, { done: 3, durable: true });
});

test("done comes after the last commit of the message and its corrections", async () => {
  const seen = await scenario("correction");
  assert.deepEqual(seen.whileHeld, { done: 0, stored: 5, durable: false });
  assert.equal(seen.done, 1);
  assert.ok(seen.durableLsn >= seen.acceptedLsn, JSON.stringify(seen));
});

test("a message that brings nothing new waits for what it found", async () => {
  const seen = await scenario("nothingNew");
  assert.deepEqual(seen.whileHeld, { done: [] });
  assert.deepEqual(seen.afterwards, { done: ["again", "first"] });
});

test("a sync that began before a message does not make it done", async () => {
  const { early, done, messages } = await scenario("overtaken");
  assert.deepEqual(early, []);
  assert.equal(done, messages);
});

test("done never comes after a sync that failed", async () => {
  const seen = await scenario("failing");
  assert.deepEqual(seen.done, ["before"]);
  /* The third was refused. */
  assert.equal(seen.stored, 2);
  assert.equal(seen.code, "BFT_POISONED");
  assert.match(seen.log, /a sync failed/);
});

for (const mode of ["sync", "async"])
  test(`a full disk is told and loses nothing: mode ${mode}`, async () => {
    const seen = await scenario(`full-${mode}`);
    assert.equal(seen.name, "BftreeError", JSON.stringify(seen));
    assert.equal(seen.code, "BFT_NO_SPACE", JSON.stringify(seen));
    assert.ok(seen.text.includes(seen.db), seen.text);
    assert.ok(seen.accepted > 0);
    assert.equal(seen.ids, seen.accepted + 1);
  });

test("stores of one database share syncs", async () => {
  const seen = await scenario("shared");
  assert.equal(seen.done, seen.stores * seen.messages);
  assert.ok(seen.syncs <= 3, JSON.stringify(seen));
});

test("a synchronous store with durability sync is durable when it returns", async () => {
  const seen = await scenario("synchronous");
  assert.equal(seen.done, 5);
  assert.ok(seen.syncs >= 5, JSON.stringify(seen));
  assert.ok(seen.durable);
});

test("buffered and none do not wait for a sync", async () => {
  for (const name of ["buffered", "none"]) {
    const seen = await scenario(name);
    assert.deepEqual(seen.whileHeld, { done: 3, stored: 3 });
  }
});

test("close() lets what is accepted become durable, and done come, first", async (t) => {
  const seen = await scenario("closing");
  assert.deepEqual(seen.whileHeld, { done: 0, closed: false });
  assert.deepEqual(seen.afterwards, { done: 1, closed: true });
  const storage = openJazzStorage(seen.db, { mode: "sync", mustExist: true });
  t.after(() => storage.database.close());
  assert.equal((await load(storage, "co_z1"))[session].length, 3);
});

test("the event loop turns while a sync takes its time", async () => {
  const seen = await scenario("turning");
  assert.ok(seen.turns >= 20, `${seen.turns} turns`);
  assert.equal(seen.done, 1);
});
