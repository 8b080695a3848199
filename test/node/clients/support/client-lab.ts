/**
 * The lab of the client tests from the side of the test: started, requested to run clients,
 * stopped.
 */
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { createInterface } from 'node:readline';
import { openFabric } from '../../../../lab/fabric/fabric.ts';

export interface ClientRun {
  /** Names its pods. */
  readonly client: string;
  /** `app` has the identities `older`, its default, and `newer`; `plain` has none. */
  readonly pod: 'app' | 'plain';
  readonly command: string;
  readonly args: readonly string[];
}

export interface ClientRunResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  /** Answers to the pod in the agent's log, by `route reason`. */
  readonly requests: Readonly<Record<string, number>>;
  /** Tokens of the node's own identity that pods got, since the start. */
  readonly leaks: number;
}

/** The address of Azure Resource Manager, and a file with the CA to trust. */
export interface ArmPlace {
  readonly url: string;
  readonly caFile: string;
}

export interface ClientLab extends AsyncDisposable {
  readonly arm: ArmPlace;
  run(run: ClientRun): Promise<ClientRunResult>;
  /** All clients start together, with the real service failing until each has been refused once. */
  runInOutage(runs: readonly ClientRun[]): Promise<readonly ClientRunResult[]>;
}

export interface LabRequest {
  readonly id: number;
  readonly runs: readonly ClientRun[];
  readonly outage: boolean;
}

export type LabReply =
  | { readonly arm: ArmPlace }
  | { readonly id: number; readonly results: readonly ClientRunResult[] }
  | { readonly id: number; readonly error: string };

const inner = fileURLToPath(new URL('client-lab-inner.ts', import.meta.url));

/** Variables that would direct a client away from the metadata address. */
const misleading = /^(?:AZURE|IDENTITY|IMDS|MSI|ARM)_|_proxy$/i;

/** @throws when the inner process ends before it is ready. */
export async function openClientLab(): Promise<ClientLab> {
  await using opening = new AsyncDisposableStack();
  const fabric = opening.use(await openFabric({ name: 'clients' }));
  const kept = Object.entries(process.env).filter(([name]) => !misleading.test(name));
  // Default chains also look for a signed-in user on this machine.
  const env = { ...Object.fromEntries(kept), HOME: '/nonexistent' };
  const child = fabric.exec('azure', process.execPath, [inner, fabric.prefix], {
    stdio: ['pipe', 'pipe', 'inherit'],
    env,
  });
  const { stdin, stdout } = child;
  if (stdin === null || stdout === null) throw new TypeError('the lab has no pipes');
  // If the lab has ended, its closed output rejects the pending answers.
  stdin.on('error', () => undefined);
  const exited = once(child, 'exit');
  const ready = Promise.withResolvers<ArmPlace>();
  const waiting = new Map<number, PromiseWithResolvers<readonly ClientRunResult[]>>();
  const lines = createInterface({ input: stdout });
  lines.on('line', (line) => {
    const reply = JSON.parse(line) as LabReply;
    if ('arm' in reply) {
      ready.resolve(reply.arm);
      return;
    }
    const asked = waiting.get(reply.id);
    waiting.delete(reply.id);
    if ('results' in reply) asked?.resolve(reply.results);
    else asked?.reject(new Error(reply.error));
  });
  lines.once('close', () => {
    for (const { reject } of [ready, ...waiting.values()]) {
      reject(new Error('the lab of the clients ended early'));
    }
  });
  const arm = await ready.promise;
  let asked = 0;
  const ask = (runs: readonly ClientRun[], outage: boolean) => {
    asked += 1;
    const answered = Promise.withResolvers<readonly ClientRunResult[]>();
    waiting.set(asked, answered);
    stdin.write(`${JSON.stringify({ id: asked, runs, outage } satisfies LabRequest)}\n`);
    return answered.promise;
  };
  const owned = opening.move();
  return {
    arm,
    run: async (run) => {
      const [result] = await ask([run], false);
      if (result === undefined) throw new TypeError('the lab did not say how the run went');
      return result;
    },
    runInOutage: (runs) => ask(runs, true),
    [Symbol.asyncDispose]: async () => {
      stdin.end();
      await exited;
      await owned.disposeAsync();
    },
  };
}
