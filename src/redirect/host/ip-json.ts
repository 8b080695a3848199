/** Parses the output of `ip -j` without trusting its shape. */
import { asRecord, type JsonRecord } from '../../base/json-value.ts';

/** The objects of a JSON array; `undefined` for any other text. Never throws. */
export function parseIpJson(text: string): readonly JsonRecord[] | undefined {
  // Some versions of ip print nothing instead of an empty array.
  if (text.trim() === '') return [];
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!Array.isArray(value)) return undefined;
  return value.map(asRecord).filter((entry) => entry !== undefined);
}

export function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}
