/*
 * Runs the tests of cojson and of cojson-storage-indexeddb, as published and
 * unmodified, on a storage backend, and asserts how many pass.
 *
 *   node run.mjs              all suites
 *   node run.mjs SUITE...     types, cojson, indexeddb, broken
 *
 * STORAGE_BACKEND names the backend's module: backend.memory.ts unless set.
 * Everything is written below build/cojson-suite/.
 */
import { spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
} from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const build = join(here, "../../../build/cojson-suite");
const backend = process.env.STORAGE_BACKEND || "backend.memory.ts";
const counters = join(build, "counters.jsonl");

/* The files in which lost signatures show. */
const storageFiles = [
  "StorageApiSync",
  "StorageApiAsync",
  "SQLiteClientAsync",
  "sync.storage",
  "sync.storageAsync",
  "sync.storageReconciliation",
].map((name) => `src/tests/${name}.test.ts`);

const suites = {
  /* The memory backend against cojson's interfaces; package bftree's own build
   * checks its client. */
  types: {},
  cojson: {
    config: "vitest.cojson.config.ts",
    files: [],
    backend,
    expect: "1385 passed, 0 failed, 13 skipped",
    holds: (r) => r.passed === 1385 && r.failed === 0 && r.skipped === 13,
  },
  indexeddb: {
    config: "vitest.indexeddb.config.ts",
    files: [],
    backend,
    expect: "25 passed, 0 failed, 0 skipped",
    holds: (r) => r.passed === 25 && r.failed === 0 && r.skipped === 0,
  },
  /*
   * A backend without signatures: a suite that lets it pass tests nothing.
   * One where nearly all fails shows that the harness is broken instead.
   */
  broken: {
    config: "vitest.cojson.config.ts",
    files: storageFiles,
    backend: "backend.broken.ts",
    mayFail: true,
    expect: "116 tests, 9 to 30 of them failed",
    holds: (r) =>
      r.passed + r.failed === 116 && r.failed >= 9 && r.failed <= 30,
  },
};

/* Copy the published packages, as npm checked them against the lock. */
function unpack(name) {
  const to = join(build, name);
  rmSync(to, { recursive: true, force: true });
  mkdirSync(to, { recursive: true });
  for (const part of ["package.json", "tsconfig.json", "src"])
    cpSync(join(here, "node_modules", name, part), join(to, part), {
      recursive: true,
    });
  return to;
}

function types() {
  const tsc = join(here, "node_modules/typescript/bin/tsc");
  const { status } = spawnSync(process.execPath, [tsc, "-p", here], {
    stdio: "inherit",
  });
  console.log(`${status === 0 ? "ok    " : "FAILED"} types`);
  return status === 0;
}

/* Run FILES, or all there are; undefined: vitest left no report. */
function vitest(name, suite, packages, files) {
  const report = join(build, `report-${name}.json`);
  rmSync(report, { force: true });
  const tmp = join(build, "tmp");
  rmSync(tmp, { recursive: true, force: true });
  mkdirSync(tmp, { recursive: true });
  const { status } = spawnSync(
    process.execPath,
    [
      join(here, "node_modules/vitest/vitest.mjs"),
      "run",
      "--config",
      join(here, suite.config),
      "--silent=true",
      ...(suite.mayFail ? [] : ["--reporter=default"]),
      "--reporter=json",
      `--outputFile.json=${report}`,
      ...files,
    ],
    {
      cwd: build,
      stdio: "inherit",
      env: {
        ...process.env,
        STORAGE_BACKEND: backend,
        SUITE_BACKEND: suite.backend,
        SUITE_BUILD: build,
        SUITE_COJSON: packages.cojson,
        SUITE_COUNTERS: counters,
        SUITE_INDEXEDDB: packages.indexeddb,
        TMPDIR: tmp,
        CI: "1",
      },
    },
  );
  try {
    const json = JSON.parse(readFileSync(report, "utf8"));
    return {
      passed: json.numPassedTests,
      failed: json.numFailedTests,
      skipped: json.numPendingTests + json.numTodoTests,
      /* Errors outside any test fail the run but are in no count. */
      clean: status === 0,
      failedFiles: json.testResults
        .filter(({ status }) => status === "failed")
        .map(({ name }) => relative(packages.cojson, name)),
    };
  } catch {
    return undefined;
  }
}

