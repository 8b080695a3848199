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
    for (const text of ['reason binding_missing', 'eyJ.txt', 'eyJhbGci']) {
      assert.equal(redactText(text), text);
    }
    assert.equal(redactText(`a.${jwt}`), 'a.(removed)');
  });

  it('has no user and no password of a URL, such as that of a proxy', () => {
    for (const [text, clean] of [
      ['http://bob:s3cret@proxy:3128', 'http://(removed)@proxy:3128'],
      ['dial "https://tok@h/a", next', 'dial "https://(removed)@h/a", next'],
      ['https://bob:p@s/s#w@proxy:3128', 'https://(removed)@proxy:3128'],
      ['://bob:s3cret@proxy', '://(removed)@proxy'],
      ['://tok@proxy', '://(removed)@proxy'],
      ['bob:s3cret@proxy:3128', '(removed)@proxy:3128'],
      ['--https-proxy=bob:s3=cret@proxy', '--https-proxy=(removed)@proxy'],
      ['--https-proxy=http://bob:s3cret@proxy', '--https-proxy=http://(removed)@proxy'],
      ['{\\"proxy\\":\\"http://bob:s3cret@proxy\\"}', '{\\"proxy\\":\\"http://(removed)@proxy\\"}'],
    ] as const) {
      assert.equal(redactText(text), clean);
    }
    for (const text of [
      'https://proxy:3128/a',
      'https://@proxy',
      'registry/nmi:1.0@sha256:0a1b',
      'docker-pullable://registry/nmi@sha256:0a1b',
      'mail to ann@example.org',
    ]) {
      assert.equal(redactText(text), text);
    }
    const container = {
      args: ['--https-proxy', 'http://bob:s3cret@proxy'],
      env: [{ name: 'HTTPS_PROXY', value: 'http://bob:s3cret@proxy' }],
    };
    const spec = { initContainers: [container], containers: [container] };
    assert.doesNotMatch(JSON.stringify(redactObject({ kind: 'Pod', spec })), /bob|s3cret/);
  });

  it('takes time in proportion to its length, whatever an annotation has', () => {
    const started = performance.now();
    for (const part of ['eyJaaaaa', ' ', 'token=', 'eyJ-aaaaa.', '://', 'a', 'a:', '@', 'a:b@'])
      redactText(part.repeat(100_000));
    assert.ok(performance.now() - started < 2_000);
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
