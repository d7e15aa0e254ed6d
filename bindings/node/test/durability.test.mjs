/*
 * When is a message done?  A process runs with its syncs held up or failing, or
 * its disk full, as support/sync_control.c says, and tells what it saw.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { BftreeError, openJazzStorage } from "../dist/index.js";
import { calls, result, setNumber } from "../dist/native.js";
import {
  buildRoot,
  clientOf,
  load,
  message,
  noCorrection,
  packageRoot,
  scratch,
  store,
  turns,
} from "./support/messages.mjs";

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

test("a database that there is no memory to note is closed again", async () => {
  const seen = await scenario("poor");
  assert.equal(seen.code, "BFT_NO_MEMORY");
  assert.ok(seen.text.includes(`${seen.db}: no memory for a handle`), seen.text);
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

/*
 * Commits are made by other threads, and their answers come in an order of
 * their own: here in that which the test wants.  The commits themselves are
 * made at once.
 */
function answersLater({ handle }) {
  const answers = [];
  const attempt = handle.attempt.bind(handle);
  handle.attempt = (kind, read) => {
    if (kind !== calls.APPLY) return attempt(kind, read);
    handle.run(kind);
    const numbers = Array.from({ length: 8 }, (_, i) => result(i));
    return new Promise((resolve) =>
      answers.push(() => {
        for (const [i, number] of numbers.entries()) setNumber(i + 1, number);
        resolve(read(undefined));
      }),
    );
  };
  return answers;
}

/* Up to which commit the storage waits for durability. */
function asked({ handle }) {
  const lsns = [];
  const submit = handle.submit.bind(handle);
  handle.submit = (kind, read) => {
    if (kind === calls.DURABLE) lsns.push(result(-1));
    return submit(kind, read);
  };
  return lsns;
}

const opened = (t, path, options) => {
  const storage = openJazzStorage(path, options);
  t.after(() => storage.database.close());
  return storage;
};
const accepted = (storage) => storage.database.stats().accepted_lsn;
const synced = (n) => [{ id: `co_z${n}`, peerId: "peer", synced: false }];

test("done waits for a commit whose answer came before an older one's", async (t) => {
  const storage = opened(t, join(scratch(), "db"));
  const answers = answersLater(storage);
  const lsns = asked(storage);
  const client = clientOf(storage);
  const writes = [1, 2].map((n) => client.trackCoValuesSyncState(synced(n)));
  const lsn = accepted(storage);
  const done = new Promise((resolve) => {
    writes[1].then(() => client.whenDurable(resolve));
  });
  for (const answer of answers.reverse()) answer();
  await done;
  assert.ok(lsns[0] >= lsn, `${lsns[0]} is before ${lsn}`);
});

test("done waits for what was found while a commit went on", async (t) => {
  const path = join(scratch(), "db");
  const storage = opened(t, path);
  const other = opened(t, path, { mode: "sync" });
  await store(storage, message("co_z1", 0, 1));
  const answers = answersLater(storage);
  const lsns = asked(storage);
  const client = clientOf(storage);
  const write = client.trackCoValuesSyncState(synced(1));
  other.store(message("co_z2", 0, 1), noCorrection);
  const lsn = accepted(storage);
  assert.ok((await client.upsertCoValue("co_z2")) > 0);
  for (const answer of answers.splice(0)) answer();
  await write;
  const done = new Promise((resolve) => client.whenDurable(resolve));
  for (const answer of answers.splice(0)) answer();
  await done;
  assert.ok(lsns[0] >= lsn, `${lsns[0]} is before ${lsn}`);
});

test("close() lets a commit that is under way end, and done come", async (t) => {
  for (const nothingNew of [false, true]) {
    const storage = opened(t, join(scratch(), "db"));
    await store(storage, message("co_z1", 0, 1));
    const answers = answersLater(storage);
    const seen = [];
    if (nothingNew)
      storage.store(message("co_z1", 0, 1), noCorrection, () => seen.push("done"));
    else
      storage.trackCoValuesSyncState(synced(1), () => seen.push("done"));
    await turns(1);
    assert.equal(answers.length, 1);
    const closed = storage.close().then(() => seen.push("closed"));
    await turns(5);
    answers[0]();
    await closed;
    await turns(5);
    assert.deepEqual(seen, ["done", "closed"]);
    /* Nothing has come later and opened it again. */
    assert.equal(storage.handle.id, 0);
  }
});

