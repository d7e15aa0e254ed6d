/*
 * The program that gets killed: accounts, groups, maps, lists and binary
 * streams through real LocalNodes, several of them over one database.  It tells
 * its parent through file descriptor 3 what the storage has called stored, at
 * the moment it does.  It never ends by itself.
 *
 *   node writer.mjs '{"path", "flavour", "seed", "first", "accounts"}'
 */
import { randomBytes } from "node:crypto";
import { writeSync } from "node:fs";
import { LocalNode, cojsonInternals } from "cojson";
import { NapiCrypto } from "cojson/crypto/NapiCrypto";
import { openJazzStorage } from "../dist/index.js";
import { digestOf, digestOfBytes, randomFrom } from "./shared.mjs";

const CHUNK_BYTES = 100 * 1024;
const STREAM_CHUNKS = 40;
/* Messages that may be waiting for the storage. */
const UNSTORED_MAX = 64;
/* LocalNodes at the same time, each with a storage of its own. */
const HANDS_MAX = 4;
const KEYS = 40;

const { path, flavour, seed, first, accounts } = JSON.parse(process.argv[2]);
const random = randomFrom(seed);
const below = (n) => Math.floor(random() * n);
const pick = (list) => list[below(list.length)];
const crypto = await NapiCrypto.create();

/* Numbers all that is written, over all rounds. */
let serial = first;

/* --- Telling what is stored -------------------------------------------------- */

/* Before anything else happens. */
function tell(line) {
  const bytes = Buffer.from(`${JSON.stringify(line)}\n`);
  for (let at = 0; at < bytes.length; ) at += writeSync(3, bytes, at);
}

/* What transactions mean that are not stored yet, by their place. */
const meanings = new Map();
const placeOf = ({ id, session, idx }) => `${id} ${session} ${idx}`;

/* Messages on their way, and who waits for fewer of them. */
let unstored = 0;
let wake = () => {};

/* What was written just now is handed to the storage in a microtask. */
async function unstoredAtMost(max) {
  await new Promise(setImmediate);
  while (unstored > max) await new Promise((resolve) => (wake = resolve));
}

function typeOf({ type, ruleset, meta }) {
  if (meta?.type === "account" || meta?.type === "binary") return meta.type;
  return ruleset.type === "group" ? "group" : type;
}

/* One line for each thing that storing MSG stores. */
function linesOf(msg, account) {
  const { id, header } = msg;
  const lines = header ? [{ id, type: typeOf(header), account }] : [];
  for (const [session, { after, newTransactions }] of Object.entries(msg.new))
    newTransactions.forEach((tx, i) =>
      lines.push({ id, session, idx: after + i, tx: digestOf(tx) }),
    );
  return lines;
}

function tellStored(line) {
  const place = placeOf(line);
  const what = meanings.get(place);
  meanings.delete(place);
  tell({ n: serial++, ...line, ...(what && { what }) });
}

/* A storage of its own for ACCOUNT, over the one database. */
function openTelling(account) {
  const storage = openJazzStorage(path, flavour);
  const store = storage.store.bind(storage);
  storage.store = (msg, correct, done) => {
    const lines = linesOf(msg, account);
    unstored++;
    return store(msg, correct, () => {
      unstored--;
      lines.forEach(tellStored);
      wake();
      done?.();
    });
  };
  return storage;
}

/* --- An account at work ------------------------------------------------------ */

class Hand {
  groups = [];
  maps = [];
  lists = [];
  stream;
  chunks = [];

  constructor(node) {
    this.node = node;
    this.account = node.getCurrentAccountOrAgentID();
    /* No two accounts set one key at one millisecond. */
    this.prefix = this.account.slice(-6);
    this.newGroup();
    this.newMap();
    this.newList();
  }

  static async create() {
    const secret = crypto.newRandomAgentSecret();
    const header = cojsonInternals.accountHeaderForInitialAgentSecret(
      secret,
      crypto,
    );
    const account = cojsonInternals.idforHeader(header, crypto);
    const { node } = await LocalNode.withNewlyCreatedAccount({
      creationProps: { name: `account ${serial}` },
      crypto,
      initialAgentSecret: secret,
      storage: openTelling(account),
    });
    await unstoredAtMost(0);
    tell({ account, secret });
    return new Hand(node);
  }

