/* Stands for cojson's src/storage/sqliteAsync/index.ts. */
import { openAsync } from "backend";

export { SQLiteClientAsync } from "cojson-sqlite-async-client";

export function getSqliteStorageAsync(driver: { db: { filename: string } }) {
  return openAsync(driver.db.filename);
}
