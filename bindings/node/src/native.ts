/*
 * The native side, with types.  Arguments and results of a call lie in two
 * memories that both sides see: native/addon.c says why.
 */
import { fileURLToPath } from "node:url";
import { logger } from "cojson";
import { BftreeError, nameStatuses } from "./bftree-error.ts";

/* Kinds of calls; what each takes and gives is in native/store_call.h. */
type CallName =
  | "OPEN"
  | "CLOSE"
  | "APPLY"
  | "ERASE"
  | "ROW"
  | "LOAD"
  | "KNOWN"
  | "SESSIONS"
  | "SESSION"
  | "TRANSACTIONS"
  | "SIGNATURES"
  | "IDS"
  | "DELETIONS"
  | "UNSYNCED"
  | "COUNT"
  | "LOCK_GET"
  | "LOCK_ACQUIRE"
  | "LOCK_RENEW"
  | "LOCK_RELEASE"
  | "DURABLE"
  | "SYNC"
  | "CHECKPOINT"
  | "VERIFY"
  | "STATS"
  | "CENSUS";

/* A text; or one and the strings that were too long for it. */
export type Answer = string | string[] | undefined;

type Addon = {
  version: string;
  registers: Float64Array;
  places: Float64Array;
  calls: Record<CallName, number>;
  statuses: Record<string, number>;
  run(handle: number, kind: number): Answer;
  submit(handle: number, kind: number): Answer | number;
  attempt(handle: number, kind: number): Answer | number;
  changes(handle: number): number;
  completeUsual(table: number, count: number): boolean;
  deliverTo(receive: (ticket: number, answer: Answer) => void): void;
  setRequest(bytes: Buffer): void;
};

/*
 * An instance of its own for each evaluation of this module (test runners and
 * servers that reload make several in one thread): the memories and the receiver
 * of results belong to one.  require() would give all of them the same.
 */
function loadAddon(): Addon {
  const module = { exports: {} };
  /* The same place from src/ and from dist/. */
  const file = new URL("../dist/bftree.node", import.meta.url);
  process.dlopen(module, fileURLToPath(file));
  return module.exports as Addon;
}

const addon = loadAddon();

nameStatuses(addon.statuses);

export const calls = addon.calls;
/* Version of the engine. */
export const version = addon.version;

/* --- Arguments and results --- */

const registers = addon.registers;
/* Of transactions in their usual shape three numbers each: the length of
 * encryptedChanges, that of keyUsed or -1, and madeAt. */
export const places = addon.places;
/* The same memory: of known states what native/known_states.h says. */
export const knownNumbers = new Int32Array(places.buffer);
/* The first register with the length of a text. */
const TEXT_LENGTHS = 6;

let request: Buffer;
let requestView: DataView;

/* Have room for LENGTH bytes; what is in it stays. */
function makeRoom(length: number) {
  const old = request;
  request = Buffer.allocUnsafeSlow(length);
  if (old) old.copy(request);
  requestView = new DataView(request.buffer);
  addon.setRequest(request);
}
makeRoom(64 * 1024);

/* What is longer is not kept for the next call. */
const KEPT_ROOM = 4 * 1024 * 1024;

export function setNumbers(n0: number, n1 = 0, n2 = 0) {
  registers[0] = n0;
  registers[1] = n1;
  registers[2] = n2;
}

export function setNumber(index: number, value: number) {
  registers[index] = value;
}

/* What comes from outside may be anything. */
export function refuseText(what: string, text: unknown): never {
  const kind = text === null ? "null" : typeof text;
  throw new BftreeError("BFT_INVALID", `${what} is ${kind}, not a string`);
}

/* Have room for LENGTH bytes, and not much more than is usual. */
function makeRoomFor(length: number) {
  if (request.length < length) makeRoom(length);
  else if (request.length > KEPT_ROOM && length < KEPT_ROOM)
    makeRoomAnew(KEPT_ROOM);
}

/* A character takes up to three bytes. */
export function setText(text: string) {
  if (typeof text !== "string") refuseText("reading: an id", text);
  makeRoomFor(3 * text.length);
  registers[TEXT_LENGTHS] = request.write(text, 0);
}

