import { join } from "node:path";
import { defineConfig } from "vitest/config";
import {
  backendModules,
  cacheDir,
  harness,
  seam,
  setting,
  testSettings,
} from "./seam.ts";

const root = setting("SUITE_INDEXEDDB");

export default defineConfig({
  root,
  cacheDir: cacheDir(),
  /* A system without /etc/hosts has no localhost, which is the default. */
  server: { host: "127.0.0.1" },
  plugins: [
    seam(
      {
        ...backendModules(),
        /* One cojson for the tests and for a backend that lies elsewhere. */
        cojson: join(harness, "node_modules/cojson/dist/index.js"),
      },
      { [join(root, "src/index.ts")]: join(harness, "shim.indexeddb.ts") },
    ),
  ],
  test: {
    ...testSettings,
    name: "cojson-storage-indexeddb",
    include: ["src/tests/storage.indexeddb.test.ts"],
    /* The tests delete their database through the global indexedDB. */
    setupFiles: [
      join(harness, "polyfill.ts"),
      join(harness, "install-backend.ts"),
      "fake-indexeddb/auto",
    ],
  },
});
