/** A token endpoint whose token cache a test fills, and the fast path in front of it. */
import { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';
import { GrantIndex } from '../../src/cache/index/grant-index.ts';
import { PodIndex } from '../../src/cache/index/pod-index.ts';
import { RenderedToken } from '../../src/cache/token/token.ts';
import type { CallerConnection, IdentifiedBy } from '../../src/nmi/callers/caller.ts';
import { NearNames } from '../../src/nmi/grants/near-names.ts';
import { UpstreamResolver } from '../../src/nmi/grants/resolve-upstream.ts';
import type { WorkloadIdentities } from '../../src/nmi/grants/workload-identities.ts';
import { CallerLimits } from '../../src/nmi/server/caller-limits.ts';
import { TokenFastPath } from '../../src/nmi/server/fast-path/fast-path.ts';
import type { Hit } from '../../src/nmi/server/request-record.ts';
import {
  DecisionCache,
  type Admit,
  type GrantedDecision,
} from '../../src/nmi/server/decision-cache.ts';
import { ResourceUses } from '../../src/nmi/grants/resource-uses.ts';
import type { TokenBroker } from '../../src/nmi/tokens/broker.ts';
import { TokenEndpoint } from '../../src/nmi/server/token-endpoint.ts';
import { Waiters } from '../../src/nmi/state/waiters.ts';
import type { HandClock } from './hand-clock.ts';
import { createOwners } from './owners.ts';

/** Far later than the start of any test clock. */
export const longLived = new RenderedToken({
  accessToken: 'token',
  clientId: 'client',
  resource: 'https://vault.example',
  expiresAtWallS: 4_000_000_000,
  notBeforeWallS: 0,
  extExpiresAtWallS: undefined,
});

export function openEndpointFixture(
  clock: HandClock,
  workloadIdentities?: WorkloadIdentities,
  over: Partial<Pick<TokenBroker, 'peek' | 'get' | 'renew' | 'replace'>> = {},
  { index, owners } = createOwners('off'),
) {
  const pods = new PodIndex(clock);
  const grants = new GrantIndex(pods);
  const upstreams = new UpstreamResolver(() => ({
    ok: true,
    authority: 'https://login.example',
    audience: 'api://exchange',
    accountAudience: 'api://exchange',
  }));
  const state: { isSynced: boolean; trusts: boolean; rightsProblem: string | undefined } = {
    isSynced: true,
    trusts: true,
    rightsProblem: undefined,
  };
  const hits: GrantedDecision[] = [];
  const bugs: unknown[] = [];
  const observer = { onHit: ({ decision }: Hit) => void hits.push(decision) };
  const clusterState = {
    pods,
    grants,
    owners,
    upstreams,
    workloadIdentities,
    nearNames: new NearNames(grants),
    isSynced: () => state.isSynced,
    trusts: (by: IdentifiedBy) => by === 'cgroup' || state.trusts,
    rightsProblem: () => state.rightsProblem,
  };
  const policy = { strict: false, graceMs: 0, hostNetwork: 'serve' } as const;
  const broker = {
    peek: () => longLived,
    get: () => Promise.reject(new TypeError('nobody fetches')),
    renew: () => Promise.reject(new TypeError('nobody fetches')),
    replace: () => Promise.reject(new TypeError('nobody fetches')),
    objectIdOf: () => undefined,
    ...over,
  };
  const uses = new ResourceUses(clock);
  const throttled: string[] = [];
  const admit: Admit = (grant, resource) =>
    uses.admit(grant, resource, (limitKey) => throttled.push(limitKey));
  const decisions = new DecisionCache({ clusterState, policy, admit, clock });
  const tokens = new TokenEndpoint({
    clusterState,
    decisions,
    policy,
    broker,
    objectWait: {
      clock,
      waiters: new Waiters({ clock, maxWaiters: 10 }),
      limits: new CallerLimits({ fetches: 16, waiting: 16, pendingObjects: 16 }),
      maxWaitMs: 1_000,
    },
    clock,
  });
  const fastPath = new TokenFastPath({
    decisions,
    broker,
    clock,
    observer,
    turns: {
      run: (_caller, work) => {
        work();
        return true;
      },
    },
    onBug: (error) => bugs.push(error),
  });
  return {
    pods,
    grants,
    index,
    clusterState,
    policy,
    admit,
    throttled,
    state,
    tokens,
    fastPath,
    hits,
    bugs,
  };
}

/** The part of a socket that the fast path uses; its kernel accepts every write. */
class FakeSocket extends EventEmitter {
  readonly writableLength = 0;
  readonly destroyed = false;
  readonly setTimeout = (): this => this;
  readonly isPaused = (): boolean => false;
  readonly pause = (): this => this;
  readonly resume = (): this => this;
  readonly unshift = (): void => undefined;
  readonly write = (): boolean => true;
}

/** A caller's connection, which starts again on the fast path after a handover. */
export class FastConnection {
  readonly #fastPath: TokenFastPath;
  readonly #caller: CallerConnection;
  readonly #isDraining: () => boolean;
  #socket: FakeSocket | undefined;

  constructor(fastPath: TokenFastPath, caller: CallerConnection, isDraining = () => false) {
    this.#fastPath = fastPath;
    this.#caller = caller;
    this.#isDraining = isDraining;
  }

  /** @returns whether the fast path answered. */
  ask(target: string): boolean {
    this.#socket ??= this.#open();
    const request = `GET ${target} HTTP/1.1\r\nMetadata: true\r\n\r\n`;
    this.#socket.emit('data', Buffer.from(request));
    return this.#socket !== undefined;
  }

  #open(): FakeSocket {
    const socket = new FakeSocket();
    this.#fastPath.accept({
      socket: socket as unknown as Socket,
      caller: this.#caller,
      isDraining: this.#isDraining,
      handOver: () => {
        this.#socket = undefined;
      },
      onSilent: () => undefined,
    });
    return socket;
  }
}
