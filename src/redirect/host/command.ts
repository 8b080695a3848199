/**
 * Runs a tool with a timeout and without a shell, reads a file of /proc, and translates failures into
 * one coded error. Only this file looks at exit codes and message texts.
 */
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { inKernel, nativeModule, type NativeModule } from '../native/addon.ts';
import type { FlowCut } from '../native/connections.ts';
import { RedirectError, type RedirectErrorCode } from '../redirect.ts';

/** How a tool ended. A non-zero exit code is a result; its meaning depends on the tool. */
export type ToolResult =
  | {
      readonly kind: 'exited';
      readonly exitCode: number;
      readonly stdout: string;
      readonly stderr: string;
    }
  | { readonly kind: 'failed'; readonly code: RedirectErrorCode; readonly why: string };

export const missingTool: ToolResult = {
  kind: 'failed',
  code: 'TOOL_MISSING',
  why: 'is not on the PATH',
};

/** The node's tools and files. Tests implement it by a network namespace or a script. */
export interface Host {
  /** Never rejects because of the tool. @param input written to its standard input. */
  run(tool: string, args: readonly string[], input?: string): Promise<ToolResult>;
  /** The text of a small file, or `undefined` if it is absent or unreadable. */
  read(path: string): Promise<string | undefined>;
  /**
   * Deletes conntrack entries of TCP connections by netlink; returns their number.
   * @throws RedirectError
   */
  cutFlows(cut: FlowCut): Promise<number>;
  /** Stays the same as long as the nftables rules do; `undefined` if it cannot be read. */
  ruleGeneration(): Promise<number | undefined>;
  /** Whether the kernel delivers packets for this address to the node; false if that cannot be read. */
  isLocal(ip: string): Promise<boolean>;
}

export interface HostOptions {
  /** A tool is killed after this time, which is longer than any lock wait. Default 15 000. */
  readonly timeoutMs?: number;
  /** Tools get only PATH and the xtables settings. */
  readonly env?: Readonly<Record<string, string | undefined>>;
}

/** Of a tool's output. kube-proxy writes tens of thousands of rules on a large cluster, about 150 bytes each. */
const maxBytes = 64 << 20;

/** The host this process runs on, in its own network namespace. */
export function createHost({ timeoutMs = 15_000, env: given }: HostOptions = {}): Host {
  const env = toolEnvironment(given ?? process.env);
  return {
    run: (tool, args, input) => runTool(tool, args, input, { timeoutMs, env }),
    read: async (path) => {
      try {
        return await readFile(path, 'utf8');
      } catch {
        return undefined;
      }
    },
    cutFlows: async (cut) => inKernel((native) => native.cutFlows(cut)),
    ruleGeneration: async () => unlessRefused((native) => native.ruleGeneration()),
    isLocal: async (ip) => unlessRefused((native) => native.isLocal(ip)) ?? false,
  };
}

function unlessRefused<T>(read: (native: NativeModule) => T): T | undefined {
  try {
    return read(nativeModule());
  } catch {
    return undefined;
  }
}

/**
 * Runs one tool to its end.
 *
 * SIGKILL on timeout is safe: `iptables-legacy-restore -w` has changed nothing while it waits for the
 * lock, and its commit is a single system call.
 */
function runTool(
  tool: string,
  args: readonly string[],
  input: string | undefined,
  { timeoutMs, env }: { readonly timeoutMs: number; readonly env: Record<string, string> },
): Promise<ToolResult> {
  const { promise, resolve } = Promise.withResolvers<ToolResult>();
  const child = execFile(
    tool,
    args,
    { encoding: 'utf8', env, killSignal: 'SIGKILL', maxBuffer: maxBytes, timeout: timeoutMs },
    (error, stdout, stderr) => {
      const exitCode = error === null ? 0 : error.code;
      if (typeof exitCode === 'number') resolve({ kind: 'exited', exitCode, stdout, stderr });
      else if (exitCode === 'ENOENT') resolve(missingTool);
      else if (exitCode === 'EACCES') {
        resolve({ kind: 'failed', code: 'NOT_PERMITTED', why: 'may not be executed' });
      } else if (error?.killed === true && typeof exitCode !== 'string') {
        resolve({ kind: 'failed', code: 'TIMEOUT', why: `did not end in ${timeoutMs} ms` });
      } else {
        resolve(endedBy(exitCode ?? error?.signal ?? 'unknown'));
      }
    },
  );
  // A tool that ends without reading its input closes the pipe; its exit code has the reason.
  child.stdin?.on('error', () => undefined);
  // The output may then be truncated, whatever the exit code. Without a listener the error would end
  // this process.
  for (const output of [child.stdout, child.stderr]) {
    output?.on('error', (error: NodeJS.ErrnoException) => {
      resolve(endedBy(error.code ?? error.message));
    });
  }
  child.stdin?.end(input);
  return promise;
}

