/**
 * Closed-loop load over raw sockets: each connection sends the next request when the answer has
 * come. A process of its own, so that it can have a core of its own; prints one JSON line.
 *
 * node bench/load.ts PORT CONNECTIONS SECONDS keep|new
 */
import { connect, type Socket } from 'node:net';

const [port = '0', connections = '1', seconds = '1', kind = 'keep'] = process.argv.slice(2);
const target =
  '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net';
const request = Buffer.from(
  `GET ${target} HTTP/1.1\r\nHost: 169.254.169.254\r\nMetadata: true\r\n` +
    `${kind === 'new' ? 'Connection: close\r\n' : ''}\r\n`,
);

const warmUpMs = 500;
const measuredMs = Number(seconds) * 1000;
const latenciesUs: number[] = [];
const startedAtMs = performance.now();
const fromMs = startedAtMs + warmUpMs;
const untilMs = fromMs + measuredMs;
let failures = 0;

/** The length of the first whole answer in the bytes, 0 while it is not whole. */
function answerLength(bytes: Buffer): number {
  const head = bytes.indexOf('\r\n\r\n');
  if (head < 0) return 0;
  const length = /content-length: (\d+)/i.exec(bytes.toString('latin1', 0, head))?.[1] ?? '0';
  const whole = head + 4 + Number(length);
  return bytes.length >= whole ? whole : 0;
}

function isOk(bytes: Buffer): boolean {
  return bytes.toString('latin1', 9, 12) === '200';
}

function drive(): Promise<void> {
  return new Promise((resolve) => {
    let sentAtMs = 0;
    let received: Buffer = Buffer.alloc(0);
    let socket: Socket;

    const answered = (): void => {
      const nowMs = performance.now();
      if (!isOk(received)) failures++;
      else if (sentAtMs >= fromMs && nowMs <= untilMs) latenciesUs.push((nowMs - sentAtMs) * 1000);
      received = Buffer.alloc(0);
      if (nowMs >= untilMs) {
        socket.destroy();
        resolve();
      } else if (kind === 'keep') send();
    };
    const send = (): void => {
      sentAtMs = performance.now();
      socket.write(request);
    };
    const open = (): void => {
      if (kind === 'new') sentAtMs = performance.now();
      socket = connect({ host: '127.0.0.1', port: Number(port), noDelay: true });
      socket.on('connect', () => {
        if (kind === 'keep') send();
        else socket.write(request);
      });
      socket.on('data', (chunk: Buffer) => {
        received = received.length === 0 ? chunk : Buffer.concat([received, chunk]);
        if (answerLength(received) > 0) answered();
      });
      socket.on('error', () => failures++);
      socket.on('close', () => {
        if (performance.now() < untilMs) open();
        else resolve();
      });
    };
    open();
  });
}

await Promise.all(Array.from({ length: Number(connections) }, drive));
latenciesUs.sort((a, b) => a - b);
const at = (share: number): number =>
  Math.round(latenciesUs[Math.floor(latenciesUs.length * share)] ?? 0);
process.stdout.write(
  `${JSON.stringify({
    perSec: Math.round(latenciesUs.length / (measuredMs / 1000)),
    p50Us: at(0.5),
    p99Us: at(0.99),
    failures,
  })}\n`,
);
