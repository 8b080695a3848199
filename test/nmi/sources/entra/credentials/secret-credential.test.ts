import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { ObjectName } from '../../../../../src/cache/index/object-name.ts';
import type { CredentialSettings } from '../../../../../src/nmi/sources/entra/credentials/descriptor.ts';
import {
  describeSecretKind,
  type SecretCredentialOptions,
} from '../../../../../src/nmi/sources/entra/credentials/secret-credential.ts';
import { HandClock } from '../../../../support/hand-clock.ts';

function describeKind() {
  const opened: SecretCredentialOptions[] = [];
  const own = { kind: 'test', type: 9, typeTitle: 'a test' } as const;
  const kind = describeSecretKind(own, (options) => {
    opened.push(options);
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

  it('is opened with the clock, and with who needs a Secret as one of its kind', () => {
    const { kind, opened } = describeKind();
    const clock = new HandClock();
    const asked: unknown[] = [];
    const noted: unknown[] = [];
    kind.open({
      client: {} as never,
      tokenClient: {} as never,
      clock,
      livePodOf: () => undefined,
      onCertificate: (found) => noted.push(found),
      isNeeded: (credential) => {
        asked.push(credential);
        return true;
      },
    });
    const [options] = opened;
    assert.equal(options?.clock, clock);
    const secret: ObjectName = { namespace: 'ns', name: 'sp' };
    assert.equal(options?.isNeeded?.(secret), true);
    assert.deepEqual(asked, [{ kind: 'test', secret }]);
    options?.onCertificate?.(secret, 1);
    assert.deepEqual(noted, [{ kind: 'test', secret }]);
  });
});
