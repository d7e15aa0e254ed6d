/*
 * The backend, put here once cojson is loaded: cojson's storage folder leads to
 * the shims, and a backend that extends its classes could not be loaded from
 * there.
 */
import type { Backend } from "./backend.types.ts";

let backend: Backend | undefined;

export function install(chosen: Backend) {
  backend = chosen;
}

export function installed(): Backend {
  if (!backend) throw new Error("no backend is installed");
  return backend;
}
