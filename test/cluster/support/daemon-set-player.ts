/** A DaemonSet controller, as far as `kubectl rollout status` needs it: one node, always done. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Api, KubeBody } from './api.ts';

const everyMs = 100;
const path = '/apis/apps/v1/daemonsets';

export function playDaemonSets(admin: Api): AsyncDisposable {
  const stop = new AbortController();
  const { signal } = stop;
  const playing = (async () => {
    while (!signal.aborted) {
      const { items } = await admin.expect('GET', path);
      for (const daemonSet of items as readonly KubeBody[]) await finish(admin, daemonSet);
      await delay(everyMs, undefined, { signal }).catch(() => undefined);
    }
  })();
  return {
    async [Symbol.asyncDispose]() {
      stop.abort();
      await playing;
    },
  };
}

async function finish(admin: Api, { metadata, status }: KubeBody): Promise<void> {
  const { name, namespace = '', generation } = metadata as unknown as Record<string, string>;
  if ((status as { observedGeneration?: unknown }).observedGeneration === generation) return;
  const count = 1;
  const done = {
    observedGeneration: generation,
    numberMisscheduled: 0,
    desiredNumberScheduled: count,
    currentNumberScheduled: count,
    updatedNumberScheduled: count,
    numberReady: count,
    numberAvailable: count,
  };
  const object = `/apis/apps/v1/namespaces/${namespace}/daemonsets/${name ?? ''}/status`;
  const contentType = 'application/merge-patch+json';
  const answer = await admin.request('PATCH', object, { status: done }, { contentType });
  // It may have been removed meanwhile.
  if (answer.status !== 200 && answer.status !== 404) {
    throw new Error(`${object}: ${answer.body.message ?? ''}`);
  }
}