  /* An account of an earlier round, which goes on with what it has. */
  static async login({ account, secret, owned }) {
    const node = await LocalNode.withLoadedAccount({
      accountID: account,
      accountSecret: secret,
      sessionID: undefined,
      peers: [],
      crypto,
      storage: openTelling(account),
    });
    const hand = new Hand(node);
    for (const { id, type } of owned) await hand.adopt(id, type);
    return hand;
  }

  async adopt(id, type) {
    const value = await this.node.load(id);
    if (value === "unavailable")
      throw new Error(`${id} of an earlier round is unavailable`);
    if (type === "group") this.groups.push(value);
    else if (type === "colist") this.lists.push(value);
    else this.maps.push(value);
  }

  /* The transaction just made in VALUE means WHAT. */
  means(value, what) {
    const session = this.node.currentSessionID;
    const idx = value.core.verified.getTransactionsCount(session) - 1;
    meanings.set(placeOf({ id: value.id, session, idx }), what);
  }

  content(n) {
    return { n, text: randomBytes(10 + below(200)).toString("hex") };
  }

  newGroup() {
    this.groups.push(this.node.createGroup());
  }

  newMap() {
    this.maps.push(pick(this.groups).createMap());
  }

  newList() {
    this.lists.push(pick(this.groups).createList());
  }

  set() {
    const map = pick(this.maps);
    const key = `${this.prefix} ${below(KEYS)}`;
    const value = this.content(++writes);
    map.set(key, value, "private");
    this.means(map, ["map", key, value.n, digestOf(value)]);
  }

  append() {
    const list = pick(this.lists);
    const item = this.content(++writes);
    list.append(item, undefined, "private");
    this.means(list, ["list", item.n, digestOf(item)]);
  }

  /* A piece of a stream of several megabytes, or its end. */
  push() {
    if (!this.stream) {
      this.stream = pick(this.groups).createBinaryStream();
      this.chunks = [];
      this.stream.startBinaryStream({ mimeType: "application/octet-stream" });
    } else if (this.chunks.length < STREAM_CHUNKS) {
      const chunk = randomBytes(CHUNK_BYTES - below(1000));
      this.stream.pushBinaryStreamChunk(chunk);
      const index = this.chunks.push(chunk) - 1;
      this.means(this.stream, ["chunk", index, digestOfBytes(chunk)]);
    } else {
      this.stream.endBinaryStream();
      const bytes = this.chunks.reduce((sum, { length }) => sum + length, 0);
      const digest = digestOfBytes(...this.chunks);
      this.means(this.stream, ["end", bytes, digest]);
      this.stream = undefined;
    }
  }

  /* Another account may write to a group of this one, and does. */
  async invite(guest) {
    const group = pick(this.groups);
    const member = await this.node.load(guest.account);
    if (member === "unavailable")
      throw new Error(`account ${guest.account} is unavailable`);
    if (group.get(member.id) !== undefined) return;
    group.addMember(member, "writer");
    this.means(group, ["group", member.id, "writer"]);
    const map = group.createMap();
    this.maps.push(map);
    await unstoredAtMost(0);
    /* The guest may know an older state of the group: then it stays out. */
    if (!guest.node.hasCoValue(group.id)) await guest.adopt(map.id, "comap");
  }
}

/* Counts what the application writes; goes up over all rounds. */
let writes = first;

async function step(hands) {
  const hand = pick(hands);
  const chance = random();
  if (chance < 0.55) hand.set();
  else if (chance < 0.8) hand.append();
  else if (chance < 0.92) hand.push();
  else if (chance < 0.95) hand.newMap();
  else if (chance < 0.97) hand.newList();
  else if (chance < 0.98) hand.newGroup();
  else if (chance < 0.99 && hands.length > 1)
    await hand.invite(pick(hands.filter((other) => other !== hand)));
  else if (hands.length < HANDS_MAX) hands.push(await Hand.create());
}

const hands = [await Hand.create()];
for (const account of accounts) hands.push(await Hand.login(account));
for (;;) {
  await step(hands);
  await unstoredAtMost(UNSTORED_MAX);
}
