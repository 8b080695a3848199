import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  isGuid,
  isResourceId,
  normaliseClientId,
  normaliseResource,
  normaliseResourceId,
} from '../../../src/cache/index/identifiers.ts';

const resourceId =
  '/subscriptions/0000/resourceGroups/rg/providers/Microsoft.ManagedIdentity/' +
  'userAssignedIdentities/demo';

describe('identifiers', () => {
  it('compare client ids regardless of case and blanks', () => {
    assert.equal(normaliseClientId('  AbCd-01\n'), 'abcd-01');
    assert.equal(normaliseClientId(' \t'), '');
  });

  it('compare resource ids regardless of case, blanks and slashes', () => {
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

  it('reduce a resource id without segments to an empty text', () => {
    for (const text of ['', ' ', '/', '///', ' / ']) assert.equal(normaliseResourceId(text), '');
  });

  it('compare resources regardless of case, blanks and trailing slashes', () => {
    for (const text of [
      'https://Vault.azure.net',
      ' https://vault.azure.net/ ',
      'https://vault.azure.net///',
    ]) {
      assert.equal(normaliseResource(text), 'https://vault.azure.net');
    }
    assert.equal(normaliseResource('/a//b'), '/a//b');
    assert.equal(normaliseResource('///'), '');
    const slashes = '/'.repeat(1_000_000);
    const before = process.cpuUsage();
    assert.equal(normaliseResource(`${slashes}x${slashes}`), `${slashes}x`);
    const { user } = process.cpuUsage(before);
    assert.ok(user < 500_000, 'in time that only grows with the length');
  });

  it('are client ids only as GUIDs, with nothing before or after', () => {
    const guid = '22729e47-74ce-4b43-8eea-aab5f2073301';
    assert.ok(isGuid(guid) && isGuid(guid.toUpperCase()));
    for (const text of [
      '',
      ` ${guid}`,
      `${guid}\n`,
      `${guid}0`,
      guid.slice(1),
      guid.replaceAll('-', ''),
      guid.replace('2', 'g'),
      guid.replace('-74ce', ''),
      guid.replace('-74ce', '-74c'),
      `x${guid}`,
    ]) {
      assert.ok(!isGuid(text), JSON.stringify(text));
    }
  });

  it('are resource ids only of user-assigned identities, in visible ASCII', () => {
    for (const text of [resourceId, resourceId.slice(1), resourceId.toUpperCase()]) {
      assert.ok(isResourceId(text), text);
    }
    for (const text of [
      '',
      '/subscriptions/',
      `x${resourceId}`,
      `/${resourceId}`,
      '/resourceGroups/subscriptions/a',
      '/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/a',
      `${resourceId}/a`,
      `${resourceId} x`,
      `${resourceId}\u0085`,
      `${resourceId}\n`,
    ]) {
      assert.ok(!isResourceId(text), JSON.stringify(text));
    }
    const long = resourceId.padEnd(1_024, 'x');
    assert.ok(isResourceId(long) && !isResourceId(`${long}x`));
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
