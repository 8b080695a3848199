/**
 * Reads Secrets on demand and never watches or lists them: the agent stores only data that an
 * identity of this node needs, and only while it needs it.
 */
import type { ObjectName } from '../../../cache/index/object-name.ts';
import { asRecord } from '../../../base/json-value.ts';
import { isDnsLabel, isDnsSubdomain } from '../../../base/dns-name.ts';
import { printable } from '../../../base/printable.ts';
import type { Unavailable } from '../api/call-outcome.ts';
import type { KubeClient, RequestOptions } from '../api/client.ts';
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
  | Unavailable;

/** Whether a Secret exists and the agent may read it, without its data. */
export type SecretAccess =
  { readonly kind: 'readable' } | Exclude<SecretResult, { readonly kind: 'found' }>;

export interface SecretReader {
  /** One request. Never rejects. */
  read(secret: ObjectName): Promise<SecretResult>;
  /** One request for its name alone, which needs the same permission as `read`. Never rejects. */
  check(secret: ObjectName): Promise<SecretAccess>;
}

/** The API server accepts 1 MiB of data at most; base64 adds a third. */
const maxEncodedChars = 1.5 * 1024 * 1024;

/** The server then returns the fields that a list shows, and not the secret ones. */
const nameAlone = 'application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1';

type Failure = Exclude<SecretAccess, { readonly kind: 'readable' }>;

/** @param timeoutMs for one read, credentials and body included. */
export function createSecretReader(client: KubeClient, timeoutMs = 5_000): SecretReader {
  async function ask<T>(
    secret: ObjectName,
    options: RequestOptions,
    resultOf: (body: unknown) => T,
  ): Promise<T | Failure> {
    const { namespace, name } = secret;
    if (!isDnsLabel(namespace) || !isDnsSubdomain(name)) {
      const problem = `${titleOf(secret)} is not a name that a Secret can have`;
      return { kind: 'misnamed', problem };
    }
    try {
      const path = `/api/v1/namespaces/${namespace}/secrets/${name}`;
      return resultOf(await client.getJson(path, { timeoutMs, ...options }));
    } catch (error) {
      return resultOfFailure(secret, error);
    }
  }

  return {
    read: (secret) => ask(secret, {}, (body) => classify(secret, body)),
    check: (secret) => ask(secret, { accept: nameAlone }, () => ({ kind: 'readable' as const })),
  };
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

function resultOfFailure(secret: ObjectName, error: unknown): Failure {
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

function unavailable(secret: ObjectName, code: string, retryAfterMs?: number): Unavailable {
  const problem = `the Kubernetes API did not give ${titleOf(secret)} (${code})`;
  return { kind: 'unavailable', problem, retryAfterMs };
}
