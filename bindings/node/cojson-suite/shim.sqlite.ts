/* Stands for cojson's src/storage/sqlite/index.ts. */
import { openSync } from "backend";

export function getSqliteStorage(driver: { db: { filename: string } }) {
  return openSync(driver.db.filename);
}
