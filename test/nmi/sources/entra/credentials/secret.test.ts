import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { ClientCredentialResult } from '../../../../../src/nmi/sources/entra/credentials/descriptor.ts';
import { makeClientSecret } from '../../../../../src/nmi/sources/entra/credentials/secret.ts';

const name = { namespace: 'default', name: 'sp' };

function secretIn(result: ClientCredentialResult): string {
  assert.ok(result.ok && 'clientSecret' in result.clientCredential, JSON.stringify(result));
  return result.clientCredential.clientSecret;
}

function make(entries: Readonly<Record<string, string | Buffer>>): ClientCredentialResult {
  const data = Object.entries(entries).map(([key, value]) => [key, Buffer.from(value)] as const);
  return makeClientSecret(name, new Map(data));
}

describe('the client secret in a Secret', () => {
  const used: readonly (readonly [string, Readonly<Record<string, string>>, string])[] = [
    ['is under clientSecret', { clientSecret: 's' }, 's'],
    ['is under clientSecret, whatever else there is', { a: 'x', clientSecret: 's', b: 'y' }, 's'],
    ['is under any key that is alone', { whatever: 's' }, 's'],
    ['loses the line end of echo', { clientSecret: 's\n' }, 's'],
    ['loses the line end of Windows', { clientSecret: 's\r\n' }, 's'],
    ['loses only one line end', { clientSecret: 's\n\n' }, 's\n'],
    ['keeps everything else', { clientSecret: '\ufeff s~é🔑\t\r' }, '\ufeff s~é🔑\t\r'],
  ];
  for (const [title, entries, expected] of used) {
    it(title, () => {
      assert.equal(secretIn(make(entries)), expected);
    });
  }

  const refused: readonly (readonly [string, Readonly<Record<string, string | Buffer>>, RegExp])[] =
    [
      ['there is no data', {}, /default\/sp has no data.*"clientSecret"/],
      ['several keys and none of them clientSecret', { b: 'x', a: 'y' }, /\(b, a\)/],
      ['it is empty', { clientSecret: '' }, /nothing under the key "clientSecret"/],
      ['it is a line end', { other: '\n' }, /nothing under the key "other"/],
      ['it is not UTF-8', { clientSecret: Buffer.from([0xc3, 0x28]) }, /UTF-8/],
    ];
  for (const [title, entries, pattern] of refused) {
    it(`is refused when ${title}`, () => {
      const result = make(entries);
      assert.ok(!result.ok);
      assert.equal(result.failure.reason, 'credential_invalid');
      assert.equal(result.failure.cooldownMs, 5_000);
      assert.match(result.failure.description, pattern);
    });
  }

  it('is the text, or a failure that does not contain it, for any Secret', () => {
    const canary = 'canary-3f9a';
    fc.assert(
      fc.property(
        fc.dictionary(fc.stringMatching(/^[-._a-zA-Z0-9]{1,20}$/), fc.uint8Array()),
        (entries) => {
          const data = Object.entries(entries).map(
            ([key, bytes]) => [key, Buffer.concat([Buffer.from(canary), bytes])] as const,
          );
          const result = makeClientSecret(name, new Map(data));
          if (!result.ok) assert.ok(!JSON.stringify(result).includes(canary));
        },
      ),
    );
  });
});
