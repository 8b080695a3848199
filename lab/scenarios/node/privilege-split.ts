/** Two processes instead of one: one changes the kernel, the other serves pods, unprivileged. */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { metricsLimitMs, type AgentProcess } from '../../test-bed/agent-process.ts';
import { eventually } from '../../test-bed/eventually.ts';
import { makeBare, succeed, variableOf } from '../../test-bed/node-view.ts';
import {
  assertRefused,
  assertToken,
  assertUpstream,
  untilToken,
} from '../../test-bed/reply-checks.ts';
import { isDirect } from '../pods/node-pods.ts';
import type { Scenario } from '../../test-bed/scenario.ts';
import type { TestBed } from '../../test-bed/test-bed.ts';
import {
  kernelFlags,
  kernelRights,
  nobody,
  openKernelSide,
  openServingSide,
  servingFlags,
} from './split-agent.ts';

/** In `linux/capability.h`. */
const numbers: ReadonlyMap<string, bigint> = new Map([
  ['net_admin', 12n],
  ['bpf', 39n],
]);

const privilegeSplit: Scenario = {
  name: 'privilege-split',
  title:
    'With `nmi redirect run` beside it, the agent runs as an unprivileged user without capabilities and bpf(2), on a read-only root.',
  needs: 'namespaces',
  inTour: false,
  run: async (testBed) => {
    testBed.bind('split', 'split');
    const pod = await testBed.addPod({ name: 'app', binding: 'split' });
    const plain = await testBed.addPod({ name: 'plain' });
    const driver = await testBed.addPod({ name: 'driver', hostNetwork: true, excepted: true });
    await makeBare(testBed);
    const uid = randomUUID();
    const rights = kernelRights(testBed);
    for (const missing of rights) await assertNeeded(testBed, uid, rights, missing);

    await using kernel = await openKernelSide(testBed, uid, rights);
    // The serving side starts first here and waits for the other one.
    await using serving = await openServingSide(testBed, uid);
    serving.launch(servingFlags(testBed));
    kernel.launch(kernelFlags(testBed));
    await kernel.untilReady();
    await serving.untilReady();
    assertRights(kernel, '0', rights);
    assertRights(serving, nobody, []);
    assert.match(mountsOf(serving), /^\d+ \d+ \S+ \S+ \/ ro[ ,]/m, 'the root is writable');
    await untilToken(pod, 'split');
    if (testBed.attests) {
      const redirected = await kernel.metric('nmi_ebpf_connects_total{outcome="redirected"}');
      assert.ok(redirected > 0, 'the kernel’s side counts no redirects');
    }
    assertRefused(await plain.ask(), { status: 400, says: /pod default\/plain has no label/ });

    // By address it is not redirected in any case.
    await eventually(async () => assert.ok(await isDirect(testBed, driver)));

    testBed.log('another process breaks the redirect, the kernel’s side repairs it');
    const repairs = 'nmi_redirect_reconciles_total{outcome="repaired"}';
    const before = await kernel.metric(repairs);
    const known = kernel.lines.length;
    await breakRedirect(testBed);
    await eventually(() => {
      const since = kernel.lines.slice(known).join(' ');
      assert.match(since, /redirect drift detected and repaired/, 'nothing was repaired');
    });
    await eventually(async () => {
      assert.ok((await kernel.metric(repairs)) > before);
    }, metricsLimitMs);
    assertToken(await pod.ask({ connection: 'kept' }), 'split');

    testBed.log('the kernel’s side is killed: pods are served, on new connections too');
    await kernel.kill();
    assertToken(await pod.ask({ connection: 'kept' }), 'split');
    assertToken(await pod.ask(), 'split');
    testBed.log('the kernel’s side is back: as before');
    kernel.launch(kernelFlags(testBed));
    await kernel.untilReady();
    await untilToken(pod, 'split');
    await serving.untilReady();
    testBed.log('the serving side is killed: refused, until there is one again');
    await serving.kill();
    assert.equal((await pod.ask()).failure, 'ECONNREFUSED');
    serving.launch(servingFlags(testBed));
    await untilToken(pod, 'split');
    await serving.untilReady();
    testBed.log('both are killed: closed');
    await Promise.all([serving.kill(), kernel.kill()]);
    assert.equal((await pod.ask()).failure, 'ECONNREFUSED');
    assert.ok(await isDirect(testBed, driver), 'the node’s own pod depends on the agent');
    assert.deepEqual(testBed.uncheckedRequests(), []);
    // Each of the two agents fetched it once.
    assertUpstream(testBed, ['split', 'split']);
    const needed = rights.map((right) => right.toUpperCase()).join(' and ');
    return `${needed} on one side, each required; none on the other; closed without the serving side`;
  },
};

export const privilegeSplitScenarios: readonly Scenario[] = [privilegeSplit];

/** Without one of the capabilities nothing is installed, and the log has the reason. */
async function assertNeeded(
  testBed: TestBed,
  uid: string,
  all: readonly string[],
  missing: string,
): Promise<void> {
  const rights = all.filter((right) => right !== missing);
  await using kernel = await openKernelSide(testBed, uid, rights);
  kernel.launch(kernelFlags(testBed));
  const step = missing === 'bpf' ? /NOT_PERMITTED: load: / : /NOT_PERMITTED: /;
  await eventually(async () => {
    assert.ok(
      kernel.lines.some((line) => step.test(line)),
      `without ${missing} it does not log the missing permission: ${kernel.lines.slice(-3).join('\n')}`,
    );
    assert.equal((await kernel.page('readyz'))?.status, 503);
  }, 10_000);
}

async function breakRedirect(testBed: TestBed): Promise<void> {
  if (testBed.attests) {
    await succeed(testBed, 'rm', `${variableOf(testBed, 'NMI_BPF_PIN_FOLDER')}/link_connect4`);
  } else {
    await succeed(testBed, 'iptables-nft', '-t', 'nat', '-F', 'PREROUTING');
  }
}

function assertRights({ pid = 0 }: AgentProcess, uid: string, rights: readonly string[]): void {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1');
  const valueOf = (name: string) => new RegExp(`^${name}:\\s+(\\w+)`, 'm').exec(status)?.[1] ?? '';
  assert.equal(valueOf('Uid'), uid);
  const bits = rights.reduce((sum, right) => sum | (1n << (numbers.get(right) ?? 0n)), 0n);
  for (const set of ['CapEff', 'CapPrm', 'CapBnd']) {
    assert.equal(BigInt(`0x${valueOf(set)}`), bits, set);
  }
  assert.equal(valueOf('NoNewPrivs'), '1');
}

function mountsOf({ pid = 0 }: AgentProcess): string {
  return readFileSync(`/proc/${pid}/mountinfo`, 'latin1');
}
