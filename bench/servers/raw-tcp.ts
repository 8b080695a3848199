/**
 * The upper bound for a socket in Node: the same bytes for any input, without parsing it. node
 * bench/servers/raw-tcp.ts HOST PORT BYTES
 */
import { createServer } from 'node:net';

const [host = '127.0.0.1', port = '0', bytes = '1000'] = process.argv.slice(2);
const answer =
  `HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n` +
  `Content-Length: ${bytes}\r\n\r\n${'x'.repeat(Number(bytes))}`;
createServer({ noDelay: true }, (socket) => {
  socket.on('error', () => undefined);
  socket.on('data', () => socket.write(answer));
}).listen({ host, port: Number(port), backlog: 1024 }, () => {
  process.stdout.write('ready\n');
});
