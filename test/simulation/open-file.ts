/** What descriptors of a simulated machine refer to, and how its system calls fail. */
export function failure(code: string, step: string): Error {
  return Object.assign(new Error(`${step}: ${code}`), { code, step });
}

/** Open as long as a descriptor of a process, or one in a note that nobody has read, refers to it. */
export abstract class OpenFile {
  #references = 0;

  refer(): this {
    this.#references += 1;
    return this;
  }

  unrefer(): void {
    this.#references -= 1;
    if (this.#references === 0) this.closed();
  }

  protected abstract closed(): void;
}
