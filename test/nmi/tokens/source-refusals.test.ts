import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { identityKey } from '../../../src/nmi/grants/cache-key.ts';
import type { IdentityOwner } from '../../../src/nmi/grants/identities-in-use.ts';
import type { FailureReason } from '../../../src/nmi/sources/source.ts';
import type { UpstreamIdentity } from '../../../src/nmi/sources/upstream-identity.ts';
import { SourceRefusals } from '../../../src/nmi/tokens/source-refusals.ts';
import { HandClock } from '../../support/hand-clock.ts';
import { longLived } from '../../support/token-fixture.ts';

const vault = 'https://vault.azure.net';
const graph = 'https://graph.microsoft.com';
const minuteMs = 60_000;

function identityOf(value: string): UpstreamIdentity {
  return { kind: 'client_id', value };
}

function ownerOf(name: string, namespace = 'shop'): IdentityOwner {
  return { kind: 'AzureIdentity', namespace, name, uid: `${namespace}/${name}` };
}

/** @param owners by the value of the identity, each of which is its own last one. */
function open(owners: Readonly<Record<string, readonly IdentityOwner[]>>) {
  const clock = new HandClock();
  const lines: string[] = [];
  const byKey = new Map(
    Object.entries(owners).map(([value, each]) => [identityKey(identityOf(value)), each]),
  );
  const refusals = new SourceRefusals(
    clock,
    {
      isGranted: (identity) => byKey.has(identityKey(identity)),
      ownersOf: (key) => (byKey.get(key) ?? []).map((owner) => ({ owner, lastKey: key })),
      isOwner: (uid) => [...byKey.values()].flat().some((owner) => owner.uid === uid),
    },
    {
      onRefused: ({ name }, { failure }) => lines.push(`${name} ${failure.reason}`),
      onAccepted: ({ name }) => lines.push(`${name} accepted`),
    },
  );
  const refuse = (
    value: string,
    reason: FailureReason = 'credential_refused',
    { resource = vault, hasToken = true, description = 'no' } = {},
  ): void => {
    const failure = { reason, description, cooldownMs: 0 };
    refusals.note({ identity: identityOf(value), resource, hasToken }, { ok: false, failure });
  };
  const accept = (value: string, resource = vault): void => {
    const result = { ok: true, token: longLived.token } as const;
    refusals.note({ identity: identityOf(value), resource, hasToken: true }, result);
  };
  const of = (value: string, resource?: string) =>
    refusals.of(identityKey(identityOf(value)), resource);
  const take = () => lines.splice(0);
  return { clock, refusals, byKey, refuse, accept, of, take };
}

