/**
 * Which tests run a place of the source. Each test file is run once, with the coverage of V8, in all processes that it
 * starts. Node removes types by writing spaces over them, so offsets are those of the file.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** How a run of a test ended; `late`: not in time. */
export type End = 'passed' | 'failed' | 'late';

interface FileCoverage {
  /** Of the text that ran. */
  readonly hash: string;
  /** Start and end of each part that ran, in turn. */
  readonly parts: readonly number[];
}

export interface TestCoverage {
  readonly test: string;
  readonly hash: string;
  /** By the path from the root. */
  readonly files: Readonly<Record<string, FileCoverage>>;
}

/** What a process writes that ran with NODE_V8_COVERAGE. */
interface Report {
  readonly result: readonly {
    readonly url: string;
    readonly functions: readonly {
      readonly ranges: readonly {
        readonly startOffset: number;
        readonly endOffset: number;
        readonly count: number;
      }[];
    }[];
  }[];
}

function hashOf(text: string): string {
  return createHash('sha256').update(text).digest('base64url').slice(0, 12);
}

/** The parts of each file below `src` that ran in one of some processes. @param root of the tree that ran. */
function partsOf(root: string, reports: readonly Report[]): ReadonlyMap<string, readonly number[]> {
  const painted = new Map<string, Uint8Array>();
  for (const { url, functions } of reports.flatMap(({ result }) => result)) {
    const path = url.startsWith('file:') ? fileURLToPath(url.replace(/\?.*$/, '')) : url;
    if (!path.startsWith(`${root}/src/`)) continue;
    const ranges = functions.flatMap((each) => each.ranges);
    const own = new Uint8Array(Math.max(0, ...ranges.map(({ endOffset }) => endOffset)));
    // Outer ranges come before those within them.
    for (const { startOffset, endOffset, count } of ranges) {
      own.fill(count > 0 ? 1 : 0, startOffset, endOffset);
    }
    const name = path.slice(root.length + 1);
    const before = painted.get(name);
    painted.set(name, before === undefined ? own : own.map((each, at) => each | (before[at] ?? 0)));
  }
  return new Map([...painted].map(([name, bytes]) => [name, boundsIn(bytes)]));
}

function boundsIn(bytes: Uint8Array): readonly number[] {
  const bounds = [...bytes.keys()].filter((at) => bytes[at] !== (bytes[at - 1] ?? 0));
  return bounds.length % 2 === 0 ? bounds : [...bounds, bytes.length];
}

/**
 * The tests that run a place, those that run the fewest files first: they say most about it. Of a file that has
 * changed since, all that run any part of it.
 */
export function testsAt(
  all: readonly TestCoverage[],
  file: string,
  text: string,
  offset: number,
): readonly string[] {
  const hash = hashOf(text);
  const runs = ({ files }: TestCoverage): boolean => {
    const found = files[file];
    if (found === undefined || found.hash !== hash) return found !== undefined;
    return found.parts.findIndex((bound) => bound > offset) % 2 === 1;
  };
  const size = ({ files }: TestCoverage): number => Object.keys(files).length;
  return all
    .filter(runs)
    .toSorted((a, b) => size(a) - size(b))
    .map(({ test }) => test);
}

/**
 * What a test runs, from `folder` if the test was measured before and has not changed.
 * @param run with this environment.
 */
export async function measure(
  test: string,
  folder: string,
  root: string,
  run: (env: Readonly<Record<string, string>>) => Promise<End>,
): Promise<TestCoverage> {
  const path = join(folder, `${test.replaceAll('/', '-')}.json`);
  const hash = hashOf(readFileSync(join(root, test), 'utf8'));
  const known = existsSync(path)
    ? (JSON.parse(readFileSync(path, 'utf8')) as TestCoverage)
    : undefined;
  if (known?.hash === hash) return known;
  const reports = join(root, '.coverage');
  rmSync(reports, { recursive: true, force: true });
  mkdirSync(reports);
  const end = await run({ NODE_V8_COVERAGE: reports });
  // A test that fails without a fault says nothing about one; nor does one that takes too long for a trial.
  const parts =
    end === 'passed' ? partsOf(root, readReports(reports)) : new Map<string, number[]>();
  const files = Object.fromEntries(
    [...parts].map(([name, each]) => {
      const text = readFileSync(join(root, name), 'utf8');
      return [name, { hash: hashOf(text), parts: each }];
    }),
  );
  const measured = { test, hash, files };
  if (end === 'failed') return measured;
  mkdirSync(folder, { recursive: true });
  writeFileSync(path, JSON.stringify(measured));
  return measured;
}

function readReports(folder: string): readonly Report[] {
  return readdirSync(folder).map(
    (name) => JSON.parse(readFileSync(join(folder, name), 'utf8')) as Report,
  );
}
