/** How each kind of action is done to a world. */
import type { AgentPod, Container } from './agent-pod.ts';
import { rightsLimitMs, roles } from './agent-pod.ts';
import { identities } from './cloud.ts';
import { longestMs } from './limits.ts';
import type { Node } from './node.ts';
import type { Action, Kind } from './plan.ts';
import type { Workload } from './workload.ts';
import type { World } from './world.ts';

interface Scene {
  readonly world: World;
  readonly workload: Workload;
  readonly action: Action;
  readonly node: Node;
  /** How long it lasts. */
  readonly forMs: number;
}

type Act = (scene: Scene) => void;

const longestFaultMs = 8_000;
/** An agent that has never synced waits 80 to 100 s for the first byte. */
const longestSilenceMs = 105_000;

export function act(world: World, workload: Workload, action: Action): void {
  const node = pickOf(world.nodes, action.which);
  const forMs = 200 + Math.round(action.size * longestFaultMs);
  world.tell(`[${action.number}] ${action.kind}`);
  const pair = `${action.kind} × ${stateOf(node)}`;
  world.pairs.set(pair, (world.pairs.get(pair) ?? 0) + 1);
  acts[action.kind]({ world, workload, action, node, forMs });
}

/** The state of the parts that a fault meets. */
export const states = ['starting', 'not ready', 'serving', 'two agents', 'other fault'] as const;

function stateOf(node: Node): (typeof states)[number] {
  if (node.agents.size > 1) return 'two agents';
  const [agent] = node.agents;
  if (agent === undefined || agent.containers.agent.process === undefined) return 'starting';
  if (!agent.isReady) return 'not ready';
  return node.world.faultUntilMs > node.world.nowMs ? 'other fault' : 'serving';
}

function pickOf<T>(from: readonly T[], which: number): T {
  const picked = from[Math.floor(which * 997) % from.length];
  if (picked === undefined) throw new RangeError('nothing to pick from');
  return picked;
}

function podOf({ node, action }: Scene): AgentPod | undefined {
  return node.agents.size === 0 ? undefined : pickOf([...node.agents], action.size);
}

function containerOf(scene: Scene): Container | undefined {
  return podOf(scene)?.containers[pickOf(roles, scene.action.size)];
}

const api =
  (begin: (scene: Scene) => void, end?: (scene: Scene) => void): Act =>
  (scene) => {
    const { world, forMs } = scene;
    world.disturb(`the API server: for ${forMs} ms`, end === undefined ? 0 : forMs);
    world.cloud.within(() => begin(scene));
    if (end !== undefined)
      world.after(forMs, 'api recovers', () => world.cloud.within(() => end(scene)));
  };

const imds =
  (faults: (scene: Scene) => Parameters<World['cloud']['imds']['setFaults']>[0]): Act =>
  (scene) => {
    const { world, forMs } = scene;
    world.disturb(`the metadata service: for ${forMs} ms`, forMs);
    world.cloud.within(() => void world.cloud.imds.setFaults(faults(scene)));
    world.after(forMs, 'imds recovers', () => {
      world.cloud.within(() => void world.cloud.imds.setFaults({}));
    });
  };

const watched = ['azureidentities', 'azureidentitybindings', 'azureidentitygrants', 'pods'];
const namespaceOf = ({ which }: Action): 'one' | 'two' => ((which * 7) % 1 < 0.5 ? 'one' : 'two');
const labelOf = ({ size }: Action): 'web' | 'job' => ((size * 7) % 1 < 0.5 ? 'web' : 'job');

