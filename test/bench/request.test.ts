/** The load sends the same requests as an SDK: MSAL for Node sends one beside it. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { RequestBytes, sdkHeaders } from '../../bench/load/request.ts';

const root = join(import.meta.dirname, '../..');
const target = '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=x';
const id = /(?<=\r\nx-ms-client-request-id: )([0-9a-f-]{36})(?=\r\n)/;

const idOf = (text: string): string => id.exec(text)?.[0] ?? '';

/** The head of MSAL's token request. */
async function requestOfMsal(): Promise<string> {
  const asked = Promise.withResolvers<string>();
  const server = createServer((socket) => {
    socket.once('data', (chunk) => {
      asked.resolve(chunk.toString('latin1'));
      socket.destroy();
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const program = join(root, 'test/clients/programs/msal-node.ts');
  const job = JSON.stringify([{ credential: 'managed', resource: 'x', calls: 1 }]);
  const child = spawn(process.execPath, [program, root, job], {
    stdio: 'ignore',
    env: { ...process.env, AZURE_POD_IDENTITY_AUTHORITY_HOST: `http://127.0.0.1:${port}` },
  });
  const ended = once(child, 'exit');
  try {
    return await asked.promise;
  } finally {
    child.kill('SIGKILL');
    await ended;
    server.close();
  }
}

describe('a request of the load', { timeout: 30_000 }, () => {
  it('has the headers of MSAL for Node (measured anew here: a new version may send others)', async () => {
    const lines = (await requestOfMsal()).split('\r\n').slice(1, -2);
    const ours = sdkHeaders.map(([name, value]) => `${name}: ${value}`);
    const plain = (text: string): string =>
      text.replace(/-id: .*/, '-id: ID').replace(/VER: .*/, 'VER: V');
    assert.match(lines[0] ?? '', /^host: /);
    assert.equal(lines[1], 'connection: keep-alive');
    assert.deepEqual(lines.slice(2).map(plain), ours.map(plain));
  });

  it('has its own id, in which every digit changes', () => {
    const request = new RequestBytes(target, 'sdk', 'keep-alive');
    const texts = Array.from({ length: 1000 }, () => request.next().toString('latin1'));
    const ids = texts.map(idOf);
    assert.equal(new Set(ids).size, 1000);
    for (const each of ids) assert.match(each, /^.{8}-.{4}-4.{3}-8.{3}-.{12}$/);
    const places = Array.from({ length: 36 }, (_, at) => at);
    const still = places.filter((at) => new Set(ids.map((each) => each[at])).size < 16);
    assert.deepEqual(still, [8, 13, 14, 18, 19, 23]);
    assert.equal(new Set(texts.map((text) => text.replace(id, ''))).size, 1);
  });

  it('stays the same if so configured, and has one more header if it is to be unusual', () => {
    const same = new RequestBytes(target, 'same', 'close');
    const first = same.next().toString('latin1');
    assert.equal(same.next().toString('latin1'), first);
    assert.match(first, /\r\nconnection: close\r\n/);
    const unusual = new RequestBytes(target, 'unusual', 'close');
    const [one, two] = [unusual.next().toString('latin1'), unusual.next().toString('latin1')];
    assert.notEqual(idOf(one), idOf(two));
    assert.equal(one.replace(id, idOf(first)).replace('te: trailers\r\n', ''), first);
  });
});
