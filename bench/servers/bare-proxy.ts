/**
 * One more hop through Node and nothing else: a request is forwarded to the upstream by undici's
 * pool, and the answer is returned with its status and content type. Any further latency of a miss
 * is the agent's own. node bench/servers/bare-proxy.ts HOST PORT UPSTREAM CA_PEM
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { Pool } from 'undici';

const [host = '127.0.0.1', port = '0', upstream = '', ca = ''] = process.argv.slice(2);
const pool = new Pool(upstream, { connections: 4, pipelining: 1, allowH2: false, connect: { ca } });

createServer((request, response) => {
  // Errors are not caught: an upstream failure ends the proxy, and with it the run.
  void relay(request, response);
}).listen({ host, port: Number(port), backlog: 1024 }, () => {
  process.stdout.write('ready\n');
});

async function relay(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { method = 'GET', url = '/', headers } = request;
  const { metadata, 'content-type': contentType } = headers;
  const answer = await pool.request({
    method,
    path: url,
    body: method === 'GET' ? null : request,
    headers: { metadata, 'content-type': contentType },
  });
  const body = await answer.body.text();
  response.writeHead(answer.statusCode, [
    ...['Content-Type', String(answer.headers['content-type'])],
    ...['Content-Length', String(Buffer.byteLength(body))],
  ]);
  response.end(body);
}
