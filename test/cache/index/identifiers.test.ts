import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { normaliseClientId, normaliseResourceId } from '../../../src/cache/index/identifiers.ts';

const resourceId =
  '/subscriptions/0000/resourceGroups/rg/providers/Microsoft.ManagedIdentity/' +
  'userAssignedIdentities/demo';

describe('identifiers', () => {
  it('compare client ids whatever their case and blanks', () => {
    assert.equal(normaliseClientId('  AbCd-01\n'), 'abcd-01');
    assert.equal(normaliseClientId(' \t'), '');
  });

  it('compare resource ids whatever their case, blanks and slashes', () => {
    for (const text of [
      resourceId.toUpperCase(),
      ` ${resourceId}/ `,
      `${resourceId}//`,
      resourceId.slice(1),
      `/${resourceId}`,
      resourceId.replaceAll('/', '//'),
    ]) {
      assert.equal(normaliseResourceId(text), resourceId.toLowerCase(), text);
    }
  });

  it('keep resource ids of different segments apart', () => {
    assert.notEqual(normaliseResourceId('/a/bc'), normaliseResourceId('/ab/c'));
  });

  it('make nothing of a resource id without segments', () => {
    for (const text of ['', ' ', '/', '///', ' / ']) assert.equal(normaliseResourceId(text), '');
  });

  it('have a normal form that is stable under random case and slashes', () => {
    const segment = fc.string({ unit: 'grapheme-ascii', minLength: 1 }).filter((text) => {
      return !text.includes('/') && text.trim() === text;
    });
    fc.assert(
      fc.property(
        fc.array(fc.tuple(segment, fc.boolean(), fc.integer({ min: 1, max: 3 })), { minLength: 1 }),
        (parts) => {
          const plain = parts.map(([text]) => `/${text}`).join('');
          const varied = parts
            .map(([text, upper, slashes]) => {
              return '/'.repeat(slashes) + (upper ? text.toUpperCase() : text);
            })
            .join('');
          assert.equal(normaliseResourceId(varied), normaliseResourceId(plain));
          assert.equal(normaliseResourceId(normaliseResourceId(plain)), normaliseResourceId(plain));
        },
      ),
    );
  });
});
