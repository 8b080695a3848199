/** The redirect against the real kernel: rules, link and guard in a separate namespace. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { Host } from '../../../../src/redirect/host/command.ts';
import { openIptablesRedirect } from '../../../../src/redirect/iptables/iptables.ts';
import type { Redirect } from '../../../../src/redirect/redirect.ts';
import { defaultTarget } from '../../../../src/redirect/target.ts';
import {
  openNamespace,
  sweepDeadNamespaces,
  whyNoKernelTests,
  whyNoLegacyTables,
  type Namespace,
} from '../namespaces.ts';

const skip = await whyNoKernelTests('iptables-nft-save', 'iptables-legacy-save');
const noLegacy = skip || (await whyNoLegacyTables());
if (skip === false) await sweepDeadNamespaces();

const LIMIT =
  '-A nmi-metadata ! -s 127.0.0.1/32 -d 169.254.169.254/32 -p tcp -m tcp --dport 80 -m hashlimit --hashlimit-above 1000/sec --hashlimit-burst 512 --hashlimit-mode srcip --hashlimit-name nmi-metadata -j DNAT --to-destination 0.0.0.0';
const DIRECT_LIMIT =
  '-A nmi-metadata -d 169.254.25.79/32 -p tcp -m tcp --dport 2579:2580 -m hashlimit --hashlimit-above 1000/sec --hashlimit-burst 512 --hashlimit-mode srcip --hashlimit-name nmi-metadata -j DNAT --to-destination 0.0.0.0';
const DNAT =
  '-A nmi-metadata ! -s 127.0.0.1/32 -d 169.254.169.254/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 169.254.25.79:2579';
const OURS = [
  '-A PREROUTING -j nmi-metadata',
  LIMIT,
  DIRECT_LIMIT,
  DNAT,
  '-A nmi-metadata -j RETURN',
];

const FOREIGN = `*nat
:KUBE-SERVICES - [0:0]
:KUBE-POSTROUTING - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment nmi-metadata -j KUBE-POSTROUTING
-A KUBE-SERVICES -d 10.96.0.10/32 -p udp -m udp --dport 53 -j DNAT --to-destination 10.0.0.9:53
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
COMMIT
`;

/** The replaced system's, which may run beside this one. */
const OLD_AGENT = `*nat
:aad-metadata - [0:0]
-A aad-metadata ! -s 127.0.0.1/32 -d 169.254.169.254/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 127.0.0.1:2579
-A aad-metadata -j RETURN
-I PREROUTING 1 -j aad-metadata
COMMIT
`;

const KUBELET = `*mangle
:KUBE-KUBELET-CANARY - [0:0]
COMMIT
`;

