import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { openFakeKube } from '../../../../lab/fakes/kube/fake-kube.ts';
import { createPodManifest } from '../../../../lab/fakes/kube/manifests.ts';
import { systemClock, type Clock } from '../../../../src/base/time/clock.ts';
import type { Pod } from '../../../../src/cache/index/objects.ts';
import { PodSource } from '../../../../src/nmi/kube/kubelet/pod-source.ts';
import { parsePod } from '../../../../src/nmi/kube/watch/parse.ts';
import { openReflector } from '../../../../src/nmi/kube/watch/reflector.ts';
import { createPod } from '../../../support/cache-objects.ts';
import { clientOf, eventually, keptLog, MapStore, quick } from '../kube-test-bed.ts';
import { openFakeKubelet, type FakePod } from './fake-kubelet.ts';

/** The system's clock. A test can move it ahead, and with it timers of 9 s and more. */
class ClockAhead implements Clock {
  aheadMs = 0;
  readonly #timers = new Set<{ readonly atMs: number; readonly work: () => void }>();
  readonly wallMs = (): number => systemClock.wallMs();
  readonly monotonicMs = (): number => systemClock.monotonicMs() + this.aheadMs;
  schedule(delayMs: number, work: () => void): () => void {
    if (delayMs < 9_000) return systemClock.schedule(delayMs, work);
    const timer = { atMs: this.monotonicMs() + delayMs, work };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }
  advance(ms: number): void {
    this.aheadMs += ms;
    for (const timer of this.#timers) {
      if (timer.atMs > this.monotonicMs()) continue;
      this.#timers.delete(timer);
      timer.work();
    }
  }
}

const node = 'node-1';

