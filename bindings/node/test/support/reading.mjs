/* A process that has other threads read a long transaction, and says how many
 * bytes more it has then.  Needs --expose-gc. */
import { openJazzStorage } from "../../dist/index.js";
import { calls, result, setNumbers } from "../../dist/native.js";
import { message, store } from "./messages.mjs";

const [path] = process.argv.slice(2);
const MB = 1 << 20;
const storage = openJazzStorage(path, {
  mode: "sync",
  durability: "buffered",
  memoryBytes: 1024 * MB,
});
const read = () => {
  setNumbers(1, 0, 9);
  return storage.handle.submit(calls.TRANSACTIONS, () => result(3));
};
const used = () => {
  globalThis.gc();
  return process.memoryUsage().rss;
};

await store(storage, message("co_z1", 0, 1, { length: 40 * MB }));
const before = used();
const counts = await Promise.all([read(), read(), read(), read()]);
const kept = used() - before;
await storage.database.close();
process.stdout.write(JSON.stringify({ counts, kept }));
