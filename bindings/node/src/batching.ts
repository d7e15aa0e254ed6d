/*
 * What is stored by one commit, and when.
 *
 * A message that comes after a pause is stored at once.  Those that come shortly
 * after each other are stored together: a commit, and the way to it and back,
 * cost about as much for one as for many.  What a message changes is made out
 * when it comes, while all of it lies in the processor's caches.
 *
 * cojson's queue takes what cannot be stored so, and all that comes until it has
 * been: messages are stored in the order in which they come.
 */
import { logger } from "cojson";
import type { StorageApiAsync } from "cojson";
import { BftreeError } from "./bftree-error.ts";
import type { BftreeClientAsync } from "./client-async.ts";
import { MESSAGES_MAX } from "./store-batch.ts";
import type { Entry, StoreBatch } from "./store-batch.ts";

/* Whatever the tests of an application make of timers. */
const { setTimeout, clearTimeout } = globalThis;

/* From the end of a batch to that of the next one. */
const PAUSE_MS = 1;
/* When nobody else has come in a pause, so many batches end without one. */
const HASTE_MIN = 16;
const HASTE_MAX = 1024;

/* What failed so may be stored, or go wrong, message by message. */
const perMessage = new Set([
  "BFT_CONFLICT",
  "BFT_TOO_BIG",
  "BFT_INVALID",
  "BFT_EXISTS",
  "BFT_NOT_FOUND",
]);

type Queue = StorageApiAsync["storeQueue"];

export class Batching {
  /* When the last batch ended. */
  private ended = 0;
  private haste = 0;
  private hasteNext = HASTE_MIN;
  private timer: NodeJS.Timeout | undefined;
  /* The batch is on its way into the store. */
  private running: Promise<void> | undefined;
  /* What was in the queue when it was closed. */
  private readonly rest: Entry[] = [];

  private readonly push: Queue["push"];
  private readonly processQueue: Queue["processQueue"];

  /*
   * Stand in for QUEUE, which store() of cojson's storage pushes messages to and
   * has processed.  ALONE: store one message as cojson does; COMES: called with
   * each message.
   */
  constructor(
    private readonly queue: Queue,
    private readonly client: BftreeClientAsync,
    private readonly batch: StoreBatch,
    private readonly alone: (entry: Entry) => Promise<boolean>,
    private readonly comes: () => void,
  ) {
    this.push = queue.push.bind(queue);
    this.processQueue = queue.processQueue.bind(queue);
    queue.push = (...entry) => this.store(...entry);
    queue.processQueue = () => undefined;
  }

  private store(
    data: Entry["data"],
    correctionCallback: Entry["correctionCallback"],
    done?: Entry["done"],
  ) {
    const { queue } = this;
    if (queue.closed) return;
    this.comes();
    if (!this.running && !queue.processing) {
      const entry = { data, correctionCallback, done };
      if (this.add(entry)) {
        if (this.batch.isFull) void this.flush();
        else if (this.batch.entries.length === 1) this.flushSoon();
        return;
      }
    }
    this.push(data, correctionCallback, done);
    void this.processQueue(this.storeFirst);
  }

  /* Take ENTRY into the batch.  False: it cannot be; those that were in it may be
   * on their way, each by itself. */
  private add(entry: Entry): boolean {
    try {
      return this.batch.add(entry);
    } catch (err) {
      clearTimeout(this.timer);
      this.running = this.failed(err);
      return false;
    }
  }

  /* For processQueue(): store a message, and those that come with it. */
  private readonly storeFirst = (
    data: Entry["data"],
    correctionCallback: Entry["correctionCallback"],
    done: Entry["done"],
  ): Promise<void> => this.storeAll({ data, correctionCallback, done });

  private async storeAll(first: Entry | undefined): Promise<void> {
    let entry = first;
    while (entry) {
      if (this.batch.isFull) void this.flush();
      while (this.running) await this.running;
      if (!this.add(entry)) {
        await this.flush();
        if (this.running || !this.add(entry)) {
          while (this.running) await this.running;
          await this.storeAlone(entry);
        }
      }
      entry = this.rest.shift() ?? this.queue.pull();
    }
    await this.flush();
  }

  /*
   * Before the queue is closed: end the batch, and let it have what could have
   * been stored by now, but for the sake of a commit with others.
   */
  closing(): Promise<unknown> {
    const { queue, rest } = this;
    void this.flush();
    if (queue.processing)
      for (let i = 0; i < MESSAGES_MAX; i++) {
        const entry = queue.pull();
        if (!entry) break;
        rest.push(entry);
      }
    /* Queues take turns: where this one's has not come nobody looks at them, nor
     * where it is only waiting for its last commit. */
    const behind = () => this.storeAll(rest.shift());
    return queue.lastCallback?.then(behind, behind) ?? behind();
  }

  /* --- When --- */

  private flushSoon() {
    if (this.haste > 0) this.haste--;
    else if (performance.now() - this.ended < PAUSE_MS) {
      this.timer = setTimeout(this.flushLate, PAUSE_MS);
      return;
    }
    queueMicrotask(this.flushNow);
  }

  private readonly flushNow = () => void this.flush();

  private readonly flushLate = () => {
    if (this.batch.entries.length > 1) this.hasteNext = HASTE_MIN;
    else {
      this.haste = this.hasteNext;
      this.hasteNext = Math.min(2 * this.hasteNext, HASTE_MAX);
    }
    void this.flush();
  };

  /* --- What --- */

  /* End the batch; resolves when all of it is stored, or cannot be. */
  private flush(): Promise<void> | undefined {
    if (this.running) return this.running;
    if (this.batch.entries.length === 0) return undefined;
    clearTimeout(this.timer);
    this.ended = performance.now();
    try {
      const running = this.client.together(this.batch);
      if (!running) {
        this.stored();
        return undefined;
      }
      this.running = running.then(this.stored, this.failed);
    } catch (err) {
      this.running = this.failed(err);
    }
    return this.running;
  }

  private readonly stored = () => {
    const { batch } = this;
    const entries = batch.entries.slice();
    for (let i = 0; i < entries.length; i++) batch.show(i);
    batch.clear();
    this.running = undefined;
    for (const entry of entries) this.done(entry);
  };

  private readonly failed = async (err: unknown): Promise<void> => {
    const { batch } = this;
    const entries = batch.entries.slice();
    batch.failed();
    batch.clear();
    /* Not before the caller has put down that this is running: it would be for
     * ever, and who waits for its end would never let another turn come. */
    await undefined;
    if (err instanceof BftreeError && perMessage.has(err.code))
      for (const entry of entries) await this.storeAlone(entry);
    else for (const _ of entries) report(err);
    this.running = undefined;
  };

  private async storeAlone(entry: Entry) {
    try {
      if (await this.alone(entry)) this.done(entry);
    } catch (err) {
      report(err);
    }
  }

  private done({ done }: Entry) {
    if (!done) return;
    try {
      this.client.whenDurable(done);
    } catch (err) {
      report(err);
    }
  }
}

/* As cojson's queue does. */
function report(err: unknown) {
  logger.error("Error processing message in store queue", { err });
}
