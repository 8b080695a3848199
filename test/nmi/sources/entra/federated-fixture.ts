/**
 * Shared by the tests of federated client credentials: a hand-driven API server, its true time,
 * identities.
 */
import assert from 'node:assert/strict';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { ObjectName } from '../../../../src/cache/index/object-name.ts';
import { KubeError } from '../../../../src/nmi/kube/api/kube-error.ts';
import type { RequestOptions } from '../../../../src/nmi/kube/api/client.ts';
import type { AgentAccount, OwnAccount } from '../../../../src/nmi/kube/accounts/own-account.ts';
import type { JsonPoster } from '../../../../src/nmi/kube/accounts/token-request.ts';
import { openCredentialCache } from '../../../../src/nmi/sources/entra/credentials/credential-cache.ts';
import {
  openNodeAssertions,
  openPodAssertions,
  type NodeCredential,
  type PodCredential,
} from '../../../../src/nmi/sources/entra/credentials/federated.ts';
import type {
  ClientCredential,
  CredentialProvider,
  ClientCredentialResult,
} from '../../../../src/nmi/sources/entra/credentials/descriptor.ts';
import type { SourceFailure } from '../../../../src/nmi/sources/source.ts';
import type { EntraIdentity } from '../../../../src/nmi/sources/entra/entra-identity.ts';
import { HandClock } from '../../../support/hand-clock.ts';

export const minuteMs = 60_000;
export const hourMs = 60 * minuteMs;
export const audience = 'api://AzureADTokenExchange';
export const agentPod = { name: 'nmi-x7k2p', uid: 'agent-uid' };

const application = {
  kind: 'entra',
  authority: 'https://login.microsoftonline.com',
  tenantId: '00000000-0000-0000-0000-00000000000a',
  clientId: '00000000-0000-0000-0000-00000000000b',
} as const;

type PodIdentity = Omit<EntraIdentity, 'credential'> & { readonly credential: PodCredential };
type NodeIdentity = Omit<EntraIdentity, 'credential'> & { readonly credential: NodeCredential };

export function podIdentity(
  name: string,
  over: { namespace?: string; audience?: string } = {},
): PodIdentity {
  const { namespace = 'ns', audience: named = audience } = over;
  const serviceAccount = { namespace, name };
  return { ...application, credential: { kind: 'federated_pod', serviceAccount, audience: named } };
}

export function nodeIdentity(named: string = audience): NodeIdentity {
  return { ...application, credential: { kind: 'federated_node', audience: named } };
}

export function assertionOf(result: ClientCredentialResult): string {
  assert.ok(result.ok, result.ok ? '' : result.failure.description);
  assert.ok('clientAssertion' in result.clientCredential);
  return result.clientCredential.clientAssertion;
}

/** The claims in tokens of the hand-driven server. */
export interface Claims {
  readonly serial: number;
  /** Namespace and name of the service account. */
  readonly subject: string;
  readonly audience: string;
  /** Empty for none. */
  readonly podUid: string;
  /** Milliseconds of the server's own uptime. */
  readonly expiresAtUpMs: number;
}

export function claimsOf(assertion: string): Claims {
  const [, payload = ''] = assertion.split('.');
  return JSON.parse(Buffer.from(payload, 'base64url').toString('utf8')) as Claims;
}

export interface OpenRequest {
  /** Service account, audience and pod: equal ones must be requested once at a time. */
  readonly what: string;
  answer(): void;
  fail(error: KubeError): void;
}

/**
 * An API server with the right clock, whatever the clock of the node shows. Tokens are made on
 * request and delivered when the test says so; a request times out by itself.
 */
export class HandApi implements JsonPoster {
  readonly open: OpenRequest[] = [];
  asked = 0;
  /** Life of every token in seconds; undefined: as requested. */
  grantS: number | undefined = undefined;
  readonly #clock: HandClock;
  readonly #startedAtWallMs: number;
  #sleptMs = 0;
  #failures: KubeError[] = [];

  constructor(clock: HandClock) {
    this.#clock = clock;
    this.#startedAtWallMs = clock.wallMs() - clock.monotonicMs();
  }

  get upMs(): number {
    return this.#clock.monotonicMs() + this.#sleptMs;
  }

  /** The node sleeps: time passes everywhere except on its monotonic clock. */
  sleep(ms: number): void {
    this.#sleptMs += ms;
    this.#clock.jumpWall(ms);
  }

  failNext(error: KubeError): void {
    this.#failures.push(error);
  }

  postJson(path: string, body: unknown, options: RequestOptions = {}): Promise<unknown> {
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const made = this.#make(path, body as TokenRequestBody);
    const end = (settle: () => void): void => {
      disarm();
      this.open.splice(this.open.indexOf(request), 1);
      settle();
    };
    const request: OpenRequest = {
      what: made.what,
      answer: () => {
        end(() => {
          resolve(made.answer);
        });
      },
      fail: (error) => {
        end(() => {
          reject(error);
        });
      },
    };
    const disarm = this.#clock.schedule(options.timeoutMs ?? 30_000, () => {
      request.fail(new KubeError('TIMEOUT', 'no answer in time'));
    });
    this.asked++;
    this.open.push(request);
    return promise;
  }

  /** Ends the open request at this index. */
  land(at: number): void {
    const request = this.open[at];
    assert.ok(request !== undefined, 'no such request');
    const failure = this.#failures.shift();
    if (failure === undefined) request.answer();
    else request.fail(failure);
  }

  async landAll(): Promise<void> {
    await nextTurn();
    while (this.open.length > 0) this.land(0);
    await nextTurn();
  }

  #make(path: string, { spec }: TokenRequestBody): { what: string; answer: unknown } {
    const [, , , , namespace = '', , name = ''] = path.split('/');
    const grantedS = this.grantS ?? spec.expirationSeconds;
    const claims: Claims = {
      serial: this.asked,
      subject: `${namespace}/${name}`,
      audience: spec.audiences.join(),
      podUid: spec.boundObjectRef?.uid ?? '',
      expiresAtUpMs: this.upMs + grantedS * 1000,
    };
    const payload = Buffer.from(JSON.stringify(claims)).toString('base64url');
    const expiresAtWallMs = this.#startedAtWallMs + claims.expiresAtUpMs;
    return {
      what: `${claims.subject} ${claims.audience} ${claims.podUid}`,
      answer: {
        spec: { ...spec, expirationSeconds: grantedS },
        status: {
          token: `e30.${payload}.c2ln`,
          expirationTimestamp: new Date(expiresAtWallMs).toISOString(),
        },
      },
    };
  }
}

