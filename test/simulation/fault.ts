/** Faults that are planted in the text of a file, to see that the simulation finds them. */

export interface Fault {
  readonly name: string;
  readonly edits: readonly { readonly file: string; readonly from: string; readonly to: string }[];
}

/** @throws Error if the file has no longer the text that a fault replaces. */
export function edited(url: string, text: string, fault: Fault | undefined): string {
  let result = text;
  for (const { file, from, to } of fault?.edits ?? []) {
    if (!url.endsWith(`/${file}`)) continue;
    if (!result.includes(from)) throw new Error(`${file} has no longer the text: ${from}`);
    result = result.replace(from, () => to);
  }
  return result;
}
