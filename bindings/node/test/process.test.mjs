/* Threads, processes, and how they end. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { openJazzStorage } from "../dist/index.js";
import {
  load,
  message,
  packageRoot,
  scratch,
  store,
} from "./support/messages.mjs";

const session = "co_zA_session_z1";
const support = (name) => join(packageRoot, "test/support", name);

/* A process that opens PATH and ends in its own way. */
function ending(path, how, options = {}) {
  const child = spawn(
    process.execPath,
    [...(options.flags ?? []), support("ending.mjs"), path, how],
    { stdio: ["pipe", "pipe", "pipe"] },
  );
  let out = "";
  let log = "";
  child.stdout.on("data", (data) => (out += data));
  child.stderr.on("data", (data) => (log += data));
  const end = once(child, "close").then(([code, signal]) => ({
    code,
    signal,
    out,
    log,
  }));
  return { child, end };
}

/* The signals that each thread of this process has blocked, by the thread. */
function blockedSignals() {
  const blocked = new Map();
  for (const thread of readdirSync("/proc/self/task")) {
    const text = readFileSync(`/proc/self/task/${thread}/status`, "latin1");
    blocked.set(thread, BigInt(`0x${/^SigBlk:\s*(\S+)/m.exec(text)[1]}`));
  }
  return blocked;
}

const blocks = (set, name) =>
  ((set >> BigInt(constants.signals[name] - 1)) & 1n) === 1n;

test("our threads take signals of their own faults only", async (t) => {
  const before = blockedSignals();
  const storage = openJazzStorage(join(scratch(), "db"), { mode: "async" });
  t.after(() => storage.database.close());
  await store(storage, message("co_z1", 0, 3));
  await storage.database.verify();
  const ours = [...blockedSignals()].filter(
    ([thread, set]) => !before.has(thread) && blocks(set, "SIGTERM"),
  );
  /* The engine's, and one that did what was asked for. */
  assert.ok(ours.length >= 2, `${ours.length} threads`);
  for (const [, set] of ours)
    for (const name of ["BUS", "SEGV", "FPE", "ILL", "TRAP", "SYS"])
      assert.ok(!blocks(set, `SIG${name}`), name);
});

for (const mode of ["sync", "async"])
  for (const [how, code] of [
    ["return", 0],
    ["exit", 0],
    ["throw", 1],
    ["pending", 0],
    ["garbage", 0],
  ])
    test(`a process ends without a close: mode ${mode}, ${how}`, async (t) => {
      const path = join(scratch(), "db");
      const flags = how === "garbage" ? ["--expose-gc"] : [];
      const { end } = ending(path, `${mode}-${how}`, { flags });
      const seen = await end;
      assert.equal(seen.signal, null, seen.log);
      assert.equal(seen.code, code, seen.log);
      const storage = openJazzStorage(path, { mode: "sync", mustExist: true });
      t.after(() => storage.database.close());
      assert.equal((await load(storage, "co_z1"))[session].length, 3);
      await storage.database.verify();
    });

/* What has this durability survives a clean close. */
for (const mode of ["sync", "async"])
  for (const [how, code] of [
    ["return", 0],
    ["exit", 0],
    ["throw", 1],
    ["pending", 0],
  ])
    test(`a process that ends closes what is open: mode ${mode}, ${how}`, async (t) => {
      const path = join(scratch(), "db");
      const seen = await ending(path, `${mode}-${how}-none`).end;
      assert.equal(seen.code, code, seen.log);
      const storage = openJazzStorage(path, { mode: "sync", mustExist: true });
      t.after(() => storage.database.close());
      assert.equal((await load(storage, "co_z1"))?.[session].length, 3);
      await storage.database.verify();
    });

test("what was done survives a kill", async (t) => {
  const path = join(scratch(), "db");
  for (const mode of ["sync", "async"]) {
    const { child, end } = ending(join(path + mode), `${mode}-wait`);
    await once(child.stdout, "data");
    child.kill("SIGKILL");
    assert.equal((await end).signal, "SIGKILL");
    const storage = openJazzStorage(path + mode, { mustExist: true });
    t.after(() => storage.database.close());
    assert.equal((await load(storage, "co_z1"))[session].length, 3);
    await storage.database.verify();
  }
});

test("another process that has it open is named", async (t) => {
  const path = join(scratch(), "db");
  const { child, end } = ending(path, "sync-wait");
  await once(child.stdout, "data");
  assert.throws(
    () => openJazzStorage(path),
    (error) => error.code === "BFT_BUSY" && error.message.includes(path),
  );
  child.stdin.end();
  assert.equal((await end).code, 0);
  const storage = openJazzStorage(path);
  await storage.database.close();
});

/* Start a worker thread on PATH. */
async function worker(t, path, orders = {}) {
  const thread = new Worker(support("in_thread.mjs"), {
    workerData: { path, ...orders },
  });
  t.after(() => thread.terminate());
  const [ready] = await once(thread, "message");
  assert.equal(ready, "ready");
  return thread;
}

const ask = async (thread, order) => {
  thread.postMessage(order);
  const [answer] = await once(thread, "message");
  return answer;
};

test("threads share one engine", async (t) => {
  const path = join(scratch(), "db");
  const storage = openJazzStorage(path);
  t.after(() => storage.database.close());
  const thread = await worker(t, path);
  await store(storage, message("co_z1", 0, 3));
  assert.equal(await ask(thread, { load: "co_z1" }), 3);
  await ask(thread, { store: ["co_z1", 3, 2] });
  assert.equal((await load(storage, "co_z1"))[session].length, 5);
});

test("a thread that is ended in its work leaves the others alone", async (t) => {
  const path = join(scratch(), "db");
  const storage = openJazzStorage(path, { durability: "buffered" });
  t.after(() => storage.database.close());
  for (let round = 0; round < 5; round++) {
    const thread = await worker(t, path, { busy: `co_zBusy${round}` });
    await new Promise((resolve) => setTimeout(resolve, 20));
    await thread.terminate();
    await store(storage, message("co_z1", round, 1));
  }
  assert.equal((await load(storage, "co_z1"))[session].length, 5);
  await storage.database.verify();
  const census = await storage.database.census();
  assert.equal(census.orphan_transactions, 0);
});

/* Appends of two threads to the same session: each reads, then writes. */
test("threads that write the same session lose nothing", async (t) => {
  const path = join(scratch(), "db");
  const storage = openJazzStorage(path, { durability: "buffered" });
  t.after(() => storage.database.close());
  const client = storage.dbClient;
  const coValue = await client.upsertCoValue("co_zShared", { type: "comap" });
  const threads = await Promise.all(
    [1, 2].map(() => worker(t, path, { durability: "buffered" })),
  );
  const each = 200;
  await Promise.all(threads.map((thread) => ask(thread, { append: each })));
  const [row] = await client.getCoValueSessions(coValue);
  assert.equal(row.lastIdx, threads.length * each);
  const rows = await client.getNewTransactionInSession(
    row.rowID,
    0,
    row.lastIdx - 1,
  );
  assert.equal(rows.length, threads.length * each);
});
