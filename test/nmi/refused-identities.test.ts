/**
 * The whole agent with an identity that its source begins to refuse: what pods get and what is
 * reported, while cached tokens last, after them, and after the repair.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { asRecord, stringAt } from '../../src/base/json-value.ts';
import { eventReasonOf } from '../../src/nmi/kube/events/event.ts';
import { eventually } from '../../lab/test-bed/eventually.ts';
import { fakeResources } from '../../lab/fakes/kube/resources.ts';
import { inMovedTime, MovedTime } from '../conformance/own-agent.ts';
import { ask, tokenTarget } from '../support/ask.ts';
import { bindPod, openEntraAgent, type EntraAgent } from '../support/entra-agent.ts';
import { refusedIdentities, type RefusedIdentity } from '../support/refused-identities.ts';

const minuteMs = 60_000;
const lifeMs = 60 * minuteMs;

/** An agent whose pod has had a token of an hour. */
async function openWith({ prepare }: RefusedIdentity): Promise<EntraAgent> {
  const agent = await openEntraAgent(
    inMovedTime,
    async (testBed) => {
      bindPod(testBed.kube);
      await prepare(testBed);
    },
    { tuning: { identityEventJitterMs: 0, bindingGraceMs: 0 } },
  );
  agent.imds.setTokenLifetime(lifeMs);
  return agent;
}

function fetchFor(agent: EntraAgent) {
  return ask(agent.client('127.0.0.11'), tokenTarget);
}

/** Of the AzureIdentity, in the order of their times. */
function eventsOn({ kube }: EntraAgent, name: string) {
  const resource = fakeResources.find(({ plural }) => plural === 'events');
  assert.ok(resource !== undefined);
  return kube.store
    .list(resource)
    .map((event) => ({
      regarding: asRecord(event['regarding']),
      atWallMs: Date.parse(stringAt(event, 'eventTime')),
      type: stringAt(event, 'type'),
      reason: stringAt(event, 'reason'),
      note: stringAt(event, 'note'),
    }))
    .filter(
      ({ regarding }) => regarding?.['kind'] === 'AzureIdentity' && regarding['name'] === name,
    )
    .toSorted((one, other) => one.atWallMs - other.atWallMs);
}

describe('an identity that its source begins to refuse', () => {
  for (const row of refusedIdentities) {
    const { mistake, name, reason, says } = row;
    it(`is reported from the first failed refresh on: ${mistake}`, async () => {
      using time = new MovedTime();
      await using agent = await openWith(row);
      assert.equal((await fetchFor(agent)).status, 200);
      assert.deepEqual(eventsOn(agent, name), []);

      row.refuse(agent);
      time.pass(lifeMs - 3 * minuteMs);
      // While they wait, a federated credential is tried again.
      await eventually(async () => {
        assert.equal((await fetchFor(agent)).status, 200);
        assert.equal(eventsOn(agent, name).length, 1);
      }, 10_000);
      const [event] = eventsOn(agent, name);
      assert.deepEqual([event?.type, event?.reason], ['Warning', eventReasonOf(reason)]);
      assert.match(event?.note ?? '', says);
      const until = /Cached tokens are valid until (\S+Z)\./.exec(event?.note ?? '')?.[1] ?? '';
      const lastsMs = Date.parse(until) - Date.now();
      assert.ok(lastsMs > 0 && lastsMs <= lifeMs, `${until}: ${lastsMs} ms`);

      time.pass(2 * lifeMs);
      const refused = await fetchFor(agent);
      assert.ok(refused.status >= 400, refused.text);
      assert.equal(eventsOn(agent, name).at(-1)?.type, 'Warning');

      row.repair(agent);
      time.pass(2 * minuteMs);
      await eventually(async () => {
        assert.equal((await fetchFor(agent)).status, 200);
        const last = eventsOn(agent, name).at(-1);
        assert.deepEqual([last?.type, last?.reason], ['Normal', 'IdentityAccepted']);
      }, 10_000);
      assert.equal(
        eventsOn(agent, name).filter(({ type }) => type === 'Normal').length,
        1,
        'accepted once',
      );
    });
  }
});
