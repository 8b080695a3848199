/**
 * A JSON log line as the text the replaced system printed (glog's header), so that operators'
 * `grep ^E` and `grep "status ("` keep working.
 */
import { parseRecord } from '../json-value.ts';

/** Of levels; all others are information. A refused request is an error there, as it was. */
const severities: Readonly<Record<string, string>> = { fatal: 'F', error: 'E', warn: 'W' };

const headerFields = new Set(['level', 'time', 'component', 'msg']);

/** @param line one JSON object as written by the logger. A line that is not JSON stays as it is. */
export function renderGlogLine(line: string, pid: number): string {
  const fields = parseRecord(line);
  if (fields === undefined) return line;
  const severity = isRefusal(fields) ? 'E' : (severities[text(fields['level'])] ?? 'I');
  const place = `${text(fields['component']) || 'nmi'}:1`;
  const header = `${severity}${stamp(text(fields['time']))} ${String(pid).padStart(7)} ${place}]`;
  const pairs = Object.entries(fields)
    .filter(([name]) => !headerFields.has(name))
    .map(
      ([name, value]) =>
        `${name}=${typeof value === 'string' ? quote(value) : JSON.stringify(value)}`,
    );
  return `${[header, accessLine(fields) ?? text(fields['msg']), ...pairs].join(' ')}\n`;
}

/** The access line of the replaced system, its odd `reg.path` included. */
function accessLine(fields: Readonly<Record<string, unknown>>): string | undefined {
  const { status, durationMs, method, path, podIp } = fields;
  if (typeof status !== 'number' || typeof durationMs !== 'number') return undefined;
  const took = Math.round(durationMs * 1e6);
  return (
    `status (${status}) took ${took} ns for req.method=${text(method)} ` +
    `reg.path=${text(path)} req.remote=${text(podIp)}`
  );
}

function isRefusal({ level, status }: Readonly<Record<string, unknown>>): boolean {
  return level === 'warn' && typeof status === 'number';
}

/** `MMDD hh:mm:ss.uuuuuu` from an ISO time. */
function stamp(iso: string): string {
  return `${iso.slice(5, 7)}${iso.slice(8, 10)} ${iso.slice(11, 19)}${iso.slice(19, 23)}000`;
}

/** JSON leaves C1 controls and the Unicode line ends as they are; a terminal or a grep does not. */
function quote(value: string): string {
  const quoted = /[\s"=]/.test(value) ? JSON.stringify(value) : value;
  return quoted.replaceAll(/[\x7f-\x9f\u2028\u2029]/g, '?');
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : '';
}
