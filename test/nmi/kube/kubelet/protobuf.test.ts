import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { KubeError } from '../../../../src/nmi/kube/api/kube-error.ts';
import { Message } from '../../../../src/nmi/kube/kubelet/protobuf.ts';
import { lengthField, numberField, textField, varint } from './fake-kubelet.ts';

const isMalformed = (error: unknown): boolean =>
  error instanceof KubeError && error.code === 'MALFORMED';

describe('the reader of protobuf', () => {
  it('reads numbers and texts, and skips fields of a fixed length', () => {
    const fixed = [
      varint(3 * 8 + 1),
      Buffer.alloc(8, 0xff),
      varint(4 * 8 + 5),
      Buffer.alloc(4, 0xff),
    ];
    const message = new Message(
      Buffer.concat([numberField(1, 300), ...fixed, textField(2, 'a'), textField(16, '')]),
    );
    assert.deepEqual([message.number(1), message.text(2), message.text(16)], [300, 'a', '']);
  });

  it('takes a field of another type as absent, and the last of several', () => {
    const message = new Message(
      Buffer.concat([numberField(1, 1), textField(2, 'a'), textField(2, 'b'), numberField(3, 5)]),
    );
    assert.deepEqual([message.text(1), message.number(2), message.text(2)], ['', 0, 'b']);
    assert.equal(message.message(1).text(1), '');
    assert.equal(message.message(9).text(1), '');
    assert.deepEqual([...message.messages(3)], []);
    assert.equal(new Message(Buffer.alloc(0)).number(1), 0);
  });

  it('reads what is written', () => {
    const number = fc.tuple(fc.integer({ min: 1, max: 2 ** 29 - 1 }), fc.maxSafeNat());
    const text = fc.tuple(fc.integer({ min: 1, max: 2 ** 29 - 1 }), fc.string());
    fc.assert(
      fc.property(fc.array(fc.oneof(number, text)), (fields) => {
        const bytes = fields.map(([field, value]) =>
          typeof value === 'number' ? numberField(field, value) : textField(field, value),
        );
        const message = new Message(Buffer.concat(bytes));
        for (const [field, value] of new Map<number, number | string>(fields)) {
          const read = typeof value === 'number' ? message.number(field) : message.text(field);
          assert.equal(
            read,
            Buffer.from(String(value)).toString() === String(value) ? value : read,
          );
        }
      }),
    );
  });

  it('reads messages in messages', () => {
    const entries = ['a', 'b'].map((text) => lengthField(11, textField(1, text)));
    const message = new Message(Buffer.concat(entries));
    assert.deepEqual(
      Array.from(message.messages(11), (entry) => entry.text(1)),
      ['a', 'b'],
    );
    assert.equal(message.message(11).text(1), 'b');
    assert.throws(() => [...new Message(textField(1, '\x0b')).messages(1)], isMalformed);
  });

  it('reads any bytes, or reports that they cannot be read', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        try {
          const message = new Message(Buffer.from(bytes));
          assert.equal(typeof message.text(1), 'string');
        } catch (error) {
          assert.ok(isMalformed(error), String(error));
        }
      }),
      { numRuns: 20_000 },
    );
  });

  for (const [what, bytes] of [
    ['a number without an end', Buffer.from([8, 0x80])],
    ['a number of more than 64 bits', Buffer.from([8, ...Array<number>(11).fill(0x80), 1])],
    ['a text that is longer than the message', Buffer.from([18, 5, 1])],
    ['a text longer than memory', Buffer.concat([varint(18), varint(2n ** 63n)])],
    ['a fixed field that is cut off', Buffer.from([9, 1, 2])],
    ['a short fixed field that is cut off', Buffer.from([13, 1])],
    ['a group', Buffer.from([11, 12])],
  ] as const) {
    it(`refuses ${what}`, () => {
      assert.throws(() => new Message(bytes), isMalformed);
    });
  }

  it('reads ten bytes as a number', () => {
    assert.equal(new Message(numberField(1, 2n ** 64n - 1n)).number(1), 2 ** 64);
  });

  it('costs the same for an unused field of any length', () => {
    const message = lengthField(2, Buffer.alloc(64 * 1024 * 1024));
    const timed = (work: () => unknown): number => {
      const startMs = performance.now();
      work();
      return performance.now() - startMs;
    };
    const allBytesMs = timed(() => createHash('sha256').update(message).digest());
    assert.ok(timed(() => new Message(message).number(1)) < allBytesMs / 2);
  });
});
