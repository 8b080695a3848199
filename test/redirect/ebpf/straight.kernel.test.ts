/** Excepted pods on their way straight to the real endpoint, and everybody else on theirs. */
import assert from 'node:assert/strict';
import { readdirSync, unlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { eventually } from '../../../lab/world/eventually.ts';
import { cgroupIdOf } from '../../../src/redirect/cgroup/cgroup-tree.ts';
import { installPrograms } from '../../../src/redirect/ebpf/programs.ts';
import { settingsOf } from '../../../src/redirect/ebpf/settings.ts';
import type { EbpfRedirect, EbpfRedirectOptions } from '../../../src/redirect/ebpf/ebpf.ts';
import { openIptablesRedirect } from '../../../src/redirect/iptables/iptables.ts';
import { readPrograms } from '../../../src/redirect/native/native-files.ts';
import { findStraightWay } from '../../../src/redirect/ebpf/straight-way.ts';
import { DEFAULT_TARGET } from '../../../src/redirect/target.ts';
import { whyNoBpfTests } from '../cgroup-ground.ts';
import { EbpfWorld, type Client } from '../ebpf-world.ts';
import { sweepDeadNamespaces, whyNoKernelTests } from '../namespaces.ts';

const skip =
  (await whyNoKernelTests('iptables-nft-save', 'iptables-legacy-save', 'conntrack')) ||
  whyNoBpfTests();
if (skip === false) await sweepDeadNamespaces();

const { metadataIp, listenIp, listenPort } = DEFAULT_TARGET;
const dial = `dial ${metadataIp} 80`;
const keep = `keep ${metadataIp} 80`;
const straight = /^cloud sees 10\.244\.0\.5 through \d+ to 169\.254\.169\.254:80$/;

function idOf(path: string): bigint {
  const id = cgroupIdOf(path);
  assert.ok(id !== undefined);
  return id;
}

const portOf = (answer: string): number => Number(/ through (\d+) /.exec(answer)?.[1]);

describe('an excepted pod that may go straight', { skip }, () => {
  let world: EbpfWorld;
  /** On pod a's network. */
  let excepted: Client;
  let exceptedId: bigint;
  /** On pod b's network. */
  let other: Client;
  /** On the node's. */
  let host: Client;
  let outsider: Client;
  let redirect: EbpfRedirect;
  let bridgeMac = '';

  const open = (backend: 'nft' | 'legacy', more: Partial<EbpfRedirectOptions> = {}) =>
    world.redirect({
      exceptedPods: 'direct',
      behind: openIptablesRedirect({
        ...{ host: world.node.host, backend },
        straightWay: () => findStraightWay(world.pinFolder),
      }),
      ...more,
    });

  before(async () => {
    world = await EbpfWorld.open();
    await world.startCloud();
    excepted = world.client(world.podA, 'podexcepted/c1/nested');
    exceptedId = idOf(dirname(dirname(excepted.cgroup)));
    other = world.client(world.podB, 'podother/c1');
    host = world.client(world.node, 'podhost/c1');
    outsider = world.client(world.podA, '/system/kubelet');
    await open('nft').prepare();
    await world.startAgent();
    // Tracking is what NAT goes by, and only some rule turns it on for connections of the node.
    await world.node.run('iptables-nft -A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT');
    const links = JSON.parse(await world.node.run('ip -j link show br0')) as readonly {
      readonly address: string;
    }[];
    bridgeMac = links[0]?.address ?? '';
  });
  after(() => world.close());
  beforeEach(async () => {
    await open('nft').remove();
    redirect = open('nft');
    await redirect.prepare();
    const status = await redirect.install();
    assert.deepEqual(status.problems, []);
    assert.match(status.detail, /excepted pods go straight/);
    assert.deepEqual(await redirect.letStraight([exceptedId]), { kind: 'straight' });
  });

  const forge = (ip: string, port: number) =>
    other.tell(`run ${world.dialler.path} forge eth0 ${ip} ${port} ${bridgeMac} ${metadataIp} 80`);

  /** The node sends the excepted pod's packets to the other one meanwhile. */
  async function whileStolen<T>(work: () => Promise<T>): Promise<T> {
    const neighbour = '10.244.0.5 lladdr 02:00:00:00:00:00 dev br0 nud permanent';
    await world.node.run(`ip neigh replace ${neighbour}`);
    try {
      return await work();
    } finally {
      await world.node.run('ip neigh del 10.244.0.5 dev br0');
    }
  }

  it('reaches the real endpoint, which sees the pod itself; others reach the agent', async () => {
    assert.match(await excepted.tell(dial), straight);
    assert.match(await other.tell(dial), /^agent sees 10\.244\.0\.6 attested/);
    assert.match(await host.tell(dial), /^agent sees \S+ attested/);
    assert.match(await outsider.tell(dial), /^agent sees 10\.244\.0\.5 unattested/);
    assert.match(await excepted.tell(dial), straight);
    assert.deepEqual((await redirect.verify()).problems, []);
    const counters = redirect.counters();
    assert.ok(counters !== undefined && counters.straight >= 2n, String(counters?.straight));
  });

  for (const kind of ['tcp4', 'tcp6', 'mptcp4', 'mptcp6', 'fastopen4', 'fastopen6']) {
    it(`does so by ${kind}`, async () => {
      const answer = await excepted.tell(`run ${world.dialler.path} ${kind} ${metadataIp} 80`);
      assert.match(answer, /cloud sees 10\.244\.0\.5/);
    });
  }

  it('does so on the host network, until it may not', async () => {
    const hostPod = idOf(dirname(host.cgroup));
    await redirect.letStraight([exceptedId, hostPod]);
    assert.match(await host.tell(dial), /^cloud sees/);
    assert.deepEqual(await redirect.letStraight([exceptedId]), { kind: 'straight' });
    assert.match(await host.tell(dial), /^agent sees \S+ attested/);
  });

  it('leaves no record behind and closes as others do', async () => {
    assert.match(await excepted.tell(keep), straight);
    assert.equal(findStraightWay(world.pinFolder)?.clients().length, 1);
    assert.equal(await excepted.tell('drop'), 'dropped');
    // The record goes when the other side has closed, too.
    await eventually(() => {
      assert.deepEqual(findStraightWay(world.pinFolder)?.clients(), []);
    });
    // The last words of a closing socket arrive: the other side is not left with half a connection.
    await eventually(async () => {
      const left = await world.cloud.run('ss -Htn state connected sport = :80');
      assert.equal(left, '');
    });
  });

  it('gives nothing to who forges its address', async () => {
    await whileStolen(async () => {
      assert.match(
        await forge('10.244.0.5', 41_001),
        /^answer=agent sees 10\.244\.0\.5 unattested/,
      );
    });
  });

  it('gives nothing to who forges an open connection’s port, or one just closed', async () => {
    const kept = portOf(await excepted.tell(keep));
    const closed = portOf(await excepted.tell(dial));
    for (const port of [kept, closed]) {
      const answer = await whileStolen(() => forge('10.244.0.5', port));
      assert.doesNotMatch(answer, /cloud/, answer);
    }
    assert.match(await excepted.tell('ask'), /^cloud sees/);
    await excepted.tell('drop');
  });

  it('gives nothing to who forges the port of one that it left open when the other side closed', async () => {
    // The other side's end is gone for good when it has waited so long.
    await world.cloud.run('tee /proc/sys/net/ipv4/tcp_fin_timeout', '1');
    const left = await excepted.tell(`cling ${metadataIp} 80`);
    assert.match(left, /^left alone /);
    await eventually(async () => {
      assert.equal(await world.cloud.run('ss -Htn state connected sport = :80'), '');
    });
    const answer = await whileStolen(() => forge('10.244.0.5', portOf(left)));
    assert.doesNotMatch(answer, /cloud/, answer);
    assert.equal(await excepted.tell('drop'), 'dropped');
  });

  it('gives nothing to who forges a mark', async () => {
    const rule = 'PREROUTING -j MARK --set-xmark 0x40/0x40';
    await world.node.run(`iptables-nft -t mangle -A ${rule}`);
    const answer = await whileStolen(() => forge('10.244.0.5', 41_002));
    assert.match(answer, /^answer=agent sees 10\.244\.0\.5 unattested/);
    assert.match(await outsider.tell(dial), /^agent sees 10\.244\.0\.5 unattested/);
    await world.node.run(`iptables-nft -t mangle -D ${rule}`);
  });

  it('is stopped when its exception is gone, and its connections are cut', async () => {
    const second = world.client(world.podA, 'podsecond/c1');
    const secondId = idOf(dirname(second.cgroup));
    await redirect.letStraight([exceptedId, secondId]);
    assert.match(await excepted.tell(keep), straight);
    assert.match(await second.tell(keep), straight);
    assert.deepEqual(await redirect.letStraight([secondId]), { kind: 'straight' });
    assert.match(await excepted.tell('ask'), /^(?:CLOSED|ECONNRESET|EHOSTUNREACH)$/);
    assert.match(await excepted.tell(dial), /^agent sees 10\.244\.0\.5 attested/);
    assert.match(await second.tell('ask'), /^cloud sees/);
    assert.match(await second.tell(dial), straight);
    await second.tell('drop');
  });

  it('goes on when the agent starts again, or another version takes over', async () => {
    assert.match(await excepted.tell(keep), straight);
    const next = open('nft');
    assert.deepEqual((await next.verify()).problems, []);
    assert.deepEqual((await next.install()).changed, []);
    assert.match(await excepted.tell('ask'), /^cloud sees/);
    const object = readPrograms();
    const path = join(world.tree.path, 'kubepods');
    installPrograms({
      ...{ object, pinFolder: world.pinFolder, cgroup: { path, id: idOf(path) } },
      exempt: { own: [], excepted: undefined },
      settings: { ...settingsOf(object, DEFAULT_TARGET, 'direct'), digest: '00'.repeat(32) },
    });
    const outdated = await next.verify();
    assert.ok(outdated.problems.includes('programs of another version'));
    assert.ok(outdated.problems.some((text) => text.startsWith('rule missing')));
    assert.match(await excepted.tell('ask'), /^cloud sees/);
    assert.match(await excepted.tell(dial), straight);
    assert.deepEqual((await next.install()).problems, []);
    assert.match(await excepted.tell('ask'), /^cloud sees/);
    assert.match(await excepted.tell(dial), straight);
    await excepted.tell('drop');
  });

  it('finds its way again after a stranger took parts of it away', async () => {
    const pins = () =>
      readdirSync(world.pinFolder).filter((name) => name.startsWith('program_straight_'));
    const breakages: readonly (readonly [RegExp, () => Promise<unknown>])[] = [
      [
        /chain nmi-straight missing/,
        () => world.node.run('iptables-nft-restore', '*raw\nCOMMIT\n'),
      ],
      [/jump to nmi-straight/, () => world.node.run('iptables-nft -t raw -F PREROUTING')],
      [/guard rule missing: pref 78/, () => world.node.run('ip rule del pref 78')],
      [
        /program straight not pinned/,
        async () => {
          const [pin = ''] = pins();
          unlinkSync(join(world.pinFolder, pin));
        },
      ],
    ];
    for (const [problem, breakIt] of breakages) {
      await breakIt();
      const broken = await redirect.verify();
      assert.match(broken.problems.join('; '), problem);
      assert.deepEqual((await redirect.install()).problems, []);
      assert.match(await excepted.tell(dial), straight);
      assert.match(await outsider.tell(dial), /^agent sees 10\.244\.0\.5 unattested/);
    }
    assert.equal(pins().length, 1);
  });

  it('is relayed when that is asked for again: its connection is cut, nothing is left', async () => {
    assert.match(await excepted.tell(keep), straight);
    const plain = open('nft', { exceptedPods: 'relay' });
    assert.equal((await plain.verify()).state, 'broken');
    assert.deepEqual((await plain.install()).problems, []);
    assert.match(await excepted.tell('ask'), /^(?:CLOSED|ECONNRESET|EHOSTUNREACH)$/);
    assert.match(await excepted.tell(dial), /^agent sees 10\.244\.0\.5 attested/);
    await assertNothingLeft();
  });

  it('is relayed where the rules are legacy ones, and told why', async () => {
    await redirect.remove();
    const legacy = open('legacy');
    const status = await legacy.install();
    assert.deepEqual(status.problems, []);
    assert.match(status.detail, /excepted pods are relayed: iptables legacy cannot/);
    const outcome = await legacy.letStraight([exceptedId]);
    assert.deepEqual(outcome.kind, 'relayed');
    assert.match(await excepted.tell(dial), /^agent sees 10\.244\.0\.5 attested/);
    await assertNothingLeft();
    await legacy.remove();
  });

  it('finds an open node and none of its parts after a removal', async () => {
    await redirect.remove();
    assert.ok(!readdirSync(world.bpf.path).includes('nmi'));
    assert.match(await other.tell(dial), /^cloud sees/);
    await assertNothingLeft();
  });

  async function assertNothingLeft(): Promise<void> {
    const rules = await world.node.run('iptables-nft-save');
    assert.doesNotMatch(rules, /nmi-straight|program_straight/);
    assert.doesNotMatch(await world.node.run('ip rule'), /^78:/m);
    assert.equal(findStraightWay(world.pinFolder), undefined);
  }

  it('is not looked up at the address that the agent listens on', async () => {
    assert.match(
      await excepted.tell(`dial ${listenIp} ${listenPort}`),
      /^agent sees 10\.244\.0\.5 unattested/,
    );
  });
});
