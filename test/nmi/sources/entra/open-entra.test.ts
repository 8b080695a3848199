import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { PodIndex } from '../../../../src/cache/index/pod-index.ts';
import type { KubeClient } from '../../../../src/nmi/kube/api/client.ts';
import { openEntraUpstream } from '../../../../src/nmi/sources/entra/entra.ts';
import { HandClock } from '../../../support/hand-clock.ts';

function open(environment: Readonly<Record<string, string>> = {}) {
  const clock = new HandClock();
  const listeners = new Set<() => void>();
  const source = openEntraUpstream({
    timeoutMs: 1_000,
    userAgent: 'test',
    caPem: undefined,
    onCertificate: () => undefined,
    client: {} as KubeClient,
    clusterId: '',
    tokenClient: {} as KubeClient,
    pods: new PodIndex(clock),
    demand: {
      isCredentialNeeded: () => false,
      onChange: (listener) => {
        listeners.add(listener);
        return () => listeners.delete(listener);
      },
    },
    clock,
    environment,
  });
  return { clock, listeners, source };
}

describe('tokens from Entra ID itself', () => {
  it('are not available with an unusable proxy', () => {
    const message = /^HTTPS_PROXY is not the URL of .* proxy; correct HTTPS_PROXY$/;
    const refused = { name: 'StartError', code: 'CONFIG', message };
    assert.throws(() => open({ HTTPS_PROXY: 'no URL' }), refused);
  });

  it('follow changes of need, a burst at once, until the end', async () => {
    const { clock, listeners, source } = open();
    assert.equal(listeners.size, 1);
    for (const listener of [...listeners, ...listeners]) listener();
    assert.deepEqual(clock.armed, [0]);
    clock.advance(0);
    assert.deepEqual(clock.armed, []);
    for (const listener of listeners) listener();
    await source[Symbol.asyncDispose]();
    assert.deepEqual([listeners.size, clock.armed.length], [0, 0]);
  });
});
