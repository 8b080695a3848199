/** A node without a metadata service; its agent owns the metadata address. */
import assert from 'node:assert/strict';
import { createEntraApplication } from '../../fakes/entra/applications.ts';
import { addApplication, addSecret } from '../../test-bed/entra-objects.ts';
import { makeBare, succeed } from '../../test-bed/node-view.ts';
import { assertRefused, assertToken, assertUntouched } from '../../test-bed/reply-checks.ts';
import type { Scenario } from '../../test-bed/scenario.ts';

const probePort = 8096;
const noService = ['unreachable', '169.254.169.254/32'];

const addressMode: Scenario = {
  name: 'address-mode',
  title:
    'Address mode: the node holds the metadata address, and pods get tokens of types 1 to 3 only.',
  needs: 'namespaces',
  inTour: false,
  run: async (testBed) => {
    const value = 'secret-of-the-edge';
    addSecret(testBed, 'edge', { clientSecret: value });
    const application = createEntraApplication('edge', { secrets: [{ value }] });
    addApplication(testBed, application, { type: 1, clientPassword: { name: 'edge' } });
    const assigned = testBed.bind('assigned', 'edge');
    testBed.addException('addon', { addon: 'yes' });
    await makeBare(testBed);
    await using agent = testBed.environment.openAgent(probePort);
    const flags = [
      ...[...testBed.environment.agentFlags, '--redirect=address'],
      ...[`--http-probe-port=${probePort}`, `--prometheus-port=${probePort}`],
    ];
    // The lab's node has a metadata service, as on every node in Azure.
    await assert.rejects(agent.start(flags), /this node has a metadata service/);
    // An unreachable route hides it; a local address of the node has precedence over routes.
    await succeed(testBed, 'ip', 'route', 'add', ...noService);
    try {
      await agent.start(flags);
      const pod = await testBed.addPod({ name: 'app', binding: 'edge' });
      const addon = await testBed.addPod({ name: 'addon', labels: { addon: 'yes' } });
      assertToken(await pod.ask({ query: `client_id=${application.clientId}` }), 'edge');
      const says =
        /AzureIdentity default\/assigned .* has the type 0, and this node has no metadata/;
      const query = `client_id=${assigned.clientId}`;
      assertRefused(await pod.ask({ query }), { status: 400, says });
      assertRefused(await addon.ask(), { status: 400, says: /this node has no metadata service/ });
      const instance = '/metadata/instance?api-version=2021-02-01';
      assertRefused(await pod.ask({ target: instance }), {
        status: 404,
        says: /no instance metadata/,
      });
      await agent.kill();
      assert.equal((await pod.ask()).failure, 'ECONNREFUSED');
      assertUntouched(testBed);
    } finally {
      await testBed.environment.runInNode('ip', ['link', 'del', 'nmi0']);
      await succeed(testBed, 'ip', 'route', 'del', ...noService);
    }
    return 'does not start beside a real service; without one it serves type 1 and refuses type 0';
  },
};

export const addressModeScenarios: readonly Scenario[] = [addressMode];
