/** Faults that the hand-over once had. The orders must find each of them. */
import type { Fault } from '../load.ts';

const file = 'listener-holder.ts';

export const faults: readonly Fault[] = [
  {
    name: 'a-holder-removes-the-socket-of-another-one',
    edits: [
      { file, from: '{ lstat, rename }', to: '{ lstat, rename, unlink }' },
      {
        file,
        from: '    this.#disarmCheck?.();\n    // The file',
        to: `    this.#disarmCheck?.();
    if (await this.#isOwnPath()) await whyNot(() => unlink(this.#options.handoverPath));
    // The file`,
      },
    ],
  },
  {
    name: 'a-holder-serves-its-agent-after-it-has-inherited',
    edits: [
      { file, from: '    await this.#serveAgents();\n    if', to: '    if' },
      {
        file,
        from: '    this.#hasStarted = true;\n',
        to: '    await this.#serveAgents();\n    this.#hasStarted = true;\n',
      },
    ],
  },
  {
    name: 'a-holder-without-the-socket-does-not-ask-again',
    edits: [{ file, from: 'if (this.#isTaken) this.#disconnectHolders();', to: '' }],
  },
  {
    name: 'a-holder-without-the-path-changes-the-kernel',
    edits: [
      {
        file,
        from: "if (problem === 'ECONNRESET' && !this.#isPaused) await this.#pause();",
        to: '',
      },
    ],
  },
  {
    name: 'two-holders-succeed-each-other',
    edits: [
      {
        file,
        from: 'if (this.#isClosed || this.#successors.size > 0) return void connection.destroy();',
        to: 'if (this.#isClosed) return void connection.destroy();',
      },
      {
        file,
        from: 'if (!this.#isClosed && this.#successors.size === 0) await this.#serveHolders();',
        to: 'if (!this.#isClosed) await this.#serveHolders();',
      },
    ],
  },
  {
    name: 'a-holder-does-not-look-at-the-path-again',
    edits: [
      {
        file,
        from: "if (this.#options.handoverPath !== '') this.#scheduleCheck(pathCheckMs);",
        to: '',
      },
      {
        file,
        from: '.then((problem) => this.#scheduleCheck(problem === undefined ? pathCheckMs : retryMs))',
        to: '.then(() => undefined)',
      },
    ],
  },
];
