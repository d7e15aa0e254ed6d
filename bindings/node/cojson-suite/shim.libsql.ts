/*
 * Stands for the SQL driver.  cojson's test storage makes one and hands it to
 * getSqliteStorage(), whose shim only wants the path.  Two tests speak SQL to
 * it: these four statements.
 */
import type { RawRows } from "./backend.types.ts";
import { installed } from "./installed-backend.ts";

type Statement = {
  get?: (...params: any[]) => unknown;
  all?: (...params: any[]) => unknown[];
  run?: (...params: any[]) => void;
};

const statements: Record<string, (rows: RawRows) => Statement> = {
  "SELECT rowID FROM coValues WHERE id = ?": (rows) => ({
    get: (id: string) => {
      const rowID = rows.coValue(id);
      return rowID === undefined ? undefined : { rowID };
    },
  }),
  "SELECT rowID, lastIdx FROM sessions WHERE coValue = ?": (rows) => ({
    all: (coValue: number) => rows.sessions(coValue),
  }),
  "SELECT tx FROM transactions WHERE ses = ? AND idx = 0": (rows) => ({
    get: (session: number) => {
      const tx = rows.transaction(session, 0);
      return tx === undefined ? undefined : { tx };
    },
  }),
  "INSERT INTO transactions (ses, idx, tx) VALUES (?, ?, ?)": (rows) => ({
    run: (session: number, idx: number, tx: string) =>
      rows.insertTransaction(session, idx, tx),
  }),
};

export default class Database {
  private rows: RawRows | undefined;

  constructor(readonly filename: string) {}

  pragma() {}

  prepare(sql: string): Statement {
    const statement = statements[sql];
    if (!statement) throw new Error(`SQL reached the shim: ${sql}`);
    this.rows ??= installed().raw(this.filename);
    return statement(this.rows);
  }

  close() {
    this.rows?.close();
    this.rows = undefined;
  }
}
