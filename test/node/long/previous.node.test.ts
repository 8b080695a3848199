/**
 * Updates from the commit before this one to this one, and back by `helm rollback`, under load: no request is
 * refused, whether both write the records of callers alike or not.
 */
import assert from 'node:assert/strict';
import { after, before, describe, it, type TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { clientContainer } from '../support/client-pods.ts';
import { eventuallyByProcess } from '../support/machine.ts';
import { applyChart, installChart, untilRolledOut } from '../support/install.ts';
import {
  assertClosed,
  describeLoad,
  startLoad,
  type Load,
  type LoadReport,
} from '../support/load.ts';
import { openNode, type TestNode } from '../support/node.ts';
import { provideNodeSystem } from '../support/node-system.ts';
import { providePrevious } from '../support/previous.ts';

const nodeSystem = provideNodeSystem();
const skip = nodeSystem.missing ?? false;
const running = '--field-selector=status.phase=Running';
const inNamespace = '--namespace=kube-system';
/** More than the pods of this test, until one of them fills the node. */
const maxPods = 20;

describe('an update from the commit before', { skip }, () => {
  const previous = skip === false ? providePrevious('previous') : undefined;
  const otherLayout = skip === false ? providePrevious('other-layout', 4) : undefined;
  let node: TestNode;
  let load: Load;

  before(async () => {
    assert.ok(nodeSystem.programs !== undefined && previous !== undefined);
    node = await openNode(nodeSystem.programs, {
      cgroupDriver: 'systemd',
      maxPods,
      images: [previous.archive, otherLayout?.archive ?? ''],
    });
    // Twice: a rollback to an installation may find another strategy there than an update set.
    for (const upgrade of ['1', '2']) {
      const nmi = { redirect: 'ebpf', tag: previous.tag, podAnnotations: { upgrade } };
      await installChart(node, nmi, {}, previous.chart);
    }
    load = await startLoad(node);
  });
  after(() => node?.[Symbol.asyncDispose]());

  async function during(t: TestContext, work: () => Promise<unknown>): Promise<LoadReport> {
    const report = await load.during(work);
    const surge = 'jsonpath={.spec.updateStrategy.rollingUpdate.maxSurge}';
    const maxSurge = await node.kubectl(['get', 'daemonset', 'nmi', inNamespace, '-o', surge]);
    t.diagnostic(`maxSurge ${maxSurge}; ${describeLoad(report)}`);
    assertClosed(report, ['app']);
    return report;
  }
  const toThis = () => installChart(node, { redirect: 'ebpf' });
  const back = async (): Promise<void> => {
    await node.helm(['rollback', 'nmi', inNamespace]);
    await untilRolledOut(node);
  };

  it('refuses no request, there and back', async (t) => {
    const ways = Array.from({ length: 5 }, () => [toThis, back]).flat();
    for (const way of [...ways, toThis]) {
      const report = await during(t, way);
      assert.deepEqual(Object.keys(report.bound.outcomes), ['200 app']);
    }
  });

  it('takes the place of one pod of lower priority on a full node, and gives it back', async (t) => {
    const selector = { matchLabels: { app: 'filler' } };
    const template = {
      metadata: { labels: selector.matchLabels },
      spec: { terminationGracePeriodSeconds: 1, containers: [clientContainer(['idle'])] },
    };
    const readyOf = async (): Promise<number> => {
      const path = 'jsonpath={.status.readyReplicas}';
      return Number(await node.kubectl(['get', 'deployment', 'filler', '-o', path]));
    };
    await node.apply({
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: { name: 'filler', namespace: 'default' },
      spec: { replicas: maxPods, selector, template },
    });
    let fitting = 0;
    await eventuallyByProcess(async () => {
      const listed = await node.kubectl(['get', 'pods', '-A', '-o', 'name', running]);
      assert.equal(listed.trim().split('\n').length, maxPods);
      fitting = listed.split('/filler-').length - 1;
      assert.equal(await readyOf(), fitting);
    }, 60_000);
    const report = await during(t, () =>
      installChart(node, { redirect: 'ebpf', podAnnotations: { upgrade: 'full' } }),
    );
    assert.deepEqual(Object.keys(report.bound.outcomes), ['200 app']);
    const reasons = await node.kubectl(['get', 'events', '-o', 'jsonpath={.items[*].reason}']);
    const preempted = reasons.split(' ').filter((reason) => reason === 'Preempted').length;
    assert.equal(preempted, 1, 'pods that had to go');
    await eventuallyByProcess(async () => assert.equal(await readyOf(), fitting), 60_000);
    await node.kubectl(['delete', 'deployment', 'filler', '--wait']);
  });

  it('refuses no request where the records have another layout', async (t) => {
    assert.ok(otherLayout !== undefined);
    const { chart, tag } = otherLayout;
    for (const way of [
      () => installChart(node, { redirect: 'ebpf', tag }, {}, chart),
      toThis,
      back,
    ]) {
      const report = await during(t, way);
      assert.deepEqual(Object.keys(report.bound.outcomes), ['200 app']);
    }
  });

  it('refuses no request where an update to another layout is undone at any moment', async (t) => {
    for (let undone = 0; undone < 12; undone += 1) {
      const report = await during(t, async () => {
        await applyChart(node, { redirect: 'ebpf' });
        await delay(Math.random() * 6_000);
        await back();
      });
      assert.deepEqual(Object.keys(report.bound.outcomes), ['200 app']);
    }
  });
});
