import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  readSourceReports,
  reportKey,
  sourceReportsOf,
} from '../../../src/kubectl/cluster/source-reports.ts';
import type { Unread } from '../../../src/kubectl/cluster/unread.ts';
import type { RawObject } from '../../../src/kubectl/base/object.ts';
import { Kubectl } from '../../../src/kubectl/transport/kubectl.ts';
import { createEvent, type EventFields } from '../support/events.ts';
import { createIdentity, createPod, nowWallMs } from '../support/recorded-kubectl.ts';
import { createIo } from '../support/silent-io.ts';

const orders = createIdentity('orders');
const reason = 'CredentialRefused';
const key = reportKey('AzureIdentity', 'shop', 'uid-shop-orders');
const reportsOf = (...events: readonly RawObject[]) => sourceReportsOf(events, nowWallMs);
const of = (fields: Partial<EventFields>) =>
  reportsOf(createEvent(orders, { reason, ...fields })).get(key)?.[0];

describe('reports of agents about sources', () => {
  it('are Events of our reporter, with a reason of the table and its type, of the last hour', () => {
    assert.deepEqual(of({ note: 'Entra ID refuses it. Fix: Renew it.' }), {
      code: 'credential_refused',
      atWallMs: nowWallMs - 60_000,
      node: 'node-1',
      identityUid: '',
      cachedUntil: undefined,
      text: 'Entra ID refuses it.',
    });
    assert.equal(of({ reason: 'IdentityAccepted' })?.code, 'accepted');
    assert.ok(of({ agoMs: 3_599_000 }));
    assert.ok(of({ agoMs: 299_000, reason: 'FederationPending' }));
    for (const fields of [
      { agoMs: 3_601_000 },
      { agoMs: 301_000, reason: 'FederationPending' },
      { reason: 'BindingMissing' },
      { reason: 'constructor' },
      { changes: { type: 'Normal' } },
      { reason: 'IdentityAccepted', changes: { type: 'Warning' } },
      { changes: { reportingComponent: 'kubelet' } },
      { changes: { eventTime: 'x' } },
      { changes: { metadata: { namespace: 'shop' } } },
      { changes: { involvedObject: { kind: 'Node', uid: 'uid-shop-orders' } } },
    ]) {
      assert.equal(of(fields), undefined, JSON.stringify(fields));
    }
  });

  it('have no time after that of the server, who alone cannot be lied to', () => {
    const eventTime = new Date(nowWallMs + 1e9).toISOString();
    assert.equal(of({ changes: { eventTime } })?.atWallMs, nowWallMs - 59_000);
  });

  it('are about objects of their own namespace', () => {
    const metadata = {
      namespace: 'other',
      creationTimestamp: new Date(nowWallMs).toISOString(),
    };
    assert.equal(of({ changes: { metadata } }), undefined);
  });

  it('name the identity that an Event about a pod is related to', () => {
    const pod = createPod('web');
    const reports = reportsOf(createEvent(pod, { reason, related: orders }));
    const [report] = reports.get(reportKey('Pod', 'shop', 'uid-shop-web')) ?? [];
    assert.equal(report?.identityUid, 'uid-shop-orders');
    const other = reportsOf(createEvent(pod, { reason, related: pod }));
    assert.equal([...other.values()][0]?.[0]?.identityUid, '');
  });

  it('say until when cached tokens are valid, while they are', () => {
    const until = (time: string) => of({ note: `Cached tokens are valid until ${time}.` });
    assert.equal(until('2026-11-27T06:00:01Z')?.cachedUntil, '2026-11-27T06:00:01Z');
    assert.equal(until('2026-11-27T06:00:00Z')?.cachedUntil, undefined);
    assert.equal(until('tomorrow')?.cachedUntil, undefined);
  });

  it('are short lines, whatever was written', () => {
    const report = of({ note: `a\u001b[31m\nb\u202e${'x'.repeat(9_999)}`, node: '\u0007n' });
    assert.match(report?.text ?? '', /^a\?\[31m\?b\?x{200,}$/);
    assert.equal(report?.text.length, 300);
    assert.equal(report.node, '?n');
  });

  it('are read by one bounded call, which the server filters', async () => {
    const calls: string[] = [];
    const one = createEvent(orders, { reason });
    const read = async (scope: string | undefined, count: number, stderr = '') => {
      const unread: Unread[] = [];
      const io = createIo((_, [, path = '']) => {
        calls.push(path);
        const items = Array.from({ length: count }, () => one);
        const stdout = JSON.stringify({ kind: 'EventList', apiVersion: 'v1', items });
        return Promise.resolve({ code: stderr === '' ? 0 : 1, stdout, stderr });
      });
      const reports = await readSourceReports(new Kubectl(io), scope, nowWallMs, unread);
      return [reports?.get(key)?.length, unread.map(({ what, why }) => `${what}: ${why}`)];
    };
    assert.deepEqual(await read('shop', 1), [1, []]);
    assert.deepEqual(await read(undefined, 5_000), [
      5_000,
      ['read all Events of the agents: there are more than 5000; -n reads those of one namespace'],
    ]);
    const query = '?fieldSelector=reportingComponent%3Dentra-pod-identity%2Fnmi&limit=5000';
    assert.deepEqual(calls, [
      `--raw=/api/v1/namespaces/shop/events${query}`,
      `--raw=/api/v1/events${query}`,
    ]);
    const forbidden =
      'Error from server (Forbidden): events is forbidden: User "dev" cannot list resource "events" in API group "" in the namespace "shop"';
    assert.deepEqual(await read('shop', 0, forbidden), [
      undefined,
      [
        'list events (kubectl get events -n shop --field-selector=reportingComponent=entra-pod-identity/nmi): no right; RBAC rule: apiGroups: [""], resources: ["events"], verbs: ["list"] in namespace shop',
      ],
    ]);
    const [, [everywhere]] = (await read(undefined, 0, forbidden)) as [unknown, string[]];
    assert.match(everywhere ?? '', /kubectl get events -A /);
  });
});
