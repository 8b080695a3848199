/** Codes, findings and what finds them, apart from the situations that `test/situations` has. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { refusals, type RefusalReason } from '../../../src/nmi/base/answers.ts';
import { allCodes, isCode, rowOf } from '../../../src/nmi/diagnosis/codes.ts';
import {
  createFinding,
  reaches,
  renderFindings,
  sortFindings,
} from '../../../src/nmi/diagnosis/finding.ts';
import {
  findingsOfBinding,
  findingsOfIdentity,
  secretOfIdentity,
} from '../../../src/nmi/diagnosis/objects.ts';
import { parseBinding, parseIdentity } from '../../../src/nmi/kube/watch/parse.ts';
import { world } from '../../world.ts';

describe('the table of codes', () => {
  it('has a row for every reason of answers, and no code twice', () => {
    for (const reason of Object.keys(refusals) as RefusalReason[]) {
      assert.equal(rowOf(reason).link, `docs/reasons.md#${reason}`);
      assert.equal(rowOf(reason).status, refusals[reason].status);
    }
    assert.equal(rowOf('label_on_owner').link, 'docs/kubectl.md#label_on_owner');
    assert.equal(new Set(allCodes).size, allCodes.length);
    assert.equal(isCode('constructor'), false);
  });

  it('is written in sentences', () => {
    for (const code of allCodes) {
      assert.ok(isCode(code));
      assert.match(rowOf(code).means, /^[A-Z].*[.]$/, code);
      assert.match(rowOf(code).fix, /^(?:[A-Z]|kubectl |helm )/, code);
    }
  });

  it('has fixes that are right for every type of identity', () => {
    assert.doesNotMatch(rowOf('identity_unsupported').fix, /[0-9]/, 'a list of types grows old');
    // A chain has no tenantID, and its clientID, if any, is that of the managed identity.
    assert.match(
      rowOf('identity_refused').fix,
      /of a chain, spec\.application and spec\.agentIdentity/,
    );
    for (const text of [rowOf('credential_refused').fix, rowOf('credential_refused').check]) {
      assert.match(text ?? '', /ypes 3 and 4\b.*\berror/, 'they have no Secret');
    }
    assert.match(rowOf('identity_not_assigned').fix, /use type 3, and no chain that begins/);
  });
});

const of = (
  code: 'binding_unused' | 'network_policy' | 'binding_missing' | 'old_mic',
  object = 'Pod a',
) => createFinding(code, { object, text: 'It is so.' });

describe('a finding', () => {
  it('has the severity and the fix of its page; a refusal is an error', () => {
    const facts = { object: 'x', text: 'y' };
    const [{ severity }, { fix }] = [
      createFinding('network_policy', { ...facts, severity: 'info' }),
      createFinding('network_policy', { ...facts, fix: 'Do it.' }),
    ];
    assert.deepEqual([severity, fix], ['info', 'Do it.']);
    assert.equal(of('binding_unused').severity, 'info');
    assert.equal(of('binding_missing').severity, 'error');
    assert.match(of('binding_missing').fix, /identity assign/);
  });

  it('comes before those that are less severe', () => {
    const sorted = sortFindings([
      of('binding_unused'),
      of('old_mic'),
      of('network_policy', 'Pod b'),
      of('network_policy'),
    ]);
    assert.deepEqual(
      sorted.map(({ severity, object }) => `${severity} ${object}`),
      ['error Pod a', 'error Pod b', 'warning Pod a', 'info Pod a'],
    );
    const equal = [of('old_mic'), of('old_mic')];
    for (const [at, each] of sortFindings(equal).entries()) assert.equal(each, equal[at]);
  });

  it('is compared to a threshold', () => {
    assert.deepEqual(
      (['info', 'warning', 'error'] as const).map((least) => reaches([of('old_mic')], least)),
      [true, true, false],
    );
    assert.equal(reaches([], 'info'), false);
  });

  it('is printed with its fix and its page', () => {
    const facts = { object: 'Pod a', text: 'No.', fix: 'Fix.', details: ['Near.'] };
    assert.deepEqual(renderFindings([createFinding('network_policy', facts)]), [
      'error   Pod a: network_policy',
      '        No.',
      '        - Near.',
      '        fix: Fix.',
      '        see: kubectl nmi reasons network_policy, or docs/kubectl.md#network_policy',
    ]);
  });
});

const clientID = '22729e47-74ce-4b43-8eea-aab5f2073301';
const tenantID = '7e570000-1ab0-4000-8000-000000000001';
const ref = { namespace: 'shop', name: 'cart' };
const metadata = { ...ref, uid: 'u', resourceVersion: '1' };
const secretSpec = { type: 1, clientID, tenantID, clientPassword: { name: 'sp' } };
const rules = world().clusterState;
const identityOf = (spec: unknown) => parseIdentity({ metadata, spec });

describe('the Secret of an identity', () => {
  it('is the one that it names, and none for other types or unusable ones', () => {
    const expected = { kind: 'secret', secret: { namespace: 'shop', name: 'sp' } };
    for (const [spec, secret] of [
      [secretSpec, expected],
      [{ type: 0, clientID }, undefined],
      [{ type: 3, clientID, tenantID }, undefined],
      [{ type: 'x' }, undefined],
      [{ ...secretSpec, clientID: '' }, undefined],
    ] as const)
      assert.deepEqual(secretOfIdentity(identityOf(spec), rules), secret);
  });

  it('is a fault if it is missing or unreadable', () => {
    for (const [finding, expected] of [
      [
        { kind: 'missing', problem: 'Secret shop/sp does not exist' },
        /^credential_missing Secret shop\/sp does not exist\. Create it\.$/,
      ],
      [
        { kind: 'unusable', problem: 'the agent may not read it' },
        /^credential_invalid The agent may not read it\. Correct the Secret/,
      ],
      [{ kind: 'usable' }, /^$/],
    ] as const) {
      const found = findingsOfIdentity(ref, identityOf(secretSpec), finding, rules);
      const words = found.map(({ code, text, fix }) => `${code} ${text} ${fix}`);
      assert.match(words.join('\n'), expected);
    }
  });
});

describe('the faults of a binding', () => {
  it('are all of them, the selector first, and contain texts of the object on one line', () => {
    const facts = { identity: undefined, meant: 'carts', isSurplus: false };
    const faultsOf = (spec: unknown) =>
      findingsOfBinding(ref, parseBinding({ metadata, spec }), facts);
    assert.deepEqual(
      faultsOf({ azureIdentity: 'cart' }).map(({ code, object }) => `${code} ${object}`),
      [
        'selector_unusable AzureIdentityBinding shop/cart',
        'identity_missing AzureIdentityBinding shop/cart',
      ],
    );
    const hostile = faultsOf({ azureIdentity: '\u001b[2J\n', selector: 'x' });
    assert.ok(hostile.length > 0);
    for (const { text, fix } of hostile) assert.match(`${text} ${fix}`, /^[\x20-\x7e]+$/);
  });
});

describe('findings about a pod', () => {
  const labels = { aadpodidbinding: 'app' };

  it('name the limits that a pod exceeded recently, whatever its grants', () => {
    const { clock, throttled, askPod } = world({ pods: [{ ips: ['10.0.0.1'] }] });
    throttled.note('uid-pod', 'connections');
    throttled.note('uid-pod', 'connections');
    clock.advance(3_000);
    const throttling = () =>
      askPod()
        .findings.filter(({ code }) => code === 'caller_throttled')
        .map(({ text, severity }) => `${severity} ${text}`);
    assert.deepEqual(throttling(), [
      'warning It opened more connections at once than one pod may have, 2 times in the last minutes, the ' +
        'last time 3 s ago.',
    ]);
    clock.advance(5 * 60_000);
    assert.deepEqual(throttling(), []);
  });

  const letters = Array.from('tsrqponmlkjihgfedcba');
  const pods = [{ ips: ['10.0.0.1'], labels }];
  const unrelated = [{ name: 'unrelated' }, { name: 'unrelated', namespace: 'other' }];

  it('name three of many objects that resemble what is missing, in order, and no unrelated one', () => {
    for (const selector of ['APP', ' app']) {
      const bindings = [...unrelated, ...letters.map((name) => ({ name, selector }))];
      assert.deepEqual(
        world({ pods, bindings }).askPod().findings[0]?.details,
        ['a', 'b', 'c'].map(
          (name) => `AzureIdentityBinding ${name} has the selector "${selector}".`,
        ),
      );
    }
    const identities = [...unrelated, ...letters.map((letter) => ({ name: `ap${letter}` }))];
    const bindings = [{ selector: 'app', identityName: 'ap?' }];
    assert.deepEqual(
      world({ pods, identities, bindings }).askPod().findings[0]?.details,
      ['apa', 'apb', 'apc'].map((name) => `The one there is called "${name}".`),
    );
  });

  it('count the bindings of its label beyond 200', () => {
    const bindings = Array.from({ length: 202 }, (_, at) => ({ name: `b${at}`, selector: 'app' }));
    const { findings } = world({ pods, bindings, identities: [{ clientId: clientID }] }).askPod();
    assert.deepEqual(
      findings.map(({ code, severity, text }) => `${severity} ${code} ${text}`),
      [
        'warning selector_unusable Of the AzureIdentityBindings with the selector "app" the 200 oldest ' +
          'count; 2 more do not.',
      ],
    );
  });
});
