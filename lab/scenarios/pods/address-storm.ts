/**
 * One address moves from pod to pod, faster than in any cluster, while the agent's watch events
 * arrive late and in any order. By cgroup, no pod ever gets an identity that is not its own; by
 * address and link, no pod gets the identity of the address's previous pod.
 */
import assert from 'node:assert/strict';
import { randomInt, randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { eventually } from '../../test-bed/eventually.ts';
import { createRandom } from '../../test-bed/random.ts';
import type { LabPod, PodReply } from '../../pods/pod.ts';
import { checkLoad } from '../../pods/load-verdict.ts';
import { createPodManifest } from '../../fakes/kube/manifests.ts';
import { assertRefused, assertToken, sayReply, untilToken } from '../../test-bed/reply-checks.ts';
import type { Scenario } from '../../test-bed/scenario.ts';
import { startSteadyLoad } from '../../pods/steady-load.ts';
import { nodeName, type TestBed } from '../../test-bed/test-bed.ts';

const rounds = 100;
const owners = ['storm-0', 'storm-1', 'storm-2', 'storm-3', 'storm-4'];
const eventDelaysMs = [0, 0, 5, 30];
/** One round in this many waits until the pod is served. */
const calmEvery = 8;
const patienceMs = 10_000;
/** The agent lets a request wait for late events; the storm does not wait that long. */
const impatienceMs = 150;

/** The pod that the processes at the address belong to, one after another. */
class Storm {
  readonly #testBed: TestBed;
  readonly #pod: LabPod;
  readonly #random: () => number;
  /** The identity of each pod, in the order in which they had the address. */
  readonly #identities: string[];
  readonly #stillAnnounced: string[] = [];
  readonly #underWay: Promise<void>[] = [];
  /** The possible identities of each kept connection. */
  readonly #openedBy = new Map<string, readonly string[]>();
  granted = 0;
  refused = 0;

  constructor(testBed: TestBed, pod: LabPod, identity: string, random: () => number) {
    this.#testBed = testBed;
    this.#pod = pod;
    this.#random = random;
    this.#identities = [identity];
    this.#stillAnnounced.push(pod.name);
  }

  get #now(): number {
    return this.#identities.length - 1;
  }

  #pick<T>(from: readonly T[]): T {
    const picked = from[Math.floor(this.#random() * from.length)];
    assert.ok(picked !== undefined);
    return picked;
  }

  /** Moves the address to another pod; the related events are sent in random order. */
  async turn(): Promise<void> {
    const testBed = this.#testBed;
    const identity = this.#pick(owners.filter((one) => one !== this.#identities[this.#now]));
    const uid = randomUUID();
    const name = `storm-pod-${this.#identities.length}`;
    testBed.kube.faults.delayEventsMs = this.#pick(eventDelaysMs);
    const steps = [
      () => {
        testBed.environment.movePod(this.#pod.name, uid);
        this.#identities.push(identity);
      },
      () => {
        const { ip } = this.#pod;
        const manifest = { name, uid, nodeName, ips: [ip], binding: identity };
        testBed.kube.apply(createPodManifest({ ...manifest, hostIp: testBed.environment.nodeIp }));
        this.#stillAnnounced.push(name);
      },
      () => {
        // A deletion may be rounds late: then the address has two owners, or three.
        if (this.#random() < 0.3) return;
        this.#forget(name);
      },
    ];
    while (steps.length > 0) {
      const [step] = steps.splice(Math.floor(this.#random() * steps.length), 1);
      if (this.#random() < 0.4) this.#underWay.push(this.#ask('new'));
      step?.();
      if (this.#random() < 0.4) await this.#ask('new');
      const since = Math.floor(this.#random() * 3);
      if (this.#random() < 0.3) await this.#ask(`kept-${Math.max(0, this.#now - since)}`);
    }
  }

  /** All events have arrived: the pod that has the address now is served. */
  async calm(): Promise<void> {
    const [last] = this.#stillAnnounced.slice(-1);
    this.#forget(last ?? '');
    await eventually(async () => {
      const reply = await this.#checked('new');
      assert.equal(reply.identity, this.#identities[this.#now], sayReply(reply));
    }, patienceMs);
    await Promise.all(this.#underWay.splice(0));
  }

  #forget(except: string): void {
    for (const name of this.#stillAnnounced.splice(0)) {
      if (name === except) this.#stillAnnounced.push(name);
      else this.#testBed.deleteObject('Pod', name);
    }
  }

  async #ask(connection: string): Promise<void> {
    await this.#checked(connection, impatienceMs);
  }

  /** A reply has no token, or one of the pod that owned the process when it connected. */
  async #checked(connection: string, timeoutMs = 5_000): Promise<PodReply> {
    const before = this.#now;
    const reply = await this.#pod.ask({ connection, timeoutMs });
    const opened = this.#identities.slice(before, this.#now + 1);
    const allowed = (reply.wasReused ? this.#openedBy.get(connection) : undefined) ?? opened;
    this.#openedBy.set(connection, allowed);
    if (reply.identity === undefined) {
      this.refused += 1;
      assert.ok([0, 403, 503].includes(reply.status), sayReply(reply));
      return reply;
    }
    this.granted += 1;
    const whose = `round ${before}, connection ${connection}: allowed ${allowed.join(', ')}`;
    assert.ok(allowed.includes(reply.identity), `${whose}; got ${reply.identity}`);
    return reply;
  }
}

const storm: Scenario = {
  name: 'address-reuse-storm',
  title: `An address is reused ${rounds} times under load with late and reordered events: no pod gets another pod’s identity.`,
  needs: 'namespaces',
  inTour: false,
  run: async (testBed) => {
    if (!testBed.attests) return 'not guaranteed by address alone; see address-reuse-window';
    const given = Number(process.env['NMI_LAB_SEED']);
    const seed = given > 0 ? given : randomInt(1, 2 ** 31);
    testBed.log(`seed ${seed} (NMI_LAB_SEED=${seed} runs the same again)`);
    keepTokens(testBed, owners);
    const [first = ''] = owners;
    const pod = await testBed.addPod({ name: 'storm-pod-0', binding: first });
    const bystander = await testBed.addPod({ name: 'bystander', binding: first });
    await testBed.untilAgentKnows();
    const load = startSteadyLoad(bystander);
    const startMs = performance.now();
    const running = new Storm(testBed, pod, first, createRandom(seed));
    for (let round = 1; round <= rounds; round += 1) {
      await running.turn();
      if (round % calmEvery === 0) await running.calm();
    }
    await running.calm();
    const stormMs = performance.now() - startMs;
    const reports = await load.stop();
    const beside = checkLoad('bystander', reports, first);
    const loadMs = reports.reduce((sum, { elapsedMs }) => sum + elapsedMs, 0);
    assert.ok(loadMs > stormMs * 0.9, `a load of ${loadMs} ms in a storm of ${stormMs} ms`);
    const { granted, refused } = running;
    assert.ok(granted > rounds / 2, `only ${granted} tokens were given`);
    assert.ok(refused > 0, 'no event was ever late');
    assert.deepEqual(testBed.uncheckedRequests(), []);
    return `seed ${seed}: ${granted} tokens, all to their owners; ${refused} requests refused meanwhile; ${beside.granted} requests of another pod served`;
  },
};

/** Other pods with the same identities keep the tokens cached: IMDS allows 20 requests/s. */
function keepTokens(testBed: TestBed, identities: readonly string[]): void {
  for (const [index, identity] of identities.entries()) {
    testBed.bind(identity, identity);
    const ips = [`10.244.0.${240 + index}`];
    const name = `keeper-of-${identity}`;
    testBed.kube.apply(
      createPodManifest({
        name,
        nodeName,
        ips,
        binding: identity,
        hostIp: testBed.environment.nodeIp,
      }),
    );
  }
}

const lagsMs = [0, 300, 3_000];
const newsMs = 10_000;
/** Longer than the agent waits before it reads a pod that may have moved. */
const silenceMs = 20_000;
/** Allowed delay by the agent and this machine, in addition to the lag. */
const slackMs = 1_000;
const staleLimitMs = 10_000;
/** A permission decision is not checked again within a second. */
const rightMs = 1_000;
const outageMs = staleLimitMs + rightMs + slackMs + 1_000;
const betweenMs = 100;

const window: Scenario = {
  name: 'address-reuse-window',
  title:
    'A new pod on a reused address never has the old pod’s identity: with late news and with the API away, by cgroup and by address.',
  needs: 'namespaces',
  inTour: false,
  agentFlags: [`--address-staleness-limit=${staleLimitMs}ms`],
  run: async (testBed) => {
    keepTokens(testBed, owners.slice(0, 2));
    const [one = '', two = ''] = owners;
    const first = await testBed.addPod({ name: 'window-0', binding: one });
    const known = await testBed.addPod({ name: 'known', binding: one });
    await testBed.untilAgentKnows();
    assertToken(await first.ask(), one);
    assertToken(await known.ask(), one);
    const seen: string[] = [];
    let [pod, holder, next, name] = [first, one, two, first.name];
    for (const [index, lagMs] of lagsMs.entries()) {
      testBed.kube.faults.delayEventsMs = lagMs;
      const newName = `window-${index + 1}`;
      const changed = await measure(testBed, { pod, name, newName, holder, next });
      seen.push(`${changed.afterMs} ms with events ${lagMs} ms late`);
      testBed.kube.faults.delayEventsMs = 0;
      [pod, holder, next, name] = [changed.pod, next, holder, newName];
    }
    const silent = { pod, name, newName: 'window-silent', holder, next };
    pod = await refuseInSilence(testBed, silent);
    [holder, next, name] = [next, holder, silent.newName];
    await refuseInOutage(testBed, known, { pod, name, newName: 'window-last', holder, next });
    seen.push(`a silence of ${silenceMs} ms`, `an outage of ${outageMs} ms`);
    return `none had the previous pod’s identity; each had its own after ${seen.join(', ')}`;
  },
};

interface Change {
  readonly pod: LabPod;
  readonly name: string;
  readonly newName: string;
  readonly holder: string;
  readonly next: string;
}

/**
 * @returns the next pod at the address: in another cgroup, or, without cgroups, on another link.
 */
async function changeHands(
  testBed: TestBed,
  { pod, name, newName, next }: Change,
): Promise<LabPod> {
  if (!testBed.attests) {
    await testBed.removePod(pod);
    return testBed.addPod({ name: newName, binding: next, ip: pod.ip });
  }
  const uid = randomUUID();
  testBed.environment.movePod(pod.name, uid);
  testBed.deleteObject('Pod', name);
  const manifest = { name: newName, uid, nodeName, ips: [pod.ip], binding: next };
  testBed.kube.apply(createPodManifest({ ...manifest, hostIp: testBed.environment.nodeIp }));
  return pod;
}

interface Changed {
  readonly pod: LabPod;
  /** Time from the change until the new pod had its own identity. */
  readonly afterMs: number;
}

async function measure(testBed: TestBed, change: Change): Promise<Changed> {
  const startMs = performance.now();
  const pod = await changeHands(testBed, change);
  const inherited: string[] = [];
  await eventually(async () => {
    const reply = await pod.ask();
    if (reply.identity === change.holder) inherited.push(sayReply(reply));
    assert.equal(reply.identity, change.next, sayReply(reply));
  }, newsMs);
  assert.deepEqual(inherited, [], 'the new pod had the identity of the previous one');
  return { pod, afterMs: Math.ceil(performance.now() - startMs) };
}

/** The new pod is not identified during this time. */
async function refuseFor(pod: LabPod, durationMs: number): Promise<void> {
  const says =
    /^No running pod|^Pod information for this node is stale|^This connection (comes from|has the address)/;
  const endMs = performance.now() + durationMs;
  let asked = 0;
  while (performance.now() < endMs) {
    assertRefused(await pod.ask(), { status: 503, says });
    asked += 1;
    await delay(betweenMs);
  }
  assert.ok(asked > 1, `only ${asked} requests in ${durationMs} ms`);
}

/** The API answers, but its watches deliver no events. @returns the new pod. */
async function refuseInSilence(testBed: TestBed, change: Change): Promise<LabPod> {
  testBed.kube.faults.delayEventsMs = 10 * silenceMs;
  const pod = await changeHands(testBed, change);
  await refuseFor(pod, silenceMs);
  testBed.kube.faults.delayEventsMs = 0;
  testBed.kube.cutConnections();
  await untilToken(pod, change.next);
  return pod;
}

/**
 * During an outage the new pod is not identified, and none by address for longer than the limit.
 */
async function refuseInOutage(testBed: TestBed, known: LabPod, change: Change): Promise<void> {
  testBed.kube.faults.hang = true;
  testBed.kube.cutConnections();
  const pod = await changeHands(testBed, change);
  await refuseFor(pod, outageMs);
  // Pods from before the outage are identified by cgroup for as long as it lasts.
  const before = await known.ask();
  if (testBed.attests) assertToken(before, owners[0] ?? '');
  else assertRefused(before, { status: 503, says: /^Pod information for this node is stale/ });
  testBed.kube.faults.hang = false;
  testBed.kube.cutConnections();
  await untilToken(pod, change.next);
  await untilToken(known, owners[0] ?? '');
}

export const addressStormScenarios: readonly Scenario[] = [storm, window];
