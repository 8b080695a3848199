/** The lab of the client tests, seen from the test: started, asked to run a client, taken down. */
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { createInterface } from 'node:readline';
import { openFabric } from '../../../src/lab/fabric.ts';

export interface ClientRun {
  /** `app` has the identities `older`, its default, and `newer`; `plain` has none. */
  readonly pod: 'app' | 'plain';
  readonly command: string;
  readonly args: readonly string[];
  /** The real service is down until the agent has refused the client once. */
  readonly outage?: boolean;
}

export interface ClientRunResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  /** What the agent counted, by `route reason`. */
  readonly requests: Readonly<Record<string, number>>;
  /** Tokens of the node's own identity that pods got, since the start. */
  readonly leaks: number;
}

export interface ClientLab extends AsyncDisposable {
  run(run: ClientRun): Promise<ClientRunResult>;
}

const inner = fileURLToPath(new URL('client-lab-inner.ts', import.meta.url));

/** What would lead a client away from the metadata address. */
const misleading = /^(?:AZURE|IDENTITY|IMDS|MSI|ARM)_|_proxy$/i;

/** @throws when the inner process ends before it is ready. */
export async function openClientLab(): Promise<ClientLab> {
  await using opening = new AsyncDisposableStack();
  const fabric = opening.use(await openFabric({ name: 'clients' }));
  const kept = Object.entries(process.env).filter(([name]) => !misleading.test(name));
  // Default chains also look for who is signed in on this machine.
  const env = { ...Object.fromEntries(kept), HOME: '/nonexistent' };
  const child = fabric.exec('azure', process.execPath, [inner, fabric.prefix], {
    stdio: ['pipe', 'pipe', 'inherit'],
    env,
  });
  const { stdin, stdout } = child;
  if (stdin === null || stdout === null) throw new TypeError('the lab has no pipes');
  // A lab that has ended is noticed by the answer that does not come.
  stdin.on('error', () => undefined);
  const lines = createInterface({ input: stdout })[Symbol.asyncIterator]();
  const next = async (): Promise<unknown> => {
    const line = await lines.next();
    if (line.done === true) throw new Error('the lab of the clients ended early');
    return JSON.parse(line.value);
  };
  const exited = once(child, 'exit');
  await next();
  const owned = opening.move();
  return {
    run: async (run) => {
      stdin.write(`${JSON.stringify(run)}\n`);
      return (await next()) as ClientRunResult;
    },
    [Symbol.asyncDispose]: async () => {
      stdin.end();
      await exited;
      await owned.disposeAsync();
    },
  };
}
