/* The storages that openJazzStorage() gives: cojson's own, on a database. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { StorageApiAsync, StorageApiSync } from "cojson";
import {
  BftreeError,
  openJazzStorage,
  openJazzStorageAsync,
  version,
} from "../dist/index.js";
import {
  clientOf,
  header,
  knownState,
  load,
  message,
  packageRoot,
  privateTx,
  scratch,
  store,
  turns,
} from "./support/messages.mjs";

const txs = (from, to) =>
  Array.from({ length: to - from }, (_, i) => privateTx(from + i));
const session = "co_zA_session_z1";

for (const mode of ["sync", "async"])
  describe(`storage, mode ${mode}`, () => {
    const setup = (t, options = {}) => {
      const path = join(scratch(), "db");
      const open = (more = {}) => {
        const storage = openJazzStorage(path, { mode, ...options, ...more });
        t.after(() => storage.database.close());
        return storage;
      };
      return { path, open };
    };

    test("is cojson's own", (t) => {
      const storage = setup(t).open();
      const own = mode === "sync" ? StorageApiSync : StorageApiAsync;
      assert.ok(storage instanceof own);
    });

    test("stores, loads, and still has it when opened again", async (t) => {
      const { open } = setup(t);
      const storage = open();
      await store(storage, message("co_z1", 0, 3));
      await store(storage, message("co_z1", 3, 2));
      assert.deepEqual(await load(storage, "co_z1"), { [session]: txs(0, 5) });
      await storage.close();
      const again = open({ mustExist: true });
      assert.deepEqual(await load(again, "co_z1"), { [session]: txs(0, 5) });
      assert.equal(await load(again, "co_z2"), undefined);
      assert.deepEqual(await knownState(again, "co_z1"), {
        id: "co_z1",
        header: true,
        sessions: { [session]: 5 },
      });
      await again.database.verify();
    });

    test("streams content longer than a message", async (t) => {
      const storage = setup(t).open();
      for (let i = 0; i < 12; i++)
        await store(storage, message("co_z1", i, 1, { length: 60_000 }));
      const content = await load(storage, "co_z1");
      assert.deepEqual(
        content[session],
        Array.from({ length: 12 }, (_, i) => privateTx(i, 60_000)),
      );
      assert.ok((await storage.database.census()).signatures >= 5);
    });

    test("asks for a correction and is done after it", async (t) => {
      const storage = setup(t).open();
      let asked;
      await store(storage, message("co_z1", 4, 1), (known) => {
        asked = structuredClone(known);
        return [message("co_z1", 0, 5)];
      });
      assert.deepEqual(asked.sessions, {});
      assert.deepEqual(await load(storage, "co_z1"), { [session]: txs(0, 5) });
    });

    test("several on one path see each other's writes", async (t) => {
      const { open } = setup(t);
      const first = open();
      const second = open();
      for (let i = 0; i < 10; i++)
        await store(i % 2 ? first : second, message("co_z1", i, 1));
      for (const storage of [first, second])
        assert.deepEqual(await load(storage, "co_z1"), {
          [session]: txs(0, 10),
        });
      await first.close();
      await store(second, message("co_z1", 10, 1));
      assert.equal((await load(second, "co_z1"))[session].length, 11);
    });

    test("a call after close() opens the database again", async (t) => {
      const { open } = setup(t);
      const storage = open();
      await store(storage, message("co_z1", 0, 3));
      await storage.close();
      await storage.close();
      const other = open();
      if (mode === "sync") await store(other, message("co_z1", 3, 1));
      else await store(other, message("co_z1", 3, 1));
      assert.equal((await knownState(storage, "co_z1")).sessions[session], 4);
      assert.equal((await load(storage, "co_z1"))[session].length, 4);
    });

    test("a database closed for good answers with errors", async (t) => {
      const { open, path } = setup(t);
      const storage = open();
      await store(storage, message("co_z1", 0, 3));
      await storage.close();
      await storage.database.close();
      const closed = { code: "BFT_INVALID", message: `bftree: ${path} is closed` };
      const client = storage.dbClient;
      for (const call of [
        () => client.getCoValue("co_z1"),
        () => client.upsertCoValue("co_z9", header()),
        () => client.getCoValueCount(),
        () => client.transaction((tx) => tx.markCoValueAsDeleted("co_z1")),
        () => client.eraseCoValueButKeepTombstone("co_z1"),
        () => storage.database.stats(),
        () => storage.database.verify(),
        () => storage.database.sync(),
      ])
        await assert.rejects(async () => call(), closed, String(call));
      await storage.database.close();
    });

    test("in memory nothing reaches the disk, and close() keeps it", async (t) => {
      const { open, path } = setup(t, { storage: "memory" });
      const storage = open();
      await store(storage, message("co_z1", 0, 3));
      await storage.close();
      assert.equal((await load(storage, "co_z1"))[session].length, 3);
      await storage.database.verify();
      await storage.database.close();
      assert.throws(() => readFileSync(path), { code: "ENOENT" });
    });

    test("opens in another thread too", async (t) => {
      const path = join(scratch(), "db");
      const storage = await openJazzStorageAsync(path, { mode });
      t.after(() => storage.database.close());
      await store(storage, message("co_z1", 0, 3));
      assert.equal((await load(storage, "co_z1"))[session].length, 3);
    });

    test("durability none is kept by a close", async (t) => {
      const { open } = setup(t, { durability: "none" });
      const storage = open();
      await store(storage, message("co_z1", 0, 3));
      await storage.close();
      assert.equal((await load(open(), "co_z1"))[session].length, 3);
    });

    test("what does not fit into memory is there", async (t) => {
      const { open } = setup(t, { memoryBytes: 1 << 20, durability: "buffered" });
      const storage = open();
      const ids = Array.from({ length: 400 }, (_, i) => `co_z${i}`);
      for (const id of ids)
        await store(storage, message(id, 0, 10, { length: 1000 }));
      for (const id of ids)
        assert.equal((await load(storage, id))[session].length, 10, id);
      await storage.database.verify();
      const stats = storage.database.stats();
      /* The budget, an eighth more, and what each thread has: bftree.h. */
      const most = (1 << 20) * (9 / 8) + 8 * (64 << 10);
      assert.ok(stats.memory_used_bytes <= most, `${stats.memory_used_bytes}`);
      assert.ok(stats.page_misses > 0);
    });
  });

