/** What each test file took, kept for the next run, and as a table. */
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { testCache } from '../support/test-cache.ts';

export interface FileTime {
  readonly file: string;
  readonly kind: string;
  /** Without the wait. */
  readonly wallMs: number;
  /** Undefined if the process was killed. */
  readonly processorMs: number | undefined;
  /** For the turn of an exclusive file. */
  readonly waitedMs: number;
}

/** By file, of all that have ever run. */
export type KnownTimes = Readonly<Record<string, Pick<FileTime, 'wallMs' | 'processorMs'>>>;

interface Kept {
  readonly last: readonly FileTime[];
  readonly known: KnownTimes;
}

/** What runs beside a file makes it slower, so that a known time grows only in steps. */
const maxGrowth = 1.1;

const path = join(testCache, 'test-times.json');

export function readTimes(): Kept {
  const nothing: Kept = { last: [], known: {} };
  if (!existsSync(path)) return nothing;
  const kept: unknown = JSON.parse(readFileSync(path, 'utf8'));
  return isOfThisForm(kept) ? kept : nothing;
}

/** An earlier version may have written it. */
function isOfThisForm(kept: unknown): kept is Kept {
  return typeof kept === 'object' && kept !== null && 'last' in kept && 'known' in kept;
}

export function keepTimes(times: readonly FileTime[]): void {
  const kept: Kept = { last: times, known: learnTimes(readTimes().known, times) };
  mkdirSync(testCache, { recursive: true });
  // Another run may read it.
  const work = `${path}.${process.pid}`;
  writeFileSync(work, JSON.stringify(kept));
  renameSync(work, path);
}

export function learnTimes(known: KnownTimes, times: readonly FileTime[]): KnownTimes {
  const learned = times.map(({ file, wallMs, processorMs }) => {
    const maxMs = (known[file]?.wallMs ?? Infinity) * maxGrowth;
    return [file, { wallMs: Math.round(Math.min(wallMs, maxMs)), processorMs }] as const;
  });
  return { ...known, ...Object.fromEntries(learned) };
}

/** Longest first; files that took less than `fromMs` are summed up. */
export function renderTimes(times: readonly FileTime[], fromMs = 0): string {
  const sorted = times.toSorted((a, b) => b.wallMs - a.wallMs);
  const short = sorted.filter(({ wallMs }) => wallMs < fromMs);
  const rows = [
    ['wall s', 'processor s', 'waited s', 'kind', 'file'],
    ...sorted
      .filter((time) => !short.includes(time))
      .map((time) => [...figuresOf([time]), time.kind, time.file]),
    ...(short.length === 0 ? [] : [[...figuresOf(short), '', `${short.length} shorter files`]]),
    [...figuresOf(sorted), '', `all ${sorted.length} files`],
  ];
  const lines = rows.map(([wall = '', processor = '', waited = '', kind = '', file = '']) =>
    [wall.padStart(8), processor.padStart(12), waited.padStart(9), kind.padEnd(11), file].join(' '),
  );
  return `${lines.join('\n')}\n`;
}

function figuresOf(times: readonly FileTime[]): readonly string[] {
  const sum = (of: (time: FileTime) => number) =>
    (times.reduce((total, time) => total + of(time), 0) / 1000).toFixed(1);
  const isUnknown = times.every(({ processorMs }) => processorMs === undefined);
  return [
    sum(({ wallMs }) => wallMs),
    isUnknown ? '-' : sum(({ processorMs = 0 }) => processorMs),
    sum(({ waitedMs }) => waitedMs),
  ];
}
