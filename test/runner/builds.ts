/** Builds what tests need, in a process of its own, while the first tests run. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { allPrograms, type Programs } from './kinds.ts';
import { killProcesses, markOf, markVariable } from './processes.ts';
import type { Builds } from './queue.ts';

const progressMs = 30_000;
const mark = markOf('programs');
/** Shorter ones are not worth a line. */
const noticeableMs = 2_000;

export class ProgramBuilds implements Builds, Disposable {
  /** What cannot be had here, so that its tests are skipped. */
  readonly skipped: string[] = [];
  /** What cannot be built though it should. */
  readonly failed: string[] = [];
  readonly #there = new Set<Programs>();
  readonly #disposed = new AbortController();
  #next = Promise.withResolvers<void>();

  constructor(wanted: readonly Programs[]) {
    void this.#buildAll(allPrograms.filter((programs) => wanted.includes(programs)));
  }

  isThere(programs: Programs): boolean {
    return this.#there.has(programs);
  }

  async change(withinMs: number): Promise<void> {
    // Another promise may be faster, and then nobody waits for this one.
    await Promise.race([this.#next.promise, delay(withinMs, undefined, { ref: false })]);
  }

  /** Ends the current build with all its processes. */
  [Symbol.dispose](): void {
    this.#disposed.abort();
    killProcesses(mark);
  }

  async #buildAll(all: readonly Programs[]): Promise<void> {
    for (const programs of all) {
      const startMs = performance.now();
      const seconds = (): string => ((performance.now() - startMs) / 1000).toFixed(0);
      const progress = setInterval(() => {
        process.stderr.write(`still building for ${programs}: ${seconds()} s\n`);
      }, progressMs);
      let isBuilt = await this.#build(programs);
      if (!isBuilt && !this.#disposed.signal.aborted) {
        // A registry may have failed once. What has been made is kept.
        process.stderr.write(`programs for ${programs}: trying again\n`);
        isBuilt = await this.#build(programs);
      }
      clearInterval(progress);
      if (this.#disposed.signal.aborted) return;
      if (!isBuilt) this.failed.push(programs);
      if (performance.now() - startMs > noticeableMs) {
        const outcome = isBuilt ? 'there' : 'FAILED';
        process.stderr.write(`programs for ${programs}: ${outcome} after ${seconds()} s\n`);
      }
      this.#there.add(programs);
      this.#next.resolve();
      this.#next = Promise.withResolvers();
    }
  }

  async #build(programs: Programs): Promise<boolean> {
    const script = join(import.meta.dirname, 'programs.ts');
    const child = spawn(process.execPath, [script, programs], {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { ...process.env, [markVariable]: mark },
    });
    createInterface({ input: child.stderr }).on('line', (line) => {
      if (/^SKIPPED: | is NOT TESTED: /.test(line)) this.skipped.push(line);
      process.stderr.write(`${line}\n`);
    });
    await once(child, 'close');
    return child.exitCode === 0;
  }
}
