/** The real kubectl, without any of this machine's own configuration. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';

export interface KubectlOptions {
  readonly input?: string;
  /** Default: the administrator's. */
  readonly kubeconfigPath?: string;
}

const timeoutMs = 60_000;

/** `home` is the folder of its discovery cache. */
export function kubectlEnvironment(home: string, kubeconfigPath: string): NodeJS.ProcessEnv {
  const { PATH, GOGC } = process.env;
  return { PATH, GOGC, HOME: home, KUBECONFIG: kubeconfigPath };
}

/** Its output; rejects with its error output. */
export async function runKubectl(
  program: string,
  home: string,
  kubeconfigPath: string,
  args: readonly string[],
  input = '',
): Promise<string> {
  const child = spawn(program, args, {
    env: kubectlEnvironment(home, kubeconfigPath),
    stdio: ['pipe', 'pipe', 'pipe'],
    signal: AbortSignal.timeout(timeoutMs),
    killSignal: 'SIGKILL',
  });
  const exited = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>;
  // The exit code reports a program that ends before it has read everything.
  child.stdin.on('error', () => undefined).end(input);
  const [stdout, stderr, [code]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    exited,
  ]);
  if (code === 0) return stdout;
  throw new Error(`kubectl ${args.join(' ')}: ${stderr}${stdout}`);
}
