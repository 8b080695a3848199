/** What sources refuse: of identities in use, in chains, and of federated credentials. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createRandom } from '../../../../lab/test-bed/random.ts';
import { identityKey } from '../../../../src/nmi/grants/cache-key.ts';
import type { IdentityOwner } from '../../../../src/nmi/grants/identities-in-use.ts';
import { renderFailure } from '../../../../src/nmi/grants/refusal-text.ts';
import { classifyEntraError } from '../../../../src/nmi/sources/entra/aadsts.ts';
import type { EntraIdentity } from '../../../../src/nmi/sources/entra/entra-identity.ts';
import type { FailureReason, SourceFailure } from '../../../../src/nmi/sources/source.ts';
import type { UpstreamIdentity } from '../../../../src/nmi/sources/upstream-identity.ts';
import type { CachedToken } from '../../../../src/nmi/tokens/broker.ts';
import { countRefusal } from '../../../../src/nmi/tokens/federation-refusals.ts';
import { failureOfLeg, refusalOfLeg } from '../../../../src/nmi/tokens/leg-failure.ts';
import { SourceRefusals } from '../../../../src/nmi/tokens/source-refusals.ts';
import { createIdentity, createPod } from '../../../support/cache-objects.ts';
import { createEntraIdentity } from '../../../support/entra-identity.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import { hourMs, longLived, minuteMs, pass } from '../../../support/token-fixture.ts';
import { world } from '../../../world.ts';

const vault = 'https://vault.azure.net';
const graph = 'https://graph.microsoft.com';

function identityOf(value: string): UpstreamIdentity {
  return { kind: 'client_id', value };
}

function ownerOf(name: string, namespace = 'shop'): IdentityOwner {
  return { kind: 'AzureIdentity', namespace, name, uid: `${namespace}/${name}` };
}

/**
 * @param owners by the value of the identity, each of which is its own last one.
 * @param chains names of owners with another last one.
 */
