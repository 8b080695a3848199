/** The redirect of a node: never open by accident, opened only on purpose, replaced in one step. */
import assert from 'node:assert/strict';
import { parseRecord, stringAt } from '../../../src/base/json-value.ts';
import { eventually } from '../../test-bed/eventually.ts';
import { absentAgent, checkLoad, longestGapMs } from '../../pods/load-verdict.ts';
import {
  feed,
  hasRedirect,
  makeBare,
  readNode,
  runRedirect,
  succeed,
  type NodeState,
} from '../../test-bed/node-view.ts';
import { assertToken, assertUpstream } from '../../test-bed/reply-checks.ts';
import type { Scenario } from '../../test-bed/scenario.ts';
import { startSteadyLoad } from '../../pods/steady-load.ts';
import type { TestBed } from '../../test-bed/test-bed.ts';

/** The real service answers it too, but without a token, so reaching it leaks nothing. */
const harmlessTarget = '/metadata/instance?api-version=2021-02-01';
const metadataHeader = ['Metadata', 'true'] as const;
const stampHeader = 'x-begun-at';

/** Rules of the kubelet; the one with a connection state makes the kernel track all connections. */
const foreignRules = `*nat
:KUBE-SERVICES - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-SERVICES -d 10.0.0.1/32 -p tcp -m tcp --dport 443 -j ACCEPT
COMMIT
*filter
:KUBE-FORWARD - [0:0]
-A FORWARD -j KUBE-FORWARD
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
`;

const removeForeignRules = `*nat
-D PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-F KUBE-SERVICES
-X KUBE-SERVICES
COMMIT
*filter
-D FORWARD -j KUBE-FORWARD
-F KUBE-FORWARD
-X KUBE-FORWARD
COMMIT
`;

/**
 * Addresses that no other pod of the lab has had. The kernel remembers closed connections for one
 * or two minutes, by address and port: on a node that is bare again, the packets of a pod with such
 * an address and port would be matched to an old connection to the agent.
 */
const freshIps = ['10.244.0.201', '10.244.0.202', '10.244.0.203', '10.244.0.204'] as const;

const leak: Scenario = {
  name: 'leak',
  title: 'A pod without an identity never reaches the real metadata service.',
  needs: 'namespaces',
  inTour: true,
  run: async (testBed) => {
    const pod = await testBed.addPod({ name: 'unbound' });
    const reply = await pod.ask();
    assert.equal(reply.identity, undefined, 'the pod got a token');
    assert.equal(reply.status, 400);
    assert.match(String(reply.body['error_description']), /^Identity not found/);
    assert.deepEqual(testBed.upstreamTokens(), []);
    return 'refused with 400, nothing reached the real service';
  },
};

const redirectFirst: Scenario = {
  name: 'redirect-before-agent',
  title:
    'With the redirect and no agent, connections are refused; with the agent, they are served.',
  needs: 'namespaces',
  inTour: false,
  run: async (testBed) => {
    testBed.bind('early-a', 'early-a');
    const pod = await testBed.addPod({ name: 'early', binding: 'early-a', ip: freshIps[0] });
    await makeBare(testBed);
    const { code, stderr } = await runRedirect(testBed, 'install');
    assert.equal(code, 0, stderr);
    const load = startSteadyLoad(pod, { pauseMs: 0 });
    const refused = await pod.ask();
    assert.equal(refused.failure, 'ECONNREFUSED');
    assert.deepEqual(
      testBed.imds.requests(),
      [],
      'a request reached the real service before the agent ran',
    );
    await testBed.startAgent();
    const served = await pod.ask();
    assertToken(served, 'early-a');
    const verdict = checkLoad(pod.name, await load.stop(), 'early-a', absentAgent);
    assert.ok(verdict.refused > 0, 'the load had no refused connection');
    assert.deepEqual(testBed.uncheckedRequests(), []);
    assertUpstream(testBed, ['early-a']);
    return `${verdict.refused} requests refused before the start, ${verdict.granted} served after`;
  },
};

