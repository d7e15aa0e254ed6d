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
  contents: Content[];
  /* How many contents are not handed out. */
  left: number;
};

/* What there is of a session. */
type Part = { load: Load; content: Content };

export class ReadAhead {
  private readonly loads = new Map<number, Load>();
  private readonly bySession = new Map<number, Part>();

  constructor(private readonly handle: Handle) {}

  add({ rowID, changes, sessions, contents }: Loaded) {
    this.drop(rowID);
    for (const oldest of this.loads.keys()) {
      if (this.loads.size < LOADS_MAX) break;
      this.drop(oldest);
    }
    const left = contents.length;
    const load = { coValue: rowID, changes, sessions, contents, left };
    this.loads.set(rowID, load);
    for (const content of contents)
      this.bySession.set(content.session, { load, content });
  }

  clear() {
    this.loads.clear();
    this.bySession.clear();
  }

  private drop(coValue: number) {
    const load = this.loads.get(coValue);
    if (!load) return;
    this.loads.delete(coValue);
    for (const { session } of load.contents) this.bySession.delete(session);
  }

  /* Is what was read then still so? */
  private isCurrent(load: Load): boolean {
    const same = load.changes === this.handle.changes();
    /* To ask may open the database again, which cleared all this and counts anew. */
    if (same && this.loads.get(load.coValue) === load) return true;
    this.clear();
    return false;
  }

  private part(session: number): Part | undefined {
    const part = this.bySession.get(session);
    return part && this.isCurrent(part.load) ? part : undefined;
  }

  /* All of a session is handed out, and perhaps all of its CoValue. */
  private partDone({ load, content }: Part) {
    this.bySession.delete(content.session);
    load.left--;
    this.loadDone(load);
  }

  private loadDone(load: Load) {
    if (load.sessions === undefined && load.left === 0)
      this.loads.delete(load.coValue);
  }

  sessions(coValue: number): StoredSessionRow[] | undefined {
    const load = this.loads.get(coValue);
    const sessions = load?.sessions;
    if (!sessions || !this.isCurrent(load)) return undefined;
    load.sessions = undefined;
    this.loadDone(load);
    return sessions;
  }

  signatures(session: number, from: number): SignatureAfterRow[] | undefined {
    if (from !== 0) return undefined;
    const part = this.part(session);
    const signatures = part?.content.signatures;
    if (!part || !signatures) return undefined;
    part.content.signatures = undefined;
    if (!part.content.transactions) this.partDone(part);
    return signatures;
  }

  transactions(
    session: number,
    from: number,
    to: number,
  ): TransactionRow[] | undefined {
    if (from !== 0) return undefined;
    const part = this.part(session);
    const transactions = part?.content.transactions;
    if (!part || !transactions || to !== part.content.end) return undefined;
    this.partDone(part);
    return transactions;
  }
}
