import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { redactObject, redactText } from '../../../src/kubectl/base/redact.ts';

const jwt = ['eyJhbGciOiJSUzI1NiJ9', 'eyJzdWIiOiJ4In0', 'c2lnbmF0dXJl'].join('.');

describe('a dump', () => {
  it('has no token and no password in its texts', () => {
    for (const text of [
      `got ${jwt}`,
      'password=hunter2hunter2',
      '"client_secret": "abcdefghijk"',
      'https://x/?sig=abcdefghijkl',
    ]) {
      const clean = redactText(text);
      assert.match(clean, /\(removed\)/, text);
      assert.doesNotMatch(clean, /eyJ|hunter2|abcdefgh/, text);
    }
    assert.equal(redactText('reason binding_missing'), 'reason binding_missing');
  });

  it('has no secret values of environments, and no annotation of kubectl', () => {
    const env = [
      { name: 'DB_PASSWORD', value: 'x' },
      { name: 'MODE', value: 'fast' },
      { name: 'A', value: jwt },
    ];
    const clean = redactObject({
      kind: 'Pod',
      metadata: {
        name: 'p',
        managedFields: [1],
        annotations: { 'kubectl.kubernetes.io/last-applied-configuration': 'old', a: 'b' },
      },
      spec: { containers: [{ env, count: 3 }] },
    });
    assert.deepEqual(clean, {
      kind: 'Pod',
      metadata: { name: 'p', annotations: { a: 'b' } },
      spec: {
        containers: [
          {
            env: [
              { name: 'DB_PASSWORD', value: '(removed)' },
              { name: 'MODE', value: 'fast' },
              { name: 'A', value: '(removed)' },
            ],
            count: 3,
          },
        ],
      },
    });
  });
});
