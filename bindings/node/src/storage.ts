/* cojson's own storage classes over a native client, and the way to get one. */
import { resolve } from "node:path";
import { StorageApiAsync, StorageApiSync } from "cojson";
import { Batching } from "./batching.ts";
import { BftreeError } from "./bftree-error.ts";
import { BftreeClientAsync } from "./client-async.ts";
import { BftreeClientSync } from "./client-sync.ts";
import { Database } from "./database.ts";
import { acceptedDurability, durabilityNumber, isDurability } from "./durability.ts";
import type { Durability } from "./durability.ts";
import { Handle, OpenFlag } from "./native.ts";
import type { OpenNumbers } from "./native.ts";
import type { SyncUpdate } from "./rows.ts";
import type { Entry } from "./store-batch.ts";

export type JazzStorageOptions = {
  /*
   * "async", the default: cojson's StorageApiAsync; writes and reads are done
   * by other threads.  "sync": its StorageApiSync.
   */
  mode?: "async" | "sync";
  /* Default: "sync" in mode "async", "buffered" in mode "sync". */
  durability?: Durability;
  /* "memory": nothing is kept, PATH is a name within the process. */
  storage?: "files" | "memory";
  /* Memory that the engine may take; default 64 MiB. */
  memoryBytes?: number;
  /* About how long the log gets before a checkpoint; default 64 MiB. */
  logBytes?: number;
  /* Compress where it saves space; default false. */
  compress?: boolean;
  /* Fail with BFT_NOT_FOUND where there is no database. */
  mustExist?: boolean;
  /* Fail with BFT_EXISTS where there is one. */
  errorIfExists?: boolean;
};

/* cojson's StorageApiSync: `done` is called before store() returns. */
export class JazzStorageSync extends StorageApiSync {
  /* The database below, to look into. */
  readonly database: Database;
  private readonly inMemory: boolean;
  private readonly handle: Handle;
  private readonly client: BftreeClientSync;

  constructor(handle: Handle, { durability, inMemory }: Settings) {
    const client = new BftreeClientSync(handle, durability);
    super(client);
    this.inMemory = inMemory;
    this.handle = handle;
    this.client = client;
    this.database = new Database(handle);
  }

  /* As cojson's, mostly in one commit. */
  override store(
    ...[msg, correct, done]: Parameters<StorageApiSync["store"]>
  ): boolean {
    const stored = this.client.message(() => super.store(msg, correct));
    if (stored) done?.();
    return stored;
  }

  /*
   * As cojson's.  All is durable when it returns, and the database is released;
   * a call that comes later opens it again.
   */
  override close() {
    super.close();
    if (!this.inMemory) this.handle.release();
    return undefined;
  }
}

/*
 * cojson's StorageApiAsync, but that `done` of a message is called when all that
 * was stored for it survives what the durability says: with "sync" once the
 * last of its commits, corrections included, is durable.  Messages of all
 * stores of a database that come at about the same time share a sync.
 */
export class JazzStorageAsync extends StorageApiAsync {
  /* The database below, to look into. */
  readonly database: Database;
  private readonly inMemory: boolean;
  private readonly handle: Handle;
  private readonly client: BftreeClientAsync;
  private readonly batching: Batching;

  constructor(handle: Handle, { durability, inMemory }: Settings) {
    const client = new BftreeClientAsync(handle, durability);
    super(client);
    this.inMemory = inMemory;
    this.handle = handle;
    this.client = client;
    this.database = new Database(handle);
    this.batching = new Batching(
      this.storeQueue,
      client,
      client.newBatch(this),
      (entry) => this.storeAlone(entry),
      () => this["interruptEraser"]("store"),
    );
  }

  override trackCoValuesSyncState(updates: SyncUpdate[], done?: () => void) {
    super.trackCoValuesSyncState(updates, () =>
      this.client.whenDurable(() => done?.()),
    );
  }

  /* A message that comes here came before close().  If that has begun, what the
   * message lacks is not asked for any more, as by cojson: then it is dropped. */
  private storeAlone({ data, correctionCallback }: Entry): Promise<boolean> {
    return this.storeQueue.closed
      ? this.storeLate(data)
      : this["storeSingle"](data, correctionCallback);
  }

  private async storeLate(data: Entry["data"]): Promise<boolean> {
    const { storeQueue } = this;
    let lacking = false;
    let storing: Promise<boolean>;
    /* cojson's logic looks at it first, and then only for corrections. */
    storeQueue.closed = false;
    try {
      storing = this["storeSingle"](data, () => {
        lacking = true;
        return [];
      });
    } finally {
      storeQueue.closed = true;
    }
    return (await storing) && !lacking;
  }

  /*
   * As cojson's: what is queued is dropped, without `done`, but for messages that
   * only wait to be stored together.  What is accepted becomes durable, and its
   * `done` is called, before the promise resolves; by then the database is
   * released.  A call that comes later opens it again.
   */
  override close(): Promise<void> {
    const batch = this.batching.closing();
    return this.finish(Promise.all([batch, super.close()]));
  }

  private async finish(running: Promise<unknown> | undefined) {
    try {
      await running;
    } catch {
      /* cojson's queue has logged it. */
    }
    await this.client.settled();
    if (!this.inMemory) await this.handle.releaseAsync();
  }
}

