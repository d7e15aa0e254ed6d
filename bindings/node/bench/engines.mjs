/*
 * The storages that are compared.  Each opens below cojson's own StorageApiSync
 * or StorageApiAsync; what differs is the client, or the driver of the client.
 *
 * open(path) gives { storage, close }; close() lets go of the files and what is
 * stored stays, also in memory.
 */
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { StorageApiAsync, StorageApiSync, getSqliteStorage } from "cojson";

export const buildDir = fileURLToPath(
  new URL("../../../build/jazz/", import.meta.url),
);

/* --- SQLite -------------------------------------------------------------------- */

/* As cojson-storage-sqlite 0.15.10 has it: every call prepares its statement. */
class ShippedDriver {
  constructor(db) {
    this.db = db;
  }

  run(sql, params) {
    this.db.prepare(sql).run(params);
  }

  query(sql, params) {
    return this.db.prepare(sql).all(params);
  }

  get(sql, params) {
    return this.db.prepare(sql).get(params);
  }

  transaction(callback) {
    return this.db.transaction(callback)();
  }

  closeDb() {
    this.db.close();
  }
}

/* The obvious improvement, and so the opponent: statements are prepared once. */
class CachedDriver extends ShippedDriver {
  statements = new Map();

  prepared(sql) {
    let statement = this.statements.get(sql);
    if (!statement) {
      statement = this.db.prepare(sql);
      this.statements.set(sql, statement);
    }
    return statement;
  }

  run(sql, params) {
    this.prepared(sql).run(params);
  }

  query(sql, params) {
    return this.prepared(sql).all(params);
  }

  get(sql, params) {
    return this.prepared(sql).get(params);
  }

  transaction(callback) {
    this.prepared("BEGIN").run();
    try {
      callback();
    } catch (error) {
      this.prepared("ROLLBACK").run();
      throw error;
    }
    this.prepared("COMMIT").run();
  }
}

/* As cojson's own tests use libsql. */
class LibsqlDriver extends ShippedDriver {
  transaction(callback) {
    this.run("BEGIN TRANSACTION", []);
    try {
      callback();
      this.run("COMMIT", []);
    } catch (error) {
      this.run("ROLLBACK", []);
      throw error;
    }
  }
}

const SYNCHRONOUS = { NORMAL: 1, FULL: 2 };

/*
 * The level is what each has by itself in WAL mode; here it is checked, once
 * the file has been read: before that SQLite tells another one.
 */
function sqlite(Driver, module, level) {
  return async (path) => {
    const { default: Database } = await import(module);
    const db = new Database(join(path, "storage.db"));
    const driver = new Driver(db);
    driver.query("PRAGMA journal_mode = WAL", []);
    const storage = getSqliteStorage(driver);
    const { journal_mode } = driver.get("PRAGMA journal_mode", []);
    const { synchronous } = driver.get("PRAGMA synchronous", []);
    if (journal_mode !== "wal" || synchronous !== SYNCHRONOUS[level])
      throw new Error(`${module} is not in WAL mode at synchronous=${level}`);
    return {
      storage,
      close() {
        storage.close();
        driver.closeDb();
      },
    };
  };
}

/* --- JavaScript memory ----------------------------------------------------------- */

/* By path, so that it can be opened again. */
const tables = new Map();

/* compare.mjs has translated the suites' client. */
const translated = (name) =>
  import(pathToFileURL(join(buildDir, "memory", name)).href);

async function memory(path, api) {
  const { MemoryTables } = await translated("memory-tables.js");
  const clients = await translated("memory-client.js");
  if (!tables.has(path)) tables.set(path, new MemoryTables());
  const storage =
    api === "sync"
      ? new StorageApiSync(new clients.MemoryClientSync(tables.get(path)))
      : new StorageApiAsync(new clients.MemoryClientAsync(tables.get(path)));
  return { storage, close: () => storage.close() };
}

export const forget = (path) => tables.delete(path);

/* --- bftree ------------------------------------------------------------------------ */

function bftree(mode, durability) {
  return async (path) => {
    const { openJazzStorage } = await import("../dist/index.js");
    const storage = openJazzStorage(join(path, "storage"), { mode, durability });
    return { storage, close: () => storage.close() };
  };
}

/* --- All of them --------------------------------------------------------------------- */

export const engines = {
  "bftree-sync-buffered": {
    says: "bftree",
    api: "sync",
    durability: "buffered",
    floor: "memory-sync",
    open: bftree("sync", "buffered"),
  },
  "bftree-async-buffered": {
    says: "bftree",
    api: "async",
    durability: "buffered",
    floor: "memory-async",
    open: bftree("async", "buffered"),
  },
  "bftree-async-sync": {
    says: "bftree",
    api: "async",
    durability: "sync",
    floor: "memory-async",
    open: bftree("async", "sync"),
  },
  "sqlite-cached": {
    says: "better-sqlite3, statements cached",
    api: "sync",
    durability: "NORMAL",
    floor: "memory-sync",
    open: sqlite(CachedDriver, "better-sqlite3", "NORMAL"),
  },
  "sqlite-shipped": {
    says: "better-sqlite3 as Jazz ships it",
    api: "sync",
    durability: "NORMAL",
    floor: "memory-sync",
    open: sqlite(ShippedDriver, "better-sqlite3", "NORMAL"),
  },
  libsql: {
    says: "libsql",
    api: "sync",
    durability: "FULL",
    floor: "memory-sync",
    open: sqlite(LibsqlDriver, "libsql", "FULL"),
  },
  "memory-sync": {
    says: "JavaScript memory",
    api: "sync",
    durability: "nothing kept",
    open: (path) => memory(path, "sync"),
  },
  "memory-async": {
    says: "JavaScript memory",
    api: "async",
    durability: "nothing kept",
    open: (path) => memory(path, "async"),
  },
  none: {
    says: "no storage at all",
    api: "-",
    durability: "nothing kept",
    open: undefined,
  },
};
