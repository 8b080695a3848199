/** Which server, CA, proxy and pod stand for an identity: decided before any request. */
import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { rootCertificates } from 'node:tls';
import fc from 'fast-check';
import type { Pod } from '../../../../../src/cache/index/objects.ts';
import { readEntraCa } from '../../../../../src/nmi/sources/entra/ca-file.ts';
import {
  cloudNames,
  cloudOf,
  parseOrigin,
  resolveAuthority,
  type CloudName,
} from '../../../../../src/nmi/sources/entra/clouds.ts';
import { livePodOf } from '../../../../../src/nmi/sources/entra/live-pod.ts';
import { parseProxy } from '../../../../../src/nmi/sources/entra/proxy.ts';
import { createPod } from '../../../../support/cache-objects.ts';

const publicAudience = 'api://AzureADTokenExchange';
const allowedHosts = ['login.contoso.example', 'login.contoso.example:8443', '[::1]:8443'];

function resolve(adEndpoint: string, cloud: CloudName = 'public', hosts = allowedHosts) {
  return resolveAuthority({ adEndpoint, cloud, allowedHosts: hosts });
}

describe('a cloud', () => {
  it('has its authority and its audience', () => {
    const table = [
      ['public', 'login.microsoftonline.com', ''],
      ['usgovernment', 'login.microsoftonline.us', 'USGov'],
      ['china', 'login.partner.microsoftonline.cn', 'China'],
      ['usnat', 'login.microsoftonline.eaglex.ic.gov', 'USNat'],
      ['ussec', 'login.microsoftonline.microsoft.scloud', 'USSec'],
    ] as const;
    assert.deepEqual(
      table.map(([name]) => name),
      cloudNames,
    );
    for (const [name, host, suffix] of table) {
      const cloud = { authority: `https://${host}`, audience: `${publicAudience}${suffix}` };
      assert.deepEqual(cloudOf(name), cloud);
      const resolved = { ok: true, ...cloud, accountAudience: cloud.audience };
      assert.deepEqual(resolve('', name, []), resolved);
    }
  });
});

