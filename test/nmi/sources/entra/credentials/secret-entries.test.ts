import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  parseUtf8,
  withoutLineEnd,
} from '../../../../../src/nmi/sources/entra/credentials/secret-entries.ts';

describe('the entries of a Secret', () => {
  it('are text only in UTF-8, including a byte order mark', () => {
    assert.equal(parseUtf8(Buffer.from('pä')), 'pä');
    assert.equal(parseUtf8(Buffer.from('\ufeffp')), '\ufeffp');
    assert.equal(parseUtf8(Buffer.from([0xff, 0xfe])), undefined);
  });

  it('lose one final line break, and nothing else', () => {
    assert.deepEqual(['a\n', 'a\r\n', 'a\n\n', 'a ', '\na', 'a\r'].map(withoutLineEnd), [
      'a',
      'a',
      'a\n',
      'a ',
      '\na',
      'a\r',
    ]);
  });
});
