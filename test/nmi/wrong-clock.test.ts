/**
 * A node with a clock that is an hour off gets tokens like any other node, and none beyond their
 * life.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { systemClock } from '../../src/base/time/clock.ts';
import { createEntraApplication } from '../../lab/fakes/entra/applications.ts';
import { createAzureIdentity, createAzureIdentityBinding } from '../../lab/fakes/kube/manifests.ts';
import { ask, tokenTarget } from '../support/ask.ts';
import {
  bindApplication,
  bindPod,
  credentialKinds,
  openEntraAgent,
} from '../support/entra-agent.ts';
import { idsOf, identityA } from '../support/loopback-agent.ts';

const hourMs = 3_600_000;
/** Without certificates: MSAL signs with the time of the process, which Entra ID checks. */
const kinds = credentialKinds.filter((kind) => kind !== 'certificate');

describe('a node with a clock an hour', () => {
  for (const [how, aheadMs] of [
    ['ahead', hourMs],
    ['behind', -hourMs],
  ] as const) {
    it(`${how} gets tokens of types 0, 1, 3 and 4, and keeps them`, async () => {
      const clock = { ...systemClock, wallMs: () => systemClock.wallMs() + aheadMs };
      await using agent = await openEntraAgent(
        {},
        async (testBed) => {
          bindPod(testBed.kube);
          for (const kind of kinds) await bindApplication(testBed, kind, kind);
          testBed.entra.setTokenLifetime(hourMs);
          testBed.kube.apply(createAzureIdentity({ name: 'a', ...idsOf(identityA) }));
          const binding = { name: 'a', azureIdentity: 'a', selector: 'app' };
          testBed.kube.apply(createAzureIdentityBinding(binding));
        },
        { clock },
      );
      agent.imds.setTokenLifetime(hourMs);
      const pod = agent.client('127.0.0.11');
      const clientIds = kinds.map((kind) => createEntraApplication(kind).clientId);
      for (const clientId of [identityA.clientId, ...clientIds]) {
        const reply = await ask(pod, `${tokenTarget}&client_id=${clientId}`);
        assert.equal(reply.status, 200, reply.text);
        const endsInS = Number(reply.body['expires_on']) - Date.now() / 1000;
        assert.ok(endsInS > 3_500 && endsInS <= 3_600, `it ends in ${endsInS} s`);
        // A pod that gets an hour, while its clock is corrected meanwhile, would keep the token too
        // long.
        const toldS = Number(reply.body['expires_in']);
        const [least, most] = how === 'ahead' ? [300, 300] : [3_500, 3_600];
        assert.ok(toldS >= least && toldS <= most, `${toldS} s`);
        assert.equal((await ask(pod, `${tokenTarget}&client_id=${clientId}`)).status, 200);
      }
      assert.equal(agent.entra.requests().length, kinds.length);
      assert.equal(agent.imds.requests().length, 2, 'of type 0, and the assertion of type 4');
    });
  }
});
