/**
 * Unmodified clients in a pod, through the real redirect. The test counts requests that reached the
 * agent: a client whose own cache rejects an answer sends a request each time.
 */
import assert from 'node:assert/strict';
import { availableParallelism } from 'node:os';
import { after, before, describe, it } from 'node:test';
import { findFabricObstacle } from '../../../lab/fabric/fabric.ts';
import { createLabIdentity } from '../../../lab/fakes/identity.ts';
import { isWithin, sizeOfThisRun } from '../../runner/kinds.ts';
import type { Outcome, Step } from './programs/job.ts';
import {
  openClientLab,
  type ClientLab,
  type ClientRun,
  type ClientRunResult,
} from './support/client-lab.ts';
import {
  clients as allClients,
  renderCommand,
  type Client,
  type IdKind,
  type Kit,
} from './support/client-matrix.ts';
import { installKit, type Installed } from './support/install.ts';

interface Finished {
  readonly outcomes: readonly Outcome[];
  readonly requests: Readonly<Record<string, number>>;
}

const vault = 'https://vault.azure.net';

const obstacle = findFabricObstacle();
const clients = allClients.filter(({ size = 'test' }) => isWithin(size, sizeOfThisRun()));
const kits = new Map<Kit, Installed>();
for (const { kit } of clients) {
  if (kits.has(kit)) continue;
  kits.set(kit, obstacle === undefined ? installKit(kit) : { missing: obstacle });
}

describe('clients in a pod, through the redirect', { skip: obstacle ?? false }, () => {
  const opened = new AsyncDisposableStack();
  let lab: ClientLab;
  before(async () => {
    lab = opened.use(await openClientLab());
  });
  after(() => opened.disposeAsync());

  const planRun = (client: Client, steps: readonly Step[], pod: ClientRun['pod']): ClientRun => {
    const installed = kits.get(client.kit);
    const folder = installed?.missing === undefined ? (installed?.folder ?? '') : '';
    const [command, ...args] = renderCommand(client, folder, lab.arm);
    return { client: client.key, pod, command, args: [...args, JSON.stringify(steps)] };
  };

  describe('each alone', { concurrency: availableParallelism() }, () => {
    for (const client of clients) {
      const missing = missingOf(client);
      if (missing !== undefined && obstacle === undefined) {
        process.stderr.write(`NOT TESTED: ${titleOf(client)}: ${missing}\n`);
      }
      describe(titleOf(client), { skip: missing ?? false, concurrency: 1 }, () => {
        defineTests(client, async (steps, pod = 'app') =>
          readRun(client, await lab.run(planRun(client, steps, pod))),
        );
      });
    }
  });

  describe('together, while the real service fails and after', () => {
    const present = clients.filter((client) => missingOf(client) === undefined);
    const finished = new Map<Client, Finished>();
    before(async () => {
      for (const group of Map.groupBy(present, paceOf).values()) {
        const plans = group.map((client) => {
          // A resource without a cached token, because no earlier request named it.
          const resource = `https://${client.key}.lab`;
          // The service fails until the slowest client has been refused, for 30 s at most.
          const step = { ...stepFor('managed', undefined), resource, calls: 60, untilToken: true };
          return planRun(client, [step], 'app');
        });
        for (const [index, done] of (await lab.runInOutage(plans)).entries()) {
          const client = group[index];
          if (client !== undefined) finished.set(client, readRun(client, done));
        }
      }
    });

    for (const client of present) {
      const means = client.retries === true ? 'by retries of its own' : 'when asked again';
      it(`${titleOf(client)} recovers ${means}`, () => {
        const { outcomes, requests } = finished.get(client) ?? { outcomes: [], requests: {} };
        assert.deepEqual(outcomes.at(-1), { identity: 'older' }, JSON.stringify(outcomes));
        assert.equal(requests['token ok'], (client.signIn ?? 0) + 1);
        assert.ok(
          (requests['token upstream_down'] ?? 0) >= 1,
          'the client had no failure in the outage',
        );
        if (client.retries === true) {
          assert.equal(outcomes.length, 1, JSON.stringify(outcomes));
        } else {
          assert.match(outcomes[0]?.failure ?? '', /No token for the moment: /);
        }
      });
    }
  });
});

type RunSteps = (steps: readonly Step[], pod?: ClientRun['pod']) => Promise<Finished>;

