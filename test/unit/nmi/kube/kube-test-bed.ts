/** Shared by the Kubernetes tests: a store with waiting, a recorded log, objects. */
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { systemClock, type Clock } from '../../../../src/base/time/clock.ts';
import type { ObjectRef, ObjectStore } from '../../../../src/cache/index/objects.ts';
import { openFakeKube, type FakeKube } from '../../../../lab/fakes/kube/fake-kube.ts';
import { openKubeClient, type KubeClient } from '../../../../src/nmi/kube/api/client.ts';
import type { ReflectorTiming } from '../../../../src/nmi/kube/watch/reflector.ts';
import type { Log } from '../../../../src/base/log.ts';

/** Short enough that no test waits for a default. */
export const quick: Partial<ReflectorTiming> = {
  backoff: { baseMs: 2, capMs: 20 },
  outage: { baseMs: 2, capMs: 20 },
  relistJitterMs: 5,
  relistJitterPerObjectMs: 0,
  healthyMs: 30,
  silenceMs: 5000,
};

/** For a busy machine. */
const untilMs = 20_000;

/** Resolves when the condition is true; checks it every 2 ms. */
export async function eventually(what: string, holds: () => boolean): Promise<void> {
  const endMs = performance.now() + untilMs;
  while (!holds()) {
    assert.ok(performance.now() < endMs, `not within ${untilMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

export class MapStore<T extends ObjectRef = ObjectRef> implements ObjectStore<T> {
  readonly items = new Map<string, T>();
  readonly replaced: (readonly T[])[] = [];
  /** Thrown by the next upsert. */
  poison: Error | undefined;
  #waiting: { readonly holds: () => boolean; readonly resolve: () => void }[] = [];

  get size(): number {
    return this.items.size;
  }
  replace(items: readonly T[]): void {
    this.replaced.push(items);
    this.items.clear();
    for (const item of items) this.items.set(`${item.namespace}/${item.name}`, item);
    this.#changed();
  }
  upsert(item: T): void {
    const { poison } = this;
    this.poison = undefined;
    if (poison !== undefined) throw poison;
    this.items.set(`${item.namespace}/${item.name}`, item);
    this.#changed();
  }
  remove(ref: ObjectRef): void {
    const key = `${ref.namespace}/${ref.name}`;
    if (this.items.get(key)?.uid === ref.uid) this.items.delete(key);
    this.#changed();
  }
  names(): string[] {
    return [...this.items.keys()].sort();
  }
  /** Resolves as soon as a change makes the condition true. */
  async until(what: string, holds: () => boolean): Promise<void> {
    if (holds()) return;
    const { promise, resolve, reject } = Promise.withResolvers<undefined>();
    const timer = setTimeout(() => {
      reject(new Error(`not within ${untilMs} ms: ${what}; has ${this.names().join(' ')}`));
    }, untilMs);
    this.#waiting.push({
      holds,
      resolve: () => {
        resolve(undefined);
      },
    });
    await promise;
    clearTimeout(timer);
  }
  #changed(): void {
    const due = this.#waiting.filter(({ holds }) => holds());
    this.#waiting = this.#waiting.filter((entry) => !due.includes(entry));
    for (const { resolve } of due) resolve();
  }
}

export interface KeptLine {
  readonly level: 'debug' | 'info' | 'warn' | 'error';
  readonly message: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

export function keptLog(): Log & { readonly lines: KeptLine[] } {
  const lines: KeptLine[] = [];
  const at = (level: KeptLine['level']) => (fields: object, message: string) => {
    lines.push({ level, message, fields: { ...fields } });
  };
  return { lines, debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
}

/** The system's clock, with a count of armed timers. */
export function countingClock(): Clock & { readonly armed: number } {
  let armed = 0;
  return {
    get armed() {
      return armed;
    },
    wallMs: () => systemClock.wallMs(),
    monotonicMs: () => systemClock.monotonicMs(),
    schedule(delayMs, work) {
      let open = true;
      armed += 1;
      const settle = (): void => {
        if (open) armed -= 1;
        open = false;
      };
      const disarm = systemClock.schedule(delayMs, () => {
        settle();
        work();
      });
      return () => {
        settle();
        disarm();
      };
    },
  };
}

export async function temporaryDir(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(tmpdir(), 'nmi-kube-'));
  return {
    path,
    async [Symbol.asyncDispose]() {
      await rm(path, { recursive: true, force: true });
    },
  };
}

/** A client of the fake. */
export function clientOf(fake: FakeKube, clock?: Clock): Promise<KubeClient> {
  return clientBy(fake.kubeconfig(), clock);
}

/** Of a server without TLS and without users. */
export function kubeconfigOf(url: string): string {
  return JSON.stringify({
    clusters: [{ name: 'c', cluster: { server: url } }],
    users: [{ name: 'u', user: {} }],
    contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
    'current-context': 'x',
  });
}

/** A client with a kubeconfig file that is deleted with it. */
export async function clientBy(kubeconfig: string, clock = systemClock): Promise<KubeClient> {
  const dir = await temporaryDir();
  const kubeconfigPath = join(dir.path, 'config');
  await writeFile(kubeconfigPath, kubeconfig);
  const client = await openKubeClient({ kubeconfigPath, userAgent: 'nmi-test/1', clock });
  return {
    ...client,
    async [Symbol.asyncDispose]() {
      await client[Symbol.asyncDispose]();
      await dir[Symbol.asyncDispose]();
    },
  };
}

/** A test with the fake of the API server and a client of it. */
export function itOnKube(
  name: string,
  test: (kube: { readonly fake: FakeKube; readonly client: KubeClient }) => Promise<void>,
): void {
  it(name, async () => {
    await using fake = await openFakeKube();
    await using client = await clientOf(fake);
    await test({ fake, client });
  });
}

export function rawPod(name: string, over: { node?: string; phase?: string; ip?: string } = {}) {
  const { node = 'node-a', phase = 'Running', ip = '10.0.0.1' } = over;
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'default', labels: { aadpodidbinding: 'demo' } },
    spec: { nodeName: node, serviceAccountName: 'demo' },
    status: { phase, podIP: ip, podIPs: [{ ip }] },
  };
}

export function rawBinding(name: string, selector: string) {
  return {
    apiVersion: 'aadpodidentity.k8s.io/v1',
    kind: 'AzureIdentityBinding',
    metadata: { name, namespace: 'default' },
    spec: { azureIdentity: 'demo', selector },
  };
}
