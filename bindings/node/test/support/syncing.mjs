/* Scenarios of durability.test.mjs: one process each. */
import { openSync, readSync, writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { openJazzStorage } from "../../dist/index.js";
import { header, knownState, message, store, turns } from "./messages.mjs";

const [name, path] = process.argv.slice(2);

/* --- sync_control.c --- */

const file = openSync(process.env.BFT_SYNC_CONTROL, "r+");
const places = {
  hold: 0,
  fail: 4,
  asked: 8,
  ended: 12,
  passing: 16,
  full: 20,
  poor: 24,
};

function set(field, value) {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  writeSync(file, bytes, 0, 4, places[field]);
}

function get(field) {
  const bytes = Buffer.alloc(4);
  readSync(file, bytes, 0, 4, places[field]);
  return bytes.readUInt32LE();
}

async function until(condition) {
  const end = performance.now() + 20_000;
  while (!condition()) {
    if (performance.now() > end) throw new Error(`not so: ${condition}`);
    await sleep(1);
  }
}

/* A sync has begun and is held up. */
const syncIsHeld = () => until(() => get("asked") !== get("ended"));

/* --- What they look at --- */

const session = "co_zA_session_z1";

const stored = async (storage, id = "co_z1") =>
  (await knownState(storage, id))?.sessions[session] ?? 0;

function lsns(storage) {
  const { accepted_lsn, durable_lsn } = storage.database.stats();
  return { accepted_lsn, durable_lsn };
}

const allDurable = (storage) => {
  const { accepted_lsn, durable_lsn } = lsns(storage);
  return durable_lsn >= accepted_lsn;
};

/* An open storage, with all of its making durable, and the log's next segment
 * made in the background: the sync of that is none that is looked at. */
async function settled(options) {
  const storage = openJazzStorage(path, options);
  await storage.database.sync();
  await until(() => storage.database.stats().log_segments_made > 1);
  return storage;
}

const noCorrection = () => undefined;

const scenarios = {
  async held() {
    const storage = await settled();
    let done = 0;
    set("hold", 1);
    for (let i = 0; i < 3; i++)
      storage.store(message("co_z1", i, 1), noCorrection, () => done++);
    await until(() => storage.getKnownState("co_z1").sessions[session] === 3);
    await syncIsHeld();
    await turns(20);
    await sleep(20);
    const whileHeld = {
      done,
      stored: await stored(storage),
      durable: allDurable(storage),
    };
    set("hold", 0);
    await until(() => done === 3);
    return { whileHeld, afterwards: { done, durable: allDurable(storage) } };
  },

  async correction() {
    const storage = await settled();
    let done = 0;
    let durableLsn;
    set("hold", 1);
    storage.store(
      message("co_z1", 4, 1),
      () => [message("co_z1", 0, 3), message("co_z1", 3, 2)],
      () => {
        done++;
        durableLsn = lsns(storage).durable_lsn;
      },
    );
    await until(() => storage.getKnownState("co_z1").sessions[session] === 5);
    await syncIsHeld();
    await turns(20);
    const whileHeld = {
      done,
      stored: await stored(storage),
      durable: allDurable(storage),
    };
    const acceptedLsn = lsns(storage).accepted_lsn;
    set("hold", 0);
    await until(() => done > 0);
    return { whileHeld, done, durableLsn, acceptedLsn };
  },

  /* Another storage wrote it; it is not durable yet. */
  async nothingNew() {
    const first = await settled();
    const second = openJazzStorage(path);
    const done = [];
    set("hold", 1);
    first.store(message("co_z1", 0, 3), noCorrection, () => done.push("first"));
    await until(() => first.getKnownState("co_z1").sessions[session] === 3);
    await syncIsHeld();
    second.store(message("co_z1", 0, 3), noCorrection, () =>
      done.push("again"),
    );
    await until(() => second.getKnownState("co_z1").sessions[session] === 3);
    await turns(20);
    await sleep(20);
    const whileHeld = { done: [...done] };
    set("hold", 0);
    await until(() => done.length === 2);
    return { whileHeld, afterwards: { done: done.sort() } };
  },

  /*
   * Two storages, one sync at a time.  Again and again a sync that the one asked
   * for covers the first of two messages of the other but not the second, and
   * both have waited for it.
   */
  async overtaken() {
    const storage = await settled();
    const other = openJazzStorage(path);
    const rounds = 30;
    const early = [];
    let done = 0;
    let next = 0;
    const put = async () => {
      const i = next++;
      let lsn = 0;
      storage.store(message("co_z1", i, 1), noCorrection, () => {
        done++;
        if (lsns(storage).durable_lsn < lsn) early.push(i);
      });
      /* Accepted within microtasks: no result is delivered meanwhile. */
      for (let n = 0; n < 1000; n++) await null;
      if (storage.getKnownState("co_z1").sessions[session] > i)
        lsn = lsns(storage).accepted_lsn;
    };
    set("passing", get("asked"));
    set("hold", 1);
    for (let round = 0; round < rounds; round++) {
      await put();
      await syncIsHeld();
      await put();
      other.store(message("co_z2", round, 1), noCorrection);
      await sleep(5);
      const asked = get("asked");
      set("passing", asked);
      /* Without a turn of the event loop, until the other's sync begins. */
      const end = performance.now() + 20;
      while (get("asked") === asked && performance.now() < end);
      await put();
      await sleep(5);
      set("passing", get("asked"));
      await sleep(5);
    }
    set("hold", 0);
    await until(() => done === next);
    return { early, done, messages: next };
  },

  async failing() {
    const storage = await settled();
    const done = [];
    await store(storage, message("co_z1", 0, 1));
    done.push("before");
    const ended = get("ended");
    set("fail", 1);
    storage.store(message("co_z1", 1, 1), noCorrection, () => done.push("at"));
    await until(() => get("ended") > ended);
    /* It has failed, and is known to have when another one has, too. */
    await storage.database.sync().catch(() => undefined);
    set("fail", 0);
    storage.store(message("co_z1", 2, 1), noCorrection, () =>
      done.push("after"),
    );
    await sleep(100);
    const code = await storage.database.sync().catch((error) => error.code);
    return { done, stored: await stored(storage), code };
  },

  async shared() {
    const messages = 5;
    const storages = Array.from({ length: 8 }, () => openJazzStorage(path));
    await storages[0].database.sync();
    const before = storages[0].database.stats().log_syncs;
    let done = 0;
    let accepted = 0;
    set("hold", 1);
    for (const [s, storage] of storages.entries())
      for (let i = 0; i < messages; i++)
        storage.store(message(`co_z${s}`, i, 1), noCorrection, () => done++);
    await until(() => {
      accepted = storages.filter(
        (storage, s) =>
          storage.getKnownState(`co_z${s}`).sessions[session] === messages,
      ).length;
      return accepted === storages.length;
    });
    await syncIsHeld();
    await turns(20);
    set("hold", 0);
    await until(() => done === storages.length * messages);
    const syncs = storages[0].database.stats().log_syncs - before;
    return { done, syncs, stores: storages.length, messages };
  },

  async synchronous() {
    const storage = openJazzStorage(path, { mode: "sync", durability: "sync" });
    const before = storage.database.stats().log_syncs;
    let done = 0;
    for (let i = 0; i < 5; i++)
      storage.store(message("co_z1", i, 1), noCorrection, () => done++);
    const syncs = storage.database.stats().log_syncs - before;
    return { done, syncs, durable: allDurable(storage) };
  },

  async closing() {
    const storage = await settled();
    let done = 0;
    let closed = false;
    set("hold", 1);
    storage.store(message("co_z1", 0, 3), noCorrection, () => done++);
    await until(() => storage.getKnownState("co_z1").sessions[session] === 3);
    storage.close().then(() => (closed = true));
    await syncIsHeld();
    await turns(20);
    const whileHeld = { done, closed };
    set("hold", 0);
    await until(() => closed);
    return { whileHeld, afterwards: { done, closed } };
  },

  async turning() {
    const storage = await settled();
    set("hold", 1);
    let done = 0;
    storage.store(message("co_z1", 0, 3), noCorrection, () => done++);
    await syncIsHeld();
    let count = 0;
    const end = performance.now() + 50;
    while (performance.now() < end || count < 20) {
      await turns(1);
      count++;
    }
    set("hold", 0);
    await until(() => done === 1);
    return { turns: count, done };
  },

  async poor() {
    set("poor", 1);
    let error;
    try {
      openJazzStorage(path);
    } catch (thrown) {
      error = thrown;
    }
    set("poor", 0);
    const storage = openJazzStorage(path, { mustExist: true });
    await store(storage, message("co_z1", 0, 1));
    await storage.close();
    return { code: error?.code, text: error?.message };
  },
};

for (const mode of ["sync", "async"])
  scenarios[`full-${mode}`] = async () => {
    const options = { mode, durability: "buffered", memoryBytes: 1 << 20 };
    const storage = await settled({ ...options, logBytes: 1 });
    const client = storage.dbClient;
    const put = async (i) => client.upsertCoValue(`co_z${i}`, header("u".repeat(300)));
    let accepted = 0;
    let error;
    set("full", 1);
    /* Until memory is full of what has no place in the file. */
    while (!error && accepted < 20_000)
      await put(accepted + 1).then(
        () => accepted++,
        (thrown) => (error = thrown),
      );
    set("full", 0);
    await put(accepted + 1);
    await storage.close();
    const ids = await client.getCoValueCount();
    await storage.database.verify();
    const { name, code, message: text } = error ?? {};
    return { accepted, ids, name, code, text };
  };

for (const durability of ["buffered", "none"])
  scenarios[durability] = async () => {
    const storage = openJazzStorage(path, { durability });
    await storage.database.sync();
    set("hold", 1);
    let done = 0;
    for (let i = 0; i < 3; i++)
      await new Promise((resolve) => {
        storage.store(message("co_z1", i, 1), noCorrection, () => {
          done++;
          resolve();
        });
      });
    const whileHeld = { done, stored: await stored(storage) };
    set("hold", 0);
    return { whileHeld };
  };

process.stdout.write(JSON.stringify(await scenarios[name]()));
