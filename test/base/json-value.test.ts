import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { asRecord, parseRecord, stringAt, textOf } from '../../src/base/json-value.ts';

describe('unknown JSON', () => {
  it('is a record only if it is an object', () => {
    const record = { a: 1 };
    assert.equal(asRecord(record), record);
    for (const value of [null, undefined, [], 'a', 1, true]) {
      assert.equal(asRecord(value), undefined);
    }
  });

  it('has the string of a field, or none', () => {
    assert.equal(stringAt({ a: 'x' }, 'a'), 'x');
    for (const record of [{ a: 1 }, { a: null }, {}, undefined]) {
      assert.equal(stringAt(record, 'a'), '');
    }
  });

  it('is a text only if it is a string', () => {
    assert.equal(textOf('a'), 'a');
    for (const value of [null, [], {}, 1, undefined]) assert.equal(textOf(value), undefined);
  });

  it('is parsed without throwing', () => {
    assert.deepEqual(parseRecord('{"a":1}'), { a: 1 });
    for (const text of ['', '{', '[]', 'null', '1']) assert.equal(parseRecord(text), undefined);
  });
});
