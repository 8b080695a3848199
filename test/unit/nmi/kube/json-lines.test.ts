import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { createJsonLines, OverlongLine } from '../../../../src/nmi/kube/api/json-lines.ts';
import { KubeError } from '../../../../src/nmi/kube/api/kube-error.ts';

function encode(values: readonly unknown[]): Buffer {
  return Buffer.from(values.map((value) => `${JSON.stringify(value)}\n`).join(''));
}

function decode(chunks: readonly Uint8Array[], maxLineBytes = 1_000_000): unknown[] {
  const lines = createJsonLines(maxLineBytes);
  const values = chunks.flatMap((chunk) => [...lines.push(chunk)]);
  assert.equal(lines.pendingBytes, 0);
  return values;
}

const json = fc.jsonValue({ stringUnit: 'binary' });

describe('the splitter of a watch stream', () => {
  it('returns the same values wherever the stream is cut in two', () => {
    fc.assert(
      fc.property(fc.array(json, { minLength: 1, maxLength: 4 }), (values) => {
        const bytes = encode(values);
        const expected = JSON.parse(JSON.stringify(values)) as unknown;
        for (let cut = 0; cut <= bytes.length; cut += 1) {
          assert.deepEqual(decode([bytes.subarray(0, cut), bytes.subarray(cut)]), expected);
        }
      }),
      { numRuns: 60 },
    );
  });

  it('returns the same values for any number of chunks, including single bytes', () => {
    fc.assert(
      fc.property(
        fc.array(json, { maxLength: 5 }),
        fc.array(fc.nat(4000), { maxLength: 30 }),
        (values, cuts) => {
          const bytes = encode(values);
          const expected = JSON.parse(JSON.stringify(values)) as unknown;
          const edges = [0, ...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length].sort(
            (one, other) => one - other,
          );
          const chunks = edges.slice(1).map((edge, at) => bytes.subarray(edges[at], edge));
          assert.deepEqual(decode(chunks), expected);
          assert.deepEqual(decode([...bytes].map((byte) => Uint8Array.of(byte))), expected);
        },
      ),
    );
  });

  it('keeps an umlaut and an emoji that were cut in the middle', () => {
    const bytes = encode([{ name: 'für 🦀' }]);
    const chunks = [...bytes].map((byte) => Uint8Array.of(byte));
    assert.deepEqual(decode(chunks), [{ name: 'für 🦀' }]);
  });

  it('skips blank lines and carriage returns', () => {
    assert.deepEqual(decode([Buffer.from('\n{"a":1}\r\n\r\n{"a":2}\n')]), [{ a: 1 }, { a: 2 }]);
  });

  it('returns the values before an invalid line, then fails', () => {
    const lines = createJsonLines(100);
    const seen: unknown[] = [];
    assert.throws(
      () => {
        for (const value of lines.push(Buffer.from('{"a":1}\nnonsense\n{"a":2}\n'))) {
          seen.push(value);
        }
      },
      (error) => error instanceof KubeError && error.code === 'MALFORMED',
    );
    assert.deepEqual(seen, [{ a: 1 }]);
  });

  it('accepts a line of exactly its limit, and only the beginning of a longer one', () => {
    const line = JSON.stringify('x'.repeat(98));
    assert.deepEqual(decode([Buffer.from(`${line}\n`)], 100), ['x'.repeat(98)]);
    const around = Buffer.from(`{"a":1}\n${line}\n{"a":2}\n`);
    for (const chunks of [[around], [...around].map((byte) => Uint8Array.of(byte))]) {
      assert.deepEqual(decode(chunks, 99), [{ a: 1 }, new OverlongLine(line), { a: 2 }]);
    }
  });

  it('keeps 4 kB of a line that is too long, and reports when it is cut', () => {
    const lines = createJsonLines(10_000);
    for (let count = 0; count < 100; count++) {
      const part = Buffer.alloc(6_000, count === 0 ? 'x' : 'y');
      assert.deepEqual([...lines.push(part)], []);
    }
    assert.ok(lines.pendingBytes > 0);
    assert.deepEqual(
      [...lines.push(Buffer.from('\n1\n'))],
      [new OverlongLine('x'.repeat(4_096)), 1],
    );
    assert.equal(lines.pendingBytes, 0);
  });

  it('reports the size of an unfinished line', () => {
    const lines = createJsonLines(100);
    assert.deepEqual([...lines.push(Buffer.from('{"a":1}\n{"b"'))], [{ a: 1 }]);
    assert.equal(lines.pendingBytes, 4);
  });
});
