/**
 * A process of a pod, for the handover tests, until SIGTERM or SIGKILL:
 * `holder PORT AGENTS_PATH HANDOVER_PATH`, or `agent PORT AGENTS_PATH`, which answers each request
 * with its process ID after 10 ms.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { systemClock } from '../../../src/cache/clock.ts';
import { refuse } from '../../../src/nmi/base/answers.ts';
import { takeListener } from '../../../src/nmi/kernel/held-listener.ts';
import { openListenerHolder } from '../../../src/nmi/kernel/listener-holder.ts';
import { openBareListener } from '../../support/bare-listener.ts';

const [role = '', portText = '', agentsPath = '', handoverPath = ''] = process.argv.slice(2);
const port = Number(portText);
const address = { ip: '127.0.0.1', port };
const print = (text: string): void => void process.stdout.write(`${text}\n`);
const log = {
  error: (_facts: object, text: string) => print(text),
  warn: (_facts: object, text: string) => print(text),
  info: (_facts: object, text: string) => print(text),
  debug: () => undefined,
  trace: () => undefined,
};

const stopped = Promise.withResolvers<void>();
process.once('SIGTERM', () => stopped.resolve());

if (role === 'holder') {
  const holder = await openListenerHolder({
    address,
    agentsPath,
    handoverPath,
    log,
    clock: systemClock,
    onSuccessor: () => {
      print('paused');
      return Promise.resolve();
    },
    onSuccessorGone: () => print('resumed'),
  });
  print('ready');
  await stopped.promise;
  await holder[Symbol.asyncDispose]();
} else {
  const held = await takeListener({ path: agentsPath, address });
  const listener = await openBareListener({
    port,
    descriptor: held?.descriptor,
    handle: async () => {
      await delay(10);
      return refuse('not_found', `answered by ${process.pid}`);
    },
  });
  print(held?.isShared === true ? 'ready, shared' : 'ready, alone');
  await stopped.promise;
  held?.[Symbol.dispose]();
  await listener.drain(5_000);
}
process.exit(0);
