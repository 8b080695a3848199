/**
 * Static checks of the sources: types, lint, format, unused code, workflows, texts. Runs all of them or those that are
 * named, prints the whole output of failed ones, and exits with code 1 if any failed.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';

const root = join(import.meta.dirname, '..');

interface Check {
  readonly name: string;
  readonly command: readonly [tool: string, ...args: readonly string[]];
}

const checks: readonly Check[] = [
  { name: 'types', command: ['tsc', '-p', '.'] },
  { name: 'lint', command: ['oxlint'] },
  { name: 'format', command: ['node', 'scripts/format-check.ts'] },
  { name: 'unused', command: ['knip', '--no-progress'] },
  { name: 'workflows', command: ['node', 'scripts/lint-workflows.ts'] },
  // Links, generated pages, paths of one machine.
  { name: 'texts', command: ['node', '--test', 'test/conventions/*.test.ts'] },
];

/** Runs the checks and prints one line each; true when all passed. */
export async function checkSources(names: readonly string[] = []): Promise<boolean> {
  const unknown = names.find((wanted) => !checks.some(({ name }) => name === wanted));
  if (unknown !== undefined) throw new Error(`there is no check ${unknown}`);
  const chosen = checks.filter(({ name }) => names.length === 0 || names.includes(name));
  const passed = await Promise.all(chosen.map(runCheck));
  return passed.every(Boolean);
}

async function runCheck({ name, command: [tool, ...args] }: Check): Promise<boolean> {
  const startedMs = performance.now();
  const program = tool === 'node' ? process.execPath : join(root, 'node_modules/.bin', tool);
  const child = spawn(program, args, {
    cwd: root,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const output: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => output.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => output.push(chunk));
  await once(child, 'close');
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
  const passed = child.exitCode === 0;
  process.stdout.write(`check ${name}: ${passed ? 'ok' : 'FAILED'} (${seconds} s)\n`);
  if (!passed) process.stdout.write(`${Buffer.concat(output).toString()}\n`);
  return passed;
}

if (import.meta.main) process.exitCode = (await checkSources(process.argv.slice(2))) ? 0 : 1;
