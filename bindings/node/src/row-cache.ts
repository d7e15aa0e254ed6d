/*
 * What a client wrote last, so that the next message for it needs no read.
 *
 * The store counts its changes.  As long as every change since was this
 * client's own, what it wrote is what is there; when another one shows, between
 * two of its commits, all is forgotten.  CoValues are different: their row ids
 * never change.
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

/* Of one CoValue. */
type Sessions = {
  rows: StoredSessionRow[];
  /* There are no others. */
  all: boolean;
};

export class RowCache {
  private readonly coValues = new Map<string, number>();
  private readonly sessions = new Map<number, Sessions>();
  /* The highest row of a CoValue; undefined: not known. */
  highest: number | undefined;
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

  /* The session, if nothing has changed until the store counted CHANGES.
   * Undefined: it is not known; null: there is none. */
  session(
    coValue: number,
    sessionID: string,
    changes: number,
  ): StoredSessionRow | undefined | null {
    if (changes !== this.changes) {
      this.forgetSessions(changes);
      return undefined;
    }
    return this.lastSession(coValue, sessionID);
  }

  /* The session, as it was when this client looked last; isCurrent() tells later
   * whether that is still so. */
  lastSession(
    coValue: number,
    sessionID: string,
  ): StoredSessionRow | undefined | null {
    const sessions = this.sessions.get(coValue);
    if (sessions === undefined) return undefined;
    for (const row of sessions.rows)
      if (row.sessionID === sessionID) return row;
    return sessions.all ? null : undefined;
  }

  /* Has anything changed until the store counted CHANGES?  Then all is forgotten. */
  isCurrent(changes: number): boolean {
    if (changes === this.changes) return true;
    this.forgetSessions(changes);
    return false;
  }

  /* This client has committed something, or nothing: the store had counted
   * BEFORE, and CHANGES now. */
  committed([before, changes]: readonly [before: number, changes: number]) {
    if (before !== this.changes) this.sessions.clear();
    this.changes = changes;
  }

  /*
   * This client has just found or made CoValue ID in row ROW.  One above all
   * others is taken for new: if it has been another's a moment ago, writing a
   * session of it fails, and is tried again.
   */
  found(id: string, row: number) {
    this.rememberCoValue(id, row);
    if (this.highest === undefined || row <= this.highest) return;
    this.highest = row;
    this.put(row, { rows: [], all: true });
  }

  private put(coValue: number, sessions: Sessions) {
    this.sessions.set(coValue, sessions);
    dropOldest(this.sessions, SESSIONS_MAX);
  }

  /* ROW is what this client has just committed; it is the cache's now. */
  remember(row: StoredSessionRow) {
    const sessions = this.sessions.get(row.coValue);
    if (!sessions) {
      this.put(row.coValue, { rows: [row], all: false });
      return;
    }
    const { rows } = sessions;
    for (let i = 0; i < rows.length; i++)
      if (rows[i]!.rowID === row.rowID) {
        rows[i] = row;
        return;
      }
    if (rows.push(row) <= SESSIONS_OF_ONE_MAX) return;
    rows.shift();
    sessions.all = false;
  }

  clear() {
    this.coValues.clear();
    this.highest = undefined;
    this.forgetSessions();
  }

  /* Something this client did not put here has changed. */
  forgetSessions(changes = -1) {
    this.sessions.clear();
    this.changes = changes;
  }
}
