/**
 * Packets of a raw socket, as any process with NET_RAW can send: no socket connects, so the BPF
 * programs do not run, and the sender chooses the source address. No mode gives them a token.
 */
import assert from 'node:assert/strict';
import { findTokenIdentity } from '../../fakes/token.ts';
import { tokenTarget, type LabPod } from '../../pods/pod.ts';
import { checkLoad } from '../../pods/load-verdict.ts';
import { succeed } from '../../test-bed/node-view.ts';
import { assertToken } from '../../test-bed/reply-checks.ts';
import { eventually } from '../../test-bed/eventually.ts';
import type { Scenario } from '../../test-bed/scenario.ts';
import { labCommand } from '../../fabric/lab-command.ts';
import type { TestBed } from '../../test-bed/test-bed.ts';

const bridge = 'cni0';
/**
 * The address that pods dial and the redirect's target: hand-crafted packets can skip the redirect.
 */
const ways = [
  { ip: '169.254.169.254', port: 80 },
  { ip: '169.254.25.79', port: 2579 },
] as const;

/**
 * Used by no other scenario: the record of a port that an earlier pod used would still exist, and a
 * SYN from there with our own sequence numbers is not answered with a SYN.
 */
const victimIp = '10.244.0.221';

const rawFrames: Scenario = {
  name: 'raw-frames',
  title:
    'Raw packets with another pod’s address and forged ARP get no token: by cgroup, and by address with the port of the bridge.',
  needs: 'namespaces',
  inTour: false,
  run: async (testBed) => {
    testBed.bind('framed', 'framed');
    const victim = await testBed.addPod({ name: 'victim', binding: 'framed', ip: victimIp });
    const thief = await testBed.addPod({ name: 'thief' });
    await testBed.settle();
    await testBed.untilAgentKnows();
    assertToken(await victim.ask(), 'framed');
    const gatewayMac = readMac(await succeed(testBed, 'ip', '-j', 'link', 'show', bridge));
    const thiefMac = readMac(await runIn(testBed, thief, 'ip', '-j', 'link', 'show', 'eth0'));
    // The effect of a forged ARP reply: the node sends the victim's packets to the thief.
    const entry = [victim.ip, 'lladdr', thiefMac, 'dev', bridge];
    await succeed(testBed, 'ip', 'neigh', 'replace', ...entry, 'nud', 'permanent');
    testBed.log(`thief: sends frames as ${victim.ip}, and is sent the answers`);
    try {
      for (const { ip, port } of ways) {
        const path = tokenTarget({});
        const words = ['forge', 'eth0', victim.ip, gatewayMac, ip, String(port), path];
        // For seconds after a start a packet may count as older and gets 503.
        const answer = await eventually(async () => {
          const text = await runIn(testBed, thief, ...labCommand, ...words);
          assert.ok(!testBed.attests || !text.startsWith('HTTP/1.1 503 '), text);
          return text;
        }, 10_000);
        const status = /^HTTP\/1\.1 (\d{3}) /.exec(answer)?.[1];
        const identity = findTokenIdentity(answer.slice(answer.indexOf('{')));
        testBed.log(`thief → ${ip}:${port}: ${status ?? 'no answer'}, ${identity ?? 'no token'}`);
        assert.equal(identity, undefined, `a token of ${identity ?? ''} for hand-crafted packets`);
        assert.equal(status, testBed.attests ? '403' : '503', answer);
        const text = testBed.attests
          ? /no record of who opened this connection/
          : /by another network link than that of the pod/;
        assert.match(answer, text);
      }
    } finally {
      await succeed(testBed, 'ip', 'neigh', 'del', ...entry);
    }
    assert.deepEqual(testBed.uncheckedRequests(), [], 'hand-crafted packets bypassed the agent');
    assertToken(await victim.ask(), 'framed');
    return 'refused, both redirected and sent directly to the agent; nothing reached the real service';
  },
};

/** The victim connects from these only, and netfilter remembers a forged SYN from each for 10 s. */
const ports = { first: 40_000, last: 40_999 };

const forgedPorts: Scenario = {
  name: 'forged-ports',
  title:
    'A pod forges SYNs from another pod’s address and ports: with eBPF, netfilter gives that pod’s connections other ports, and each is answered.',
  needs: 'namespaces',
  inTour: false,
  run: async (testBed) => {
    testBed.bind('framed', 'framed');
    const victim = await testBed.addPod({ name: 'victim', binding: 'framed' });
    const thief = await testBed.addPod({ name: 'thief' });
    await testBed.settle();
    await testBed.untilAgentKnows();
    const range = `net.ipv4.ip_local_port_range=${ports.first} ${ports.last}`;
    await runIn(testBed, victim, 'sysctl', '-qw', range);
    const gatewayMac = readMac(await succeed(testBed, 'ip', '-j', 'link', 'show', bridge));
    const [{ ip, port }] = ways;
    const forged = `${ports.first}-${ports.last}`;
    const words = ['forge', 'eth0', victim.ip, gatewayMac, ip, String(port), '', forged];
    await runIn(testBed, thief, ...labCommand, ...words);
    const load = await victim.load({
      newConnectionPerRequest: true,
      concurrency: 1,
      pauseMs: 5,
      durationMs: 2_000,
    });
    checkLoad(victim.name, [load], 'framed');
    const line = `${load.successes} of ${load.requests} requests beside ${ports.last - ports.first + 1} forged SYNs`;
    testBed.log(line);
    assert.ok(load.requests > 50, line);
    assert.equal(load.successes, load.requests, line);
    return line;
  },
};

export const rawFrameScenarios: readonly Scenario[] = [rawFrames, forgedPorts];

async function runIn(testBed: TestBed, pod: LabPod, ...words: readonly string[]): Promise<string> {
  const [command = '', ...args] = words;
  const { code, stdout, stderr } = await testBed.environment.runInPod(pod.name, command, args);
  assert.equal(code, 0, `${command}: ${stdout} ${stderr}`);
  return stdout;
}

function readMac(links: string): string {
  const mac = /"address":"([0-9a-f:]{17})"/.exec(links)?.[1];
  assert.ok(mac !== undefined, `no MAC in ${links}`);
  return mac;
}
