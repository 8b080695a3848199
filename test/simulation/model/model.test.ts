/** The models, explored exhaustively; with a fault, each must find it. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { closed, type ClosedFaults } from './closed.ts';
import { explore, type Exploration } from './explore.ts';
import { faults } from '../handover/faults.ts';
import { loadHandover } from '../load.ts';
import { handover, type HandoverFaults } from './handover.ts';
import { replay, traces } from './replay.ts';
import { revocation, type RevocationFaults } from './revocation.ts';

function holds(explored: Exploration): string {
  const { states, steps, found } = explored;
  assert.equal(found, undefined, `${found?.problem ?? ''}\n${found?.trace.join('\n') ?? ''}`);
  return `${states} states, ${steps} steps`;
}

function fails({ found }: Exploration, problem: RegExp): string {
  assert.ok(found !== undefined, 'nothing was found');
  assert.match(found.problem, problem);
  return found.trace.join(', ');
}

/** The names of these steps of the model. */
const isOutside = /^(?:start|end|crash (?:holder|agent)) \d$/;
/** A crash must meet a moment of some ten milliseconds. */
const seedsPerTrace = 100;

describe('the hand-over between holders and agents', () => {
  it('always gets well, with three pods and two crashes in any order', (t) => {
    t.diagnostic(holds(explore(handover(3, 2))));
  });

  const planted: readonly (readonly [string, HandoverFaults, RegExp])[] = [
    ['an ending holder removes what is at the path', { removesPath: true }, /removed the path/],
    ['a holder serves its agent after it has inherited', { servesLate: true }, /never gets well/],
    ['a holder does not look at the path again', { looksOnce: true }, /never gets well/],
  ];
  for (const [name, fault, problem] of planted) {
    it(`finds that ${name}`, (t) => t.diagnostic(fails(explore(handover(3, 2, fault)), problem)));
  }
});

describe('the code of the hand-over', () => {
  const machine = handover(3, 2);

  it('rests where the model may rest, after every order of steps from outside', async (t) => {
    const code = await loadHandover();
    const all = traces(machine, 5);
    for (const last of ['at rest', 'at once'] as const) {
      for (const [seed, trace] of all.entries()) {
        assert.equal(await replay(code, machine, trace, { last, seed }), undefined);
      }
    }
    t.diagnostic(`${all.length} traces, each twice`);
  });

  /** How the model finds the two faults that stopped updates, and the same in the text of the code. */
  const counterparts = [
    [{ removesPath: true }, 'a-holder-that-ends-removes-the-file-at-the-path'],
    [{ servesLate: true }, 'a-holder-serves-its-agent-after-it-has-inherited'],
  ] as const;
  for (const [planted, name] of counterparts) {
    it(`follows the model’s trace to this fault: ${name.replaceAll('-', ' ')}`, async (t) => {
      const { found } = explore(handover(3, 2, planted));
      const trace = (found?.trace ?? []).filter((step) => isOutside.test(step));
      const [faulty, fixed] = [
        await loadHandover(faults.find((fault) => fault.name === name)),
        await loadHandover(),
      ];
      const differences: string[] = [];
      for (let seed = 0; seed < seedsPerTrace; seed += 1) {
        const timing = { last: 'at once', seed } as const;
        const difference = await replay(faulty, machine, trace, timing).catch(String);
        if (difference !== undefined) differences.push(difference);
        assert.equal(await replay(fixed, machine, trace, timing), undefined);
      }
      t.diagnostic(
        `${trace.join(', ')}: ${differences.length} of ${seedsPerTrace}, ${differences[0] ?? ''}`,
      );
      assert.notEqual(differences.length, 0);
    });
  }
});

describe('closedness', () => {
  it('holds through boot, install, switch, update, crash and removal', (t) => {
    t.diagnostic(holds(explore(closed(2, 2))));
  });

  const planted: readonly (readonly [string, ClosedFaults, RegExp])[] = [
    ['an agent that stops removes the redirect', { removesAtStop: true }, /is open/],
    [
      'the redirect is installed before somebody listens',
      { installsFirst: true },
      /nobody listens/,
    ],
    ['the old agent goes before the new one is ready', { oldGoesFirst: true }, /is open/],
  ];
  for (const [name, fault, problem] of planted) {
    it(`finds that ${name}`, (t) => t.diagnostic(fails(explore(closed(2, 2, fault)), problem)));
  }
});

describe('revocation', () => {
  it('ends every right within its bound, with three faults in any order', (t) => {
    t.diagnostic(holds(explore(revocation(3))));
  });

  const planted: readonly (readonly [string, RevocationFaults, RegExp])[] = [
    ['rights count however old they are', { hasNoLimit: true }, /units after/],
    ['a decision outlives a change', { keepsDecision: true }, /units after/],
    ['a list keeps what it lacks', { keepsUnlisted: true }, /units after|never gets well/],
    [
      'an agent answers before its first list',
      { answersUnsynced: true, hasNoLimit: true },
      /units after/,
    ],
  ];
  for (const [name, fault, problem] of planted) {
    it(`finds that ${name}`, (t) => t.diagnostic(fails(explore(revocation(3, fault)), problem)));
  }
});
