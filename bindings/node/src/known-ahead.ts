/*
 * Known states are asked for one by one, but mostly, as when all CoValues are
 * compared with a peer, in the order in which the store has them.  Once that
 * shows, the native side answers for the CoValues that follow too, twice as many
 * each time, and what was not asked for yet lies here.  Each state is handed out
 * once, for callers keep and change what they get, and only while the store has
 * not changed.
 */
import { calls, result, setNumbers, setText } from "./native.ts";
import type { Answer } from "./native.ts";
import type { Read } from "./reads.ts";
import type { KnownState } from "./rows.ts";

/* States in one answer, at most. */
const WINDOW_MAX = 64;
/* Some were not asked for, or will be in another order. */
const STATES_MAX = 4 * WINDOW_MAX;

export class KnownAhead {
  private readonly states = new Map<string, KnownState>();
  /* How many changes the store had counted when they were read. */
  private seen = -1;
  /* Row of the CoValue behind the last one answered. */
  private nextRow = 0;
  private window = 1;

  /* CHANGES tells how many changes the store has counted. */
  constructor(private readonly changes: () => number) {}

  clear() {
    this.states.clear();
  }

  /* The state of ID, if it is here. */
  take(id: string): KnownState | undefined {
    const state = this.states.get(id);
    if (state === undefined) return undefined;
    if (this.changes() !== this.seen) {
      this.clear();
      return undefined;
    }
    this.states.delete(id);
    return state;
  }

  /* Ask the native side. */
  read(id: string): Read<KnownState | undefined> {
    setNumbers(this.window);
    setText(id);
    return { kind: calls.KNOWN, read: this.readStates };
  }

  private readonly readStates = (answer: Answer): KnownState | undefined => {
    const row = result(0);
    const changes = result(1);
    if (answer === undefined) return undefined;
    const states = JSON.parse(answer as string) as KnownState[];
    this.window =
      row === this.nextRow ? Math.min(2 * this.window, WINDOW_MAX) : 1;
    this.nextRow = row + states.length;
    if (changes !== this.seen || this.states.size > STATES_MAX) this.clear();
    this.seen = changes;
    for (let i = 1; i < states.length; i++)
      this.states.set(states[i]!.id, states[i]!);
    return states[0];
  };
}
