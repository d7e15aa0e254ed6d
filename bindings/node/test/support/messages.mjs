/* Content messages as cojson stores them, and what else the tests share. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const packageRoot = fileURLToPath(new URL("../../", import.meta.url));
export const buildRoot = join(packageRoot, "../../build/node");

const folders = [];
process.on("exit", () => {
  for (const dir of folders) rmSync(dir, { recursive: true, force: true });
});

/* A folder of its own for a test; all go when the tests have ended. */
export function scratch() {
  const dir = mkdtempSync(join(tmpdir(), "bftree-"));
  folders.push(dir);
  return dir;
}

export const header = (uniqueness = "u") => ({
  type: "comap",
  ruleset: { type: "unsafeAllowAll" },
  meta: null,
  uniqueness,
});

export const privateTx = (i, length = 60) => ({
  privacy: "private",
  madeAt: 1_730_000_000_000 + i,
  keyUsed: "key_z1",
  encryptedChanges: `encrypted_U${"x".repeat(length)}${i}`,
});

/* COUNT transactions from index AFTER on, in one session. */
export function message(id, after, count, options = {}) {
  const { session = "co_zA_session_z1", length, header: head } = options;
  return {
    action: "content",
    id,
    header: head ?? (after === 0 ? header(id) : undefined),
    priority: 3,
    new: {
      [session]: {
        after,
        newTransactions: Array.from({ length: count }, (_, i) =>
          privateTx(after + i, length),
        ),
        lastSignature: `signature_z${session}/${after + count}`,
      },
    },
  };
}

export const noCorrection = () => {
  throw new Error("a correction was asked for");
};

/* Resolves when the message is done. */
export const store = (storage, msg, correct = noCorrection) =>
  new Promise((resolve) => {
    storage.store(msg, correct, resolve);
  });

/* All transactions of a CoValue by session, in order; undefined: unknown. */
export async function load(storage, id) {
  const sessions = {};
  const add = (msg) => {
    if (msg.id !== id) return;
    for (const [session, content] of Object.entries(msg.new)) {
      const txs = (sessions[session] ??= []);
      if (content.after !== txs.length)
        throw new Error(`${session}: a gap at ${txs.length}`);
      txs.push(...content.newTransactions);
    }
  };
  const found = await new Promise((resolve) => {
    storage.load(id, add, resolve);
  });
  for (;;) {
    const more = storage.streamingQueue?.pull();
    if (!more) break;
    more();
  }
  return found ? sessions : undefined;
}

export const knownState = (storage, id) =>
  new Promise((resolve) => {
    storage.loadKnownState(id, resolve);
  });

/* cojson's client below a storage: private to it, and what we are about. */
export const clientOf = (storage) => storage.dbClient;

/* A few turns of the event loop. */
export async function turns(count = 5) {
  for (let i = 0; i < count; i++)
    await new Promise((resolve) => setImmediate(resolve));
}
