/* Stands for the src/index.ts of cojson-storage-indexeddb. */
import { installed } from "./installed-backend.ts";

let databaseName = "jazz-storage";

export function internal_setDatabaseName(name: string) {
  databaseName = name;
}

export function getIndexedDBStorage(name = databaseName) {
  return installed().openAsync(name);
}
