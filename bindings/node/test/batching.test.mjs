/* Messages that an asynchronous storage stores together. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, test } from "node:test";
import { BftreeError, openJazzStorage } from "../dist/index.js";
import {
  knownState,
  load,
  message,
  noCorrection,
  privateTx,
  scratch,
  store,
  turns,
} from "./support/messages.mjs";

const session = "co_zA_session_z1";

const txs = (after, count) =>
  Array.from({ length: count }, (_, i) => privateTx(after + i));

const commits = (storage) => storage.database.stats().batches;

describe("messages that come together", () => {
  const setup = (t, options = {}) => {
    const path = join(scratch(), "db");
    const open = (more = {}) => {
      const storage = openJazzStorage(path, {
        durability: "buffered",
        ...options,
        ...more,
      });
      t.after(() => storage.database.close());
      return storage;
    };
    return { open, storage: open() };
  };

  /* What the cache wants to know first. */
  const warm = (storage) => store(storage, message("co_z0", 0, 1));

  test("are one commit, whatever they are of", async (t) => {
    const { storage, open } = setup(t);
    await warm(storage);
    const before = commits(storage);
    const done = [];
    const messages = [
      message("co_z1", 0, 2),
      message("co_z1", 2, 1),
      message("co_z0", 1, 1),
      message("co_z2", 0, 1, { session: "co_zB_session_z1" }),
      message("co_z2", 0, 1),
      message("co_z0", 2, 3),
      { ...message("co_z3", 0, 0), new: {} },
    ];
    for (const [i, one] of messages.entries())
      storage.store(one, noCorrection, () => done.push(i));
    assert.deepEqual(done, []);
    assert.deepEqual(storage.getKnownState("co_z1").sessions, {});
    await turns(2);
    await store(storage, message("co_z0", 5, 1));
    assert.deepEqual(done, [0, 1, 2, 3, 4, 5, 6]);
    assert.equal(commits(storage), before + 2);
    for (const one of [storage, open()]) {
      assert.deepEqual(await load(one, "co_z0"), { [session]: txs(0, 6) });
      assert.deepEqual(await load(one, "co_z1"), { [session]: txs(0, 3) });
      assert.deepEqual(await load(one, "co_z2"), {
        [session]: txs(0, 1),
        "co_zB_session_z1": txs(0, 1),
      });
      assert.deepEqual(await load(one, "co_z3"), {});
    }
    await storage.database.verify();
  });

  test("are done each by itself if one of them is refused", async (t) => {
    const { storage } = setup(t, { memoryBytes: 1 << 20 });
    await warm(storage);
    const done = [];
    for (const [i, one] of [
      message("co_z0", 1, 1),
      message("co_z1", 0, 1, { length: 200_000 }),
      message("co_z0", 2, 1),
      { ...message("co_z2", 0, 1), header: { uniqueness: 1n } },
      message("co_z3", 0, 1),
    ].entries())
      storage.store(one, noCorrection, () => done.push(i));
    await store(storage, message("co_z0", 3, 1));
    assert.deepEqual(done, [0, 2, 4]);
    assert.deepEqual(await load(storage, "co_z0"), { [session]: txs(0, 4) });
    assert.deepEqual(await load(storage, "co_z3"), { [session]: txs(0, 1) });
    assert.equal(await load(storage, "co_z2"), undefined);
  });

  test("may hold what has to be escaped", async (t) => {
    const { storage } = setup(t);
    await warm(storage);
    const texts = ['a"b', "a\\b", "\u0001".repeat(4000), "\u00e9\u2028", "plain"];
    const written = texts.map((encryptedChanges, i) => ({
      ...privateTx(i),
      encryptedChanges,
    }));
    for (const [i, tx] of written.entries()) {
      const one = message("co_z1", i, 1);
      one.new[session].newTransactions = [tx];
      storage.store(one, noCorrection);
    }
    await store(storage, message("co_z0", 1, 1));
    const sorted = (all) => all.map((tx) => Object.entries(tx).sort());
    const { [session]: read } = await load(storage, "co_z1");
    assert.deepEqual(sorted(read), sorted(written));
  });

  test("are stored by a close that comes next", async (t) => {
    const { storage, open } = setup(t);
    await warm(storage);
    let done = 0;
    for (let round = 0; round < 5; round++) {
      for (let i = 0; i < 10; i++)
        storage.store(message("co_z1", 10 * round + i, 1), noCorrection, () => {
          done++;
        });
      if (round % 2) await turns(1);
    }
    await storage.close();
    assert.equal(done, 50);
    /* Nothing has come later and opened it again. */
    assert.equal(storage.handle.id, 0);
    assert.deepEqual(await load(open(), "co_z1"), { [session]: txs(0, 50) });
  });

  test("are stored by a close also where they cannot be put together", async (t) => {
    const { storage: first, open } = setup(t);
    const second = open();
    const other = open({ mode: "sync" });
    const done = [];
    const put = (storage, n, after) =>
      storage.store(message(`co_z${n}`, after, 1), noCorrection, () => done.push(n));
    /* Of a storage that knows nothing yet. */
    for (const n of [1, 2, 3]) put(first, n, 0);
    await first.close();
    assert.deepEqual(done.splice(0), [1, 2, 3]);
    assert.equal(first.handle.id, 0);
    await warm(second);
    for (const n of [1, 2, 3]) await store(second, message(`co_z${n}`, 0, 2));
    /* One of them is another handle's by then. */
    for (const n of [1, 2, 3]) put(second, n, 2);
    other.store(message("co_z2", 2, 2), noCorrection);
    await second.close();
    assert.deepEqual(done, [1, 2, 3]);
    assert.equal(second.handle.id, 0);
    assert.deepEqual(await load(other, "co_z3"), { [session]: txs(0, 3) });
  });

  test("are stored by a close before the queue has its turn", async (t) => {
    const { storage } = setup(t);
    const { storage: slow } = setup(t);
    const attempt = slow.handle.attempt.bind(slow.handle);
    let goOn;
    const held = new Promise((resolve) => (goOn = resolve));
    slow.handle.attempt = async (kind, read) => {
      await held;
      return attempt(kind, read);
    };
    const done = [];
    slow.store(message("co_z1", 0, 1), noCorrection, () => done.push("slow"));
    for (const n of [1, 2])
      storage.store(message(`co_z${n}`, 0, 1), noCorrection, () => done.push(n));
    await storage.close();
    assert.deepEqual(done, [1, 2]);
    goOn();
    await store(slow, message("co_z1", 1, 1));
    assert.deepEqual(done, [1, 2, "slow"]);
  });

  test("are stored each by itself if they cannot be put once more", async (t) => {
    const { storage, open } = setup(t);
    const other = open({ mode: "sync" });
    await warm(storage);
    await store(storage, message("co_z1", 0, 1));
    await turns(1);
    const order = [];
    const push = (name) => () => order.push(name);
    storage.store(message("co_z1", 1, 1), noCorrection, push("first"));
    assert.equal(storage.batching.batch.entries.length, 1);
    /* Its own commit tells the client that others have made some. */
    other.store(message("co_z2", 0, 1), noCorrection);
    storage.trackCoValuesSyncState([{ id: "co_z1", peerId: "p", synced: false }]);
    /* Part of it is taken into the batch before it asks for more. */
    const { header } = message("co_z3", 0, 0);
    storage.store(
      { ...message("co_z3", 4, 1), header },
      () => [message("co_z3", 0, 5)],
      push("second"),
    );
    await store(storage, message("co_z1", 2, 1));
    assert.deepEqual(order, ["first", "second"]);
    assert.deepEqual(await load(storage, "co_z1"), { [session]: txs(0, 3) });
    assert.deepEqual(await load(storage, "co_z3"), { [session]: txs(0, 5) });
  });

  test("leave the way free when none of them could be stored", async (t) => {
    const { storage } = setup(t);
    const { handle } = storage;
    await warm(storage);
    await turns(1);
    const attempt = handle.attempt;
    handle.attempt = () => {
      handle.attempt = attempt;
      throw new BftreeError("BFT_NO_SPACE", "the disk is full");
    };
    let done = false;
    storage.store(message("co_z0", 1, 1), noCorrection, () => (done = true));
    assert.equal(storage.batching.batch.entries.length, 1);
    await turns(2);
    assert.equal(handle.attempt, attempt);
    assert.equal(done, false);
    assert.equal(storage.batching.running, undefined);
    await store(storage, message("co_z0", 1, 2));
    assert.deepEqual(await load(storage, "co_z0"), { [session]: txs(0, 3) });
  });

  test("stay in order behind one that asks for a correction", async (t) => {
    const { storage } = setup(t);
    await warm(storage);
    const order = [];
    const push = (name) => () => order.push(name);
    storage.store(message("co_z0", 1, 1), noCorrection, push("first"));
    storage.store(
      message("co_z1", 4, 1),
      () => {
        order.push("asked");
        return [message("co_z1", 0, 5)];
      },
      push("corrected"),
    );
    storage.store(message("co_z1", 5, 2), noCorrection, push("behind"));
    await store(storage, message("co_z0", 2, 1));
    assert.deepEqual(order, ["first", "asked", "corrected", "behind"]);
    assert.deepEqual(await load(storage, "co_z1"), { [session]: txs(0, 7) });
  });

  test("are looked at again where another handle was faster", async (t) => {
    const { storage, open } = setup(t);
    const other = open({ mode: "sync" });
    await warm(storage);
    await store(storage, message("co_z1", 0, 2));
    let stored = store(storage, message("co_z1", 2, 1));
    other.store(message("co_z1", 2, 3), noCorrection);
    await stored;
    assert.deepEqual(await load(storage, "co_z1"), { [session]: txs(0, 5) });
    /* There is nothing to change, for all that is known. */
    await store(storage, message("co_z1", 5, 1));
    stored = store(storage, message("co_z1", 0, 6));
    other.dbClient.eraseCoValueButKeepTombstone("co_z1");
    await stored;
    assert.deepEqual(await load(storage, "co_z1"), { [session]: txs(0, 6) });
  });

  /* A generator of its own: a run is repeated from its seed. */
  const random = (seed) => {
    let state = seed >>> 0 || 1;
    return (below) => {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      return (state >>> 0) % below;
    };
  };

  test("lose nothing beside others that write the same", async (t) => {
    const seed = Number(process.env.BFT_SEED ?? Date.now() % 0x7fffffff);
    t.diagnostic(`BFT_SEED=${seed}`);
    const next = random(seed);
    const { open, storage: first } = setup(t);
    const storages = [first, open(), open()];
    const ids = Array.from({ length: 12 }, (_, i) => `co_z${i}`);
    const sessions = [session, "co_zB_session_z1"];
    /* Of each id and session how many transactions there are. */
    const counts = new Map();
    const count = (id, one) => counts.get(`${id} ${one}`) ?? 0;
    /* All of a CoValue that KNOWN has not. */
    const since = (id) => (known) =>
      sessions
        .map((one) => {
          const from = known.sessions[one] ?? 0;
          const more = count(id, one) - from;
          const { header } = message(id, 0, 0);
          return { ...message(id, from, more, { session: one }), header };
        })
        .filter((msg) => Object.values(msg.new)[0].newTransactions.length > 0);
    const pending = [];
    for (let step = 0; step < 3000; step++) {
      /* Runs of one storage's own, and of all in turns. */
      const owner = Math.floor(step / 100) % 2;
      const id = ids[next(ids.length)];
      const one = sessions[next(8) === 0 ? 1 : 0];
      const after = count(id, one);
      const back = next(3) === 0 ? Math.min(after, next(12)) : 0;
      const more = next(10) === 0 ? 0 : 1 + next(3);
      counts.set(`${id} ${one}`, after + more);
      const msg = message(id, after - back, back + more, { session: one });
      if (next(5) === 0) msg.header = message(id, 0, 0).header;
      pending.push(store(storages[owner ? next(3) : 0], msg, since(id)));
      if (next(12) === 0) await turns(next(3));
      if (next(200) === 0) await Promise.all(pending.splice(0));
    }
    await Promise.all(pending);
    for (const storage of [...storages, open()])
      for (const id of ids) {
        const expected = {};
        for (const one of sessions)
          if (count(id, one) > 0) expected[one] = txs(0, count(id, one));
        assert.deepEqual(await load(storage, id), expected);
        const known = await knownState(storage, id);
        for (const one of sessions)
          assert.ok((known.sessions[one] ?? 0) <= count(id, one));
      }
    assert.equal(first.database.censusNow().covalues, ids.length);
    await first.database.verify();
  });
});
