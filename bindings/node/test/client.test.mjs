/* The two clients, row by row, as cojson's interfaces describe them. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, test } from "node:test";
import { cojsonInternals } from "cojson";
import { Flag, Kind, change, pack } from "../dist/changes.js";
import { openJazzStorage } from "../dist/index.js";
import { calls, setNumber } from "../dist/native.js";
import { clientOf, header, privateTx, scratch } from "./support/messages.mjs";

const update = (coValue, sessionID, lastIdx, bytes = 0) => ({
  sessionUpdate: {
    coValue,
    sessionID,
    lastIdx,
    lastSignature: `signature_z${lastIdx}`,
    bytesSinceLastSignature: bytes,
  },
});

const sessionRow = (rowID, coValue, sessionID, lastIdx, bytes = 0) => ({
  rowID,
  ...update(coValue, sessionID, lastIdx, bytes).sessionUpdate,
});

/* The same with its members as cojson's core has them. */
const usualTx = (i, length) => {
  const { encryptedChanges, keyUsed, madeAt, privacy } = privateTx(i, length);
  return { encryptedChanges, keyUsed, madeAt, privacy };
};

/* Store text that JSON.stringify() would not have made. */
function plant(storage, changes) {
  pack(changes);
  setNumber(0, 2);
  storage.handle.run(calls.APPLY);
}

/*
 * STEPS is a generator, so that one test fits both: what it yields comes back
 * at once in a synchronous transaction, awaited in an asynchronous one.
 */
const transact = {
  sync: (client, steps) =>
    client.transaction((tx) => {
      const run = steps(tx);
      let step = run.next();
      while (!step.done) step = run.next(step.value);
      return step.value;
    }),
  async: (client, steps) =>
    client.transaction(async (tx) => {
      const run = steps(tx);
      let step = run.next();
      while (!step.done) step = run.next(await step.value);
      return step.value;
    }),
};

