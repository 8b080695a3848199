/** The plugin in this process, over the real kubectl and a real API server; `az` is a fake. */
import { execFile } from 'node:child_process';
import type { ProgramRun } from '../../../src/kubectl/base/io.ts';
import { runPlugin } from '../../../src/kubectl/plugin.ts';
import type { Api } from '../../cluster/support/api.ts';
import { kubectlEnvironment } from '../../cluster/support/kubectl.ts';
import type { FakeAz } from './fake-az.ts';

export interface RealMachine {
  /** Path of the program. */
  readonly kubectl: string;
  readonly kubeconfig: string;
  /** Folder of kubectl's discovery cache. */
  readonly home: string;
  readonly az?: FakeAz;
  readonly files?: Readonly<Record<string, string>>;
  /** Of each call of kubectl. */
  readonly onCall?: (args: readonly string[], input: string) => void;
  /**
   * Of the same user, for `kubectl get --raw`: it prints what the server answers, and each start of
   * kubectl takes 0.1 s of processor time. What is refused there is asked by kubectl.
   */
  readonly api?: Api;
  /** What kubectl read earlier, where no object changes in between. */
  readonly known?: Map<string, ProgramRun>;
  /** Time since the test's objects were put: by default they are too old to wait for others. */
  readonly laterMs?: number;
}

export async function runOn(machine: RealMachine, words: readonly string[]) {
  const { kubectl, kubeconfig, home, az, files = {}, onCall, api, known } = machine;
  const { laterMs = 10 * 60_000 } = machine;
  let [stdout, stderr] = ['', ''];
  const code = await runPlugin(words, {
    environment: { KUBECTL: kubectl },
    stdout: (text) => (stdout += text),
    stderr: (text) => (stderr += text),
    run: async (program, args, { input = '' } = {}) => {
      if (program === 'az') return az?.run(args) ?? { code: undefined, stdout: '', stderr: '' };
      onCall?.(args, input);
      const call = args.join(' ');
      const read = known?.get(call) ?? (await readDirectly(args, api));
      if (read !== undefined) return read;
      const done = await execute(program, args, input, kubectlEnvironment(home, kubeconfig));
      if (args[0] === 'get') known?.set(call, done);
      return done;
    },
    readText: (path) => Promise.resolve(files[path]),
    wallMs: () => Date.now() + laterMs,
    sleep: () => Promise.resolve(),
    stop: new AbortController().signal,
  });
  return { code, stdout, stderr };
}

async function readDirectly(
  args: readonly string[],
  api: Api | undefined,
): Promise<ProgramRun | undefined> {
  const path = /^get --raw=(\/api\S*)/.exec(args.join(' '))?.[1];
  if (api === undefined || path === undefined || args.some((word) => word.startsWith('--as=')))
    return undefined;
  const { status, body } = await api.request('GET', path);
  return status === 200 ? { code: 0, stdout: JSON.stringify(body), stderr: '' } : undefined;
}

function execute(
  program: string,
  args: readonly string[],
  input: string,
  env: NodeJS.ProcessEnv,
): Promise<ProgramRun> {
  const { promise, resolve } = Promise.withResolvers<ProgramRun>();
  const child = execFile(program, args, { env, maxBuffer: 1e8 }, (error, stdout, stderr) => {
    const code = typeof error?.code === 'number' ? error.code : error === null ? 0 : undefined;
    resolve({ code, stdout, stderr });
  });
  child.stdin?.on('error', () => undefined).end(input);
  return promise;
}
