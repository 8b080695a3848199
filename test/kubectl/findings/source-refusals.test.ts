import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { sourceReportsOf } from '../../../src/kubectl/cluster/source-reports.ts';
import type { RawObject } from '../../../src/kubectl/base/object.ts';
import { sourceRefusalOf } from '../../../src/kubectl/findings/source-refusals.ts';
import { assess, two, verdictOf, web } from '../support/assess.ts';
import { createEvent, type EventFields } from '../support/events.ts';
import {
  boundTestBed,
  createAgentPod,
  createIdentity,
  createPod,
  nowWallMs,
  play,
} from '../support/recorded-kubectl.ts';

const orders = createIdentity('orders');
const minute = 60_000;
const until = '2026-11-27T06:40:00Z';
const note = 'Entra ID refuses the secret: AADSTS7000222: it has expired. (credential_refused)';
const cachedNote = `${note} Cached tokens are valid until ${until}. Fix: Renew it.`;
const reason = 'CredentialRefused';
const of = (...fields: readonly EventFields[]) => fields.map((each) => createEvent(orders, each));
const ofPod = (fields: EventFields, pod = web) => createEvent(pod, { related: orders, ...fields });
const reportsOf = (events: readonly RawObject[]) => sourceReportsOf(events, nowWallMs);
const verdictWith = (...events: readonly RawObject[]) =>
  verdictOf(web, { reports: reportsOf(events) });
const accepted = { reason: 'IdentityAccepted', agoMs: minute };
const refused = 'refused gets 400 credential_refused';
const granted = /^granted gets a token of AzureIdentity orders/;

