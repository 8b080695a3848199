/** Faults in the code of an update. Orders by seed find each of them. */
import type { Fault } from '../fault.ts';

const maintains = 'if (own.listens && (isYounger(own, other) || !isOthers)) return own.port;';

export const faults: readonly Fault[] = [
  {
    name: 'an-agent-is-not-ready-for-what-its-successor-installed',
    edits: [{ file: 'reconciler.ts', from: "found.state === 'broken'\n", to: 'false\n' }],
  },
  {
    name: 'an-agent-that-ends-keeps-the-redirect',
    edits: [{ file: 'reconciler.ts', from: 'own.listens && !this.#isLeaving', to: 'own.listens' }],
  },
  {
    name: 'an-agent-closes-while-the-redirect-is-moved-to-it',
    edits: [
      {
        file: 'external-redirect.ts',
        from: 'if (state.isLeaving ||',
        to: 'if (state.isLeaving || (state.redirectedTo ?? state.port) !== state.port ||',
      },
    ],
  },
  {
    name: 'the-younger-takes-the-redirect-before-it-listens',
    edits: [
      {
        file: 'slots.ts',
        from: maintains,
        to: 'if (isYounger(own, other) || (own.listens && !isOthers)) return own.port;',
      },
    ],
  },
  {
    name: 'the-elder-takes-the-redirect-back-from-one-that-listens',
    edits: [{ file: 'slots.ts', from: maintains, to: 'if (own.listens) return own.port;' }],
  },
  {
    name: 'nobody-takes-the-redirect-of-an-agent-that-has-ended',
    edits: [
      { file: 'slots.ts', from: 'isOthers && other.isHeld && !own.listens ?', to: 'isOthers ?' },
    ],
  },
  {
    name: 'every-agent-is-alone',
    edits: [
      {
        file: 'slots.ts',
        from: 'isAlone(): boolean {',
        to: 'isAlone(): boolean {\n    if (this.port > 0) return true;',
      },
    ],
  },
];
