/**
 * Loaded into the agent's process before the agent itself: moves its clock, takes heap snapshots,
 * makes it crash, and records its requests to Entra ID, on commands of the parent.
 */
import { subscribe } from 'node:diagnostics_channel';
import { appendFileSync, writeFileSync } from 'node:fs';
import { Session } from 'node:inspector/promises';
import { writeHeapSnapshot } from 'node:v8';
import { systemClock } from '../../../../src/base/time/clock.ts';
import { tuning } from '../../../../src/nmi/config/tuning.ts';

/**
 * `exception`: the next request to Entra ID throws an error that contains its form. `rejection`: the request leaves an
 * unhandled rejection with the form as its reason.
 */
export type Crash = 'exception' | 'rejection';

export type Command =
  | { readonly kind: 'snapshot'; readonly path: string }
  /**
   * The contents of all buffers in sequence, because heap snapshots do not include them. The memory
   * of undici's HTTP parsers is left out: they write a longer answer elsewhere, and never clear the
   * bytes of the previous one.
   */
  | { readonly kind: 'buffers'; readonly path: string }
  /** Both clocks move ahead by `ms`, and everything due by then runs. */
  | { readonly kind: 'pass'; readonly ms: number }
  | { readonly kind: 'crash'; readonly how: Crash };

/** The answer to every command but a crash. */
export const done = 'done';

/** The file for the forms that are sent to Entra ID, one per line. */
export const sentFileVariable = 'CANARY_SENT_FILE';

interface Armed {
  readonly dueAtMs: number;
  readonly work: () => void;
  readonly disarm: () => void;
}

const real = { ...systemClock };
const armed = new Set<Armed>();
let aheadMs = 0;
let crash: Crash | undefined;

Object.assign(tuning, {
  lateObjectWaitMs: 100,
  entraTimeoutMs: 5_000,
  imdsTimeoutMs: 1_000,
  drainTimeoutMs: 1_000,
});
Object.assign(systemClock, {
  wallMs: () => real.wallMs() + aheadMs,
  monotonicMs: () => real.monotonicMs() + aheadMs,
  schedule: (delayMs: number, work: () => void) => {
    const run = () => {
      entry.disarm();
      armed.delete(entry);
      work();
    };
    const disarm = real.schedule(delayMs, run);
    const entry: Armed = { dueAtMs: systemClock.monotonicMs() + delayMs, work: run, disarm };
    armed.add(entry);
    return () => {
      disarm();
      armed.delete(entry);
    };
  },
});

function pass(ms: number): void {
  aheadMs += ms;
  const nowMs = systemClock.monotonicMs();
  const due = [...armed].filter(({ dueAtMs }) => dueAtMs <= nowMs);
  for (const entry of due.sort((a, b) => a.dueAtMs - b.dueAtMs)) {
    if (armed.has(entry)) entry.work();
  }
}

subscribe('undici:request:create', (message) => {
  const { path, body } = (message as { request: { path: string; body: unknown } }).request;
  const file = process.env[sentFileVariable];
  if (!path.includes('/oauth2/') || !Buffer.isBuffer(body) || file === undefined) return;
  // A form contains no line break.
  appendFileSync(file, Buffer.concat([body, Buffer.from('\n')]));
  if (crash === 'exception') throw Object.assign(new Error('on purpose'), { body });
  // A reason that is no error, and one whose text has the form only beside its stack.
  // oxlint-disable-next-line typescript/prefer-promise-reject-errors
  if (crash === 'rejection') void Promise.reject({ body });
});

async function writeBuffers(path: string): Promise<void> {
  // Clears the result of an earlier search.
  writeFileSync(path, '');
  const session = new Session();
  session.connect();
  const findAll = async (expression: string): Promise<string> => {
    const { result } = await session.post('Runtime.evaluate', { expression });
    const prototypeObjectId = result.objectId ?? '';
    const { objects } = await session.post('Runtime.queryObjects', { prototypeObjectId });
    return objects.objectId ?? '';
  };
  await session.post('Runtime.callFunctionOn', {
    objectId: await findAll('ArrayBuffer.prototype'),
    arguments: [{ value: path }, { objectId: await findAll('WebAssembly.Memory.prototype') }],
    functionDeclaration: `function (path, parsers) {
      const { appendFileSync } = process.getBuiltinModule('node:fs');
      const ofParsers = new Set(parsers.map(({ buffer }) => buffer));
      for (const buffer of this) {
        if (!buffer.detached && !ofParsers.has(buffer)) appendFileSync(path, new Uint8Array(buffer));
      }
    }`,
  });
  session.disconnect();
}

async function obey(command: Command): Promise<void> {
  if (command.kind === 'snapshot') writeHeapSnapshot(command.path);
  else if (command.kind === 'buffers') await writeBuffers(command.path);
  else if (command.kind === 'pass') pass(command.ms);
  else crash = command.how;
  process.send?.(done);
}

process.on('message', (command: Command) => {
  void obey(command);
});
// The agent ends when it is done, even with connected clients.
process.channel?.unref();