describe('the authority of an identity', () => {
  it('is one of a cloud, with its audience, or an allowed host, with that of the node’s cloud', () => {
    for (const [adEndpoint, authority, suffix = ''] of [
      ['https://login.microsoftonline.com', 'https://login.microsoftonline.com'],
      ['https://login.microsoftonline.com/', 'https://login.microsoftonline.com'],
      ['HTTPS://Login.MicrosoftOnline.COM', 'https://login.microsoftonline.com'],
      [' https://login.windows.net\n', 'https://login.windows.net'],
      ['https://login.microsoft.com', 'https://login.microsoft.com'],
      ['https://sts.windows.net', 'https://sts.windows.net'],
      ['https://login.microsoftonline.com:443', 'https://login.microsoftonline.com'],
      ['https://login-us.microsoftonline.com', 'https://login-us.microsoftonline.com', 'USGov'],
      ['https://login.chinacloudapi.cn/', 'https://login.partner.microsoftonline.cn', 'China'],
      ['https://login.contoso.example', 'https://login.contoso.example', 'USNat'],
      ['https://login.contoso.example:8443/', 'https://login.contoso.example:8443', 'USNat'],
      ['https://[::1]:8443', 'https://[::1]:8443', 'USNat'],
    ] as const) {
      const audience = `${publicAudience}${suffix}`;
      const found = { ok: true, authority, audience, accountAudience: audience };
      assert.deepEqual(resolve(adEndpoint, 'usnat'), found, adEndpoint);
    }
  });

  it('is no other scheme, host, port or path, and no URL with a user', () => {
    const known = 'login.microsoftonline.com';
    const paths = [
      '/common',
      '//',
      '/?',
      '?x=1',
      '#',
      ':8443',
      '.',
      '.evil.example',
      '@evil.example',
    ];
    for (const adEndpoint of [
      ...paths.map((path) => `https://${known}${path}`),
      ...['http://', '', '//', 'https:///', 'https://user:hunter2@'].map(
        (scheme) => scheme + known,
      ),
      `https://${known}\\@evil.example`,
      'https://login.usgovcloudapi.net',
      'https://evil.example',
      'https://login.contoso.example:9443',
      'https://sub.login.contoso.example',
      'https://',
      'https://169.254.169.254',
      'file:///etc/passwd',
    ]) {
      const result = resolve(adEndpoint);
      assert.ok(!result.ok, adEndpoint);
      assert.match(result.problem, /^has the spec\.adEndpoint.*allowed are .+/);
      assert.doesNotMatch(result.problem, /hunter2/);
    }
  });

  it('is quoted in part when it is long and no origin, never with a password, with the allowed ones', () => {
    const long = `http://${'x'.repeat(90)}`;
    for (const [adEndpoint, quoted] of [
      [long, ` ${long.slice(0, 80)}`],
      ['https://user:hunter2@x', ''],
      ['https://evil.example', ' https://evil.example'],
    ] as const) {
      const result = resolve(adEndpoint);
      assert.ok(!result.ok);
      assert.equal(result.problem.split(', ')[0], `has the spec.adEndpoint${quoted}`);
    }
    const refused = resolve('https://evil.example');
    assert.ok(!refused.ok);
    for (const named of [...allowedHosts, 'login.microsoftonline.us']) {
      assert.ok(refused.problem.includes(named), named);
    }
  });

  it('is always an origin of the list, for any text', () => {
    const known = /^https:\/\/(?:login|sts)[a-z.-]*(?::8443)?$/;
    const spiced = fc
      .tuple(
        fc.constantFrom('https://', 'HTTPS:\\\\', 'http://', '', 'https:/'),
        fc.string({ maxLength: 6 }),
        fc.constantFrom('login.microsoftonline.com', 'login.contoso.example', 'evil.example'),
        fc.string({ maxLength: 6 }),
      )
      .map((parts) => parts.join(''));
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.webUrl(), spiced), (adEndpoint) => {
        const result = resolve(adEndpoint);
        if (!result.ok) return;
        assert.match(result.authority, known);
        assert.equal(new URL(result.authority).origin, result.authority);
      }),
    );
  });
});

describe('the origin of an authority', () => {
  it('is a name or an address, with or without a port, and nothing else', () => {
    for (const [text, origin] of [
      ['https://Login.Contoso.example', 'https://login.contoso.example'],
      ['https://a:443/', 'https://a'],
      ['HTTPS://b:8443', 'https://b:8443'],
      ['https://10.0.0.1', 'https://10.0.0.1'],
      ['https://[::1]:8443', 'https://[::1]:8443'],
    ] as const) {
      assert.equal(parseOrigin(text), origin);
    }
    const hosts = ['', '*.example', 'a/b', 'a@b', 'a:', 'a:99999', '1.2.3.999', 'a b', '::1', '.a'];
    const others = ['a', 'http://a', 'https://a?b', 'https://a#b'];
    for (const text of [...hosts.map((host) => `https://${host}`), ...others]) {
      assert.equal(parseOrigin(text), undefined, text);
    }
  });

  it('is allowed in an identity when the operator lists it', () => {
    fc.assert(
      fc.property(fc.domain(), fc.integer({ min: 1, max: 65_535 }), (domain, port) => {
        const adEndpoint = `https://${domain}:${port}/`;
        const origin = parseOrigin(adEndpoint);
        assert.ok(origin !== undefined);
        assert.ok(resolve(adEndpoint, 'public', [new URL(origin).host]).ok);
      }),
    );
  });
});