const acts: Readonly<Record<Kind, Act>> = {
  update: ({ node, world }) => {
    world.disturb(`${node.name} is updated`);
    void node.update();
  },
  undo: ({ node, world, forMs }) => {
    if (node.isFull) return;
    const next = node.startAgent();
    world.disturb('an update is undone', forMs);
    world.after(forMs, 'undo', () => node.stopAgent(next));
    world.after(forMs, 'undo', () => {
      if (node.agents.size === 0) node.startAgent();
    });
  },
  killPod: (scene) => {
    const pod = podOf(scene);
    if (pod === undefined) return;
    scene.world.disturb(`${pod.name} is killed, and another one starts`);
    scene.node.agents.delete(pod);
    scene.node.broken();
    pod.kill();
    scene.node.startAgent();
  },
  conditionsUpdated: ({ world, forMs }) => {
    world.tell(`two processes write conditions for ${2 * forMs} ms`);
    world.conditions.update(2 * forMs);
  },
  reboot: ({ node }) => node.reboot(),
  drain: ({ node, workload, world }) => {
    world.disturb(`${node.name} is drained`);
    const other = world.nodes.find((each) => each !== node) ?? node;
    for (const client of [...node.clients]) {
      workload.removePod(client, 200);
      workload.addPod(other);
    }
  },
  term: (scene) => {
    scene.world.disturb('SIGTERM of a container');
    scene.node.broken();
    containerOf(scene)?.terminate();
  },
  kill: (scene) => {
    const container = containerOf(scene);
    scene.world.disturb(`SIGKILL of ${container?.name ?? 'nothing'}`);
    scene.node.broken();
    container?.process?.end();
  },
  freeze: (scene) => {
    const container = containerOf(scene);
    const forMs = 200 + scene.action.size * (longestMs.freeze - 200);
    scene.world.disturb(
      `${container?.name ?? 'nothing'} stands still for ${Math.round(forMs)} ms`,
      forMs,
    );
    container?.freeze(forMs);
  },
  drift: ({ node, world }) => {
    world.disturb(`the programs of ${node.name} are changed`, 11_000);
    if (node.kernel.isRedirected) node.kernel.drift = 'another program is attached';
  },
  kernelRefuses: ({ node, world, action }) => {
    world.disturb(`the kernel of ${node.name} refuses`, 11_000);
    node.kernel.refusals += 1 + Math.floor(action.size * 3);
    if (node.kernel.isRedirected) node.kernel.drift = 'another program is attached';
  },
  recordsFull: ({ node, world, forMs }) => {
    world.disturb(`the map of records of ${node.name} is full for ${forMs} ms`, forMs);
    node.kernel.isFull = true;
    world.after(forMs, 'room', () => (node.kernel.isFull = false));
  },
  closeWatches: api(({ world }) => world.cloud.kube.closeWatches()),
  expireVersions: api(({ world, action }) => {
    world.cloud.kube.faults.goneByStatus = action.size < 0.5;
    world.cloud.kube.compact();
    world.cloud.kube.closeWatches();
  }),
  silentWatches: (scene) => {
    const { world, forMs } = scene;
    // By itself, an agent that has never synced waits 80 to 100 s for the first byte.
    world.disturb(`watches are silent, for ${8 * forMs} ms`, 8 * forMs);
    world.cloud.within(() => world.cloud.kube.goSilent());
    world.after(8 * forMs, 'silence ends', () => {
      world.cloud.within(() => world.cloud.kube.cutConnections());
    });
  },
  cutConnections: api(({ world }) => world.cloud.kube.cutConnections()),
  slowEvents: api(
    ({ world, action }) => (world.cloud.kube.faults.delayEventsMs = action.which * longestMs.event),
    ({ world }) => (world.cloud.kube.faults.delayEventsMs = 0),
  ),
  reorderedKinds: api(
    ({ world, action }) => {
      for (const [index, plural] of watched.entries()) {
        const share = (action.which * (index + 3) * 7) % 1;
        world.cloud.kube.faults.delayKindsMs.set(plural, share * longestMs.event);
      }
    },
    ({ world }) => world.cloud.kube.faults.delayKindsMs.clear(),
  ),
  serverBehind: api(
    ({ world, action }) => {
      world.cloud.kube.faults.memoryLagMs = Math.max(100, action.which * longestMs.memory);
      world.cloud.kube.cutConnections();
    },
    ({ world }) => (world.cloud.kube.faults.memoryLagMs = 0),
  ),
  restored: ({ world, workload, forMs }) => {
    // A second backup would skip the versions by which an agent notices the first one.
    if (workload.hasBackUp) return;
    // It does when its rights are old, and lists again.
    world.disturb(`the API server is restored after ${forMs} ms`, forMs + rightsLimitMs);
    world.after(forMs, 'restored', workload.backUp());
  },
  apiHangs: api(
    ({ world }) => (world.cloud.kube.faults.hang = true),
    ({ world }) => {
      world.cloud.kube.faults.hang = false;
      world.cloud.kube.cutConnections();
    },
  ),
  apiFails: api(({ world, action }) => {
    world.cloud.kube.faults.failNext(
      1 + Math.floor(action.which * 10),
      action.size < 0.5 ? 500 : 429,
    );
    world.cloud.kube.closeWatches();
  }),
  apiForbids: api(({ world, action }) => {
    const path = pickOf(watched, action.which);
    const { faults } = world.cloud.kube;
    const status = (action.which * 7) % 1 < 0.5 ? 404 : 403;
    // A server that starts: the versions from before are too old, and the list is refused.
    const isNew = (action.size * 7) % 1 < 0.5;
    const [watch, list] = path === 'pods' ? [path, path] : [`${path}?watch`, `${path}?limit`];
    if (isNew) faults.failNext(world.nodes.length, 410, { containing: watch });
    const containing = isNew ? list : path;
    faults.failNext(1 + Math.floor(action.size * 3), status, { containing });
    world.cloud.kube.closeWatches();
  }),
  imdsFails: imds(({ action }) => ({ fail: { status: action.size < 0.5 ? 500 : 404 } })),
  imdsThrottles: imds(() => ({ fail: { status: 429, retryAfterSec: 2 } })),
  imdsHangs: imds(() => ({ hang: true })),
  imdsClosed: imds(() => ({ closed: true })),
  imdsSlow: imds(({ action }) => ({ delayMs: 100 + action.size * 5_000 })),
  imdsForgets: ({ world, action, forMs }) => {
    const identity = pickOf(identities, action.which);
    // A refusal is kept for up to a minute.
    world.disturb(`identity ${identity.name} is unassigned for ${forMs} ms`, forMs + 60_000);
    world.cloud.imds.unassign(identity.clientId);
    world.after(forMs, 'assign', () => world.cloud.imds.assign(identity));
  },
  cutNode: ({ node, world, forMs }) => {
    world.disturb(`${node.name} is cut off for ${forMs} ms`, forMs);
    world.network.cutUntilMs.set(node.machine, world.nowMs + forMs);
  },
  lateBytes: ({ node, world, forMs }) => {
    world.disturb(`packets of ${node.name} are late for ${forMs} ms`, forMs);
    world.network.lateUntilMs.set(node.machine, world.nowMs + forMs);
  },
  lostBytes: ({ node, world }) => {
    world.disturb(`open connections of ${node.name} lose all bytes`, longestSilenceMs);
    world.network.lostMs.set(node.machine, world.nowMs);
  },
  clockJumps: ({ node, world, action }) => {
    node.hadWrongClock = true;
    node.aheadMs = pickOf([-3_600_000, -90_000, 0, 90_000, 3_600_000, 72_000_000], action.size);
    world.disturb(`the clock of ${node.name} is wrong by ${node.aheadMs / 1_000} s`);
  },
  podAdded: ({ workload, node }) => void workload.addPod(node),
  podRemoved: ({ workload, node, forMs }) => {
    if (node.clients.size > 1) workload.removePod(pickOf([...node.clients], 0.3), forMs);
  },
  podReplaced: ({ workload, node, forMs, action }) => {
    if (node.clients.size === 0) return;
    workload.removePod(pickOf([...node.clients], action.size), forMs / 4);
    workload.addPod(node, 1_500);
  },
  podRelabelled: ({ workload, node, action }) => {
    if (node.clients.size === 0) return;
    workload.relabelPod(pickOf([...node.clients], action.size), labelOf(action));
  },
  bindingDeleted: ({ workload, action }) =>
    workload.deleteBinding(namespaceOf(action), labelOf(action)),
  bindingRestored: ({ workload, action }) =>
    workload.setBinding(namespaceOf(action), labelOf(action)),
  identityChanged: ({ workload, action }) => {
    const { name } = pickOf(identities, action.size);
    workload.setIdentity(namespaceOf(action), labelOf(action), name);
  },
  grantDeleted: ({ workload, action }) => workload.deleteGrant(namespaceOf(action)),
  grantRestored: ({ workload, action }) => {
    workload.setGrant(namespaceOf(action), action.size < 0.5 ? ['a', 'b', 'c', 'd'] : ['a', 'c']);
  },
  exceptionWritten: ({ workload, action }) =>
    workload.setException(namespaceOf(action), labelOf(action)),
  exceptionDeleted: ({ workload, action }) => {
    if (action.which < 0.5) workload.deleteGrant(`${namespaceOf(action)}-node`);
    else workload.deleteException(namespaceOf(action), labelOf(action));
  },
  hostileObject: ({ workload, action }) => workload.writeHostile(action.size),
  flood: ({ node, action }) => {
    if (node.clients.size > 0)
      pickOf([...node.clients], action.which).flood(20 + Math.floor(action.size * 80));
  },
  rudeRequests: ({ node, action }) => {
    for (const client of node.clients) client.misbehave(pickOf(identities, action.which).clientId);
  },
  steal: ({ node, action }) => {
    for (const client of node.clients) client.steal(pickOf(identities, action.which).clientId);
  },
};
