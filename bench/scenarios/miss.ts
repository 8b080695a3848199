import { join } from 'node:path';
import { subjects, type Figure } from '../core/results.ts';
import { median, nearestRank } from '../core/statistics.ts';
import type { MissPlan, MissTimes } from '../load/miss-plan.ts';
import { onCore } from '../machine/cores.ts';
import { outputOf, start } from '../machine/child.ts';
import { openBareProxy } from '../fixture/controls.ts';
import { goalSize } from '../fixture/objects.ts';
import { addSecretIdentity, secretValue } from '../fixture/secret-identity.ts';
import { openFixture, tokenPath } from '../fixture/fixture.ts';
import type { Scenario } from './scenario.ts';

/** About the latency of the real services in good conditions. */
const delayMs = 10;
const missesARound = 40;
/** With three alternating paths, the agent respects IMDS's limit of 20 requests/s per node. */
const pauseMs = 8;

export const miss: Scenario = {
  name: 'miss',
  title: `A token that is not in memory, beside the upstream (${delayMs} ms) asked directly and by a ${subjects.bareProxy}`,
  isQuick: true,
  run: async ({ options, executable, stack, say }) => {
    const { agentFlags, rounds, isQuick } = options;
    const fixture = stack.use(await openFixture({ executable, agentFlags, size: goalSize }));
    const { clientId, tenantId } = addSecretIdentity(fixture.around);
    const { imds, entra } = fixture.around;
    await imds.setFaults({ delayMs, paths: 'token' });
    entra.setFaults({ delayMs });
    const misses = isQuick ? 15 : missesARound;
    const ownId = fixture.pods[0]?.identity.clientId ?? '';
    const figures: Figure[] = [];
    const measure = async (
      name: string,
      upstreamUrl: string,
      question: (round: number) => Question,
    ): Promise<void> => {
      const caPem = fixture.around.authority.certificatePem;
      const common = {
        agentUrl: `http://${fixture.host}:${fixture.port}`,
        sourceIp: fixture.pods[0]?.ip ?? '',
        proxyUrl: await openBareProxy(upstreamUrl, caPem, stack),
        caPem,
        misses,
        pauseMs,
      };
      const times: (readonly MissTimes[])[] = [];
      for (let round = 0; round < rounds; round++) {
        const { agentTarget, target, form } = question(round);
        const upstream = { url: upstreamUrl, target, ...(form === undefined ? {} : { form }) };
        times.push(await runMisses({ ...common, agentTarget, upstream }));
        say(`${name} ${round + 1}/${rounds}`);
      }
      figures.push(...figuresOf(name, times));
    };
    await measure('IMDS', `http://${imds.host}:${imds.port}`, (round) => {
      const target = targetOf(`imds-${round}`, ownId);
      return { agentTarget: target, target };
    });
    await measure('Entra ID', entra.authority, (round) => ({
      agentTarget: targetOf(`entra-${round}`, clientId),
      target: `/${tenantId}/oauth2/v2.0/token`,
      form: {
        client_id: clientId,
        client_secret: secretValue,
        grant_type: 'client_credentials',
        scope: `https://entra-${round}-{n}.example/.default`,
      },
    }));
    return {
      figures,
      notes: [
        'What is added is the difference to the upstream asked in the same turn: at p50 the median of a ' +
          `round's ${misses}, at p99 the largest of them, which chance has a part in.`,
      ],
    };
  },
};

/** One request, as a pod sends it and as the upstream accepts it. */
type Question = Pick<MissPlan, 'agentTarget'> & Omit<MissPlan['upstream'], 'url'>;

function targetOf(prefix: string, clientId: string): string {
  return `${tokenPath}&resource=https://${prefix}-{n}.example&client_id=${clientId}`;
}

async function runMisses(plan: MissPlan): Promise<readonly MissTimes[]> {
  const program = join(import.meta.dirname, '../programs/misses.ts');
  const words = onCore('load', [process.execPath, program, JSON.stringify(plan)]);
  const child = start(words, { stdio: ['ignore', 'pipe', 'inherit'] });
  return JSON.parse(await outputOf(child)) as readonly MissTimes[];
}

/**
 * Round by round; the added latency is the difference to the upstream's in the same round. The p99
 * of a round is the largest of its differences.
 */
function figuresOf(name: string, rounds: readonly (readonly MissTimes[])[]): readonly Figure[] {
  const p50 = (way: keyof MissTimes) =>
    rounds.map((times) => median(times.map((each) => each[way])));
  const differences = (way: keyof MissTimes) =>
    rounds.map((times) => times.map((each) => each[way] - each.directMs));
  const addedP50 = (way: keyof MissTimes) => differences(way).map(median);
  const addedP99 = (way: keyof MissTimes) =>
    differences(way).map((values) => nearestRank(values, 0.99));
  const figure = (what: string, values: readonly number[]): Figure => ({
    name: `${name}: ${what}`,
    unit: 'ms',
    values,
  });
  const by = `by a ${subjects.bareProxy}`;
  return [
    figure('by the agent, p50', p50('agentMs')),
    figure(`${by}, p50`, p50('proxyMs')),
    figure('the upstream itself, p50', p50('directMs')),
    figure('added at p50', addedP50('agentMs')),
    figure(`added ${by} at p50`, addedP50('proxyMs')),
    figure('added at p99', addedP99('agentMs')),
    figure(`added ${by} at p99`, addedP99('proxyMs')),
  ];
}
