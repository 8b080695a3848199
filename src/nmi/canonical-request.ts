/**
 * The one shape of request that nearly every client sends, recognised without an HTTP parser: a
 * whole `GET` of the token path in one piece, nothing before it and nothing behind it. Pure.
 *
 * What is recognised here gets exactly the answer that `node:http` and the checks behind it would
 * give; whatever is unusual in any way is not recognised, and takes that way.
 */
import { tokenPath } from './route.ts';

const begin = `GET ${tokenPath}?`;
const end = ' HTTP/1.1';
const newline = '\r\n';
const headEnd = '\r\n\r\n';
/** No client's request comes near. */
const maxLength = 8 * 1024;
const maxHeaders = 64;

const visible = /^[\x21-\x7e]+$/;
const headerName = /^[A-Za-z0-9!#$%&'*+.^_`|~-]+$/;
const headerValue = /^[\t\x20-\x7e]*$/;

/** Headers that change how a message is framed, or what is done with the connection or request. */
const unusual: ReadonlySet<string> = new Set([
  'content-length',
  'expect',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'x-forwarded-for',
]);

export interface CanonicalRequest {
  /** As it stood in the request line. */
  readonly target: string;
  /** The client wants the connection closed after the answer. */
  readonly isLast: boolean;
  /** All that came behind the target. */
  readonly rest: string;
}

/**
 * @param text one piece from the socket as latin1.
 * @param previous of the same connection: clients that ask for something else in turn change the
 *   target alone, and headers are most of what there is to read.
 */
export function parseCanonicalRequest(
  text: string,
  previous?: CanonicalRequest,
): CanonicalRequest | undefined {
  if (previous !== undefined && text.endsWith(previous.rest)) {
    const { rest, isLast } = previous;
    const target = text.slice(4, text.length - rest.length);
    // Without a space or line break in it, what is known of the rest begins where it did before.
    const isUsual = text.length <= maxLength && text.startsWith(begin) && visible.test(target);
    return isUsual ? { target, isLast, rest } : undefined;
  }
  if (text.length > maxLength || !text.startsWith(begin) || !text.endsWith(headEnd)) {
    return undefined;
  }
  const lineEnd = text.indexOf(newline);
  if (!text.startsWith(end, lineEnd - end.length)) return undefined;
  const target = text.slice(4, lineEnd - end.length);
  // Where the first blank line is not the end, a body or another request follows.
  if (text.indexOf(headEnd) !== text.length - headEnd.length) return undefined;
  if (!visible.test(target)) return undefined;
  const isLast = readHeaders(text, lineEnd + 2);
  if (isLast === undefined) return undefined;
  return { target, isLast, rest: text.slice(lineEnd - end.length) };
}

/** Whether the connection is to be closed; undefined for headers that are not as usual. */
function readHeaders(text: string, from: number): boolean | undefined {
  let position = from;
  let metadata = 0;
  let connection: string | undefined;
  for (let count = 0; count < maxHeaders; count++) {
    if (position === text.length - 2) {
      return metadata === 1 ? connection === 'close' : undefined;
    }
    const lineEnd = text.indexOf(newline, position);
    const colon = text.indexOf(':', position);
    if (colon < 0 || colon > lineEnd) return undefined;
    const name = text.slice(position, colon);
    const value = text.slice(colon + 1, lineEnd);
    if (!headerName.test(name) || !headerValue.test(value)) return undefined;
    const known = name.toLowerCase();
    if (known === 'metadata') {
      if (value.trim() !== 'true') return undefined;
      metadata++;
    } else if (known === 'connection') {
      if (connection !== undefined) return undefined;
      connection = value.trim().toLowerCase();
      if (connection !== 'keep-alive' && connection !== 'close') return undefined;
    } else if (unusual.has(known)) {
      return undefined;
    }
    position = lineEnd + 2;
  }
  return undefined;
}
