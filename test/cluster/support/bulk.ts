/** Many writes, several at a time: for objects by the thousand. */

/** The number of parallel requests that two cores of a test machine answer fastest. */
const atOnce = 32;

/** Calls `write` with 0 to `count` - 1. Rejects with the first failure, after the running calls. */
export async function inBulk(
  count: number,
  write: (index: number) => Promise<unknown>,
): Promise<void> {
  let next = 0;
  async function work(): Promise<void> {
    while (next < count) {
      const index = next;
      next += 1;
      await write(index);
    }
  }
  await Promise.all(Array.from({ length: atOnce }, work));
}
