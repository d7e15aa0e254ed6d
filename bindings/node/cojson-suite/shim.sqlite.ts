/* Stands for cojson's src/storage/sqlite/index.ts. */
import { installed } from "./installed-backend.ts";

export function getSqliteStorage(driver: { db: { filename: string } }) {
  return installed().openSync(driver.db.filename);
}
