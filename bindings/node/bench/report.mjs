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

export const rateOf = (result) =>
  median(result.rounds.map(({ count, seconds }) => count / seconds));

const cpuRateOf = (result) =>
  median(result.rounds.map(({ count, cpu }) => count / cpu));

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

const times = (value) => (value === undefined ? "" : `${value.toFixed(2)} x`);
const percent = (value) =>
  value === undefined ? "" : `${Math.round(100 * value)}%`;

function printRow(cells) {
  const [says, api, durability, ...numbers] = cells;
  console.log(
    `  ${says.padEnd(34)}${api.padEnd(7)}${durability.padEnd(14)}` +
      numbers.map((cell) => String(cell).padStart(13)).join(""),
  );
}

/* RESULTS are those of one cell, one for each engine. */
export function printCell(cell, scenario, size, results) {
  const rates = new Map(
    results.map((result) => [result.engine, rateOf(result)]),
  );
  const ratio = (engine, other) =>
    rates.has(other) && engine !== other
      ? rates.get(engine) / rates.get(other)
      : undefined;
  const { says } = scenarios[scenario];
  const crypto = cell.startsWith("crypto") ? ", with cryptography" : "";
  console.log(`\n${cellNames[cell]} ${scenario}: ${size} ${says}${crypto}`);
  const none = rates.has("none");
  printRow([
    "storage",
    "API",
    "durability",
    `${unitOf(cell, scenario)}/s`,
    "per cpu s",
    "to cached",
    "to shipped",
    none ? "to none" : "of memory",
  ]);
  for (const result of results) {
    const { engine } = result;
    const { says: name, api, durability, floor } = engines[engine];
    printRow([
      name,
      api,
      durability,
      number(rates.get(engine)),
      number(cpuRateOf(result)),
      times(ratio(engine, "sqlite-cached")),
      times(ratio(engine, "sqlite-shipped")),
      percent(ratio(engine, none ? "none" : floor)),
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

export function printFigures(all) {
  console.log("\nfigures asked for");
  const rate = (cell, scenario, engine) => {
    const result = all.find(
      (one) =>
        one.cell === cell && one.scenario === scenario && one.engine === engine,
    );
    return result && rateOf(result);
  };
  for (const [cell, scenario, engine, opponent, least] of figures) {
    const { says, api, durability, floor } = engines[engine];
    const other = opponent === "memory" ? floor : opponent;
    const ours = rate(cell, scenario, engine);
    const theirs = rate(cell, scenario, other);
    if (ours === undefined || theirs === undefined) continue;
    const ratio = ours / theirs;
    const verdict =
      least === undefined ? "reported" : ratio >= least ? "met" : "MISSED";
    console.log(
      `  ${cellNames[cell].padEnd(15)}${scenario}  ` +
        `${`${says} ${api} ${durability}`.padEnd(24)}` +
        `to ${`${engines[other].says} ${engines[other].durability}`.padEnd(42)}` +
        `${ratio.toFixed(2).padStart(7)} x` +
        `${least === undefined ? "" : `  asked ${least.toFixed(2)}`}  ${verdict}`,
    );
  }
}

/* --- For programs -------------------------------------------------------------------- */

export function resultLines(all, config) {
  return all
    .map(({ setting, scenario, cell, engine, rounds }) => {
      const { says, api, durability } = engines[engine];
      return `${JSON.stringify({
        bench: "jazz",
        setting,
        workload: `${cellNames[cell]}-${scenario}`,
        engine,
        threads: 1,
        metric: `${unitOf(cell, scenario)}_per_s`,
        value: rateOf({ rounds }),
        rounds: rounds.map(({ count, seconds }) => count / seconds),
        per_cpu_s: cpuRateOf({ rounds }),
        settle_s: median(rounds.map(({ settle }) => settle ?? 0)),
        config:
          `${says}, API ${api}, durability ${durability}, ` +
          `${config.size} size, ${config.rounds} rounds`,
      })}\n`;
    })
    .join("");
}
