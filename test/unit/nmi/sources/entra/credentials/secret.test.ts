/** A Secret as a credential: which one an identity names, its entries, and the client secret in it. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type {
  ClientCredentialResult,
  CredentialContext,
  CredentialSettings,
  SecretContext,
} from '../../../../../../src/nmi/sources/entra/credentials/descriptor.ts';
import {
  describeSecretKind,
  type SecretCredential,
} from '../../../../../../src/nmi/sources/entra/credentials/secret-credential.ts';
import {
  parseUtf8,
  withoutLineEnd,
} from '../../../../../../src/nmi/sources/entra/credentials/secret-entries.ts';
import { makeClientSecret } from '../../../../../../src/nmi/sources/entra/credentials/secret.ts';
import { HandClock } from '../../../../../support/hand-clock.ts';

describe('a kind of credential from a Secret', () => {
  const opened: SecretContext<SecretCredential<'test'>>[] = [];
  const kind = describeSecretKind(
    { kind: 'test', type: 9, typeTitle: 'a test' } as const,
    (context) => {
      opened.push(context);
      return {} as never;
    },
  );
  const parse = (secretName: string, secretNamespace = '') =>
    kind.parse({ namespace: 'ns', entra: { secretName, secretNamespace } } as CredentialSettings);

  it('is the Secret that the identity names, in its own namespace', () => {
    for (const namespace of ['', 'ns']) {
      const credential = parse('sp.1', namespace);
      assert.ok(typeof credential === 'object');
      assert.deepEqual(credential, { kind: 'test', secret: { namespace: 'ns', name: 'sp.1' } });
      assert.equal(kind.key(credential), 'ns/sp.1');
      assert.deepEqual(kind.objectOf(credential), credential.secret);
    }
    assert.equal(kind.objectKind, 'Secret');
  });

  it('is missing when no Secret can have the name, or in another namespace', () => {
    for (const name of ['', '../x', 'a/b', 'A', 'a_b']) {
      assert.match(JSON.stringify(parse(name)), /^"names no Secret in spec\.clientPassword/);
    }
    const elsewhere = /^"names a Secret of another namespace .* only its own is used"$/;
    for (const namespace of ['kube-system', 'NS', 'n']) {
      assert.match(JSON.stringify(parse('sp', namespace)), elsewhere);
    }
  });

  it('is opened with the clock, and with whom to name the certificates that it reads', () => {
    const context: CredentialContext<SecretCredential<'test'>> = {
      client: {} as never,
      tokenClient: {} as never,
      clock: new HandClock(),
      livePodOf: () => undefined,
      onCertificate: () => undefined,
      isNeeded: () => true,
    };
    kind.open(context);
    assert.deepEqual(opened, [context]);
  });
});

describe('the entries of a Secret', () => {
  it('are text only in UTF-8, including a byte order mark', () => {
    assert.equal(parseUtf8(Buffer.from('pä')), 'pä');
    assert.equal(parseUtf8(Buffer.from('\ufeffp')), '\ufeffp');
    assert.equal(parseUtf8(Buffer.from([0xff, 0xfe])), undefined);
  });

  it('lose one final line break, and nothing else', () => {
    const texts = ['a\n', 'a\r\n', 'a\n\n', 'a ', '\na', 'a\r'];
    assert.deepEqual(texts.map(withoutLineEnd), ['a', 'a', 'a\n', 'a ', '\na', 'a\r']);
  });
});

describe('the client secret in a Secret', () => {
  const name = { namespace: 'default', name: 'sp' };

  function make(entries: Readonly<Record<string, string | Uint8Array>>): ClientCredentialResult {
    const data = Object.entries(entries).map(([key, value]) => [key, Buffer.from(value)] as const);
    return makeClientSecret(name, new Map(data));
  }

  for (const [title, entries, clientSecret] of [
    ['is under clientSecret', { clientSecret: 's' }, 's'],
    ['is under clientSecret, whatever else there is', { a: 'x', clientSecret: 's', b: 'y' }, 's'],
    ['is under any key that is alone', { whatever: 's' }, 's'],
    ['loses one line end of echo or Windows', { clientSecret: 's\n\r\n' }, 's\n'],
    ['keeps everything else', { clientSecret: '\ufeff s~é🔑\t\r' }, '\ufeff s~é🔑\t\r'],
  ] as const) {
    it(title, () => {
      assert.deepEqual(make(entries), { ok: true, clientCredential: { clientSecret } });
    });
  }

  for (const [title, entries, pattern] of [
    ['there is no data', {}, /default\/sp has no data.*"clientSecret"/],
    ['several keys and none of them clientSecret', { b: 'x', a: 'y' }, /\(b, a\)/],
    ['it is empty', { clientSecret: '' }, /nothing under the key "clientSecret"/],
    ['it is a line end', { other: '\n' }, /nothing under the key "other"/],
    ['it is not UTF-8', { clientSecret: Buffer.from([0xc3, 0x28]) }, /UTF-8/],
  ] as const) {
    it(`is refused when ${title}`, () => {
      const result = make(entries);
      assert.ok(!result.ok);
      const { reason, cooldownMs, description } = result.failure;
      assert.deepEqual([reason, cooldownMs], ['credential_invalid', 5_000]);
      assert.match(description, pattern);
    });
  }

  it('is the text, or a failure that does not contain it, for any Secret', () => {
    const canary = 'canary-3f9a';
    const anyKey = fc.stringMatching(/^[-._a-zA-Z0-9]{1,20}$/);
    const anyValue = fc.uint8Array().map((bytes) => Buffer.concat([Buffer.from(canary), bytes]));
    fc.assert(
      fc.property(fc.dictionary(anyKey, anyValue), (entries) => {
        const result = make(entries);
        if (!result.ok) assert.ok(!JSON.stringify(result).includes(canary));
      }),
    );
  });
});
