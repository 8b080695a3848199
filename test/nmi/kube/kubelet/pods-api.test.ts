import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { KubeError } from '../../../../src/nmi/kube/api/kube-error.ts';
import {
  maxMessageBytes,
  MessageReader,
  watchKubelet,
} from '../../../../src/nmi/kube/kubelet/pods-api.ts';
import { eventMessage, frame, openFakeKubelet } from './fake-kubelet.ts';
import { OwnTime } from '../../../../lab/pods/own-time.ts';

const never = new AbortController().signal;

const hasCode = (code: string, text: RegExp) => (error: unknown) =>
  error instanceof KubeError && error.code === code && text.test(error.message);

async function untilClosed(socket: Socket): Promise<void> {
  if (!socket.closed) await once(socket, 'close');
}

async function messagesOf(call: AsyncIterable<Buffer>, count = Infinity): Promise<string[]> {
  const messages: string[] = [];
  for await (const message of call) {
    if (messages.push(message.toString('hex')) === count) break;
  }
  return messages;
}

describe('a call of the Pods API', () => {
  it('gets the messages of a stream, and its end by code', async () => {
    await using kubelet = await openFakeKubelet();
    kubelet.pods.set('p', { name: 'p' });
    const call = watchKubelet(kubelet.connect, never);
    const expected = [eventMessage('added', { name: 'p' }), eventMessage('end')];
    for (const message of expected) {
      assert.deepEqual((await call.next()).value, message);
    }
    kubelet.endWatches(8);
    await assert.rejects(call.next(), hasCode('SERVER', /\(gRPC 8\)/));
  });

  it('reports a kubelet that is starting, lacks the API, or is away', async () => {
    await using kubelet = await openFakeKubelet();
    const call = () => messagesOf(watchKubelet(kubelet.connect, never));
    for (const code of [9, 12, 14]) {
      kubelet.refusal = code;
      await assert.rejects(call(), hasCode('SERVER', new RegExp(`not now \\(gRPC ${code}\\)`)));
    }
    await kubelet.stop();
    await assert.rejects(call(), hasCode('NETWORK', /ENOENT/));
  });

  it('fails when the connection ends without a code', async () => {
    await using kubelet = await openFakeKubelet();
    const call = watchKubelet(kubelet.connect, never);
    await call.next();
    await kubelet.stop();
    await assert.rejects(call.next(), KubeError);
  });

  it('ends with its signal, and closes the connection', async () => {
    await using kubelet = await openFakeKubelet();
    kubelet.isHung = true;
    const stop = new AbortController();
    const socket = connect({ path: kubelet.path });
    const call = watchKubelet(() => Promise.resolve(socket), stop.signal);
    const next = call.next();
    await once(socket, 'connect');
    stop.abort();
    await assert.rejects(next);
    await untilClosed(socket);
    await assert.rejects(watchKubelet(kubelet.connect, stop.signal).next());
  });

  it('closes the connection when it is left', async () => {
    await using kubelet = await openFakeKubelet();
    const socket = connect({ path: kubelet.path });
    await messagesOf(
      watchKubelet(() => Promise.resolve(socket), never),
      1,
    );
    await untilClosed(socket);
  });

  it('fails on a message that is too long, before it has come', async () => {
    await using kubelet = await openFakeKubelet();
    const call = watchKubelet(kubelet.connect, never);
    await call.next();
    const prefix = Buffer.alloc(5);
    prefix.writeUInt32BE(maxMessageBytes + 1, 1);
    kubelet.sendBytes(prefix);
    await assert.rejects(call.next(), hasCode('MALFORMED', /8388609 bytes/));
  });
});

describe('the messages in a stream of bytes', () => {
  const split = (bytes: Buffer, sizes: readonly number[]): string[] => {
    const reader = new MessageReader();
    const found: string[] = [];
    let at = 0;
    for (const size of [...sizes, bytes.length]) {
      for (const message of reader.take(bytes.subarray(at, at + size))) {
        found.push(message.toString('hex'));
      }
      at += size;
    }
    return found;
  };

  it('are the same however the bytes are split', () => {
    const message = fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes));
    const sizes = fc.array(fc.integer({ min: 0, max: 9 }), { maxLength: 60 });
    fc.assert(
      fc.property(fc.array(message, { maxLength: 8 }), sizes, (messages, lengths) => {
        const bytes = Buffer.concat(messages.map(frame));
        const expected = messages.map((each) => each.toString('hex'));
        assert.deepEqual(split(bytes, lengths), expected);
      }),
      { numRuns: 2_000 },
    );
  });

  it('take time by their length, not by its square', () => {
    const bytes = frame(Buffer.alloc(4 * 1024 * 1024));
    using time = new OwnTime();
    assert.equal(
      split(
        bytes,
        Array.from({ length: 4096 }, () => 1024),
      ).length,
      1,
    );
    assert.ok(time.nowMs() < 1_000, `${time.nowMs()} ms`);
  });

  it('cannot be compressed', () => {
    const bytes = frame(Buffer.from('a'));
    bytes[0] = 1;
    assert.throws(() => split(bytes, []), hasCode('MALFORMED', /compressed/));
  });
});
