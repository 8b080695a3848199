/**
 * Recognizes the one shape of request that nearly every client sends, without an HTTP parser: a
 * complete `GET` of the token path in one chunk, with nothing before or after it. Pure.
 *
 * A recognized request gets exactly the answer that `node:http` and the checks behind it would
 * give. A request that is unusual in any respect is not recognized and goes to `node:http`.
 */
import { tokenPath } from '../route.ts';

const begin = `GET ${tokenPath}?`;
const end = ' HTTP/1.1';
const newline = '\r\n';
const headEnd = '\r\n\r\n';
/** Requests of clients are far shorter. */
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

/** Correlation ids, which SDKs generate for each request. */
const correlation: ReadonlySet<string> = new Set([
  'client-request-id',
  'request-id',
  'traceparent',
  'x-ms-client-request-id',
  'x-ms-correlation-request-id',
]);

/** From the first byte to the one after the last. */
export interface Span {
  readonly from: number;
  readonly to: number;
}

/** The value of a header. */
export interface IdSpan extends Span {
  /** Name of the header, in lower case. */
  readonly name: string;
}

export interface CanonicalRequest {
  /** As in the request line. */
  readonly target: string;
  /** The client wants the connection closed after the answer. */
  readonly isLast: boolean;
  /** Header values, in order, that identify the request and change nothing else. */
  readonly ids: readonly IdSpan[];
}

/** The target of a request line that is otherwise known; undefined when it is unusual. */
export function parseTarget(beginning: string, length: number): string | undefined {
  if (length > maxLength || !beginning.startsWith(begin)) return undefined;
  const target = beginning.slice(4);
  return visible.test(target) ? target : undefined;
}

/** @returns whether bytes are valid in any header's value. */
export function isHeaderText(bytes: Uint8Array, { from, to }: Span): boolean {
  for (let index = from; index < to; index++) {
    const byte = bytes[index] ?? 0;
    if ((byte < 0x20 && byte !== 0x09) || byte > 0x7e) return false;
  }
  return true;
}

/** @param text one chunk from the socket as latin1. */
export function parseCanonicalRequest(text: string): CanonicalRequest | undefined {
  if (text.length > maxLength || !text.startsWith(begin) || !text.endsWith(headEnd)) {
    return undefined;
  }
  const lineEnd = text.indexOf(newline);
  if (!text.startsWith(end, lineEnd - end.length)) return undefined;
  const target = text.slice(4, lineEnd - end.length);
  // Where the first blank line is not the end, a body or another request follows.
  // No mutation: it only saves time, since no name of a header contains a line break.
  if (text.indexOf(headEnd) !== text.length - headEnd.length) return undefined;
  if (!visible.test(target)) return undefined;
  const headers = readHeaders(text, lineEnd + 2);
  return headers === undefined ? undefined : { target, ...headers };
}

/** Undefined for unusual headers. */
function readHeaders(text: string, from: number): Omit<CanonicalRequest, 'target'> | undefined {
  const ids: IdSpan[] = [];
  let position = from;
  let metadata = 0;
  let connection: string | undefined;
  for (let count = 0; count < maxHeaders; count++) {
    if (position === text.length - 2) {
      return metadata === 1 ? { isLast: connection === 'close', ids } : undefined;
    }
    const lineEnd = text.indexOf(newline, position);
    const colon = text.indexOf(':', position);
    // With the end of the line in it if the line has no colon.
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
    } else if (correlation.has(known)) {
      ids.push({ name: known, from: colon + 1, to: lineEnd });
    }
    position = lineEnd + 2;
  }
  return undefined;
}