function defineTests(client: Client, run: RunSteps): void {
  const { ids, chainIds, explains, signIn = 0 } = client;
  const asks = chainIds === undefined ? (['managed'] as const) : (['managed', 'default'] as const);

  /**
   * The expected requests of these steps: probes where the client probes, and these token requests.
   */
  const cost = (steps: readonly Step[], tokens: Readonly<Record<string, number>>) => {
    const probes = steps.reduce((sum, { credential, calls }) => {
      if (credential === 'default') return sum + (client.chainProbesAgain === true ? calls : 1);
      return sum + (client.probes === true ? 1 : 0);
    }, 0);
    return {
      ...(probes === 0 ? {} : { 'token metadata_header_missing': probes }),
      ...Object.fromEntries(
        Object.entries(tokens).map(([reason, count]) => [`token ${reason}`, count]),
      ),
    };
  };

  it(`gets its pod's default identity, and others by ${ids.join(', ')} id`, async () => {
    const unnamed = stepFor('managed', undefined);
    const steps = [
      signIn === 0 ? unnamed : { ...unnamed, needsSubscription: true },
      ...ids.map((kind) => stepFor('managed', kind)),
    ];
    const { outcomes, requests } = await run(steps);
    assert.deepEqual(
      outcomes,
      [{ identity: 'older' }, ...ids.map(() => ({ identity: 'newer' }))],
      'the wrong identities',
    );
    // A guessed object id was tried as a client id first.
    const guessed = client.guesses === true ? { selector_not_bound: 1 } : {};
    assert.deepEqual(requests, cost(steps, { ok: steps.length * (signIn + 1), ...guessed }));
  });

  if (chainIds !== undefined) {
    it('gets both identities by its default credential chain: a probe, a token', async () => {
      const steps = [undefined, ...chainIds].map((kind) => stepFor('default', kind));
      const { outcomes, requests } = await run(steps);
      assert.deepEqual(outcomes, [
        { identity: 'older' },
        ...chainIds.map(() => ({ identity: 'newer' })),
      ]);
      assert.deepEqual(requests, cost(steps, { ok: steps.length }));
    });
  }

  const perFive = client.caches === true ? 1 : 5;
  if (signIn === 0) {
    it(`asks the agent ${perFive === 1 ? 'once' : 'each time'} for five tokens of one resource`, async () => {
      const steps = asks.flatMap((credential) =>
        [vault, 'https://management.azure.com/'].map((resource) => ({
          ...stepFor(credential, undefined),
          resource,
          calls: 5,
        })),
      );
      for (const step of steps) {
        const { outcomes, requests } = await run([step]);
        const got = outcomes.map(({ identity }) => identity);
        assert.deepEqual(got, Array(5).fill('older'), JSON.stringify(outcomes));
        assert.deepEqual(requests, cost([step], { ok: perFive }), JSON.stringify(step));
      }
    });
  } else {
    it('does not sign in without a subscription unless it has the flag', async () => {
      const step = { ...stepFor('managed', 'client'), needsSubscription: true };
      const { outcomes, requests } = await run([step]);
      assert.match(outcomes[0]?.failure ?? '', /no subscriptions were found/);
      assert.deepEqual(requests, cost([step], { ok: signIn }));
    });
  }

  it('gets the reason why a pod has no identity, and does not retry', async () => {
    for (const credential of asks) {
      const step = stepFor(credential, undefined);
      const { outcomes, requests } = await run([step], 'plain');
      const [{ failure = '' } = {}, ...more] = outcomes;
      assert.deepEqual(more, []);
      assert.notEqual(failure, '');
      if (explains === 'always' || (explains === 'outside-chain' && credential === 'managed')) {
        const who = `pod default/${client.key}-plain`;
        assert.match(failure, new RegExp(`Identity not found: ${who} has no label .*aadpodidbind`));
        assert.match(failure, /Set it to the selector of an AzureIdentityBinding/);
      }
      assert.deepEqual(requests, cost([step], { no_binding_label: 1 }));
    }
  });

  it('gets no identity of another pod, nor its own one instead', async () => {
    const steps = ids.map((kind) => stepFor('managed', kind, 'untrusted'));
    const { outcomes, requests } = await run(steps);
    assert.equal(outcomes.length, steps.length);
    for (const { identity, failure } of outcomes) {
      assert.equal(identity, undefined);
      if (explains === 'never') continue;
      assert.match(failure ?? '', /Identity not found: no identity of pod default\/\S+ has the/);
    }
    const guesses = client.guesses === true ? ids.filter((kind) => kind !== 'resource') : [];
    const refused = steps.length + guesses.length;
    assert.deepEqual(requests, cost(steps, { selector_not_bound: refused }));
  });
}

/**
 * Groups clients by pace, so that those in one group meet an outage together: MSAL for Go gives up
 * after 2s, possibly before the first request of the Azure CLI.
 */
function paceOf({ kit, signIn }: Client): 'hasty' | 'usual' | 'slow' {
  if (kit === 'go') return 'hasty';
  return signIn === undefined ? 'usual' : 'slow';
}

function missingOf({ kit }: Client): string | undefined {
  return kits.get(kit)?.missing;
}

function titleOf({ key, version }: Client): string {
  return `${key} ${version}`;
}

/** A step that names one of the lab's identities, or none. */
function stepFor(
  credential: Step['credential'],
  kind: IdKind | undefined,
  identity = 'newer',
): Step {
  const step = { credential, resource: vault, calls: 1 };
  if (kind === undefined) return step;
  return { ...step, id: { kind, value: createLabIdentity(identity)[`${kind}Id`] } };
}

function readRun(client: Client, done: ClientRunResult): Finished {
  assert.equal(done.code, 0, `${client.key} ended badly: ${done.stderr}`);
  assert.equal(done.leaks, 0, 'a pod got a token of the node');
  const { outcomes } = JSON.parse(done.stdout) as { readonly outcomes: readonly Outcome[] };
  return { outcomes, requests: done.requests };
}
