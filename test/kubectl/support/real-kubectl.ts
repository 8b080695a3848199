/** The plugin in this process, over the real kubectl and a real API server; `az` is a fake. */
import { execFile } from 'node:child_process';
import type { ProgramRun } from '../../../src/kubectl/base/io.ts';
import { runPlugin } from '../../../src/kubectl/plugin.ts';
import { kubectlEnvironment } from '../../cluster/support/kubectl.ts';
import type { FakeAz } from './fake-az.ts';
import type { UnchangedReads } from './unchanged-reads.ts';

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
  readonly reads?: UnchangedReads;
  /** Time since the test's objects were put: by default they are too old to wait for others. */
  readonly laterMs?: number;
}

export async function runOn(machine: RealMachine, words: readonly string[]) {
  const { kubectl, kubeconfig, home, az, files = {}, onCall, reads } = machine;
  const { laterMs = 10 * 60_000 } = machine;
  let [stdout, stderr] = ['', ''];
  const code = await runPlugin(words, {
    environment: { KUBECTL: kubectl },
    stdout: (text) => (stdout += text),
    stderr: (text) => (stderr += text),
    run: (program, args, { input = '' } = {}) => {
      if (program === 'az') {
        return Promise.resolve(az?.run(args) ?? { code: undefined, stdout: '', stderr: '' });
      }
      onCall?.(args, input);
      const env = kubectlEnvironment(home, kubeconfig);
      const start = () => execute(program, args, input, env);
      return reads === undefined ? start() : reads.read(args, start);
    },
    readText: (path) => Promise.resolve(files[path]),
    wallMs: () => Date.now() + laterMs,
    sleep: () => Promise.resolve(),
    stop: new AbortController().signal,
  });
  return { code, stdout, stderr };
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
