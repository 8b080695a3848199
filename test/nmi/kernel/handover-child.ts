/**
 * A process of a pod, for the handover tests, until SIGTERM or SIGKILL. It starts and stops its
 * parts as the real one does, without the redirect and the API server:
 * `holder PORT PAGE_PORT AGENTS_PATH HANDOVER_PATH`, or `agent PORT PAGE_PORT AGENTS_PATH`, which
 * answers each request with its process ID after 10 ms.
 */
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { systemClock } from '../../../src/base/time/clock.ts';
import { openAdminPages } from '../../../src/nmi/admin/pages.ts';
import { refuse } from '../../../src/nmi/base/answers.ts';
import { CallerClient } from '../../../src/nmi/kernel/caller-client.ts';
import { openCallerServer } from '../../../src/nmi/kernel/caller-server.ts';
import { takeListener } from '../../../src/nmi/kernel/held-listener.ts';
import { openListenerHolder } from '../../../src/nmi/kernel/listener-holder.ts';
import { mapLayout } from '../../../src/redirect/ebpf/settings.ts';
import { defaultTarget } from '../../../src/redirect/target.ts';
import { openBareListener } from '../../support/bare-listener.ts';

const [role = '', portText = '', pagePortText = '', agentsPath = '', handoverPath = ''] =
  process.argv.slice(2);
const port = Number(portText);
const pagePort = Number(pagePortText);
const address = { ip: '127.0.0.1', port };
const callersPath = join(dirname(agentsPath), 'callers.sock');
const drainMs = 5_000;
const print = (text: string): void => void process.stdout.write(`${text}\n`);
const log = {
  error: (_facts: object, text: string) => print(text),
  warn: (_facts: object, text: string) => print(text),
  info: (_facts: object, text: string) => print(text),
  debug: () => undefined,
  trace: () => undefined,
};

const stop = new AbortController();
const stopped = Promise.withResolvers<void>();
process.once('SIGTERM', () => {
  stop.abort();
  stopped.resolve();
});
print('started');

function openPages(): Promise<AsyncDisposable> {
  return openAdminPages({
    config: { probePort: pagePort, metricsPort: 0, metricsAddress: '' },
    metrics: { contentType: '', render: () => Promise.resolve('') },
    clock: systemClock,
    parts: [],
    hasBeenActive: () => true,
    onTaken: () => undefined,
  });
}

async function runHolder(): Promise<void> {
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
  const callers = await openCallerServer({
    path: callersPath,
    report: () => ({ mode: 'ebpf', isActive: true, layout: mapLayout, target: defaultTarget }),
    lookUp: () => ({ kind: 'unattested' }),
    letThrough: () => undefined,
  });
  const pages = await openPages();
  print('ready');
  await stopped.promise;
  holder.release();
  await callers.untilUnused(drainMs + 2_000);
  await pages[Symbol.asyncDispose]();
  await callers[Symbol.asyncDispose]();
  await holder[Symbol.asyncDispose]();
}

async function runAgent(): Promise<void> {
  const client = new CallerClient({
    path: callersPath,
    clock: systemClock,
    onReport: () => undefined,
  });
  void client.report();
  const held = await takeListener({ path: agentsPath, address }, stop.signal);
  if (held === undefined) return;
  const listener = await openBareListener({
    port,
    descriptor: held.descriptor,
    handle: async () => {
      await delay(10);
      return refuse('not_found', `answered by ${process.pid}`);
    },
  });
  const pages = await openPages();
  print(held.isShared ? 'ready, shared' : 'ready, alone');
  await stopped.promise;
  held[Symbol.dispose]();
  await listener.drain(drainMs);
  await pages[Symbol.asyncDispose]();
  client.close();
}

void (role === 'holder' ? runHolder() : runAgent()).then(() => process.exit(0));
