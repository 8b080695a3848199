/** Faults in the code of an update. Orders by seed find each of them. */
import type { Fault } from '../fault.ts';

const maintains = 'if (own.listens && (isYounger(own, other) || !isOthers)) return own.port;';

export const faults: readonly Fault[] = [
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
    name: 'an-agent-that-leaves-gives-the-redirect-with-its-own-programs',
    edits: [
      {
        file: 'slots.ts',
        from: 'return target === undefined ? other.port : undefined;',
        to: 'return isOthers ? undefined : other.port;',
      },
    ],
  },
  {
    name: 'nobody-looks-for-an-agent-that-leaves',
    edits: [{ file: 'slots.ts', from: 'return watchShared(', to: 'return void (' }],
  },
  {
    name: 'nobody-takes-the-redirect-of-an-agent-that-has-ended',
    edits: [
      { file: 'slots.ts', from: 'isOthers && other.isHeld && !own.listens ?', to: 'isOthers ?' },
    ],
  },
];
