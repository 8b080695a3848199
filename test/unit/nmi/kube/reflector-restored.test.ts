import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { systemClock } from '../../../../src/base/time/clock.ts';
import type { Pod } from '../../../../src/cache/index/objects.ts';
import { openFakeKube } from '../../../../lab/fakes/kube/fake-kube.ts';
import { createPodManifest } from '../../../../lab/fakes/kube/manifests.ts';
import { parsePod } from '../../../../src/nmi/kube/watch/parse.ts';
import { openReflector } from '../../../../src/nmi/kube/watch/reflector.ts';
import type { ReflectorTiming } from '../../../../src/nmi/kube/watch/reflector.ts';
import { clientOf, keptLog, MapStore, quick } from './kube-test-bed.ts';

const podOf = (name: string) => createPodManifest({ name, nodeName: 'n', ips: ['10.0.0.1'] });

/** Follows a server, which then returns with older data, until the store has that data. */
async function followRestored(timing: Partial<ReflectorTiming>, checkEveryMs?: number) {
  const kube = await openFakeKube({ bookmarkEveryMs: 3_600_000 });
  const { port } = kube;
  for (let count = 0; count < 50; count++) kube.apply(podOf(`lost-${count}`));
  await using client = await clientOf(kube);
  const store = new MapStore<Pod>();
  const log = keptLog();
  await using reflector = openReflector({
    listsBy: 'stream',
    client,
    name: 'pods',
    path: '/api/v1/pods',
    parse: parsePod,
    store,
    log,
    clock: systemClock,
    random: Math.random,
    timing: { ...quick, ...timing },
  });
  await store.until('the first list', () => store.items.size === 50);
  await kube[Symbol.asyncDispose]();

  await using restored = await openFakeKube({ port, bookmarkEveryMs: 3_600_000 });
  restored.apply(podOf('kept'));
  const checking =
    checkEveryMs === undefined
      ? undefined
      : setInterval(() => {
          reflector.checkNow();
        }, checkEveryMs);
  try {
    await store.until('what the backup had', () => store.names().join() === 'default/kept');
  } finally {
    clearInterval(checking);
  }
  assert.ok(JSON.stringify(log.lines).includes('went backwards'));
}

describe('an API server that was restored from a backup', () => {
  it('is listed again, although watches from the lost versions only stay silent', async () => {
    await followRestored({ silenceMs: 100 });
  });

  it('is listed again sooner when its watches are checked before they are silent for long', async () => {
    const timing = { silenceMs: 3_600_000, checkGraceMs: 10, checkEveryMs: 20 };
    await followRestored(timing, 30);
  });
});
