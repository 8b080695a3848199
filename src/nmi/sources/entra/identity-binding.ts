/**
 * Identity bindings of AKS: the API server exchanges tokens of service accounts in the place of Entra ID.
 * 1. It does so under another TLS name, which is derived from the id of the cluster; the id is in its certificate.
 * 2. Only the cluster's own authorities are trusted for that name, and no credential of the agent is sent there.
 * 3. RBAC of Kubernetes says which service account may use which identity.
 */
import { createHash } from 'node:crypto';
import { Pool } from 'undici';
import type { Clock } from '../../../base/time/clock.ts';
import { parseRecord, stringAt } from '../../../base/json-value.ts';
import { networkCode } from '../../../base/network-code.ts';
import { printable } from '../../../base/printable.ts';
import { SingleFlight } from '../../../base/single-flight.ts';
import { connectTimeouts, type ApiServer, type KubeClient } from '../../kube/api/client.ts';
import { createConnector } from '../../kube/api/connector.ts';
import { readServerNames } from '../../kube/api/server-certificate.ts';
import type { FailureReason, SourceFailure } from '../source.ts';
import { claimsOf } from '../token-fields.ts';
import { classifyEntraError, type EntraAnswer } from './aadsts.ts';
import { roleOfIdentity } from './identity-use.ts';
import { EntraNetworkError, poolOptionsOf, posterOf, type EntraNetwork } from './network.ts';

export interface BindingNetworkOptions {
  readonly client: Pick<KubeClient, 'server'>;
  /** Empty: only that of the certificate. */
  readonly clusterId: string;
  readonly timeoutMs: number;
  readonly userAgent: string;
  readonly clock: Clock;
}

interface Opened {
  readonly fingerprint: string;
  readonly pool: Pool;
  readonly post: EntraNetwork['postForm'];
}

/** Short, so that a fix takes effect soon. */
const cooldownMs = 5_000;

/** Opens no connection yet. */
export function openBindingNetwork(options: BindingNetworkOptions): EntraNetwork {
  const { client, clock, timeoutMs } = options;
  const opening = new SingleFlight<Opened>();
  let opened: Opened | undefined;
  let isClosed = false;

  async function open(apiServer: ApiServer): Promise<Opened> {
    const { origin, fingerprint, tls } = apiServer;
    const serverName = serverNameOf(await clusterIdOf(apiServer, options));
    if (isClosed) throw new EntraNetworkError('the agent stops');
    const pool = new Pool(origin, {
      ...poolOptionsOf(timeoutMs),
      connect: createConnector({
        clock,
        tls: { ca: tls.ca, servername: serverName, rejectUnauthorized: true },
        ...connectTimeouts,
      }),
    });
    void opened?.pool.close();
    const post = posterOf(pool, `the API server as ${serverName}`, options);
    opened = { fingerprint, pool, post };
    return opened;
  }

  return {
    async postForm(url, form, headers, signal) {
      const apiServer = await client.server().catch((error: unknown) => {
        const problem = `the agent cannot find the API server (${networkCode(error)})`;
        throw new EntraNetworkError(problem, { cause: error });
      });
      const { origin, fingerprint } = apiServer;
      const { post } =
        opened?.fingerprint === fingerprint
          ? opened
          : await opening.share(fingerprint, () => open(apiServer), signal);
      // The path is Entra ID's own, as SDKs send it.
      const answer = await post(origin + new URL(url).pathname, form, headers, signal);
      const failure = refusalOf(answer, new URLSearchParams(form));
      if (failure !== undefined) throw new EntraNetworkError(failure.description, { failure });
      return answer;
    },
    async [Symbol.asyncDispose]() {
      isClosed = true;
      await opened?.pool.destroy();
    },
  };
}

/** As AKS derives it: base32hex without padding, in lower case. */
export function serverNameOf(clusterId: string): string {
  const digest = createHash('sha256').update(`identity-binding${clusterId}`).digest('hex');
  // 256 bits are filled up to 52 digits of five bits each.
  const digits = (BigInt(`0x${digest}`) << 4n).toString(32).padStart(52, '0');
  return `a${digits}.ests.aks`;
}

async function clusterIdOf(
  apiServer: ApiServer,
  { clusterId, clock }: BindingNetworkOptions,
): Promise<string> {
  if (!apiServer.origin.startsWith('https:') || apiServer.tls.ca === undefined) {
    throw unusable('the agent has no certificate authority of the cluster to verify it by');
  }
  let names: readonly string[];
  try {
    names = await readServerNames(apiServer, clock);
  } catch (error) {
    throw new EntraNetworkError(
      `the certificate of the API server cannot be read (${networkCode(error)})`,
    );
  }
  const found = names
    .map((name) => /^hcp-kubernetes\.(.+)\.svc\.cluster\.local$/.exec(name)?.[1])
    .find((id) => id !== undefined);
  if (clusterId !== '' && found !== undefined && found !== clusterId) {
    throw unusable(
      `its certificate is of cluster ${printable(found)}, not of --aks-cluster-id ${clusterId}`,
    );
  }
  const id = found ?? clusterId;
  if (id !== '') return id;
  throw unusable('its certificate names no cluster of AKS, and --aks-cluster-id is not set');
}

function unusable(problem: string): EntraNetworkError {
  const description = `The API server cannot be asked for tokens of identity bindings: ${problem}`;
  return new EntraNetworkError(description, {
    failure: refused('credential_invalid', description),
  });
}

/** What the API server says itself; undefined for an answer of Entra ID that it relays. */
function refusalOf(answer: EntraAnswer, form: URLSearchParams): SourceFailure | undefined {
  const fields = parseRecord(answer.body);
  if (stringAt(fields, 'error') !== '') return undefined;
  const clientId = form.get('client_id') ?? '';
  const assertion = form.get('client_assertion') ?? '';
  const { description: said } = classifyEntraError(answer, [assertion]);
  switch (answer.status) {
    case 401:
      return refused('credential_refused', `The token of the pod is refused: ${said}`);
    case 403:
      return refused('credential_invalid', missingRight(clientId, assertion, said));
    case 404:
      return refused(
        'credential_invalid',
        `This cluster has no identity bindings: ${said}. az aks identity-binding list shows them`,
      );
    default:
      return undefined;
  }
}

function refused(reason: FailureReason, description: string): SourceFailure {
  return { reason, description, cooldownMs };
}

/** In YAML without quotation marks, which the answer would escape. */
function missingRight(clientId: string, assertion: string, said: string): string {
  const [, , namespace = '', name = ''] = stringAt(claimsOf(assertion), 'sub').split(':');
  const object = roleOfIdentity(clientId);
  const role = object.metadata.name;
  const yaml = JSON.stringify(object)
    .replaceAll('":', ': ')
    .replaceAll('"', '')
    .replaceAll(',', ', ');
  return (
    `Service account ${namespace}/${name} may not use the managed identity ${clientId}. Apply this ClusterRole: ${yaml} ` +
    `and bind it: kubectl create clusterrolebinding ${role}-${namespace}-${name} --clusterrole=${role} ` +
    `--serviceaccount=${namespace}:${name} (${said})`
  );
}
