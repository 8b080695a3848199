/**
 * The test bed a scenario acts in: a fake Azure, a fake Kubernetes API, the agent as a process, and
 * pods that ask. Two kinds make it: network namespaces with the real redirect, and loopback without
 * one. Each scenario finds it empty but for a running agent.
 *
 * The one number that matters is `leaks`: tokens of the node's own identity in the hands of pods
 * that are not excepted, however they came there.
 */
import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { asRecord, stringAt } from '../../src/base/json-value.ts';
import type { AgentProcess } from './agent-process.ts';
import { eventually } from './eventually.ts';
import type { FakeEntra } from '../fakes/entra/fake-entra.ts';
import type { FakeImds, ImdsRequest } from '../fakes/imds/fake-imds.ts';
import { fakeResources, type FakeObject } from '../fakes/kube/resources.ts';
import type { FakeUser } from '../fakes/kube/tokens.ts';
import type { FakeKube } from '../fakes/kube/fake-kube.ts';
import { createLabIdentity, createNodeIdentity } from '../fakes/identity.ts';
import { LabPod } from '../pods/pod.ts';
import type { LabIdentity } from '../fakes/token.ts';
import {
  createAzureIdentity,
  createAzureIdentityBinding,
  createAzureIdentityGrant,
  createAzurePodIdentityException,
  createPodManifest,
  type AzureIdentityGrantSpec,
  type PodManifest,
} from '../fakes/kube/manifests.ts';
import type { Command } from '../fabric/lab-command.ts';
import type { PodLinkKind } from '../fabric/pod-link.ts';
import type { PodClient } from '../pods/pod-client.ts';
import { trustCluster, type Services } from './services.ts';

export type TestBedKind = 'namespaces' | 'loopback';

/** What the two kinds of test bed do differently. */
export interface Environment extends Services {
  readonly kind: TestBedKind;
  readonly agent: AgentProcess;
  /** Starts `nmi`; a verb or flags follow. */
  readonly agentCommand: Command;
  /** Where the agent runs, and what is typed in its container; undefined where there are no cgroups of pods. */
  agentCgroup(): string | undefined;
  /** The folder of a pod's container; undefined where there are no cgroups of pods. */
  podCgroup(name: string): string | undefined;
  /** Those of the agent's flags that `nmi redirect` takes too. */
  readonly redirectFlags: readonly string[];
  /** The mode that the agent runs in with them. */
  readonly mode: string;
  readonly nodeIp: string;
  /** An address and a client that asks from it. */
  openPod(pod: EnvironmentPod): Promise<{ ips: readonly string[]; client: PodClient }>;
  closePod(name: string): Promise<void>;
  /** Makes another pod of what runs in this one, where pods are told apart by their cgroups. */
  movePod(name: string, uid: string): void;
  /** A client in the node's own namespace, as a process of the host. Namespaces only. */
  openHostClient(): Promise<PodClient>;
  /**
   * Another agent on the same node, its probes on a port of their own, started through a program
   * that takes others. Namespaces only.
   * @param program where that finds the executable; default: as in {@link agentCommand}.
   */
  openAgent(adminPort: number, through?: readonly string[], program?: string): AgentProcess;
  /** A client in a pod's network and in no cgroup of a pod. Namespaces only. */
  openOutsider(pod: string): Promise<PodClient>;
  /**
   * A client in another container of a pod, which has a network of its own inside the pod's: the
   * pod translates its address. Namespaces only.
   */
  openInside(pod: string, ip?: string): Promise<PodClient>;
  /**
   * A client in another container of a pod, started through a program that takes others.
   * Namespaces only.
   */
  openContainer(pod: string, through: Command): Promise<PodClient>;
  /** The file of a pod's network namespace. Namespaces only. */
  podNamespace(pod: string): string;
  /**
   * Starts a program in another container of a pod, with piped streams; it ends with the pod.
   * Namespaces only.
   */
  startInPod(pod: string, command: Command): ChildProcess;
  /** Runs a program in the node's namespace. Namespaces only. */
  runInNode(command: string, args: readonly string[], input?: string): Promise<RunResult>;
  /** Runs a program in a pod's namespace. Namespaces only. */
  runInPod(
    pod: string,
    command: string,
    args: readonly string[],
    input?: string,
  ): Promise<RunResult>;
}

