/*
 * Real LocalNodes on bftree, killed with SIGKILL at random moments: is all that
 * was acknowledged still there?
 *
 *   node demo.mjs [--durability none|buffered|sync] [--rounds N]
 *
 * writer.mjs writes and tells what the storage called stored; this program
 * kills it, at a moment that follows from BFT_SEED, and has checker.mjs look in
 * a fresh process.  The next round goes on with the database and the accounts
 * that it finds.  A kill before 100 acknowledgements is made and checked but
 * does not count.  --durability overrides that of all rounds; with "none"
 * writes are lost and the exit status says so, which shows that the checker
 * sees a loss.
 */
import { spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { appendFileSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { randomFrom } from "./shared.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const dir = join(here, "../../../build/demo");

/* One for each round. */
const flavours = [
  { mode: "async", durability: "buffered" },
  { mode: "async", durability: "sync" },
  { mode: "sync", durability: "buffered" },
  { mode: "async", durability: "sync" },
  { mode: "async", durability: "buffered" },
];
const ACKNOWLEDGED_MIN = 100;
/* Kills, counted from the first acknowledgement. */
const KILL_MS = [200, 5000];
const ATTEMPTS_MAX = 25;
/* What a later round takes up of an earlier one. */
const OWNED_MAX = 12;

const { values: options } = parseArgs({
  options: {
    durability: { type: "string" },
    rounds: { type: "string", default: String(flavours.length) },
  },
});
const seed = Number(process.env.BFT_SEED ?? randomInt(2 ** 31));
const random = randomFrom(seed);
const path = join(dir, "database");
const acks = join(dir, "acknowledged.jsonl");

/* --- One life of the writer --------------------------------------------------- */

/* Of each account that is ready: what it made. */
const accounts = new Map();
const made = [];

function note(line) {
  if (line.secret)
    accounts.set(line.account, { account: line.account, secret: line.secret });
  else if (line.type) made.push(line);
}

function toTakeUp() {
  if (accounts.size === 0) return [];
  const { account, secret } =
    [...accounts.values()][Math.floor(random() * accounts.size)];
  const owned = made.filter(
    (line) =>
      line.account === account &&
      ["group", "comap", "colist"].includes(line.type),
  );
  /* The first group and map of an account are its profile. */
  return [{ account, secret, owned: owned.slice(2, 2 + OWNED_MAX) }];
}

/* Run a writer, kill it; resolves to what it was seen to have stored. */
function live(attempt, flavour, killMs) {
  const argument = {
    path,
    flavour,
    seed: seed + attempt,
    first: attempt * 1_000_000,
    accounts: toTakeUp(),
  };
  const child = spawn(
    process.execPath,
    [join(here, "writer.mjs"), JSON.stringify(argument)],
    { stdio: ["ignore", "inherit", "inherit", "pipe"] },
  );
  let acknowledged = 0;
  let killed = false;
  const text = [];
  createInterface({ input: child.stdio[3] }).on("line", (line) => {
    /* Of the last line the kill may have left a part. */
    let parsed;
    try {
      parsed = JSON.parse(line);
    } catch {
      return;
    }
    note(parsed);
    text.push(line);
    if (acknowledged++ === 0)
      setTimeout(() => {
        killed = true;
        child.kill("SIGKILL");
      }, killMs);
  });
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => {
      appendFileSync(acks, text.map((line) => `${line}\n`).join(""));
      if (killed && signal === "SIGKILL") resolve(acknowledged);
      else reject(new Error(`the writer ended by itself: ${signal ?? code}`));
    });
  });
}

/* --- The proof ------------------------------------------------------------------ */

function check(flavour) {
  const child = spawn(
    process.execPath,
    [join(here, "checker.mjs"), JSON.stringify({ path, flavour, acks })],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  let last = "";
  createInterface({ input: child.stdout }).on("line", (line) => (last = line));
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => {
      if (code !== 0)
        reject(new Error(`the checker failed: ${signal ?? code}`));
      else resolve(JSON.parse(last));
    });
  });
}

/* --- The rounds ------------------------------------------------------------------ */

const columns = [
  ["round", 5],
  ["storage", 15],
  ["killed after", 12],
  ["acknowledged", 12],
  ["in all", 8],
  ["reopened in", 11],
  ["CoValues", 8],
  ["transactions", 12],
  ["streams", 15],
  ["lost", 5],
];
const row = (cells) =>
  console.log(
    cells
      .map((cell, i) =>
        i === 1
          ? String(cell).padEnd(columns[i][1])
          : String(cell).padStart(columns[i][1]),
      )
      .join("  "),
  );

rmSync(dir, { recursive: true, force: true });
mkdirSync(dir, { recursive: true });
writeFileSync(acks, "");

console.log(`BFT_SEED=${seed} node ${process.version}, crypto cojson-core-napi`);
row(columns.map(([name]) => name));

let acknowledged = 0;
let lost = 0;
const rounds = Number(options.rounds);
for (let round = 1, attempt = 1; round <= rounds; attempt++) {
  if (attempt > ATTEMPTS_MAX)
    throw new Error(`${ATTEMPTS_MAX} kills, and too few after enough writes`);
  const flavour = { ...flavours[(round - 1) % flavours.length] };
  if (options.durability) flavour.durability = options.durability;
  const [least, most] = KILL_MS;
  const killMs = Math.round(least + random() * (most - least));
  const got = await live(attempt, flavour, killMs);
  acknowledged += got;
  const found = await check(flavour);
  const counts = got >= ACKNOWLEDGED_MIN;
  row([
    counts ? round : "-",
    `${flavour.mode} ${flavour.durability}`,
    `${killMs} ms`,
    got,
    acknowledged,
    `${found.recoveryMs.toFixed(0)} ms`,
    found.coValues,
    found.writes,
    `${found.streams} = ${(found.streamBytes / 1e6).toFixed(1)} MB`,
    found.losses,
  ]);
  for (const what of found.lost) console.log(`  LOST ${what}`);
  lost += found.losses;
  if (counts) round++;
}

if (lost > 0) {
  console.log(`FAILED: lost in ${lost} places`);
  process.exit(1);
}
console.log(
  `${acknowledged} acknowledged writes, ${rounds} kills: nothing is lost`,
);
