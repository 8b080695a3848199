/** Runs test files by Node's test runner, in a process of their own. */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { run } from 'node:test';
import type { TestEvent } from 'node:test/reporters';
import { pathToFileURL } from 'node:url';
import { killProcesses, markOf, markVariable } from './processes.ts';

/** What a test gets to clean up after SIGTERM. */
const maxGraceMs = 10_000;

export interface Usage {
  /** For its turn. */
  readonly waitedMs: number;
  /** Its own and that of its children that have ended. */
  readonly processorMs: number;
}

export interface FileRun {
  /** In the order in which Node's test runner reports them. */
  readonly events: readonly TestEvent[];
  readonly wallMs: number;
  /** Undefined if the process was killed. */
  readonly usage: Usage | undefined;
}

export interface FileOptions {
  readonly cwd: string;
  readonly timeoutMs: number;
  readonly environment: Readonly<Record<string, string>>;
}

/** @param files from the root; none of several is exclusive. */
export async function runFiles(files: readonly string[], options: FileOptions): Promise<FileRun> {
  const { cwd, timeoutMs, environment } = options;
  const folder = mkdtempSync(join(tmpdir(), 'nmi-test-'));
  const usageFile = join(folder, 'usage');
  const file = files.length === 1 ? (files[0] ?? '') : writeEntry(folder, cwd, files);
  const mark = markOf(file);
  const startMs = performance.now();
  // A process that ignores SIGTERM would keep the whole run.
  const watchdog = setTimeout(
    () => {
      killProcesses(mark);
    },
    timeoutMs + Math.min(maxGraceMs, timeoutMs),
  );
  try {
    const stream = run({
      files: [file],
      cwd,
      concurrency: 1,
      timeout: timeoutMs,
      execArgv: [`--import=${join(import.meta.dirname, 'test-process.ts')}`],
      env: {
        ...process.env,
        ...environment,
        TEST_USAGE: usageFile,
        // Most of a short test's time is that of compiling what it imports: 0.9 s of processor time become 0.5 s.
        NODE_COMPILE_CACHE: join(cwd, '.cache/compile'),
        // Kubernetes' programs live for a minute, and memory is not what this machine lacks.
        GOGC: '400',
        [markVariable]: mark,
      },
    });
    const events: TestEvent[] = [];
    for await (const event of stream as AsyncIterable<TestEvent>) events.push(event);
    return { events, wallMs: performance.now() - startMs, usage: readUsage(usageFile) };
  } finally {
    clearTimeout(watchdog);
    rmSync(folder, { recursive: true, force: true });
  }
}

/** A test file that has the tests of all of them. */
function writeEntry(folder: string, cwd: string, files: readonly string[]): string {
  // The report names it if the process crashes.
  const path = join(folder, dirname(files[0] ?? ''), 'all.test.mjs');
  mkdirSync(dirname(path), { recursive: true });
  const lines = files.map(
    (each) => `import ${JSON.stringify(pathToFileURL(join(cwd, each)).href)};`,
  );
  writeFileSync(path, lines.join('\n'));
  return path;
}

function readUsage(path: string): Usage | undefined {
  if (!existsSync(path)) return undefined;
  const [waitedMs = 0, processorMs = 0] = readFileSync(path, 'utf8').split(' ').map(Number);
  return { waitedMs, processorMs };
}
