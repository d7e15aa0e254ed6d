/*
 * cojson loads a CoValue in several steps, which the native side answers in one:
 * here lies what it will ask for next.  Each part is handed out once, for
 * callers keep and change what they get, and only while the store has not
 * changed.
 */
import type {
  SignatureAfterRow,
  StoredSessionRow,
  TransactionRow,
} from "cojson";
import type { Content, Loaded } from "./answers.ts";
import type { Handle } from "./native.ts";

/* CoValues that are being loaded at the same time. */
const LOADS_MAX = 32;

type Load = {
  coValue: number;
  changes: number;
  /* Undefined: handed out. */
  sessions: StoredSessionRow[] | undefined;
  /* Without what was handed out. */
  contents: Map<number, Content>;
};

export class ReadAhead {
  private readonly loads = new Map<number, Load>();
  private readonly bySession = new Map<number, Load>();

  constructor(private readonly handle: Handle) {}

  add({ rowID, changes, sessions, contents }: Loaded) {
    this.drop(rowID);
    for (const oldest of this.loads.keys()) {
      if (this.loads.size < LOADS_MAX) break;
      this.drop(oldest);
    }
    const load = { coValue: rowID, changes, sessions, contents };
    this.loads.set(rowID, load);
    for (const session of contents.keys()) this.bySession.set(session, load);
  }

  clear() {
    this.loads.clear();
    this.bySession.clear();
  }

  private drop(coValue: number) {
    const load = this.loads.get(coValue);
    if (!load) return;
    this.loads.delete(coValue);
    for (const session of load.contents.keys()) this.bySession.delete(session);
  }

  /* LOAD if what was read then is still so. */
  private current(load: Load | undefined): Load | undefined {
    if (load === undefined || load.changes === this.handle.changes()) return load;
    this.clear();
    return undefined;
  }

  private content(session: number): Content | undefined {
    return this.current(this.bySession.get(session))?.contents.get(session);
  }

  /* All of a session is handed out, and perhaps all of its CoValue. */
  private sessionDone(session: number) {
    const load = this.bySession.get(session)!;
    this.bySession.delete(session);
    load.contents.delete(session);
    this.loadDone(load);
  }

  private loadDone(load: Load) {
    if (load.sessions === undefined && load.contents.size === 0)
      this.loads.delete(load.coValue);
  }

  sessions(coValue: number): StoredSessionRow[] | undefined {
    const load = this.current(this.loads.get(coValue));
    const sessions = load?.sessions;
    if (!load || !sessions) return undefined;
    load.sessions = undefined;
    this.loadDone(load);
    return sessions;
  }

  signatures(session: number, from: number): SignatureAfterRow[] | undefined {
    if (from !== 0) return undefined;
    const content = this.content(session);
    const signatures = content?.signatures;
    if (!content || !signatures) return undefined;
    content.signatures = undefined;
    if (!content.transactions) this.sessionDone(session);
    return signatures;
  }

  transactions(
    session: number,
    from: number,
    to: number,
  ): TransactionRow[] | undefined {
    if (from !== 0) return undefined;
    const content = this.content(session);
    const transactions = content?.transactions;
    if (!content || !transactions || to !== content.end) return undefined;
    this.sessionDone(session);
    return transactions;
  }
}