for (const mode of ["sync", "async"])
  test(`a relative path stays where it was: mode ${mode}`, async (t) => {
    const [home, other] = [scratch(), scratch()];
    const former = process.cwd();
    t.after(() => process.chdir(former));
    process.chdir(home);
    const storage = openJazzStorage("db", { mode });
    t.after(() => storage.database.close());
    await store(storage, message("co_z1", 0, 3));
    await storage.close();
    process.chdir(other);
    assert.equal((await load(storage, "co_z1"))[session].length, 3);
    assert.equal(existsSync(join(other, "db")), false);
    assert.equal(storage.database.path, join(home, "db"));
  });

/* Each page of the list is some 2,000 ids; the call before it left a number
 * where that of another list is its limit. */
test("a list of ids is whole whatever was asked before", async (t) => {
  const storage = openJazzStorage(join(scratch(), "db"), { mode: "sync" });
  t.after(() => storage.database.close());
  const client = clientOf(storage);
  const [length, count] = [480, 2600];
  const ids = Array.from({ length: count }, (_, i) =>
    `co_z${i}`.padEnd(length, "x"),
  );
  client.trackCoValuesSyncState(
    ids.map((id) => ({ id, peerId: "peer", synced: false })),
  );
  /* As many as the native side's buffer takes, after a range was read. */
  const page = Math.floor((1 << 20) / (length + 4));
  for (let number = page - 3; number <= page; number++) {
    client.getNewTransactionInSession(1, number, number);
    assert.equal(client.getUnsyncedCoValueIDs().length, count);
  }
});

