import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { it } from 'node:test';
import { readBody } from '../../src/base/read-body.ts';

const stream = (...texts: string[]) => Readable.from(texts.map((text) => Buffer.from(text)));

it('reads a body up to its bound', async () => {
  const tooLong = () => new RangeError('too long');
  assert.equal(String(await readBody(stream('ab', 'cd'), 4, tooLong)), 'abcd');
  assert.equal(String(await readBody(stream(), 0, tooLong)), '');
});

it('destroys the stream of a longer one', async () => {
  const body = stream('ab', 'cde', 'f');
  await assert.rejects(
    readBody(body, 4, () => new RangeError('too long')),
    /^RangeError: too long$/,
  );
  assert.equal(body.destroyed, true);
});
