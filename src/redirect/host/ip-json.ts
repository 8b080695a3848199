/** Runs `ip -j`, and reads its output without trusting its shape. */
import { asRecord, type JsonRecord } from '../../base/json-value.ts';
import { RedirectError } from '../redirect.ts';
import { outputOf, type Host } from './command.ts';

/** The maximum of an output: with IPVS a node has the address of every Service of the cluster. */
const maxBytes = 16 << 20;

/** The objects that `ip -j` prints. @throws RedirectError */
export async function readIp(
  host: Host,
  step: string,
  args: readonly string[],
): Promise<readonly JsonRecord[]> {
  const result = await host.run('ip', ['-j', ...args], { maxBytes });
  const entries = parseIpJson(outputOf(step, 'ip', result));
  if (entries !== undefined) return entries;
  throw new RedirectError('TOOL_FAILED', step, 'ip printed no JSON (iproute2 needed)');
}

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
