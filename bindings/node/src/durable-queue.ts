/*
 * Who waits for which commit to be durable.  One question is out at a time, for
 * the latest commit that anybody waits for; those that come meanwhile share the
 * next one.
 */
import { logger } from "cojson";
import { calls, setNumber } from "./native.ts";
import type { Handle } from "./native.ts";

type Waiter = { lsn: number; then: () => void };

export class DurableQueue {
  private waiters: Waiter[] = [];
  private asking: Promise<void> | undefined;

  constructor(private readonly handle: Handle) {}

  /* Call THEN once everything up to LSN survives power loss; never if the sync
   * fails. */
  wait(lsn: number, then: () => void) {
    this.waiters.push({ lsn, then });
    this.asking ??= this.ask();
  }

  /* When nobody waits any more. */
  async settled(): Promise<void> {
    while (this.asking) await this.asking;
  }

  private async ask(): Promise<void> {
    /* Not before wait() has put down that this is running: a question may be
     * refused at once, and would be out for ever. */
    await undefined;
    while (this.waiters.length > 0) {
      const asked = this.waiters;
      this.waiters = [];
      try {
        /* Not Math.max(): there may be more than it takes arguments. */
        setNumber(0, asked.reduce((most, { lsn }) => Math.max(most, lsn), 0));
        await this.handle.submit(calls.DURABLE, () => undefined);
      } catch (err) {
        /* cojson takes what is not reported as stored for not stored. */
        logger.error("bftree: a sync failed, what was stored may not last", {
          err,
        });
        continue;
      }
      for (const { then } of asked) this.fire(then);
    }
    this.asking = undefined;
  }

  private fire(then: () => void) {
    try {
      then();
    } catch (err) {
      logger.error("bftree: an error after storing", { err });
    }
  }
}
