/* Tables for people, lines of JSON for programs. */
import { engines } from "./engines.mjs";
import { scenarios } from "./scenarios.mjs";

const median = (numbers) => {
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2
    ? sorted[middle]
    : (sorted[middle - 1] + sorted[middle]) / 2;
};

/*
 * Of each round the first pass and the median of the others; of these the
 * medians over the rounds.  Undefined where there was no other pass.
 */
function ratesOf({ rounds }) {
  const first = rounds.map(([{ rate }]) => rate);
  const warm = rounds.map((passes) =>
    passes.length > 1
      ? median(passes.slice(1).map(({ rate }) => rate))
      : undefined,
  );
  const hasWarm = !warm.includes(undefined);
  return {
    first: median(first),
    warm: hasWarm ? median(warm) : undefined,
    /* Units per second of processor time, all threads and passes. */
    cpu: 1 / ofPasses({ rounds }, "cpu"),
    rounds: { first, warm: hasWarm ? warm : undefined },
  };
}

const ofPasses = ({ rounds }, what) =>
  median(rounds.flat().map((pass) => pass[what] ?? 0));

const cellNames = {
  replayStore: "store",
  replayLoad: "load",
  replayKnown: "loadKnownState",
  cryptoStore: "store",
  cryptoLoad: "load",
};

const unitOf = (cell, scenario) => {
  if (cell === "replayKnown") return "ids";
  const { unit, loadUnit } = scenarios[scenario];
  return cell.endsWith("Load") ? loadUnit : unit;
};

const number = (value) =>
  value === undefined
    ? ""
    : value >= 100
      ? Math.round(value).toLocaleString("en").replaceAll(",", " ")
      : value.toPrecision(3);

const times = (value) => (value === undefined ? "" : `${value.toFixed(2)}x`);
const percent = (value) =>
  value === undefined ? "" : `${Math.round(100 * value)}%`;

function printRow([says, api, durability, ...numbers]) {
  console.log(
    `  ${says.padEnd(34)}${api.padEnd(6)}${durability.padEnd(12)}` +
      numbers.map((cell) => String(cell).padStart(11)).join(""),
  );
}

/* Of one engine: rate, times cached, times shipped, share of the floor. */
function columns(rates, pass, engine) {
  const rate = (name) => rates.get(name)?.[pass];
  const own = rate(engine);
  const to = (other) =>
    own && rate(other) && engine !== other ? own / rate(other) : undefined;
  const floor = rates.has("none") ? "none" : engines[engine].floor;
  return [
    number(own),
    times(to("sqlite-cached")),
    times(to("sqlite-shipped")),
    percent(to(floor)),
  ];
}

/* RESULTS are those of one cell, one for each engine. */
export function printCell(cell, scenario, size, results) {
  const rates = new Map(
    results.map((result) => [result.engine, ratesOf(result)]),
  );
  const { says } = scenarios[scenario];
  const crypto = cell.startsWith("crypto") ? ", with cryptography" : "";
  const unit = `${unitOf(cell, scenario)}/s`;
  const floor = rates.has("none") ? "of none" : "of memory";
  const warm = [...rates.values()].some((rate) => rate.warm !== undefined);
  const heads = [unit, "cached", "shipped", floor];
  console.log(`\n${cellNames[cell]} ${scenario}: ${size} ${says}${crypto}`);
  if (warm) printRow(["", "", "", "first pass", "", "", "", "warm", "", "", ""]);
  printRow(["storage", "API", "durability", ...heads, ...(warm ? heads : [])]);
  for (const { engine } of results) {
    const { says: name, api, durability } = engines[engine];
    printRow([
      name,
      api,
      durability,
      ...columns(rates, "first", engine),
      ...(warm ? columns(rates, "warm", engine) : []),
    ]);
  }
}

/* --- The figures asked for ------------------------------------------------------------- */

/* [cell, scenario, engine, opponent, at least so many times its rate] */
const buffered = ["bftree-sync-buffered", "bftree-async-buffered"];
const against = (cell, scenario, opponent, least) =>
  buffered.map((engine) => [cell, scenario, engine, opponent, least]);
const figures = [
  ...["A", "C"].flatMap((scenario) => [
    ...against("replayStore", scenario, "sqlite-cached", 3),
    ...against("replayStore", scenario, "sqlite-shipped", 6),
  ]),
  ...against("replayStore", "D", "sqlite-cached", 2),
  ...against("replayLoad", "A", "sqlite-cached", 1.25),
  ...against("replayLoad", "A", "memory", 0.8),
  ...against("replayLoad", "D", "sqlite-cached", 1.5),
  ...against("replayLoad", "C", "sqlite-cached", undefined),
  ...against("replayKnown", "A", "sqlite-cached", 1.7),
  ...against("replayKnown", "A", "memory", 0.65),
  ["replayStore", "B", "bftree-async-sync", "libsql", 5],
  /* At most 15% longer. */
  ["cryptoStore", "B", "bftree-async-buffered", "none", 1 / 1.15],
];

const verdict = (ratio, least) => {
  if (ratio === undefined || Number.isNaN(ratio)) return "";
  const says = least === undefined ? "" : ratio >= least ? " met" : " MISSED";
  return `${ratio.toFixed(2)}x${says}`;
};

export function printFigures(all) {
  const rates = (cell, scenario, engine) => {
    const result = all.find(
      (one) =>
        one.cell === cell && one.scenario === scenario && one.engine === engine,
    );
    return result && ratesOf(result);
  };
  console.log(
    `\n${"figures asked for".padEnd(88)}asked     first pass           warm` +
      "  (per cpu s)",
  );
  for (const [cell, scenario, engine, opponent, least] of figures) {
    const { says, api, durability, floor } = engines[engine];
    const other = opponent === "memory" ? floor : opponent;
    const ours = rates(cell, scenario, engine);
    const theirs = rates(cell, scenario, other);
    if (!ours || !theirs) continue;
    console.log(
      `  ${cellNames[cell].padEnd(15)}${scenario}  ` +
        `${`${says} ${api} ${durability}`.padEnd(23)}` +
        `to ${`${engines[other].says}, ${engines[other].durability}`.padEnd(43)}` +
        `${least === undefined ? "" : `${least.toFixed(2)}x`}`.padStart(6) +
        verdict(ours.first / theirs.first, least).padStart(15) +
        verdict(ours.warm / theirs.warm, least).padStart(15) +
        `(${times(ours.cpu / theirs.cpu)})`.padStart(13),
    );
  }
}

/* --- For programs -------------------------------------------------------------------- */

export function resultLines(all, config) {
  const lines = [];
  for (const result of all) {
    const { setting, scenario, cell, engine } = result;
    const { says, api, durability } = engines[engine];
    const rates = ratesOf(result);
    for (const pass of ["first", "warm"]) {
      if (rates[pass] === undefined) continue;
      lines.push({
        bench: "jazz",
        setting: `${setting}-${pass}`,
        workload: `${cellNames[cell]}-${scenario}`,
        engine,
        threads: 1,
        metric: `${unitOf(cell, scenario)}_per_s`,
        value: rates[pass],
        rounds: rates.rounds[pass],
        cpu_us: 1e6 * ofPasses(result, "cpu"),
        settle_s: ofPasses(result, "settle"),
        config:
          `${says}, API ${api}, durability ${durability}, ` +
          `${config.size} size, ${config.rounds} rounds`,
      });
    }
  }
  return lines.map((line) => `${JSON.stringify(line)}\n`).join("");
}
