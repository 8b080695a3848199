/** Reads the entries of a Secret that people fill manually. */
import { printable } from '../../../../base/printable.ts';

/** Names of the entries of a Secret, for an error; never their values. */
export function listKeys(data: ReadonlyMap<string, Buffer>): string {
  const shown = [...data.keys()].slice(0, 10).map((key) => printable(key));
  const more = data.size > shown.length ? ` and ${data.size - shown.length} more` : '';
  return `${shown.join(', ')}${more}`;
}

/** Undefined when the bytes are not UTF-8. */
export function parseUtf8(bytes: Buffer): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

/** Removes the line end that `echo` appends before `base64` encodes the text. */
export function withoutLineEnd(text: string): string {
  return text.replace(/\r?\n$/, '');
}
