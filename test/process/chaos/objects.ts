/**
 * The cluster's users: they add, change and remove pods, bindings, identities, exceptions and
 * Secrets.
 */
import { createEntraApplication } from '../../../lab/fakes/entra/applications.ts';
import type { FakeEntra } from '../../../lab/fakes/entra/fake-entra.ts';
import { createLabIdentity } from '../../../lab/fakes/identity.ts';
import type { FakeImds } from '../../../lab/fakes/imds/fake-imds.ts';
import type { FakeKube } from '../../../lab/fakes/kube/fake-kube.ts';
import {
  createAzureIdentity,
  createAzureIdentityBinding,
  createAzurePodIdentityException,
  createPodManifest,
  createSecret,
  createServiceAccount,
  type AzureIdentityOptions,
} from '../../../lab/fakes/kube/manifests.ts';
import { federatedTo, podAccount } from '../../support/entra-agent.ts';
import { nodeName } from '../agent-child.ts';
import type { Chance } from '../../simulation/chance.ts';

export const namespaces = ['default', 'other'] as const;
export type Namespace = (typeof namespaces)[number];

/** Few, so that the pods of all of them share the same keys. */
export const addresses = ['127.0.1.1', '127.0.1.2', '127.0.1.3', '127.0.1.4'] as const;
/** Of a pod that stays and is always excepted: its tokens outlive all bindings. */
export const exceptedAddress = '127.0.1.8';
/** No pod ever has this address. */
export const unknownAddress = '127.0.1.9';
/** Assigned to the node. */
export const assigned = ['a', 'b'].map(createLabIdentity);
const applications = {
  withSecret: createEntraApplication('with-secret'),
  withOtherSecret: createEntraApplication('with-other-secret'),
  federated: createEntraApplication('federated', {
    federatedCredentials: namespaces.flatMap(
      (namespace) => federatedTo({ namespace, name: podAccount.name }).federatedCredentials,
    ),
  }),
};
/** Every identity that a token can have, except the node's own. */
export const identities = [...assigned, ...Object.values(applications)];

const secretNames = ['first', 'second'] as const;
const selectors = ['red', 'blue'] as const;
/** Values of the label that exceptions select. */
export const podKinds = ['app', 'system'] as const;
const objectNames = ['one', 'two'] as const;

const weights = {
  toggleBinding: 10,
  moveBinding: 3,
  replacePod: 3,
  relabelPod: 3,
  togglePod: 3,
  doublePod: 2,
  endPod: 1,
  moveException: 2,
  moveIdentity: 3,
  rotateSecret: 2,
  spoilSecret: 1,
  takeOrGiveBack: 4,
};
export type ChangeName = keyof typeof weights;

export interface ClusterParts {
  readonly kube: FakeKube;
  readonly imds: FakeImds;
  readonly entra: FakeEntra;
}

export class ChangingObjects {
  readonly #parts: ClusterParts;
  readonly #chance: Chance;
  /** Names of pods by address, in the order of creation. */
  readonly #pods = new Map<string, { readonly namespace: Namespace; readonly name: string }[]>();
  /** Puts back the removed object. */
  #giveBack: (() => void) | undefined;
  #made = 0;

  constructor(parts: ClusterParts, chance: Chance) {
    this.#parts = parts;
    this.#chance = chance;
  }

  /** Creates some objects of every kind. */
  populate(): void {
    const { kube, imds, entra } = this.#parts;
    for (const identity of assigned) imds.assign(identity);
    for (const application of Object.values(applications)) entra.register(application);
    for (const namespace of namespaces) {
      kube.apply(createServiceAccount({ ...podAccount, namespace }));
      for (const name of secretNames) this.#putSecret(namespace, name, `secret-of-${name}`);
      for (const name of objectNames) {
        this.#putIdentity(namespace, name);
        this.#putBinding(namespace, name);
      }
      this.#putException(namespace);
    }
    for (const ip of addresses) this.#addPod(ip);
    const labels = { kind: 'add-on' };
    const name = 'add-on';
    kube.apply(createPodManifest({ name, nodeName, ips: [exceptedAddress], labels }));
    kube.apply(createAzurePodIdentityException({ name, podLabels: labels }));
    this.#trustSecrets();
  }

