import { request } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { callerOf, prepareStand, type Stand } from '../stand/stand.ts';
import type { Scenario } from './scenario.ts';

const size = { pods: 250, identities: 500, bindings: 1_000 };
const patienceMs = 20_000;

export const coldStart: Scenario = {
  name: 'cold-start',
  title: 'From the start of the executable to the first token served, 250 pods',
  isQuick: true,
  run: async ({ options, executable, stack, say }) => {
    const { agentFlags, isQuick } = options;
    const stand = stack.use(await prepareStand({ executable, agentFlags, size }));
    // Brings the file into memory.
    await timeStart(stand);
    const values: number[] = [];
    for (let round = 0; round < (isQuick ? 5 : 15); round++) {
      values.push(await timeStart(stand));
      say(`${Math.round(values.at(-1) ?? 0)} ms`);
    }
    return {
      figures: [{ name: 'start to first token', unit: 'ms', values }],
      notes: ['The token is a miss: asking the (fake) upstream is part of the time.'],
    };
  },
};

async function timeStart(stand: Stand): Promise<number> {
  await stand.agent.stop();
  const startedAtMs = performance.now();
  await stand.agent.launch();
  while ((await askOnce(stand)) !== 200) {
    if (performance.now() - startedAtMs > patienceMs) throw new Error('no token in 20 s');
    await delay(1);
  }
  return performance.now() - startedAtMs;
}

/** The status, or 0 while nobody listens. */
function askOnce(stand: Stand): Promise<number> {
  const { target: path, sourceIp: localAddress } = callerOf(stand.pods[0]);
  const { host, port } = stand;
  const { promise, resolve } = Promise.withResolvers<number>();
  request({ host, port, path, localAddress, headers: { Metadata: 'true' }, agent: false })
    .on('error', () => {
      resolve(0);
    })
    .on('response', (answer) => {
      answer.resume().on('end', () => {
        resolve(answer.statusCode ?? 0);
      });
    })
    .end();
  return promise;
}
