import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { GrantIndex } from '../../../src/cache/index/grant-index.ts';
import { PodIndex } from '../../../src/cache/index/pod-index.ts';
import { IdentitiesInUse } from '../../../src/nmi/grants/identities-in-use.ts';
import { renderFailure } from '../../../src/nmi/grants/refusal-text.ts';
import { UpstreamResolver } from '../../../src/nmi/grants/resolve-upstream.ts';
import { classifyEntraError } from '../../../src/nmi/sources/entra/aadsts.ts';
import type { EntraIdentity } from '../../../src/nmi/sources/entra/entra-identity.ts';
import { failed, type SourceFailure } from '../../../src/nmi/sources/source.ts';
import { TokenBroker, type CachedToken } from '../../../src/nmi/tokens/broker.ts';
import { countRefusal } from '../../../src/nmi/tokens/federation-refusals.ts';
import { createRandom } from '../../../lab/test-bed/random.ts';
import { createIdentity, createPod } from '../../support/cache-objects.ts';
import { HandClock } from '../../support/hand-clock.ts';
import { createOwners } from '../../support/owners.ts';
import { createToken, hourMs, minuteMs, pass } from '../../support/token-fixture.ts';

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
const resource = 'https://vault.azure.net';

function identityOf(number: number): EntraIdentity {
  const serviceAccount = { namespace: `team-${number % 10}`, name: `account-${number}` };
  return {
    kind: 'entra',
    authority: 'https://login.microsoftonline.com',
    tenantId: 'contoso.example',
    clientId: `${number}`,
    credential: { kind: 'federated_pod', serviceAccount, audience: 'api://AzureADTokenExchange' },
  };
}

/** @param failureOf the next fetch of a pair, or undefined for a token of an hour. */
function open(failureOf: (identity: EntraIdentity) => SourceFailure | undefined, maxPerSec = 100) {
  const clock = new HandClock();
  const pods = new PodIndex(clock);
  const { owners } = createOwners('off');
  const upstreams = new UpstreamResolver(() => ({ ok: false, problem: 'has none' }));
  const grants = new GrantIndex(pods);
  const atMs: number[] = [];
  const outcomes = new Map<string, number>();
  const broker = new TokenBroker({
    imds: {
      source: { fetch: () => Promise.reject(new Error('not of IMDS')) },
      budget: { maxConcurrent: 1, maxPerSec: 1, maxQueued: 1 },
    },
    entra: {
      source: {
        fetch: ({ identity }) => {
          atMs.push(clock.monotonicMs());
          const failure = failureOf(identity);
          if (failure !== undefined) return Promise.resolve(failed(failure));
          return Promise.resolve({ ok: true, token: createToken(clock, 'h.p.s', hourMs) });
        },
      },
      budget: { maxConcurrent: 50, maxPerSec, maxQueued: 5_000 },
    },
    demand: new IdentitiesInUse({ pods, grants, owners, upstreams, workloadIdentities: undefined }),
    clock,
    random: () => 0.5,
    maxEntries: 20_000,
    waitMs: 10_500,
    nextImdsFetchId: () => 'none',
    observer: {
      onFetch: (_, result) => {
        const outcome = result.ok ? 'ok' : result.failure.reason;
        outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
      },
      onRefresh: () => undefined,
      onSourceBug: (error) => assert.fail(String(error)),
    },
  });
  const ask = (number: number, of = resource): Promise<CachedToken> => {
    const party = { namespace: `team-${number % 10}`, pod: `pod-${number}` };
    return broker.get(identityOf(number), of, party);
  };
  return { clock, broker, atMs, outcomes, ask };
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
    upstream: identityOf(1),
    auxiliary: [],
    identity: createIdentity({}),
    by: 'test',
  } as const;
  return renderFailure(answer.failure, granted, 24 * hourMs, minuteMs).status;
}

describe('a refused federated credential', () => {
  it('is tried again while its caller waits', async () => {
    let left = 2;
    const { clock, atMs, ask } = open(() => (left-- > 0 ? refused : undefined));
    const { answer, tookMs } = await answerOf(clock, ask(1));
    assert.equal(statusOf(answer), 200);
    assert.deepEqual(atMs, [0, 250, 750]);
    assert.equal(tookMs, 750);
  });

  it('is a 503 within a second if it is missing, and a 400 after five minutes', async () => {
    const { clock, atMs, ask } = open(() => refused);
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
    const { clock, ask } = open(() => (exists ? undefined : refused));
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

  it('is not final for few refusals far apart', async () => {
    const { clock, ask } = open(() => refused);
    for (let count = 0; count < 5; count++) {
      assert.equal(statusOf((await answerOf(clock, ask(1))).answer), 503, `${count}`);
      await pass(clock, hourMs);
    }
    await answerOf(clock, ask(1));
    await pass(clock, hourMs);
    assert.equal(statusOf((await answerOf(clock, ask(1))).answer), 400);
  });

  it('counts anew after another outcome', () => {
    const rows: SourceFailure[] = [];
    for (let at = 0; at < 20; at++) {
      const failure = at === 10 ? down : refused;
      rows.push(countRefusal(failure, 'key', rows.at(-1), at * minuteMs));
    }
    const final = rows.flatMap(({ refusals }, at) => (refusals?.isFinal === true ? [at] : []));
    assert.deepEqual(final, [7, 8, 9, 18, 19]);
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
    const { clock, atMs, outcomes, ask } = open(() => (random() < 0.022 ? refused : undefined));
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
    assert.equal(outcomes.get('federation_refused') ?? 0, late);
    const mistakes = (outcomes.get('federation_pending') ?? 0) + late;
    assert.ok(mistakes > 2_000 && mistakes < 2_500, `${mistakes} refusals by mistake`);
    assert.equal(
      atMs.length,
      pods * rounds + mistakes - late,
      'a fetch for each token, and retries',
    );
  });

  it('of hundreds of pairs at once makes no storm', async () => {
    const { clock, broker, atMs, ask } = open(() => refused, 1_000);
    const statuses = new Set<number>();
    const askAll = (): void => {
      for (let pod = 0; pod < 250; pod++) {
        for (const each of [resource, `${resource}/2`]) {
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
    const { clock, broker, ask } = open(() => refused);
    const asked = ask(1);
    await pass(clock, 10);
    broker[Symbol.dispose]();
    const { answer, tookMs } = await answerOf(clock, asked);
    assert.deepEqual([answer.ok, tookMs, clock.armed.length], [false, 0, 0]);
  });
});
