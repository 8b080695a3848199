/** Common code of the credential kinds that are read from a Kubernetes Secret. */
import { isDnsSubdomain } from '../../../../base/dns-name.ts';
import { objectKey, type ObjectName } from '../../../../cache/index/object-name.ts';
import { createSecretReader } from '../../../kube/accounts/secrets.ts';
import type { CredentialCacheOptions, SecretCredentials } from './credential-cache.ts';
import type { CredentialKind, CredentialSettings } from './descriptor.ts';

export interface SecretCredential<K extends string> {
  readonly kind: K;
  readonly secret: ObjectName;
}

export function describeSecretKind<K extends string>(
  own: Pick<
    CredentialKind<SecretCredential<K>>,
    'kind' | 'type' | 'typeTitle' | 'hasAuxiliaryTenants'
  >,
  open: (options: CredentialCacheOptions) => SecretCredentials,
): CredentialKind<SecretCredential<K>> {
  const { kind } = own;
  return {
    ...own,
    objectKind: 'Secret',
    parse(settings) {
      const secret = parseSecretName(settings);
      return typeof secret === 'string' ? secret : { kind, secret };
    },
    key: ({ secret }) => objectKey(secret.namespace, secret.name),
    objectOf: ({ secret }) => secret,
    open: (context) =>
      open({
        reader: createSecretReader(context.client),
        clock: context.clock,
        onCertificate: (secret, expiresAtWallMs) =>
          context.onCertificate({ kind, secret }, expiresAtWallMs),
        isNeeded: (secret) => context.isNeeded({ kind, secret }),
      }),
  };
}

function parseSecretName({ namespace, entra }: CredentialSettings): ObjectName | string {
  const { secretName, secretNamespace } = entra;
  if (!isDnsSubdomain(secretName)) return 'names no Secret in spec.clientPassword.name';
  // The agent may read Secrets that the author of an identity may not.
  if (secretNamespace !== '' && secretNamespace !== namespace) {
    return 'names a Secret of another namespace in spec.clientPassword.namespace; only its own is used';
  }
  return { namespace, name: secretName };
}