const coldBoot: Scenario = {
  name: 'cold-boot',
  title:
    'On a new node a pod sends requests before the first start; once installed, the redirect holds.',
  needs: 'namespaces',
  inTour: false,
  run: async (testBed) => {
    testBed.bind('boot-a', 'boot-a');
    const pod = await testBed.addPod({ name: 'eager', binding: 'boot-a', ip: freshIps[1] });
    await makeBare(testBed);
    const load = startSteadyLoad(pod, {
      targets: [{ target: harmlessTarget, headers: metadataHeader }],
      pauseMs: 0,
      stamp: stampHeader,
    });
    await eventually(() => {
      assert.ok(
        testBed.uncheckedRequests().length > 20,
        'on a bare node, pods must reach the real service',
      );
    });
    const startedAtWallMs = Date.now();
    await testBed.startAgent();
    const placedAtWallMs = await placedAt(testBed, startedAtWallMs);
    await eventually(() => {
      const { nodeIp } = testBed.environment;
      const relayed = testBed.imds.requests().filter(({ from }) => from === nodeIp);
      // One answer serves all equal requests within three seconds.
      assert.ok(relayed.length > 0, 'the agent relays nothing');
      // What is tested is where requests go, not when: connections of before repeat their SYN for seconds.
    }, 20_000);
    const reports = await load.stop();
    const direct = testBed.uncheckedRequests();
    // On a busy machine, the real service reads a request of before later.
    const late = direct.filter(({ headers }) => !(Number(headers[stampHeader]) <= placedAtWallMs));
    assert.deepEqual(late, [], `${late.length} requests bypassed the redirect`);
    const relayed = testBed.imds.requests().length - direct.length;
    assertToken(await pod.ask(), 'boot-a');
    assertUpstream(testBed, ['boot-a']);
    return (
      `${direct.length} requests before the redirect, none after it, ${relayed} through the agent; ` +
      `longest gap ${longestGapMs(reports)} ms`
    );
  },
};

const olderConnection: Scenario = {
  name: 'older-connection',
  title: 'A connection to the real service that is older than the redirect is cut.',
  needs: 'namespaces',
  inTour: false,
  run: async (testBed) => {
    testBed.bind('older-a', 'older-a');
    const pod = await testBed.addPod({ name: 'holder', binding: 'older-a', ip: freshIps[2] });
    await makeBare(testBed);
    await feed(testBed, foreignRules, 'iptables-restore', '--noflush');
    try {
      const before = await pod.ask({ target: harmlessTarget, connection: 'old' });
      assert.equal(before.status, 200);
      assert.equal(
        testBed.uncheckedRequests().length,
        1,
        'the connection must reach the real service first',
      );
      await testBed.startAgent();
      testBed.imds.clear();
      // A keep-alive probe may have reached the redirect already: then the client has reconnected.
      const cut = await pod.ask({ connection: 'old', timeoutMs: 3_000 });
      if (cut.identity === undefined) assert.equal(cut.failure, 'ECONNRESET', 'it must be cut');
      else assertToken(cut, 'older-a');
      assertToken(await pod.ask({ connection: 'old' }), 'older-a');
      assert.deepEqual(testBed.uncheckedRequests(), []);
      assertUpstream(testBed, ['older-a']);
    } finally {
      await feed(testBed, removeForeignRules, 'iptables-restore', '--noflush');
    }
    return 'the old connection was reset, the next one reached the agent';
  },
};

