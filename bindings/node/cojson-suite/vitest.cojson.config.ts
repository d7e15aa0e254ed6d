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

const root = setting("SUITE_COJSON");

export default defineConfig({
  root,
  cacheDir: cacheDir(),
  /* A system without /etc/hosts has no localhost, which is the default. */
  server: { host: "127.0.0.1" },
  plugins: [
    seam(
      {
        ...backendModules(),
        libsql: join(harness, "shim.libsql.ts"),
        /* A backend extends the classes that the tests import. */
        cojson: join(root, "src/index.ts"),
        "cojson-sqlite-async-client": join(
          root,
          "src/storage/sqliteAsync/client.ts",
        ),
      },
      {
        [join(root, "src/storage/sqlite/index.ts")]: join(
          harness,
          "shim.sqlite.ts",
        ),
        [join(root, "src/storage/sqliteAsync/index.ts")]: join(
          harness,
          "shim.sqliteAsync.ts",
        ),
      },
    ),
  ],
  test: {
    ...testSettings,
    name: "cojson",
    include: ["src/**/*.test.ts"],
    /*
     * cojson from its door first: a module entered half-way round the circle
     * of its storage folder would keep an incomplete "export *".  Then the
     * backend, which extends its classes.
     */
    setupFiles: [
      join(harness, "polyfill.ts"),
      join(root, "src/index.ts"),
      join(harness, "install-backend.ts"),
      "./src/tests/setup.ts",
    ],
  },
});