for (const backend of ['nft', 'legacy'] as const) {
  describe(`rules in iptables ${backend}`, { skip: backend === 'nft' ? skip : noLegacy }, () => {
    let node: Namespace;
    let redirect: Redirect;

    async function saved(): Promise<string> {
      const text = await node.run(`iptables-${backend}-save`);
      return text.replace(/^#.*\n/gm, '').replace(/\[\d+:\d+\]/g, '[0:0]');
    }
    const rules = async () => (await saved()).split('\n').filter((line) => line.startsWith('-A '));
    const foreignRules = async () => (await rules()).filter((rule) => !OURS.includes(rule));
    const restore = (text: string) => node.run(`iptables-${backend}-restore --noflush`, text);
    const iptables = (args: string) => node.run(`iptables-${backend} -t nat ${args}`);

    before(async () => {
      node = await openNamespace();
      await restore(KUBELET);
      await restore(FOREIGN);
      redirect = openIptablesRedirect({ host: node.host });
    });
    after(async () => {
      await node[Symbol.asyncDispose]();
    });

    it('are absent at first, and removing them succeeds', async () => {
      const status = await redirect.verify();
      assert.equal(status.state, 'absent');
      assert.ok(status.problems.includes('chain nmi-metadata missing'));
      assert.ok(status.problems.includes('link nmi0 missing'));
      const untouched = await saved();
      await redirect.remove();
      assert.equal(await saved(), untouched);
    });

    it('go into the backend of the kubelet, first in PREROUTING, and change no other rules', async () => {
      const others = await foreignRules();
      const status = await redirect.install();
      assert.deepEqual(status.problems, []);
      assert.equal(status.state, 'active');
      assert.match(
        status.detail,
        new RegExp(`^iptables ${backend}; address 169.254.25.79 on nmi0`),
      );
      assert.deepEqual(
        (await rules()).filter((rule) => OURS.includes(rule)),
        OURS,
      );
      assert.deepEqual(await foreignRules(), others);
      assert.equal(others.length, 5);
    });

    it('are found changed in front by a check that runs one tool at most, and behind by one of the whole', async () => {
      const { metadataIp } = defaultTarget;
      const runs: string[] = [];
      const host: Host = {
        ...node.host,
        run: (tool, args, options) => {
          runs.push([tool, ...args].join(' '));
          return node.host.run(tool, args, options);
        },
      };
      const watched = openIptablesRedirect({ host });
      const behind = [
        `ip rule del pref 80 to ${metadataIp} prohibit`,
        `ip rule del pref 82 from ${metadataIp} blackhole`,
        // The kernel delivers all the same.
        'ip link set nmi0 down',
      ];
      const changes = [
        `iptables-${backend} -t nat -F nmi-metadata`,
        `iptables-${backend} -t nat -D PREROUTING -j nmi-metadata`,
        `iptables-${backend} -t nat -I PREROUTING 1 -s 10.9.8.7 -j ACCEPT`,
        ...behind,
        'ip addr del 169.254.25.79/32 dev nmi0',
        'ip link del nmi0',
      ];
      for (const change of changes) {
        assert.equal((await watched.verify()).state, 'active');
        runs.length = 0;
        // Of others: of no concern.
        await node.run('ip link add others type bridge');
        await node.run('ip addr add 10.77.0.1/24 dev others');
        await node.run('ip rule add pref 500 to 10.77.0.0/24 lookup main');
        for (let round = 0; round < 2; round += 1) {
          assert.ok(await watched.isFrontWhole());
        }
        await node.run('ip rule del pref 500');
        await node.run('ip link del others');
        assert.deepEqual(
          runs,
          backend === 'nft' ? [] : Array(2).fill('iptables-legacy-save -t nat'),
        );
        await node.run(change);
        assert.equal(await watched.isFrontWhole(), behind.includes(change), change);
        assert.notDeepEqual((await watched.verify()).problems, [], change);
        await watched.install();
      }
      await iptables('-D PREROUTING -s 10.9.8.7 -j ACCEPT');
    });

    it('are left alone by a second installation, even from another process', async () => {
      const installed = await saved();
      assert.deepEqual((await redirect.install()).changed, []);
      const other = openIptablesRedirect({ host: node.host });
      assert.deepEqual((await other.install()).changed, []);
      assert.equal((await other.verify()).state, 'active');
      assert.equal(await saved(), installed);
    });

    it('return to the first place after another rule was put above them', async () => {
      const good = await saved();
      await iptables('-I PREROUTING 1 -p tcp -j ACCEPT');
      await iptables('-I PREROUTING 1 -p udp -j ACCEPT');
      assert.deepEqual((await redirect.verify()).problems, ['jump is at position 3, not first']);
      const status = await redirect.install();
      assert.equal(status.state, 'active');
      assert.deepEqual(status.changed, ['jump moved to the first place, once']);
      await iptables('-D PREROUTING -p tcp -j ACCEPT');
      await iptables('-D PREROUTING -p udp -j ACCEPT');
      assert.equal(await saved(), good);
    });

    it('are repaired after a flush of the whole table', async () => {
      await iptables('-F');
      const broken = await redirect.verify();
      assert.equal(broken.state, 'broken');
      assert.ok(broken.problems.includes('jump to nmi-metadata missing from PREROUTING'));
      assert.equal((await redirect.install()).state, 'active');
      assert.deepEqual(await rules(), OURS);
      await restore(FOREIGN);
    });

    it('are repaired inside the chain', async () => {
      const good = await saved();
      await iptables('-I nmi-metadata 1 -s 10.0.0.66 -j RETURN');
      assert.deepEqual((await redirect.verify()).problems, [
        'unexpected rule: -s 10.0.0.66/32 -j RETURN',
      ]);
      assert.deepEqual((await redirect.install()).changed, ['chain nmi-metadata rewritten']);
      assert.equal(await saved(), good);
    });

    it('are reduced to one, however often they were added', async () => {
      const good = await saved();
      await iptables('-A PREROUTING -j nmi-metadata');
      await iptables('-A PREROUTING -j nmi-metadata');
      assert.deepEqual((await redirect.verify()).problems, ['jump stands 3 times, not once']);
      await redirect.install();
      assert.equal(await saved(), good);
    });

    it('leave nothing behind when removed, twice', async () => {
      await redirect.remove();
      await redirect.remove();
      assert.doesNotMatch(await saved(), /:nmi-metadata|-j nmi-metadata/);
      assert.equal((await foreignRules()).length, 5);
      assert.doesNotMatch(await node.run('ip -4 rule show'), /169\.254/);
      assert.doesNotMatch(await node.run('ip link show'), /nmi0/);
      assert.equal((await redirect.verify()).state, 'absent');
    });

    it('stand before those of the old agent, and leave them alone', async () => {
      await restore(OLD_AGENT);
      const others = await foreignRules();
      const status = await redirect.install();
      assert.equal(status.state, 'active');
      assert.deepEqual(
        (await rules()).filter((rule) => rule.startsWith('-A PREROUTING')).slice(0, 2),
        ['-A PREROUTING -j nmi-metadata', '-A PREROUTING -j aad-metadata'],
      );
      assert.deepEqual(await foreignRules(), others);
      await redirect.remove();
      assert.deepEqual(await foreignRules(), others);
      await redirect.install();
    });

    it('leave a rule of another owner that uses the chain, and the chain with it', async () => {
      await iptables('-A KUBE-SERVICES -p udp -j nmi-metadata');
      await redirect.remove();
      await redirect.remove();
      assert.deepEqual(
        (await rules()).filter(
          (rule) => rule.includes('nmi-metadata') && !rule.includes('comment'),
        ),
        ['-A KUBE-SERVICES -p udp -j nmi-metadata'],
      );
    });
  });
}

describe('the backend', { skip }, () => {
  it(
    'is nft if there is no kubelet, and a chain of an earlier agent in legacy is cleared',
    { skip: noLegacy },
    async () => {
      await using node = await openNamespace();
      await node.run('iptables-legacy-restore --noflush', OLD_AGENT.replaceAll('aad-', 'nmi-'));
      const status = await openIptablesRedirect({ host: node.host }).install();
      assert.match(status.detail, /^iptables nft;/);
      assert.deepEqual(status.problems, []);
      assert.doesNotMatch(await node.run('iptables-legacy-save -t nat'), /nmi-metadata/);
    },
  );

  it('is nft on an empty node, and no legacy tables are created', { skip: noLegacy }, async () => {
    await using node = await openNamespace();
    const redirect = openIptablesRedirect({ host: node.host });
    assert.match((await redirect.install()).detail, /^iptables nft;/);
    assert.equal((await redirect.verify()).state, 'active');
    await redirect.remove();
    assert.equal(await node.run('cat /proc/net/ip_tables_names'), '');
  });

  it(
    'follows the kubelet from one to the other, and clears the first one',
    { skip: noLegacy },
    async () => {
      await using node = await openNamespace();
      const redirect = openIptablesRedirect({ host: node.host });
      await node.run('iptables-legacy-restore --noflush', KUBELET);
      assert.match((await redirect.install()).detail, /^iptables legacy;/);
      await node.run('iptables-legacy -t mangle -X KUBE-KUBELET-CANARY');
      await node.run('iptables-nft-restore --noflush', KUBELET);
      const verified = await redirect.verify();
      assert.match(verified.detail, /^iptables nft;/);
      assert.equal(verified.state, 'absent');
      const status = await redirect.install();
      assert.equal(status.state, 'active');
      assert.ok(status.changed?.includes('chain nmi-metadata removed from legacy'));
      assert.doesNotMatch(await node.run('iptables-legacy-save -t nat'), /nmi-metadata/);
      const again = await redirect.verify();
      assert.match(again.detail, /^iptables nft;/);
      assert.equal(again.state, 'active');
    },
  );

  it('is the configured one', { skip: noLegacy }, async () => {
    await using node = await openNamespace();
    await node.run('iptables-nft-restore --noflush', KUBELET);
    const status = await openIptablesRedirect({ host: node.host, backend: 'legacy' }).install();
    assert.match(status.detail, /^iptables legacy;/);
    assert.equal(status.state, 'active');
  });
});

describe('the lock that all legacy tools share', { skip: noLegacy }, () => {
  let folder = '';

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'nmi-lock-'));
  });
  after(async () => {
    await rm(folder, { recursive: true });
  });

  /** A separate lock for this test, not the machine's. */
  const hostWithLock = (node: Namespace, lock: string): Host => ({
    ...node.host,
    run: (tool, args, options) =>
      node.host.run('env', [`XTABLES_LOCKFILE=${lock}`, tool, ...args], options),
  });

  /** A process that holds the lock, for this long or until disposed of. */
  function hold(lock: string, forSec: number) {
    const holder = spawn(
      'flock',
      ['--no-fork', lock, 'sh', '-c', `echo held; exec sleep ${forSec}`],
      {
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    );
    const held = once(holder.stdout, 'data');
    const released = once(holder, 'exit');
    return { held, released, [Symbol.dispose]: () => holder.kill() };
  }

  it('is waited for: one installation is enough while another process holds it', async () => {
    await using node = await openNamespace();
    const lock = join(folder, 'short');
    using holder = hold(lock, 1);
    await holder.held;
    const redirect = openIptablesRedirect({ host: hostWithLock(node, lock), backend: 'legacy' });
    let isReleased = false;
    void holder.released.then(() => {
      isReleased = true;
    });
    const status = await redirect.install();
    assert.ok(isReleased, 'the lock was not held');
    assert.equal(status.state, 'active');
    assert.deepEqual(status.problems, []);
  });

  // Some tools wait by default, without end.
  it('is waited for no longer than allowed, and then reported as busy', async () => {
    await using node = await openNamespace();
    const lock = join(folder, 'long');
    using holder = hold(lock, 30);
    await holder.held;
    const host = hostWithLock(node, lock);
    const redirect = openIptablesRedirect({ host, backend: 'legacy' });
    await assert.rejects(redirect.install(), { code: 'BUSY', step: 'write rules' });
  });
});

