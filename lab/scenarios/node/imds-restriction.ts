/**
 * The rule of AKS that keeps pods from the metadata service (its feature "IMDS restriction", as AgentBaker
 * writes it), on the node before the agent. It drops what is forwarded there; what the agent
 * redirects is not forwarded.
 */
import assert from 'node:assert/strict';
import { makeBare, runRedirect, succeed } from '../../test-bed/node-view.ts';
import { assertRefused, assertToken } from '../../test-bed/reply-checks.ts';
import type { Scenario } from '../../test-bed/scenario.ts';

const instance = { target: '/metadata/instance?api-version=2021-02-01' };

const forms = [
  ['iptables-nft', 'mangle'],
  ['iptables-nft', 'filter'],
  ['iptables-legacy', 'mangle'],
] as const;

const imdsRestriction: Scenario = {
  name: 'imds-restriction',
  title:
    'On a node where AKS drops what pods send to the metadata service, pods are served by the agent, and by nothing else.',
  needs: 'namespaces',
  inTour: false,
  run: async (testBed) => {
    const { nodeIp } = testBed.environment;
    const rule = [
      ...['FORWARD', '!', '-s', nodeIp, '-d', '169.254.169.254/32', '-p', 'tcp', '-m', 'tcp'],
      ...['--dport', '80', '-m', 'comment', '--comment', 'AKS managed', '-j', 'DROP'],
    ];
    testBed.bind('listed', 'listed');
    testBed.addException('infra', { app: 'infra' });
    for (const [tool, table] of forms) {
      await makeBare(testBed);
      const name = `${tool}-${table}`;
      const pod = await testBed.addPod({ name: `listed-${name}`, binding: 'listed' });
      const labels = { app: 'infra' };
      const infra = await testBed.addPod({ name: `infra-${name}`, labels, excepted: true });
      const other = await testBed.addPod({ name: `other-${name}` });
      assert.equal((await other.ask(instance)).status, 200, 'open without the rule');
      const [chain = '', ...match] = rule;
      await succeed(testBed, tool, '-t', table, '-I', chain, '1', ...match);
      try {
        testBed.imds.clear();
        const blocked = await pod.ask({ ...instance, connection: 'new', timeoutMs: 1_000 });
        assert.equal(blocked.failure, 'TIMEOUT', `${name}: not blocked`);
        assert.deepEqual(testBed.imds.requests(), []);

        await testBed.startAgent();
        await testBed.untilAgentKnows();
        assertToken(await pod.ask(), 'listed');
        assertToken(await infra.ask(), 'node');
        assertRefused(await other.ask(), { status: 400, says: /^Identity not found: / });
        assert.deepEqual(testBed.uncheckedRequests(), [], 'a request passed the agent');
        const { code, stderr } = await runRedirect(testBed, 'verify');
        assert.equal(code, 0, stderr);
        const [first] = (await succeed(testBed, tool, '-t', table, '-S', 'FORWARD'))
          .split('\n')
          .filter((line) => line.startsWith('-A'));
        assert.match(first ?? '', /-d 169\.254\.169\.254\/32 .*-j DROP/, 'still there, and first');
      } finally {
        await succeed(testBed, tool, '-t', table, '-D', ...rule);
      }
    }
    return `${forms.map((form) => form.join(' ')).join(', ')}: blocked without the agent, served with it`;
  },
};

export const imdsRestrictionScenarios: readonly Scenario[] = [imdsRestriction];
