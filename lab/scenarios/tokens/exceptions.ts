/** Pods that match an exception get the node's own answer; similar pods do not. */
import { assertRefused, assertToken, assertUpstream } from '../../test-bed/reply-checks.ts';
import type { Scenario } from '../../test-bed/scenario.ts';

/** Used only here, so that no other scenario has cached a token of the node. */
const resource = 'https://exception.lab';

const exception: Scenario = {
  name: 'exception',
  title: 'An excepted pod gets the node’s identity, or any identity of the node by its id.',
  needs: 'any',
  inTour: true,
  run: async (testBed) => {
    const named = testBed.assignIdentity('exc-named');
    testBed.addException('infra', { app: 'infra', tier: 'node' });
    const infra = await testBed.addPod({
      name: 'infra',
      labels: { app: 'infra' },
      excepted: true,
    });
    const plain = await testBed.addPod({ name: 'plain', labels: { app: 'web' } });
    await testBed.untilAgentKnows();
    assertToken(await infra.ask({ resource }), 'node');
    for (const query of [
      `client_id=${named.clientId}`,
      `msi_res_id=${encodeURIComponent(named.resourceId)}`,
    ]) {
      assertToken(await infra.ask({ resource, query }), 'exc-named');
    }
    const refused = await plain.ask({ resource });
    assertRefused(refused, { status: 400, says: /^Identity not found: / });
    testBed.deleteObject('AzurePodIdentityException', 'infra');
    await testBed.untilAgentKnows();
    const later = await infra.ask({ resource });
    assertRefused(later, { status: 400, says: /^Identity not found: / });
    // Client ID and resource ID need two requests upstream.
    assertUpstream(testBed, ['node', 'exc-named', 'exc-named']);
    return 'node identity and a named one for the excepted pod, until its exception was deleted';
  },
};

const noException: Scenario = {
  name: 'not-excepted',
  title:
    'An exception of another namespace, one without labels, and a pod named mic except no pod.',
  needs: 'any',
  inTour: false,
  run: async (testBed) => {
    testBed.addException('empty', {});
    testBed.addException('infra', { app: 'infra' });
    const elsewhere = { name: 'elsewhere', namespace: 'other', labels: { app: 'infra' } };
    const pods = [
      await testBed.addPod(elsewhere),
      await testBed.addPod({ name: 'plain' }),
      await testBed.addPod({ name: 'labelled', labels: { app: 'web' } }),
      await testBed.addPod({ name: 'mic-7d9f8-x2x4z', labels: { component: 'mic' } }),
    ];
    const infra = await testBed.addPod({
      name: 'infra',
      labels: { app: 'INFRA' },
      excepted: true,
    });
    await testBed.untilAgentKnows();
    const control = 'https://not-excepted.lab';
    assertToken(await infra.ask({ resource: control }), 'node');
    for (const pod of pods) {
      const reply = await pod.ask({ resource: control });
      assertRefused(reply, { status: 400, says: /^Identity not found: / });
    }
    assertUpstream(testBed, ['node']);
    return 'four pods refused, one excepted pod served';
  },
};

export const exceptionScenarios: readonly Scenario[] = [exception, noException];
