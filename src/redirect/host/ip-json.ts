/** Parses the output of `ip -j` without trusting its shape. */

export type JsonObject = Readonly<Record<string, unknown>>;

/** The objects of a JSON array; `undefined` for any other text. Never throws. */
export function parseIpJson(text: string): readonly JsonObject[] | undefined {
  // Some versions of ip print nothing instead of an empty array.
  if (text.trim() === '') return [];
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!Array.isArray(value)) return undefined;
  return value.map(objectOf).filter((entry) => entry !== undefined);
}

export function objectOf(value: unknown): JsonObject | undefined {
  return isObject(value) ? value : undefined;
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}
