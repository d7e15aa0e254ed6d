/*
 * Messages that are stored by one commit.
 *
 * cojson's synchronous storage decides what each of them changes, from what is
 * known without asking the store, and this client below it packs that.  A message
 * that asks for more is left out.  What was known must still be so at the commit.
 */
import { StorageApiSync } from "cojson";
import type {
  DBClientInterfaceSync,
  DBTransactionInterfaceSync,
  SessionRow,
  StorageApiAsync,
  StoredSessionRow,
} from "cojson";
import { BftreeError } from "./bftree-error.ts";
import {
  Flag,
  Kind,
  NONE,
  PackedChanges,
  change,
  jsonOf,
  setTransaction,
} from "./changes.ts";
import type { Change } from "./changes.ts";
import { appliedChanges, appliedRow } from "./native.ts";
import type { RowCache } from "./row-cache.ts";
import { RESULTS_MAX, rowOf } from "./transaction-rows.ts";
import type {
  CoID,
  Header,
  KnownState,
  SesID,
  SessionUpdate,
  SignatureAfter,
  Tx,
} from "./rows.ts";

type StoreArguments = Parameters<StorageApiAsync["store"]>;

/* A message on its way into the storage. */
export type Entry = {
  data: StoreArguments[0];
  correctionCallback: StoreArguments[1];
  done?: StoreArguments[2] | undefined;
};

/* Thrown through cojson's logic: it takes a look into the store. */
const notKnown = new Error("not known without a read");

/* Of a batch: it is a short call still. */
const BYTES_MAX = 128 << 10;
export const MESSAGES_MAX = 64;

/* Taking a CoValue for new that is not costs a conflict: then the next ones,
 * which may well come from the same peer, are looked up. */
const KNOWN_BEFORE = 64;

/* A session that the batch has to do with. */
type Touched = {
  coValue: number;
  sessionID: SesID;
  /* Of one that is new in this batch a negative number. */
  rowID: number;
  /* What is there before the batch, as the cache has it, or undefined for
   * nothing; and after. */
  before: StoredSessionRow | undefined;
  after: SessionRow | undefined;
  /* Place of its last SESSION among those with a row id as result. */
  result: number;
  /* Another one of the same CoValue. */
  next: Touched | undefined;
};

/* Row of the Nth CoValue that the batch makes. */
const newCoValueRow = (n: number) => -1 - n;

