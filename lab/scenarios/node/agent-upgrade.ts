/** The agent is replaced by another version several times while pods send requests. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { cgroupIdOf, qosClassPaths } from '../../../src/redirect/cgroup/cgroup-tree.ts';
import { installPrograms } from '../../../src/redirect/ebpf/programs.ts';
import { settingsOf } from '../../../src/redirect/ebpf/settings.ts';
import { readPrograms } from '../../../src/redirect/native/native-files.ts';
import { defaultTarget } from '../../../src/redirect/target.ts';
import { absentAgent, checkLoad, longestGapMs } from '../../pods/load-verdict.ts';
import { feed, hasRedirect, readNode, runRedirect, variableOf } from '../../test-bed/node-view.ts';
import { assertToken } from '../../test-bed/reply-checks.ts';
import type { Scenario } from '../../test-bed/scenario.ts';
import { startSteadyLoad } from '../../pods/steady-load.ts';
import type { TestBed } from '../../test-bed/test-bed.ts';

const upgrades = 3;

/** A rule that another version might have added to our chain. */
const otherChain = `*nat
:nmi-metadata - [0:0]
-A nmi-metadata -d 169.254.169.254/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 169.254.25.79:2579
COMMIT
`;

const upgraded: Scenario = {
  name: 'agent-upgraded',
  title:
    'The agent is upgraded under load: programs and rules of the old version are replaced, no leak.',
  needs: 'namespaces',
  inTour: false,
  run: async (testBed) => {
    testBed.bind('upgrade', 'upgrade');
    const bound = await testBed.addPod({ name: 'bound', binding: 'upgrade' });
    const kept = await testBed.addPod({ name: 'kept', binding: 'upgrade' });
    const unbound = await testBed.addPod({ name: 'unbound' });
    await testBed.untilAgentKnows();
    assertToken(await bound.ask(), 'upgrade');
    const load = startSteadyLoad(bound);
    const keptLoad = startSteadyLoad(kept, { newConnectionPerRequest: false });
    const unboundLoad = startSteadyLoad(unbound, { concurrency: 1 });
    for (let count = 0; count < upgrades; count++) {
      // The leftovers of another version's redirect; its agent has stopped, as in every upgrade.
      assert.equal(await testBed.agent.stop(), 0);
      if (testBed.attests) installOtherPrograms(testBed);
      await feed(testBed, otherChain, 'iptables-restore', '--noflush');
      const before = await runRedirect(testBed, 'verify');
      assert.equal(before.code, 1, before.stdout);
      assert.match(before.stdout, /rule missing: ! -s 127\.0\.0\.1/);
      if (testBed.attests) assert.match(before.stdout, /programs of another version/);
      assert.equal((await bound.ask()).failure, 'ECONNREFUSED');
      await testBed.startAgent();
      const after = await runRedirect(testBed, 'verify');
      assert.equal(after.code, 0, after.stdout);
      assert.ok(hasRedirect(await readNode(testBed)));
      assertToken(await bound.ask(), 'upgrade');
      assertToken(await kept.ask(), 'upgrade');
    }
    const [reports, keptReports] = [await load.stop(), await keptLoad.stop()];
    const verdicts = [
      checkLoad(bound.name, reports, 'upgrade', absentAgent),
      checkLoad(kept.name, keptReports, 'upgrade', absentAgent),
    ];
    for (const { granted, refused } of verdicts) assert.ok(granted > 0 && refused > 0);
    checkLoad(unbound.name, await unboundLoad.stop(), 'nobody', ['400', ...absentAgent]);
    assert.deepEqual(testBed.uncheckedRequests(), [], 'requests came past the agent');
    return `${upgrades} upgrades, the longest ${longestGapMs([...reports, ...keptReports])} ms without an answer, none leaked`;
  },
};

export const agentUpgradeScenarios: readonly Scenario[] = [upgraded];

/** The same programs under another version's name, in place of the current ones. */
function installOtherPrograms(testBed: TestBed): void {
  const object = readPrograms();
  const path = join(variableOf(testBed, 'NMI_CGROUP_ROOT'), 'kubepods');
  const id = cgroupIdOf(path);
  assert.ok(id !== undefined);
  const qosClasses = qosClassPaths(path)
    .map(cgroupIdOf)
    .filter((each) => each !== undefined);
  const node = { podsRoot: id, qosClasses, netnsCookie: 0n };
  const changed = installPrograms({
    object,
    pinFolder: variableOf(testBed, 'NMI_BPF_PIN_FOLDER'),
    cgroup: { path, id },
    agent: { path, id },
    exempt: [],
    settings: settingsOf(object, defaultTarget, defaultTarget.listenPort, node).fill(0, 56, 92),
  });
  assert.equal(changed.filter((change) => change.endsWith(' replaced')).length, 5, String(changed));
}