function endedBy(cause: string): ToolResult {
  return { kind: 'failed', code: 'TOOL_FAILED', why: `was ended by ${cause}` };
}

/** Standard output of a successful run. @throws the RedirectError of `failureOf` */
export function outputOf(step: string, tool: string, result: ToolResult): string {
  const failure = failureOf(step, tool, result);
  if (failure !== undefined) throw failure;
  return result.kind === 'exited' ? result.stdout : '';
}

/** The coded error of a run, or `undefined` on success. */
export function failureOf(
  step: string,
  tool: string,
  result: ToolResult,
): RedirectError | undefined {
  if (result.kind === 'failed')
    return new RedirectError(result.code, step, `${tool} ${result.why}`);
  const { exitCode, stderr } = result;
  if (exitCode === 0) return undefined;
  const message = `${tool} exited with ${exitCode}: ${firstLine(stderr)}`;
  return new RedirectError(exitErrorCode(tool, exitCode, stderr), step, message);
}

// Texts are matched before exit codes: iptables-nft exits with 4 both for a missing capability and a lock.
const notPermittedText = /permission denied|operation not permitted|you must be root/i;
// A kernel without nf_tables has no generation of a rule set.
const unsupportedText =
  /not supported|unknown device type|\(do you need to insmod|is incompatible|generation id: invalid argument/i;
// Legacy iptables runs modprobe for a module that is not loaded, and prints the meaning on its own line.
const modprobeLine = /^modprobe: .*$/gm;
const concurrentText = /file exists|resource temporarily unavailable|device or resource busy/i;
const iptablesVersionProblem = 3;
const iptablesResourceProblem = 4;

function exitErrorCode(tool: string, exitCode: number, printed: string): RedirectError['code'] {
  const stderr = printed.replaceAll(modprobeLine, '');
  if (notPermittedText.test(stderr)) return 'NOT_PERMITTED';
  if (unsupportedText.test(stderr)) return 'UNSUPPORTED';
  if (concurrentText.test(stderr)) return 'BUSY';
  if (!tool.startsWith('iptables')) return 'TOOL_FAILED';
  if (exitCode === iptablesResourceProblem) return 'BUSY';
  if (exitCode === iptablesVersionProblem) return 'UNSUPPORTED';
  return 'TOOL_FAILED';
}

const maxMessageChars = 300;

function firstLine(stderr: string): string {
  const lines = stderr.split('\n').map((line) => line.trim());
  // Several tools print their version on a line and the reason on the next one.
  const reason = lines.find((line) => line !== '' && !/^\S+ v[\d.]+ \([\w-]+\):?$/.test(line));
  return (reason ?? 'no message').slice(0, maxMessageChars);
}

const passedOn = ['XTABLES_LOCKFILE', 'XTABLES_LIBDIR'];

function toolEnvironment(env: Readonly<Record<string, string | undefined>>) {
  // iptables and ip are in sbin, which the PATH of a user or a service may lack.
  const path = `${env['PATH'] ?? '/usr/bin:/bin'}:/usr/local/sbin:/usr/sbin:/sbin`;
  const result: Record<string, string> = { LC_ALL: 'C', PATH: path };
  for (const name of passedOn) {
    const value = env[name];
    if (value !== undefined) result[name] = value;
  }
  return result;
}
