import assert from 'node:assert/strict';
import { closeSync, linkSync, mkdirSync, readdirSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { setTimeout as nextTurn } from 'node:timers/promises';
import { networkCode } from '../../../../src/base/network-code.ts';
import { eventually } from '../../../../lab/test-bed/eventually.ts';
import { cgroupIdOf } from '../../../../src/redirect/cgroup/cgroup-tree.ts';
import { installPrograms, type WantedPrograms } from '../../../../src/redirect/ebpf/programs.ts';
import { settingsOf } from '../../../../src/redirect/ebpf/settings.ts';
import { readPrograms } from '../../../../src/redirect/native/native-files.ts';
import { nativeModule } from '../../../../src/redirect/native/addon.ts';
import { defaultTarget } from '../../../../src/redirect/target.ts';
import { whyNoBpfTests } from '../cgroup-fixture.ts';
import { EbpfTestBed, type Client } from '../ebpf-test-bed.ts';
import { sweepDeadNamespaces, whyNoKernelTests, whyNoMptcp } from '../namespaces.ts';

const skip = (await whyNoKernelTests('iptables-nft-save')) || whyNoBpfTests();
if (skip === false) await sweepDeadNamespaces();

const { metadataIp, listenIp, listenPort } = defaultTarget;
const dial = `dial ${metadataIp} 80`;

/** A process that installs, reports the result, and waits to be killed. */
const installer = (testBed: EbpfTestBed) => `
  process.stdin.resume();
  const source = '${join(import.meta.dirname, '../../../../src/redirect')}/';
  Promise.all(['ebpf/ebpf', 'iptables/iptables'].map((name) => import(source + name + '.ts')))
    .then(([{ openEbpfRedirect }, { openIptablesRedirect }]) => openEbpfRedirect({
      ownCgroup: '${testBed.agentCgroup}',
      cgroupRoot: '${testBed.tree.path}',
      pinFolder: '${testBed.pinFolder}',
      fallback: openIptablesRedirect({ backend: 'nft', isBehind: true }),
    }).install())
    .then(({ state }) => console.log(state), ({ code, message }) => console.log(code, message));
`;

function fileExempt(pin: string, podId: bigint): void {
  const native = nativeModule();
  const map = native.openPin(pin, false);
  const key = new Uint8Array(new BigUint64Array([podId]).buffer);
  native.mapSet(map, key, Uint8Array.of(1));
  closeSync(map);
}

/** One more program for the same hook, pinned. */
function loadConnect4(pin: string): void {
  const programs = readPrograms();
  nativeModule().load(
    programs,
    settingsOf(programs, defaultTarget, 2579),
    {},
    { nmi_connect4: pin },
  );
}

describe('a pod behind the eBPF redirect', { skip }, () => {
  let testBed: EbpfTestBed;
  let pod: Client;
  let other: Client;
  let host: Client;
  let exempt: Client;
  let outsider: Client;

  before(async () => {
    testBed = await EbpfTestBed.open();
    await testBed.startCloud();
    pod = testBed.client(testBed.podA, 'poda/c1');
    other = testBed.client(testBed.podB, 'podb/c1');
    host = testBed.client(testBed.node, 'podhost/c1');
    exempt = testBed.client(testBed.node, 'podagent/c1/nested');
    outsider = testBed.client(testBed.node, '/system/kubelet');
    const otherAgents = () => [cgroupIdOf(join(exempt.cgroup, '../..')) ?? 0n];
    testBed.settings = { otherAgents };
    await testBed.redirect().prepare();
    const status = await testBed.redirect().install();
    assert.deepEqual(status.problems, []);
    assert.equal(status.state, 'active');
    await testBed.startAgent();
  });
  after(() => testBed.close());

  const attestedAs = (client: Client, ip: string) =>
    new RegExp(`agent sees ${ip} attested ${client.podId}( |$)`);

  it('reaches the agent, which attests its cgroup', async () => {
    const answer = await pod.send(dial);
    assert.match(answer, attestedAs(pod, '10.244.0.5'));
    assert.match(await other.send(dial), attestedAs(other, '10.244.0.6'));
  });

  it('does so on the host network too, where its address is not its own', async () => {
    assert.match(await host.send(dial), attestedAs(host, '169.254.25.79'));
  });

  it('does so from an IPv4-mapped IPv6 socket, which every JVM uses', async () => {
    const answer = await pod.send(`dial ::ffff:${metadataIp} 80`);
    assert.match(answer, attestedAs(pod, '10.244.0.5'));
  });

  for (const kind of ['tcp4', 'tcp6', 'mptcp4', 'mptcp6', 'fastopen4', 'fastopen6']) {
    it(`does so by ${kind}`, { skip: kind.startsWith('mptcp') && whyNoMptcp() }, async () => {
      const answer = await pod.send(`run ${testBed.dialler.path} ${kind} ${metadataIp} 80`);
      assert.match(answer, attestedAs(pod, '10.244.0.5'));
    });
  }

  it('keeps its record for as long as the connection lives, and no longer', async () => {
    const { recorded = 0n } = testBed.redirect().counters() ?? {};
    assert.match(await pod.send(`keep ${metadataIp} 80`), attestedAs(pod, '10.244.0.5'));
    assert.match(await pod.send('ask'), attestedAs(pod, '10.244.0.5'));
    assert.equal(await pod.send('drop'), 'dropped');
    // The record is deleted when the client closes.
    await eventually(() => {
      const { deleted, ...now } = testBed.redirect().counters() ?? assert.fail();
      assert.deepEqual([now.recorded - recorded, now.recorded - deleted], [1n, 0n]);
    });
  });

  it('is not redirected, on the host network, with UDP and with other ports', async () => {
    assert.match(
      await host.send(`run ${testBed.dialler.path} udp4 ${metadataIp} 80`),
      /answer=cloud sees 10\.0\.0\.4/,
    );
    assert.match(await host.send(`dial ${metadataIp} 8080`), /^cloud sees 10\.0\.0\.4 /);
    assert.match(await host.send(`dial ::ffff:${metadataIp} 8080`), /^cloud sees \S*10\.0\.0\.4 /);
  });

  it('is exempt as soon as it prepares, if it is the next agent beside the previous one', async () => {
    const next = testBed.client(testBed.node, 'podnext/c1');
    assert.match(await next.send(dial), /^agent sees /);
    await testBed.redirect({ otherAgents: () => [next.podId] }).prepare();
    assert.match(await next.send(dial), /^cloud sees 10\.0\.0\.4 /);
    assert.match(await exempt.send(dial), /^cloud sees 10\.0\.0\.4 /);
    await testBed.redirect().install();
    assert.match(await next.send(dial), /^agent sees /);
  });

  it('bypasses the agent when its cgroup, or one above, is exempt', async () => {
    assert.match(await exempt.send(dial), /^cloud sees 10\.0\.0\.4 /);
    assert.match(await exempt.send(`dial ::ffff:${metadataIp} 80`), /^cloud sees /);
  });

  it('reaches the real endpoint if it is on the host network and let through, and no other pod does', async () => {
    const redirect = testBed.redirect();
    const podOf = ({ cgroup }: Client): bigint => cgroupIdOf(join(cgroup, '..')) ?? 0n;
    try {
      assert.match(await host.send(dial), attestedAs(host, listenIp));
      await redirect.letThrough([podOf(host), podOf(pod)]);
      assert.match(await host.send(dial), /^cloud sees 10\.0\.0\.4 /);
      assert.match(await host.send(`dial ::ffff:${metadataIp} 80`), /^cloud sees /);
      assert.match(await pod.send(dial), attestedAs(pod, '10.244.0.5'));
      assert.match(
        await host.send(`dial ${listenIp} ${listenPort}`),
        attestedAs(host, listenIp),
        'the agent’s own address stays recorded',
      );
      // Neither another process nor an installation that knows of none changes it.
      await testBed.redirect().install();
      assert.deepEqual((await testBed.redirect().verify()).problems, []);
      assert.match(await host.send(dial), /^cloud sees 10\.0\.0\.4 /);
      await redirect.letThrough([podOf(pod)]);
      assert.match(await host.send(dial), attestedAs(host, listenIp));
      assert.match(await pod.send(dial), attestedAs(pod, '10.244.0.5'));
    } finally {
      await redirect.letThrough([]);
    }
  });

  it('is the only kind of process redirected: others bypass the agent', async () => {
    assert.match(await outsider.send(dial), /^cloud sees 10\.0\.0\.4 /);
  });

  it('is attested when it connects to the agent directly, and sees that address', async () => {
    const counted = testBed.redirect().counters()?.direct ?? 0n;
    for (const address of [listenIp, `::ffff:${listenIp}`]) {
      const answer = await pod.send(`dial ${address} ${listenPort}`);
      assert.match(answer, attestedAs(pod, '10.244.0.5'));
      assert.match(answer, new RegExp(` to \\S*${listenIp}:${listenPort}$`));
    }
    assert.equal((testBed.redirect().counters()?.direct ?? 0n) - counted, 2n);
  });

  it('is marked as direct, unlike a redirected one, so that a proxy can be told from its pod', async () => {
    const seen = `agent sees 10.244.0.5 attested ${pod.podId}`;
    assert.match(
      await pod.send(`dial ${listenIp} ${listenPort}`),
      new RegExp(`^${seen} directly `),
    );
    assert.match(await pod.send(dial), new RegExp(`^${seen} through `));
  });

  it('is refused, and not led to the cloud, when the agent does not listen', async () => {
    const lonely = await EbpfTestBed.open();
    try {
      await lonely.startCloud();
      const caller = lonely.client(lonely.podA, 'poda/c1');
      assert.match(await caller.send(dial), /^cloud sees/, 'the test must be able to see a leak');
      await lonely.redirect().prepare();
      await lonely.redirect().install();
      assert.equal(await caller.send(dial), 'ECONNREFUSED');
      assert.equal(await caller.send(`dial ::ffff:${metadataIp} 80`), 'ECONNREFUSED');
    } finally {
      await lonely.close();
    }
  });

  it('counts what it does', async () => {
    const redirect = testBed.redirect();
    const earlier = redirect.counters();
    await pod.send(dial);
    await pod.send(`dial ::ffff:${metadataIp} 80`);
    await exempt.send(dial);
    const later = redirect.counters();
    assert.ok(earlier !== undefined && later !== undefined);
    assert.equal(later.redirected - earlier.redirected, 2n);
    assert.equal(later.redirectedMapped - earlier.redirectedMapped, 1n);
    assert.equal(later.recorded - earlier.recorded, 2n);
    assert.equal(later.exempt - earlier.exempt, 1n);
    assert.equal(later.refused, 0n);
    assert.equal(later.unrecorded, 0n);
  });

  describe('with an address that is another pod’s', () => {
    const forged = '10.244.0.6';
    const forgery = (port: number, ip: string, toPort: number) =>
      [
        `run ${testBed.dialler.path} forge eth0 ${forged} ${port}`,
        `${bridgeMac} ${ip} ${toPort}`,
      ].join(' ');
    let bridgeMac = '';

    before(async () => {
      const links = JSON.parse(await testBed.node.run('ip -j link show br0')) as readonly {
        readonly address: string;
      }[];
      bridgeMac = links[0]?.address ?? '';
      // A forged ARP reply has this effect: the node sends the other pod's packets to this one.
      await testBed.node.run(
        `ip neigh replace ${forged} lladdr 02:00:00:00:00:00 dev br0 nud permanent`,
      );
    });
    after(() => testBed.node.run(`ip neigh del ${forged} dev br0`));

    it('gets a connection by hand-crafted packets, but no record, so it stays unattested', async () => {
      assert.match(
        await pod.send(forgery(41_001, listenIp, listenPort)),
        /answer=agent sees 10\.244\.0\.6 unattested/,
      );
    });

    it('does not get past the node with them either: the fallback catches them', async () => {
      assert.match(
        await pod.send(forgery(41_002, metadataIp, 80)),
        /answer=agent sees 10\.244\.0\.6 unattested/,
      );
    });

    it('is not taken for the pod that left open a connection closed by the agent', async () => {
      const route = `neigh replace ${forged} lladdr 02:00:00:00:00:00 dev br0 nud permanent`;
      await testBed.node.run(`ip neigh del ${forged} dev br0`);
      // The agent's end is gone for good once this timeout has expired.
      await testBed.node.run('tee /proc/sys/net/ipv4/tcp_fin_timeout', '1');
      const left = await other.send(`cling ${metadataIp} 80`);
      assert.match(left, /^left alone /);
      const port = Number(/ through (\d+) /.exec(left)?.[1]);
      await testBed.node.run(`ip ${route}`);
      let answer = '';
      for (let tries = 0; !answer.startsWith('answer') && tries < 20; tries += 1) {
        await nextTurn(200);
        answer = await pod.send(forgery(port, listenIp, listenPort));
      }
      assert.match(answer, /^answer=agent sees 10\.244\.0\.6 unattested/);
      assert.equal(await other.send('drop'), 'dropped');
    });

    it('is still itself when it assigns that address to itself', async () => {
      await testBed.podA.run(`ip addr add ${forged}/32 dev eth0`);
      const macs = JSON.parse(await testBed.podA.run('ip -j link show eth0')) as readonly {
        readonly address: string;
      }[];
      await testBed.node.run(
        `ip neigh replace ${forged} lladdr ${macs[0]?.address ?? ''} dev br0 nud permanent`,
      );
      const answer = await pod.send(`dial ${metadataIp} 80 ${forged}`);
      assert.match(answer, attestedAs(pod, forged));
      assert.notEqual(pod.podId, other.podId);
      await testBed.podA.run(`ip addr del ${forged}/32 dev eth0`);
    });
  });
});

describe('the eBPF redirect in the kernel', { skip }, () => {
  let testBed: EbpfTestBed;
  let pod: Client;

  before(async () => {
    testBed = await EbpfTestBed.open();
    await testBed.startCloud();
    pod = testBed.client(testBed.podA, 'poda/c1');
    await testBed.redirect().prepare();
    await testBed.startAgent();
  });
  after(() => testBed.close());
  beforeEach(async () => {
    await testBed.redirect().remove();
    await testBed.redirect().prepare();
  });

  it('is absent before, active after, and not changed by a second installation', async () => {
    const redirect = testBed.redirect();
    const absent = await redirect.verify();
    assert.equal(absent.state, 'absent');
    assert.ok(absent.problems.includes('no programs installed'));
    const first = await redirect.install();
    assert.equal(first.state, 'active');
    assert.ok(first.changed?.includes('program connect4 attached'));
    const second = await testBed.redirect().install();
    assert.deepEqual(second.changed, []);
    assert.match(second.detail, /169\.254\.169\.254:80 to 169\.254\.25\.79:2579/);
  });

  it('opens the node again when it is removed, and leaves nothing', async () => {
    await testBed.redirect().install();
    await testBed.redirect().remove();
    assert.match(await pod.send(dial), /^cloud sees/);
    assert.ok(!readdirSync(testBed.bpf.path).includes('nmi'));
    await testBed.redirect().remove();
  });

  it('leaves a pin of another owner where it is', async () => {
    await testBed.redirect().install();
    linkSync(join(testBed.pinFolder, 'callers'), join(testBed.pinFolder, 'strange'));
    await testBed.redirect().remove();
    assert.deepEqual(readdirSync(testBed.pinFolder), ['strange']);
    unlinkSync(join(testBed.pinFolder, 'strange'));
  });

  it('stays when the process that installed it is killed', async () => {
    const loader = testBed.node.start(installer(testBed));
    assert.equal(await loader.line(), 'active');
    await loader.stop();
    assert.match(await pod.send(dial), /attested/);
    assert.deepEqual((await testBed.redirect().install()).changed, []);
  });

  it('finds each thing that another process broke in front, and repairs it', async (t) => {
    const redirect = testBed.redirect();
    await redirect.install();
    const native = nativeModule();
    const pin = (name: string) => join(testBed.pinFolder, name);
    /** Not every kernel replaces a program by one of another hook, and its answer says so. */
    const byOtherHook = () => native.replace(pin('program_connect6'), pin('link_connect4'));
    const breakages: readonly (readonly [RegExp, () => void])[] = [
      [/program connect4 not attached/, () => unlinkSync(pin('link_connect4'))],
      [/program sockops is not the one we know/, () => unlinkSync(pin('program_sockops'))],
      [/settings missing/, () => unlinkSync(pin('settings'))],
      [/map callers missing/, () => unlinkSync(pin('callers'))],
      [/an installation has not ended/, () => linkSync(pin('settings'), pin('next_settings'))],
      [/map exempt missing/, () => unlinkSync(pin('exempt'))],
      [/cgroup 77 is exempt/, () => fileExempt(pin('exempt'), 77n)],
      [
        /program connect4 is not the one we know/,
        () => {
          loadConnect4(pin('other'));
          native.replace(pin('other'), pin('link_connect4'));
          unlinkSync(pin('other'));
        },
      ],
      [/program connect4 is not the one we know/, byOtherHook],
      [/another version or configuration/, () => void testBed.tree.make('kubepods/besteffort')],
      [
        /program connect4 is not the one we know/,
        () => {
          unlinkSync(pin('program_connect4'));
          linkSync(pin('program_connect6'), pin('program_connect4'));
        },
      ],
    ];
    for (const [problem, breakIt] of breakages) {
      assert.ok(await redirect.isFrontWhole());
      try {
        breakIt();
      } catch (error) {
        if (breakIt !== byOtherHook || networkCode(error) !== 'EINVAL') throw error;
        t.diagnostic('left out: this kernel refuses to replace a program by one of another hook');
        assert.ok(await redirect.isFrontWhole());
        continue;
      }
      assert.equal(await redirect.isFrontWhole(), false, String(problem));
      const broken = await redirect.verify();
      assert.equal(broken.state, 'broken', String(problem));
      assert.ok(
        broken.problems.some((text) => problem.test(text)),
        `${problem.source}: ${broken.problems.join('; ')}`,
      );
      const repaired = await redirect.install();
      assert.deepEqual(repaired.problems, []);
      assert.match(await pod.send(dial), /attested/);
    }
  });

  it('is closed by its fallback when its programs are detached', async () => {
    await testBed.redirect().install();
    await testBed.detach('connect4', 'connect6', 'sockops');
    assert.match(await pod.send(dial), /agent sees 10\.244\.0\.5 unattested/);
  });

  it('attests a caller from a port that iptables has just redirected', async () => {
    const port = 41_100;
    const from = `${dial} 10.244.0.5 ${port}`;
    await testBed.redirect().install();
    await testBed.detach('connect4', 'connect6', 'sockops');
    assert.match(await pod.send(from), new RegExp(` unattested .* through ${port} `));
    await testBed.redirect().install();
    assert.match(await pod.send(from), new RegExp(` attested .* through ${port} `));
  });

  it('switches to other settings and programs without a failed connect', async () => {
    await testBed.redirect().install();
    assert.equal(await pod.send('storm'), 'storming');
    const earlier = testBed.redirect().counters()?.redirected ?? 0n;
    for (let round = 0; round < 10; round += 1) {
      // Alternating between exempt and not exempt makes each installation a full one.
      const status = await testBed
        .redirect({ otherAgents: () => (round % 2 === 0 ? [1_000_000n] : []) })
        .install();
      assert.equal(status.changed?.filter((text) => text.endsWith(' replaced')).length, 6);
    }
    const later = testBed.redirect().counters()?.redirected ?? 0n;
    const seen = JSON.parse(await pod.send('calm')) as Record<string, number>;
    assert.deepEqual(Object.keys(seen), ['agent']);
    assert.ok(later - earlier > 100n, `only ${later - earlier} connects in the meantime`);
  });

  it('moves to another cgroup without a gap', async () => {
    await testBed.redirect({ attachTo: testBed.tree.make('kubepods/burstable') }).install();
    assert.equal(await pod.send('storm'), 'storming');
    const status = await testBed.redirect().install();
    assert.ok(status.changed?.includes('program connect4 attached'));
    const seen = JSON.parse(await pod.send('calm')) as Record<string, number>;
    assert.deepEqual(Object.keys(seen), ['agent']);
  });

  it('keeps the records of living connections over an upgrade', async () => {
    await testBed.redirect().install();
    assert.match(await pod.send(`keep ${metadataIp} 80`), / attested /);
    await testBed.redirect({ otherAgents: () => [1_000_000n] }).install();
    assert.match(await pod.send('ask'), / attested /);
    assert.equal(await pod.send('drop'), 'dropped');
  });

  it('is complete after two processes installed it at the same time, or after a retry', async () => {
    const loaders = [
      testBed.node.start(installer(testBed)),
      testBed.node.start(installer(testBed)),
    ];
    for (const loader of loaders) assert.match(await loader.line(), /^(?:active|broken|BUSY)/);
    const settled = await testBed.redirect().install();
    assert.deepEqual(settled.problems, []);
    assert.match(await pod.send(dial), /attested/);
  });

  it('closes older connections of pods on the host network, and nothing else', async () => {
    const host = testBed.client(testBed.node, 'podhost/c1');
    const outsider = testBed.client(testBed.node, '/system/kubelet');
    const mapped = testBed.client(testBed.node, 'podhost/c2');
    for (const client of [pod, host, outsider]) {
      assert.match(await client.send(`keep ${metadataIp} 80`), /^cloud/);
    }
    assert.match(await mapped.send(`keep ::ffff:${metadataIp} 80`), /^cloud/);
    const loader = testBed.node.start(installer(testBed));
    assert.equal(await loader.line(), 'active');
    assert.match(await host.send('ask'), /^(?:ECONNABORTED|ECONNRESET|EPIPE|CLOSED)$/);
    assert.match(await mapped.send('ask'), /^(?:ECONNABORTED|ECONNRESET|EPIPE|CLOSED)$/);
    assert.match(await outsider.send('ask'), /^cloud/);
    assert.match(await host.send(dial), /attested/);
    assert.match(await mapped.send(dial), /attested/);
    await loader.stop();
  });

  it('moves to the port of another agent and back, and records callers of both', async () => {
    await testBed.redirect().install();
    const answeredAt = async (order: string) =>
      /attested .* to (\S+)$/.exec(await pod.send(order))?.[1];
    assert.equal((await testBed.redirect().verify()).port, listenPort);
    await testBed.redirect().install(listenPort + 1);
    const moved = await testBed.redirect().verify();
    assert.deepEqual([moved.port, moved.state], [listenPort + 1, 'active']);
    assert.equal(
      await pod.send(`dial ${metadataIp} 80`),
      'ECONNREFUSED',
      'nobody listens there yet',
    );
    assert.equal(await answeredAt(`dial ${listenIp} ${listenPort}`), `${listenIp}:${listenPort}`);
    assert.equal((await testBed.redirect().install()).port, listenPort + 1, 'it stays there');
    await testBed.redirect().install(listenPort);
    assert.notEqual(await answeredAt(`dial ${metadataIp} 80`), undefined);
  });

  it('replaces programs of another layout, which have their own maps', async () => {
    const object = readPrograms();
    const path = join(testBed.tree.path, 'kubepods');
    const pods = { path, id: cgroupIdOf(path) ?? 0n };
    const foreign: WantedPrograms = {
      pinFolder: testBed.pinFolder,
      object,
      settings: settingsOf(object, defaultTarget, 2579).fill(99, 0, 1),
      cgroup: pods,
      agent: pods,
      exempt: [],
    };
    mkdirSync(testBed.pinFolder);
    installPrograms(foreign);
    assert.equal(await pod.send('storm'), 'storming');
    const broken = await testBed.redirect().verify();
    assert.ok(broken.problems.includes('programs of another layout'), broken.problems.join('; '));
    const status = await testBed.redirect().install();
    assert.ok(status.changed?.includes('maps of another layout left behind'));
    assert.deepEqual(status.problems, []);
    assert.match(await testBed.client(testBed.podB, 'podb/c2').send(dial), /attested/);
    const seen = JSON.parse(await pod.send('calm')) as Record<string, number>;
    assert.deepEqual(Object.keys(seen), ['agent']);
  });

  it('reports broken while there are no pods, and exempts no cgroup that contains them', async () => {
    const empty = testBed.tree.make('empty');
    const status = await testBed.redirect({ cgroupRoot: empty }).install();
    assert.equal(status.state, 'broken');
    assert.match(status.problems.join(), /no cgroup of pods below/);
    const later = testBed.tree.make('empty/kubelet.slice/kubelet-kubepods.slice');
    const found = await testBed.redirect({ cgroupRoot: empty }).install();
    assert.deepEqual(found.problems, []);
    assert.ok(found.detail.startsWith(`eBPF on ${later};`), found.detail);
    const all = cgroupIdOf(join(testBed.tree.path, 'kubepods')) ?? 0n;
    const above = cgroupIdOf(testBed.tree.path) ?? 0n;
    await testBed.redirect({ otherAgents: () => [all, above] }).install();
    assert.match(await pod.send(dial), /attested/);
  });
});