describe('CAs in addition to the built-in ones', () => {
  async function readText(text: string): Promise<string | undefined> {
    const folder = await mkdtemp(join(tmpdir(), 'nmi-ca-'));
    try {
      const path = join(folder, 'ca.pem');
      await writeFile(path, text);
      return await readEntraCa(path);
    } finally {
      await rm(folder, { recursive: true });
    }
  }

  it('are the certificates of the file, or none without a file', async () => {
    const [one = '', other = ''] = rootCertificates.map((pem) => String(new X509Certificate(pem)));
    assert.equal(await readText(one), one);
    assert.equal(await readText(`# CA\n${one}\n${other}`), `${one}${other}`);
    assert.equal(await readEntraCa(''), undefined);
  });

  it('cannot come from a missing file, or one without a certificate', async () => {
    const refused = { name: 'StartError', code: 'CONFIG', message: /^--entra-ca-file .* PEM/ };
    const broken = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n';
    const unended = '-----BEGIN CERTIFICATE-----\nAA==\n';
    const half = `${rootCertificates[0] ?? ''}\n${broken}`;
    for (const text of ['', 'no certificate', unended, broken, half]) {
      await assert.rejects(readText(text), refused);
    }
    await assert.rejects(readEntraCa('/nothing/there'), refused);
  });
});

describe('the proxy variables', () => {
  it('give the proxy of HTTPS_PROXY, and lower case has priority', () => {
    for (const [environment, url, noProxy = ''] of [
      [{}, undefined],
      [{ HTTPS_PROXY: ' ', https_proxy: '' }, undefined],
      [{ HTTP_PROXY: 'http://p:1', ALL_PROXY: 'http://p:1' }, undefined],
      [{ HTTPS_PROXY: 'http://p:3128' }, 'http://p:3128/'],
      [{ HTTPS_PROXY: 'p:3128' }, 'http://p:3128/'],
      [{ HTTPS_PROXY: 'https://u:a%40b@p' }, 'https://u:a%40b@p/'],
      [
        { HTTPS_PROXY: 'http://upper', https_proxy: 'http://lower', NO_PROXY: '.a, b' },
        'http://lower/',
        '.a, b',
      ],
      [{ HTTPS_PROXY: 'http://p', no_proxy: 'a', NO_PROXY: 'b' }, 'http://p/', 'a'],
    ] as const) {
      assert.deepEqual(parseProxy(environment), url && { url, noProxy });
    }
  });

  it('are refused if they name no proxy, without being quoted', () => {
    const others = ['socks5://hunter2@p:1080', 'ftp://hunter2'];
    const values = [...others, 'http://', 'http://hunter2:%zz@p', 'hunter2@ p'];
    const message = 'HTTPS_PROXY is not the URL of an http or https proxy; correct HTTPS_PROXY';
    for (const HTTPS_PROXY of values) {
      assert.throws(() => parseProxy({ HTTPS_PROXY }), { name: 'StartError', message });
    }
  });
});

describe('the pod for the token of a service account', () => {
  const account = { namespace: 'team', name: 'robot' };
  const podOf = (name: string, fields: Partial<Pod> = {}) =>
    createPod({ name, namespace: 'team', serviceAccount: 'robot', ...fields });

  it('has this account and has not ended', () => {
    const others = [
      podOf('a', { namespace: 'other' }),
      podOf('b', { serviceAccount: 'default' }),
      podOf('c', { phase: 'Succeeded' }),
      podOf('d', { phase: 'Failed' }),
    ];
    assert.equal(livePodOf(others, account), undefined);
    const own = podOf('e', { phase: 'Pending' });
    assert.equal(livePodOf([...others, own], account), own);
  });

  it('is the oldest that is not terminating, in any order of arrival', () => {
    const leaving = podOf('leaving', { terminating: true, createdAtWallMs: 1 });
    const old = podOf('old', { createdAtWallMs: 2 });
    const twin = podOf('zwin', { createdAtWallMs: 2 });
    const young = podOf('new', { createdAtWallMs: 3 });
    fc.assert(
      fc.property(fc.shuffledSubarray([leaving, old, twin, young], { minLength: 4 }), (pods) => {
        assert.equal(livePodOf(pods, account), old);
      }),
    );
    assert.equal(livePodOf([leaving], account), leaving, 'better than none');
  });
});
