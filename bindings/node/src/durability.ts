/*
 * When does a write survive what?
 *
 *   none      a clean close, or a checkpoint
 *   buffered  a kill of the process
 *   sync      power loss
 */
export type Durability = "none" | "buffered" | "sync";

/* bft_durability */
const numbers = { none: 1, buffered: 2, sync: 3 } as const;

export const durabilityNumber = (durability: Durability): number =>
  numbers[durability];

/* Of a commit that nobody waits for: what "sync" adds comes later. */
export const acceptedDurability = (durability: Durability): Durability =>
  durability === "none" ? "none" : "buffered";

export const isDurability = (value: unknown): value is Durability =>
  typeof value === "string" && Object.hasOwn(numbers, value);