describe("a CoValue that comes with its content, mode sync", () => {
  const setup = (t, options = {}) => {
    const path = join(scratch(), "db");
    const open = () => {
      const storage = openJazzStorage(path, { mode: "sync", ...options });
      t.after(() => storage.database.close());
      return storage;
    };
    return { storage: open(), open };
  };
  const commits = (storage) => storage.database.stats().batches;
  const twoSessions = (id) => {
    const msg = message(id, 0, 3);
    Object.assign(msg.new, message(id, 0, 2, { session: "co_zB_session_z1" }).new);
    return msg;
  };
  const allOf = {
    [session]: txs(0, 3),
    "co_zB_session_z1": txs(0, 2),
  };

  test("is made by the commit of the content", async (t) => {
    const { storage, open } = setup(t);
    const before = commits(storage);
    await store(storage, message("co_z1", 0, 3));
    assert.equal(commits(storage), before + 1);
    await store(storage, twoSessions("co_z2"));
    assert.equal(commits(storage), before + 3);
    await store(storage, message("co_z2", 3, 1));
    await store(storage, message("co_z1", 3, 1));
    for (const one of [storage, open()]) {
      assert.deepEqual(await load(one, "co_z1"), { [session]: txs(0, 4) });
      assert.deepEqual(await load(one, "co_z2"), {
        ...allOf,
        [session]: txs(0, 4),
      });
    }
    const { covalues, sessions } = storage.database.censusNow();
    assert.deepEqual({ covalues, sessions }, { covalues: 2, sessions: 3 });
  });

  test("is made among other writes", async (t) => {
    const { storage, open } = setup(t);
    await store(storage, message("co_z1", 0, 3));
    const client = storage.dbClient;
    const updates = (coValue, lastIdx) => ({
      sessionUpdate: { coValue, sessionID: session, lastIdx, lastSignature: "" },
    });
    client.message(() => {
      const row = client.upsertCoValue("co_z2", header());
      client.transaction((tx) => {
        tx.addSessionUpdate(updates(1, 4));
        tx.addSessionUpdate(updates(row, 2));
      });
      client.transaction((tx) => {
        tx.addSessionUpdate(updates(1, 5));
        tx.addSessionUpdate(updates(row, 1));
      });
    });
    for (const one of [storage, open()])
      for (const [row, lastIdx] of [5, 1].entries()) {
        const [{ rowID, ...stored }] = one.dbClient.getCoValueSessions(row + 1);
        assert.equal(rowID, row + 1);
        assert.equal(stored.lastIdx, lastIdx);
        one.dbClient.transaction((tx) => {
          assert.equal(tx.getSingleCoValueSession(row + 1, session).rowID, rowID);
        });
      }
  });

  test("is stored though nothing comes with it", async (t) => {
    const { storage, open } = setup(t);
    await store(storage, { ...message("co_z1", 0, 0), new: {} });
    await store(storage, message("co_z2", 0, 0));
    for (const one of [storage, open()])
      for (const id of ["co_z1", "co_z2"])
        assert.deepEqual(await knownState(one, id), {
          id,
          header: true,
          sessions: {},
        });
  });

  test("is there for whoever is asked for a correction", async (t) => {
    const { storage, open } = setup(t);
    const other = open();
    const early = message("co_z1", 4, 1, { header: header("co_z1") });
    let seen;
    await store(storage, early, () => {
      storage.loadKnownState("co_z1", (known) => (seen = known));
      other.loadKnownState("co_z1", (known) => assert.deepEqual(known, seen));
      storage.store(twoSessions("co_z2"), () => assert.fail());
      return [message("co_z1", 0, 5)];
    });
    assert.deepEqual(seen, { id: "co_z1", header: true, sessions: {} });
    assert.deepEqual(await load(storage, "co_z1"), { [session]: txs(0, 5) });
    assert.deepEqual(await load(storage, "co_z2"), allOf);
  });

  test("may have become another's meanwhile", async (t) => {
    const { storage, open } = setup(t);
    const other = open();
    const client = storage.dbClient;
    const transaction = client.transaction;
    for (const [i, theirs] of [
      message("co_z0", 0, 2),
      message("co_z1", 0, 2, { session: "co_zB_session_z1" }),
      { ...message("co_z2", 0, 0), new: {} },
      message("co_z3", 0, 3),
    ].entries()) {
      client.transaction = function (callback) {
        client.transaction = transaction;
        other.store(theirs, () => assert.fail());
        return transaction.call(client, callback);
      };
      await store(storage, twoSessions(`co_z${i}`));
      assert.deepEqual(await load(storage, `co_z${i}`), allOf);
      assert.deepEqual(await load(other, `co_z${i}`), allOf);
    }
    storage.database.censusNow();
  });

  test("may have been there before", async (t) => {
    const { storage, open } = setup(t);
    const other = open();
    const ids = Array.from({ length: 200 }, (_, i) => `co_z${i}`);
    for (const id of ids.slice(0, 150)) await store(other, message(id, 0, 2));
    for (const id of ids) await store(storage, twoSessions(id));
    for (const id of ids) assert.deepEqual(await load(other, id), allOf);
    assert.equal(storage.database.censusNow().covalues, 200);
  });

  test("stays though its content is refused", async (t) => {
    const { storage } = setup(t, { memoryBytes: 1 << 20 });
    const tooBig = message("co_z1", 0, 1, { length: 200_000 });
    assert.throws(() => storage.store(tooBig, () => assert.fail()), {
      code: "BFT_TOO_BIG",
    });
    assert.deepEqual((await knownState(storage, "co_z1")).sessions, {});
    await store(storage, twoSessions("co_z1"));
    assert.deepEqual(await load(storage, "co_z1"), allOf);
  });
});

