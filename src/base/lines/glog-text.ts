/**
 * A JSON log line in the text format of the replaced system (glog's header), so that operators'
 * `grep ^E` and `grep "status ("` keep working.
 */
import { parseRecord, stringAt, type JsonRecord } from '../json-value.ts';

/**
 * By level; all others are information. A refused request is an error, as in the replaced system.
 */
const severities: Readonly<Record<string, string>> = { fatal: 'F', error: 'E', warn: 'W' };

const headerFields = new Set(['level', 'time', 'component', 'msg']);

/**
 * @param line one JSON object written by the logger. A line that is not JSON is returned unchanged.
 */
export function renderGlogLine(line: string, pid: number): string {
  const fields = parseRecord(line);
  if (fields === undefined) return line;
  const severity = isRefusal(fields) ? 'E' : (severities[stringAt(fields, 'level')] ?? 'I');
  const place = `${stringAt(fields, 'component') || 'nmi'}:1`;
  const header = `${severity}${stamp(stringAt(fields, 'time'))} ${String(pid).padStart(7)} ${place}]`;
  const pairs = Object.entries(fields)
    .filter(([name]) => !headerFields.has(name))
    .map(
      ([name, value]) =>
        `${name}=${typeof value === 'string' ? quote(value) : JSON.stringify(value)}`,
    );
  return `${[header, accessLine(fields) ?? stringAt(fields, 'msg'), ...pairs].join(' ')}\n`;
}

/** The access line of the replaced system, including its field `reg.path`. */
function accessLine(fields: JsonRecord): string | undefined {
  const { status, durationMs } = fields;
  if (typeof status !== 'number' || typeof durationMs !== 'number') return undefined;
  const took = Math.round(durationMs * 1e6);
  return (
    `status (${status}) took ${took} ns for req.method=${stringAt(fields, 'method')} ` +
    `reg.path=${stringAt(fields, 'path')} req.remote=${stringAt(fields, 'podIp')}`
  );
}

function isRefusal({ level, status }: JsonRecord): boolean {
  return level === 'warn' && typeof status === 'number';
}

/** `MMDD hh:mm:ss.uuuuuu` from an ISO time. */
function stamp(iso: string): string {
  return `${iso.slice(5, 7)}${iso.slice(8, 10)} ${iso.slice(11, 19)}${iso.slice(19, 23)}000`;
}

/**
 * Also escapes C1 controls and Unicode line ends, which JSON does not, but terminals and grep
 * interpret.
 */
function quote(value: string): string {
  const quoted = /[\s"=]/.test(value) ? JSON.stringify(value) : value;
  return quoted.replaceAll(/[\x7f-\x9f\u2028\u2029]/g, '?');
}