function open(
  owners: Readonly<Record<string, readonly IdentityOwner[]>>,
  chains: readonly string[] = [],
) {
  const clock = new HandClock();
  const lines: string[] = [];
  const texts: string[] = [];
  const byKey = new Map(
    Object.entries(owners).map(([value, each]) => [identityKey(identityOf(value)), each]),
  );
  const refusals = new SourceRefusals(
    clock,
    {
      isGranted: (identity) => byKey.has(identityKey(identity)),
      ownersOf: (key) =>
        (byKey.get(key) ?? []).map((owner) => ({
          owner,
          lastKey: chains.includes(owner.name) ? 'last' : key,
        })),
      isOwner: (uid) => [...byKey.values()].flat().some((owner) => owner.uid === uid),
    },
    {
      onRefused: ({ name }, { failure }) => {
        lines.push(`${name} ${failure.reason}`);
        texts.push(failure.description);
      },
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
  return { clock, refusals, byKey, texts, refuse, accept, of, take };
}

describe('what an identity in use was last refused with', () => {
  it('is one fact from the first refusal to the next token', () => {
    const { clock, refusals, refuse, accept, of, take } = open({ a: [ownerOf('a')] });
    accept('a');
    assert.deepEqual(take(), []);
    const startMs = clock.wallMs();
    refuse('a', 'credential_refused', { description: 'x'.repeat(2_000) });
    assert.equal(of('a')?.failure.description.length, 1_000);
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

  it('names the leg to an owner whose chain it is in', () => {
    const { refuse, texts } = open({ leg: [ownerOf('own'), ownerOf('chain')] }, ['chain']);
    refuse('leg');
    assert.deepEqual(texts, ['no', 'no [earlier leg of the chain: managed identity leg]']);
  });

  it('is kept for a leg without an owner', () => {
    const { refusals, refuse, take } = open({ leg: [] });
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

const managed = { kind: 'client_id', value: 'managed' } as const;
const application = createEntraIdentity({
  tenantId: 't',
  clientId: 'app',
  credential: { kind: 'chained', assertedBy: managed, audience: 'api://x' },
});
const blueprint = { ...application, agentIdentity: 'agent' };
const agent = {
  ...application,
  clientId: 'agent',
  credential: { kind: 'chained', assertedBy: blueprint, audience: 'api://x' },
} as EntraIdentity;
const claims = { iss: 'https://issuer/v2.0', sub: 'subject\n"', jti: 'canary' };
const assertion = `h.${Buffer.from(JSON.stringify(claims)).toString('base64url')}.signature`;

function legFailure(code: number, reason: SourceFailure['reason']): SourceFailure {
  const details = { errorCodes: [code], timestamp: '', traceId: '', correlationId: '' };
  return { reason, description: `AADSTS${code}: no`, cooldownMs: 1, details };
}

function described(code: number, reason: SourceFailure['reason'], identity = application): string {
  return refusalOfLeg(legFailure(code, reason), identity, assertion).description;
}

describe('a failure in a chain', () => {
  it('names the earlier leg that has no token, and nothing else changes', () => {
    const before = legFailure(0, 'identity_not_assigned');
    assert.deepEqual(failureOfLeg(before, managed), {
      ...before,
      description: 'AADSTS0: no [earlier leg of the chain: managed identity managed]',
    });
    const later = failureOfLeg(failureOfLeg(before, managed), application);
    assert.equal(later.description, failureOfLeg(before, managed).description);
  });

  const fix = 'application app in tenant t; the ';
  const noBlueprint = /: agent identity agent in tenant t; spec\.application must be the blueprint/;
  const noAgent = /; spec\.agentIdentity must be an agent identity that its blueprint created/;
  for (const [code, reason, identity, says] of [
    [
      7,
      'upstream_down',
      application,
      /^AADSTS7: no \[leg of the chain: application app in tenant t\]$/,
    ],
    [700231, 'credential_refused', application, new RegExp(`^AADSTS700231: no .*: ${fix}`)],
    [700236, 'credential_refused', application, /as multi-tenant/],
    [700016, 'identity_refused', application, /create the service principal/],
    [700016, 'identity_refused', blueprint, /create the service principal/],
    // It can have no federated credential and no application.
    [700213, 'federation_refused', agent, noBlueprint],
    [700016, 'identity_refused', agent, noAgent],
    // What it was sent is a token of its blueprint, and of no managed identity.
    [700231, 'credential_refused', agent, /agent identity agent in tenant t\]$/],
    [700236, 'credential_refused', agent, /agent identity agent in tenant t\]$/],
  ] as const) {
    const { agentIdentity, clientId } = identity;
    it(`names the leg that Entra ID refused, and its fix: ${code} ${agentIdentity ?? clientId}`, () => {
      const text = described(code, reason, identity);
      assert.match(text, says);
      assert.doesNotMatch(text, /issuer/);
    });
  }

  it('shows of the assertion what a federated credential for it needs', () => {
    const text = described(700213, 'federation_refused');
    assert.ok(text.includes('issuer https://issuer/v2.0, subject subject'), text);
    assert.ok(text.includes('and audience api://x]'), text);
    assert.doesNotMatch(text, /canary|signature|\n/);
  });
});

const text = "AADSTS700213: No matching federated identity record found for presented subject 's'.";
const refused = classifyEntraError(
  {
    status: 401,
    body: JSON.stringify({ error: 'invalid_client', error_description: text }),
    retryAfterS: undefined,
  },
  [],
);
const down: SourceFailure = { reason: 'upstream_down', description: 'down', cooldownMs: 250 };

function pairOf(number: number): EntraIdentity {
  const serviceAccount = { namespace: `team-${number % 10}`, name: `account-${number}` };
  const credential = { kind: 'federated_pod', serviceAccount, audience: 'api://x' } as const;
  return createEntraIdentity({ clientId: `${number}`, credential });
}

/** @param failureOf the next fetch of a pair, or undefined for a token of an hour. */
function openPairs(failureOf: () => SourceFailure | undefined, maxPerSec = 100) {
  const fixture = world({
    broker: { maxEntries: 20_000 },
    budget: { maxConcurrent: 50, maxPerSec, maxQueued: 5_000 },
  });
  const { clock, broker, upstream } = fixture;
  const atMs: number[] = [];
  upstream.lifeMs = hourMs;
  upstream.failureOf = () => {
    atMs.push(clock.monotonicMs());
    return failureOf();
  };
  const ask = (number: number, of = vault): Promise<CachedToken> => {
    const party = { namespace: `team-${number % 10}`, pod: `pod-${number}` };
    return broker.get(pairOf(number), of, party);
  };
  return { clock, broker, atMs, ask };
}

/** The answer, and after how many milliseconds it came. */
async function answerOf(clock: HandClock, asked: Promise<CachedToken>) {
  const startMs = clock.monotonicMs();
  const answers: { readonly answer: CachedToken; readonly tookMs: number }[] = [];
  void asked.then((answer) => answers.push({ answer, tookMs: clock.monotonicMs() - startMs }));
  for (let step = 0; answers.length === 0 && step < 1_000; step++) await pass(clock, 10);
  const [first] = answers;
  assert.ok(first !== undefined, 'no answer within ten seconds');
  return first;
}

/** As the pod gets it, of objects that are old. */
function statusOf(answer: CachedToken): number {
  if (answer.ok) return 200;
  const granted = {
    kind: 'granted',
    pod: createPod({}),
    upstream: pairOf(1),
    auxiliary: [],
    identity: createIdentity({}),
    by: 'test',
  } as const;
  return renderFailure(answer.failure, granted, 24 * hourMs, minuteMs).status;
}

describe('a refused federated credential', () => {
  it('is tried again while its caller waits', async () => {
    let left = 2;
    const { clock, atMs, ask } = openPairs(() => (left-- > 0 ? refused : undefined));
    const { answer, tookMs } = await answerOf(clock, ask(1));
    assert.equal(statusOf(answer), 200);
    assert.deepEqual(atMs, [0, 250, 750]);
    assert.equal(tookMs, 750);
  });

  it('is a 503 within a second if it is missing, and a 400 after five minutes', async () => {
    const { clock, atMs, ask } = openPairs(() => refused);
    const first = await answerOf(clock, ask(1));
    assert.ok(!first.answer.ok);
    assert.deepEqual([statusOf(first.answer), first.tookMs], [503, 750]);
    assert.equal(first.answer.failure.description, text, 'the text of Entra ID');
    assert.equal(first.answer.failure.retryAfterS, 1);
    let finalAtMs = 0;
    while (finalAtMs === 0) {
      const { answer, tookMs } = await answerOf(clock, ask(1));
      assert.ok(tookMs === 0, 'no caller waits any more');
      if (statusOf(answer) === 400) finalAtMs = clock.monotonicMs();
      await pass(clock, 1_000);
    }
    assert.ok(finalAtMs >= 5 * minuteMs && finalAtMs < 5 * minuteMs + 20_000, `${finalAtMs}`);
    assert.ok(atMs.length < 45, `${atMs.length} requests in five minutes`);
  });

  it('is served as soon as it exists', async () => {
    let exists = false;
    const { clock, ask } = openPairs(() => (exists ? undefined : refused));
    await answerOf(clock, ask(1));
    await pass(clock, 10 * minuteMs);
    for (let count = 0; count < 10; count++) {
      await answerOf(clock, ask(1));
      await pass(clock, 11_000);
    }
    assert.equal(statusOf((await answerOf(clock, ask(1))).answer), 400);
    exists = true;
    await pass(clock, 11_000);
    assert.equal(statusOf((await answerOf(clock, ask(1))).answer), 200);
  });

  it('is final after eight refusals, however far apart, and counts anew after another outcome', () => {
    const rowsEach = (ms: number) => {
      const rows: SourceFailure[] = [];
      for (let at = 0; at < 20; at++) {
        const failure = at === 10 ? down : refused;
        rows.push(countRefusal(failure, 'key', rows.at(-1), at * ms));
      }
      return rows;
    };
    const rows = rowsEach(minuteMs);
    for (const each of [rows, rowsEach(hourMs)]) {
      const final = each.flatMap(({ refusals }, at) => (refusals?.isFinal === true ? [at] : []));
      assert.deepEqual(final, [7, 8, 9, 18, 19]);
    }
    const pending = rows.flatMap(({ reason }, at) => (reason === 'federation_pending' ? [at] : []));
    assert.deepEqual(pending, [0, 1, 11, 12], 'no alert for the first two');
  });

  it('does not count those of an earlier leg of a chain as its own', () => {
    const leg: SourceFailure[] = [];
    for (let at = 0; at < 9; at++)
      leg.push(countRefusal(refused, 'leg', leg.at(-1), at * minuteMs));
    const last = leg.at(-1) ?? refused;
    assert.equal(last.refusals?.isFinal, true);
    const passedOn = countRefusal(last, 'key', undefined, 9 * minuteMs);
    assert.deepEqual(passedOn, last, 'the leg has been refused for long');
    const own = countRefusal(refused, 'key', passedOn, 10 * minuteMs);
    assert.deepEqual(own.refusals, {
      key: 'key',
      count: 1,
      sinceMs: 10 * minuteMs,
      isFinal: false,
    });
  });

  it('never gives a pod a 4xx when 2.2% of 100,000 fetches are refused by mistake', async () => {
    const random = createRandom(30);
    let mistakes = 0;
    const { clock, atMs, ask } = openPairs(() => {
      if (random() >= 0.022) return undefined;
      mistakes += 1;
      return refused;
    });
    const statuses = new Map<number, number>();
    // One hour after another: a fetch for each pod and hour.
    const [pods, rounds] = [50, 2_000];
    for (let round = 0; round < rounds; round++) {
      for (let pod = 0; pod < pods; pod++) {
        void ask(pod).then((answer) => {
          const status = statusOf(answer);
          statuses.set(status, (statuses.get(status) ?? 0) + 1);
        });
      }
      await pass(clock, hourMs + minuteMs);
    }
    const served = statuses.get(200) ?? 0;
    const late = statuses.get(503) ?? 0;
    assert.deepEqual([served + late, [...statuses.keys()].toSorted()[0]], [pods * rounds, 200]);
    assert.ok(late <= 5, `${late} answers with 503`);

    assert.ok(mistakes > 2_000 && mistakes < 2_500, `${mistakes} refusals by mistake`);
    assert.equal(
      atMs.length,
      pods * rounds + mistakes - late,
      'a fetch for each token, and retries',
    );
  });

  it('of hundreds of pairs at once makes no storm', async () => {
    const { clock, broker, atMs, ask } = openPairs(() => refused, 1_000);
    const statuses = new Set<number>();
    const askAll = (): void => {
      for (let pod = 0; pod < 250; pod++) {
        for (const each of [vault, graph]) {
          void ask(pod, each).then((answer) => statuses.add(statusOf(answer)));
        }
      }
    };
    for (let second = 0; second < 30; second++) {
      askAll();
      await pass(clock, 1_000);
    }
    // 0, 0.25, 0.75, 1.75, 3.75, 7.75, 15.75 seconds, then each ten.
    assert.ok(atMs.length <= 500 * 9, `${atMs.length} requests for 500 keys in half a minute`);
    assert.deepEqual([...statuses], [503]);
    broker[Symbol.dispose]();
  });

  it('arms nothing and answers at once when the broker is disposed', async () => {
    const { clock, broker, ask } = openPairs(() => refused);
    const asked = ask(1);
    await pass(clock, 10);
    broker[Symbol.dispose]();
    const { answer, tookMs } = await answerOf(clock, asked);
    assert.deepEqual([answer.ok, tookMs, clock.armed.length], [false, 0, 0]);
  });
});
