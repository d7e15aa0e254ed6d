/*
 * What a client wrote last, so that the next message for it needs no read.
 *
 * The store counts its changes.  As long as every change since was this
 * client's own, what it wrote is what is there; when another one shows, all is
 * forgotten.  CoValues are different: their row ids never change.
 */
import type { StoredSessionRow } from "cojson";

const COVALUES_MAX = 16_384;
const SESSIONS_MAX = 4_096;
/* Of one CoValue. */
const SESSIONS_OF_ONE_MAX = 16;

function dropOldest<K>(map: Map<K, unknown>, max: number) {
  if (map.size <= max) return;
  for (const key of map.keys()) {
    map.delete(key);
    return;
  }
}

export class RowCache {
  private readonly coValues = new Map<string, number>();
  private readonly sessions = new Map<number, StoredSessionRow[]>();
  /* The store's count when all in `sessions` was true. */
  private changes = -1;

  coValue(id: string): number | undefined {
    return this.coValues.get(id);
  }

  rememberCoValue(id: string, row: number) {
    this.coValues.set(id, row);
    dropOldest(this.coValues, COVALUES_MAX);
  }

  has(coValue: number): boolean {
    return this.sessions.has(coValue);
  }

  /* The session, if nothing has changed until the store counted CHANGES. */
  session(
    coValue: number,
    sessionID: string,
    changes: number,
  ): StoredSessionRow | undefined {
    if (changes !== this.changes) {
      this.forgetSessions(changes);
      return undefined;
    }
    const rows = this.sessions.get(coValue);
    if (rows !== undefined)
      for (const row of rows) if (row.sessionID === sessionID) return row;
    return undefined;
  }

  /* This client has committed; the store has counted CHANGES now. */
  committed(changes: number) {
    if (changes !== this.changes && changes !== this.changes + 1)
      this.sessions.clear();
    this.changes = changes;
  }

  /* ROW is what this client has just committed; nobody may change it. */
  remember(row: StoredSessionRow) {
    const rows = this.sessions.get(row.coValue);
    if (!rows) {
      this.sessions.set(row.coValue, [row]);
      dropOldest(this.sessions, SESSIONS_MAX);
      return;
    }
    for (let i = 0; i < rows.length; i++)
      if (rows[i]!.rowID === row.rowID) {
        rows[i] = row;
        return;
      }
    if (rows.push(row) > SESSIONS_OF_ONE_MAX) rows.shift();
  }

  clear() {
    this.coValues.clear();
    this.forgetSessions();
  }

  /* Something this client did not put here has changed. */
  forgetSessions(changes = -1) {
    this.sessions.clear();
    this.changes = changes;
  }
}
