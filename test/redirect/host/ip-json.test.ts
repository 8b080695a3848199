import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseIpJson } from '../../../src/redirect/host/ip-json.ts';

describe('the output of ip', () => {
  it('is read as a list of objects, and no output as an empty list', () => {
    assert.deepEqual(parseIpJson('[{"a":1},{}]'), [{ a: 1 }, {}]);
    assert.deepEqual(parseIpJson(' \n'), []);
    assert.deepEqual(parseIpJson('[{"a":1},null,"b",[2],3]'), [{ a: 1 }]);
  });

  it('is nothing if it is not a list', () => {
    for (const text of ['{"a":1}', 'null', '7', '2: eth0', '[']) {
      assert.equal(parseIpJson(text), undefined, text);
    }
  });
});