test("close() stores what came while a commit was under way", async (t) => {
  const path = join(scratch(), "db");
  const storage = opened(t, path, { durability: "buffered" });
  const answers = answersLater(storage);
  const seen = [];
  const put = (n) =>
    storage.store(message(`co_z${n}`, 0, 1), noCorrection, () => seen.push(n));
  const turn = async () => {
    await turns(1);
    for (const answer of answers.splice(0)) answer();
  };
  /* The first takes a look into the store, and the second comes behind it. */
  for (const n of [1, 2]) put(n);
  while (!storage.batching.running) await turn();
  for (const n of [3, 4, 5]) put(n);
  assert.deepEqual(seen, [1]);
  let over = false;
  const closed = storage.close().then(() => (over = true));
  while (!over) await turn();
  await closed;
  assert.deepEqual(seen, [1, 2, 3, 4, 5]);
  assert.equal(storage.handle.id, 0);
  const again = opened(t, path, { mode: "sync" });
  for (const n of seen)
    assert.equal((await load(again, `co_z${n}`))?.[session].length, 1, `co_z${n}`);
});

test("a synchronous store that brings nothing new waits for what it found", async (t) => {
  const path = join(scratch(), "db");
  const other = opened(t, path, { mode: "sync", durability: "buffered" });
  const storage = opened(t, path, { mode: "sync", durability: "sync" });
  const durable = () => storage.database.stats().durable_lsn;
  for (let count = 1; count <= 2; count++) {
    /* Known to be there is the CoValue, then the session, too. */
    for (let again = 0; again < 2; again++) {
      const msg = message("co_z1", 0, count);
      other.store(msg, noCorrection);
      if (again === 0) assert.ok(durable() < accepted(storage));
      assert.equal(storage.store(msg, noCorrection), true);
      assert.ok(durable() >= accepted(storage));
    }
  }
});

test("done never comes where what was found cannot be asked for", async (t) => {
  const storage = opened(t, join(scratch(), "db"));
  const { handle } = storage;
  await store(storage, message("co_z1", 0, 1));
  const client = clientOf(storage);
  assert.ok((await client.upsertCoValue("co_z1")) > 0);
  const { attempt } = handle;
  handle.attempt = () => {
    handle.attempt = attempt;
    throw new BftreeError("BFT_NO_SPACE", "the disk is full");
  };
  /* An error would go to cojson, which does not expect one here. */
  client.whenDurable(() => assert.fail("it may not be durable"));
  await turns();
  assert.equal(handle.attempt, attempt);
  await store(storage, message("co_z1", 1, 1));
});

test("any number may wait for one sync", async (t) => {
  const storage = opened(t, join(scratch(), "db"));
  await store(storage, message("co_z1", 0, 1));
  const { durable } = clientOf(storage);
  const count = 200_000;
  let done = 0;
  for (let i = 0; i < count; i++)
    durable.wait(accepted(storage), () => done++);
  await durable.settled();
  assert.equal(done, count);
});

test("a wait that is refused at once stops no other, nor a close", async (t) => {
  const storage = opened(t, join(scratch(), "db"));
  const { handle } = storage;
  await store(storage, message("co_z1", 0, 1));
  const { submit } = handle;
  handle.submit = () => {
    handle.submit = submit;
    throw new BftreeError("BFT_NO_MEMORY", "no thread could be started");
  };
  clientOf(storage).whenDurable(() => assert.fail("it may not be durable"));
  await turns();
  assert.equal(handle.submit, submit);
  let done = false;
  storage.store(message("co_z1", 1, 1), noCorrection, () => (done = true));
  /* What waits for ever may do so without a turn of the event loop. */
  assert.equal(clientOf(storage).durable.asking, undefined);
  await storage.close();
  assert.ok(done);
});
