import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type {
  CredentialContext,
  CredentialSettings,
  SecretContext,
} from '../../../../../src/nmi/sources/entra/credentials/descriptor.ts';
import {
  describeSecretKind,
  type SecretCredential,
} from '../../../../../src/nmi/sources/entra/credentials/secret-credential.ts';
import { HandClock } from '../../../../support/hand-clock.ts';

function describeKind() {
  const opened: SecretContext<SecretCredential<'test'>>[] = [];
  const own = { kind: 'test', type: 9, typeTitle: 'a test' } as const;
  const kind = describeSecretKind(own, (context) => {
    opened.push(context);
    return {} as never;
  });
  return { kind, opened };
}

function settings(secretName: string, secretNamespace = ''): CredentialSettings {
  return { namespace: 'ns', entra: { secretName, secretNamespace } } as CredentialSettings;
}

describe('a kind of credential from a Secret', () => {
  it('is the Secret that the identity names, in its own namespace', () => {
    const { kind } = describeKind();
    for (const namespace of ['', 'ns']) {
      const credential = kind.parse(settings('sp.1', namespace));
      assert.ok(typeof credential === 'object');
      assert.deepEqual(credential, { kind: 'test', secret: { namespace: 'ns', name: 'sp.1' } });
      assert.equal(kind.key(credential), 'ns/sp.1');
      assert.deepEqual(kind.objectOf(credential), credential.secret);
    }
    assert.equal(kind.objectKind, 'Secret');
  });

  it('is missing when no Secret can have the name, or in another namespace', () => {
    const { kind } = describeKind();
    for (const name of ['', '../x', 'a/b', 'A', 'a_b']) {
      assert.match(
        JSON.stringify(kind.parse(settings(name))),
        /^"names no Secret in spec\.clientPassword/,
      );
    }
    for (const namespace of ['kube-system', 'NS', 'n']) {
      const problem = JSON.stringify(kind.parse(settings('sp', namespace)));
      assert.match(problem, /^"names a Secret of another namespace .* only its own is used"$/);
    }
  });

  it('is opened with the clock, and with whom to name the certificates that it reads', () => {
    const { kind, opened } = describeKind();
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
