/** Small files of a simulated machine, in memory. */
export class SharedFiles {
  readonly #texts = new Map<string, string>();
  readonly #watchers = new Map<string, Set<() => void>>();

  write(path: string, text: string): void {
    this.#texts.set(path, text);
    for (const onChange of this.#watchers.get(path) ?? []) onChange();
  }

  remove(path: string): void {
    if (!this.#texts.delete(path)) return;
    for (const onChange of this.#watchers.get(path) ?? []) onChange();
  }

  read(path: string): string | undefined {
    return this.#texts.get(path);
  }

  watch(path: string, onChange: () => void): () => void {
    const watchers = this.#watchers.get(path) ?? new Set();
    this.#watchers.set(path, watchers.add(onChange));
    return () => void watchers.delete(onChange);
  }

  /** As at a boot: the folder was in memory. */
  clear(): void {
    this.#texts.clear();
  }
}
