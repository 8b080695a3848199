/** Reads fields of unknown JSON without trusting its shape. */

export type JsonRecord = Readonly<Record<string, unknown>>;

/** The value as an object, or `undefined` for anything else (arrays and null included). */
export function asRecord(value: unknown): JsonRecord | undefined {
  return isRecord(value) ? value : undefined;
}

function isRecord(value: unknown): value is JsonRecord {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The string at `key`, or the empty string. */
export function stringAt(record: JsonRecord | undefined, key: string): string {
  return textOf(record?.[key]) ?? '';
}

/** The value if it is a string. */
export function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

/** The JSON object in a text, or `undefined` for anything else, broken JSON included. */
export function parseRecord(text: string): JsonRecord | undefined {
  try {
    return asRecord(JSON.parse(text));
  } catch {
    return undefined;
  }
}
