/*
 * A fresh process after a kill: everything that was acknowledged must be there,
 * every CoValue must load, signatures verified, and mean what it meant.
 *
 *   node checker.mjs '{"path", "flavour", "acks"}'
 *
 * ACKS is a file with the lines that the parent got so far (shared.mjs).  The
 * last line printed is JSON: what was counted, how much is lost, and what.
 */
import { readFileSync } from "node:fs";
import { LocalNode } from "cojson";
import { NapiCrypto } from "cojson/crypto/NapiCrypto";
import { openJazzStorage } from "../dist/index.js";
import { digestOf, digestOfBytes } from "./shared.mjs";

const LOST_SHOWN = 20;
const PATIENCE_MS = 60_000;

const { path, flavour, acks } = JSON.parse(process.argv[2]);
const crypto = await NapiCrypto.create();

const lost = [];
const counted = { coValues: 0, writes: 0, streams: 0, streamBytes: 0 };

/* --- What was acknowledged --------------------------------------------------- */

const secrets = new Map();
/* By id: { account, type, writes }. */
const known = new Map();

function entry(id) {
  let found = known.get(id);
  if (!found) known.set(id, (found = { writes: [] }));
  return found;
}

for (const text of readFileSync(acks, "utf8").split("\n")) {
  if (text === "") continue;
  const line = JSON.parse(text);
  if (line.secret) secrets.set(line.account, line.secret);
  else if (line.session) entry(line.id).writes.push(line);
  else Object.assign(entry(line.id), { account: line.account, type: line.type });
}

/* --- Comparing --------------------------------------------------------------- */

/* The transactions, byte for byte as they were signed. */
function compareTransactions(id, core, writes) {
  const sessions = new Map();
  for (const { n, session, idx, tx } of writes) {
    if (!sessions.has(session))
      sessions.set(session, core.verified.getSession(session));
    const stored = sessions.get(session)?.transactions[idx];
    if (stored === undefined)
      lost.push(`write ${n}: transaction ${idx} of ${session} in ${id}`);
    else if (digestOf(stored) !== tx)
      lost.push(`write ${n}: transaction ${idx} of ${session} in ${id} differs`);
  }
}

/* Of each key the last write that was acknowledged, or a later one. */
function compareMap(id, map, whats) {
  const last = new Map();
  for (const [kind, key, n, digest] of whats)
    if (kind === "map" && !(last.get(key)?.n > n)) last.set(key, { n, digest });
  for (const [key, { n, digest }] of last) {
    const value = map.get(key);
    if (value === undefined || value.n < n)
      lost.push(`key "${key}" of map ${id} is ${value ? "an older one" : "gone"}`);
    else if (value.n === n && digestOf(value) !== digest)
      lost.push(`key "${key}" of map ${id} has another value`);
  }
}

function compareList(id, list, whats) {
  const items = new Map(list.asArray().map((item) => [item.n, item]));
  for (const [kind, n, digest] of whats)
    if (kind === "list" && !(items.has(n) && digestOf(items.get(n)) === digest))
      lost.push(`item ${n} of list ${id}`);
}

function compareGroup(id, group, whats) {
  for (const [kind, member, role] of whats)
    if (kind === "group" && group.roleOf(member) !== role)
      lost.push(`${member} is no ${role} of group ${id}`);
}

function compareStream(id, stream, whats) {
  if (whats.length === 0) return;
  const content = stream.getBinaryChunks(true);
  for (const [kind, first, digest] of whats) {
    if (kind === "chunk") {
      const chunk = content?.chunks[first];
      if (!chunk || digestOfBytes(chunk) !== digest)
        lost.push(`chunk ${first} of stream ${id}`);
      continue;
    }
    const chunks = content?.chunks ?? [];
    const bytes = chunks.reduce((sum, { length }) => sum + length, 0);
    if (!content?.finished || bytes !== first || digestOfBytes(...chunks) !== digest)
      lost.push(`stream ${id} was complete with ${first} bytes`);
    counted.streams++;
    counted.streamBytes += bytes;
  }
}

const compare = {
  comap: compareMap,
  colist: compareList,
  group: compareGroup,
  account: compareGroup,
  binary: compareStream,
};

/* --- Loading ----------------------------------------------------------------- */

const giveUp = (what) =>
  new Promise((_, reject) =>
    setTimeout(() => reject(new Error(`${what} takes forever`)), PATIENCE_MS).unref(),
  );

async function load(node, id) {
  const value = await node.load(id, true);
  if (value === "unavailable") return undefined;
  await value.core.waitForFullStreaming();
  return value.core.getCurrentContent();
}

async function check(node, id) {
  counted.coValues++;
  const { type, writes } = known.get(id) ?? { writes: [] };
  let value;
  try {
    value = await Promise.race([load(node, id), giveUp(`loading ${id}`)]);
  } catch (error) {
    lost.push(`CoValue ${id}: ${error.message}`);
    return;
  }
  if (!value) {
    lost.push(`CoValue ${id} does not load`);
    return;
  }
  counted.writes += writes.length;
  compareTransactions(id, value.core, writes);
  const whats = writes.flatMap(({ what }) => (what ? [what] : []));
  compare[type]?.(id, value, whats);
}

/* Every CoValue in the database. */
async function storedIDs(storage) {
  const ids = [];
  for (let offset = 0; ; offset += 100) {
    const batch = await new Promise((resolve) =>
      storage.getCoValueIDs(100, offset, resolve),
    );
    ids.push(...batch.map(({ id }) => id));
    if (batch.length < 100) return ids;
  }
}

/* An account with what it made; as nobody has the rest, anybody loads it. */
async function checkAs(account, ids) {
  const node = await LocalNode.withLoadedAccount({
    accountID: account,
    accountSecret: secrets.get(account),
    sessionID: undefined,
    peers: [],
    crypto,
    storage: openJazzStorage(path, { ...flavour, mustExist: true }),
  });
  for (const id of ids) await check(node, id);
  await node.gracefulShutdown();
}

/* Of each account what it made; the first has what nobody can be asked for. */
function assign(ids) {
  const of = new Map([...secrets.keys()].map((account) => [account, []]));
  const anybody = [...of.keys()][0];
  for (const id of ids) {
    const account = known.get(id)?.account;
    of.get(of.has(account) ? account : anybody)?.push(id);
  }
  return of;
}

const started = performance.now();
const storage = openJazzStorage(path, { ...flavour, mustExist: true });
const recoveryMs = performance.now() - started;
await storage.database.verify();
const ids = await storedIDs(storage);
const unlisted = [...known.keys()].filter((id) => !ids.includes(id));
for (const id of unlisted) lost.push(`CoValue ${id} is not listed`);

for (const [account, of] of assign(new Set([...ids, ...unlisted])))
  await checkAs(account, of).catch((error) =>
    lost.push(`account ${account}: ${error.message}`),
  );
await storage.close();

const losses = lost.length;
if (losses > LOST_SHOWN)
  lost.splice(LOST_SHOWN, Infinity, `and ${losses - LOST_SHOWN} more`);
console.log(JSON.stringify({ ...counted, recoveryMs, losses, lost }));
