import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { flatten, readWatchChunks } from '../../../../src/nmi/kube/api/watch-stream.ts';

async function* bodyOf(...texts: readonly string[]): AsyncGenerator<Uint8Array> {
  for (const text of texts) yield Buffer.from(text);
}

/** The values of the stream, and its end. */
async function read(body: AsyncIterable<Uint8Array>, take = Infinity) {
  const values: unknown[] = [];
  let chunks = 0;
  let error: unknown;
  try {
    for await (const value of flatten(readWatchChunks(body, () => chunks++))) {
      values.push(value);
      if (values.length >= take) break;
    }
  } catch (failure) {
    error = failure;
  }
  return { values, chunks, error };
}

describe('the body of a watch', () => {
  it('consists of the values of its lines, wherever its chunks are cut', async () => {
    const whole = '{"a":1}\n{"a":2}\n{"a":3}\n';
    for (const cut of [[whole], Array.from(whole), [whole.slice(0, 10), whole.slice(10)]]) {
      const { values, chunks, error } = await read(bodyOf(...cut));
      assert.deepEqual([values, error], [[{ a: 1 }, { a: 2 }, { a: 3 }], undefined]);
      assert.equal(chunks, cut.length);
    }
  });

  it('that ends within an event was cut', async () => {
    const { values, error } = await read(bodyOf('{"a":1}\n{"a"'));
    assert.deepEqual(values, [{ a: 1 }]);
    assert.match(String(error), /KubeError: the stream was cut in an event/);
  });

  it('fails with its error, after the values before', async () => {
    async function* breaking(): AsyncGenerator<Uint8Array> {
      yield Buffer.from('{"a":1}\n');
      throw new RangeError('reset');
    }
    const { values, error } = await read(breaking());
    assert.deepEqual(values, [{ a: 1 }]);
    assert.match(String(error), /RangeError: reset/);
  });

  it('is closed when its reader stops, and when a line is invalid', async () => {
    let ended = 0;
    async function* endless(text: string): AsyncGenerator<Uint8Array> {
      try {
        for (;;) yield Buffer.from(text);
      } finally {
        ended++;
      }
    }
    const { values } = await read(endless('{"a":1}\n{"a":2}\n'), 3);
    assert.equal(values.length, 3);
    assert.equal(ended, 1);
    const broken = await read(endless('{"a":1}\nno JSON\n'));
    assert.deepEqual(broken.values, [{ a: 1 }]);
    assert.ok(broken.error !== undefined);
    assert.equal(ended, 2);
  });

  it('lets other work run while it arrives as fast as it is read', async () => {
    let turns = 0;
    const timer = setInterval(() => turns++, 0);
    const line = `${JSON.stringify({ a: 'x'.repeat(20_000) })}\n`;
    const busy = bodyOf(...Array.from({ length: 1_500 }, () => line));
    const { values } = await read(busy);
    clearInterval(timer);
    assert.equal(values.length, 1_500);
    assert.ok(turns > 0, 'never');
  });
});