describe('a refusal by the source of an identity', () => {
  it('refuses the pods of the identity, for new tokens while cached ones are valid', () => {
    assert.equal(verdictWith(...of({ reason })), refused);
    assert.equal(
      verdictWith(...of({ reason, note: cachedNote })),
      `${refused} for new tokens; cached ones are valid until ${until}`,
    );
    const refusedPod = ofPod({ reason, note });
    assert.equal(verdictWith(...of({ reason, note: cachedNote }), refusedPod), refused);
    assert.equal(verdictWith(refusedPod), refused);
    const { findings } = assess(web, { reports: reportsOf(of({ reason, note: cachedNote })) });
    const [finding] = findings;
    assert.equal(finding?.object, 'AzureIdentity shop/orders');
    assert.deepEqual([finding.code, finding.severity], ['credential_refused', 'error']);
    assert.equal(
      finding.text,
      `The agent of node node-1 reported at 2026-11-27T05:59:00Z: ${note} Cached tokens are valid until ${until}.`,
    );
    assert.match(finding.fix, /^Renew a secret or certificate/, 'not the fix of an Event');
  });

  it('ends with a later acceptance, and is in force again after another', () => {
    const before = of({ reason, agoMs: 2 * minute });
    assert.match(verdictWith(...before, ...of(accepted)), granted);
    assert.match(
      verdictWith(ofPod({ reason, agoMs: 2 * minute }), ...of(accepted)),
      granted,
      'the pod does not have to request again',
    );
    const again = of({ reason, agoMs: 30_000 });
    assert.equal(verdictWith(...before, ...of(accepted), ...again), refused);
    assert.equal(verdictWith(...again, ...of(accepted)), refused);
    const same = of({ reason, agoMs: minute }, accepted);
    assert.equal(verdictWith(...same), refused, 'an acceptance has to be later');
    assert.match(verdictWith(...of(accepted)), granted);
  });

  it('is the latest of several', () => {
    const events = of({ reason: 'IdentityRefused', agoMs: 3 * minute }, { reason });
    for (const each of [events, events.toReversed()]) assert.equal(verdictWith(...each), refused);
  });

  it('may be an error of the propagation in Entra ID', () => {
    const pending = [ofPod({ reason: 'FederationPending' })];
    assert.equal(verdictWith(...pending), 'not-ready gets 503 federation_pending: not yet');
    const { findings } = assess(web, { reports: reportsOf(pending) });
    assert.equal(findings[0]?.severity, 'warning');
    const both = [
      ofPod({ reason: 'FederationPending' }),
      ofPod({ reason: 'FederationRefused', agoMs: 1 }),
    ];
    assert.equal(verdictWith(...both), 'refused gets 400 federation_refused');
  });

  it('is of a scale set, if the identity is not assigned to it', () => {
    const elsewhere = { reason: 'IdentityNotAssigned', node: 'node-2' };
    assert.match(verdictWith(...of(elsewhere)), granted);
    const { findings } = assess(web, { reports: reportsOf(of(elsewhere)) });
    assert.deepEqual(
      findings.map(({ code, severity }) => `${severity} ${code}`),
      ['warning identity_not_assigned'],
    );
    const here = { ...elsewhere, node: 'node-1', agoMs: 2 * minute };
    const notAssigned = 'refused gets 400 identity_not_assigned';
    assert.equal(verdictWith(...of(elsewhere, here)), notAssigned);
    assert.equal(verdictWith(...of(here, { ...accepted, node: 'node-2' })), notAssigned);
    assert.match(verdictWith(...of(here, accepted)), granted);
    const ofPool = (instance: string) => `aks-pool1-1-vmss${instance}`;
    const pod = createPod('web', { spec: { nodeName: ofPool('00000a') } });
    const severityWith = (...events: readonly RawObject[]) =>
      sourceRefusalOf(pod, orders, reportsOf(events))?.finding.severity;
    const inPool = { ...elsewhere, node: ofPool('000001'), agoMs: 2 * minute };
    assert.equal(severityWith(...of(inPool)), 'error');
    assert.equal(severityWith(...of(inPool, { ...accepted, node: ofPool('00000b') })), undefined);
    assert.match(
      verdictWith(...of({ reason, agoMs: 2 * minute }, { ...accepted, node: 'node-2' })),
      granted,
    );
  });

  it('counts for a resource as a warning, and not at all if only a pod requests it', () => {
    const resource = { reason: 'ResourceRefused' };
    assert.match(verdictWith(...of(resource)), granted);
    const severities = (events: readonly RawObject[]) =>
      assess(web, { reports: reportsOf(events) }).findings.map(({ severity }) => severity);
    assert.deepEqual(severities(of(resource)), ['warning']);
    assert.deepEqual(severities([ofPod(resource)]), []);
  });

  it('does not count for another pod, object or identity of the same name', () => {
    const metadata = { name: 'web', namespace: 'shop', uid: 'uid-of-the-one-before' };
    assert.match(verdictWith(ofPod({ reason }, { ...web, metadata })), granted);
    const old = createEvent({ ...orders, metadata: { ...metadata, name: 'orders' } }, { reason });
    assert.match(verdictWith(old), granted);
    const stock = two.identities[1] ?? {};
    const events = [createEvent(stock, { reason }), ofPod({ reason, related: stock })];
    const { verdict, findings } = assess(web, { ...two, reports: reportsOf(events) });
    assert.equal(verdict.kind, 'granted');
    const found = findings.find(({ code }) => code === 'credential_refused');
    assert.deepEqual([found?.severity, found?.object], ['warning', 'AzureIdentity shop/stock']);
  });

  it('is reported on the pod, for an application of its service account', () => {
    const event = createEvent(web, { reason });
    const refusal = sourceRefusalOf(web, undefined, reportsOf([event]));
    assert.equal(refusal?.finding.object, 'Pod shop/web');
    assert.match(verdictWith(event), granted, 'it names no AzureIdentity');
    assert.equal(sourceRefusalOf(web, undefined, undefined), undefined);
  });

  it('never makes granted what objects refuse', () => {
    const events = [...of(accepted), ofPod({ reason, agoMs: 2 * minute })];
    const unbound = createPod('web');
    const reports = reportsOf(events);
    assert.equal(verdictOf(unbound, { reports }), 'refused gets 400 no_binding_label');
    assert.equal(verdictOf(web, { reports, agents: [] }), 'not-ready is not served: agent_missing');
  });

  it('decides the exit code of explain and analyze, and is in their JSON', async () => {
    const recorded = boundTestBed({ events: of({ reason, note: cachedNote }) });
    const explained = await play(['explain', 'pod', 'web', '-o', 'json'], recorded);
    assert.equal(explained.code, 1);
    const { verdict, summary, cachedUntil, findings } = JSON.parse(explained.stdout) as Record<
      string,
      unknown
    >;
    assert.deepEqual([verdict, cachedUntil], ['refused', until]);
    assert.match(String(summary), /for new tokens/);
    assert.match(JSON.stringify(findings), /"code":"credential_refused"/);
    const text = await play(['explain', 'pod', 'web'], recorded);
    assert.match(
      text.stdout,
      /^pod shop\/web: REFUSED, gets 400 credential_refused for new tokens/,
    );
    for (const words of [['-A'], ['-n', 'shop']]) {
      const analyzed = await play(['analyze', ...words], recorded);
      assert.equal(analyzed.code, 1);
      assert.match(analyzed.stdout, /^error {3}AzureIdentity shop\/orders: credential_refused$/m);
    }
  });

  it('is one finding for all pods of the identity', async () => {
    const api = createPod('api', { labels: { aadpodidbinding: 'orders' }, ip: '10.244.1.8' });
    const events = [
      ...of({ reason, note }),
      ofPod({ reason, note }),
      ofPod({ reason, note, agoMs: 5 }, api),
    ];
    const recorded = boundTestBed({ pods: [web, api, createAgentPod('node-1')], events });
    const { stdout } = await play(['analyze', '-n', 'shop'], recorded);
    assert.match(stdout, /^1 error, /m);
  });

  it('is named as not checked where the user may not list Events, or the agents write none', async () => {
    const forbidden = { events: 'everywhere' } as const;
    const { code, stdout } = await play(['explain', 'pod', 'web', '-v'], {
      ...boundTestBed({ events: of({ reason }) }),
      forbidden,
    });
    assert.equal(code, 0);
    assert.match(stdout, /^pod shop\/web: GRANTED, /);
    assert.match(stdout, /Not checked \(2; -v shows why\): .*; refusals of the last hour\./);
    assert.match(
      stdout,
      /\n {2}refusals of the last hour\n {4}cannot list events \(kubectl get events -n shop --field-selector=reportingComponent=entra-pod-identity\/nmi\): no right; RBAC rule: .*\["events"\]/,
    );
    const analyzed = await play(['analyze', '-n', 'shop'], { ...boundTestBed(), forbidden });
    assert.match(analyzed.stdout, /Not checked \(1; .*\): refusals of the last hour\./);
    const silent = [createAgentPod('node-1', { args: ['--events=false'] })];
    const pods = [web, ...silent];
    const none = await play(['explain', 'pod', 'web', '-v'], boundTestBed({ pods }));
    assert.match(none.stdout, /the agents write no Events \(--events=false\)/);
  });
});
