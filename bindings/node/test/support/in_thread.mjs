/* A worker thread of process.test.mjs. */
import { parentPort, workerData } from "node:worker_threads";
import { openJazzStorage } from "../../dist/index.js";
import { load, message, privateTx, store } from "./messages.mjs";

const { path, durability = "sync", busy } = workerData;
const session = "co_zA_session_z1";
const storage = openJazzStorage(path, { durability });

/* Append to one session, as a program does that shares it with another. */
async function append(count) {
  const client = storage.dbClient;
  const coValue = await client.upsertCoValue("co_zShared");
  for (let i = 0; i < count; i++)
    await client.transaction(async (tx) => {
      const row = await tx.getSingleCoValueSession(coValue, session);
      const idx = row?.lastIdx ?? 0;
      const sessionUpdate = {
        coValue,
        sessionID: session,
        lastIdx: idx + 1,
        lastSignature: `signature_z${idx}`,
        bytesSinceLastSignature: 0,
      };
      const id = await tx.addSessionUpdate({ sessionUpdate });
      await tx.addTransaction(id, idx, privateTx(idx));
    });
}

parentPort.on("message", async (order) => {
  if (order.load) {
    const content = await load(storage, order.load);
    parentPort.postMessage(content[session].length);
  } else if (order.store) {
    await store(storage, message(...order.store));
    parentPort.postMessage("stored");
  } else if (order.append) {
    await append(order.append);
    parentPort.postMessage("appended");
  }
});
parentPort.postMessage("ready");

for (let i = 0; busy; i++) {
  storage.store(message(busy, i, 1), () => undefined);
  void storage.database.sync().catch(() => {});
  if (i % 10 === 0) await new Promise((resolve) => setImmediate(resolve));
}
