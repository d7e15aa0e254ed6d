/*
 * Builds the package: the addon with CMake below build/node/, the TypeScript
 * with tsc; both end up in dist/.
 *
 *   node build.mjs [CMake's -D options]
 */
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL(".", import.meta.url));
const build = join(here, "../../build/node");
const dist = join(here, "dist");
const require = createRequire(import.meta.url);
const { include_dir: headers } = require("node-api-headers");

const run = (program, ...args) =>
  execFileSync(program, args, { cwd: here, stdio: "inherit" });

rmSync(dist, { recursive: true, force: true });
mkdirSync(dist, { recursive: true });
run(
  "cmake",
  "-S",
  here,
  "-B",
  build,
  `-DBFT_NODE_API=${headers}`,
  ...process.argv.slice(2),
);
const targets = ["bftree_node", "sync_control"];
run("cmake", "--build", build, "-j", "2", "--target", ...targets);
copyFileSync(join(build, "bftree.node"), join(dist, "bftree.node"));
run(process.execPath, require.resolve("typescript/bin/tsc"), "-p", here);