/** A reflector of the pods, a kubelet with pod `k`, and an API server with pods `k` and `a`. */
async function open(from: 'kubelet' | 'auto', isKubeletThere = true) {
  await using stack = new AsyncDisposableStack();
  const kube = stack.use(await openFakeKube());
  for (const name of ['k', 'a']) kube.apply(createPodManifest({ name, nodeName: node, ips: [] }));
  const kubelet = stack.use(await openFakeKubelet());
  kubelet.pods.set('k', { name: 'k' });
  if (!isKubeletThere) await kubelet.stop();
  const client = stack.use(await clientOf(kube));
  const clock = new ClockAhead();
  const log = keptLog();
  const source = new PodSource({ from, connect: kubelet.connect, client, node, clock, log });
  const store = new MapStore<Pod>();
  const reflector = stack.use(
    openReflector({
      name: 'pods',
      path: '/api/v1/pods',
      query: { fieldSelector: `spec.nodeName=${node}` },
      listsBy: 'stream',
      parse: parsePod,
      store,
      client: source,
      clock,
      random: () => 0.5,
      log,
      timing: quick,
    }),
  );
  const has = (...names: readonly string[]) =>
    store.until(names.join(' '), () => {
      return store.names().join(' ') === names.map((name) => `default/${name}`).join(' ');
    });
  const changes = () => log.lines.filter(({ message }) => message === 'source of pods changed');
  const owned = stack.move();
  return {
    ...{ kube, kubelet, clock, log, source, store, reflector, has, changes },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

const watches = (calls: readonly string[]): number =>
  calls.filter((call) => call.endsWith('/WatchPods')).length;

describe('pods from the kubelet', () => {
  it('follow its events', async () => {
    await using bed = await open('kubelet');
    const { kubelet, has, store, source, reflector } = bed;
    await has('k');
    kubelet.send('added', { name: 'l', ips: ['10.0.0.5'], labels: { a: 'b' } });
    await has('k', 'l');
    kubelet.send('modified', { name: 'l', ips: ['10.0.0.6'] });
    await store.until('changed', () => store.items.get('default/l')?.ips[0] === '10.0.0.6');
    kubelet.pods.set('done', { name: 'done', phase: 'Succeeded' });
    kubelet.endWatches(8);
    await eventually('listed again', () => reflector.stats().relists > 0);
    assert.deepEqual(store.names(), ['default/k', 'default/l']);
    await eventually('watching', () => reflector.stats().phase === 'watching');
    kubelet.send('deleted', { name: 'k' });
    await has('l');
    assert.equal(source.current, 'kubelet');
  });

  it('are listed again each minute, for changes without an event', async () => {
    await using bed = await open('kubelet');
    const { kubelet, clock, store, has, reflector, log } = bed;
    await has('k');
    kubelet.pods.set('k', { name: 'k', labels: { a: 'new' } });
    clock.advance(59_000);
    assert.equal(watches(kubelet.calls), 1);
    clock.advance(1_500);
    await store.until('label', () => store.items.get('default/k')?.labels['a'] === 'new');
    const { failure, errorsByKind } = reflector.stats();
    assert.equal(failure, undefined);
    assert.deepEqual(new Set(Object.values(errorsByKind)), new Set([0]));
    assert.deepEqual(
      log.lines.filter(({ level }) => level === 'warn'),
      [],
    );
  });

  it('are listed again for a waiting request', async () => {
    await using bed = await open('kubelet');
    const { kubelet, store, has, reflector } = bed;
    await has('k');
    kubelet.pods.set('k', { name: 'k', labels: { a: 'new' } });
    await eventually('watching', () => reflector.stats().phase === 'watching');
    reflector.checkNow();
    await store.until('label', () => store.items.get('default/k')?.labels['a'] === 'new');
  });

  it('stay known while the kubelet restarts, refuses and hangs', async () => {
    await using bed = await open('kubelet');
    const { kubelet, clock, log, store, has, reflector } = bed;
    await has('k');
    await kubelet.stop();
    await eventually('failing', () => reflector.stats().failure?.code === 'NETWORK');
    kubelet.refusal = 9;
    await kubelet.start();
    await eventually('refused', () => reflector.stats().failure?.code === 'SERVER');
    kubelet.isHung = true;
    const before = kubelet.calls.length;
    await eventually('called', () => kubelet.calls.length > before);
    assert.deepEqual(store.names(), ['default/k']);
    kubelet.isHung = false;
    kubelet.refusal = undefined;
    kubelet.pods.set('l', { name: 'l' });
    clock.advance(10_000);
    await has('k', 'l');
    const late = log.lines.find(({ fields }) => fields['code'] === 'TIMEOUT');
    assert.match(
      String(late?.fields['err']),
      /the kubelet has not listed its pods within 10000 ms/,
    );
  });

  it('are listed again after RESOURCE_EXHAUSTED, and after bytes that are no message', async () => {
    await using bed = await open('kubelet');
    const { kubelet, has, store, reflector } = bed;
    await has('k');
    kubelet.pods.delete('k');
    kubelet.pods.set('l', { name: 'l' });
    kubelet.endWatches(8);
    await has('l');
    kubelet.pods.set('m', { name: 'm' });
    kubelet.sendBytes(Buffer.from([0, 0, 0, 0, 2, 0xff, 0xff]));
    await has('l', 'm');
    assert.equal(reflector.stats().errorsByKind.refusal, 1);
    // Each list replaced all pods at once.
    assert.ok(store.replaced.every((pods) => pods.length > 0));
  });

  it('are read one by one', async () => {
    await using bed = await open('kubelet');
    const { kubelet, source, has } = bed;
    await has('k');
    const pod: FakePod = { name: 'k', ips: ['10.0.0.9'] };
    kubelet.pods.set('k', pod);
    assert.deepEqual((await source.readPod(createPod({ uid: 'uid-k' })))?.ips, ['10.0.0.9']);
    assert.equal(await source.readPod(createPod({ uid: 'gone' })), undefined);
  });

  it('never come from the API server', async () => {
    await using bed = await open('kubelet', false);
    const { kubelet, clock, reflector, has } = bed;
    await eventually('failing', () => reflector.stats().failure !== undefined);
    clock.advance(600_000);
    const { outage } = reflector.stats().errorsByKind;
    await eventually('tried', () => reflector.stats().errorsByKind.outage > outage + 2);
    assert.equal(reflector.synced, false);
    await kubelet.start();
    await has('k');
  });
});

describe('pods from the kubelet or the API server', () => {
  it('are from the kubelet if it answers', async () => {
    await using bed = await open('auto');
    await bed.has('k');
    assert.deepEqual(bed.changes(), []);
  });

  it('are from the API server at once if the kubelet has no socket', async () => {
    await using bed = await open('auto', false);
    const { has, source, changes, reflector } = bed;
    await has('a', 'k');
    assert.equal(source.current, 'api-server');
    assert.deepEqual(
      changes().map(({ fields }) => [fields['source'], fields['code']]),
      [['api-server', 'NETWORK']],
    );
    assert.equal(reflector.stats().failure, undefined);
    assert.equal((await source.readPod(createPod({ name: 'a' })))?.name, 'a');
    const path = `/api/v1/pods?fieldSelector=spec.nodeName%3D${node}`;
    assert.ok(typeof (await source.getJson(path)) === 'object');
  });

  it('go over to the API server after 30 s without the kubelet, and lose no pod', async () => {
    await using bed = await open('auto');
    const { kubelet, clock, has, store, source, reflector, changes } = bed;
    await has('k');
    await kubelet.stop();
    await eventually('failing', () => reflector.stats().failure !== undefined);
    clock.advance(29_000);
    const { outage } = reflector.stats().errorsByKind;
    await eventually('tried', () => reflector.stats().errorsByKind.outage > outage + 2);
    assert.equal(source.current, 'kubelet');
    clock.advance(1_500);
    await has('a', 'k');
    assert.equal(changes().length, 1);
    assert.ok(store.replaced.every((pods) => pods.some(({ name }) => name === 'k')));
  });

  it('go back to the kubelet when a watch at the API server ends', async () => {
    await using bed = await open('auto', false);
    const { kube, kubelet, clock, has, store, source, changes, reflector } = bed;
    await has('a', 'k');
    kube.closeWatches();
    await eventually('watching', () => reflector.stats().restarts > 0);
    assert.equal(source.current, 'api-server');
    await kubelet.start();
    clock.advance(31_000);
    kube.closeWatches();
    await has('k');
    assert.deepEqual(
      changes().map(({ fields }) => fields['source']),
      ['api-server', 'kubelet'],
    );
    assert.ok(store.replaced.every((pods) => pods.some(({ name }) => name === 'k')));
    // And again, at once, before its first complete list.
    await kubelet.stop();
    clock.advance(31_000);
    await eventually('failing', () => reflector.stats().failure !== undefined);
    clock.advance(31_000);
    await has('a', 'k');
  });

  it('go back to the kubelet while the API server is away', async () => {
    await using bed = await open('auto');
    const { kube, kubelet, clock, has, source } = bed;
    await has('k');
    kube.faults.failNext(1_000, 500);
    await kubelet.stop();
    await eventually('failing', () => bed.reflector.stats().failure !== undefined);
    clock.advance(31_000);
    await eventually('left', () => source.current === 'api-server');
    kubelet.pods.set('l', { name: 'l' });
    await kubelet.start();
    clock.advance(31_000);
    await has('k', 'l');
    assert.equal(source.current, 'kubelet');
  });

  it('are not those of both when the kubelet fails within its first list', async () => {
    await using bed = await open('auto', false);
    const { kube, kubelet, clock, has, store } = bed;
    await has('a', 'k');
    await kubelet.start();
    kubelet.pods.set('only-kubelet', { name: 'only-kubelet' });
    kubelet.endsLists = false;
    clock.advance(31_000);
    kube.closeWatches();
    await eventually('begun', () => watches(kubelet.calls) > 1);
    await kubelet.stop();
    await eventually('back', () => bed.source.current === 'api-server');
    kube.apply(createPodManifest({ name: 'b', nodeName: node, ips: [] }));
    await has('a', 'b', 'k');
    assert.ok(store.replaced.every((pods) => pods.every(({ name }) => name !== 'only-kubelet')));
  });
});
