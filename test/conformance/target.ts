/**
 * The target of the cases: the address in `NMI_CONFORMANCE_URL`, or our own agent with the lab's
 * fakes around it. Only our own agent needs installed packages.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Place } from '../support/raw-connection.ts';

export interface Ids {
  readonly clientId: string | undefined;
  readonly objectId: string | undefined;
  readonly resourceId: string | undefined;
}

export interface Target extends AsyncDisposable {
  readonly isOurs: boolean;
  /** The source of requests whose caller has an identity. */
  readonly place: Place;
  /** The source of requests from an unknown caller. */
  readonly unknownPlace: Place | undefined;
  /** The source of requests from a known caller without any identity. */
  readonly unboundPlace: Place | undefined;
  /** IDs of an identity that the caller has; undefined if not given. */
  readonly own: Ids;
  /** IDs of an identity that the caller does not have. */
  readonly foreign: Ids;
  /** Resolves when the next request may be sent. */
  readonly turn: () => Promise<void>;
  /** The resource of the requested tokens. */
  readonly resource: string;
  /** Further resource spellings for which tokens are available. */
  readonly spellings: readonly string[];
}

type Environment = Readonly<Record<string, string | undefined>>;

/** Another implementation, from the environment; undefined without an address. */
export function parseTarget(environment: Environment): Target | undefined {
  const read = (name: string): string | undefined => {
    const value = environment[`NMI_CONFORMANCE_${name}`];
    return value === '' ? undefined : value;
  };
  const address = read('URL');
  if (address === undefined) return undefined;
  const url = new URL(address);
  if (url.protocol !== 'http:' || url.pathname !== '/' || url.search !== '') {
    throw new Error(`NMI_CONFORMANCE_URL must look like http://host:port, not ${address}`);
  }
  const from = (sourceIp: string | undefined): Place => ({
    host: url.hostname.replace(/^\[(.*)\]$/, '$1'),
    port: url.port === '' ? 80 : Number(url.port),
    ...(sourceIp === undefined ? {} : { sourceIp }),
  });
  const fromNamed = (sourceIp: string | undefined) =>
    sourceIp === undefined ? undefined : from(sourceIp);
  return {
    isOurs: false,
    place: from(read('SOURCE_IP')),
    unknownPlace: fromNamed(read('UNKNOWN_SOURCE_IP')),
    unboundPlace: fromNamed(read('UNBOUND_SOURCE_IP')),
    own: {
      clientId: read('CLIENT_ID'),
      objectId: read('OBJECT_ID'),
      resourceId: read('RESOURCE_ID'),
    },
    foreign: {
      clientId: read('FOREIGN_CLIENT_ID') ?? '5a5a5a5a-0000-4000-8000-5a5a5a5a5a5a',
      objectId: read('FOREIGN_OBJECT_ID') ?? '5a5a5a5a-0000-4000-8000-a5a5a5a5a5a5',
      resourceId: read('FOREIGN_RESOURCE_ID'),
    },
    turn: createPacer(Number(read('PER_SEC') ?? 10)),
    resource: read('RESOURCE') ?? 'https://management.azure.com/',
    spellings: (read('SPELLINGS') ?? knownToEveryTenant).split(' '),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

/** Microsoft Graph and Key Vault, in spellings that Entra ID accepts. */
const knownToEveryTenant =
  '00000003-0000-0000-c000-000000000000 https://graph.microsoft.com https://graph.microsoft.com/ ' +
  'https://VAULT.azure.net https://vault.azure.net/';

export async function openTarget(environment: Environment = process.env): Promise<Target> {
  return parseTarget(environment) ?? openOwnTarget();
}

async function openOwnTarget(): Promise<Target> {
  const { openLoopbackAgent, bindPodToA, identityA, identityB } =
    await import('../support/loopback-agent.ts');
  const { createPodManifest } = await import('../../lab/fakes/kube/manifests.ts');
  const agent = await openLoopbackAgent({}, (kube) => {
    bindPodToA(kube);
    kube.apply(createPodManifest({ name: 'unbound', nodeName: 'node-1', ips: ['127.0.0.13'] }));
  });
  const from = (sourceIp: string): Place => ({ host: '127.0.0.1', port: agent.port, sourceIp });
  return {
    isOurs: true,
    place: from('127.0.0.11'),
    unknownPlace: from('127.0.0.99'),
    unboundPlace: from('127.0.0.13'),
    own: identityA,
    foreign: identityB,
    turn: () => Promise.resolve(),
    resource: 'https://vault.azure.net',
    spellings: [
      '00000003-0000-0000-c000-000000000000',
      'api://5a5a5a5a-0000-4000-8000-5a5a5a5a5a5a',
      'api://contoso/app/.default',
      'https://vault.azure.net/',
      'https://vault.azure.net//',
      'HTTPS://VAULT.AZURE.NET',
      'https://host.example/path?tenant=a&mode=b+c',
      'https://host.example/a%20b%2Fc',
      'https://host.example/with space/"quoted"\\<&>',
      'https://exämple.test/ü/日本/😀',
      'urn:ietf:params:oauth:x',
    ],
    [Symbol.asyncDispose]: () => agent[Symbol.asyncDispose](),
  };
}

/** The real service throttles above 20 requests a second. */
function createPacer(perSec: number): () => Promise<void> {
  if (!(perSec > 0)) throw new Error('NMI_CONFORMANCE_PER_SEC must be a number above 0');
  let nextAtMs = 0;
  return async () => {
    const nowMs = performance.now();
    const atMs = Math.max(nowMs, nextAtMs);
    nextAtMs = atMs + 1000 / perSec;
    if (atMs > nowMs) await delay(atMs - nowMs);
  };
}
