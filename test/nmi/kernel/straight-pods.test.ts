import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { GrantIndex } from '../../../src/cache/index/grant-index.ts';
import { PodIndex } from '../../../src/cache/index/pod-index.ts';
import { StraightPods } from '../../../src/nmi/kernel/straight-pods.ts';
import type { StraightOutcome } from '../../../src/redirect/ebpf/ebpf.ts';
import { createException, createPod } from '../../support/cache-objects.ts';
import { HandClock } from '../../support/hand-clock.ts';

const labels = { app: 'infra' };

/** A node whose kernel writes down what it is told. */
class Node implements Disposable {
  readonly clock = new HandClock();
  readonly pods = new PodIndex(this.clock);
  readonly grants = new GrantIndex(this.pods);
  readonly cgroups = new Map<string, bigint>();
  readonly told: (readonly bigint[])[] = [];
  readonly said: string[] = [];
  readonly synced = Promise.withResolvers<undefined>();
  outcome: StraightOutcome | Error = { kind: 'straight' };
  readonly #straight: StraightPods;

  constructor() {
    const say = (level: string) => (fields: object, text: string) => {
      this.said.push(`${level}: ${text} ${JSON.stringify(fields)}`);
    };
    this.#straight = new StraightPods({
      ...{ pods: this.pods, grants: this.grants, clock: this.clock },
      whenSynced: () => this.synced.promise,
      cgroupOf: (uid) => this.cgroups.get(uid),
      letStraight: async (ids) => {
        this.told.push(ids);
        if (this.outcome instanceof Error) throw this.outcome;
        return this.outcome;
      },
      log: { debug: say('debug'), info: say('info'), warn: say('warn'), error: say('error') },
    });
  }

  /** Knows everything from here on. */
  async sync(): Promise<void> {
    this.synced.resolve(undefined);
    await nextTurn();
  }

  add(name: string, cgroup: bigint | undefined, more: Parameters<typeof createPod>[0] = {}) {
    const pod = createPod({ name, labels, ...more });
    if (cgroup !== undefined) this.cgroups.set(pod.cgroupUid, cgroup);
    this.pods.upsert(pod);
    return pod;
  }

  except(name = 'infra'): void {
    this.grants.exceptions.upsert(createException({ name, podLabels: labels }));
  }

  [Symbol.dispose](): void {
    this.#straight[Symbol.dispose]();
  }
}

describe('the pods that may go straight', () => {
  it('are told when everything is known, and not before', async () => {
    using node = new Node();
    node.except();
    node.add('one', 11n);
    node.add('plain', 12n, { labels: {} });
    assert.deepEqual(node.told, []);
    await node.sync();
    assert.deepEqual(node.told, [[11n]]);
    assert.deepEqual(node.said, [
      'info: excepted pods go straight to the metadata service {"pods":1}',
    ]);
  });

  it('are nobody, told once, where nobody is excepted: an earlier process may have told others', async () => {
    using node = new Node();
    await node.sync();
    node.add('plain', 12n);
    assert.deepEqual(node.told, [[]]);
  });

  it('change in the step that learns of it: exception, label, pod', async () => {
    using node = new Node();
    await node.sync();
    const one = node.add('one', 11n);
    const two = node.add('two', 12n);
    node.except();
    assert.deepEqual(node.told.at(-1), [11n, 12n]);
    node.pods.upsert({ ...one, labels: {} });
    assert.deepEqual(node.told.at(-1), [12n]);
    node.pods.upsert(one);
    node.pods.remove(two);
    assert.deepEqual(node.told.at(-1), [11n]);
    node.pods.upsert({ ...one, phase: 'Succeeded' });
    assert.deepEqual(node.told.at(-1), []);
    node.pods.upsert(one);
    node.grants.exceptions.remove(createException({ name: 'infra' }));
    assert.deepEqual(node.told.at(-1), []);
    const count = node.told.length;
    node.add('three', 13n, { labels: {} });
    assert.equal(node.told.length, count, 'the kernel was told what it knew');
  });

  it('are looked for until the kubelet has made their cgroup', async () => {
    using node = new Node();
    node.except();
    const late = node.add('late', undefined);
    await node.sync();
    assert.deepEqual(node.told, [[]]);
    node.clock.advance(500);
    assert.deepEqual(node.told, [[]]);
    node.cgroups.set(late.cgroupUid, 14n);
    node.clock.advance(500);
    assert.deepEqual(node.told, [[], [14n]]);
    assert.deepEqual(node.clock.armed, []);
  });

  it('are told again after a failure, which is said once', async () => {
    using node = new Node();
    node.outcome = new Error('busy');
    node.except();
    node.add('one', 11n);
    await node.sync();
    await nextTurn();
    node.clock.advance(500);
    await nextTurn();
    assert.deepEqual(node.told, [[11n], [11n]]);
    const refused = node.said.filter((line) => line.includes('busy'));
    assert.deepEqual(refused, [
      'error: the kernel was not told which pods go straight, trying again {"problem":"busy"}',
    ]);
    node.outcome = { kind: 'straight' };
    node.clock.advance(500);
    await nextTurn();
    assert.match(node.said.at(-1) ?? '', /^info: /);
    assert.deepEqual(node.clock.armed, []);
  });

  it('are relayed where they cannot go straight, with the reason in the log', async () => {
    using node = new Node();
    node.outcome = { kind: 'relayed', why: 'no xt_bpf' };
    await node.sync();
    assert.deepEqual(node.said, [
      'warn: excepted pods are relayed, they cannot go straight here {"why":"no xt_bpf"}',
    ]);
  });

  it('are not told any more once the agent stops', async () => {
    using node = new Node();
    await node.sync();
    node[Symbol.dispose]();
    node.except();
    node.add('one', 11n);
    assert.deepEqual(node.told, [[]]);
    assert.deepEqual(node.clock.armed, []);
  });
});
