import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { policiesAgainst } from '../../../src/kubectl/findings/network-policy.ts';
import { createObject, createPod } from '../support/recorded-kubectl.ts';

const pod = createPod('web', { labels: { app: 'web' } });
const target = { ip: '169.254.25.79', port: 2579 };
const block = (cidr: string, except: readonly string[] = []) => ({
  to: [{ ipBlock: { cidr, except } }],
});
const port = (fields: object) => ({ ports: [fields] });

/** Whether a block in doubt allows the connection must not matter, unless a test is about one. */
function against(...specs: readonly object[]): readonly string[] {
  const [cautious, lenient] = inDoubt(...specs);
  assert.deepEqual(cautious, lenient);
  return cautious;
}

function inDoubt(...specs: readonly object[]) {
  const policies = specs.map((spec, index) =>
    createObject('NetworkPolicy', `p${index}`, { podSelector: {}, ...spec }),
  );
  const of = (isInDoubt: boolean) => policiesAgainst(pod, policies, target, isInDoubt);
  return [of(false), of(true)] as const;
}

describe('network policies', () => {
  const forbidden: Readonly<Record<string, object>> = {
    'egress to nothing': { policyTypes: ['Egress'] },
    'egress to pods only': { egress: [{ to: [{ podSelector: {} }, { namespaceSelector: {} }] }] },
    'another address': { egress: [block('169.254.169.254/32')] },
    'an exception of the block': { egress: [block('0.0.0.0/0', ['169.254.0.0/16'])] },
    'IPv6 alone': { egress: [block('::/0')] },
    'another port': { egress: [port({ port: 80 })] },
    UDP: { egress: [port({ protocol: 'UDP' })] },
    'a named port': { egress: [port({ port: 'metadata' })] },
    'a range below': { egress: [port({ port: 1, endPort: 2578 })] },
  };
  for (const [what, spec] of Object.entries(forbidden)) {
    it(`deny the agent by ${what}`, () => assert.deepEqual(against(spec), ['p0']));
  }

  const allowed: Readonly<Record<string, object>> = {
    'no rule at all': {},
    'ingress alone': { ingress: [], policyTypes: ['Ingress'] },
    'another pod': { podSelector: { matchLabels: { app: 'db' } }, policyTypes: ['Egress'] },
    'a rule without limits': { egress: [{}] },
    'the address': { egress: [{ ...block('169.254.25.79/32'), ...port({ port: 2579 }) }] },
    'a range': { egress: [{ ...block('169.254.0.0/16'), ...port({ port: 2000, endPort: 3000 }) }] },
    TCP: { egress: [port({ protocol: 'TCP' })] },
  };
  for (const [what, spec] of Object.entries(allowed)) {
    it(`allow the agent by ${what}`, () => assert.deepEqual(against(spec), []));
  }

  const unreadable = ['everything', '', '10.0.0.0', '010.0.0.0/8', '10.0.0.0/33', '10.0.0.0/08'];
  for (const cidr of [...unreadable, '${POD_CIDR}/16']) {
    it(`are in doubt by the block "${cidr}"`, () => {
      assert.deepEqual(inDoubt({ egress: [block(cidr)] }), [['p0'], []]);
      assert.deepEqual(inDoubt({ egress: [block('0.0.0.0/0', [cidr])] }), [['p0'], []]);
      assert.deepEqual(against({ egress: [block('10.0.0.0/8', [cidr])] }), ['p0']);
      assert.deepEqual(against({ egress: [block(cidr, ['169.254.0.0/16'])] }), ['p0']);
      assert.deepEqual(against({ egress: [block(cidr), block('169.254.0.0/16')] }), []);
      assert.deepEqual(against({ egress: [{ ...block(cidr), ...port({ port: 80 }) }] }), ['p0']);
    });
  }

  it('allow what any one of them allows, and apply only to their namespace', () => {
    assert.deepEqual(against({ policyTypes: ['Egress'] }, { egress: [{}] }), []);
    const other = createObject(
      'NetworkPolicy',
      'p',
      { podSelector: {}, policyTypes: ['Egress'] },
      { namespace: 'x' },
    );
    assert.deepEqual(policiesAgainst(pod, [other], target, false), []);
  });
});
