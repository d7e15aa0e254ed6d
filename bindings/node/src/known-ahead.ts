/*
 * Known states are asked for one by one, but mostly, as when all CoValues are
 * compared with a peer, in the order in which the store has them.  Once that
 * shows, the native side answers for the CoValues that follow too, twice as many
 * each time, and what was not asked for yet lies here, as it came:
 * native/known_states.h.  A state becomes an object when it is asked for, so each
 * caller gets one of its own, and only while the store has not changed.
 */
import { calls, places, result, setNumbers, setText } from "./native.ts";
import type { Answer, Handle } from "./native.ts";
import type { Read } from "./reads.ts";
import type { CoID, KnownState, SesID } from "./rows.ts";

/* States in one answer, at most. */
const WINDOW_MAX = 256;

export class KnownAhead {
  /* The ids that were not asked for yet lie in it from textAt on. */
  private text = "";
  private textAt = 0;
  /* Of them what the native side says, from numbersAt on. */
  private numbers: Float64Array | undefined;
  private numbersAt = 0;
  /* How many. */
  private left = 0;
  private names: SesID[] = [];
  /* How many changes the store had counted when they were read. */
  private seen = -1;
  /* Row of the CoValue behind the last of them. */
  private nextRow = 0;
  private window = 1;

  constructor(private readonly handle: Handle) {}

  clear() {
    this.text = "";
    this.names = [];
    this.left = 0;
  }

  /* The state of ID, if it is here. */
  take(id: string): KnownState | undefined {
    if (this.left === 0 || typeof id !== "string") return undefined;
    const { text } = this;
    const numbers = this.numbers!;
    let textAt = this.textAt;
    let at = this.numbersAt;
    for (let left = this.left; left > 0; left--) {
      const idLength = numbers[at]!;
      if (idLength === id.length && text.startsWith(id, textAt)) {
        if (this.handle.changes() !== this.seen) break;
        this.left = left;
        this.textAt = textAt;
        this.numbersAt = at;
        return this.next(id);
      }
      textAt += idLength;
      at += 2 + 2 * numbers[at + 1]!;
    }
    return undefined;
  }

  /* The state of the next one, which is ID. */
  private next(id: string): KnownState {
    const { names } = this;
    const numbers = this.numbers!;
    let at = this.numbersAt;
    this.textAt += numbers[at]!;
    const sessions: KnownState["sessions"] = {};
    const end = at + 2 + 2 * numbers[at + 1]!;
    for (at += 2; at < end; at += 2)
      sessions[names[numbers[at]!]!] = numbers[at + 1]!;
    this.numbersAt = at;
    this.left--;
    return { id: id as CoID, header: true, sessions };
  }

  /* Ask the native side. */
  read(id: string): Read<KnownState | undefined> {
    setNumbers(this.window);
    setText(id);
    return {
      kind: calls.KNOWN,
      read: (answer) => this.readStates(id, answer),
    };
  }

  private readStates(id: string, answer: Answer): KnownState | undefined {
    if (answer === undefined) return undefined;
    const row = result(0);
    const count = result(2);
    this.clear();
    if (count === 0) {
      this.nextRow = row + 1;
      this.window = 1;
      return JSON.parse(answer as string) as KnownState;
    }
    this.window =
      row === this.nextRow ? Math.min(2 * this.window, WINDOW_MAX) : 1;
    this.nextRow = row + count;
    this.keep(answer as string, count);
    return this.next(id);
  }

  /* What the native side has just answered: TEXT for COUNT CoValues. */
  private keep(text: string, count: number) {
    this.seen = result(1);
    this.numbers ??= new Float64Array(places.length);
    let textAt = 0;
    let at = 0;
    for (let i = 0; i < count; i++) {
      textAt += places[at]!;
      at += 2 + 2 * places[at + 1]!;
    }
    for (let left = result(3); left > 0; left--) {
      const end = textAt + places[at++]!;
      this.names.push(text.slice(textAt, end) as SesID);
      textAt = end;
    }
    this.numbers.set(places.subarray(0, at));
    this.text = text;
    this.textAt = 0;
    this.numbersAt = 0;
    this.left = count;
  }
}