/* --- Opening --- */

/* Databases in memory lie side by side in a folder of their own. */
const nameInMemory = (path: string) => `memory:${encodeURIComponent(path)}`;

/* What the engine calls PATH.  It may be opened again when the process works
 * somewhere else. */
function placeOf(path: string, inMemory: boolean): string {
  /* Refused by the native side. */
  if (path === "") return path;
  return inMemory ? nameInMemory(path) : resolve(path);
}

const storages = { files: 0, memory: 1 } as const;

type Settings = {
  mode: "async" | "sync";
  durability: Durability;
  inMemory: boolean;
  path: string;
  numbers: OpenNumbers;
};

function refuse(what: string): never {
  throw new BftreeError("BFT_INVALID", `opening a storage: ${what}`);
}

function bytesOption(options: JazzStorageOptions, name: "memoryBytes" | "logBytes") {
  const value: unknown = options[name];
  if (value === undefined) return 0;
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0)
    refuse(`option ${name} is ${String(value)}, not a number of bytes`);
  return value;
}

function flagOption(
  options: JazzStorageOptions,
  name: "mustExist" | "errorIfExists" | "compress",
  flag: number,
) {
  const { [name]: value = false }: { [key: string]: unknown } = options;
  if (typeof value !== "boolean")
    refuse(`option ${name} is ${String(value)}, not true or false`);
  return value ? flag : 0;
}

const optionNames = new Set([
  "mode",
  "durability",
  "storage",
  "memoryBytes",
  "logBytes",
  "compress",
  "mustExist",
  "errorIfExists",
]);

/* Check what came from outside. */
function prepare(path: string, options: JazzStorageOptions): Settings {
  if (typeof path !== "string") refuse(`the path is ${typeof path}`);
  if (!path.isWellFormed()) refuse("the path is no text: half a character");
  if (typeof options !== "object" || options === null || Array.isArray(options))
    refuse("options are not an object");
  for (const name of Object.keys(options))
    if (!optionNames.has(name)) refuse(`there is no option ${name}`);
  const { mode = "async", storage = "files" } = options;
  if (mode !== "async" && mode !== "sync")
    refuse(`option mode is ${String(mode)}, not "async" or "sync"`);
  const { durability = mode === "async" ? "sync" : "buffered" } = options;
  if (!isDurability(durability))
    refuse(
      `option durability is ${String(durability)}, not "none", "buffered" or "sync"`,
    );
  if (typeof storage !== "string" || !Object.hasOwn(storages, storage))
    refuse(`option storage is ${String(storage)}, not "files" or "memory"`);
  const flags =
    flagOption(options, "mustExist", OpenFlag.MUST_EXIST) |
    flagOption(options, "errorIfExists", OpenFlag.ERROR_IF_EXISTS) |
    flagOption(options, "compress", OpenFlag.COMPRESS);
  const numbers = [
    storages[storage],
    durabilityNumber(
      mode === "async" ? acceptedDurability(durability) : durability,
    ),
    bytesOption(options, "memoryBytes"),
    bytesOption(options, "logBytes"),
    0,
    flags,
  ];
  const inMemory = storage === "memory";
  return {
    mode,
    durability,
    inMemory,
    path: placeOf(path, inMemory),
    numbers,
  };
}

function storageOf(handle: Handle, settings: Settings) {
  return settings.mode === "sync"
    ? new JazzStorageSync(handle, settings)
    : new JazzStorageAsync(handle, settings);
}

/*
 * Open or create the database in directory PATH, for `node.setStorage()` or
 * `startWorker({ storage })`.  It may be open already, also in another thread
 * of this process.  What a crash left is recovered before this returns.
 *
 * Throws a BftreeError.
 */
export function openJazzStorage(
  path: string,
  options: JazzStorageOptions & { mode: "sync" },
): JazzStorageSync;
export function openJazzStorage(
  path: string,
  options?: JazzStorageOptions & { mode?: "async" },
): JazzStorageAsync;
export function openJazzStorage(
  path: string,
  options?: JazzStorageOptions,
): JazzStorageSync | JazzStorageAsync;
export function openJazzStorage(
  path: string,
  options: JazzStorageOptions = {},
): JazzStorageSync | JazzStorageAsync {
  const settings = prepare(path, options);
  const handle = Handle.open(settings.path, settings.numbers);
  return storageOf(handle, settings);
}

/* The same, with the recovery in another thread. */
export function openJazzStorageAsync(
  path: string,
  options: JazzStorageOptions & { mode: "sync" },
): Promise<JazzStorageSync>;
export function openJazzStorageAsync(
  path: string,
  options?: JazzStorageOptions & { mode?: "async" },
): Promise<JazzStorageAsync>;
export function openJazzStorageAsync(
  path: string,
  options?: JazzStorageOptions,
): Promise<JazzStorageSync | JazzStorageAsync>;
export async function openJazzStorageAsync(
  path: string,
  options: JazzStorageOptions = {},
): Promise<JazzStorageSync | JazzStorageAsync> {
  const settings = prepare(path, options);
  const handle = await Handle.openAsync(settings.path, settings.numbers);
  return storageOf(handle, settings);
}
