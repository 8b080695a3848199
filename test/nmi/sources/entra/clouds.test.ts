import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  cloudNames,
  cloudOf,
  parseOrigin,
  resolveAuthority,
  type CloudName,
} from '../../../../src/nmi/sources/entra/clouds.ts';

const publicAudience = 'api://AzureADTokenExchange';

describe('a cloud', () => {
  const table: readonly (readonly [CloudName, string, string])[] = [
    ['public', 'https://login.microsoftonline.com', publicAudience],
    ['usgovernment', 'https://login.microsoftonline.us', `${publicAudience}USGov`],
    ['china', 'https://login.partner.microsoftonline.cn', `${publicAudience}China`],
    ['usnat', 'https://login.microsoftonline.eaglex.ic.gov', `${publicAudience}USNat`],
    ['ussec', 'https://login.microsoftonline.microsoft.scloud', `${publicAudience}USSec`],
  ];
  for (const [name, authority, audience] of table) {
    it(`${name} has its authority and its audience`, () => {
      assert.deepEqual(cloudOf(name), { authority, audience });
      const own = { adEndpoint: '', cloud: name, allowedHosts: [] };
      const cloud = { authority, audience, accountAudience: audience };
      assert.deepEqual(resolveAuthority(own), { ok: true, ...cloud });
    });
  }

  it('is in the table', () => {
    assert.deepEqual(
      table.map(([name]) => name),
      cloudNames,
    );
  });
});

describe('the authority of an identity', () => {
  const allowedHosts = ['login.contoso.example', 'login.contoso.example:8443', '[::1]:8443'];
  const taken: readonly (readonly [adEndpoint: string, authority: string, audience: string])[] = [
    ['https://login.microsoftonline.com', 'https://login.microsoftonline.com', publicAudience],
    ['https://login.microsoftonline.com/', 'https://login.microsoftonline.com', publicAudience],
    ['HTTPS://Login.MicrosoftOnline.COM', 'https://login.microsoftonline.com', publicAudience],
    [' https://login.windows.net\n', 'https://login.windows.net', publicAudience],
    ['https://login.microsoft.com', 'https://login.microsoft.com', publicAudience],
    ['https://sts.windows.net', 'https://sts.windows.net', publicAudience],
    ['https://login.microsoftonline.com:443', 'https://login.microsoftonline.com', publicAudience],
    [
      'https://login-us.microsoftonline.com',
      'https://login-us.microsoftonline.com',
      `${publicAudience}USGov`,
    ],
    [
      'https://login.chinacloudapi.cn/',
      'https://login.partner.microsoftonline.cn',
      `${publicAudience}China`,
    ],
    // A custom host has the audience of the node's cloud.
    ['https://login.contoso.example', 'https://login.contoso.example', `${publicAudience}USNat`],
    [
      'https://login.contoso.example:8443/',
      'https://login.contoso.example:8443',
      `${publicAudience}USNat`,
    ],
    ['https://[::1]:8443', 'https://[::1]:8443', `${publicAudience}USNat`],
  ];
  for (const [adEndpoint, authority, audience] of taken) {
    it(`may be ${JSON.stringify(adEndpoint)}`, () => {
      const result = resolveAuthority({ adEndpoint, cloud: 'usnat', allowedHosts });
      const found = { authority, audience, accountAudience: audience };
      assert.deepEqual(result, { ok: true, ...found });
    });
  }

  const refused = [
    'http://login.microsoftonline.com',
    'login.microsoftonline.com',
    '//login.microsoftonline.com',
    'https://login.microsoftonline.com/common',
    'https://login.microsoftonline.com//',
    'https://login.microsoftonline.com/?',
    'https://login.microsoftonline.com?x=1',
    'https://login.microsoftonline.com#',
    'https://login.microsoftonline.com:8443',
    'https://login.microsoftonline.com.',
    'https://login.microsoftonline.com.evil.example',
    'https://login.microsoftonline.com\\@evil.example',
    'https://login.microsoftonline.com@evil.example',
    'https://user:hunter2@login.microsoftonline.com',
    'https://login.usgovcloudapi.net',
    'https://evil.example',
    'https://login.contoso.example:9443',
    'https://sub.login.contoso.example',
    'https:///login.microsoftonline.com',
    'https://',
    'https://169.254.169.254',
    'file:///etc/passwd',
  ];
  for (const adEndpoint of refused) {
    it(`may not be ${adEndpoint}`, () => {
      const result = resolveAuthority({ adEndpoint, cloud: 'public', allowedHosts });
      assert.ok(!result.ok);
      assert.match(result.problem, /^has the spec\.adEndpoint.*allowed are .+/);
      assert.doesNotMatch(result.problem, /hunter2/);
    });
  }

  it('is quoted in part when it is long and no origin, and never with a password', () => {
    const problemOf = (adEndpoint: string): string => {
      const result = resolveAuthority({ adEndpoint, cloud: 'public', allowedHosts });
      assert.ok(!result.ok);
      return result.problem.split(', ')[0] ?? '';
    };
    const long = `http://${'x'.repeat(90)}`;
    assert.equal(problemOf(long), `has the spec.adEndpoint ${long.slice(0, 80)}`);
    assert.equal(problemOf('https://user:hunter2@x'), 'has the spec.adEndpoint');
  });

  it('is listed with the allowed ones when it is refused', () => {
    const question = { adEndpoint: 'https://evil.example', cloud: 'public', allowedHosts } as const;
    const result = resolveAuthority(question);
    assert.ok(!result.ok);
    for (const named of ['https://evil.example', ...allowedHosts, 'login.microsoftonline.us']) {
      assert.ok(result.problem.includes(named), named);
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
        const result = resolveAuthority({ adEndpoint, cloud: 'public', allowedHosts });
        if (result.ok) {
          assert.match(result.authority, known);
          assert.equal(new URL(result.authority).origin, result.authority);
        }
      }),
    );
  });
});

describe('the origin of an authority', () => {
  it('is a name or an address, with or without a port', () => {
    for (const [text, origin] of [
      ['https://Login.Contoso.example', 'https://login.contoso.example'],
      ['https://a:443/', 'https://a'],
      ['HTTPS://b:8443', 'https://b:8443'],
      ['https://10.0.0.1', 'https://10.0.0.1'],
      ['https://[::1]:8443', 'https://[::1]:8443'],
    ] as const) {
      assert.equal(parseOrigin(text), origin);
    }
  });

  it('is nothing else', () => {
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
        const allowedHosts = [new URL(origin).host];
        assert.ok(resolveAuthority({ adEndpoint, cloud: 'public', allowedHosts }).ok);
      }),
    );
  });
});