describe('the link', { skip }, () => {
  it('is up before anything is redirected to it, and only once', async () => {
    await using node = await openNamespace();
    const redirect = openIptablesRedirect({ host: node.host });
    await redirect.prepare();
    await redirect.prepare();
    assert.match(await node.run('ip -br addr show dev nmi0'), /169\.254\.25\.79\/32/);
    assert.doesNotMatch(await node.run('iptables-nft-save -t nat'), /nmi-metadata/);
    await node.run('ip link set nmi0 down');
    assert.ok((await redirect.verify()).problems.includes('link nmi0 is down'));
    await redirect.prepare();
    await node.run('ip addr del 169.254.25.79/32 dev nmi0');
    const status = await redirect.install();
    assert.equal(status.state, 'active');
    assert.ok(status.changed?.includes('address 169.254.25.79 added to nmi0'));
  });

  it('is not needed where the node already has the address', async () => {
    await using node = await openNamespace();
    await node.run('ip addr add 10.9.8.7/32 dev lo');
    const target = { ...defaultTarget, listenIp: '10.9.8.7' };
    const redirect = openIptablesRedirect({ host: node.host, target });
    assert.deepEqual((await redirect.install()).problems, []);
    assert.doesNotMatch(await node.run('ip link show'), /nmi0/);
    await redirect.remove();
    assert.match(await node.run('ip addr show dev lo'), /10\.9\.8\.7/);
  });

  it('carries the redirect of a listener on all addresses', async () => {
    await using node = await openNamespace();
    const target = { ...defaultTarget, listenIp: '0.0.0.0' };
    const status = await openIptablesRedirect({ host: node.host, target }).install();
    assert.equal(status.state, 'active');
    assert.ok((await node.run('iptables-nft-save -t nat')).includes(DNAT));
  });

  it('is left alone and reported if another owner made it under our name', async () => {
    await using node = await openNamespace();
    await node.run('ip link add nmi0 type veth peer name other');
    const redirect = openIptablesRedirect({ host: node.host });
    const status = await redirect.install();
    assert.deepEqual(status.problems, ["link nmi0 is not the agent's: it is a veth"]);
    assert.equal(status.state, 'broken');
    await redirect.remove();
    assert.match(await node.run('ip link show'), /nmi0@other/);
  });
});

