/** Common code of the credential kinds that are read from a Kubernetes Secret. */
import { isDnsSubdomain } from '../../../../base/dns-name.ts';
import { objectKey, type ObjectName } from '../../../../cache/index/object-name.ts';
import {
  createSecretReader,
  type SecretReader,
  type SecretResult,
} from '../../../kube/accounts/secrets.ts';
import { failed } from '../../source.ts';
import type {
  ClientCredentialResult,
  CredentialKind,
  CredentialLoader,
  CredentialSettings,
  SecretContext,
  SecretKind,
} from './descriptor.ts';

/** Makes a credential from the entries of a Secret. Must not reject. */
export type MakeCredential = (
  secret: ObjectName,
  data: ReadonlyMap<string, Buffer>,
) => ClientCredentialResult | Promise<ClientCredentialResult>;

/** A client credential is used so long before its Secret is read again. */
const keepMs = 60_000;
/** Cooldown of the failure for an unusable Secret, which costs one read in this time. */
const invalidCooldownMs = 5_000;
const unavailableCooldownMs = 1_000;

export interface SecretCredential<K extends string> {
  readonly kind: K;
  readonly secret: ObjectName;
}

export function describeSecretKind<K extends string>(
  own: Pick<
    CredentialKind<SecretCredential<K>>,
    'kind' | 'type' | 'typeTitle' | 'hasAuxiliaryTenants'
  >,
  openMaker: (context: SecretContext<SecretCredential<K>>) => MakeCredential,
): SecretKind<SecretCredential<K>> {
  const { kind } = own;
  return {
    ...own,
    objectKind: 'Secret',
    parse(settings) {
      const secret = parseSecretName(settings);
      return typeof secret === 'string' ? secret : { kind, secret };
    },
    key: keyOf,
    objectOf: ({ secret }) => secret,
    open: (context) => loaderOf(createSecretReader(context.client), openMaker(context)),
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

function keyOf({ secret }: { readonly secret: ObjectName }): string {
  return objectKey(secret.namespace, secret.name);
}

/** Exported for its tests. */
export function loaderOf(
  reader: Pick<SecretReader, 'read'>,
  makeCredential: MakeCredential,
): CredentialLoader<{ readonly secret: ObjectName }> {
  return {
    keyOf,
    async load({ secret }) {
      const found = await reader.read(secret);
      const result =
        found.kind === 'found' ? await makeCredential(secret, found.data) : unusable(found);
      return { result, keepMs: result.ok ? keepMs : Math.min(keepMs, result.failure.cooldownMs) };
    },
  };
}

export function invalidCredential(description: string): ClientCredentialResult {
  return failed({ reason: 'credential_invalid', description, cooldownMs: invalidCooldownMs });
}

export function unavailableCredential(
  description: string,
  retryAfterMs?: number,
): ClientCredentialResult {
  return failed({
    reason: 'upstream_down',
    description,
    cooldownMs: unavailableCooldownMs,
    ...(retryAfterMs === undefined ? {} : { retryAfterS: Math.ceil(retryAfterMs / 1000) }),
  });
}

function unusable(result: Exclude<SecretResult, { kind: 'found' }>): ClientCredentialResult {
  switch (result.kind) {
    case 'missing':
      return failed({
        reason: 'credential_missing',
        description: result.problem,
        cooldownMs: invalidCooldownMs,
      });
    case 'misnamed':
    case 'forbidden':
      return invalidCredential(result.problem);
    case 'unavailable':
      return unavailableCredential(result.problem, result.retryAfterMs);
  }
}
