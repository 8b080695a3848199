/** Common code of the credential kinds that are read from a Kubernetes Secret. */
import { isDnsSubdomain } from '../../../../base/dns-name.ts';
import { objectKey, type ObjectName } from '../../../../cache/index/object-name.ts';
import type { Clock } from '../../../../base/time/clock.ts';
import {
  createSecretReader,
  type SecretReader,
  type SecretResult,
} from '../../../kube/accounts/secrets.ts';
import { failed } from '../../source.ts';
import { openCredentialCache, type CredentialCache } from './credential-cache.ts';
import type { ClientCredentialResult, CredentialKind, CredentialSettings } from './descriptor.ts';

export interface SecretCredentialOptions {
  readonly reader: Pick<SecretReader, 'read'>;
  readonly clock: Clock;
  /** Most cached Secrets, with LRU eviction. Default 1000. */
  readonly maxKept?: number;
  /** Called with the expiry of a certificate that was read. */
  readonly onCertificate?: (secret: ObjectName, expiresAtWallMs: number) => void;
  /** Whether any identity uses the Secret now. Default: always. */
  readonly isNeeded?: (secret: ObjectName) => boolean;
}

/** Makes a credential from the entries of a Secret. Must not reject. */
export type MakeCredential = (
  secret: ObjectName,
  data: ReadonlyMap<string, Buffer>,
) => ClientCredentialResult | Promise<ClientCredentialResult>;

/** A client credential depends on its Secret only, so identities with the same Secret share it. */
export type SecretCredentials = CredentialCache<{ readonly secret: ObjectName }>;

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
  open: (options: SecretCredentialOptions) => SecretCredentials,
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

export function openSecretCache(
  makeCredential: MakeCredential,
  { reader, clock, maxKept = 1_000, isNeeded = () => true }: SecretCredentialOptions,
): SecretCredentials {
  return openCredentialCache({
    keyOf: ({ secret }) => objectKey(secret.namespace, secret.name),
    async load({ secret }) {
      const found = await reader.read(secret);
      const result =
        found.kind === 'found' ? await makeCredential(secret, found.data) : unusable(found);
      return { result, keepMs: result.ok ? keepMs : Math.min(keepMs, result.failure.cooldownMs) };
    },
    isNeeded: ({ secret }) => isNeeded(secret),
    clock,
    maxKept,
  });
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