for (const mode of ["sync", "async"]) {
  const transaction = async (client, steps) => transact[mode](client, steps);

  /* A fresh storage and its client; `open` gives another one on the same path. */
  const setup = (t, options = {}) => {
    const path = join(scratch(), "db");
    const open = (more = {}) => {
      const storage = openJazzStorage(path, { mode, ...options, ...more });
      t.after(() => storage.database.close());
      return storage;
    };
    const storage = open();
    return { path, open, storage, client: clientOf(storage) };
  };

  /* COUNT transactions in session s1 of a new CoValue: its row, the session's. */
  const fill = async (client, count, length = 60) => {
    const coValue = await client.upsertCoValue("co_zFilled", header());
    await transaction(client, function* (tx) {
      const session = yield tx.addSessionUpdate(update(coValue, "s1", count));
      for (let i = 0; i < count; i++)
        yield tx.addTransaction(session, i, privateTx(i, length));
    });
    const [{ rowID }] = await client.getCoValueSessions(coValue);
    return { coValue, session: rowID };
  };

  describe(`client, mode ${mode}`, () => {
    test("a CoValue keeps its first header and its row id", async (t) => {
      const { client } = setup(t);
      assert.equal(await client.upsertCoValue("co_z1"), undefined);
      assert.equal(await client.getCoValue("co_z1"), undefined);
      assert.equal(await client.getCoValueKnownState("co_z1"), undefined);
      assert.equal(await client.upsertCoValue("co_z1", header("a")), 1);
      assert.equal(await client.upsertCoValue("co_z2", header("b")), 2);
      assert.equal(await client.upsertCoValue("co_z1", header("c")), 1);
      assert.equal(await client.upsertCoValue("co_z2"), 2);
      assert.deepEqual(await client.getCoValue("co_z1"), {
        rowID: 1,
        id: "co_z1",
        header: header("a"),
      });
      assert.equal(await client.getCoValueCount(), 2);
      assert.deepEqual(await client.getCoValueIDs(10, 0), [
        { id: "co_z1" },
        { id: "co_z2" },
      ]);
      assert.deepEqual(await client.getCoValueIDs(1, 0), [{ id: "co_z1" }]);
      assert.deepEqual(await client.getCoValueIDs(10, 1), [{ id: "co_z2" }]);
      assert.deepEqual(await client.getCoValueIDs(10, 2), []);
    });

    test("another's commit is not taken for one that changed nothing", async (t) => {
      const { open, client } = setup(t);
      const other = clientOf(open());
      const coValue = await client.upsertCoValue("co_z1", header());
      await other.upsertCoValue("co_z2", header());
      const put = (by, lastIdx) =>
        transaction(by, function* (tx) {
          yield tx.addSessionUpdate(update(coValue, "s1", lastIdx));
        });
      await put(client, 1);
      await put(other, 2);
      assert.equal(await client.upsertCoValue("co_z2", header()), 2);
      const row = await transaction(client, function* (tx) {
        return yield tx.getSingleCoValueSession(coValue, "s1");
      });
      assert.equal(row.lastIdx, 2);
    });

    test("strings come back as they were", async (t) => {
      const { client } = setup(t);
      const odd = [
        "",
        "plain",
        'quote " backslash \\ slash /',
        "\u0000\u0001\u001f\u007f\u0080\n\r\t",
        "é☃ 😀 \u2028\u2029",
        "\ud800 alone \udfff",
        "__proto__",
      ];
      for (const [i, text] of odd.entries()) {
        const id = `co_z${i}`;
        const session = `s"\\\u0001é☃😀${i}`;
        const coValue = await client.upsertCoValue(id, header(text));
        assert.equal((await client.getCoValue(id)).header.uniqueness, text);
        await transaction(client, function* (tx) {
          const row = yield tx.addSessionUpdate(update(coValue, session, 1));
          const changes = { ...privateTx(0), encryptedChanges: text };
          yield tx.addTransaction(row, 0, changes);
          const signature = `sig"\\${i}é`;
          yield tx.addSignatureAfter({ sessionRowID: row, idx: 0, signature });
        });
        const [{ sessionID, rowID }] = await client.getCoValueSessions(coValue);
        assert.equal(sessionID, session);
        const [row] = await client.getNewTransactionInSession(rowID, 0, 0);
        assert.equal(row.tx.encryptedChanges, text);
        assert.deepEqual(await client.getSignatures(rowID, 0), [
          { ses: rowID, idx: 0, signature: `sig"\\${i}é` },
        ]);
        assert.deepEqual(await client.getCoValueKnownState(id), {
          id,
          header: true,
          sessions: { [session]: 1 },
        });
      }
    });

    test("long strings come back as they were", async (t) => {
      const { client } = setup(t);
      const long = (unit) => unit.repeat(Math.ceil(9000 / unit.length));
      const texts = [
        long("plain/+=_-"),
        long('quote " backslash \\ '),
        `${long("x")}"`,
        `\\${long("x")}`,
        `${long("x")}\u0000`,
        long("\u0001long string\u0001"),
        long("\u007f\u0080é☃😀"),
        long("\ud800"),
        "y".repeat(4095),
        "y".repeat(4096),
        "y".repeat(1_500_000),
      ];
      const shapes = [
        (text) => ({ ...privateTx(0), encryptedChanges: text }),
        (text) => ({ ...privateTx(0), encryptedChanges: text, meta: text }),
        (text) => ({ privacy: "trusting", madeAt: 1, changes: text }),
        (text) => ({ privacy: "trusting", madeAt: 1.5, changes: text, meta: "m" }),
        (text) => ({ odd: [1, { a: null }], ...privateTx(0), changes: text }),
        (text) => ({ [`"${text.slice(0, 9)}`]: text, privacy: "trusting" }),
        (text) => ({ privacy: "trusting", changes: text, toJSON: () => ({ a: 1 }) }),
      ];
      const coValue = await client.upsertCoValue("co_z1", header());
      const txs = texts.flatMap((text) => shapes.map((shape) => shape(text)));
      let session = 0;
      for (const [i, tx] of txs.entries())
        await transaction(client, function* (change) {
          session = yield change.addSessionUpdate(update(coValue, "s1", i + 1));
          yield change.addTransaction(session, i, tx);
        });
      [{ rowID: session }] = await client.getCoValueSessions(coValue);
      const last = txs.length - 1;
      const rows = await client.getNewTransactionInSession(session, 0, last);
      assert.equal(rows.length, txs.length);
      for (const [i, { idx, tx }] of rows.entries()) {
        assert.equal(idx, i);
        /* The order of keys too. */
        assert.equal(JSON.stringify(tx), JSON.stringify(txs[i]), `text ${i}`);
      }
    });

    test("transactions in their usual shape come back as they were", async (t) => {
      const { client } = setup(t);
      const texts = [
        "",
        "encrypted_Uplain-_",
        'a quote "',
        "a backslash \\",
        "\u001f",
        "é",
        "é is longer and \" hides behind it",
        "😀\ud800",
        "x".repeat(4096),
        "x".repeat(4097),
        `${"x".repeat(4097)}"`,
        7,
        undefined,
      ];
      const usual = (encryptedChanges, keyUsed, madeAt) => ({
        encryptedChanges,
        keyUsed,
        madeAt,
        privacy: "private",
      });
      const txs = texts.flatMap((text) => [
        usual("plain", text, 0),
        usual(text ?? "", "key_zPlain", 1795230939936),
        usual(text ?? "", text, -1.5),
        { ...usual(text ?? "", "key_zPlain", 1), meta: text },
        { ...usual(text ?? "", "key_zPlain", 2), privacy: text },
      ]);
      const coValue = await client.upsertCoValue("co_z1", header());
      /* All together, as one of them can spoil it for the others; and alone. */
      for (const [session, counts] of [
        ["together", [txs.length]],
        ["alone", txs.map(() => 1)],
      ]) {
        let next = 0;
        for (const count of counts)
          await transaction(client, function* (change) {
            const first = next;
            next += count;
            const row = yield change.addSessionUpdate(
              update(coValue, session, next),
            );
            for (let i = first; i < next; i++)
              yield change.addTransaction(row, i, txs[i]);
          });
        const { rowID } = (await client.getCoValueSessions(coValue)).find(
          ({ sessionID }) => sessionID === session,
        );
        const rows = await client.getNewTransactionInSession(rowID, 0, next);
        assert.deepEqual(
          rows.map(({ tx }) => JSON.stringify(tx)),
          txs.map((tx) => JSON.stringify(tx)),
        );
      }
    });

    test("stored text reads as JSON.parse() reads it, or not at all", async (t) => {
      const { storage, client } = setup(t);
      const long = "x".repeat(5000);
      const texts = [
        `{"a":"${long}"}`,
        ` {"a":"${long}"}`,
        `{"a" : "${long}", "b": 1}`,
        `{"a":-1.5e+3,"b":true,"c":null,"d":false,"e":"${long}"}`,
        `{"a":tru,"e":"${long}"}`,
        `{"a":{"b":1},"e":"${long}"}`,
        `{"a":"\\"","e":"${long}"}`,
        `{"a":"\\u00e9","e":"${long}"}`,
        `{"${long}":1,"e":"${long}"}`,
        `{"__proto__":"${long}"}`,
        `{"a":"${long}\n"}`,
        `{"a":"${long}"`,
        `{"a":"${long}"}}`,
        `{"a":"${long}`,
        `{"a":"${long}",}`,
        `["${long}"]`,
        `"${long}"`,
        `{"a":,"b":"${long}"}`,
        `{${long}`,
        `{"a":"é${long}☃"}`,
      ];
      for (const text of texts) {
        plant(storage, [
          change(Kind.TRANSACTION, Flag.OVERWRITE, 7, 0, "", text),
        ]);
        let wanted = [];
        try {
          wanted = [JSON.parse(text)];
        } catch {}
        const rows = await client.getNewTransactionInSession(7, 0, 0);
        const shown = text.replaceAll(long, "...");
        assert.equal(
          JSON.stringify(rows.map(({ tx }) => tx)),
          JSON.stringify(wanted),
          shown,
        );
      }
    });

    test("a transaction sees what it wrote, others when it has ended", async (t) => {
      const { client } = setup(t);
      const coValue = await client.upsertCoValue("co_z1", header());
      await transaction(client, function* (tx) {
        assert.equal(
          yield tx.getSingleCoValueSession(coValue, "s1"),
          undefined,
        );
        const session = yield tx.addSessionUpdate(update(coValue, "s1", 2, 7));
        assert.deepEqual(
          yield tx.getSingleCoValueSession(coValue, "s1"),
          sessionRow(session, coValue, "s1", 2, 7),
        );
        assert.deepEqual(yield client.getCoValueSessions(coValue), []);
      });
      assert.deepEqual(await client.getCoValueSessions(coValue), [
        sessionRow(1, coValue, "s1", 2, 7),
      ]);
      await transaction(client, function* (tx) {
        const row = yield tx.getSingleCoValueSession(coValue, "s1");
        assert.deepEqual(row, sessionRow(1, coValue, "s1", 2, 7));
        assert.equal(
          yield tx.addSessionUpdate({
            ...update(coValue, "s1", 3, undefined),
            sessionRow: row,
          }),
          1,
        );
      });
      const [after] = await client.getCoValueSessions(coValue);
      assert.equal(after.lastIdx, 3);
    });

    test("bytes since the last signature may be unknown", async (t) => {
      const { client } = setup(t);
      const coValue = await client.upsertCoValue("co_z1", header());
      const { sessionUpdate } = update(coValue, "s1", 1);
      delete sessionUpdate.bytesSinceLastSignature;
      await transaction(client, function* (tx) {
        yield tx.addSessionUpdate({ sessionUpdate });
      });
      const [row] = await client.getCoValueSessions(coValue);
      assert.equal(row.bytesSinceLastSignature, null);
    });

    test("new sessions of one transaction may be filled in turns", async (t) => {
      const { client } = setup(t);
      const coValue = await client.upsertCoValue("co_z1", header());
      await transaction(client, function* (tx) {
        const a = yield tx.addSessionUpdate(update(coValue, "a", 2));
        const b = yield tx.addSessionUpdate(update(coValue, "b", 2));
        for (let i = 0; i < 2; i++) {
          yield tx.addTransaction(a, i, privateTx(10 + i));
          yield tx.addTransaction(b, i, privateTx(20 + i));
        }
      });
      const rows = await client.getCoValueSessions(coValue);
      assert.deepEqual(
        rows.map(({ rowID, sessionID }) => [rowID, sessionID]),
        [
          [1, "a"],
          [2, "b"],
        ],
      );
      for (const [session, start] of [
        [1, 10],
        [2, 20],
      ])
        assert.deepEqual(await client.getNewTransactionInSession(session, 0, 9), [
          { ses: session, idx: 0, tx: privateTx(start) },
          { ses: session, idx: 1, tx: privateTx(start + 1) },
        ]);
    });

    test("the row id of a new session is good for its transaction only", async (t) => {
      const { client } = setup(t);
      const coValue = await client.upsertCoValue("co_z1", header());
      let kept;
      await transaction(client, function* (tx) {
        kept = yield tx.addSessionUpdate(update(coValue, "s1", 0));
      });
      await assert.rejects(
        transaction(client, function* (tx) {
          yield tx.addTransaction(kept, 0, privateTx(0));
        }),
        { code: "BFT_INVALID" },
      );
    });

    test("a transaction that throws changes nothing and stops nobody", async (t) => {
      const { client } = setup(t);
      const coValue = await client.upsertCoValue("co_z1", header());
      const failing = transaction(client, function* (tx) {
        yield tx.markCoValueAsDeleted("co_z1");
        const session = yield tx.addSessionUpdate(update(coValue, "s1", 1));
        yield tx.addTransaction(session, 0, privateTx(0));
        throw new Error("on purpose");
      });
      const next = transaction(client, function* (tx) {
        yield tx.addSessionUpdate(update(coValue, "s2", 0));
      });
      await assert.rejects(failing, /on purpose/);
      await next;
      const rows = await client.getCoValueSessions(coValue);
      assert.deepEqual(
        rows.map(({ rowID, sessionID }) => [rowID, sessionID]),
        [[1, "s2"]],
      );
      assert.deepEqual(await client.getAllCoValuesWaitingForDelete(), []);
    });

    test("what is not JSON is refused", async (t) => {
      const { client } = setup(t);
      await assert.rejects(
        transaction(client, function* (tx) {
          yield tx.addTransaction(1, 0, undefined);
        }),
        { code: "BFT_INVALID", message: /a transaction is not JSON/ },
      );
    });

    test("a transaction at an index that is taken", async (t) => {
      const { client } = setup(t);
      const { session } = await fill(client, 2);
      const again = transaction(client, function* (tx) {
        yield tx.addTransaction(session, 7, privateTx(7));
        yield tx.addTransaction(session, 1, privateTx(100));
        const signature = { sessionRowID: session, idx: 1, signature: "s" };
        yield tx.addSignatureAfter(signature);
      });
      const idxAndTime = ({ idx, tx }) => [idx, tx.madeAt - privateTx(0).madeAt];
      if (mode === "sync") {
        await assert.rejects(again, { name: "BftreeError", code: "BFT_EXISTS" });
        const rows = await client.getNewTransactionInSession(session, 0, 9);
        assert.deepEqual(rows.map(idxAndTime), [
          [0, 0],
          [1, 1],
        ]);
        return;
      }
      await again;
      const rows = await client.getNewTransactionInSession(session, 0, 9);
      assert.deepEqual(rows.map(idxAndTime), [
        [0, 0],
        [1, 100],
        [7, 7],
      ]);
    });

    test("ranges include both ends and are empty where nothing is", async (t) => {
      const { client } = setup(t);
      const { session } = await fill(client, 10);
      for (const [from, to, wanted] of [
        [0, 9, 10],
        [0, 0, 1],
        [3, 5, 3],
        [5, 3, 0],
        [9, 20, 1],
        [10, 20, 0],
        [0, -1, 0],
        [-5, 1, 2],
      ]) {
        const rows = await client.getNewTransactionInSession(session, from, to);
        assert.equal(rows.length, wanted, `${from} to ${to}`);
        for (const [i, row] of rows.entries())
          assert.deepEqual(row.tx, privateTx(Math.max(from, 0) + i));
      }
      assert.deepEqual(await client.getNewTransactionInSession(99, 0, 9), []);
      assert.deepEqual(await client.getSignatures(99, 0), []);
    });

    test("a long range comes in pieces and is whole", async (t) => {
      const { client } = setup(t);
      const coValue = await client.upsertCoValue("co_z1", header());
      const total = 60;
      for (let at = 0; at < total; at += 20)
        await transaction(client, function* (tx) {
          const row = yield tx.addSessionUpdate(update(coValue, "s1", at + 20));
          for (let i = at; i < at + 20; i++)
            yield tx.addTransaction(row, i, privateTx(i, 100_000));
        });
      const [{ rowID }] = await client.getCoValueSessions(coValue);
      const rows = await client.getNewTransactionInSession(rowID, 0, total - 1);
      assert.equal(rows.length, total);
      for (const [i, row] of rows.entries())
        assert.deepEqual(row, { ses: rowID, idx: i, tx: privateTx(i, 100_000) });
    });

    test("signatures from an index on", async (t) => {
      const { client } = setup(t);
      const { session } = await fill(client, 10);
      await transaction(client, function* (tx) {
        for (const idx of [2, 5, 9])
          yield tx.addSignatureAfter({
            sessionRowID: session,
            idx,
            signature: `signature_z${idx}`,
          });
      });
      const idxs = async (from) =>
        (await client.getSignatures(session, from)).map(({ idx }) => idx);
      assert.deepEqual(await idxs(0), [2, 5, 9]);
      assert.deepEqual(await idxs(5), [5, 9]);
      assert.deepEqual(await idxs(10), []);
    });

    /* The CoValues of SESSIONS, ids and counts by id; resolves to their known
     * states by id. */
    const makeKnown = async (client, sessions) => {
      const expected = new Map();
      for (const [id, counts] of sessions) {
        const coValue = await client.upsertCoValue(id, header());
        for (const [sessionID, count] of counts)
          await transaction(client, function* (tx) {
            yield tx.addSessionUpdate(update(coValue, sessionID, count));
          });
        expected.set(id, {
          id,
          header: true,
          sessions: Object.fromEntries(counts),
        });
      }
      return expected;
    };

    const checkKnown = async (client, expected, id) => {
      const state = await client.getCoValueKnownState(id);
      assert.deepEqual(state, expected.get(id));
      /* It is the caller's. */
      if (!state) return;
      state.header = false;
      state.sessions.mine = 1;
    };

    const shapes = {
      "of ASCII": (i) => `co_z${i}`,
      "with quotes and accents": (i) => `co_z"${i}é`,
      "of both kinds": (i) => (i % 50 === 20 ? `co_z${i}é` : `co_z${i}`),
    };
    for (const [kind, idOf] of Object.entries(shapes))
      test(`known states of ids ${kind} are right in any order`, async (t) => {
        const { client, open } = setup(t);
        const other = clientOf(open());
        const ids = Array.from({ length: 600 }, (_, i) => idOf(i));
        const expected = await makeKnown(
          client,
          ids.map((id, i) => [
            id,
            Array.from({ length: i % 4 }, (_, s) => [`s${3 - s}`, i + s]),
          ]),
        );
        const check = (id) => checkKnown(client, expected, id);
        for (const id of ids) await check(id);
        for (const id of ids.toReversed()) await check(id);
        for (const [i, id] of ids.entries()) {
          await check(id);
          if (i % 10 === 3) await check(id);
          if (i % 25 === 9) await check("co_zUnknown");
          /* What the next one's id starts with. */
          if (i % 40 === 11) await check(ids[Math.floor((i + 1) / 10)]);
        }
        /* Some are passed by. */
        for (const id of ids) await check(id);
        for (let i = 0; i < 600; i += 7) await check(ids[i]);
        /* What another handle writes is seen at once. */
        for (const id of ids.slice(0, 200)) await check(id);
        for (const [i, id] of ids.entries()) {
          if (i % 7 === 0 || i % 100 < 3) {
            const later = ids[Math.min(i + 3, ids.length - 1)];
            const coValue = await other.upsertCoValue(later);
            await transaction(other, function* (tx) {
              yield tx.addSessionUpdate(update(coValue, "s9", 1000 + i));
            });
            expected.get(later).sessions.s9 = 1000 + i;
          }
          await check(id);
        }
        /* Also an erasure, which changes what is there. */
        for (const id of ids.slice(0, 100)) await check(id);
        await other.eraseCoValueButKeepTombstone(ids[102]);
        expected.get(ids[102]).sessions = {};
        for (const id of ids.slice(100)) await check(id);
      });

    test("known states have whatever sessions there are", async (t) => {
      const { client } = setup(t);
      const many = (count, of) =>
        Array.from({ length: count }, (_, i) => [`${of}_session_z${i}`, i + 1]);
      const sessions = [["co_zNone", []]];
      /* Each has its own; then so many that not all fit at once. */
      for (let i = 0; i < 700; i++)
        sessions.push([`co_zOwn${i}`, many(1 + (i % 3), `co_z${i}`)]);
      for (let i = 0; i < 12; i++)
        sessions.push([`co_zMany${i}`, many(200, i % 2 ? "co_zA" : `co_z${i}`)]);
      for (let i = 0; i < 200; i++)
        sessions.push([`co_zLong${i}`, many(i % 4, "l".repeat(450))]);
      sessions.push(["co_zMost", many(300, "co_zMost")]);
      sessions.push(["co_zEnd", [["s1", Number.MAX_SAFE_INTEGER - 1]]]);
      sessions.push(["co_zAccent", [["sé", 2], ["s1", 3]]]);
      sessions.push(["co_zNumber", [["7", 2], ["s1", 3], ["5", 1]]]);
      sessions.push(["co_zProto", [["__proto__", 2], ["s1", 3]]]);
      sessions.push(["co_zLast", [["s1", 4]]]);
      const expected = await makeKnown(client, sessions);
      for (let round = 0; round < 2; round++)
        for (const [id] of sessions) {
          await checkKnown(client, expected, id);
          assert.equal({}.mine, undefined);
        }
    });

    test("a CoValue loads as its rows read one by one", async (t) => {
      const { client, open } = setup(t);
      const plain = clientOf(open());
      const s1 = { id: "co_zA_session_z1", txs: [0, 1, 2] };
      const shapes = [
        [],
        [s1],
        [s1],
        [{ ...s1, id: "co_zA_session_z2" }],
        [{ ...s1, id: "co_zA_session_z22" }],
        [{ ...s1, id: "" }],
        [{ ...s1, id: "s" }],
        [{ ...s1, bytes: 0 }],
        [{ ...s1, bytes: 1 }],
        [{ ...s1, bytes: Number.MAX_SAFE_INTEGER - 1 }],
        [{ ...s1, bytes: undefined }],
        [{ ...s1, signature: "" }],
        [{ ...s1, signature: 'of "é' }],
        [{ ...s1, id: "sé" }],
        [{ ...s1, id: 's"\\' }],
        [{ ...s1, txs: [] }],
        [{ ...s1, txs: [0, 2] }],
        [{ ...s1, txs: [1, 2] }],
        [{ ...s1, txs: [0, 1] }],
        [{ ...s1, signed: [1] }],
        [{ ...s1, signed: [0, 2] }],
        [s1, { ...s1, id: "s2" }],
        [{ ...s1, signed: [1] }, { ...s1, id: "s2" }],
        [{ ...s1, of: () => ({ privacy: "trusting", changes: "[]", madeAt: 1 }) }],
        [{ ...s1, of: (i) => usualTx(i, 5000) }],
        [{ ...s1, of: privateTx }],
      ];
      const make = async (id, head, sessions) => {
        const coValue = await client.upsertCoValue(id, head);
        for (const s of sessions)
          await transaction(client, function* (tx) {
            const { sessionUpdate } = update(coValue, s.id, 3);
            const bytes = "bytes" in s ? s.bytes : 180;
            sessionUpdate.bytesSinceLastSignature = bytes;
            sessionUpdate.lastSignature = s.signature ?? "signature_z3";
            const row = yield tx.addSessionUpdate({ sessionUpdate });
            for (const idx of s.txs)
              yield tx.addTransaction(row, idx, (s.of ?? usualTx)(idx));
            for (const idx of s.signed ?? [])
              yield tx.addSignatureAfter({
                sessionRowID: row,
                idx,
                signature: `signature_z${idx}`,
              });
          });
        return coValue;
      };
      const rowsOf = async (who, coValue) => {
        const sessions = await who.getCoValueSessions(coValue);
        const all = [];
        for (const { rowID } of sessions)
          all.push([
            await who.getSignatures(rowID, 0),
            await who.getNewTransactionInSession(rowID, 0, 2),
          ]);
        return [sessions, ...all];
      };
      const heads = [header(), header("é \u{1f600}"), header('"\\\n')];
      const made = [];
      for (const [i, sessions] of shapes.entries())
        for (const [j, head] of heads.entries())
          made.push([
            `co_z${i}_${j}`,
            head,
            await make(`co_z${i}_${j}`, head, sessions),
            sessions.length,
          ]);
      for (const [id, head, coValue, count] of made) {
        const row = await client.getCoValue(id);
        assert.deepEqual(row, { rowID: coValue, id, header: head });
        const rows = await rowsOf(client, coValue);
        assert.equal(rows.length, 1 + count);
        assert.deepEqual(rows, await rowsOf(plain, coValue));
      }
      /* Many at once, as a storage has them. */
      for (const [id] of made.slice(0, 20)) await client.getCoValue(id);
      for (const [, , coValue] of made.slice(0, 20).toReversed())
        assert.deepEqual(
          await rowsOf(client, coValue),
          await rowsOf(plain, coValue),
        );
    });

    test("each read gives objects of its own", async (t) => {
      const { client } = setup(t);
      const { coValue, session } = await fill(client, 2);
      for (let round = 0; round < 2; round++) {
        const row = await client.getCoValue("co_zFilled");
        assert.deepEqual(row.header, header());
        row.header.uniqueness = "spoilt";
        for (let again = 0; again < 2; again++) {
          const [known] = await client.getCoValueSessions(coValue);
          assert.equal(known.lastIdx, 2);
          known.lastIdx = 99;
          const txs = await client.getNewTransactionInSession(session, 0, 1);
          assert.deepEqual(txs[0].tx, privateTx(0));
          txs[0].tx.encryptedChanges = "spoilt";
          const signatures = await client.getSignatures(session, 0);
          assert.deepEqual(signatures, []);
          signatures.push("spoilt");
        }
        await transaction(client, function* (tx) {
          const seen = yield tx.getSingleCoValueSession(coValue, "s1");
          assert.equal(seen.lastIdx, 2);
          seen.lastIdx = 99;
        });
      }
    });

    test("what was read ahead is not shown once it has changed", async (t) => {
      const { client, open } = setup(t);
      const other = clientOf(open());
      const { coValue, session } = await fill(client, 2);
      const append = (idx) =>
        transaction(other, function* (tx) {
          yield tx.getSingleCoValueSession(coValue, "s1");
          yield tx.addSessionUpdate(update(coValue, "s1", idx + 1));
          yield tx.addTransaction(session, idx, privateTx(idx));
        });
      await client.getCoValue("co_zFilled");
      await append(2);
      const [row] = await client.getCoValueSessions(coValue);
      assert.equal(row.lastIdx, 3);
      await client.getCoValue("co_zFilled");
      await client.getCoValueSessions(coValue);
      await append(3);
      const rows = await client.getNewTransactionInSession(session, 0, 3);
      assert.equal(rows.length, 4);
    });

    /* Another one opens the database, runs STEPS and closes it. */
    const between = async (open, steps) => {
      const other = open();
      await transaction(clientOf(other), steps);
      await other.close();
    };

    test("sessions read ahead are not shown after another opening", async (t) => {
      const { client, open, storage } = setup(t);
      const { coValue } = await fill(client, 2);
      await storage.close();
      await client.getCoValue("co_zFilled");
      await storage.close();
      await between(open, function* (tx) {
        yield tx.addSessionUpdate(update(coValue, "s1", 3));
      });
      const [row] = await client.getCoValueSessions(coValue);
      assert.equal(row.lastIdx, 3);
    });

    test("states read ahead are not shown after another opening", async (t) => {
      const { client, open, storage } = setup(t);
      const ids = ["co_z1", "co_z2", "co_z3", "co_z4", "co_z5"];
      for (const id of ids) await client.upsertCoValue(id, header());
      await storage.close();
      for (const id of ids.slice(0, 3)) await client.getCoValueKnownState(id);
      await storage.close();
      await between(open, function* (tx) {
        for (const row of [4, 5])
          yield tx.addSessionUpdate(update(row, "s1", 1));
      });
      for (const id of ids.slice(3)) {
        const known = await client.getCoValueKnownState(id);
        assert.deepEqual(known.sessions, { s1: 1 });
      }
    });

    test("what another handle wrote is seen by the next transaction", async (t) => {
      const { client, open } = setup(t);
      const other = clientOf(open());
      const { coValue } = await fill(client, 2);
      for (let count = 3; count < 10; count++) {
        const [writer, reader] =
          count % 2 === 0 ? [client, other] : [other, client];
        await transaction(writer, function* (tx) {
          yield tx.addSessionUpdate(update(coValue, "s1", count));
        });
        await transaction(reader, function* (tx) {
          const row = yield tx.getSingleCoValueSession(coValue, "s1");
          assert.equal(row.lastIdx, count);
        });
      }
    });

    test("a write in between does not hide what another handle wrote", async (t) => {
      const { client, open } = setup(t);
      const other = clientOf(open());
      const { coValue } = await fill(client, 2);
      const write = (to, sessionID, count) =>
        transaction(to, function* (tx) {
          yield tx.addSessionUpdate(update(coValue, sessionID, count));
        });
      await write(client, "s1", 3);
      await write(other, "s1", 4);
      await write(client, "s2", 1);
      await transaction(client, function* (tx) {
        const row = yield tx.getSingleCoValueSession(coValue, "s1");
        assert.equal(row.lastIdx, 4);
      });
    });

    test("a transaction whose ground another one moved is run again", async (t) => {
      const { client, open } = setup(t);
      const other = clientOf(open());
      const { coValue } = await fill(client, 2);
      let runs = 0;
      await transaction(client, function* (tx) {
        runs++;
        const row = yield tx.getSingleCoValueSession(coValue, "s1");
        if (runs === 1)
          yield transaction(other, function* (theirs) {
            yield theirs.addSessionUpdate(update(coValue, "s1", 5));
          });
        yield tx.addSessionUpdate(update(coValue, "s1", row.lastIdx + 1));
      });
      assert.equal(runs, 2);
      const [row] = await client.getCoValueSessions(coValue);
      assert.equal(row.lastIdx, 6);
    });

    test("a CoValue that another handle was faster to fill", async (t) => {
      const { client, open } = setup(t);
      const other = clientOf(open());
      const add = (who, coValue, count) =>
        transaction(who, function* (tx) {
          yield tx.addSessionUpdate(update(coValue, "s1", count));
        });
      await client.upsertCoValue("co_z1", header());
      for (const [i, writes] of [false, true].entries()) {
        const id = `co_zFaster${i}`;
        await add(other, await other.upsertCoValue(id, header()), 5);
        const coValue = await client.upsertCoValue(id, header());
        const seen = [];
        await transaction(client, function* (tx) {
          const row = yield tx.getSingleCoValueSession(coValue, "s1");
          seen.push(row?.lastIdx);
          if (writes) yield tx.addSessionUpdate(update(coValue, "s1", 7));
        });
        assert.equal(seen.at(-1), 5);
        const [{ lastIdx }] = await client.getCoValueSessions(coValue);
        assert.equal(lastIdx, writes ? 7 : 5);
        /* One that nobody has filled is none. */
        const empty = await client.upsertCoValue(`co_zEmpty${i}`, header());
        await transaction(client, function* (tx) {
          assert.equal(yield tx.getSingleCoValueSession(empty, "s1"), undefined);
          if (writes) yield tx.addSessionUpdate(update(empty, "s1", 1));
        });
      }
    });

    test("a header that is not JSON makes its CoValue unknown", async (t) => {
      const { storage, client } = setup(t);
      plant(storage, [change(Kind.COVALUE, 0, 0, 0, "co_zBad", "{broken")]);
      assert.equal(await client.getCoValue("co_zBad"), undefined);
      assert.equal(await client.upsertCoValue("co_zBad"), 1);
      await transaction(client, function* (tx) {
        const session = yield tx.addSessionUpdate(update(1, "s1", 1));
        yield tx.addTransaction(session, 0, usualTx(0));
      });
      assert.equal(await client.getCoValue("co_zBad"), undefined);
    });

    test("a transaction that is not JSON empties its range", async (t) => {
      const { storage, client } = setup(t);
      const { coValue, session } = await fill(client, 3);
      for (const bad of ["{broken", "1,2", ""]) {
        plant(storage, [
          change(Kind.TRANSACTION, Flag.OVERWRITE, session, 1, "", bad),
        ]);
        const row = await client.getCoValue("co_zFilled");
        assert.deepEqual(row.header, header());
        const [{ rowID }] = await client.getCoValueSessions(coValue);
        assert.equal(rowID, session);
        const range = await client.getNewTransactionInSession(session, 0, 2);
        assert.deepEqual(range, [], bad);
        const [first] = await client.getNewTransactionInSession(session, 0, 0);
        assert.deepEqual(first.tx, privateTx(0));
      }
    });

    for (const count of [3, 400])
      test(`an erasure of ${count} transactions leaves the tombstone`, async (t) => {
        const { client, storage } = setup(t);
        const { coValue, session } = await fill(client, count);
        await transaction(client, function* (tx) {
          const row = yield tx.addSessionUpdate(update(coValue, "s_d$", 1));
          yield tx.addTransaction(row, 0, privateTx(0));
          yield tx.markCoValueAsDeleted("co_zFilled");
        });
        assert.deepEqual(await client.getAllCoValuesWaitingForDelete(), [
          "co_zFilled",
        ]);
        await client.eraseCoValueButKeepTombstone("co_zFilled");
        assert.deepEqual(await client.getAllCoValuesWaitingForDelete(), []);
        const known = await client.getCoValueKnownState("co_zFilled");
        assert.deepEqual(known.sessions, { s_d$: 1 });
        const rows = await client.getNewTransactionInSession(session, 0, 9);
        assert.deepEqual(rows, []);
        await client.eraseCoValueButKeepTombstone("co_zUnknown");
        await transaction(client, function* (tx) {
          yield tx.markCoValueAsDeleted("co_zFilled");
        });
        assert.deepEqual(await client.getAllCoValuesWaitingForDelete(), []);
        const census = await storage.database.census();
        assert.equal(census.transactions, 1);
        assert.equal(census.deletions_done, 1);
        assert.equal(census.orphan_transactions, 0);
      });

    test("unsynced CoValues, each once, until all peers have them", async (t) => {
      const { client } = setup(t);
      const track = (id, peerId, synced) => ({ id, peerId, synced });
      await client.trackCoValuesSyncState([]);
      await client.trackCoValuesSyncState([
        track("co_z2", "p1", false),
        track("co_z2", "p2", false),
        track("co_z1", "p1", false),
        track("co_z3", "p1", true),
      ]);
      assert.deepEqual(await client.getUnsyncedCoValueIDs(), ["co_z1", "co_z2"]);
      await client.trackCoValuesSyncState([track("co_z2", "p1", true)]);
      assert.deepEqual(await client.getUnsyncedCoValueIDs(), ["co_z1", "co_z2"]);
      await client.trackCoValuesSyncState([track("co_z2", "p2", true)]);
      assert.deepEqual(await client.getUnsyncedCoValueIDs(), ["co_z1"]);
      await client.stopTrackingSyncState("co_z1");
      assert.deepEqual(await client.getUnsyncedCoValueIDs(), []);
    });

    test("lists are longer than one page", async (t) => {
      const { client, storage } = setup(t);
      const ids = Array.from(
        { length: 5000 },
        (_, i) => `co_zId${String(i).padStart(30, "0")}`,
      );
      for (let at = 0; at < ids.length; at += 1000)
        plant(
          storage,
          ids
            .slice(at, at + 1000)
            .flatMap((id) => [
              change(Kind.COVALUE, 0, 0, 0, id, "{}"),
              change(Kind.DELETED, 0, 0, 0, id, ""),
              change(Kind.UNSYNCED, 0, 0, 0, id, "peer"),
            ]),
        );
      assert.deepEqual(await client.getAllCoValuesWaitingForDelete(), ids);
      assert.deepEqual(await client.getUnsyncedCoValueIDs(), ids);
      const objects = ids.map((id) => ({ id }));
      assert.deepEqual(await client.getCoValueIDs(6000, 0), objects);
      assert.deepEqual(
        await client.getCoValueIDs(4500, 100),
        objects.slice(100, 4600),
      );
    });

    test("a transaction reads and writes locks", async (t) => {
      const { client } = setup(t);
      const lock = {
        key: "lock#p",
        holderSessionId: "s1",
        acquiredAt: 1_730_000_000_000,
        lastProcessedOffset: 7,
      };
      await transaction(client, function* (tx) {
        assert.equal(yield tx.getStorageReconciliationLock("lock#p"), undefined);
        yield tx.putStorageReconciliationLock(lock);
        assert.deepEqual(yield tx.getStorageReconciliationLock("lock#p"), lock);
      });
      const released = { ...lock, releasedAt: 1_730_000_000_001 };
      await transaction(client, function* (tx) {
        assert.deepEqual(yield tx.getStorageReconciliationLock("lock#p"), lock);
        yield tx.putStorageReconciliationLock(released);
      });
      await transaction(client, function* (tx) {
        assert.deepEqual(
          yield tx.getStorageReconciliationLock("lock#p"),
          released,
        );
      });
    });

    test("a reconciliation lock is due, held, renewed, released", async (t) => {
      const { client, open } = setup(t);
      const other = clientOf(open());
      const limits = cojsonInternals.STORAGE_RECONCILIATION_CONFIG;
      const before = { ...limits };
      t.after(() => Object.assign(limits, before));
      const acquire = (from, session) =>
        from.tryAcquireStorageReconciliationLock(session, "peer");
      assert.deepEqual(await acquire(client, "s1"), {
        acquired: true,
        lastProcessedOffset: 0,
      });
      await client.renewStorageReconciliationLock("s1", "peer", 300);
      await other.renewStorageReconciliationLock("s2", "peer", 900);
      assert.deepEqual(await acquire(other, "s2"), {
        acquired: false,
        reason: "lock_held",
      });
      assert.deepEqual(await acquire(other, "s1"), {
        acquired: true,
        lastProcessedOffset: 300,
      });
      await client.releaseStorageReconciliationLock("s2", "peer");
      limits.LOCK_TTL_MS = 0;
      await new Promise((resolve) => setTimeout(resolve, 2));
      assert.deepEqual(await acquire(other, "s2"), {
        acquired: true,
        lastProcessedOffset: 300,
      });
      await other.releaseStorageReconciliationLock("s2", "peer");
      assert.deepEqual(await acquire(client, "s2"), {
        acquired: false,
        reason: "not_due",
      });
      limits.RECONCILIATION_INTERVAL_MS = 0;
      assert.deepEqual(await acquire(client, "s1"), {
        acquired: true,
        lastProcessedOffset: 0,
      });
    });

    test("limits of a reconciliation lock may be any", async (t) => {
      const { client } = setup(t);
      const limits = cojsonInternals.STORAGE_RECONCILIATION_CONFIG;
      const before = { ...limits };
      t.after(() => Object.assign(limits, before));
      for (const [i, limit] of [Infinity, 2 ** 60, 1.1 * 600_000].entries()) {
        const acquire = (session) =>
          client.tryAcquireStorageReconciliationLock(session, `peer${i}`);
        limits.LOCK_TTL_MS = limit;
        limits.RECONCILIATION_INTERVAL_MS = limit;
        assert.equal((await acquire("s1")).acquired, true);
        assert.deepEqual(await acquire("s2"), {
          acquired: false,
          reason: "lock_held",
        });
        await client.releaseStorageReconciliationLock("s1", `peer${i}`);
        assert.deepEqual(await acquire("s2"), {
          acquired: false,
          reason: "not_due",
        });
      }
    });
  });
}
