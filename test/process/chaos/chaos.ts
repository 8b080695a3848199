/**
 * One run: the agent as a child process, the fakes that it depends on, and the actors on both
 * sides.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { createLabAuthority } from '../../../lab/fakes/authority.ts';
import { openFakeEntra, type FakeEntra } from '../../../lab/fakes/entra/fake-entra.ts';
import type { FakeImds } from '../../../lab/fakes/imds/fake-imds.ts';
import { createAzurePodIdentityException } from '../../../lab/fakes/kube/manifests.ts';
import { openLoopbackPod } from '../../../lab/pods/pod-client.ts';
import { ask, tokenTarget, type Reply } from '../../support/ask.ts';
import { populate } from '../../support/entra-agent.ts';
import { openServices, type Child, type Services } from '../agent-child.ts';
import { Chance } from '../../simulation/chance.ts';
import { Faults } from './faults.ts';
import { History } from './history.ts';
import {
  addresses,
  assigned,
  ChangingObjects,
  exceptedAddress,
  identities,
  namespaces,
  podKinds,
  unknownAddress,
} from './objects.ts';
import { SyncProbes } from './sync-probes.ts';
import { ConnectionPlaces, Traffic } from './traffic.ts';
import { Verdicts } from './verdicts.ts';

const processesOfPod = 12;
const betweenChangesMs = [10, 200] as const;
/** Longer than any request takes. */
const rememberedMs = 120_000;
const shownEvents = 40;

export async function openChaos(seed: number): Promise<Chaos> {
  await using opening = new AsyncDisposableStack();
  const testBed = opening.use(await openServices());
  const authority = await createLabAuthority();
  const entra = opening.use(
    await openFakeEntra({ tls: await authority.issueServer(['127.0.0.1']) }),
  );
  const caFile = join(testBed.folder, 'ca.pem');
  await writeFile(caFile, authority.certificatePem);
  const { kube } = testBed;
  kube.delete({ kind: 'Pod', name: 'p' });
  for (const kind of ['AzureIdentity', 'AzureIdentityBinding']) kube.delete({ kind, name: 'a' });
  populate({ kube, entra });
  const agent = testBed.start([
    ...[...testBed.flags, `--entra-ca-file=${caFile}`, `--entra-authority=${entra.authority}`],
    // Anything logged at this level is a bug.
    ...['--enable-host-token', '--allow-metadata=scheduledevents', '--log-level=error'],
  ]);
  await testBed.untilReady();
  return new Chaos({ testBed, entra, agent, seed, owned: opening.move() });
}

interface ChaosParts {
  readonly testBed: Services;
  readonly entra: FakeEntra;
  readonly agent: Child;
  readonly seed: number;
  readonly owned: AsyncDisposable;
}

export class Chaos implements AsyncDisposable {
  readonly agent: Child;
  readonly imds: FakeImds;
  readonly #parts: ChaosParts;
  readonly #objects: ChangingObjects;
  readonly #history: History;
  readonly #faults: Faults;
  readonly #probes: SyncProbes;
  readonly #verdicts: Verdicts;
  /** Changes and faults, each with its count. */
  readonly #counts = new Map<string, number>();
  #events: string[] = [];
  #actors = 0;
  #isOver = false;

