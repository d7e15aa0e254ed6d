/* A process that stores something and ends without a close, in some way. */
import { openJazzStorage } from "../../dist/index.js";
import { message, store } from "./messages.mjs";

const [path, order] = process.argv.slice(2);
const [mode, how, durability] = order.split("-");

async function work() {
  const storage = openJazzStorage(path, { mode, durability });
  await store(storage, message("co_z1", 0, 3));
  return storage;
}

if (how === "garbage") {
  await work();
  for (let i = 0; i < 10; i++) {
    globalThis.gc();
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  /* The last handle has gone, and with it the lock on the directory: opening
   * it as a new engine works. */
  await (await work()).close();
} else {
  const storage = await work();
  if (how === "exit") process.exit(0);
  if (how === "throw") throw new Error("on purpose");
  if (how === "pending") {
    for (let i = 0; i < 100; i++) {
      storage.store(message("co_z2", i, 1), () => undefined);
      void storage.database.sync();
      void storage.database.checkpoint();
    }
    setImmediate(() => process.exit(0));
  }
  if (how === "wait") {
    process.stdout.write("ready");
    process.stdin.resume();
  }
}
