import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { JsonReader, KubeCalls } from '../../../src/nmi/kube/api/client.ts';
import { KubeError } from '../../../src/nmi/kube/api/kube-error.ts';
import { StartupTaint } from '../../../src/nmi/admin/startup-taint.ts';
import { HandClock } from '../../support/hand-clock.ts';
import { pass } from '../../support/token-fixture.ts';

const key = 'entra-pod-identity/not-ready';
const own = { key, effect: 'NoSchedule' };
const other = { key: 'gpu', value: 'yes', effect: 'NoSchedule' };

function open(taints: readonly unknown[] | undefined) {
  const clock = new HandClock();
  const fixture = { isReady: false, failure: undefined as KubeError | undefined };
  const patches: unknown[] = [];
  const lines: string[] = [];
  const note = (_fields: unknown, message: string) => lines.push(message);
  const taint = new StartupTaint({
    client: {
      as: () =>
        ({
          getJson: (path) => {
            assert.equal(path, '/api/v1/nodes/node-1');
            return Promise.resolve({ spec: taints === undefined ? {} : { taints } });
          },
        }) satisfies JsonReader as KubeCalls,
      patchJson: (_path, patch) => {
        patches.push(patch);
        return fixture.failure === undefined
          ? Promise.resolve({})
          : Promise.reject(fixture.failure);
      },
    },
    node: 'node-1',
    key,
    clock,
    random: () => 0,
    isReady: () => fixture.isReady,
    log: { debug: note, info: note, warn: note, error: note },
  });
  return { clock, fixture, patches, lines, taint };
}

describe('the startup taint', () => {
  it('remains until the agent is ready, and is then removed without the other taints', async () => {
    const { clock, fixture, patches, lines } = open([other, own]);
    await pass(clock, 5_000);
    assert.deepEqual(patches, []);
    fixture.isReady = true;
    await pass(clock, 300);
    assert.deepEqual(patches, [
      [
        { op: 'test', path: '/spec/taints', value: [other, own] },
        { op: 'replace', path: '/spec/taints', value: [other] },
      ],
    ]);
    assert.deepEqual(lines, ['startup taint removed']);
    await pass(clock, 60_000);
    assert.equal(patches.length, 1, 'once');
    // The node may have registered again, with the taint.
    await pass(clock, 300_000);
    assert.equal(patches.length, 2);
  });

  it('causes nothing when the node has none', async () => {
    for (const taints of [undefined, [], [other]]) {
      const { clock, fixture, patches, lines } = open(taints);
      fixture.isReady = true;
      await pass(clock, 700_000);
      assert.deepEqual(patches, []);
      assert.deepEqual(lines, ['startup taint not found on this node']);
    }
  });

  it('remains while Karpenter has not registered the node, which would add it again', async () => {
    const unregistered = { key: 'karpenter.sh/unregistered', effect: 'NoExecute' };
    const taints: unknown[] = [unregistered, own];
    const { clock, fixture, patches, lines } = open(taints);
    fixture.isReady = true;
    await pass(clock, 20_000);
    assert.deepEqual([patches, lines], [[], []]);
    // In one write, Karpenter adds the startup taints of its NodePool and removes its own.
    taints.splice(0, 2, own);
    await pass(clock, 2_000);
    assert.deepEqual(lines, ['startup taint removed']);
  });

  it('is retried, ever more slowly, when the list has changed or the permission is missing', async () => {
    const { clock, fixture, patches, lines } = open([own]);
    fixture.isReady = true;
    fixture.failure = new KubeError('FORBIDDEN', 'no');
    await pass(clock, 10_000);
    assert.ok(patches.length >= 3 && patches.length <= 8, `${patches.length} tries`);
    fixture.failure = undefined;
    await pass(clock, 30_000);
    assert.equal(lines.at(-1), 'startup taint removed');
  });

  it('causes no warning when disposal ends the request for its removal', async () => {
    const { clock, fixture, lines, taint } = open([own]);
    fixture.isReady = true;
    fixture.failure = new KubeError('NETWORK', 'ended');
    clock.advance(0);
    taint[Symbol.dispose]();
    await pass(clock, 0);
    assert.deepEqual(lines, []);
  });

  it('is not removed after disposal', async () => {
    const { clock, fixture, patches, taint } = open([own]);
    taint[Symbol.dispose]();
    fixture.isReady = true;
    await pass(clock, 60_000);
    assert.deepEqual(patches, []);
    assert.equal(clock.armed.length, 0);
  });
});
