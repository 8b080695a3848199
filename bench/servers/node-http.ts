/**
 * The control: a bare `node:http` server that answers every request with as many bytes as a token
 * answer. The difference to it is the agent's own cost. node bench/servers/node-http.ts HOST PORT
 * BYTES
 */
import { createServer } from 'node:http';

const [host = '127.0.0.1', port = '0', bytes = '1000'] = process.argv.slice(2);
const body = 'x'.repeat(Number(bytes));
const headers = ['Content-Type', 'application/json; charset=utf-8', 'Content-Length', bytes];
createServer((_request, response) => {
  response.writeHead(200, headers);
  response.end(body);
}).listen({ host, port: Number(port), backlog: 1024 }, () => {
  process.stdout.write('ready\n');
});
