/** Faults that the hand-over once had. Orders by seed find each of them. */
import type { Fault } from '../fault.ts';
import type { Weights } from './order.ts';

const file = 'listener-holder.ts';

interface FaultOfOrders extends Fault {
  /** In usual orders it is too rare. */
  readonly weights?: Weights;
}

export const faults: readonly FaultOfOrders[] = [
  {
    name: 'an-agent-is-not-ready-for-what-its-successor-installed',
    edits: [{ file: 'reconciler.ts', from: "state === 'broken'\n", to: 'false\n' }],
  },
  {
    name: 'a-holder-that-ends-removes-the-file-at-the-path',
    edits: [
      { file, from: '{ lstat, rename }', to: '{ lstat, rename, unlink }' },
      {
        file,
        from: '    this.#disarmCheck?.();\n    // The file',
        to: `    this.#disarmCheck?.();
    await whyNot(() => unlink(this.#options.handoverPath));
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
    edits: [{ file, from: 'for (const socket of holders) socket.destroy();', to: '' }],
  },
  {
    name: 'a-holder-without-the-path-changes-the-kernel',
    weights: { terminate: 10, start: 10, killContainers: 10 },
    edits: [
      {
        file,
        from: "if (problem === 'ECONNRESET' && !this.#isPaused) await this.#pause();",
        to: '',
      },
    ],
  },
  {
    name: 'a-holder-does-not-look-at-the-path-again',
    edits: [
      {
        file,
        from: "if (this.#options.handoverPath !== '') this.#scheduleCheck();",
        to: '',
      },
      {
        file,
        from: '.then((problem) => this.#scheduleCheck(problem))',
        to: '.then(() => undefined)',
      },
    ],
  },
];
