/** Which identity a pod gets: one, several, by each selector, none. */
import assert from 'node:assert/strict';
import { createLabIdentity } from '../../fakes/identity.ts';
import {
  createAzureIdentity,
  createAzureIdentityBinding,
  createPodManifest,
} from '../../fakes/kube/manifests.ts';
import {
  assertRefused,
  assertToken,
  assertUntouched,
  assertUpstream,
} from '../../test-bed/reply-checks.ts';
import type { Scenario } from '../../test-bed/scenario.ts';
import { nodeName, type TestBed } from '../../test-bed/test-bed.ts';

const hourMs = 3_600_000;

const oneIdentity: Scenario = {
  name: 'one-identity',
  title:
    'A labeled pod gets the token of its own identity: by default, by client id and by resource id.',
  needs: 'any',
  inTour: true,
  run: async (testBed) => {
    const identity = testBed.bind('one', 'one');
    const pod = await testBed.addPod({ name: 'app', binding: 'one' });
    for (const query of [
      undefined,
      `client_id=${identity.clientId}`,
      `msi_res_id=${encodeURIComponent(identity.resourceId)}`,
    ]) {
      const reply = await pod.ask(query === undefined ? {} : { query });
      assertToken(reply, 'one');
      assert.equal(reply.body['resource'], 'https://vault.azure.net');
      assert.equal(reply.body['client_id'], identity.clientId);
      assert.match(String(reply.body['expires_in']), /^\d+$/);
    }
    assertUpstream(testBed, ['one']);
    return 'three requests, one fetch upstream, the pod’s own identity each time';
  },
};

/** Two identities on one selector; the older one is second by name. */
async function bindTwo(testBed: TestBed, selector: string) {
  const older = testBed.assignIdentity(`${selector}-zeta`);
  const { name, clientId, resourceId } = older;
  const createdAtWallMs = Date.now() - hourMs;
  testBed.kube.apply(createAzureIdentity({ name, clientId, resourceId, createdAtWallMs }));
  testBed.addBinding(name, name, selector);
  const newer = testBed.bind(`${selector}-alpha`, selector);
  const pod = await testBed.addPod({ name: 'app', binding: selector });
  await testBed.untilAgentKnows();
  return { older, newer, pod };
}

const twoIdentities: Scenario = {
  name: 'two-identities',
  title:
    'With two identities bound, the request selects one by any id in any letter case; the default is the oldest.',
  needs: 'any',
  inTour: true,
  run: async (testBed) => {
    const foreign = testBed.bind('two-foreign', 'elsewhere');
    const { older, newer, pod } = await bindTwo(testBed, 'two');
    assertToken(await pod.ask(), older.name);
    assertUpstream(testBed, [older.name]);
    for (const { name, clientId, objectId, resourceId } of [newer, older]) {
      for (const query of [
        `client_id=${clientId}`,
        `client_id=${clientId.toUpperCase()}`,
        `msi_res_id=${encodeURIComponent(resourceId.toUpperCase())}`,
        `mi_res_id=${encodeURIComponent(resourceId.toLowerCase())}`,
        `object_id=${objectId}`,
        `object_id=${objectId.toUpperCase()}`,
      ]) {
        assertToken(await pod.ask({ query }), name);
      }
    }
    for (const query of [
      `client_id=${foreign.clientId}`,
      `msi_res_id=${encodeURIComponent(foreign.resourceId)}`,
      `object_id=${foreign.objectId}`,
    ]) {
      const reply = await pod.ask({ query });
      assertRefused(reply, { status: 400, says: /^Identity not found: no identity of pod / });
    }
    assertUpstream(testBed, [older.name, newer.name]);
    const named = testBed.imds.requests().filter(({ target }) => target.includes(foreign.clientId));
    assert.deepEqual(named, [], 'the foreign identity was requested upstream');
    return 'each by its four IDs in either letter case, the older one by default, a foreign one never';
  },
};

const strictIdentity: Scenario = {
  name: 'strict-identity',
  title: 'With --strict-identity, a request that names none of several identities is refused.',
  needs: 'any',
  inTour: false,
  agentFlags: ['--strict-identity'],
  run: async (testBed) => {
    const { older, newer, pod } = await bindTwo(testBed, 'strict');
    const reply = await pod.ask();
    assertRefused(reply, { status: 400, says: /^Multiple user assigned identities exist, / });
    for (const { clientId } of [older, newer]) assert.ok(reply.text.includes(clientId));
    assertUntouched(testBed);
    assertToken(await pod.ask({ query: `client_id=${newer.clientId}` }), newer.name);
    testBed.deleteObject('AzureIdentityBinding', older.name);
    await testBed.untilAgentKnows();
    assertToken(await pod.ask(), newer.name);
    assertUpstream(testBed, [newer.name]);
    return 'refused while two are bound, served when one is named or only one is left';
  },
};