interface TokenRequestBody {
  readonly spec: {
    readonly audiences: readonly string[];
    readonly expirationSeconds: number;
    readonly boundObjectRef?: { readonly uid: string };
  };
}

export interface FixtureOptions {
  readonly isNeeded?: (credential: PodCredential | NodeCredential) => boolean;
  /** Limit of each mode. */
  readonly maxKept?: number;
  readonly account?: Partial<AgentAccount>;
}

/** The provider of a mode, by identity. */
interface Mode<I> {
  get(identity: I, signal: AbortSignal): Promise<ClientCredentialResult>;
  /** The client credential that it returned last. */
  latest(identity: I): ClientCredential | undefined;
  /** @param refused default: the one that it returned last. */
  forget(identity: I, refused?: ClientCredential): boolean;
}

/** Both modes together. */
interface Credentials extends Disposable {
  readonly pod: Mode<PodIdentity>;
  readonly node: Mode<NodeIdentity>;
  readonly kept: number;
  /** Assertions of the mode with more of them. */
  readonly mostKept: number;
  dropUnneeded(): void;
}

export interface Fixture extends Disposable {
  readonly clock: HandClock;
  readonly api: HandApi;
  readonly clientCredentials: Credentials;
  /** Uid of the live pod by name of its service account, in every namespace. */
  readonly pods: Map<string, string>;
  readonly signal: AbortSignal;
  /** The result, with all requests answered. */
  get(identity: PodIdentity | NodeIdentity): Promise<ClientCredentialResult>;
  /** The assertion for that service account, with all requests answered. */
  ask(name: string): Promise<string>;
  askNode(): Promise<string>;
}

export function openFixture(
  live: Readonly<Record<string, string>>,
  { maxKept = 256, account, isNeeded = () => true }: FixtureOptions = {},
): Fixture {
  const clock = new HandClock();
  // Late enough that a test does not pass only because the clock is near zero.
  clock.advance(7 * hourMs);
  const api = new HandApi(clock);
  const pods = new Map(Object.entries(live));
  const agent: AgentAccount = {
    kind: 'ok',
    serviceAccount: { namespace: 'kube-system', name: 'nmi' },
    pod: agentPod,
    ...account,
  };
  const ownAccount: OwnAccount = { get: () => Promise.resolve(agent) };
  const options = { clock, isNeeded, maxKept };
  const context = { tokenClient: api, clock };
  const livePodOf = ({ name }: ObjectName) => {
    const uid = pods.get(name);
    return uid === undefined ? undefined : { name: `pod-${uid}`, uid };
  };
  const pod = openCredentialCache<PodCredential>({
    ...options,
    ...openPodAssertions({ ...context, livePodOf }),
  });
  const node = openCredentialCache({
    ...options,
    ...openNodeAssertions({ ...context, ownAccount }),
  });
  const clientCredentials: Credentials = {
    pod: byIdentity(pod),
    node: byIdentity(node),
    get kept() {
      return pod.kept + node.kept;
    },
    get mostKept() {
      return Math.max(pod.kept, node.kept);
    },
    dropUnneeded() {
      for (const mode of [pod, node]) mode.dropUnneeded();
    },
    [Symbol.dispose]() {
      for (const mode of [pod, node]) mode[Symbol.dispose]();
    },
  };
  const { signal } = new AbortController();

  async function get(identity: PodIdentity | NodeIdentity): Promise<ClientCredentialResult> {
    const getting = isOfPod(identity)
      ? clientCredentials.pod.get(identity, signal)
      : clientCredentials.node.get(identity, signal);
    await api.landAll();
    return getting;
  }
  return {
    clock,
    api,
    clientCredentials,
    pods,
    signal,
    get,
    ask: async (name) => assertionOf(await get(podIdentity(name))),
    askNode: async () => assertionOf(await get(nodeIdentity())),
    [Symbol.dispose]: () => {
      clientCredentials[Symbol.dispose]();
    },
  };
}

function byIdentity<C>(clientCredentials: CredentialProvider<C>): Mode<{ readonly credential: C }> {
  const given = new Map<string, ClientCredential>();
  const keyOf = (credential: C): string => JSON.stringify(credential);
  return {
    get: async ({ credential }, signal) => {
      const result = await clientCredentials.get(credential, signal);
      if (result.ok) given.set(keyOf(credential), result.clientCredential);
      return result;
    },
    latest: ({ credential }) => given.get(keyOf(credential)),
    forget: ({ credential }, refused = given.get(keyOf(credential))) =>
      clientCredentials.forget(credential, refused ?? { clientAssertion: 'never given' }),
  };
}

function isOfPod(identity: PodIdentity | NodeIdentity): identity is PodIdentity {
  return identity.credential.kind === 'federated_pod';
}

export function failureOf(result: ClientCredentialResult): SourceFailure {
  assert.ok(!result.ok);
  return result.failure;
}