describe("bad input", () => {
  const refused = (options, code, message) =>
    assert.throws(() => openJazzStorage(...options), (error) => {
      assert.ok(error instanceof BftreeError, String(error));
      assert.ok(error instanceof Error);
      assert.equal(error.code, code);
      assert.match(error.message, message);
      return true;
    });

  test("of a path", (t) => {
    const dir = scratch();
    const file = join(dir, "file");
    writeFileSync(file, "not a database");
    refused([42], "BFT_INVALID", /path is number/);
    refused([undefined], "BFT_INVALID", /path is undefined/);
    refused([""], "BFT_INVALID", /path is empty/);
    refused(["a\0b"], "BFT_INVALID", /zero byte/);
    refused([file], "BFT_INVALID", new RegExp(file));
    const missing = join(dir, "missing");
    refused([missing, { mustExist: true }], "BFT_NOT_FOUND", /missing/);
    refused([join(missing, "db")], "BFT_NOT_FOUND", /missing/);
    const there = openJazzStorage(join(dir, "db"));
    t.after(() => there.database.close());
    refused([join(dir, "db"), { errorIfExists: true }], "BFT_EXISTS", /db/);
  });

  test("of options", (t) => {
    const path = join(scratch(), "db");
    const wrong = (options, message) =>
      refused([path, options], "BFT_INVALID", message);
    wrong(null, /options are not an object/);
    wrong("sync", /options are not an object/);
    wrong([], /options are not an object/);
    wrong({ storage: ["files"] }, /option storage is files/);
    for (const name of ["mode", "durability", "storage"])
      wrong({ [name]: null }, new RegExp(`option ${name} is null`));
    for (const name of ["memoryBytes", "logBytes", "compress", "mustExist"])
      wrong({ [name]: null }, new RegExp(`option ${name} is null`));
    wrong({ mode: "fast" }, /option mode is fast/);
    wrong({ durability: "often" }, /option durability is often/);
    wrong({ durability: "constructor" }, /option durability is constructor/);
    wrong({ storage: "tape" }, /option storage is tape/);
    wrong({ memoryBytes: -1 }, /option memoryBytes is -1/);
    wrong({ memoryBytes: 1.5 }, /option memoryBytes is 1.5/);
    wrong({ memoryBytes: "1" }, /option memoryBytes/);
    wrong({ logBytes: Number.NaN }, /option logBytes is NaN/);
    wrong({ compress: 1 }, /option compress is 1/);
    wrong({ durabilty: "sync" }, /no option durabilty/);
    wrong({ memoryBytes: 1 }, /option memoryBytes: is 256 KiB to 1 TiB/);
  });

  test("of rows", async (t) => {
    const dir = scratch();
    for (const mode of ["sync", "async"]) {
      const storage = openJazzStorage(join(dir, mode), { mode });
      t.after(() => storage.database.close());
      const client = storage.dbClient;
      const long = `co_z${"x".repeat(600)}`;
      for (const call of [
        () => client.upsertCoValue(long, header()),
        () => client.upsertCoValue(`co_z${"x".repeat(70_000)}`, header()),
        () => client.trackCoValuesSyncState([{ id: long, peerId: "p" }]),
      ])
        await assert.rejects(async () => call(), { code: "BFT_TOO_BIG" });
      assert.equal(await client.getCoValue(long), undefined);
      for (const call of [
        () => client.getCoValueSessions(-1),
        () => client.getCoValueSessions(1.5),
        () => client.getCoValueSessions(Number.NaN),
        () => client.getCoValueIDs(-1, 0),
        () => client.transaction((tx) => tx.addTransaction(1, -1, {})),
        () => client.transaction((tx) => tx.addTransaction(1, 0.5, {})),
        () => client.transaction((tx) => tx.addTransaction(-9, 0, {})),
      ])
        await assert.rejects(
          async () => call(),
          { name: "BftreeError", code: "BFT_INVALID" },
          String(call),
        );
      assert.equal(await client.getCoValueCount(), 0);
    }
  });

  test("of texts that are none", async (t) => {
    const dir = scratch();
    const lastSignature = "signature_z1";
    const sessionUpdate = (sessionID, rest = {}) => ({
      sessionUpdate: { coValue: 1, sessionID, lastIdx: 0, lastSignature, ...rest },
    });
    for (const mode of ["sync", "async"]) {
      const storage = openJazzStorage(join(dir, mode), { mode });
      t.after(() => storage.database.close());
      const client = storage.dbClient;
      await client.upsertCoValue("co_z1", header());
      for (const wrong of [null, undefined, 42, {}, [], { length: 0 }])
        for (const call of [
          () => client.upsertCoValue(wrong, header()),
          () => client.getCoValue(wrong),
          () => client.getCoValueKnownState(wrong),
          () => client.eraseCoValueButKeepTombstone(wrong),
          () => client.stopTrackingSyncState(wrong),
          () => client.trackCoValuesSyncState([{ id: wrong, peerId: "p", synced: false }]),
          () => client.trackCoValuesSyncState([{ id: "co_z1", peerId: wrong, synced: false }]),
          () => client.transaction((tx) => tx.markCoValueAsDeleted(wrong)),
          () => client.transaction((tx) => tx.addSessionUpdate(sessionUpdate(wrong))),
          () =>
            client.transaction((tx) =>
              tx.addSessionUpdate(sessionUpdate(session, { lastSignature: wrong })),
            ),
          () =>
            client.transaction((tx) =>
              tx.addSignatureAfter({ sessionRowID: 1, idx: 0, signature: wrong }),
            ),
        ])
          await assert.rejects(
            async () => call(),
            { name: "BftreeError", code: "BFT_INVALID", message: /: an? (id|signature) is/ },
            `${mode} ${String(wrong)} ${call}`,
          );
      assert.equal(await client.getCoValueCount(), 1);
      assert.deepEqual(await client.getUnsyncedCoValueIDs(), []);
      assert.deepEqual(await client.getCoValueSessions(1), []);
    }
  });

  test("a message over what one transaction may hold", async (t) => {
    const path = join(scratch(), "db");
    const storage = openJazzStorage(path, {
      mode: "sync",
      memoryBytes: 1 << 20,
    });
    t.after(() => storage.database.close());
    const big = message("co_z1", 0, 1, { length: 1 << 20 });
    assert.throws(
      () => storage.store(big, () => undefined),
      (error) => error.code === "BFT_TOO_BIG" && error.message.includes(path),
    );
    await store(storage, message("co_z1", 0, 1));
  });
});