/*
 * cojson has tests that give two nodes 10 ms of real time to talk.  Files with
 * few failures are run again, by themselves; what fails then, fails.
 */
function secondChance(name, suite, packages, first) {
  const { failedFiles } = first;
  if (first.clean || suite.mayFail || failedFiles.length > 3) return first;
  if (failedFiles.length === 0) return first;
  console.log(`once more, by themselves: ${failedFiles.join(" ")}`);
  const again = vitest(`${name}-again`, suite, packages, failedFiles);
  if (!again?.clean) return first;
  return {
    ...first,
    passed: first.passed + first.failed,
    failed: 0,
    clean: true,
  };
}

function run(name, suite, packages) {
  if (name === "types") return types();
  const started = Date.now();
  rmSync(counters, { force: true });
  let result = vitest(name, suite, packages, suite.files);
  if (!result) {
    console.log(`FAILED ${name}: vitest left no report`);
    return false;
  }
  result = secondChance(name, suite, packages, result);
  const seconds = ((Date.now() - started) / 1000).toFixed(0);
  const ok = suite.holds(result) && (suite.mayFail || result.clean);
  console.log(
    `${ok ? "ok    " : "FAILED"} ${name} on ${suite.backend}: ` +
      `${result.passed} passed, ${result.failed} failed, ` +
      `${result.skipped} skipped in ${seconds} s (wanted: ${suite.expect})`,
  );
  return (name !== "cojson" || sawWork()) && ok;
}

/* What a backend in a real engine tells about its databases: without it a test
 * could pass on something else. */
const rows = [
  "covalues",
  "sessions",
  "transactions",
  "signatures",
  "unsynced",
  "deletions_done",
];
const engine = ["batches", "batch_records", "gets", "log_frames", "log_syncs"];

function sawWork() {
  if (!existsSync(counters)) {
    if (backend !== "backend.bftree.ts") return true;
    console.log("FAILED: no database has told what it did");
    return false;
  }
  const sums = {};
  const lines = readFileSync(counters, "utf8").trim().split("\n");
  for (const line of lines)
    for (const [name, count] of Object.entries(JSON.parse(line)))
      sums[name] = (sums[name] ?? 0) + count;
  const seen = [...rows, ...engine].map((name) => `${sums[name]} ${name}`);
  const idle = [...rows, ...engine].filter((name) => !sums[name]);
  console.log(`in ${lines.length} closed databases: ${seen.join(", ")}`);
  if (idle.length > 0) console.log(`FAILED: no work seen: ${idle.join(", ")}`);
  return idle.length === 0;
}

const chosen = process.argv.slice(2);
for (const name of chosen)
  if (!suites[name]) {
    console.error(`no suite '${name}': ${Object.keys(suites).join(", ")}`);
    process.exit(2);
  }

const packages = {
  cojson: unpack("cojson"),
  indexeddb: unpack("cojson-storage-indexeddb"),
};
const modules = join(build, "node_modules");
rmSync(modules, { recursive: true, force: true });
symlinkSync(join(here, "node_modules"), modules);

/* With the driver within reach the tests could pass without the backend. */
try {
  createRequire(join(packages.cojson, "src/")).resolve("libsql");
  console.error("FAILED: libsql can be resolved from the tests");
  process.exit(1);
} catch (error) {
  if (error.code !== "MODULE_NOT_FOUND") throw error;
}

let failed = 0;
for (const name of chosen.length > 0 ? chosen : Object.keys(suites))
  if (!run(name, suites[name], packages)) failed++;
process.exit(failed > 0 ? 1 : 0);
