/**
 * Every redirect mode, seen from outside: how to open it, and the behavior that is specific to it.
 * And a node full of pods, each a network namespace with a cgroup.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { cgroupIdOf } from '../../../src/redirect/cgroup/cgroup-tree.ts';
import { openIptablesRedirect } from '../../../src/redirect/iptables/iptables.ts';
import type { Redirect } from '../../../src/redirect/redirect.ts';
import { defaultTarget } from '../../../src/redirect/target.ts';
import type { EbpfTestBed } from './ebpf-test-bed.ts';
import { openNamespace, type Namespace } from './namespaces.ts';

const runFile = promisify(execFile);
const { metadataIp, metadataPort, listenIp, listenPort } = defaultTarget;

export interface ModeUnderTest {
  readonly name: string;
  /** What a pod on the host network reaches: the agent, or the real service as before. */
  readonly hostNetwork: RegExp;
  /** The kernel reports who dialled. */
  readonly attests: boolean;
  /** A new instance on each call, as in another process. */
  open(testBed: EbpfTestBed): Redirect;
  /** Replaces the objects of this version by those that another version would have left. */
  age(testBed: EbpfTestBed): Promise<unknown>;
}

function byEbpf(backend: 'nft' | 'legacy'): ModeUnderTest {
  return {
    name: `ebpf, iptables ${backend} behind`,
    hostNetwork: /^agent sees 169\.254\.25\.79 attested/,
    attests: true,
    open: (testBed) =>
      testBed.redirect({
        fallback: openIptablesRedirect({
          host: testBed.node.host,
          backend,
          isBehind: true,
        }),
      }),
    // These settings contain the version of the programs: without them the programs count as
    // foreign.
    age: async (testBed) => {
      unlinkSync(join(testBed.pinFolder, 'settings'));
    },
  };
}

function byIptables(backend: 'nft' | 'legacy'): ModeUnderTest {
  return {
    name: `iptables ${backend}`,
    hostNetwork: /^cloud sees 10\.0\.0\.4/,
    attests: false,
    open: ({ node }) => openIptablesRedirect({ host: node.host, backend }),
    age: ({ node }) =>
      node.run(
        `iptables-${backend} -t nat -I nmi-metadata 1 -p tcp -d ${metadataIp} --dport ${metadataPort} ` +
          `-j DNAT --to-destination ${listenIp}:${listenPort}`,
      ),
  };
}

export const modesUnderTest: readonly ModeUnderTest[] = [
  byEbpf('nft'),
  byEbpf('legacy'),
  byIptables('nft'),
  byIptables('legacy'),
];

export interface CrowdPod {
  readonly ip: string;
  /** Of the pod. */
  readonly cgroupId: bigint;
  /** One connection by a program in the pod: the answer, or an error's name. */
  dial(kind: 'tcp4' | 'tcp6' | 'udp4'): Promise<string>;
}

export interface Crowd extends AsyncDisposable {
  readonly pods: readonly CrowdPod[];
}

const atOnce = 10;

/** @param count at most 230. */
export async function openCrowd(testBed: EbpfTestBed, count: number): Promise<Crowd> {
  await using opening = new AsyncDisposableStack();
  const spaces: Namespace[] = [];
  opening.defer(async () => {
    await inSlices(spaces, async (space) => {
      await space[Symbol.asyncDispose]();
    });
  });
  const places = Array.from({ length: count }, (_, index) => index);
  const pods = await inSlices(places, async (index) => {
    const space = await openNamespace();
    spaces.push(space);
    return connectPod(testBed, space, index);
  });
  const owned = opening.move();
  return { pods, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

async function connectPod(
  testBed: EbpfTestBed,
  space: Namespace,
  index: number,
): Promise<CrowdPod> {
  const ip = `10.244.0.${20 + index}`;
  const port = `crowd${index}`;
  await testBed.node.run(
    'ip -batch -',
    `link add ${port} type veth peer name eth0 netns ${space.name}\nlink set ${port} master br0 up\n`,
  );
  await space.run(
    'ip -batch -',
    `addr add ${ip}/24 dev eth0\nlink set eth0 up\nroute add default via 10.244.0.1\n`,
  );
  const cgroup = testBed.tree.make(`kubepods/burstable/podcrowd${index}/c1`);
  const cgroupId = cgroupIdOf(join(cgroup, '..'));
  assert.ok(cgroupId !== undefined);
  const words = [
    ...['-c', 'echo $$ > "$0/cgroup.procs" && exec "$@"', cgroup],
    ...['nsenter', `--net=/run/netns/${space.name}`, '--', testBed.dialler.path],
  ];
  const dial = async (kind: string): Promise<string> => {
    const order = [...words, kind, metadataIp, String(metadataPort)];
    const { stdout } = await runFile('sh', order, { timeout: 20_000 });
    return /(?:answer|error)=(.*)/.exec(stdout)?.[1] ?? stdout;
  };
  return { ip, cgroupId, dial };
}

/** In the order of the items, a few at a time: the machine runs other things, too. */
export async function inSlices<T, R>(
  items: readonly T[],
  work: (item: T) => Promise<R>,
): Promise<readonly R[]> {
  const results: R[] = [];
  for (let at = 0; at < items.length; at += atOnce) {
    results.push(...(await Promise.all(items.slice(at, at + atOnce).map(work))));
  }
  return results;
}
