/*
 * The question: what does storage cost a Jazz application on Node.js, on bftree
 * and on SQLite?
 *
 *   node compare.mjs [--quick] [--rounds N] [--scenario A,B,C,D]
 *                    [--setting replay,crypto] [--engine NAME,...]
 *
 * Setting "replay" hands recorded messages to the storage and loads them: no
 * cryptography.  Setting "crypto" is a real LocalNode over the storage.  Each
 * turn of a storage is a process of its own; the storages take turns scenario by
 * scenario, and another one begins in each round.  README.md says what could not
 * be made equal.
 */
import { execFile } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { cpus, totalmem } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";
import { serialize } from "node:v8";
import { buildDir, engines } from "./engines.mjs";
import { printCell, printFigures, resultLines } from "./report.mjs";
import { record, scenarios } from "./scenarios.mjs";

const execute = promisify(execFile);
const here = fileURLToPath(new URL(".", import.meta.url));
const require = createRequire(join(here, "../package.json"));

const { values: options } = parseArgs({
  options: {
    quick: { type: "boolean", default: false },
    rounds: { type: "string" },
    scenario: { type: "string", default: "A,B,C,D" },
    setting: { type: "string", default: "replay,crypto" },
    engine: { type: "string", default: Object.keys(engines).join() },
  },
});
const size = options.quick ? "quick" : "full";
const rounds = Number(options.rounds ?? (options.quick ? 3 : 7));
/* What takes longer is stopped and its rate taken: libsql syncs every commit. */
const limitMs = options.quick ? 1500 : 20_000;
/* For the passes after the first, in each turn of a cell.  With cryptography one
 * takes a second. */
const warmMs = options.quick
  ? { replay: 150, crypto: 150 }
  : { replay: 1000, crypto: 2500 };

const chosen = {
  scenarios: options.scenario.split(","),
  settings: options.setting.split(","),
  engines: options.engine.split(","),
};
for (const [list, all] of [
  [chosen.scenarios, Object.keys(scenarios)],
  [chosen.settings, ["replay", "crypto"]],
  [chosen.engines, Object.keys(engines)],
])
  for (const name of list)
    if (!all.includes(name)) {
      console.error(`there is no ${name}: ${all.join(", ")}`);
      process.exit(2);
    }

/* --- What is measured ---------------------------------------------------------------- */

/* libsql spends its time on waiting for the disk: one scenario shows that. */
const takesPart = {
  replay: (engine, scenario) =>
    engine !== "none" && (engine !== "libsql" || scenario === "B"),
  crypto: (engine) =>
    engine !== "libsql" && !(options.quick && engine.startsWith("memory")),
};

const measures = {
  replay: (scenario) => {
    if (scenario === "B") return ["replayStore"];
    const cells = ["replayStore", "replayLoad"];
    return scenario === "A" ? [...cells, "replayKnown"] : cells;
  },
  crypto: (scenario) =>
    scenario === "B" ? ["cryptoStore"] : ["cryptoStore", "cryptoLoad"],
};

/* The quick mode has what is asked most. */
const wanted = (setting, scenario) =>
  !options.quick || setting === "replay" || scenario === "B";

function cellsOf(setting, scenario, engine) {
  const cells = measures[setting](scenario);
  if (engine === "none" || engine === "libsql") return cells.slice(0, 1);
  return cells;
}

/* --- Before -------------------------------------------------------------------------- */

/* The suites' client in JavaScript memory, as JavaScript. */
function translateMemoryClient() {
  const ts = require("typescript");
  const to = join(buildDir, "memory");
  mkdirSync(to, { recursive: true });
  for (const name of ["memory-tables", "memory-client"]) {
    const source = readFileSync(join(here, "../cojson-suite", `${name}.ts`));
    const { outputText } = ts.transpileModule(String(source), {
      compilerOptions: {
        target: ts.ScriptTarget.ES2022,
        module: ts.ModuleKind.ESNext,
        rewriteRelativeImportExtensions: true,
      },
    });
    writeFileSync(join(to, `${name}.js`), outputText);
  }
  writeFileSync(join(buildDir, "package.json"), '{ "type": "module" }\n');
  const modules = join(buildDir, "node_modules");
  rmSync(modules, { recursive: true, force: true });
  symlinkSync(join(here, "../node_modules"), modules);
}

