/** The agent's state of one node, read from a cluster through a network that can fail. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { systemClock } from '../../../src/base/time/clock.ts';
import { GrantIndex } from '../../../src/cache/index/grant-index.ts';
import { OwnerIndex } from '../../../src/cache/index/owner-index.ts';
import { PodIndex } from '../../../src/cache/index/pod-index.ts';
import { openKubeClient } from '../../../src/nmi/kube/api/client.ts';
import type { ReflectorTiming } from '../../../src/nmi/kube/watch/reflector.ts';
import { openWatches, type Watches } from '../../../src/nmi/kube/watch/watches.ts';
import { keptLog, temporaryDir, type KeptLine } from '../../unit/nmi/kube/kube-test-bed.ts';
import type { ApiAccess } from './api.ts';
import { openFaultProxy, type FaultProxy } from './fault-proxy.ts';
import { renderKubeconfig } from './kubeconfig.ts';

export interface WatchedNode extends AsyncDisposable {
  readonly network: FaultProxy;
  readonly pods: PodIndex;
  readonly grants: GrantIndex;
  readonly owners: OwnerIndex;
  readonly watches: Watches;
  readonly log: readonly KeptLine[];
  /**
   * When the pod of this address can be given a token of an identity, in the time of
   * `performance.now`. Rejects after `maxMs`.
   */
  servable(ip: string, maxMs?: number): Promise<number>;
}

export interface WatchedNodeOptions {
  /** Not through the proxy; the node adds it. */
  readonly access: ApiAccess;
  readonly node: string;
  /** Overrides the agent's timing. */
  readonly timing?: Partial<ReflectorTiming>;
}

/** Synced when it returns. */
export async function openWatchedNode(options: WatchedNodeOptions): Promise<WatchedNode> {
  const { access, node, timing } = options;
  await using opening = new AsyncDisposableStack();
  const network = opening.use(await openFaultProxy(access.url));
  const folder = opening.use(await temporaryDir());
  const kubeconfigPath = join(folder.path, 'config');
  await writeFile(kubeconfigPath, renderKubeconfig({ ...access, url: network.url }));
  const client = opening.use(await openKubeClient({ kubeconfigPath, userAgent: 'nmi-test/1' }));
  const pods = new PodIndex(systemClock);
  const grants = new GrantIndex(pods);
  const { identities, bindings, exceptions } = grants;
  const owners = new OwnerIndex();
  const log = keptLog();
  const watches = opening.use(
    openWatches({
      client,
      node,
      log,
      stores: { pods, identities, bindings, exceptions, grants: owners.grants },
      ...(timing === undefined ? {} : { timing }),
    }),
  );
  await watches.whenSynced();

  function isServable(ip: string): boolean {
    const found = pods.byIp(ip);
    return found.kind === 'pod' && grants.grantsOf(found.pod.uid)?.kind === 'bound';
  }

  const owned = opening.move();
  return {
    network,
    pods,
    grants,
    owners,
    watches,
    log: log.lines,
    async servable(ip, maxMs = 20_000) {
      if (isServable(ip)) return performance.now();
      const { promise, resolve, reject } = Promise.withResolvers<number>();
      const forget = grants.onChange(() => {
        if (isServable(ip)) resolve(performance.now());
      });
      const timer = setTimeout(() => {
        const said = log.lines.map(({ message, fields }) => `${message} ${String(fields['code'])}`);
        reject(new Error(`${ip} is not servable within ${maxMs} ms: ${said.join('; ')}`));
      }, maxMs);
      try {
        return await promise;
      } finally {
        clearTimeout(timer);
        forget();
      }
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}
