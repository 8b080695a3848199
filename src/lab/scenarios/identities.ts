/** Which identity a pod gets: one, several, by each selector, none. */
import assert from 'node:assert/strict';
import type { Scenario } from '../scenario.ts';

export const oneIdentity: Scenario = {
  name: 'one-identity',
  title:
    'A labelled pod gets the token of its own identity, by default, client id and resource id.',
  needs: 'any',
  inTour: true,
  run: async (world) => {
    const identity = world.bind('app-a', 'app-a');
    const pod = await world.addPod({ name: 'app', binding: 'app-a' });
    for (const query of [
      undefined,
      `client_id=${identity.clientId}`,
      `msi_res_id=${encodeURIComponent(identity.resourceId)}`,
    ]) {
      const reply = await pod.ask(query === undefined ? {} : { query });
      assert.equal(reply.status, 200);
      assert.equal(reply.identity, 'app-a');
    }
    const upstream = world.upstreamTokens();
    assert.deepEqual(upstream, [`app-a to ${world.ground.nodeIp}`]);
    return 'three requests, one fetch upstream, identity app-a each time';
  },
};

export const leak: Scenario = {
  name: 'leak',
  title: 'A pod without an identity never reaches the real metadata service.',
  needs: 'namespaces',
  inTour: true,
  run: async (world) => {
    const pod = await world.addPod({ name: 'stranger' });
    const reply = await pod.ask();
    assert.equal(reply.identity, undefined, `the pod holds a token of ${reply.identity}`);
    assert.equal(reply.status, 400);
    assert.match(String(reply.body['error_description']), /^Identity not found/);
    assert.deepEqual(world.upstreamTokens(), []);
    return 'refused with 400, nothing reached the real service';
  },
};
