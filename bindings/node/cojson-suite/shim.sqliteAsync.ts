/* Stands for cojson's src/storage/sqliteAsync/index.ts. */
import { installed } from "./installed-backend.ts";

export { SQLiteClientAsync } from "cojson-sqlite-async-client";

export function getSqliteStorageAsync(driver: { db: { filename: string } }) {
  return installed().openAsync(driver.db.filename);
}