  change(): ChangeName {
    const name = this.#chance.name(weights);
    this.#changes[name]();
    return name;
  }

  /** One pod at each address, and every identity available. */
  restore(): void {
    const { kube } = this.#parts;
    this.#giveBack?.();
    for (const namespace of namespaces) {
      for (const [index, name] of objectNames.entries()) {
        const { clientId = '' } = assigned[index] ?? {};
        kube.apply(createAzureIdentity({ namespace, name, clientId }));
      }
    }
    for (const ip of addresses) {
      while (this.#podsAt(ip) > 1) this.#removePod(ip);
      if (this.#podsAt(ip) === 0) this.#addPod(ip);
    }
  }

  podAt(ip: string): { readonly namespace: Namespace; readonly name: string } | undefined {
    return this.#pods.get(ip)?.at(-1);
  }

  readonly #changes: Readonly<Record<ChangeName, () => void>> = {
    toggleBinding: () => {
      const [namespace, name] = this.#anyName();
      if (!this.#remove('AzureIdentityBinding', namespace, name)) this.#putBinding(namespace, name);
    },
    moveBinding: () => this.#putBinding(...this.#anyName()),
    replacePod: () => {
      const ip = this.#chance.pick(addresses);
      // The event of the new pod may arrive before that of the old pod's end.
      const comesFirst = this.#chance.happens(0.3);
      if (comesFirst) this.#addPod(ip);
      this.#removePod(ip);
      if (!comesFirst) this.#addPod(ip);
    },
    relabelPod: () => {
      const pod = this.podAt(this.#chance.pick(addresses));
      if (pod === undefined) return;
      this.#parts.kube.patch({ kind: 'Pod', ...pod }, { metadata: { labels: this.#podLabels() } });
    },
    togglePod: () => {
      const empty = addresses.find((ip) => this.#podsAt(ip) === 0);
      if (empty === undefined) this.#removePod(this.#chance.pick(addresses));
      else this.#addPod(empty);
    },
    doublePod: () => {
      const doubled = addresses.find((ip) => this.#podsAt(ip) > 1);
      if (doubled === undefined) this.#addPod(this.#chance.pick(addresses));
      else this.#removePod(doubled);
    },
    endPod: () => {
      const pod = this.#pods.get(this.#chance.pick(addresses))?.shift();
      if (pod === undefined) return;
      this.#parts.kube.patch({ kind: 'Pod', ...pod }, { status: { phase: 'Succeeded' } });
    },
    moveException: () => {
      const namespace = this.#chance.pick(namespaces);
      if (this.#chance.happens(0.7)) this.#putException(namespace);
      else this.#remove('AzurePodIdentityException', namespace, 'exception');
    },
    moveIdentity: () => this.#putIdentity(...this.#anyName()),
    rotateSecret: () => this.#rotateSecret(this.#chance.pick(secretNames)),
    spoilSecret: () =>
      this.#putSecret(this.#chance.pick(namespaces), this.#chance.pick(secretNames), 'no such'),
    takeOrGiveBack: () => {
      if (this.#giveBack === undefined) {
        this.#giveBack = this.#takeSomething();
      } else {
        this.#giveBack();
        this.#giveBack = undefined;
      }
    },
  };

  /** Removes one thing at a time, so that most objects still match. Returns what puts it back. */
  #takeSomething(): () => void {
    const { kube, imds } = this.#parts;
    const [namespace, name] = this.#anyName();
    const secret = this.#chance.pick(secretNames);
    const identity = this.#chance.pick(assigned);
    switch (this.#chance.pick(['identity', 'secret', 'assignment'] as const)) {
      case 'identity':
        kube.delete({ kind: 'AzureIdentity', namespace, name });
        return () => this.#putIdentity(namespace, name);
      case 'secret':
        kube.delete({ kind: 'Secret', namespace, name: secret });
        return () => this.#rotateSecret(secret);
      case 'assignment':
        imds.unassign(identity.clientId);
        return () => imds.assign(identity);
    }
  }

  #podsAt(ip: string): number {
    return this.#pods.get(ip)?.length ?? 0;
  }

  #anyName(): readonly [Namespace, string] {
    return [this.#chance.pick(namespaces), this.#chance.pick(objectNames)];
  }

  /** Half of the new objects are too old for the agent to wait for their missing counterparts. */
  #anyAge(): { readonly createdAtWallMs?: number } {
    return this.#chance.happens(0.5) ? {} : { createdAtWallMs: Date.now() - 3_600_000 };
  }

  #podLabels(): Readonly<Record<string, string | null>> {
    return {
      aadpodidbinding: this.#chance.happens(0.9) ? this.#chance.pick(selectors) : null,
      kind: this.#chance.pick(podKinds),
    };
  }

  #addPod(ip: string): void {
    const namespace = this.#chance.pick(namespaces);
    const name = `pod-${++this.#made}`;
    const present = Object.entries(this.#podLabels()).flatMap(([label, value]) =>
      value === null ? [] : [[label, value] as const],
    );
    this.#parts.kube.apply(
      createPodManifest({
        namespace,
        name,
        nodeName,
        ips: [ip],
        serviceAccount: podAccount.name,
        labels: Object.fromEntries(present),
        ...this.#anyAge(),
      }),
    );
    const there = this.#pods.get(ip) ?? [];
    this.#pods.set(ip, there);
    there.push({ namespace, name });
  }

