/** The parts of `nmi conditions` without its pages, with the permissions of the manifests. */
import assert from 'node:assert/strict';
import { systemClock } from '../../../src/base/time/clock.ts';
import { createLogger } from '../../../src/base/logger.ts';
import { openConditions } from '../../../src/nmi/conditions/conditions.ts';
import { parseConfig } from '../../../src/nmi/config/config.ts';
import { openKubeClient } from '../../../src/nmi/kube/api/client.ts';
import type { Cluster } from './cluster.ts';

export interface ConditionsProcess extends AsyncDisposable {
  /** Its log. */
  readonly lines: readonly string[];
  /** Number of writes by outcome. */
  writes(): Readonly<Record<string, number>>;
}

const account = { namespace: 'kube-system', name: 'nmi-conditions' };

/** @param flags by name, without dashes. */
export async function openConditionsProcess(
  cluster: Cluster,
  flags: Readonly<Record<string, string>> = {},
): Promise<ConditionsProcess> {
  await using opening = new AsyncDisposableStack();
  const { kubeconfigPath } = await cluster.createServiceAccountClient(account);
  const clock = systemClock;
  const client = opening.use(
    await openKubeClient({ kubeconfigPath, userAgent: 'nmi-test/1', clock }),
  );
  const lines: string[] = [];
  const log = createLogger({ format: 'json', level: 'info', write: (line) => lines.push(line) });
  const parsed = parseConfig({ node: 'unnamed', ...flags }, {});
  assert.ok(parsed.ok);
  const { config } = parsed;
  const conditions = opening.use(
    openConditions({ client, config, clock, log, random: Math.random }),
  );
  const opened = opening.move();
  return {
    lines,
    writes: () =>
      Object.fromEntries(
        conditions.samples().map(({ labels, value }) => [labels?.['outcome'] ?? '', value]),
      ),
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}

/** Sets the number of nodes in the status of the agents' DaemonSet, which no controller counts. */
export async function setNodes(cluster: Cluster, nodes: number): Promise<void> {
  const status = {
    currentNumberScheduled: nodes,
    desiredNumberScheduled: nodes,
    numberMisscheduled: 0,
    numberReady: 0,
  };
  await cluster.admin.expect(
    'PATCH',
    '/apis/apps/v1/namespaces/kube-system/daemonsets/nmi/status',
    { status },
    { contentType: 'application/merge-patch+json' },
  );
}
