import { join } from 'node:path';
import { Histogram } from '../core/histogram.ts';
import type { Figure } from '../core/results.ts';
import type { MissPair, MissPlan } from '../load/miss-plan.ts';
import { onCore } from '../machine/cores.ts';
import { outputOf, start } from '../machine/child.ts';
import { goalSize } from '../stand/objects.ts';
import { addSecretIdentity, secretValue } from '../stand/secret-identity.ts';
import { openStand, tokenPath, type Stand } from '../stand/stand.ts';
import type { Scenario } from './scenario.ts';

/** About what the real services take on a good day. */
const delayMs = 10;
const missesARound = 40;

export const miss: Scenario = {
  name: 'miss',
  title: `A token that is not in memory, beside the upstream (${delayMs} ms) asked directly`,
  isQuick: true,
  run: async ({ options, executable, stack, say }) => {
    const { agentFlags, rounds, isQuick } = options;
    const stand = stack.use(await openStand({ executable, agentFlags, size: goalSize }));
    const { clientId, tenantId } = addSecretIdentity(stand.around);
    const { imds, entra } = stand.around;
    await imds.setFaults({ delayMs, paths: 'token' });
    entra.setFaults({ delayMs });
    const misses = isQuick ? 15 : missesARound;
    const ownId = stand.pods[0]?.identity.clientId ?? '';
    const imdsUrl = `http://${imds.host}:${imds.port}${tokenPath}`;
    const figures: Figure[] = [];
    const measure = async (name: string, round: (index: number) => MissPlan): Promise<void> => {
      const pairs: (readonly MissPair[])[] = [];
      for (let index = 0; index < rounds; index++) {
        pairs.push(await runMisses(round(index)));
        say(`${name} ${index + 1}/${rounds}`);
      }
      figures.push(...figuresOf(name, pairs));
    };
    await measure('IMDS', (index) => ({
      ...common(stand, `imds-${index}`, ownId),
      // The agent keeps within the 20 a second that the real service allows a node.
      ...{ misses, pauseMs: 45 },
      upstream: {
        kind: 'imds',
        url: `${imdsUrl}&resource=https://imds-${index}-{n}.example&client_id=${ownId}`,
      },
    }));
    await measure('Entra ID', (index) => ({
      ...common(stand, `entra-${index}`, clientId),
      ...{ misses, pauseMs: 10 },
      upstream: {
        kind: 'entra',
        url: `${entra.authority}/${tenantId}/oauth2/v2.0/token`,
        form: {
          ...{ client_id: clientId, client_secret: secretValue },
          ...{
            grant_type: 'client_credentials',
            scope: `https://entra-${index}-{n}.example/.default`,
          },
        },
      },
    }));
    return { figures };
  },
};

function common(stand: Stand, prefix: string, clientId: string) {
  return {
    agentUrl: `http://${stand.host}:${stand.port}`,
    sourceIp: stand.pods[0]?.ip ?? '',
    agentTarget: `${tokenPath}&resource=https://${prefix}-{n}.example&client_id=${clientId}`,
    caPem: stand.around.authority.certificatePem,
  };
}

async function runMisses(plan: MissPlan): Promise<readonly MissPair[]> {
  const program = join(import.meta.dirname, '../programs/misses.ts');
  const words = onCore('load', [process.execPath, program, JSON.stringify(plan)]);
  const child = start(words, { stdio: ['ignore', 'pipe', 'inherit'] });
  return JSON.parse(await outputOf(child)) as readonly MissPair[];
}

/** Round by round at p50; a p99 takes the pairs of all rounds. */
function figuresOf(name: string, rounds: readonly (readonly MissPair[])[]): readonly Figure[] {
  const at = (pairs: readonly MissPair[], side: keyof MissPair, share: number): number => {
    const histogram = new Histogram();
    for (const pair of pairs) histogram.recordMs(pair[side]);
    return histogram.percentileUs(share) / 1000;
  };
  const added = (pairs: readonly MissPair[], share: number): number =>
    at(pairs, 'agentMs', share) - at(pairs, 'directMs', share);
  return [
    {
      ...{ name: `${name}: by the agent, p50`, unit: 'ms' },
      values: rounds.map((pairs) => at(pairs, 'agentMs', 0.5)),
    },
    {
      ...{ name: `${name}: the upstream itself, p50`, unit: 'ms' },
      values: rounds.map((pairs) => at(pairs, 'directMs', 0.5)),
    },
    {
      ...{ name: `${name}: added at p50`, unit: 'ms' },
      values: rounds.map((pairs) => added(pairs, 0.5)),
    },
    { name: `${name}: added at p99`, unit: 'ms', values: [added(rounds.flat(), 0.99)] },
  ];
}