  /** The one that was created first. */
  #removePod(ip: string): boolean {
    const pod = this.#pods.get(ip)?.shift();
    return pod !== undefined && this.#parts.kube.delete({ kind: 'Pod', ...pod });
  }

  #putBinding(namespace: Namespace, name: string): void {
    this.#parts.kube.apply(
      createAzureIdentityBinding({
        namespace,
        name,
        selector: this.#chance.pick(selectors),
        azureIdentity: this.#chance.pick(objectNames),
        ...this.#anyAge(),
      }),
    );
  }

  #putException(namespace: Namespace): void {
    const podLabels = { kind: this.#chance.pick(podKinds) };
    this.#parts.kube.apply(
      createAzurePodIdentityException({ namespace, name: 'exception', podLabels }),
    );
  }

  #putIdentity(namespace: Namespace, name: string): void {
    this.#parts.kube.apply(
      createAzureIdentity({ namespace, name, ...this.#anyGift(), ...this.#anyAge() }),
    );
  }

  #anyGift(): Omit<AzureIdentityOptions, 'name'> {
    if (this.#chance.happens(0.6)) {
      const { clientId, resourceId } = this.#chance.pick(assigned);
      return { clientId, resourceId };
    }
    const kind = this.#chance.pick(['withSecret', 'withOtherSecret', 'federated'] as const);
    const { clientId, tenantId } = applications[kind];
    if (kind === 'federated') return { type: 3, clientId, tenantId };
    // Rarely the other application's Secret: Entra ID refuses it.
    const [own, other] = kind === 'withSecret' ? secretNames : secretNames.toReversed();
    const clientPassword = { name: (this.#chance.happens(0.85) ? own : other) ?? '' };
    return { type: 1, clientId, tenantId, clientPassword };
  }

  #putSecret(namespace: Namespace, name: string, clientSecret: string): void {
    this.#parts.kube.apply(createSecret({ namespace, name, data: { clientSecret } }));
  }

  #rotateSecret(name: string): void {
    this.#made++;
    for (const namespace of namespaces) this.#putSecret(namespace, name, `secret-${this.#made}`);
    this.#trustSecrets();
  }

  /**
   * Each application accepts the current content of one of the Secrets, so a Secret can change
   * owners.
   */
  #trustSecrets(): void {
    const { kube, entra } = this.#parts;
    const owners = [applications.withSecret, applications.withOtherSecret];
    for (const [index, name] of secretNames.entries()) {
      const application = owners[index];
      if (application === undefined) continue;
      const secrets = namespaces.flatMap((namespace) => {
        const data = kube.get({ kind: 'Secret', namespace, name })?.['data'];
        const { clientSecret } = (data ?? {}) as Readonly<Record<string, string>>;
        if (clientSecret === undefined) return [];
        return [{ value: Buffer.from(clientSecret, 'base64').toString('utf8') }];
      });
      entra.register({ ...application, secrets });
    }
  }

  #remove(kind: string, namespace: Namespace, name: string): boolean {
    return this.#parts.kube.delete({ kind, namespace, name });
  }
}
