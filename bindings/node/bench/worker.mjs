/*
 * One storage for one turn, in a process of its own.
 *
 *   node --expose-gc worker.mjs '{"engine", "scenario", "size", "cells", ...}'
 *
 * The cells are measured once each, in their order: the first pass, in which V8
 * still learns.  Then each is repeated for WARM_MS: the warm passes.  The last
 * line printed is JSON: of each cell { count, check, passes }, of each pass
 * { rate, cpu, settle }.  `cpu` is processor time per unit, of all threads of
 * the process; `settle` the seconds that closing took afterwards; `check` is
 * the same for all storages.
 */
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { deserialize } from "node:v8";
import { LocalNode } from "cojson";
import { buildDir, engines, forget } from "./engines.mjs";
import {
  cryptoProvider,
  newNode,
  readValue,
  scenarios,
  writeScenario,
} from "./scenarios.mjs";

/* CoValues that are being loaded at the same time. */
const IN_FLIGHT = 16;
/* Messages between two looks at the clock. */
const STRIDE = 100;
const PASSES_MAX = 30;

const { engine: name, scenario, size, file, cells, limitMs, warmMs } =
  JSON.parse(process.argv[2]);
const engine = engines[name];
const path = join(buildDir, "databases", name);

/* --- Measuring -------------------------------------------------------------------- */

/* WORK resolves to { count, check }. */
async function timed(work) {
  globalThis.gc();
  const cpu = process.cpuUsage();
  const started = performance.now();
  const result = await work();
  const seconds = (performance.now() - started) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  return { ...result, seconds, cpu: (user + system) / 1e6 };
}

async function settled(cell, close) {
  const started = performance.now();
  await close();
  cell.settle = (performance.now() - started) / 1000;
}

function freshPath() {
  rmSync(path, { recursive: true, force: true });
  forget(path);
  mkdirSync(path, { recursive: true });
}

/* WORK for each of ITEMS, IN_FLIGHT at a time. */
async function forEach(items, work) {
  let next = 0;
  const lane = async () => {
    while (next < items.length) await work(items[next++]);
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, lane));
}

/* --- Without cryptography: recorded messages --------------------------------------- */

const recorded = file && deserialize(readFileSync(file));

function refuse() {
  throw new Error("a correction was asked for");
}

/*
 * Store MESSAGES; resolves once all are called stored.  Stops handing them over
 * after LIMIT_MS.  An asynchronous storage gets them all: cojson does not wait.
 */
function storeAll(storage, messages, limit = Infinity) {
  const started = performance.now();
  let handed = 0;
  let stored = 0;
  return new Promise((resolve, reject) => {
    const oneMore = () => {
      if (++stored === messages.length) resolve(stored);
    };
    try {
      for (; handed < messages.length; handed++) {
        if (handed % STRIDE === 0 && performance.now() - started > limit) {
          resolve(stored);
          return;
        }
        storage.store(messages[handed], refuse, oneMore);
      }
    } catch (error) {
      reject(error);
    }
  });
}

async function replayStore() {
  const { before, messages } = recorded;
  freshPath();
  const { storage, close } = await engine.open(path);
  await storeAll(storage, before);
  const cell = await timed(async () => ({
    stored: await storeAll(storage, messages, limitMs),
  }));
  /* What the limit left out is stored too, past the clock: loads read it all. */
  if (cell.stored < messages.length && cells.some((c) => c !== "replayStore"))
    await storeAll(storage, messages.slice(cell.stored));
  await settled(cell, close);
  /* Each message is one commit: of those not stored the same would be true. */
  cell.count =
    (scenarios[scenario].count(size) * cell.stored) / messages.length;
  return cell;
}

/*
 * Load one CoValue; resolves when all of it has come.  What it depends on comes
 * too, and from an asynchronous storage perhaps more than once.
 */
