import { writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import type { Figure } from '../core/results.ts';
import { CountingProxy } from '../fixture/counting-proxy.ts';
import {
  FleetApi,
  kubeconfigOf,
  openFakeServer,
  openRealServer,
  type FleetServer,
} from '../fixture/fleet-servers.ts';
import {
  fleetBinding,
  fleetPath,
  fleetPod,
  fleetStatus,
  podStatus,
  type FleetSize,
} from '../fixture/fleet-objects.ts';
import { buildGo } from '../fixture/go.ts';
import { start, stop } from '../machine/child.ts';
import { onCore } from '../machine/cores.ts';
import { cpuMsOf } from '../machine/cpu-time.ts';
import type { Context, Scenario } from './scenario.ts';
import { bytesPerDay, levels, relayGain, type Prices } from './fleet-days.ts';

const bindingsPath = fleetPath('azureidentitybindings');
const identitiesPath = fleetPath('azureidentities');
const podsPath = fleetPath('pods');
const ours = join(import.meta.dirname, '../programs/fleet-agents.ts');
const uncompressed = '--feature-gates=APIResponseCompression=false,WatchListCompression=false';
/** Changes of each kind whose bytes are counted. */
const changes = 20;
const markMs = 300_000;
let turns = 0;
/** What is written, written again by another fleet of the server, would be no change. */
const turn = (): number => (turns += 1);

interface Plan {
  readonly name: string;
  readonly isGo?: boolean;
  /** Whether the bytes of a day are measured, too. */
  readonly hasDays?: boolean;
}

interface Server {
  readonly isReal: boolean;
  readonly flags?: readonly string[];
  /** One after the other. */
  readonly plans: readonly Plan[];
}

const servers: readonly Server[] = [
  { isReal: false, plans: [{ name: 'fake server' }] },
  {
    isReal: true,
    plans: [
      { name: 'agent', hasDays: true },
      { name: 'client-go', isGo: true, hasDays: true },
    ],
  },
  { isReal: true, flags: [uncompressed], plans: [{ name: 'agent, uncompressed' }] },
];

export const fleet: Scenario = {
  name: 'fleet',
  title: 'What the agents of a large cluster cost the API server',
  isQuick: false,
  isExtra: true,
  run: async (context) => {
    const figures: Figure[] = [];
    const notes: string[] = [];
    const { isQuick } = context.options;
    for (const { isReal, flags = [], plans } of servers) {
      await using stack = new AsyncDisposableStack();
      const size = sizeOf(isReal, isQuick);
      const server = isReal
        ? await openRealServer(size, flags, stack)
        : await openFakeServer(size, stack);
      for (const plan of plans) {
        const found = await measure(plan, { server, size }, context);
        if (typeof found === 'string') notes.push(`Left out, ${plan.name}: ${found}.`);
        else figures.push(...found);
      }
    }
    return { figures, notes: [...notes, method(context)] };
  },
};

function sizeOf(isReal: boolean, isQuick: boolean): FleetSize {
  const objects = { identities: 200, bindings: 400 };
  if (isQuick) return { nodes: isReal ? 20 : 50, podsPerNode: 10, ...objects };
  return { nodes: isReal ? 200 : 1_000, podsPerNode: isReal ? 30 : 10, ...objects };
}

/**
 * A server sends a bookmark a minute after the last one, so this time has one of each watch if it begins in the
 * middle between two.
 */
function idleOf(isQuick: boolean) {
  return isQuick ? { settleMs: 0, idleMs: 15_000 } : { settleMs: 25_000, idleMs: 61_000 };
}

function method({ options: { isQuick } }: Context): string {
  const [real, fake] = [sizeOf(true, isQuick), sizeOf(false, isQuick)];
  const churn = levels.map(
    ({ name, pods, objects }) =>
      `${name}: ${pods} pods a node and ${objects} objects a cluster a day`,
  );
  return (
    `The watches of ${real.nodes} nodes in one process on a real kube-apiserver of the newest version, with ` +
    `${real.podsPerNode} pods on each, ${real.identities} identities and ${real.bindings} bindings; ` +
    `${fake.nodes} nodes on the fake one. A proxy counts bytes of both directions, TLS included. Bytes a day ` +
    `are those of ${idleOf(isQuick).idleMs / 1000} s without a change, of reopening watches, and of the ` +
    `measured prices at a level of churn: ${churn.join('; ')}. Each changed object gets a status, which is ` +
    'one more event. etcd reports its progress every 5 s, as kubeadm sets it up: without that, a watch of a ' +
    'kind that does not change gets no bookmarks, and each agent looks after some 90 s whether it is alive. ' +
    'client-go: informers with its defaults, pods as protobuf, in Go.'
  );
}

type Record = (what: string, unit: string, value: number | undefined) => void;

interface Measured {
  readonly server: FleetServer;
  readonly agents: Fleet;
  readonly size: FleetSize;
  readonly record: Record;
}

async function measure(
  { name, isGo = false, hasDays = false }: Plan,
  { server, size }: Pick<Measured, 'server' | 'size'>,
  { options: { isQuick }, say }: Context,
): Promise<readonly Figure[] | string> {
  await using stack = new AsyncDisposableStack();
  const program = isGo ? buildGo('client-go') : undefined;
  if (isGo && program === undefined) return 'Go or its modules are not installed';
  say(`${name}: ${size.nodes} nodes`);
  const figures: Figure[] = [];
  const record: Record = (what, unit, value) => {
    if (value === undefined || Number.isNaN(value)) return;
    figures.push({ name: `${name}: ${what}`, unit, values: [value] });
    say(`${what}: ${value.toPrecision(4)} ${unit}`);
  };
  const agents = await openFleet(server, program, [`${size.nodes}`], stack);
  const measured = { server, agents, size, record };
  recordStart(measured);
  const reopens = 5 * (86_400 / (isGo ? 450 : 360));
  if (hasDays) await recordDays(measured, idleOf(isQuick), reopens);
  record('events of all nodes in a burst', '/s', size.nodes * (await measureBurst(agents, size)));
  await recordRestart(measured);
  return figures;
}

function recordStart({ agents, size: { nodes }, record }: Measured): void {
  const { connections, openings, bytes } = agents.proxy.traffic;
  record('connections of a node', '', connections / nodes);
  record('connections opened by a node at its start', '', openings / nodes);
  record('first lists of a node', 'kB', bytes / nodes / 1_000);
  record(`all ${nodes} nodes synced`, 's', agents.startMs / 1_000);
  record('processor of the server for the first lists of a node', 'ms', div(agents.cpuMs, nodes));
}

async function recordDays(
  { server, agents, size, record }: Measured,
  { settleMs, idleMs }: ReturnType<typeof idleOf>,
  reopens: number,
): Promise<void> {
  const { nodes } = size;
  const { proxy, pid } = agents;
  // Watches that continue are not compressed.
  record(
    'bytes of a node after a cut of its connections',
    'kB',
    (await resume(agents)) / nodes / 1_000,
  );

  await delay(settleMs);
  const before = proxy.traffic;
  const cpuBefore = cpuMsOf([pid]) ?? NaN;
  await delay(idleMs);
  const cpuMs = (cpuMsOf([pid]) ?? NaN) - cpuBefore;
  const perDay = 86_400_000 / idleMs / nodes;
  const idleBytes = (proxy.traffic.bytes - before.bytes) * perDay;
  record('bytes of a node without a change', 'MB/day', idleBytes / 1e6);
  const openings = (proxy.traffic.openings - before.openings) * perDay;
  record('connections opened by a node without a change', '/day', openings);
  record('processor of a node without a change', 'ms/s', (cpuMs / nodes / idleMs) * 1_000);

  const prices = await measurePrices(server, agents, size);
  record('life of a pod, for its node', 'kB', prices.podBytes / 1_000);
  record('change of a binding, for each node', 'kB', prices.changeBytes / 1_000);
  record('status of a binding, for each node', 'kB', prices.statusBytes / 1_000);
  record('reopening of a watch', 'kB', prices.reopenBytes / 1_000);
  const day = { idleBytes, reopens, ...prices };
  for (const level of levels) {
    const events = (5_000 * (6 * level.pods + 2 * level.objects)) / 86_400;
    record(`bytes of a node, ${level.name}`, 'MB/day', bytesPerDay(level, day) / 1e6);
    record(`events for 5,000 nodes, ${level.name}`, '/s', events);
    record(`bytes with a relay for 200 nodes, ${level.name}`, '×', 1 / relayGain(level, day));
  }
}

async function recordRestart({ server, agents, size: { nodes }, record }: Measured): Promise<void> {
  const restarted = await restart(server, agents);
  const cpuMs = div(restarted.cpuMs, nodes);
  record('every node has listed the bindings after a restart with 410', 's', restarted.seconds);
  record('bytes of a node until then', 'kB', restarted.bytes / nodes / 1_000);
  record('connections opened by a node until then', '', restarted.openings / nodes);
  record('processor of the server until then, for a node', 'ms', cpuMs);
  record('the same for 5,000 nodes', 's', div(cpuMs, 1 / 5));
}

function div(value: number | undefined, by: number): number | undefined {
  return value === undefined ? undefined : value / by;
}

interface Fleet {
  readonly api: FleetApi;
  readonly proxy: CountingProxy;
  readonly pid: number;
  readonly startMs: number;
  readonly cpuMs: number | undefined;
  /** Creates a binding; resolves when every node has seen it. */
  readonly mark: () => Promise<void>;
}

async function openFleet(
  server: FleetServer,
  program: string | undefined,
  words: readonly string[],
  stack: AsyncDisposableStack,
): Promise<Fleet> {
  const proxy = stack.use(new CountingProxy(server.access.url));
  await proxy.start();
  const api = stack.use(new FleetApi(server.access));
  const file = join(tmpdir(), `fleet-${process.pid}-${performance.now()}`);
  await writeFile(file, kubeconfigOf(server.access, proxy.url), { mode: 0o600 });
  const command =
    program === undefined ? ([process.execPath, ours] as const) : ([program] as const);
  const cpuBefore = server.cpuMs();
  const startedMs = performance.now();
  const child = start(onCore('server', [...command, file, ...words]), {
    // client-go logs every cut.
    stdio: ['ignore', 'pipe', program === undefined ? 'inherit' : 'ignore'],
  });
  stack.defer(() => stop(child));
  const { stdout, pid } = child;
  if (stdout === null || pid === undefined) throw new TypeError('it has no output');
  const waits = new Map<string, () => void>();
  const lines = createInterface({ input: stdout });
  lines.on('line', (line) => waits.get(line)?.());
  const line = async (text: string): Promise<void> => {
    const { promise, resolve, reject } = Promise.withResolvers<undefined>();
    waits.set(text, () => resolve(undefined));
    lines.once('close', () => reject(new Error('the agents have ended')));
    const late = setTimeout(() => reject(new Error(`no "${text}" in time`)), markMs);
    await promise.finally(() => clearTimeout(late));
  };
  await line('ready');
  const startMs = performance.now() - startedMs;
  const cpuAfter = server.cpuMs();
  return {
    api,
    proxy,
    pid,
    startMs,
    cpuMs: cpuBefore === undefined || cpuAfter === undefined ? undefined : cpuAfter - cpuBefore,
    async mark() {
      const name = `marker-${turn()}`;
      await Promise.all([line(`seen ${name}`), api.call('POST', bindingsPath, fleetBinding(name))]);
    },
  };
}

async function measurePrices(
  server: FleetServer,
  { api, proxy, mark }: Fleet,
  { nodes, bindings }: FleetSize,
): Promise<Prices> {
  /** Of all nodes, with those of a mark. */
  const bytesOf = async (work: (index: number) => Promise<unknown>): Promise<number> => {
    // What came before has arrived.
    await delay(500);
    const before = proxy.traffic.bytes;
    for (let index = 0; index < changes; index += 1) await work(index);
    await mark();
    await delay(500);
    return proxy.traffic.bytes - before;
  };
  const pathOf = (index: number): string => `${bindingsPath}/team-${index % bindings}`;
  const markBytes = await bytesOf(() => Promise.resolve());
  const priceOf = async (work: (index: number) => Promise<unknown>): Promise<number> =>
    ((await bytesOf(work)) - markBytes) / changes;
  const annotated = () => ({ metadata: { annotations: { changed: `${turn()}` } } });
  // First: an object that is changed usually has one.
  const status = await priceOf((index) =>
    api.call('PATCH', `${pathOf(index)}/status`, { status: fleetStatus(turn()) }),
  );
  const changed = await priceOf((index) => api.call('PATCH', pathOf(index), annotated()));
  return {
    changeBytes: changed / nodes,
    statusBytes: status / nodes,
    podBytes: await priceOf((index) => livePod(api, `short-${index}`, `node-${index % nodes}`)),
    reopenBytes: await priceOfReopening(server),
  };
}

async function livePod(api: FleetApi, name: string, node: string): Promise<void> {
  const path = `${podsPath}/${name}`;
  const report = (phase: Parameters<typeof podStatus>[0]) =>
    api.call('PATCH', `${path}/status`, { status: podStatus(phase) });
  await api.call('POST', podsPath, fleetPod(name, node));
  await report('Pending');
  await report('Running');
  await api.call('DELETE', path);
  // The fake server has no grace period.
  const isLeft = await api.call('GET', path).then(
    () => true,
    () => false,
  );
  if (!isLeft) return;
  await report('Succeeded');
  await api.call('DELETE', `${path}?gracePeriodSeconds=0`);
}

/** Of a watch that the server ended, on the connection that it leaves. */
async function priceOfReopening({ access }: FleetServer): Promise<number> {
  await using proxy = new CountingProxy(access.url);
  await proxy.start();
  await using api = new FleetApi({ ...access, url: proxy.url });
  const list = JSON.parse(await api.call('GET', `${identitiesPath}?limit=1`)) as {
    readonly metadata: { readonly resourceVersion: string };
  };
  const from = `resourceVersion=${list.metadata.resourceVersion}`;
  const path = `${identitiesPath}?watch=true&allowWatchBookmarks=true&timeoutSeconds=1&${from}`;
  await api.call('GET', path);
  const before = proxy.traffic.bytes;
  await api.call('GET', path);
  return proxy.traffic.bytes - before;
}

/** Of bindings: a mark is one, so it comes after all others. */
async function measureBurst({ api, mark }: Fleet, { bindings }: FleetSize): Promise<number> {
  const startMs = performance.now();
  await Promise.all(
    Array.from({ length: bindings }, (_, index) => {
      const patch = { metadata: { annotations: { burst: `${turn()}` } } };
      return api.call('PATCH', `${bindingsPath}/team-${index}`, patch);
    }),
  );
  await mark();
  return (bindings * 1_000) / (performance.now() - startMs);
}

/** Resolves with the bytes of all nodes. */
async function resume({ proxy, mark }: Fleet): Promise<number> {
  // client-go lists again if a watch ends in its first second.
  await delay(3_000);
  const before = proxy.traffic.bytes;
  await proxy.stop();
  await proxy.start();
  await mark();
  // The watches other than that of the bindings.
  await delay(5_000);
  return proxy.traffic.bytes - before;
}

async function restart(server: FleetServer, { api, proxy, mark }: Fleet) {
  await proxy.stop();
  // Every version is older than this one.
  await api.call('POST', bindingsPath, fleetBinding(`before-${turn()}`));
  await server.forget();
  const before = proxy.traffic;
  const cpuBefore = server.cpuMs();
  await proxy.start();
  const startMs = performance.now();
  await mark();
  const seconds = (performance.now() - startMs) / 1_000;
  const cpuAfter = server.cpuMs();
  const { bytes, openings } = proxy.traffic;
  return {
    seconds,
    bytes: bytes - before.bytes,
    openings: openings - before.openings,
    cpuMs: cpuBefore === undefined || cpuAfter === undefined ? undefined : cpuAfter - cpuBefore,
  };
}