export function setTexts(s0: string, s1: string) {
  if (typeof s0 !== "string") refuseText("reading: an id", s0);
  if (typeof s1 !== "string") refuseText("reading: an id", s1);
  makeRoomFor(3 * (s0.length + s1.length));
  const end = request.write(s0, 0);
  registers[TEXT_LENGTHS] = end;
  registers[TEXT_LENGTHS + 1] = request.write(s1, end);
}

/* The request as bytes, LENGTH of them at least, to be filled ... */
export function packing(length: number): { bytes: Buffer; view: DataView } {
  const twice = 2 * request.length;
  makeRoomFor(request.length < length ? Math.max(length, twice) : length);
  return { bytes: request, view: requestView };
}

function makeRoomAnew(length: number) {
  request = Buffer.allocUnsafeSlow(0);
  makeRoom(length);
}

/* Put together the JSON texts of transactions in their usual shape, where each
 * member is in its place and what belongs around it is not.  The table at TABLE
 * in the request has COUNT times where a text starts, how long its changes and
 * its key are, of 32 bits each.  False: JSON would escape something. */
export const completeUsual = (table: number, count: number) =>
  addon.completeUsual(table, count);

/* ... to this length, which makes it the first text. */
export function packed(length: number) {
  registers[TEXT_LENGTHS] = length;
}

/* Result INDEX of the call that has just ended. */
export function result(index: number): number {
  return registers[index + 1]!;
}

/* Of APPLY: how many changes the store had counted before and after it ... */
export const appliedChanges = (): [number, number] => [result(2), result(1)];
/* ... and the row id of the one at PLACE among those that have one. */
export const appliedRow = (place: number) => result(3 + place);

/* --- Calls --- */

/* An option of openJazzStorage() that the engine names as C does. */
const withOptionNames = (text: string) =>
  text.replace(/^opening: option [a-z_]+/, (start) =>
    start.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase()),
  );

/* The answer of a call that went well. */
function outcome(answer: Answer): Answer {
  const status = registers[0]!;
  if (status !== 0)
    throw new BftreeError(status, withOptionNames(String(answer ?? "")));
  return answer;
}

type Awaited = {
  read: (answer: Answer) => unknown;
  resolve: (value: unknown) => void;
  reject: (error: unknown) => void;
};

const tickets = new Map<number, Awaited>();

addon.deliverTo((ticket, answer) => {
  const awaited = tickets.get(ticket);
  if (!awaited) return;
  tickets.delete(ticket);
  try {
    awaited.resolve(awaited.read(outcome(answer)));
  } catch (error) {
    awaited.reject(error);
  }
});

/* The databases of files that are open, also those that nobody can reach any
 * more and that are not closed yet. */
const allOpen = new Map<number, WeakRef<Handle>>();

/* process.exit(), and an exception that nobody caught, end the process without
 * the hooks that the native side has for the end of a JavaScript thread. */
function closeAll() {
  for (const [id, handle] of [...allOpen])
    try {
      const reached = handle.deref();
      if (reached) reached.release();
      else close(id);
    } catch (err) {
      logger.error("bftree: closing at the end failed", { err });
    }
}

function noteOpen(id: number, handle: Handle) {
  if (allOpen.size === 0) process.on("exit", closeAll);
  allOpen.set(id, new WeakRef(handle));
}

function noteClosed(id: number) {
  if (allOpen.delete(id) && allOpen.size === 0) process.off("exit", closeAll);
}

function close(id: number) {
  noteClosed(id);
  outcome(addon.run(id, calls.CLOSE));
}

/* Databases that nobody can reach any more are closed. */
const forgotten = new FinalizationRegistry<number>((id) => {
  noteClosed(id);
  addon.submit(id, calls.CLOSE);
});

const noText = () => undefined;

/* What a database is opened with: the numbers of OPEN, in their order. */
export type OpenNumbers = readonly number[];

