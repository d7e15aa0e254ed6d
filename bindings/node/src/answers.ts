/* What the native side answers, as rows; its texts are JSON. */
import { logger } from "cojson";
import type {
  SignatureAfterRow,
  StoredSessionRow,
  TransactionRow,
} from "cojson";
import { places, result } from "./native.ts";
import type { Answer } from "./native.ts";
import type { Header, SesID, Signature, Tx } from "./rows.ts";

/* bft_covalue_what */
export const What = { ROWS: 1, CONTENT: 2 } as const;

const SESSION_SIGNED = 1;
const SESSION_CONTENT = 2;

type LoadAnswer = [
  row: number,
  sessions: StoredSessionRow[],
  contents: [flags: number, signatures: number, transactions: number][],
  signatures: SignatureAfterRow[],
  values: [Header, ...Tx[]],
];

/* Of one session what cojson asks for first. */
export type Content = {
  session: number;
  /* Undefined: not read, or handed out already. */
  signatures: SignatureAfterRow[] | undefined;
  transactions: TransactionRow[] | undefined;
  /* Index of the last of these transactions. */
  end: number;
};

export type Loaded = {
  rowID: number;
  changes: number;
  header: Header;
  sessions: StoredSessionRow[];
  contents: Content[];
};

const notOneText = () =>
  new SyntaxError("a stored value is not one JSON text");

export function transactionRows(
  session: number,
  first: number,
  txs: readonly Tx[],
): TransactionRow[] {
  const rows = new Array<TransactionRow>(txs.length);
  for (let i = 0; i < txs.length; i++)
    rows[i] = { ses: session, idx: first + i, tx: txs[i]! };
  return rows;
}

/* COUNT transactions in their usual shape, whose strings TEXT starts with. */
function usualTransactions(text: string, count: number): Tx[] {
  const txs = new Array<Tx>(count);
  let at = 0;
  let keyUsed = "";
  for (let i = 0; i < count; i++) {
    const end = at + places[3 * i]!;
    const keyLength = places[3 * i + 1]!;
    const encryptedChanges = text.slice(at, end);
    at = end;
    if (keyLength >= 0) {
      at += keyLength;
      keyUsed = text.slice(end, at);
    }
    const madeAt = places[3 * i + 2]!;
    txs[i] = { encryptedChanges, keyUsed, madeAt, privacy: "private" } as Tx;
  }
  return txs;
}

/* The session id that came last: most CoValues are of few sessions, and a string
 * that V8 has seen as a key before is found again without a look at it. */
let lastSessionID = "" as SesID;

function sessionIDAt(text: string, at: number, length: number): SesID {
  if (lastSessionID.length !== length || !text.startsWith(lastSessionID, at))
    lastSessionID = text.slice(at, at + length) as SesID;
  return lastSessionID;
}

/* A CoValue with one session: bftn_answer_usual_load(). */
function readUsual(text: string, changes: number, txs: Tx[]): Loaded {
  const rowID = result(0);
  const session = result(4);
  const lastIdx = result(5);
  const bytes = result(6);
  const signatureAt = result(3) + result(7);
  const headerAt = signatureAt + result(8);
  const row = {
    rowID: session,
    coValue: rowID,
    sessionID: sessionIDAt(text, result(3), result(7)),
    lastIdx,
    lastSignature: text.slice(signatureAt, headerAt) as Signature,
    bytesSinceLastSignature: bytes === 0 ? null : bytes - 1,
  } as unknown as StoredSessionRow;
  const content: Content = {
    session,
    signatures: [],
    transactions: transactionRows(session, 0, txs),
    end: lastIdx - 1,
  };
  const header = JSON.parse(text.slice(headerAt)) as Header;
  return { rowID, changes, header, sessions: [row], contents: [content] };
}

/* Throws where a header or a transaction is not JSON. */
export function readLoaded(text: string, changes: number): Loaded {
  const usualCount = result(2);
  const usual = usualTransactions(text, usualCount);
  if (result(4) !== 0) return readUsual(text, changes, usual);
  const [rowID, sessions, parts, signatures, [header, ...others]] = JSON.parse(
    text.slice(result(3)),
  ) as LoadAnswer;
  const all = usualCount > 0 ? usual : others;
  const contents = new Array<Content>(sessions.length);
  let nextSignature = 0;
  let nextTx = 0;
  for (let i = 0; i < sessions.length; i++) {
    const { rowID: session, lastIdx } = sessions[i]!;
    const [flags, signatureCount, txCount] = parts[i]!;
    const own = signatures.slice(nextSignature, nextSignature + signatureCount);
    const txs = all.slice(nextTx, nextTx + txCount);
    nextSignature += signatureCount;
    nextTx += txCount;
    const whole = (flags & SESSION_CONTENT) !== 0;
    contents[i] = {
      session,
      signatures: whole || (flags & SESSION_SIGNED) === 0 ? own : undefined,
      transactions: whole ? transactionRows(session, 0, txs) : undefined,
      end: own.length > 0 ? own[0]!.idx : lastIdx - 1,
    };
  }
  if (nextTx !== all.length || (usualCount > 0 && others.length > 0))
    throw notOneText();
  return { rowID, changes, header, sessions, contents };
}

/* The header alone; undefined, with a warning, where it is not JSON. */
export function readHeader(id: string, text: string): Header | undefined {
  try {
    return (JSON.parse(text.slice(result(3))) as LoadAnswer)[4][0];
  } catch (err) {
    logger.warn("Invalid JSON in header", { id, err });
    return undefined;
  }
}

/* Of the answer to TRANSACTIONS. */
const Form = { INDEXES: 1, STRINGS: 2, USUAL: 3 } as const;

function readRows(session: number, first: number, form: number, text: string) {
  if (form === Form.USUAL)
    return transactionRows(session, first, usualTransactions(text, result(3)));
  if (form !== Form.INDEXES)
    return transactionRows(session, first, JSON.parse(text) as Tx[]);
  const [indexes, txs] = JSON.parse(text) as [number[], Tx[]];
  return txs.map((tx, i) => ({ ses: session, idx: indexes[i]!, tx }));
}

/* Give each transaction the long string that was cut out of it. */
function fillIn([text, ...strings]: string[]): Tx[] {
  const [places, txs] = JSON.parse(text!) as [(number | string)[], Tx[]];
  for (const [i, string] of strings.entries()) {
    const tx = txs[places[2 * i] as number] as Record<string, unknown>;
    tx[places[2 * i + 1]!] = string;
  }
  return txs;
}

/*
 * A piece of a range, from the results of TRANSACTIONS.  `next` is where the
 * rest begins, 0 if there is none; `rows` is undefined, with a warning, where a
 * transaction is not JSON.
 */
export function readRange(
  session: number,
  answer: Answer,
): { rows: TransactionRow[] | undefined; next: number } {
  const next = result(0);
  const first = result(1);
  const form = result(2);
  const count = result(3);
  try {
    const rows =
      form === Form.STRINGS
        ? transactionRows(session, first, fillIn(answer as string[]))
        : readRows(session, first, form, answer as string);
    if (rows.length !== count) throw notOneText();
    return { rows, next };
  } catch (err) {
    logger.warn("Invalid JSON in transaction", { err });
    return { rows: undefined, next: 0 };
  }
}
