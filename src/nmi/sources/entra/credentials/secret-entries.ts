/** Reads the entries of a Secret that people fill manually. */

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