export class StoreBatch
  implements Pick<DBClientInterfaceSync, "upsertCoValue" | "transaction">
{
  readonly entries: Entry[] = [];
  /* Of each entry what is known of its CoValue, and the places behind its
   * sessions in the list of counts that it makes known. */
  private readonly states: KnownState[] = [];
  private readonly countEnds: number[] = [];
  private readonly countIDs: SesID[] = [];
  private readonly counts: number[] = [];
  private readonly logic: StorageApiSync;
  /* In the place of what is known: nothing is known to be stored before it is. */
  private draft: KnownState = { id: "co_z", header: false, sessions: {} };
  private complete = false;
  private readonly correct = () => {
    this.complete = false;
    return [];
  };
  /* The one for all changes: each is put into the request at once. */
  private readonly item = change(0, 0, 0, 0, "", "");
  private readonly packed = new PackedChanges();
  private results = 0;
  private readonly made: { id: string; result: number }[] = [];
  private readonly touched: Touched[] = [];
  private readonly byCoValue = new Map<number, Touched>();
  /* The session that was read last, and the one that LATEST stands for. */
  private last: Touched | undefined;
  private latest: Touched | undefined;
  /* So many CoValues that come with a header are not taken for new. */
  private knownBefore = 0;
  private readonly tx: BatchTransaction;

  /* For the messages of STORAGE, above a client with CACHE. */
  constructor(
    private readonly cache: RowCache,
    private readonly storage: StorageApiAsync,
  ) {
    this.tx = new BatchTransaction(this);
    this.logic = new StorageApiSync(this as unknown as DBClientInterfaceSync);
    this.logic.deletedValues = storage.deletedValues;
    this.logic["inMemoryCoValues"] = storage["inMemoryCoValues"];
    this.logic.knownStates = {
      getKnownState: () => this.draft,
      handleUpdate() {},
    } as unknown as StorageApiSync["knownStates"];
  }

  clear() {
    this.entries.length = 0;
    this.restart();
  }

  private restart() {
    this.states.length = 0;
    this.countEnds.length = 0;
    this.countIDs.length = 0;
    this.counts.length = 0;
    this.draft.sessions = {};
    this.packed.clear();
    this.results = 0;
    this.made.length = 0;
    this.touched.length = 0;
    this.byCoValue.clear();
    this.last = undefined;
    this.latest = undefined;
  }

  /* Nothing has to change. */
  get isEmpty(): boolean {
    return this.packed.length === 0;
  }

  get isFull(): boolean {
    return (
      this.entries.length >= MESSAGES_MAX || this.packed.length >= BYTES_MAX
    );
  }

  /* Does an answer to cojson's logic rest on what no commit checks? */
  get assumes(): boolean {
    for (const { after } of this.touched) if (!after) return true;
    return false;
  }

  /* It was not accepted: another handle was faster, or a CoValue that was taken
   * for new is not. */
  failed() {
    this.cache.forgetSessions();
    if (this.made.length > 0) this.knownBefore = KNOWN_BEFORE;
  }

  /* Take ENTRY in.  False: it cannot be, and none of it is.  Throws BFT_CONFLICT
   * if of those that are in it something is no longer known. */
  add(entry: Entry): boolean {
    const { length } = this.packed;
    const touched = this.touched.length;
    if (this.tryAdd(entry)) {
      this.entries.push(entry);
      return true;
    }
    if (this.packed.length === length && this.touched.length === touched)
      return false;
    /* Part of it is there: leave all out, and put the others again. */
    this.restart();
    for (const one of this.entries)
      if (!this.tryAdd(one))
        throw new BftreeError("BFT_CONFLICT", "storing: something has changed");
    return false;
  }

  private tryAdd({ data }: Entry): boolean {
    this.complete = true;
    try {
      this.logic.store(data, this.correct);
    } catch {
      /* Whatever it is, the message will meet it again by itself. */
      return false;
    }
    if (!this.complete) return false;
    const { sessions } = this.draft;
    for (const id in data.new) {
      this.countIDs.push(id as SesID);
      this.counts.push(sessions[id as SesID]!);
    }
    this.countEnds.push(this.counts.length);
    this.states.push(this.storage.knownStates.getKnownState(data.id));
    return true;
  }

  /* Have all of it in the request ready for APPLY. */
  pack() {
    if (!this.packed.pack())
      throw new BftreeError("BFT_INVALID", "storing: a text to escape");
  }

  /* After APPLY went well. */
  committed() {
    const { cache } = this;
    cache.committed(appliedChanges());
    for (const { id, result: place } of this.made)
      cache.found(id, appliedRow(place));
    for (const { coValue, before, after, result: place } of this.touched) {
      if (!after) continue;
      if (before) {
        before.lastIdx = after.lastIdx;
        before.lastSignature = after.lastSignature;
        before.bytesSinceLastSignature = after.bytesSinceLastSignature!;
        continue;
      }
      const row = rowOf(appliedRow(place), after);
      if (coValue < 0)
        row.coValue = appliedRow(this.made[-1 - coValue]!.result);
      cache.remember(row);
    }
  }

  /* It has been accepted: show what entry I has made known. */
  show(i: number) {
    const state = this.states[i]!;
    const end = this.countEnds[i]!;
    state.header = true;
    for (let at = i === 0 ? 0 : this.countEnds[i - 1]!; at < end; at++)
      state.sessions[this.countIDs[at]!] = this.counts[at]!;
    this.storage.knownStates.handleUpdate(state.id, state);
  }

  /* --- Called by cojson's logic --- */

  upsertCoValue(id: string, header?: Header): number {
    const cached = this.cache.coValue(id);
    if (cached !== undefined) return cached;
    const { made } = this;
    /* LATEST is the last one only. */
    if (made.length > 0 && made[made.length - 1]!.id === id)
      return newCoValueRow(made.length - 1);
    if (!header || !this.mayBeNew() || this.results >= RESULTS_MAX)
      throw notKnown;
    for (const one of made) if (one.id === id) throw notKnown;
    const item = this.start(Kind.COVALUE, 0, 0, 0);
    item.id = id;
    item.value = jsonOf(header, "a header");
    this.put();
    made.push({ id, result: this.results++ });
    return newCoValueRow(made.length - 1);
  }

  private mayBeNew(): boolean {
    if (this.knownBefore === 0) return this.cache.highest !== undefined;
    this.knownBefore--;
    return false;
  }

  transaction(callback: (tx: DBTransactionInterfaceSync) => unknown): unknown {
    return callback(this.tx as unknown as DBTransactionInterfaceSync);
  }

  /* What there is now of a session. */
  session(coValue: number, sessionID: SesID): StoredSessionRow | undefined {
    const next = this.byCoValue.get(coValue);
    for (let known = next; known; known = known.next)
      if (known.sessionID === sessionID) {
        this.last = known;
        return (known.after as StoredSessionRow | undefined) ?? known.before;
      }
    const before = this.before(coValue, sessionID);
    const touched = {
      coValue,
      sessionID,
      rowID: before?.rowID ?? -1 - this.touched.length,
      before,
      after: undefined,
      result: 0,
      next,
    };
    this.last = touched;
    this.touched.push(touched);
    this.byCoValue.set(coValue, touched);
    return before;
  }

  private before(coValue: number, sessionID: SesID) {
    if (coValue < 0) return undefined;
    const row = this.cache.lastSession(coValue, sessionID);
    if (row === undefined) throw notKnown;
    return row ?? undefined;
  }

  putSession({ sessionUpdate }: SessionUpdate): number {
    const { coValue, sessionID } = sessionUpdate;
    const touched = this.last;
    if (touched?.coValue !== coValue || touched.sessionID !== sessionID)
      throw notKnown;
    const { before, rowID } = touched;
    if (rowID < 0 && this.results >= RESULTS_MAX) throw notKnown;
    const isNew = coValue < 0;
    const expects = touched.after === undefined;
    const item = this.start(
      Kind.SESSION,
      (expects ? Flag.EXPECT : 0) | (isNew ? Flag.LATEST : 0),
      isNew ? 0 : coValue,
      sessionUpdate.lastIdx,
    );
    item.id = sessionID;
    item.value = sessionUpdate.lastSignature;
    item.bytes = sessionUpdate.bytesSinceLastSignature ?? NONE;
    item.expectRow = before?.rowID ?? 0;
    item.expectIdx = before?.lastIdx ?? 0;
    this.put();
    touched.after = sessionUpdate;
    touched.result = this.results++;
    this.latest = touched;
    return rowID;
  }

  putTransaction(session: number, idx: number, tx: Tx) {
    setTransaction(this.content(Kind.TRANSACTION, session, idx), tx);
    this.put();
  }

  putSignature({ sessionRowID, idx, signature }: SignatureAfter) {
    this.content(Kind.SIGNATURE, sessionRowID, idx).value = signature;
    this.put();
  }

  putDeleted(id: CoID) {
    this.start(Kind.DELETED, 0, 0, 0).id = id;
    this.put();
  }

  /* A change of SESSION's content, without its value. */
  private content(kind: number, session: number, idx: number): Change {
    if (session >= 0) return this.start(kind, Flag.OVERWRITE, session, idx);
    if (this.latest?.rowID !== session) throw notKnown;
    return this.start(kind, Flag.OVERWRITE | Flag.LATEST, 0, idx);
  }

  private start(kind: number, flags: number, row: number, idx: number): Change {
    const { item } = this;
    item.kind = kind;
    item.flags = flags;
    item.row = row;
    item.idx = idx;
    item.id = "";
    item.value = "";
    item.usual = undefined;
    item.key = "";
    return item;
  }

  private put() {
    this.packed.put(this.item);
  }
}

/* As far as cojson's logic uses it for a message. */
class BatchTransaction
  implements
    Pick<
      DBTransactionInterfaceSync,
      | "getSingleCoValueSession"
      | "markCoValueAsDeleted"
      | "addSessionUpdate"
      | "addTransaction"
      | "addSignatureAfter"
    >
{
  constructor(private readonly batch: StoreBatch) {}

  getSingleCoValueSession(coValue: number, sessionID: SesID) {
    return this.batch.session(coValue, sessionID);
  }

  markCoValueAsDeleted(id: CoID) {
    this.batch.putDeleted(id);
  }

  addSessionUpdate(update: SessionUpdate) {
    return this.batch.putSession(update);
  }

  addTransaction(session: number, idx: number, tx: Tx) {
    this.batch.putTransaction(session, idx, tx);
  }

  addSignatureAfter(signature: SignatureAfter) {
    this.batch.putSignature(signature);
  }
}
