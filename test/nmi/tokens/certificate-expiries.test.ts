import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { ObjectName } from '../../../src/cache/index/object-name.ts';
import { CertificateExpiries } from '../../../src/nmi/tokens/certificate-expiries.ts';

function open() {
  const unneeded = new Set<string>();
  const known = new CertificateExpiries((credential: string) => !unneeded.has(credential));
  const expiries = {
    note: (secret: ObjectName | undefined, expiresAtWallMs: number) => {
      const credential = secret === undefined ? '' : `${secret.namespace}/${secret.name}`;
      known.note(credential, secret, expiresAtWallMs);
    },
  };
  const found = () =>
    known
      .samples()
      .map(
        ({ labels, value }) => `${labels?.['namespace'] ?? ''}/${labels?.['name'] ?? ''} ${value}`,
      );
  return { expiries, unneeded, found };
}

describe('the expiry of certificates', () => {
  it('is the last one read of each Secret, for as long as it is needed', () => {
    const { expiries, unneeded, found } = open();
    expiries.note({ namespace: 'a', name: 's' }, 1_000);
    expiries.note({ namespace: 'a', name: 's' }, 2_000);
    expiries.note({ namespace: 'b', name: 's' }, 3_500);
    expiries.note(undefined, 4_000);
    assert.deepEqual(found(), ['a/s 2', 'b/s 3.5']);
    unneeded.add('a/s');
    assert.deepEqual(found(), ['b/s 3.5']);
    unneeded.clear();
    assert.deepEqual(found(), ['b/s 3.5'], 'the dropped one is removed');
  });

  it('is kept for 20 Secrets of a namespace, the first to expire, and for 50 namespaces', () => {
    const { expiries, unneeded, found } = open();
    for (let index = 0; index < 100; index++) {
      expiries.note({ namespace: 'hostile', name: `s-${index}` }, (100 - index) * 1_000);
    }
    assert.equal(found().length, 20);
    assert.ok(found().includes('hostile/s-99 1'));
    assert.ok(!found().includes('hostile/s-0 100'));
    for (let index = 0; index < 100; index++) {
      expiries.note({ namespace: `ns-${index}`, name: 's' }, 1_000);
    }
    assert.equal(found().length, 20 + 49);
    unneeded.add('ns-0/s');
    expiries.note({ namespace: 'late', name: 's' }, 1_000);
    assert.ok(found().includes('late/s 1'), 'replaces one that is not needed');
  });
});