  constructor(parts: ChaosParts) {
    const { testBed, entra, agent } = parts;
    const { kube, imds, listenPort: port } = testBed;
    const isOver = (): boolean => this.#isOver;
    this.#parts = parts;
    this.agent = agent;
    this.imds = imds;
    this.#history = new History(kube.store, {
      byClientId: new Map(identities.map(({ clientId, name }) => [clientId, name])),
      ofNode: new Set(['node', ...assigned.map(({ name }) => name)]),
    });
    this.#objects = new ChangingObjects({ kube, imds, entra }, this.#nextChance());
    this.#faults = new Faults({ kube, imds, entra, isOver, onFault: (name) => this.#note(name) });
    this.#probes = new SyncProbes({
      kube,
      port,
      isOver,
      kubeHealthySinceMs: () => this.#faults.kubeHealthySinceMs,
      onLate: (finding) => this.#verdicts.find(finding),
    });
    this.#verdicts = new Verdicts(this.#history, this.#probes);
  }

  get findings(): readonly string[] {
    return this.#verdicts.findings;
  }

  /** Until the time is over, or the first finding. */
  async run(durationMs: number): Promise<void> {
    this.#objects.populate();
    const endAtMs = performance.now() + durationMs;
    const actors = [
      this.#probes.run(),
      this.#faults.run({
        imds: this.#nextChance(),
        entra: this.#nextChance(),
        kube: this.#nextChance(),
        lives: this.#nextChance(),
      }),
      this.#changeObjects(),
      ...[...addresses, exceptedAddress, unknownAddress].flatMap((ip) => {
        const places = new ConnectionPlaces();
        return Array.from({ length: processesOfPod }, () => this.#openTraffic(ip, places).run());
      }),
    ];
    this.#watchAgent();
    while (performance.now() < endAtMs && this.findings.length === 0) await delay(50);
    this.#isOver = true;
    await Promise.all(actors);
  }

  #nextChance(): Chance {
    // Consecutive seeds give unrelated numbers.
    return new Chance(this.#parts.seed + this.#actors++);
  }

  #openTraffic(ip: string, places: ConnectionPlaces): Traffic {
    return new Traffic({
      ip,
      places,
      port: this.#parts.testBed.listenPort,
      chance: this.#nextChance(),
      verdicts: this.#verdicts,
      podAt: (address) => this.#objects.podAt(address),
      isOver: () => this.#isOver,
    });
  }

  async #changeObjects(): Promise<void> {
    const chance = this.#nextChance();
    while (!this.#isOver) {
      this.#note(this.#objects.change());
      const oldestMs = performance.now() - rememberedMs;
      this.#history.forgetBefore(oldestMs);
      this.#probes.forgetBefore(oldestMs);
      await delay(chance.between(...betweenChangesMs));
    }
  }

  /** Any end of the process is a finding, whatever its cause. */
  #watchAgent(): void {
    void this.agent.exited.then((outcome) => {
      if (this.#isOver) return;
      this.#verdicts.find(`the agent ended with ${outcome}: ${this.agent.stderr()}`);
    });
  }

  #note(event: string): void {
    this.#counts.set(event, (this.#counts.get(event) ?? 0) + 1);
    this.#events.push(`${Math.round(performance.now())} ms: ${event}`);
    this.#events = this.#events.slice(-shownEvents);
  }

  /** The findings, the agent's log about them, and the events before. */
  explain(): readonly string[] {
    const said = this.agent.stdout() + this.agent.stderr();
    return [...this.#events, ...this.findings, said.replaceAll('\\n', '\n')];
  }

  report(): readonly string[] {
    const { requests, slowestMs, counts } = this.#verdicts;
    const list = (all: ReadonlyMap<string, number>): string =>
      [...all]
        .toSorted()
        .map(([name, count]) => `${name}: ${count}`)
        .join(', ');
    return [
      `${requests} requests, the slowest took ${Math.round(slowestMs)} ms`,
      `outcomes: ${list(counts)}`,
      `changes and faults: ${list(this.#counts)}`,
      `${this.#probes.count} probes of what the agent knows`,
    ];
  }

  /** Ends all faults, and leaves one pod at each address with all its objects in place. */
  async calm(): Promise<void> {
    const { kube } = this.#parts.testBed;
    // A hanging request continues to hang, and keeps a place at the metadata service for ten
    // seconds.
    await this.imds.setFaults({ closed: true });
    await this.imds.setFaults({});
    this.#parts.entra.setFaults({});
    kube.faults.clear();
    kube.cutConnections();
    this.#objects.restore();
  }

  /** The lab's name of the identity that the pod at the address gets if it names none. */
  expectedAt(ip: string): string | undefined {
    return this.#history.givenAt(ip);
  }

  /** Excepts every pod: it gets the identity that it names. */
  exceptAll(): void {
    for (const namespace of namespaces) {
      for (const kind of podKinds) {
        const exception = { namespace, name: `all-${kind}`, podLabels: { kind } };
        this.#parts.testBed.kube.apply(createAzurePodIdentityException(exception));
      }
    }
  }

  /** One request of the pod at an address, after the chaos. */
  async ask(ip: string, resource: string): Promise<Reply> {
    const pod = { name: ip, sourceIp: ip, host: '127.0.0.1', port: this.#parts.testBed.listenPort };
    await using client = openLoopbackPod(pod);
    return await ask(client, tokenTarget.replace('https://vault.azure.net', resource));
  }

  /** Values by series. */
  async metrics(): Promise<ReadonlyMap<string, number>> {
    const page = await this.#parts.testBed.page('metrics');
    const lines = (page?.text ?? '').split('\n').filter((line) => /^[a-z]/.test(line));
    return new Map(
      lines.map((line) => {
        const space = line.lastIndexOf(' ');
        return [line.slice(0, space), Number(line.slice(space + 1))] as const;
      }),
    );
  }

  [Symbol.asyncDispose](): PromiseLike<void> {
    return this.#parts.owned[Symbol.asyncDispose]();
  }
}