export interface EnvironmentPod {
  readonly name: string;
  readonly uid: string;
  /** Default: a free one. */
  readonly ip: string | undefined;
  /** On the node's own network. Namespaces only. */
  readonly hostNetwork: boolean;
  /** Default `bridge`. Namespaces only. */
  readonly link?: PodLinkKind;
}

export interface RunResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface NewPod {
  readonly name: string;
  readonly namespace?: string;
  /** Value of the label `aadpodidbinding`. */
  readonly binding?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly phase?: 'Pending' | 'Running';
  /** Default `default`. */
  readonly serviceAccount?: string;
  /** Default: a free one. */
  readonly ip?: string;
  /** Whether the Kubernetes API knows it from the start; default true. */
  readonly announced?: boolean;
  /** Default `bridge`. */
  readonly link?: PodLinkKind;
  /** On the node's own network, and told apart by its cgroup alone. */
  readonly hostNetwork?: boolean;
  /** May hold the node's identity: an exception covers it. */
  readonly excepted?: boolean;
}

export const nodeName = 'lab-node';

/** What the agent's service account is called where it is deployed. */
export const agentAccount = { namespace: 'kube-system', name: 'aad-pod-id-nmi-service-account' };

const agentUser: FakeUser = {
  username: `system:serviceaccount:${agentAccount.namespace}:${agentAccount.name}`,
  groups: ['system:serviceaccounts', 'system:authenticated'],
};

/** The agent's own count of what it knows, by plural name of the resource. */
const indexSeries: ReadonlyMap<string, string> = new Map([
  ['pods', 'nmi_index_pods{kind="all"}'],
  ['azureidentities', 'nmi_index_objects{kind="identities"}'],
  ['azureidentitybindings', 'nmi_index_objects{kind="bindings"}'],
  ['azurepodidentityexceptions', 'nmi_index_objects{kind="exceptions"}'],
  ['azureidentitygrants', 'nmi_index_objects{kind="grants"}'],
]);

export class TestBed implements AsyncDisposable {
  readonly environment: Environment;
  readonly #log: (line: string) => void;
  readonly #pods = new Map<string, LabPod>();
  readonly #manifests = new Map<LabPod, PodManifest>();
  readonly #assigned = new Map<string, LabIdentity>();
  #flags: readonly string[] = [];
  #objectAgeMs = 0;
  /** Node tokens that came to pods by way of the agent; direct ones the fake IMDS counts. */
  #handedOut = 0;

  constructor(environment: Environment, log: (line: string) => void) {
    this.environment = environment;
    this.#log = log;
  }

  get kube(): FakeKube {
    return this.environment.kube;
  }

  get imds(): FakeImds {
    return this.environment.imds;
  }

  get entra(): FakeEntra {
    return this.environment.entra;
  }

  get agent(): AgentProcess {
    return this.environment.agent;
  }

