/**
 * A fake IMDS and a plain server that misbehaves on purpose, for the pod contract. Run as a
 * program, it serves on its first two arguments (metadata host and port) and prints a line when it
 * listens.
 */
import { createServer, type Server } from 'node:http';
import { createServer as createRawServer, type Server as RawServer } from 'node:net';
import { once } from 'node:events';

/** Repeats the request's head as its body; `/slow` never answers, `/reset` cuts the connection. */
export async function openEcho(host: string, port: number): Promise<Server> {
  const server = createServer((request, response) => {
    if (request.url === '/slow') return;
    if (request.url === '/reset') {
      request.socket.resetAndDestroy();
      return;
    }
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      response.setHeader('X-Twice', ['one', 'two']);
      response.end(
        JSON.stringify({
          method: request.method,
          target: request.url,
          headers: request.rawHeaders,
          body: Buffer.concat(chunks).toString(),
          from: request.socket.remoteAddress,
          fromPort: request.socket.remotePort,
        }),
      );
    });
  });
  server.listen(port, host);
  await once(server, 'listening');
  return server;
}

/** Answers any bytes with a page; its body is the first line of those bytes. */
export async function openRaw(host: string, port: number): Promise<RawServer> {
  const server = createRawServer((socket) => {
    socket.on('error', () => undefined);
    socket.once('data', (bytes) => {
      const [line = ''] = bytes.toString('latin1').split('\r\n');
      const length = String(Buffer.byteLength(line));
      socket.end(
        `HTTP/1.1 200 OK\r\nContent-Length: ${length}\r\nConnection: close\r\n\r\n${line}`,
      );
    });
  });
  server.listen(port, host);
  await once(server, 'listening');
  return server;
}

if (import.meta.main) {
  const host = process.argv[2] ?? '';
  await openEcho(host, 8001);
  await openRaw(host, 8002);
  const { openFakeImds } = await import('../../../../lab/fakes/imds/fake-imds.ts');
  const { createNodeIdentity } = await import('../../../../lab/fakes/identity.ts');
  const imds = await openFakeImds({
    host,
    port: 80,
    nodeIps: ['10.224.0.4'],
    systemAssigned: createNodeIdentity(),
  });
  console.log('listening');
  process.stdin.setEncoding('utf8').on('data', () => {
    const [last] = imds.requests().slice(-1);
    console.log(JSON.stringify({ leaks: imds.leaks(), from: last?.from }));
  });
  process.stdin.on('end', () => process.exit(0));
}
