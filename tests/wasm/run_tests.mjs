/*
 * Runs the tests of a program made with cmocka.h beside this file, each in an
 * instance of its own: a program of WebAssembly under node:wasi, any other as a
 * process.
 *
 *   node run.mjs PROGRAM [FOLDER]
 *
 * FOLDER: the one whose files a program of WebAssembly may read, by that name.
 * Tests that left_out.txt names are left out, and a name there that no test has
 * is a failure.  The exit status is 0 when no test failed.
 */
import { spawnSync } from "node:child_process";
import { closeSync, openSync, readFileSync, unlinkSync } from "node:fs";
import path from "node:path";

const [program, folder] = process.argv.slice(2);
const name = path.basename(program, ".wasm");
const SKIPPED = 77;

const compiled = program.endsWith(".wasm")
  ? { wasi: (await import("node:wasi")).WASI, module: await WebAssembly.compile(readFileSync(program)) }
  : undefined;

/* Run it with TEST as the test to run; undefined: it prints names.  Its exit
 * status, or 1 when it trapped. */
async function start(test, stdout) {
  const env = { ...process.env };
  delete env.BFT_TEST;
  if (test !== undefined) env.BFT_TEST = test;
  if (!compiled) {
    const { status, signal } = spawnSync(program, [], { env, stdio: ["ignore", stdout, "inherit"] });
    if (signal) console.error(`ended by ${signal}`);
    return status ?? 1;
  }
  const wasi = new compiled.wasi({
    version: "preview1", args: [name], env, stdout, returnOnExit: true,
    preopens: folder ? { [folder]: folder } : {},
  });
  try {
    return wasi.start(await WebAssembly.instantiate(compiled.module, wasi.getImportObject()));
  } catch (error) {
    console.error(error);
    return 1;
  }
}

async function names() {
  const file = `${name}.names`;
  const out = openSync(file, "w");
  const status = await start(undefined, out);
  closeSync(out);
  const lines = readFileSync(file, "utf8").split("\n");
  unlinkSync(file);
  if (status !== 0) throw new Error(`${name} does not tell its tests: status ${status}`);
  return lines.filter((line) => line.startsWith("test ")).map((line) => line.slice("test ".length));
}

/* [{ matches(test), reason }] of this program. */
function leftOut() {
  const lines = readFileSync(new URL("left_out.txt", import.meta.url), "utf8").split("\n");
  return lines.flatMap((line) => {
    const [, of, pattern, reason] = /^(\w+)\s+(\S+)\s+(\S.*)$/.exec(line) ?? [];
    if (of !== name) return [];
    const matches = pattern.endsWith("*")
      ? (test) => test.startsWith(pattern.slice(0, -1))
      : (test) => test === pattern;
    return [{ matches, pattern, reason }];
  });
}

const tests = await names();
const left = leftOut();
const count = { ran: 0, failed: 0, skipped: 0, "left out": 0 };
for (const { pattern, matches } of left)
  if (!tests.some(matches)) {
    console.log(`FAILED: ${name} has no test ${pattern}, which left_out.txt names`);
    count.failed++;
  }
for (const test of tests) {
  const reason = left.find(({ matches }) => matches(test))?.reason;
  if (reason) {
    console.log(`left out: ${test}: ${reason}`);
    count["left out"]++;
    continue;
  }
  console.log(`run: ${test}`);
  const status = await start(test, 1);
  if (status === SKIPPED) count.skipped++;
  else count.ran++;
  if (status !== 0 && status !== SKIPPED) {
    console.log(`FAILED: ${test}, status ${status}`);
    count.failed++;
  }
}
console.log(`${name}: ${Object.entries(count).map(([what, n]) => `${n} ${what}`).join(", ")}`);
process.exitCode = count.failed || tests.length === 0 ? 1 : 0;
