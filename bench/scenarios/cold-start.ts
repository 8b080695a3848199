import { request, type RequestOptions } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { freePort } from '../../lab/fabric/free-ports.ts';
import type { Figure } from '../core/results.ts';
import { sdkHeaders } from '../load/request.ts';
import { onCore } from '../machine/cores.ts';
import { start, stop } from '../machine/child.ts';
import { goalSize } from '../fixture/objects.ts';
import { callerOf, prepareFixture, type Fixture } from '../fixture/fixture.ts';
import type { Context, Scenario } from './scenario.ts';

const sizes = [
  { name: 'start to first token', size: { pods: 250, identities: 500, bindings: 1_000 } },
  { name: 'start to first token, 10,000 identities', size: goalSize },
];
const patienceMs = 20_000;
/** Not compiled, and loads only a listener. */
const bareServer =
  "process.getBuiltinModule('node:http').createServer((_, answer) => answer.end('x'))" +
  ".listen(Number(process.argv[1]), '127.0.0.1')";

export const coldStart: Scenario = {
  name: 'cold-start',
  title: 'From the start of the executable to the first token served',
  isQuick: true,
  run: async (context) => {
    const { executable, options, stack } = context;
    const { agentFlags } = options;
    const figures: Figure[] = [];
    for (const { name, size } of sizes) {
      const fixture = stack.use(await prepareFixture({ executable, agentFlags, size }));
      figures.push(await repeat(context, name, () => timeAgent(fixture)));
      await fixture.agent.stop();
    }
    figures.push(await repeat(context, 'a bare Node to its first answer', timeBareNode));
    return {
      figures,
      notes: [
        'With 250 pods, 500 identities and 1,000 bindings, and with 250, 10,000 and 20,000. The token ' +
          'is a miss: asking the (fake) upstream is part of the time. The bare Node is started with a ' +
          'server of one line as its argument.',
      ],
    };
  },
};

async function repeat(
  { options, say }: Context,
  name: string,
  time: () => Promise<number>,
): Promise<Figure> {
  // Loads the file into the page cache.
  await time();
  const values: number[] = [];
  for (let round = 0; round < (options.isQuick ? 5 : 15); round++) {
    values.push(await time());
    say(`${name}: ${Math.round(values.at(-1) ?? 0)} ms`);
  }
  return { name, unit: 'ms', values };
}

async function timeAgent(fixture: Fixture): Promise<number> {
  await fixture.agent.stop();
  const { target: path, sourceIp: localAddress } = callerOf(fixture.pods[0]);
  const { host, port } = fixture;
  const startedAtMs = performance.now();
  await fixture.agent.launch();
  return await untilServed(
    { host, port, path, ...(localAddress && { localAddress }) },
    startedAtMs,
  );
}

async function timeBareNode(): Promise<number> {
  const host = '127.0.0.1';
  const port = await freePort();
  const startedAtMs = performance.now();
  const words = onCore('server', [process.execPath, '-e', bareServer, String(port)]);
  const child = start(words, { stdio: ['ignore', 'ignore', 'inherit'] });
  try {
    return await untilServed({ host, port, path: '/' }, startedAtMs);
  } finally {
    await stop(child);
  }
}

/** @throws Error without a successful answer in 20s. */
async function untilServed(asked: RequestOptions, startedAtMs: number): Promise<number> {
  while ((await askOnce(asked)) !== 200) {
    if (performance.now() - startedAtMs > patienceMs) throw new Error('no answer in 20 s');
    await delay(1);
  }
  return performance.now() - startedAtMs;
}

/** The status, or 0 while nothing listens. */
function askOnce(asked: RequestOptions): Promise<number> {
  const { promise, resolve } = Promise.withResolvers<number>();
  request({ ...asked, headers: Object.fromEntries(sdkHeaders), agent: false })
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
