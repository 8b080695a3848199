import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  FrameReader,
  answerBytes,
  readAnswer,
  readRequest,
  requestBytes,
  writeAnswer,
  writeRequest,
  type Answer,
  type Request,
} from '../../../src/nmi/kernel/caller-frames.ts';

const plain = <T>(parts: { [K in keyof T]: fc.Arbitrary<T[K]> }) =>
  fc.record(parts, { noNullPrototype: true });
const port = fc.integer({ min: 0, max: 65_535 });
const request: fc.Arbitrary<Request> = fc.oneof(
  fc.constant({ kind: 'status' as const }),
  plain({ kind: fc.constant('look-up' as const), ip: fc.ipV4(), port }),
  plain({
    kind: fc.constant('let-through' as const),
    cgroupId: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    hasMore: fc.boolean(),
  }),
);
const answer: fc.Arbitrary<Answer> = fc.oneof(
  fc.constant({ kind: 'let-through' as const }),
  plain({
    kind: fc.constant('look-up' as const),
    found: plain({
      kind: fc.constant('attested' as const),
      cgroupId: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      isDirect: fc.boolean(),
    }),
  }),
  plain({
    kind: fc.constant('status' as const),
    report: plain({
      mode: fc.constantFrom('ebpf' as const, 'iptables' as const),
      isActive: fc.boolean(),
      layout: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
      target: plain({
        metadataIp: fc.ipV4(),
        metadataPort: port,
        listenIp: fc.ipV4(),
        listenPort: port,
      }),
    }),
  }),
);

describe('the frames between the two processes of a split agent', () => {
  it('are decoded to the values that were encoded', () => {
    fc.assert(
      fc.property(request, (value) => {
        const bytes = Buffer.alloc(requestBytes * 2);
        writeRequest(value, bytes, requestBytes);
        assert.deepEqual(readRequest(bytes, requestBytes), value);
      }),
    );
    fc.assert(
      fc.property(answer, (value) => {
        const bytes = Buffer.alloc(answerBytes * 2);
        writeAnswer(value, bytes, answerBytes);
        assert.deepEqual(readAnswer(bytes, answerBytes), value);
      }),
    );
  });

  it('have nobody for a caller without a record, and whether to ask again', () => {
    for (const [found, seen] of [
      [{ kind: 'unattested' }, /^{"kind":"unattested"}$/],
      [{ kind: 'unattested', retryWhy: 'x' }, /^{"kind":"unattested","retryWhy":"this node had no/],
      [
        { kind: 'unavailable', why: 'x' },
        /^{"kind":"unavailable","why":"`nmi redirect run` cannot/,
      ],
      [{ kind: 'by-address' }, /^{"kind":"unavailable"/],
    ] as const) {
      const bytes = Buffer.alloc(answerBytes);
      writeAnswer({ kind: 'look-up', found }, bytes, 0);
      const read = readAnswer(bytes, 0);
      assert.match(JSON.stringify(read?.kind === 'look-up' && read.found), seen);
    }
  });

  it('are rejected when the bytes are invalid', () => {
    assert.equal(readRequest(Buffer.alloc(requestBytes), 0), undefined);
    assert.equal(readRequest(Buffer.alloc(requestBytes, 0xff), 0), undefined);
    assert.equal(readAnswer(Buffer.alloc(answerBytes), 0), undefined);
    assert.equal(readAnswer(Buffer.alloc(answerBytes, 2), 0)?.kind, 'look-up');
    for (const kind of [1, 2]) {
      const bytes = Buffer.alloc(answerBytes, 0xff);
      bytes[0] = kind;
      assert.equal(readAnswer(bytes, 0), undefined, `of kind ${kind}`);
    }
  });

  it('are complete and in order, however the bytes are split', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.array(fc.nat(30)), (bytes, cuts) => {
        const frames = new FrameReader(requestBytes);
        const taken: Buffer[] = [];
        let at = 0;
        for (const length of [...cuts, bytes.length]) {
          const piece = frames.take(Buffer.from(bytes.subarray(at, at + length)));
          assert.equal(piece.length % requestBytes, 0);
          taken.push(piece);
          at += length;
        }
        const whole = bytes.length - (bytes.length % requestBytes);
        assert.deepEqual(Buffer.concat(taken), Buffer.from(bytes.subarray(0, whole)));
      }),
    );
  });
});
