/** Builds what tests need, in a process of its own, while the first tests run. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { allPrograms, type Programs } from './kinds.ts';

const progressMs = 30_000;
/** Shorter ones are not worth a line. */
const noticeableMs = 2_000;

export class ProgramBuilds {
  /** What cannot be had here, so that its tests are skipped. */
  readonly skipped: string[] = [];
  /** What cannot be built though it should. */
  readonly failed: string[] = [];
  readonly #there = new Set<Programs>();
  #next = Promise.withResolvers<void>();

  constructor(wanted: readonly Programs[]) {
    void this.#buildAll(allPrograms.filter((programs) => wanted.includes(programs)));
  }

  isThere(programs: Programs): boolean {
    return this.#there.has(programs);
  }

  /** Resolves when more of them are there. */
  get change(): Promise<void> {
    return this.#next.promise;
  }

  async #buildAll(all: readonly Programs[]): Promise<void> {
    for (const programs of all) {
      const startMs = performance.now();
      const seconds = (): string => ((performance.now() - startMs) / 1000).toFixed(0);
      const progress = setInterval(() => {
        process.stderr.write(`still building for ${programs}: ${seconds()} s\n`);
      }, progressMs).unref();
      // A registry may have failed once. What has been made is kept.
      const isBuilt = (await this.#build(programs)) || (await this.#build(programs));
      clearInterval(progress);
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
    const child = spawn(process.execPath, [join(import.meta.dirname, 'programs.ts'), programs], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    createInterface({ input: child.stderr }).on('line', (line) => {
      if (/^SKIPPED: | is NOT TESTED: /.test(line)) this.skipped.push(line);
      process.stderr.write(`${line}\n`);
    });
    await once(child, 'close');
    return child.exitCode === 0;
  }
}