async function recordOnce(scenario) {
  const file = join(buildDir, `recording-${scenario}-${size}.bin`);
  const recorded = await record(scenario, scenarios[scenario][size]);
  writeFileSync(file, serialize(recorded));
  return file;
}

function machine() {
  const [{ model }] = cpus();
  const version = (modules, name) =>
    JSON.parse(readFileSync(join(here, modules, name, "package.json"))).version;
  return [
    `${cpus().length} x ${model}, ${Math.round(totalmem() / 2 ** 30)} GiB`,
    `node ${process.version}`,
    `cojson ${version("../node_modules", "cojson")}`,
    `better-sqlite3 ${version("node_modules", "better-sqlite3")}`,
    `libsql ${version("node_modules", "libsql")}`,
  ].join(", ");
}

/* --- Turns --------------------------------------------------------------------------- */

/* Resolves to what worker.mjs printed. */
async function turn(args) {
  const { stdout } = await execute(
    process.execPath,
    ["--expose-gc", join(here, "worker.mjs"), JSON.stringify(args)],
    { maxBuffer: 2 ** 26 },
  );
  return JSON.parse(stdout.trimEnd().split("\n").at(-1));
}

/* All engines read the same. */
function compareChecks(results) {
  const checks = new Map();
  for (const { cell, check, engine } of results) {
    if (check === undefined) continue;
    if (!checks.has(cell)) checks.set(cell, { check, engine });
    const first = checks.get(cell);
    if (first.check !== check)
      throw new Error(
        `${cell}: ${engine} reads ${check}, ${first.engine} ${first.check}`,
      );
  }
}

/* Everything of one scenario; resolves to one result for each cell. */
async function compare(setting, scenario, file) {
  const names = chosen.engines.filter((e) => takesPart[setting](e, scenario));
  const results = new Map();
  for (let round = 0; round < rounds; round++)
    for (let i = 0; i < names.length; i++) {
      const engine = names[(i + round) % names.length];
      const measured = await turn({
        engine,
        scenario,
        size: scenarios[scenario][size],
        file,
        cells: cellsOf(setting, scenario, engine),
        limitMs,
        warmMs: warmMs[setting],
      });
      for (const [cell, { check, passes }] of Object.entries(measured)) {
        const key = `${cell} ${engine}`;
        if (!results.has(key))
          results.set(key, { setting, scenario, cell, engine, rounds: [] });
        const result = results.get(key);
        /* In setting "crypto" what is written differs from turn to turn. */
        if (setting === "replay") result.check = check;
        result.rounds.push(passes);
      }
    }
  compareChecks(results.values());
  return [...results.values()];
}

/* --- The run --------------------------------------------------------------------------- */

if (!existsSync(join(here, "../dist/index.js"))) {
  console.error("compare: build the package first");
  process.exit(2);
}
rmSync(buildDir, { recursive: true, force: true });
mkdirSync(buildDir, { recursive: true });
translateMemoryClient();

console.log("What does storage cost a Jazz application, on bftree and on SQLite?");
console.log(machine());
console.log(
  `each storage in processes of its own, in turns; medians of ${rounds} ` +
    `rounds; ${size} size`,
);

const all = [];
for (const setting of chosen.settings)
  for (const scenario of chosen.scenarios) {
    if (!wanted(setting, scenario)) continue;
    const file = setting === "replay" ? await recordOnce(scenario) : undefined;
    const results = await compare(setting, scenario, file);
    for (const cell of measures[setting](scenario))
      printCell(
        cell,
        scenario,
        scenarios[scenario][size],
        results.filter((result) => result.cell === cell),
      );
    all.push(...results);
  }
printFigures(all);

const out = join(buildDir, "../results");
mkdirSync(out, { recursive: true });
writeFileSync(join(out, "jazz.jsonl"), resultLines(all, { size, rounds }));
console.log("\nwritten to build/results/jazz.jsonl");
