/**
 * What kubectl printed about kinds of which no object has been written or deleted since. A start of
 * kubectl takes 0.1 s of processor time, and a verb starts several.
 */
import type { ProgramRun } from '../../../src/kubectl/base/io.ts';

export class UnchangedReads {
  /** By arguments. */
  readonly #runs = new Map<
    string,
    { readonly plurals: readonly string[]; readonly run: ProgramRun }
  >();
  readonly #written = new Set<string>();

  /** Runs `kubectl get` only if nothing is known; other verbs always. */
  async read(args: readonly string[], start: () => Promise<ProgramRun>): Promise<ProgramRun> {
    const [verb, what = ''] = args;
    if (verb !== 'get') return start();
    const key = args.join(' ');
    const known = this.#runs.get(key);
    if (known !== undefined) return known.run;
    const run = await start();
    // A path of the server, or kinds with their groups.
    const resources = /^--raw=.*\/(\w+)(?:\?|$)/.exec(what)?.[1] ?? what;
    const plurals = resources.split(',').map((each) => each.split('.')[0] ?? '');
    this.#runs.set(key, { plurals, run });
    return run;
  }

  /** An object of this kind was written. */
  write(kind: string): void {
    const plural = `${kind.toLowerCase().replace(/y$/, 'ie')}s`;
    this.#written.add(plural);
    this.#forget(plural);
  }

  /** All objects that were written have been deleted. */
  clear(): void {
    for (const plural of this.#written) this.#forget(plural);
    this.#written.clear();
  }

  #forget(plural: string): void {
    for (const [key, known] of this.#runs)
      if (known.plurals.includes(plural)) this.#runs.delete(key);
  }
}