async function loadOne(storage, id, onMessage) {
  await new Promise((resolve, reject) => {
    storage.load(id, onMessage, (found) =>
      found ? resolve() : reject(new Error(`${id} is not found`)),
    );
  });
  /* As SyncManager does, between other messages. */
  let next;
  while ((next = storage.streamingQueue?.pull())) next();
}

async function replayLoad() {
  const { ids } = recorded;
  const { storage, close } = await engine.open(path);
  const cell = await timed(async () => {
    let check = 0;
    const count = (msg) => {
      for (const session of Object.values(msg.new))
        for (const tx of session.newTransactions)
          check += (tx.encryptedChanges ?? tx.changes).length;
    };
    await forEach(ids, (id) =>
      loadOne(storage, id, (msg) => {
        if (msg.id === id) count(msg);
      }),
    );
    return { count: scenarios[scenario].loads(size), check };
  });
  await settled(cell, close);
  return cell;
}

async function replayKnown() {
  const { ids } = recorded;
  const { storage, close } = await engine.open(path);
  const cell = await timed(async () => {
    let check = 0;
    await forEach(
      ids,
      (id) =>
        new Promise((resolve) => {
          storage.loadKnownState(id, ({ sessions }) => {
            for (const count of Object.values(sessions)) check += count;
            resolve();
          });
        }),
    );
    return { count: ids.length, check };
  });
  await settled(cell, close);
  return cell;
}

/* --- With cryptography: a LocalNode -------------------------------------------------- */

let written;

/* Tell when nothing is on its way to STORAGE any more. */
function watched(storage) {
  let pending = 0;
  let wake = () => {};
  const store = storage.store.bind(storage);
  storage.store = (msg, correct, done) => {
    pending++;
    return store(msg, correct, () => {
      done?.();
      if (--pending === 0) wake();
    });
  };
  return async () => {
    while (pending > 0) await new Promise((resolve) => (wake = resolve));
  };
}

async function cryptoStore() {
  freshPath();
  const opened = await engine.open?.(path);
  const idle = opened ? watched(opened.storage) : async () => {};
  const { node, group, accountID, accountSecret } = await newNode(
    opened?.storage,
  );
  await idle();
  const cell = await timed(async () => {
    const ids = await writeScenario(scenario, group, size);
    await idle();
    written = { ids, accountID, accountSecret };
    return { count: scenarios[scenario].count(size) };
  });
  if (opened) {
    await node.syncManager.gracefulShutdown();
    await settled(cell, opened.close);
  }
  return cell;
}

async function cryptoLoad() {
  const { ids, accountID, accountSecret } = written;
  const { storage, close } = await engine.open(path);
  const node = await LocalNode.withLoadedAccount({
    accountID,
    accountSecret,
    sessionID: undefined,
    peers: [],
    crypto: await cryptoProvider(),
    storage,
  });
  const cell = await timed(async () => {
    let check = 0;
    await forEach(ids, async (id) => {
      const value = await node.load(id);
      if (value === "unavailable") throw new Error(`${id} is unavailable`);
      await value.core.waitForFullStreaming();
      check += readValue(scenario, value.core.getCurrentContent());
    });
    return { count: scenarios[scenario].loads(size), check };
  });
  await node.syncManager.gracefulShutdown();
  await settled(cell, close);
  return cell;
}

/* --- The turn ---------------------------------------------------------------------------- */

const works = {
  replayStore,
  replayLoad,
  replayKnown,
  cryptoStore,
  cryptoLoad,
};

const measured = {};
async function pass(cell) {
  const { count, check, seconds, cpu, settle } = await works[cell]();
  measured[cell] ??= { count, check, passes: [] };
  measured[cell].passes.push({ rate: count / seconds, cpu: cpu / count, settle });
  return seconds;
}

for (const cell of cells) await pass(cell);
for (const cell of cells)
  for (
    let left = warmMs / 1000;
    left > 0 && measured[cell].passes.length < PASSES_MAX;
  )
    left -= await pass(cell);

console.log(JSON.stringify(measured));
