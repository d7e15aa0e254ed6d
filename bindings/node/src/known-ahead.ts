/*
 * Known states are asked for one by one, but mostly, as when all CoValues are
 * compared with a peer, in the order in which the store has them.  Once that
 * shows, the native side answers for the CoValues that follow too, twice as many
 * each time, and what was not asked for yet lies here, as it came:
 * native/known_states.h.  A state becomes an object when it is asked for, so each
 * caller gets one of its own, and only while the store has not changed.
 */
import { calls, knownNumbers, result, setNumbers, setText } from "./native.ts";
import type { Answer, Handle } from "./native.ts";
import type { Read } from "./reads.ts";
import type { CoID, KnownState, SesID } from "./rows.ts";

/* States in one answer, at most. */
const WINDOW_MAX = 256;
/* Names of sessions that an answer is of few of. */
const FEW_NAMES = 8;

/*
 * TEXT as the one string that V8 has for a key of that text.  With it the states
 * are made, and their sessions listed, in a third of the time, for V8 need not
 * look for that string again and knows the keys of their shape.
 */
const asKey = (text: string) => Object.keys({ [text]: 0 })[0] as SesID;

export class KnownAhead {
  /* The ids that were not asked for yet lie in it from textAt on. */
  private text = "";
  private textAt = 0;
  /* Of them what the native side says, from numbersAt on. */
  private numbers = new Int32Array(0);
  private numbersAt = 0;
  /* How many. */
  private left = 0;
  /* Those of the answer before it stay where they are the same. */
  private names: SesID[] = [];
  /* How many changes the store had counted when they were read. */
  private seen = -1;
  /* Row of the CoValue behind the last of them. */
  private nextRow = 0;
  private window = 1;

  constructor(private readonly handle: Handle) {}

  clear() {
    this.text = "";
    this.left = 0;
    /* Another opening of the database counts anew, and may come to the same. */
    this.seen = -1;
  }

  /* The state of ID, if it is here. */
  take(id: string): KnownState | undefined {
    if (this.left === 0 || typeof id !== "string") return undefined;
    const { text, numbers } = this;
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
    const { names, numbers } = this;
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
    const end = result(5);
    this.seen = result(1);
    if (this.numbers.length < end)
      this.numbers = new Int32Array(knownNumbers.length);
    this.numbers.set(knownNumbers.subarray(0, end));
    this.keepNames(text);
    this.text = text;
    this.textAt = 0;
    this.numbersAt = 0;
    this.left = count;
  }

  private keepNames(text: string) {
    const { names } = this;
    const count = result(3);
    let textAt = result(4);
    let at = result(5);
    for (let i = 0; i < count; i++) {
      const end = textAt + knownNumbers[at++]!;
      const before = names[i];
      if (
        before?.length !== end - textAt ||
        !text.startsWith(before, textAt)
      ) {
        const name = text.slice(textAt, end);
        names[i] = count <= FEW_NAMES ? asKey(name) : (name as SesID);
      }
      textAt = end;
    }
    names.length = count;
  }
}
