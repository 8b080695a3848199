/** Writes answers: through `node:http`, or as bytes if it parsed no request. */
import { STATUS_CODES, type ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import type { Clock } from '../../base/time/clock.ts';
import type { Answer } from '../base/answers.ts';
import { buildInfo } from '../base/build-info.ts';

/** Clients look for "IMDS" in it. */
export const serverHeader = `IMDS/150.870.65.0 nmi/${buildInfo.version}`;

/** A peer that does not read must not keep the socket: it is destroyed this long after its end. */
const closeAfterMs = 1_000;

export function writeAnswer(
  response: ServerResponse,
  answer: Answer,
  requestId: string,
  isLast: boolean,
): void {
  const headers = answerHeaders(answer, requestId);
  if (isLast || answer.close === true) headers.push('Connection', 'close');
  response.writeHead(answer.status, headers);
  response.end(answer.body);
}

/** Writes an answer without `node:http`, and ends the connection. */
export function writeRawAnswer(
  socket: Duplex,
  answer: Answer,
  requestId: string,
  clock: Clock,
): void {
  const headers = answerHeaders(answer, requestId);
  headers.push('Connection', 'close', 'Date', new Date(clock.wallMs()).toUTCString());
  const lines = [`HTTP/1.1 ${answer.status} ${STATUS_CODES[answer.status] ?? ''}`];
  for (let index = 0; index < headers.length; index += 2) {
    lines.push(headers.slice(index, index + 2).join(': '));
  }
  const head = `${lines.join('\r\n')}\r\n`;
  socket.end(`${head}\r\n${answer.body}`);
  const disarm = clock.schedule(closeAfterMs, () => socket.destroy());
  socket.once('close', disarm);
}

/** @returns a flat list of names and values, as `writeHead` takes it. */
function answerHeaders(answer: Answer, requestId: string): string[] {
  const headers = [
    'Content-Type',
    'application/json; charset=utf-8',
    'Content-Length',
    String(Buffer.byteLength(answer.body)),
    'Server',
    serverHeader,
    'x-ms-request-id',
    requestId,
  ];
  if (answer.retryAfterS !== undefined) headers.push('Retry-After', String(answer.retryAfterS));
  if (answer.allow !== undefined) headers.push('Allow', answer.allow);
  return headers;
}
