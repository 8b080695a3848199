/** The cluster's objects and pods, and how an operator and users change them. */
import {
  createAzureIdentity,
  createAzureIdentityBinding,
  createAzureIdentityGrant,
  createAzurePodIdentityException,
  createPodManifest,
} from '../../lab/fakes/kube/manifests.ts';
import { identities } from './cloud.ts';
import type { Node } from './node.ts';
import { PodClient } from './pod-client.ts';
import { epochMs } from './limits.ts';
import type { World } from './world.ts';

const namespaces = ['one', 'two'] as const;
const labels = ['web', 'job'] as const;
const slots = [10, 11, 12, 13, 14] as const;

/** Which identity each namespace's objects name: `one` has a and b, `two` has c and d. */
const owned = { one: ['a', 'b'], two: ['c', 'd'] } as const;

export class Workload {
  readonly #world: World;
  /** By UID: pods that have left. */
  readonly #left = new Map<string, PodClient>();
  #made = 0;
  hasBackUp = false;

  constructor(world: World) {
    this.#world = world;
  }

  get clients(): readonly PodClient[] {
    return this.#world.nodes.flatMap((node) => [...node.clients]);
  }

  begin(): void {
    for (const namespace of namespaces) {
      for (const [index, label] of labels.entries()) {
        const identity = owned[namespace][index] ?? 'a';
        this.setIdentity(namespace, label, identity);
        this.setBinding(namespace, label);
      }
      this.setGrant(namespace, owned[namespace]);
    }
    this.#world.truth.begin();
    for (const node of this.#world.nodes)
      for (let count = 0; count < 3; count += 1) this.addPod(node);
  }

  /** @param identity the lab's name; another namespace's is not owned. */
  setIdentity(namespace: string, name: string, identity: string): void {
    const found = identities.find((each) => each.name === identity);
    if (found === undefined) throw new Error(identity);
    this.#write(() => {
      this.#kube.apply(
        createAzureIdentity({
          ...this.#meta(namespace, name),
          clientId: found.clientId,
          resourceId: found.resourceId,
        }),
      );
      this.#world.truth.identities.set(`${namespace}/${name}`, identity);
    });
  }

  setBinding(namespace: string, label: string): void {
    this.#write(() => {
      this.#kube.apply(
        createAzureIdentityBinding({
          ...this.#meta(namespace, `${label}-binding`),
          azureIdentity: label,
          selector: label,
        }),
      );
      this.#world.truth.bindings.set(`${namespace}/${label}`, {
        namespace,
        selector: label,
        identity: label,
      });
    });
  }

  deleteBinding(namespace: string, label: string): void {
    this.#write(() => {
      this.#kube.delete({ kind: 'AzureIdentityBinding', namespace, name: `${label}-binding` });
      this.#world.truth.bindings.delete(`${namespace}/${label}`);
    });
  }

  setGrant(namespace: string, names: readonly string[]): void {
    const clientIDs = identities
      .filter(({ name }) => names.includes(name))
      .map((each) => each.clientId);
    this.#write(() => {
      this.#kube.apply(createAzureIdentityGrant(namespace, { namespaces: [namespace], clientIDs }));
      this.#world.truth.grants.set(namespace, { namespace, names });
    });
  }

  deleteGrant(namespace: string): void {
    this.#write(() => {
      this.#kube.delete({ kind: 'AzureIdentityGrant', namespace: '', name: namespace });
      this.#world.truth.grants.delete(namespace);
    });
  }

  /** Its pods get any identity of the node. */
  setException(namespace: string, label: string): void {
    this.#write(() => {
      this.#kube.apply(
        createAzurePodIdentityException({
          ...this.#meta(namespace, `${label}-exception`),
          podLabels: { aadpodidbinding: label },
        }),
      );
      const grant = { namespaces: [namespace], nodeIdentities: true };
      this.#kube.apply(createAzureIdentityGrant(`${namespace}-node`, grant));
      this.#world.truth.exceptions.set(`${namespace} ${label}`, true);
      this.#world.truth.grants.set(`${namespace}-node`, { namespace, names: ['node'] });
    });
  }

  deleteException(namespace: string, label: string): void {
    this.#write(() => {
      const name = `${label}-exception`;
      this.#kube.delete({ kind: 'AzurePodIdentityException', namespace, name });
      this.#world.truth.exceptions.delete(`${namespace} ${label}`);
    });
  }

  relabelPod({ facts }: PodClient, label: string): void {
    const { namespace, uid } = facts;
    if (!this.#world.truth.pods.has(uid)) return;
    this.#write(() => {
      const metadata = { labels: { aadpodidbinding: label } };
      this.#kube.patch({ kind: 'Pod', namespace, name: nameOf(uid) }, { metadata });
      this.#world.truth.pods.set(uid, { uid, namespace, label });
    });
  }

  /** At the lowest free address, which another pod may just have had. */
  addPod(node: Node, sooner = 0): PodClient | undefined {
    const used = new Set([...node.clients].map(({ ip }) => ip));
    const ip = slots.map((slot) => node.podIp(slot)).find((each) => !used.has(each));
    if (ip === undefined) return undefined;
    const { random } = this.#world.scheduler;
    const number = (this.#made += 1);
    const name = `pod${number}`;
    const namespace = namespaces[number % 2] ?? 'one';
    const label = labels[Math.floor(number / 2) % 2] ?? 'web';
    const uid = `pod-${number}-of-${namespace}`;
    this.#write(() => {
      this.#kube.apply(
        createPodManifest({
          ...this.#meta(namespace, name),
          uid,
          nodeName: node.name,
          ips: [ip],
          binding: label,
        }),
      );
      this.#world.truth.pods.set(uid, { uid, namespace, label });
    });
    const everyMs = 300 + random() * (2_000 - sooner);
    return new PodClient(node, { uid, namespace, label }, ip, everyMs, random() < 0.6);
  }

  /** Its processes end first; the API server knows of it a moment later, or much later. */
  removePod(client: PodClient, lateMs: number): void {
    client.remove();
    const { facts } = client;
    const { uid, namespace } = facts;
    this.#left.set(uid, client);
    const tenant = { facts: client.facts, leftMs: this.#world.nowMs, knownMs: Infinity };
    client.node.before.set(client.ip, tenant);
    this.#world.after(lateMs, 'pod deleted', () => {
      this.#write(() => {
        const pod = { kind: 'Pod', namespace, name: nameOf(uid) };
        // Of a Job: it stays, and has ended.
        if (facts.label === 'job' && this.#kube.get(pod) !== undefined)
          this.#kube.patch(pod, { status: { phase: 'Succeeded' } });
        else this.#kube.delete(pod);
        this.#world.truth.pods.delete(uid);
        tenant.knownMs = this.#world.nowMs;
      });
    });
  }

  /**
   * @returns how the API server comes back with the objects of this moment. Kubelets then end pods that it has not,
   * and report the end of those that have left.
   */
  backUp(): () => void {
    const [restoreObjects, restoreTruth] = [this.#kube.backUp(), this.#world.truth.backUp()];
    // Of a cluster with other work. Those who have seen these versions get no event of the restored server.
    this.#kube.store.skip(1_000_000);
    this.hasBackUp = true;
    return () => {
      this.#world.tell('the API server is restored');
      this.#write(() => {
        restoreObjects();
        restoreTruth();
      });
      const { pods } = this.#world.truth;
      for (const client of this.clients) if (!pods.has(client.facts.uid)) this.removePod(client, 0);
      for (const [uid, client] of this.#left) if (pods.has(uid)) this.removePod(client, 2_000);
    };
  }

  /** Objects of shapes that nobody expects. */
  writeHostile(seed: number): void {
    const shapes: readonly object[] = [
      { spec: {} },
      { spec: null },
      { spec: { azureIdentity: 7, selector: ['web'] } },
      { spec: { azureIdentity: '../one/web', selector: 'x'.repeat(5_000) } },
      { spec: { type: 'zero', clientID: {}, resourceID: '\u0000' } },
      { spec: { type: 0, clientID: 'A'.repeat(100_000), resourceID: '/' } },
    ];
    const shape = shapes[Math.floor(seed * shapes.length)] ?? {};
    const isIdentity = JSON.stringify(shape).includes('type');
    this.#write(() => {
      this.#kube.apply({
        apiVersion: 'aadpodidentity.k8s.io/v1',
        kind: isIdentity ? 'AzureIdentity' : 'AzureIdentityBinding',
        metadata: { name: 'hostile', namespace: 'two', creationTimestamp: 'never' },
        ...shape,
      });
    });
  }

  get #kube() {
    return this.#world.cloud.kube;
  }

  #meta(namespace: string, name: string) {
    return { name, namespace, createdAtWallMs: Math.floor(epochMs + this.#world.nowMs) };
  }

  /** The write and its effect on the truth are one moment. */
  #write(work: () => void): void {
    this.#world.cloud.within(work);
    this.#world.truth.note();
    this.#world.conditions.othersWrote();
  }
}

function nameOf(uid: string): string {
  return uid.split('-of-')[0]?.replace('-', '') ?? '';
}