const redirectVerbs: Scenario = {
  name: 'redirect-verbs',
  title: 'nmi redirect installs, reports drift, and removes everything that it made.',
  needs: 'namespaces',
  inTour: false,
  run: async (testBed) => {
    const pod = await testBed.addPod({ name: 'watcher' });
    await makeBare(testBed);
    await feed(testBed, foreignRules, 'iptables-restore', '--noflush');
    try {
      const bare = await readNode(testBed);
      const all = `${bare.rules}\n${bare.routing}\n${bare.links}`;
      assert.doesNotMatch(all, /nmi-metadata|169\.254\.169\.254|nmi0/, 'removal is incomplete');
      const installed = await expectRedirect(testBed, 'install', 0, /^(?:iptables|ebpf): active /);
      assert.match(installed, /changed: /);
      const closed = await readNode(testBed);
      assert.ok(hasRedirect(closed), closed.rules);
      const again = await expectRedirect(testBed, 'install', 0, /^(?:iptables|ebpf): active /);
      assert.doesNotMatch(again, /changed: /, 'installing twice changed something');
      assertSame(await readNode(testBed), closed, 'installing twice');
      await expectRedirect(testBed, 'verify', 0, /^(?:iptables|ebpf): active /);
      assert.equal((await pod.ask()).failure, 'ECONNREFUSED');

      await succeed(testBed, ...jump('-D'));
      const broken = await expectRedirect(testBed, 'verify', 1, /^(?:iptables|ebpf): broken /);
      assert.match(broken, /problem: jump to nmi-metadata missing/);
      await expectRedirect(testBed, 'install', 0, /changed: jump added/);
      assertSame(await readNode(testBed), closed, 'mending');
      assert.deepEqual(testBed.imds.requests(), []);

      await expectRedirect(testBed, 'remove', 0, /^removed/);
      assertSame(await readNode(testBed), bare, 'removing');
      await expectRedirect(testBed, 'remove', 0, /^removed/);
      assertSame(await readNode(testBed), bare, 'removing twice');
      await expectRedirect(testBed, 'verify', 1, /^(?:iptables|ebpf): absent /);
      assert.equal((await pod.ask({ target: harmlessTarget })).status, 200);
      assert.equal(
        testBed.uncheckedRequests().length,
        1,
        'a removed redirect must leave the node open',
      );
      return 'active, broken and absent distinguished; nothing left behind, foreign rules untouched';
    } finally {
      await feed(testBed, removeForeignRules, 'iptables-restore', '--noflush');
    }
  },
};

const oldChain = `*nat
:aad-metadata - [0:0]
-A PREROUTING -j aad-metadata
-A aad-metadata ! -s 127.0.0.1/32 -d 169.254.169.254/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 127.0.0.1:2579
-A aad-metadata -j RETURN
COMMIT
`;
/** As the replaced system does when it ends. */
const removeOldChain = `*nat
-D PREROUTING -j aad-metadata
-F aad-metadata
-X aad-metadata
COMMIT
`;
const oldProbePort = 8095;
const lanes = 4;
const cutUnderWay: readonly string[] = ['ECONNRESET', 'EHOSTUNREACH', 'TIMEOUT'];

const takeover: Scenario = {
  name: 'old-agent-beside',
  title:
    'The agent starts beside the replaced system under load, which then opens nothing when it ends.',
  needs: 'namespaces',
  inTour: false,
  run: async (testBed) => {
    testBed.bind('takeover-a', 'takeover-a');
    const pod = await testBed.addPod({ name: 'app', binding: 'takeover-a', ip: freshIps[3] });
    const unbound = await testBed.addPod({ name: 'unbound' });
    await makeBare(testBed);
    // The old redirect needs packets from other hosts to loopback; kube-proxy used to allow them.
    await allowLoopback(testBed, true);
    await feed(testBed, oldChain, 'iptables-restore', '--noflush');
    // Our own agent on the old agent's address stands in for the old one.
    await using old = testBed.environment.openAgent(oldProbePort);
    try {
      await old.start([
        ...testBed.environment.agentFlags,
        ...['--redirect=none', '--nmi-listen-address=127.0.0.1'],
        ...[`--http-probe-port=${oldProbePort}`, `--prometheus-port=${oldProbePort}`],
      ]);
      // The old chain must work before.
      assertToken(await pod.ask(), 'takeover-a');
      const load = startSteadyLoad(pod, { timeoutMs: 1_000, concurrency: lanes, pauseMs: 10 });
      const unboundLoad = startSteadyLoad(unbound, { timeoutMs: 1_000, concurrency: 1 });
      await testBed.startAgent();
      const state = await readNode(testBed);
      assert.ok(hasRedirect(state), state.rules);
      assert.ok(state.rules.includes('127.0.0.1:2579'), 'the old rule is gone');
      await feed(testBed, removeOldChain, 'iptables-restore', '--noflush');
      // eBPF closes the sockets that are older than its programs.
      const reports = await load.stop();
      const verdict = checkLoad(pod.name, reports, 'takeover-a', cutUnderWay);
      assert.ok(
        verdict.refused <= lanes,
        `${verdict.refused} requests failed, more than were in flight`,
      );
      checkLoad(unbound.name, await unboundLoad.stop(), 'nobody', ['400', ...cutUnderWay]);
      const gapMs = longestGapMs(reports);
      assert.ok(gapMs < 1_500, `${gapMs} ms without an answer`);
      assert.deepEqual(testBed.uncheckedRequests(), []);
      await old.kill();
      assertToken(await pod.ask(), 'takeover-a');
      // Each of the two agents sent one request.
      assertUpstream(testBed, ['takeover-a', 'takeover-a']);
      return (
        `${verdict.granted} requests served across the change, ${verdict.refused} cut, longest ` +
        `gap ${gapMs} ms`
      );
    } finally {
      await allowLoopback(testBed, false);
    }
  },
};

