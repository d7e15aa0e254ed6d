/*
 * The seam between cojson's tests and a storage backend: module resolution.
 * No file of cojson is changed; three of its imports lead to shims.
 */
import { existsSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import type { Plugin } from "vitest/config";

export const harness = dirname(fileURLToPath(import.meta.url));

/* A setting of run.mjs. */
export function setting(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: start this with run.mjs`);
  return value;
}

function existing(name: string): string {
  const path = resolve(harness, name);
  if (!existsSync(path)) throw new Error(`no storage backend at ${path}`);
  return path;
}

/* Modules of the backend: the one under test, SUITE_BACKEND, and the one that it
 * may be made of, STORAGE_BACKEND; from here or as whole paths. */
export const backendModules = () => ({
  backend: existing(setting("SUITE_BACKEND")),
  "whole-backend": existing(setting("STORAGE_BACKEND")),
});

/*
 * MODULES: bare import -> file.  FILES: file, once resolved -> file.  A shim
 * itself still reaches what it stands for.
 */
export function seam(
  modules: Record<string, string>,
  files: Record<string, string>,
): Plugin {
  const shims = new Set(Object.values(files));
  return {
    name: "storage-seam",
    enforce: "pre",
    async resolveId(source, importer, options) {
      const module = modules[source];
      if (module) return module;
      if (!source.startsWith(".") || !importer || shims.has(importer))
        return null;
      const found = await this.resolve(source, importer, {
        ...options,
        skipSelf: true,
      });
      return found ? (files[found.id] ?? found) : null;
    },
  };
}

/* Where vitest leaves what it caches. */
export const cacheDir = () => join(setting("SUITE_BUILD"), "cache");

/* Two workers: more would only make tests with timers of their own late. */
export const testSettings = {
  environment: "node",
  maxWorkers: 2,
  testTimeout: 30_000,
  hookTimeout: 30_000,
} as const;
