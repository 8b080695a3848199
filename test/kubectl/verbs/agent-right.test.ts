import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { ProgramRun } from '../../../src/kubectl/base/io.ts';
import { ordersId, tenant } from '../support/fake-az.ts';
import {
  boundTestBed,
  clientA,
  createAgentPod,
  createIdentity,
  createPod,
  failed,
  kinds,
  ok,
  play,
  type Recorded,
} from '../support/recorded-kubectl.ts';

const federated = { type: 3, clientID: clientA, tenantID: tenant };
const assigned = { type: 0, clientID: clientA, resourceID: ordersId };
const account = '--as=system:serviceaccount:kube-system:default';
const no = { ...ok('no\n'), code: 1 };
const mayNotImpersonate = failed(
  'Error from server (Forbidden): serviceaccounts "default" is forbidden: User "dev" cannot impersonate resource "serviceaccounts" in API group "" in the namespace "kube-system"\n',
);

/** @param answers of the API server: as itself, and as its node. */
function bedOf(spec: object, answers: readonly ProgramRun[], changes: Recorded['objects'] = {}) {
  const asked: (readonly string[])[] = [];
  const recorded: Recorded = {
    ...boundTestBed({
      pods: [createPod('web', { labels: { aadpodidbinding: 'orders' } }), createAgentPod('node-1')],
      [kinds.identities]: [createIdentity('orders', spec)],
      ...changes,
    }),
    other: (_program, args) => {
      if (args[0] === 'auth') return answers[asked.push(args) - 1];
      return ok(args[0] === 'patch' ? 'patched\n' : '{"issuer":"https://oidc.example/"}');
    },
  };
  return { recorded, asked };
}

const explain = ['explain', 'pod', 'web', '-v'];
const toFederation = ['migrate', 'to-federation', '--tenant-id', tenant, '--apply'];

describe('the right of the agents to create tokens of service accounts', () => {
  it('is asked as doctor asks, for the namespace of the identity', async () => {
    const { recorded, asked } = bedOf(federated, [no, ok('yes\n')]);
    const { code, stdout } = await play(explain, recorded);
    assert.equal(code, 0);
    assert.doesNotMatch(stdout, /rights of the agents/);
    const words = ['serviceaccounts', '--subresource=token', '--namespace=shop', account];
    assert.deepEqual(asked, [
      ['auth', 'can-i', 'create', ...words, '--request-timeout=15s'],
      [
        ...['auth', 'can-i', 'impersonate-on:associated-node:create', ...words],
        '--request-timeout=15s',
      ],
    ]);
  });

  it('refuses the pods of a federated identity, if the agents lack it', async () => {
    const { code, stdout } = await play(explain, bedOf(federated, [no, no]).recorded);
    assert.equal(code, 1);
    assert.match(stdout, /^pod shop\/web: REFUSED, gets no token: agent_rights\n/);
    assert.match(
      stdout,
      /error {3}ServiceAccount kube-system\/default: agent_rights\n +It may not create serviceaccounts\/token in namespace shop, which AzureIdentity shop\/orders needs\.\n +fix: Set rbac\.allowFederation of the chart/,
    );
  });

  it('is not checked where the user may not ask, or nothing proves who the agents are', async () => {
    const { code, stdout } = await play(explain, bedOf(federated, [mayNotImpersonate]).recorded);
    assert.equal(code, 0);
    assert.match(
      stdout,
      /\n {2}rights of the agents\n {4}cannot ask for the rights of the agents, as kubectl nmi doctor does: no right; RBAC rule: .*"impersonate"/,
    );
    const { recorded, asked } = bedOf(federated, []);
    const unproven = await play(explain, {
      ...recorded,
      forbidden: { [kinds.daemonSets]: 'everywhere' },
    });
    assert.match(unproven.stdout, /cannot ask for the rights of the agents.*: nothing proves that/);
    assert.deepEqual(asked, []);
  });

  it('does not matter for other types, and for what objects refuse', async () => {
    for (const { recorded, asked } of [
      bedOf(assigned, []),
      bedOf(federated, [], { [kinds.bindings]: [] }),
    ]) {
      const { stdout } = await play(explain, recorded);
      assert.doesNotMatch(stdout, /rights of the agents/);
      assert.deepEqual(asked, []);
    }
  });

  it('is what migrate to-federation needs before it changes a serving identity', async () => {
    const patched = (calls: readonly (readonly string[])[]) =>
      calls.some(([, verb]) => verb === 'patch');
    const lacking = await play(toFederation, bedOf(assigned, [no, no]).recorded);
    assert.deepEqual([lacking.code, patched(lacking.calls)], [1, false]);
    assert.match(
      lacking.stderr,
      /^error: the agents lack a right, and pods would be refused: It may not create serviceaccounts\/token in namespace shop.*\nSet rbac\.allowFederation/,
    );
    const shown = await play(toFederation.slice(0, -1), bedOf(assigned, [no, no]).recorded);
    assert.equal(shown.code, 0);
    assert.match(shown.stdout, /They lack it, so --apply refuses\./);
    const given = await play(toFederation, bedOf(assigned, [ok('yes\n')]).recorded);
    assert.deepEqual([given.code, patched(given.calls)], [0, true]);
    assert.doesNotMatch(given.stdout, /The agents need the right/);
    const unknown = await play(toFederation, bedOf(assigned, [mayNotImpersonate]).recorded);
    assert.deepEqual([unknown.code, patched(unknown.calls)], [0, true]);
    assert.match(unknown.stdout, /Whether they have it was not checked: no right; RBAC rule/);
  });
});