describe('what an identity in use was last refused with', () => {
  it('is one fact from the first refusal to the next token', () => {
    const { clock, refusals, refuse, accept, of, take } = open({ a: [ownerOf('a')] });
    accept('a');
    assert.deepEqual(take(), []);
    const startMs = clock.wallMs();
    refuse('a', 'credential_refused', { description: 'x'.repeat(2_000) });
    clock.advance(60 * minuteMs);
    refuse('a', 'federation_refused');
    const { sinceWallMs, lastWallMs, failure } = of('a') ?? {};
    assert.deepEqual([sinceWallMs, lastWallMs], [startMs, startMs + 60 * minuteMs]);
    assert.equal(failure?.reason, 'federation_refused');
    assert.deepEqual([...refusals.keys()].length, 1);
    clock.advance(600 * minuteMs);
    assert.ok(of('a') !== undefined, 'nobody asked again');
    accept('a', graph);
    assert.equal(of('a'), undefined);
    assert.equal(refusals.isEmpty, true);
    assert.deepEqual(take(), ['a credential_refused', 'a federation_refused', 'a accepted']);
  });

  it('has no more of an upstream text than fits', () => {
    const { refuse, of } = open({ a: [ownerOf('a')] });
    refuse('a', 'credential_refused', { description: 'x'.repeat(2_000) });
    assert.equal(of('a')?.failure.description.length, 1_000);
  });

  it('names the leg to an owner whose chain it is in', () => {
    const { refusals, refuse, take } = open({ leg: [] });
    const texts: string[] = [];
    const [key] = [identityKey(identityOf('leg'))];
    const ofChain = new SourceRefusals(
      new HandClock(),
      {
        isGranted: () => true,
        isOwner: () => true,
        ownersOf: () => [
          { owner: ownerOf('own'), lastKey: key },
          { owner: ownerOf('chain'), lastKey: 'last' },
        ],
      },
      {
        onRefused: ({ name }, { failure }) => texts.push(`${name}: ${failure.description}`),
        onAccepted: () => undefined,
      },
    );
    const failure = { reason: 'identity_not_assigned', description: 'no', cooldownMs: 0 } as const;
    ofChain.note(
      { identity: identityOf('leg'), resource: vault, hasToken: true },
      { ok: false, failure },
    );
    assert.deepEqual(texts, [
      'own: no',
      'chain: no [earlier leg of the chain: managed identity leg]',
    ]);
    refuse('leg');
    assert.deepEqual([take(), refusals.isEmpty], [[], false], 'without an owner');
  });

  it('keeps a resource that may be a secret to itself', () => {
    const { refuse, of } = open({ a: [ownerOf('a')] });
    const resource = 'eyJhbGciOiJub25lIn0 a token';
    refuse('a', 'policy_refused', { resource, description: `no access to ${resource}` });
    assert.equal(of('a')?.failure.description, 'no access to [unusual]');
    refuse('a', 'policy_refused', { resource: '', description: 'no access' });
    assert.equal(of('a')?.failure.description, 'no access');
  });

  it('is not a resource that a pod invents, but the refresh of a token is', () => {
    const { refuse, accept, of, take } = open({ a: [ownerOf('a')] });
    refuse('a', 'resource_refused', { hasToken: false });
    refuse('a', 'upstream_refused', { hasToken: false });
    refuse('a', 'federation_pending');
    assert.deepEqual(take(), []);
    refuse('a', 'resource_refused');
    assert.ok(of('a', vault) !== undefined);
    assert.equal(of('a', graph), undefined);
    accept('a', graph);
    assert.ok(of('a') !== undefined, 'the token of another resource proves nothing');
    accept('a');
    assert.equal(of('a'), undefined);
  });

  it('passes a quarter of an hour after an outage, of which nothing is known then', () => {
    const { clock, refusals, refuse, of } = open({ a: [ownerOf('a')] });
    refuse('a', 'upstream_down');
    clock.advance(15 * minuteMs - 1);
    assert.ok(of('a', graph) !== undefined);
    assert.equal([...refusals.keys()].length, 1);
    clock.advance(1);
    assert.equal(of('a'), undefined);
    assert.deepEqual([...refusals.keys()], []);
    refuse('a', 'upstream_down');
    assert.equal(of('a')?.sinceWallMs, clock.wallMs());
  });

  it('is not kept for an identity that no pod is bound to, and ends with the binding', () => {
    const { refusals, byKey, refuse, of, take } = open({ a: [ownerOf('a')] });
    refuse('of-an-excepted-pod');
    assert.equal(refusals.isEmpty, true);
    refuse('a');
    refusals.drop();
    assert.ok(of('a') !== undefined);
    byKey.clear();
    refusals.drop();
    assert.equal(of('a'), undefined);
    assert.equal(refusals.isEmpty, true);
    assert.deepEqual(take(), ['a credential_refused']);
  });

  it('is reported to each owner, and accepted when nothing that it needs is refused', () => {
    const a = ownerOf('a');
    const b = ownerOf('b');
    const { refuse, accept, take } = open({ leg: [a], last: [a, b] });
    refuse('leg');
    refuse('last');
    assert.deepEqual(take(), [
      'a credential_refused',
      'a credential_refused',
      'b credential_refused',
    ]);
    accept('last');
    assert.deepEqual(take(), ['b accepted']);
    accept('leg');
    accept('leg');
    assert.deepEqual(take(), ['a accepted']);
  });

  it('is accepted with a token of the object as it was changed', () => {
    const { refusals, byKey, refuse, accept, take } = open({ wrong: [ownerOf('a')] });
    refuse('wrong');
    take();
    byKey.clear();
    byKey.set(identityKey(identityOf('right')), [ownerOf('a')]);
    refusals.drop();
    accept('right');
    assert.deepEqual(take(), ['a accepted']);
  });

  it('is of 2,000 identities, and a namespace with thousands loses its own', () => {
    const names = Array.from({ length: 2_000 }, (_, index) => `h${index}`);
    const { refuse, of } = open({
      victim: [ownerOf('victim')],
      ...Object.fromEntries(names.map((name) => [name, [ownerOf(name, 'hostile')]])),
    });
    refuse('victim');
    for (const name of names.slice(0, -1)) refuse(name);
    refuse('h0');
    refuse('h1999');
    assert.ok(of('victim') !== undefined);
    assert.equal(of('h1'), undefined, 'of its own, that whose last refusal is oldest');
    assert.ok(of('h0') !== undefined && of('h2') !== undefined);
  });
});