const resourceIdOnly: Scenario = {
  name: 'resource-id-only',
  title:
    'An AzureIdentity without a client id is requested by its resource id; one without both is refused.',
  needs: 'any',
  inTour: false,
  run: async (testBed) => {
    const { name, resourceId } = testBed.assignIdentity('by-resource');
    testBed.kube.apply(createAzureIdentity({ name, clientId: '', resourceId }));
    testBed.addBinding(name, name, name);
    testBed.kube.apply(createAzureIdentity({ name: 'nameless', clientId: ' ', resourceId: '' }));
    testBed.addBinding('nameless', 'nameless', 'nameless');
    const pod = await testBed.addPod({ name: 'app', binding: name });
    const nameless = await testBed.addPod({ name: 'nameless', binding: 'nameless' });
    const reply = await nameless.ask();
    assertRefused(reply, { status: 400, says: /^Identity not found: .*neither spec\.clientID/ });
    assertUntouched(testBed);
    assertToken(await pod.ask(), name);
    assertUpstream(testBed, [name]);
    return 'fetched by resource ID; the one without IDs refused and not fetched as the node’s own';
  },
};

const twoNamespaces: Scenario = {
  name: 'two-namespaces',
  title: 'Pods, bindings and identities with equal names in two namespaces are kept apart.',
  needs: 'any',
  inTour: false,
  run: async (testBed) => {
    const teams = await Promise.all(
      ['team-a', 'team-b'].map(async (namespace) => {
        const identity = testBed.addIdentity('shared', namespace, `${namespace}-shared`);
        testBed.addBinding('shared', 'shared', 'shared', namespace);
        const pod = await testBed.addPod({ name: `${namespace}-web`, namespace, announced: false });
        const { ip, uid } = pod;
        const [ips, hostIp] = [[ip], testBed.environment.nodeIp];
        testBed.kube.apply(
          createPodManifest({
            name: 'web',
            namespace,
            uid,
            nodeName,
            ips,
            hostIp,
            binding: 'shared',
          }),
        );
        return { pod, identity };
      }),
    );
    // A third namespace has only the pod and the binding; it must not use another one's identity.
    testBed.kube.apply(
      createAzureIdentityBinding({
        name: 'shared',
        namespace: 'team-c',
        azureIdentity: 'shared',
        selector: 'shared',
      }),
    );
    const poor = await testBed.addPod({
      name: 'team-c-web',
      namespace: 'team-c',
      binding: 'shared',
    });
    const lacking = poor.ask();
    for (const { pod, identity } of teams) {
      assertToken(await pod.ask(), identity.name);
      for (const other of teams) {
        const reply = await pod.ask({ query: `client_id=${other.identity.clientId}` });
        if (other.pod === pod) assertToken(reply, identity.name);
        else assertRefused(reply, { status: 400, says: /^Identity not found: / });
      }
    }
    assertRefused(await lacking, {
      status: 503,
      says: /^Identity not found: .*namespace team-c has no AzureIdentity shared/,
    });
    assertUpstream(testBed, ['team-a-shared', 'team-b-shared']);
    return 'each pod got only the identity of its own namespace, even by client ID';
  },
};

const noIdentity: Scenario = {
  name: 'no-identity',
  title: 'A pod without the label, or with an empty one, gets no token.',
  needs: 'any',
  inTour: false,
  run: async (testBed) => {
    const identity = testBed.bind('unlabelled', 'unlabelled');
    // An empty selector must not match an empty label.
    testBed.addBinding('empty', 'unlabelled', '');
    const pods = [
      await testBed.addPod({ name: 'plain' }),
      await testBed.addPod({ name: 'empty', binding: '' }),
      await testBed.addPod({ name: 'other-label', labels: { app: 'unlabelled' } }),
    ];
    await testBed.untilAgentKnows();
    for (const pod of pods) {
      for (const query of ['', `client_id=${identity.clientId}`]) {
        const reply = await pod.ask({ query });
        const says = new RegExp(`^Identity not found: pod default/${pod.name} has no label `);
        assertRefused(reply, { status: 400, says });
        assert.ok(reply.ownMs < 1_000, 'a permanent error was delayed');
      }
    }
    assertUntouched(testBed);
    return 'three such pods refused at once with 400, nothing reached the real service';
  },
};

const unassigned: Scenario = {
  name: 'not-assigned',
  title:
    'An identity that is not assigned to the node is refused; the error has the command that assigns it.',
  needs: 'any',
  inTour: false,
  run: async (testBed) => {
    const { name, clientId, resourceId } = createLabIdentity('unassigned');
    testBed.kube.apply(createAzureIdentity({ name, clientId, resourceId }));
    testBed.addBinding(name, name, name);
    const pod = await testBed.addPod({ name: 'app', binding: name });
    const replies = [await pod.ask(), await pod.ask({ query: `client_id=${clientId}` })];
    for (const reply of replies) {
      assertRefused(reply, {
        status: 400,
        says: /^Identity not found: .*not assigned to this node/,
      });
      const command = `kubectl nmi identity assign ${name} -n default `;
      assert.ok(reply.text.includes(command), reply.text);
    }
    assertUpstream(testBed, []);
    const asked = testBed.imds.requests().map(({ target }) => target.includes(clientId));
    assert.deepEqual(asked, [true], 'expected one request for both');
    return 'refused with the command; one request upstream for two from the pod';
  },
};

export const identityScenarios: readonly Scenario[] = [
  oneIdentity,
  twoIdentities,
  resourceIdOnly,
  twoNamespaces,
  noIdentity,
  unassigned,
  strictIdentity,
];
