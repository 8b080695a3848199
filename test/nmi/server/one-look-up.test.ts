/** The opener of a connection is looked up once, for any number and kind of requests on it. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { after, before, beforeEach, describe, it } from 'node:test';
import { PodIndex } from '../../../src/cache/index/pod-index.ts';
import { refuse } from '../../../src/nmi/base/answers.ts';
import type { Caller } from '../../../src/nmi/callers/caller.ts';
import { FairTurns } from '../../../src/nmi/server/fair-turns.ts';
import { TokenFastPath } from '../../../src/nmi/server/fast-path/fast-path.ts';
import type { Listener } from '../../../src/nmi/server/listener.ts';
import type { Peer } from '../../../src/redirect/redirect.ts';
import { openBareListener } from '../../support/bare-listener.ts';
import { createPod } from '../../support/cache-objects.ts';
import { HandClock } from '../../support/hand-clock.ts';

const usual = 'GET /metadata/identity/oauth2/token?a=b HTTP/1.1\r\nMetadata: true\r\n\r\n';
/** A request that the fast path does not accept. */
const unusual = 'HEAD /x HTTP/1.1\r\nhost:x\r\nX-Other: 1\r\n\r\n';

describe('a connection of an attested caller', () => {
  const clock = new HandClock();
  const pods = new PodIndex(clock);
  const pod = createPod({ name: 'one', uid: 'one', cgroupUid: 'one', ips: ['127.0.0.11'] });
  const peers: Peer[] = [];
  let searches = 0;
  const callers: Caller['kind'][] = [];
  let listener: Listener;

  before(async () => {
    listener = await openBareListener({
      clock,
      attest: ({ remoteIp, socket }) => {
        peers.push({ remoteIp, socket });
        return { kind: 'attested', cgroupId: 7n };
      },
      findCgroupUid: (_, candidates) => {
        searches += 1;
        return candidates.find((uid) => uid === 'one');
      },
      onConnection: (caller) => caller.resolve(pods),
      handle: ({ caller }) => {
        callers.push(caller.resolve(pods).kind);
        return refuse('not_found', 'nothing');
      },
      fastPath: new TokenFastPath({
        decisions: {
          decide: (caller) => {
            callers.push(caller.resolve(pods).kind);
            return { kind: 'refused', reason: 'parameter_missing', detail: 'test' };
          },
          isCurrent: () => false,
        },
        broker: { peek: () => undefined },
        clock,
        observer: { onHit: () => undefined },
        turns: new FairTurns(() => performance.now()),
        onBug: assert.ifError,
      }),
    });
  });
  after(() => listener[Symbol.asyncDispose]());
  beforeEach(() => {
    pods.replace([pod]);
    peers.length = 0;
    callers.length = 0;
    searches = 0;
  });

  async function dial(): Promise<Socket> {
    const socket = connect({
      host: '127.0.0.1',
      port: listener.port,
      localAddress: '127.0.0.11',
    });
    socket.on('error', () => undefined);
    await ask(socket, usual, 1);
    return socket;
  }

  /** Writes, and waits for this many answers. */
  async function ask(socket: Socket, text: string, answers: number): Promise<void> {
    socket.write(text);
    let seen = '';
    while (seen.split('HTTP/1.1 ').length - 1 < answers) {
      const [chunk] = (await once(socket, 'data', { signal: AbortSignal.timeout(5_000) })) as [
        Buffer,
      ];
      seen += chunk.toString('latin1');
    }
  }

  it('is looked up once for all its requests: in a row, pipelined, usual and unusual', async () => {
    const socket = await dial();
    for (let count = 0; count < 10; count += 1) await ask(socket, usual, 1);
    await ask(socket, usual.repeat(5), 5);
    await ask(socket, unusual, 1);
    await ask(socket, usual, 1);
    assert.ok(callers.length >= 18, `${callers.length} requests`);
    assert.deepEqual(new Set(callers), new Set(['pod']));
    assert.deepEqual(
      peers.map(({ remoteIp }) => remoteIp),
      ['127.0.0.11'],
    );
    assert.equal(searches, 1);
    socket.destroy();
  });

  it('is looked up once per connection when there are several', async () => {
    const sockets = [await dial(), await dial(), await dial()];
    for (const socket of sockets) await ask(socket, usual, 1);
    assert.equal(new Set(peers.map(({ socket }) => socket)).size, 3);
    for (const socket of sockets) socket.destroy();
  });

  it('is not looked up again when pods change: the cgroup stays, only its pod is searched again', async () => {
    const socket = await dial();
    for (let change = 1; change <= 3; change += 1) {
      pods.upsert({ ...pod, labels: { change: String(change) } });
      await ask(socket, usual, 1);
      assert.equal(searches, 1 + change);
    }
    assert.equal(peers.length, 1);
    socket.destroy();
  });
});