/* As a server that reloads, or a test runner, makes them. */
describe("memory of the largest call is given back", () => {
  setFlagsFromString("--expose-gc");
  const gc = runInNewContext("gc");
  const MB = 1 << 20;
  const used = () => {
    gc();
    return process.memoryUsage().arrayBuffers;
  };
  const setup = (t, mode) => {
    const storage = openJazzStorage(join(scratch(), "db"), {
      mode,
      durability: "buffered",
      memoryBytes: 1024 * MB,
    });
    t.after(() => storage.database.close());
    return storage;
  };
  const long = (id) => message(id, 0, 1, { length: 40 * MB });

  test("what changes were packed in", async (t) => {
    const before = used();
    for (const mode of ["sync", "async"]) {
      const storage = setup(t, mode);
      await store(storage, message("co_z1", 0, 1));
      /* The second finds its CoValue: it may be stored together with others. */
      await Promise.all([
        store(storage, long("co_z2")),
        store(storage, message("co_z1", 1, 1)),
      ]);
      await knownState(storage, "co_z1");
      await store(storage, message("co_z1", 2, 1));
    }
    /* What is garbage goes by and by. */
    let kept = used() - before;
    for (let i = 0; i < 100 && kept >= 16 * MB; i++) {
      await turns(1);
      kept = used() - before;
    }
    assert.ok(kept < 16 * MB, `${kept} bytes are kept`);
  });

  test("but not what a database is opened for", (t) => {
    const storage = setup(t, "sync");
    const ids = Array.from({ length: 12_000 }, (_, i) =>
      `co_z${i}`.padEnd(480, "x"),
    );
    storage.close();
    clientOf(storage).trackCoValuesSyncState(
      ids.map((id) => ({ id, peerId: "peer", synced: false })),
    );
    assert.equal(clientOf(storage).getUnsyncedCoValueIDs().length, ids.length);
  });

  test("what rows were read into", () => {
    const out = execFileSync(process.execPath, [
      "--expose-gc",
      join(packageRoot, "test/support/reading.mjs"),
      join(scratch(), "db"),
    ]);
    const { counts, kept } = JSON.parse(out);
    assert.deepEqual(counts, [1, 1, 1, 1]);
    assert.ok(kept < 64 * MB, `${kept} bytes are kept`);
  });
});

test("the package may be evaluated twice in a thread", async (t) => {
  const path = join(scratch(), "db");
  const first = openJazzStorage(path);
  t.after(() => first.database.close());
  await store(first, message("co_z1", 0, 2));
  const again = await import("../dist/native.js?again");
  assert.notEqual(again.places, (await import("../dist/native.js")).places);
  const handle = await again.Handle.openAsync(path, [0, 2, 0, 0, 0, 0]);
  await store(first, message("co_z2", 0, 3));
  assert.equal((await load(first, "co_z1"))[session].length, 2);
  await Promise.all([
    handle.submit(again.calls.VERIFY, () => undefined),
    first.database.verify(),
  ]);
  await handle.close();
  assert.equal((await load(first, "co_z2"))[session].length, 3);
});

test("the engine tells its version", () => {
  assert.match(version, /^\d+\.\d+\.\d+$/);
});