const gatewayMac = '12:34:56:78:9a:bc';

describe('the guard', { skip }, () => {
  it('drops what a pod sends to another with the source address of the service', async () => {
    await using node = await openNamespace();
    await using forger = await openNamespace();
    await using victim = await openNamespace();
    const service = '169.254.169.254';
    for (const [link, pod, ip] of [
      ['veth1', forger, '10.245.0.5'],
      ['veth2', victim, '10.245.0.6'],
    ] as const) {
      await node.run(`ip link add ${link} type veth peer name eth0 netns ${pod.name}`);
      await node.run(`ip link set ${link} address ${gatewayMac} up`);
      await pod.run(`ip address add ${ip}/32 dev eth0`);
      await pod.run('ip link set eth0 up');
      await node.run(`ip route add ${ip}/32 dev ${link}`);
      await pod.run('ip route add 169.254.1.1 dev eth0');
      await pod.run(`ip neigh replace 169.254.1.1 lladdr ${gatewayMac} dev eth0`);
      await pod.run('ip route add default via 169.254.1.1');
    }
    await forger.run(`ip address add ${service}/32 dev lo`);
    await node.run('sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0');
    await node.run('sysctl -qw net.ipv4.conf.veth1.rp_filter=0');
    await victim.run('sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0');
    const listener = victim.start(`
      require('node:dgram').createSocket('udp4')
        .on('message', (text) => console.log(String(text)))
        .bind(5000, () => console.log('ready'));
    `);
    assert.equal(await listener.line(), 'ready');
    const send = async (from: string, text: string): Promise<void> => {
      const sender = forger.start(`
        const socket = require('node:dgram').createSocket('udp4');
        socket.bind(0, '${from}', () => socket.send('${text}', 5000, '10.245.0.6', () =>
          console.log('sent')));
      `);
      assert.equal(await sender.line(), 'sent');
      await sender.stop();
    };
    await send(service, 'forged');
    assert.equal(await listener.line(), 'forged', 'the test must be able to see it');
    const redirect = openIptablesRedirect({ host: node.host });
    assert.equal((await redirect.install()).state, 'active');
    await send(service, 'forged again');
    await send('10.245.0.5', 'own');
    assert.equal(await listener.line(), 'own');
  });

  it('coexists with the rules of others, is repaired, and is removed without them', async () => {
    await using node = await openNamespace();
    await node.run('ip rule add pref 80 from 10.1.2.3 lookup 100');
    await node.run('ip rule add pref 81 to 169.254.169.254 ipproto udp prohibit');
    const others = await node.run('ip -4 rule show');
    const redirect = openIptablesRedirect({ host: node.host });
    assert.equal((await redirect.install()).state, 'active');
    await node.run('ip rule del pref 79');
    await node.run('ip rule del pref 80 to 169.254.169.254');
    const problems = (await redirect.verify()).problems;
    assert.deepEqual(problems, [
      'guard rule missing: pref 79 to 169.254.169.254 iif lo goto 81',
      'guard rule missing: pref 80 to 169.254.169.254 prohibit',
    ]);
    const status = await redirect.install();
    assert.deepEqual(status.changed, ['guard rule 79 added', 'guard rule 80 added']);
    assert.equal(status.state, 'active');
    await redirect.remove();
    assert.equal(await node.run('ip -4 rule show'), others);
  });

  it('is removed when it is switched off', async () => {
    await using node = await openNamespace();
    await openIptablesRedirect({ host: node.host }).install();
    const off = openIptablesRedirect({ host: node.host, guard: false });
    const status = await off.install();
    assert.equal(status.state, 'active');
    assert.match(status.detail, /guard off/);
    assert.doesNotMatch(await node.run('ip -4 rule show'), /169\.254/);
  });
});