  get pods(): readonly LabPod[] {
    return [...this.#pods.values()];
  }

  /** The kernel says which pod dialled; else its address is all there is. */
  get attests(): boolean {
    return this.mode === 'ebpf';
  }

  /** How pods are redirected. */
  get mode(): string {
    return this.environment.mode;
  }

  /** Tokens of the node's identity handed to pods that are not excepted, since the start. */
  get leaks(): number {
    return Math.max(this.#handedOut, this.imds.leaks());
  }

  /** A line of what happens, for the reader. */
  log(line: string): void {
    this.#log(line);
  }

  /** Takes everything away that a scenario made, and has an agent with the given flags running. */
  async reset(flags: readonly string[] = [], objectAgeMs = 0): Promise<void> {
    this.#objectAgeMs = objectAgeMs;
    for (const pod of this.pods) await this.removePod(pod);
    for (const resource of fakeResources) {
      for (const { kind, metadata } of this.kube.store.list(resource)) {
        this.kube.delete({ kind, ...metadata });
      }
    }
    this.kube.user = agentUser;
    this.entra.reset();
    this.environment.identityBindings.reset();
    trustCluster(this.entra, this.kube);
    const wasHanging = this.kube.faults.hang;
    this.kube.faults.clear();
    // A client retries after an answer that never arrives.
    if (wasHanging) this.kube.cutConnections();
    await this.imds.setFaults({});
    this.imds.setSystemAssigned(createNodeIdentity());
    for (const identity of this.#assigned.values()) this.imds.unassign(identity.clientId);
    this.#assigned.clear();
    const isOther = flags.join('\n') !== this.#flags.join('\n');
    this.#flags = flags;
    if (isOther) await this.agent.stop();
    await this.startAgent();
    if (isOther) await this.settle();
    await this.untilAgentKnows();
    this.imds.clear();
  }

  /**
   * Waits until the agent has as many objects of each kind as the API: what was added and what was
   * taken away has arrived there. It does not see that an object was edited or replaced.
   * @throws AssertionError after 20 s.
   */
  async untilAgentKnows(): Promise<void> {
    await eventually(async () => {
      const valueOf = await this.agent.metrics();
      for (const resource of fakeResources) {
        const series = indexSeries.get(resource.plural);
        if (series === undefined) continue;
        const stored = this.kube.store.list(resource).filter(isWatched).length;
        const known = valueOf(series);
        assert.equal(known, stored, `the agent knows ${known} ${resource.plural} of ${stored}`);
      }
    }, 20_000);
  }

  /** Starts the agent with this scenario's flags and waits until it is ready. */
  startAgent(): Promise<void> {
    return this.agent.start([...this.environment.agentFlags, ...this.#flags]);
  }

  /**
   * For a minute after it changed the redirect, the agent refuses no caller for good. A second start finds the
   * redirect as it is.
   */
  async settle(): Promise<void> {
    if (!this.attests) return;
    await this.agent.stop();
    await this.startAgent();
  }

  /** The same without waiting. */
  launchAgent(): void {
    this.agent.launch([...this.environment.agentFlags, ...this.#flags]);
  }

  /** A user-assigned identity that is assigned to the node; the same name is the same identity. */
  assignIdentity(name: string): LabIdentity {
    const identity = createLabIdentity(name);
    this.imds.assign(identity);
    this.#assigned.set(identity.clientId, identity);
    return identity;
  }

  /** An assigned identity with its AzureIdentity and AzureIdentityBinding, all of one name. */
  bind(name: string, selector: string, namespace = 'default'): LabIdentity {
    const identity = this.addIdentity(name, namespace);
    this.addBinding(name, name, selector, namespace);
    return identity;
  }

  addIdentity(name: string, namespace = 'default', as = name): LabIdentity {
    const identity = this.assignIdentity(as);
    const { clientId, resourceId } = identity;
    const createdAtWallMs = this.#createdAtWallMs;
    this.kube.apply(
      createAzureIdentity({ name, namespace, clientId, resourceId, createdAtWallMs }),
    );
    return identity;
  }

  addBinding(name: string, azureIdentity: string, selector: string, namespace = 'default'): void {
    const createdAtWallMs = this.#createdAtWallMs;
    this.kube.apply(
      createAzureIdentityBinding({ name, namespace, azureIdentity, selector, createdAtWallMs }),
    );
  }

  get #createdAtWallMs(): number {
    return Date.now() - this.#objectAgeMs;
  }

  addException(
    name: string,
    podLabels: Readonly<Record<string, string>>,
    namespace = 'default',
  ): void {
    this.kube.apply(createAzurePodIdentityException({ name, namespace, podLabels }));
  }

  addGrant(name: string, spec: AzureIdentityGrantSpec): void {
    this.kube.apply(createAzureIdentityGrant(name, spec));
  }

  deleteObject(kind: string, name: string, namespace = 'default'): void {
    this.kube.delete({ kind, name, namespace });
  }

  /** A running pod; its object appears in the API before the client asks anything. */
  async addPod(options: NewPod): Promise<LabPod> {
    const { name, namespace = 'default', hostNetwork = false } = options;
    const uid = randomUUID();
    const { ips, client } = await this.environment.openPod({
      name,
      uid,
      ip: options.ip,
      hostNetwork,
      ...(options.link === undefined ? {} : { link: options.link }),
    });
    const pod = new LabPod({
      namespace,
      name,
      ip: ips[0] ?? '',
      uid,
      client,
      onIdentity: (identity, count) => {
        if (identity === 'node' && options.excepted !== true) this.#handedOut += count;
      },
      log: (line) => {
        this.log(line);
      },
    });
    this.#pods.set(name, pod);
    const manifest = createPodManifest({
      name,
      namespace,
      uid,
      nodeName,
      ips,
      hostNetwork,
      hostIp: this.environment.nodeIp,
      phase: options.phase ?? 'Running',
      serviceAccount: options.serviceAccount ?? 'default',
      createdAtWallMs: this.#createdAtWallMs,
      ...(options.binding === undefined ? {} : { binding: options.binding }),
      ...(options.labels === undefined ? {} : { labels: options.labels }),
    });
    this.#manifests.set(pod, manifest);
    if (options.announced !== false) this.announce(pod);
    return pod;
  }

  /** Puts the pod's object into the API, as the kubelet does when it has started it. */
  announce(pod: LabPod, change: Partial<Pick<NewPod, 'binding'>> = {}): void {
    const manifest = this.#manifests.get(pod);
    if (manifest === undefined) throw new TypeError(`pod ${pod.name} is gone`);
    this.kube.apply(manifest);
    if (change.binding !== undefined) this.relabel(pod, change.binding);
  }

  relabel(pod: LabPod, binding: string | undefined): void {
    const labels = { aadpodidbinding: binding ?? null };
    const ref = { kind: 'Pod', namespace: pod.namespace, name: pod.name };
    this.kube.patch(ref, { metadata: { labels } });
  }

  /** Takes the pod's object out of the API and leaves its processes running. */
  deletePodObject(pod: LabPod): void {
    this.deleteObject('Pod', pod.name, pod.namespace);
  }

  /** Ends the pod: processes, address, object. */
  async removePod(pod: LabPod): Promise<void> {
    this.deletePodObject(pod);
    this.#pods.delete(pod.name);
    this.#manifests.delete(pod);
    await pod[Symbol.asyncDispose]();
    await this.environment.closePod(pod.name);
  }

  /** What the fake IMDS was asked for tokens since the scenario began, newest last. */
  upstreamTokens(): readonly string[] {
    return this.imds
      .requests()
      .filter((request) => request.identity !== undefined)
      .map((request) => `${request.identity ?? ''} to ${request.from}`);
  }

  /** What reached the fake IMDS past the agent since the scenario began, whatever it asked for. */
  uncheckedRequests(): readonly ImdsRequest[] {
    return this.imds.requests().filter(({ from }) => from !== this.environment.nodeIp);
  }

  /** Ends the pods; the ground ends the rest. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const pod of this.pods) await this.removePod(pod);
  }
}

/** The agent watches pods of its own node that have not ended, and every custom resource. */
function isWatched(object: FakeObject): boolean {
  if (object.kind !== 'Pod') return true;
  const phase = stringAt(asRecord(object['status']), 'phase');
  const node = stringAt(asRecord(object['spec']), 'nodeName');
  return node === nodeName && phase !== 'Succeeded' && phase !== 'Failed';
}
