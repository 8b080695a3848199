/**
 * The whole agent with an identity that its source begins to refuse: what pods get and what is
 * reported, while cached tokens last, after them, and after the repair.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { request, type IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { json } from 'node:stream/consumers';
import { describe, it } from 'node:test';
import type { PodExplanation } from '../../../src/nmi/explain/explanation.ts';
import { refusals } from '../../../src/nmi/base/answers.ts';
import type { RawObject } from '../../../src/kubectl/base/object.ts';
import { asRecord, parseRecord, stringAt } from '../../../src/base/json-value.ts';
import { eventReasonOf } from '../../../src/nmi/kube/events/event.ts';
import { eventually } from '../../../lab/test-bed/eventually.ts';
import { fakeResources } from '../../../lab/fakes/kube/resources.ts';
import { inMovedTime, MovedTime } from '../../conformance/own-agent.ts';
import { ask, tokenTarget } from '../../support/ask.ts';
import { bindPod, openEntraAgent, type EntraAgent } from '../../support/entra-agent.ts';
import { createAgentPod, kinds, ok, play, type Recorded } from '../kubectl/recorded-kubectl.ts';
import { refusedIdentities, type RefusedIdentity } from '../../support/refused-identities.ts';

const minuteMs = 60_000;
const lifeMs = 60 * minuteMs;

/** An agent whose pod has had a token of an hour. */
async function openWith({ prepare }: RefusedIdentity, explainSocket: string): Promise<EntraAgent> {
  const agent = await openEntraAgent(
    inMovedTime,
    async (testBed) => {
      bindPod(testBed.kube);
      await prepare(testBed);
    },
    { explainSocket, tuning: { identityEventJitterMs: 0, identityBreakMs: 0, bindingGraceMs: 0 } },
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

/** By `kubectl nmi`, with the Events of the API server: the verdict, and whether `analyze` finds the code. */
async function plugin({ kube }: EntraAgent, code: string) {
  const list = (plural: string): readonly RawObject[] => {
    const resource = fakeResources.find((each) => each.plural === plural);
    return resource === undefined ? [] : kube.store.list(resource);
  };
  // As `/api/v1` has them.
  const events = list('events').map((event) => ({
    ...event,
    involvedObject: event['regarding'],
    reportingComponent: event['reportingController'],
    message: event['note'],
  }));
  const recorded: Recorded = {
    wallMs: Date.now(),
    objects: {
      pods: [...list('pods'), createAgentPod('node-1')],
      [kinds.identities]: list('azureidentities'),
      [kinds.bindings]: list('azureidentitybindings'),
      events,
    },
    other: () => ok('yes\n'),
  };
  const explained = await play(['explain', 'pod', 'p', '-n', 'default', '-o', 'json'], recorded);
  const { verdict, summary } = JSON.parse(explained.stdout) as {
    verdict: string;
    summary: string;
  };
  const analyzed = await play(['analyze', '-n', 'default'], recorded);
  const isFound = analyzed.stdout.includes(`: ${code}\n`);
  return `${verdict} ${explained.code}, ${isFound ? 'found' : 'not found'} ${analyzed.code}: ${summary}`;
}

async function explain(socketPath: string) {
  const asked = request({ socketPath, path: '/explain?pod=default%2Fp' }).end();
  const [response] = (await once(asked, 'response')) as [IncomingMessage];
  const { requests, findings } = (await json(response)) as PodExplanation;
  return { outcome: requests[0]?.outcome, findings };
}

/** The series of the identity, without its value. */
async function metricsOf({ adminPort }: EntraAgent, name: string): Promise<readonly string[]> {
  const page = await (await fetch(`http://127.0.0.1:${adminPort}/metrics`)).text();
  const series = `nmi_identity_refused_expiry_seconds{namespace="default",identity="${name}"`;
  return page.split('\n').filter((line) => line.startsWith(series));
}

function failuresIn({ log }: EntraAgent): readonly string[] {
  return log
    .map((line) => parseRecord(line) ?? {})
    .filter(({ msg }) => msg === 'token fetch failed')
    .map((line) => ['namespace', 'identity', 'reason'].map((key) => stringAt(line, key)).join(' '));
}

describe('an identity that its source begins to refuse', () => {
  for (const row of refusedIdentities) {
    const { mistake, name, reason, says } = row;
    it(`is reported from the first failed refresh on: ${mistake}`, async (t) => {
      using time = new MovedTime();
      const folder = mkdtempSync(join(tmpdir(), 'nmi-refused-'));
      t.after(() => rmSync(folder, { recursive: true, force: true }));
      const socket = join(folder, 'explain.sock');
      await using agent = await openWith(row, socket);
      assert.equal((await fetchFor(agent)).status, 200);
      assert.deepEqual(eventsOn(agent, name), []);
      assert.deepEqual(await metricsOf(agent, name), []);
      const healthy = await explain(socket);
      assert.deepEqual([healthy.outcome?.kind, healthy.findings], ['granted', []]);
      const granted = /^granted 0, not found 0: /;
      assert.match(await plugin(agent, reason), granted);

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

      const isDown = reason === 'upstream_down';
      const { status } = refusals[reason];
      const gets = `${isDown ? 'not-ready' : 'refused'} 1, found 1: gets ${status} ${reason}`;
      const forNew = `${gets} for new tokens; cached ones are valid until ${until}`;
      assert.equal(await plugin(agent, reason), forNew);
      const lasting = await explain(socket);
      assert.ok(lasting.outcome?.kind === 'granted');
      assert.equal(lasting.outcome.until?.refusal.reason, reason);
      assert.ok(Date.parse(lasting.outcome.until.at) > Date.now());
      const object = `AzureIdentity default/${name}`;
      const finding = lasting.findings.find((each) => each.object === object);
      assert.deepEqual([finding?.code, finding?.severity], [reason, 'warning']);
      assert.ok(failuresIn(agent).includes(`default default/${name} ${reason}`));
      const labels = `",cause="${isDown ? 'platform' : 'object'}",reason="${reason}"} `;
      const [series = '', ...others] = await metricsOf(agent, name);
      assert.ok(others.length === 0 && series.includes(labels), series);
      assert.ok(Number(series.split(' ').at(-1)) > 0);

      time.pass(2 * lifeMs);
      const refused = await fetchFor(agent);
      assert.ok(refused.status >= 400, refused.text);
      assert.equal(eventsOn(agent, name).at(-1)?.type, 'Warning');
      const pending = 'not-ready 1, not found 0: gets 503 federation_pending: not yet';
      // The Event of the pod is written after the answer.
      await eventually(async () => {
        const isPending = refused.status === 503 && !isDown;
        assert.equal(await plugin(agent, reason), isPending ? pending : gets);
      }, 10_000);
      const { outcome } = await explain(socket);
      assert.ok(outcome?.kind === 'refused');
      const [spent = ''] = await metricsOf(agent, name);
      assert.ok(spent.endsWith('"} 0'), spent);

      row.repair(agent);
      time.pass(2 * minuteMs);
      await eventually(async () => {
        assert.equal((await fetchFor(agent)).status, 200);
        const last = eventsOn(agent, name).at(-1);
        assert.deepEqual([last?.type, last?.reason], ['Normal', 'IdentityAccepted']);
      }, 10_000);
      assert.match(await plugin(agent, reason), granted);
      const repaired = await explain(socket);
      assert.ok(repaired.outcome?.kind === 'granted');
      assert.deepEqual([repaired.outcome.until, repaired.findings], [undefined, []]);
      assert.deepEqual(await metricsOf(agent, name), []);
      assert.equal(
        eventsOn(agent, name).filter(({ type }) => type === 'Normal').length,
        1,
        'accepted once',
      );
    });
  }
});