export const OpenFlag = { MUST_EXIST: 1, ERROR_IF_EXISTS: 2, COMPRESS: 4 };
const OPEN_FLAGS = 5;
/* The first of them: the others keep nothing. */
const IN_FILES = 0;

/* Run WORK and leave the memories with the arguments that are in them. */
function aside(work: () => void) {
  const numbers = registers.slice();
  const texts = Buffer.from(request);
  try {
    work();
  } finally {
    registers.set(numbers);
    if (request.length < texts.length) makeRoomAnew(texts.length);
    texts.copy(request);
  }
}

/*
 * An open database, as this JavaScript thread has it.  It can be released and
 * is opened again by the next call, or closed for good.
 */
export class Handle {
  private id = 0;
  private closedForGood = false;
  /* Called when it has been opened again: others may have changed it. */
  onReopen: () => void = () => {};

  private constructor(
    readonly path: string,
    private readonly numbers: OpenNumbers,
  ) {}

  static open(path: string, numbers: OpenNumbers): Handle {
    const handle = new Handle(path, numbers);
    handle.setOpen(0);
    outcome(addon.run(0, calls.OPEN));
    handle.opened();
    return handle;
  }

  static async openAsync(path: string, numbers: OpenNumbers): Promise<Handle> {
    const handle = new Handle(path, numbers);
    handle.setOpen(0);
    return handle.answer(addon.submit(0, calls.OPEN), () => {
      handle.opened();
      return handle;
    });
  }

  private setOpen(moreFlags: number) {
    registers.set(this.numbers);
    registers[OPEN_FLAGS]! |= moreFlags;
    setText(this.path);
  }

  private opened() {
    this.id = result(0);
    forgotten.register(this, this.id, this);
    if (this.numbers[0] === IN_FILES) noteOpen(this.id, this);
  }

  /* The number to call with.  Never makes a database where there was one. */
  private use(): number {
    if (this.id !== 0) return this.id;
    if (this.closedForGood)
      throw new BftreeError("BFT_INVALID", `${this.path} is closed`);
    aside(() => {
      this.setOpen(OpenFlag.MUST_EXIST);
      registers[OPEN_FLAGS]! &= ~OpenFlag.ERROR_IF_EXISTS;
      outcome(addon.run(0, calls.OPEN));
      this.opened();
    });
    this.onReopen();
    return this.id;
  }

  /* How many changes the store has counted.  One load of a counter: not worth a
   * thread, nor the way of the other calls. */
  changes(): number {
    return addon.changes(this.use());
  }

  /* Make a call here and now; result() tells its numbers. */
  run(kind: number): Answer {
    return outcome(addon.run(this.use(), kind));
  }

  /* Have another thread make a call.  READ turns its results into a value. */
  submit<T>(
    kind: number,
    read: (answer: Answer) => T,
  ): T | Promise<T> {
    return this.answer(addon.submit(this.use(), kind), read);
  }

  /* Make a call here if that takes some microseconds only, else have another
   * thread make it. */
  attempt<T>(
    kind: number,
    read: (answer: Answer) => T,
  ): T | Promise<T> {
    return this.answer(addon.attempt(this.use(), kind), read);
  }

  private answer<T>(
    answer: Answer | number,
    read: (answer: Answer) => T,
  ): T | Promise<T> {
    if (typeof answer !== "number") return read(outcome(answer));
    return new Promise<T>((resolve, reject) => {
      tickets.set(answer, {
        read,
        resolve: resolve as (value: unknown) => void,
        reject,
      });
    });
  }

  private forget(): number {
    const { id } = this;
    this.id = 0;
    forgotten.unregister(this);
    noteClosed(id);
    return id;
  }

  /* Close until the next call; a database in memory would be gone. */
  release() {
    if (this.id !== 0) close(this.forget());
  }

  async releaseAsync(): Promise<void> {
    if (this.id !== 0)
      await this.answer(addon.submit(this.forget(), calls.CLOSE), noText);
  }

  /* Every later call fails with BFT_INVALID. */
  async close(): Promise<void> {
    this.closedForGood = true;
    await this.releaseAsync();
  }
}
