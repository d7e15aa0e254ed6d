/* A database below a storage, to look into: not a way to read or write rows. */
import { calls } from "./native.ts";
import type { Answer, Handle } from "./native.ts";

/* Counters since the database was opened, gauges now, by the names that
 * bft_stats has in bftree.h. */
export type Stats = Record<string, number>;

/* How many rows there are, by the names that bft_covalue_census has in
 * bftree_stores.h. */
export type Census = Record<string, number>;

const noText = () => undefined;
const numbers = (answer: Answer) =>
  JSON.parse(answer as string) as Record<string, number>;

export class Database {
  constructor(private readonly handle: Handle) {}

  get path(): string {
    return this.handle.path;
  }

  /*
   * Close it for good, under whatever uses it: every later call fails with
   * BFT_INVALID.  The storage's own close() comes first.
   */
  async close(): Promise<void> {
    await this.handle.close();
  }

  stats(): Stats {
    return numbers(this.handle.run(calls.STATS));
  }

  /* Everything accepted before survives power loss when it resolves. */
  async sync(): Promise<void> {
    await this.handle.submit(calls.SYNC, noText);
  }

  /* Later recovery starts from here. */
  async checkpoint(): Promise<void> {
    await this.handle.submit(calls.CHECKPOINT, noText);
  }

  /* Walk everything; rejects with BFT_CORRUPT and the place. */
  async verify(): Promise<void> {
    await this.handle.submit(calls.VERIFY, noText);
  }

  /* Walk all rows of the store, while nobody writes. */
  censusNow(): Census {
    return numbers(this.handle.run(calls.CENSUS));
  }

  async census(): Promise<Census> {
    return this.handle.submit(calls.CENSUS, numbers);
  }
}
