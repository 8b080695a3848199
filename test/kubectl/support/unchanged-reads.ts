/**
 * What kubectl printed about kinds of which no object has been written or deleted since. A start of
 * kubectl takes 0.1 s of processor time, and one `explain` starts it 14 times.
 */
import type { ProgramRun } from '../../../src/kubectl/base/io.ts';

export class UnchangedReads {
  /** By arguments. */
  readonly #runs = new Map<string, { readonly plural: string; readonly run: ProgramRun }>();
  readonly #written = new Set<string>();

  /** Runs `kubectl get` only if nothing is known; other verbs always. */
  async read(args: readonly string[], start: () => Promise<ProgramRun>): Promise<ProgramRun> {
    const [verb, resource = ''] = args;
    const [plural = ''] = resource.split('.');
    if (verb !== 'get') return start();
    const key = args.join(' ');
    const known = this.#runs.get(key);
    if (known !== undefined) return known.run;
    const run = await start();
    this.#runs.set(key, { plural, run });
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
    for (const [key, known] of this.#runs) if (known.plural === plural) this.#runs.delete(key);
  }
}