function onBackend(backend: 'legacy' | 'nft'): Scenario {
  const other = backend === 'nft' ? 'legacy' : 'nft';
  return {
    name: `iptables-${backend}`,
    title: `The redirect works in iptables ${backend} and leaves nothing in the other one.`,
    needs: 'namespaces',
    inTour: false,
    agentFlags: [`--iptables-backend=${backend}`],
    run: async (testBed) => {
      try {
        testBed.bind('backend-a', 'backend-a');
        const pod = await testBed.addPod({ name: 'app', binding: 'backend-a' });
        const unbound = await testBed.addPod({ name: 'unbound' });
        assert.match(
          await succeed(testBed, `iptables-${backend}-save`),
          /-A PREROUTING -j nmi-meta/,
        );
        assert.doesNotMatch(await succeed(testBed, `iptables-${other}-save`), /nmi-metadata/);
        assertToken(await pod.ask(), 'backend-a');
        assert.equal((await unbound.ask()).status, 400);
        assertUpstream(testBed, ['backend-a']);
        assert.deepEqual(testBed.uncheckedRequests(), []);
        return `rules in iptables ${backend} only; one pod served, one refused`;
      } finally {
        // The next agent would choose its backend by an existing chain.
        await makeBare(testBed);
      }
    },
  };
}

export const redirectScenarios: readonly Scenario[] = [
  leak,
  redirectFirst,
  coldBoot,
  olderConnection,
  takeover,
  redirectVerbs,
  onBackend('legacy'),
  onBackend('nft'),
];

async function expectRedirect(
  testBed: TestBed,
  action: 'install' | 'verify' | 'remove',
  code: number,
  text: RegExp,
): Promise<string> {
  const result = await runRedirect(testBed, action);
  assert.equal(result.code, code, `nmi redirect ${action}: ${result.stdout}${result.stderr}`);
  assert.match(result.stdout, text);
  return result.stdout;
}

/**
 * The time when the agent that was started last had verified its redirect. It may be ready before
 * this log line arrives through the pipe, behind the lines of earlier agents.
 */
async function placedAt(testBed: TestBed, startedAtWallMs: number): Promise<number> {
  let atWallMs = Number.NaN;
  await eventually(() => {
    const line = testBed.agent.lines.findLast((text) =>
      text.includes('"msg":"redirect installed"'),
    );
    atWallMs = Date.parse(stringAt(parseRecord(line ?? ''), 'time'));
    assert.ok(atWallMs >= startedAtWallMs, 'the agent did not log that the redirect is installed');
  });
  return atWallMs;
}

function assertSame(actual: NodeState, wanted: NodeState, after: string): void {
  assert.deepEqual(actual, wanted, `${after} left the node different`);
}

function jump(action: '-D' | '-A'): [string, ...string[]] {
  return ['iptables', '-t', 'nat', action, 'PREROUTING', '-j', 'nmi-metadata'];
}

async function allowLoopback(testBed: TestBed, isAllowed: boolean): Promise<void> {
  const setting = '/proc/sys/net/ipv4/conf/all/route_localnet';
  await succeed(testBed, 'sh', '-c', `echo ${isAllowed ? 1 : 0} > ${setting}`);
}
