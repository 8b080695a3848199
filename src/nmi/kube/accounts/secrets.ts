/**
 * Reads Secrets on demand and never watches or lists them: the agent stores only data that an
 * identity of this node needs, and only while it needs it.
 */
import type { ObjectName } from '../../../cache/index/object-name.ts';
import { asRecord } from '../../../base/json-value.ts';
import { isDnsLabel, isDnsSubdomain } from '../../../base/dns-name.ts';
import { printable } from '../../../base/printable.ts';
import type { KubeClient } from '../api/client.ts';
import { KubeError } from '../api/kube-error.ts';

/** `problem` is a clause that names the Secret and may be shown to a pod. */
export type SecretResult =
  /** The entries of `data`, decoded. */
  | { readonly kind: 'found'; readonly data: ReadonlyMap<string, Buffer> }
  | { readonly kind: 'missing'; readonly problem: string }
  /** The name is invalid. */
  | { readonly kind: 'misnamed'; readonly problem: string }
  /** The agent's own service account may not read it. */
  | { readonly kind: 'forbidden'; readonly problem: string }
  /** Transient: the API server is unreachable, slow, or busy. */
  | {
      readonly kind: 'unavailable';
      readonly problem: string;
      /** Undefined without a `Retry-After`. */
      readonly retryAfterMs: number | undefined;
    };

/** Whether a Secret exists and the agent may read it, without its data. */
export type SecretAccess =
  { readonly kind: 'readable' } | Exclude<SecretResult, { readonly kind: 'found' }>;

export interface SecretReader {
  /** One request. Never rejects. */
  read(secret: ObjectName): Promise<SecretResult>;
  /** One request for its name alone, which needs the same permission as `read`. Never rejects. */
  check(secret: ObjectName): Promise<SecretAccess>;
  /**
   * Whether the server reports that it does not exist; one request for its name alone. Never
   * rejects.
   */
  isGone(secret: ObjectName): Promise<boolean>;
}

export interface SecretReaderOptions {
  /** For one read, credentials and body included. Default 5 s. */
  readonly timeoutMs?: number;
}

/** The API server accepts 1 MiB of data at most; base64 adds a third. */
const maxEncodedChars = 1.5 * 1024 * 1024;

/** The server then returns the fields that a list shows, and not the secret ones. */
const nameAlone = 'application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1';

export function createSecretReader(
  client: KubeClient,
  { timeoutMs = 5_000 }: SecretReaderOptions = {},
): SecretReader {
  async function check(secret: ObjectName): Promise<SecretAccess> {
    const misnamed = misnamedOf(secret);
    if (misnamed !== undefined) return misnamed;
    try {
      await client.getJson(pathOf(secret), { timeoutMs, accept: nameAlone });
      return { kind: 'readable' };
    } catch (error) {
      return resultOfFailure(secret, error);
    }
  }

  return {
    async read(secret) {
      const misnamed = misnamedOf(secret);
      if (misnamed !== undefined) return misnamed;
      try {
        return classify(secret, await client.getJson(pathOf(secret), { timeoutMs }));
      } catch (error) {
        return resultOfFailure(secret, error);
      }
    },
    check,
    isGone: async (secret) => (await check(secret)).kind === 'missing',
  };
}

function misnamedOf(
  secret: ObjectName,
): Extract<SecretResult, { readonly kind: 'misnamed' }> | undefined {
  if (isDnsLabel(secret.namespace) && isDnsSubdomain(secret.name)) return undefined;
  return { kind: 'misnamed', problem: `${titleOf(secret)} is not a name that a Secret can have` };
}

function pathOf({ namespace, name }: ObjectName): string {
  return `/api/v1/namespaces/${namespace}/secrets/${name}`;
}

/** Name of a Secret in a text that a pod may see. */
export function titleOf({ namespace, name }: ObjectName): string {
  return `Secret ${printable(namespace)}/${printable(name)}`;
}

function classify(secret: ObjectName, body: unknown): SecretResult {
  const object = asRecord(body);
  // A Secret without data has no field `data`.
  const data = object?.['data'] === undefined ? {} : asRecord(object['data']);
  if (object?.['kind'] !== 'Secret' || data === undefined) return unavailable(secret, 'MALFORMED');
  const decoded = new Map<string, Buffer>();
  let encodedChars = 0;
  for (const [key, value] of Object.entries(data)) {
    if (typeof value !== 'string') return unavailable(secret, 'MALFORMED');
    encodedChars += value.length;
    if (encodedChars > maxEncodedChars) return unavailable(secret, 'MALFORMED');
    decoded.set(key, Buffer.from(value, 'base64'));
  }
  return { kind: 'found', data: decoded };
}

function resultOfFailure(
  secret: ObjectName,
  error: unknown,
): Exclude<SecretAccess, { readonly kind: 'readable' }> {
  if (!(error instanceof KubeError)) return unavailable(secret, 'NETWORK');
  switch (error.code) {
    case 'NOT_FOUND':
      return { kind: 'missing', problem: `${titleOf(secret)} does not exist` };
    case 'FORBIDDEN':
      return {
        kind: 'forbidden',
        problem:
          `the agent may not read ${titleOf(secret)}: its service account needs a role with the ` +
          'rule apiGroups [""], resources ["secrets"], verbs ["get"] in that namespace',
      };
    default:
      return unavailable(secret, error.code, error.retryAfterMs);
  }
}

function unavailable(
  secret: ObjectName,
  code: string,
  retryAfterMs?: number,
): Extract<SecretResult, { readonly kind: 'unavailable' }> {
  const problem = `the Kubernetes API did not give ${titleOf(secret)} (${code})`;
  return { kind: 'unavailable', problem, retryAfterMs };
}
