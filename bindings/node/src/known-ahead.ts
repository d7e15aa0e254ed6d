/*
 * Known states are asked for one by one, but mostly, as when all CoValues are
 * compared with a peer, in the order in which the store has them.  Once that
 * shows, the native side answers for the CoValues that follow too, twice as many
 * each time, and what was not asked for yet lies here.  Each state is handed out
 * once, for callers keep and change what they get, and only while the store has
 * not changed.
 */
import { calls, result, setNumbers, setText } from "./native.ts";
import type { Answer, Handle } from "./native.ts";
import type { Read } from "./reads.ts";
import type { KnownState } from "./rows.ts";

/* States in one answer, at most. */
const WINDOW_MAX = 64;

export class KnownAhead {
  /* By row id; those before `next` are handed out, or were passed by. */
  private states: KnownState[] = [];
  private next = 0;
  /* How many changes the store had counted when they were read. */
  private seen = -1;
  /* Row of the CoValue behind the last of them. */
  private nextRow = 0;
  private window = 1;

  constructor(private readonly handle: Handle) {}

  clear() {
    this.states = [];
    this.next = 0;
  }

  /* The state of ID, if it is here. */
  take(id: string): KnownState | undefined {
    const { states } = this;
    for (let i = this.next; i < states.length; i++) {
      const state = states[i]!;
      if (state.id !== id) continue;
      if (this.handle.changes() !== this.seen) break;
      this.next = i + 1;
      return state;
    }
    return undefined;
  }

  /* Ask the native side. */
  read(id: string): Read<KnownState | undefined> {
    setNumbers(this.window);
    setText(id);
    return { kind: calls.KNOWN, read: this.readStates };
  }

  private readonly readStates = (answer: Answer): KnownState | undefined => {
    if (answer === undefined) return undefined;
    const row = result(0);
    this.seen = result(1);
    this.states = JSON.parse(answer as string) as KnownState[];
    this.next = 1;
    this.window =
      row === this.nextRow ? Math.min(2 * this.window, WINDOW_MAX) : 1;
    this.nextRow = row + this.states.length;
    return this.states[0];
  };
}
