/**
 * The whole agent in a simulated cluster, by seeds: two nodes, an operator, users, and faults of everything
 * around it. `./dev simulate --seed N` repeats one and prints its story.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { sizeOfThisRun } from '../runner/kinds.ts';
import { commandOf, openLoaded, runChoice, search, shorten, storyOf } from './search.ts';

const seeds = sizeOfThisRun() === 'long' ? 10_000 : 200;

describe('the simulated cluster', () => {
  it('breaks no invariant', async (t) => {
    using loaded = await openLoaded();
    const startedMs = performance.now();
    const { failed, coverage, events, answers, tokens } = await search(loaded, 1, seeds);
    const seconds = ((performance.now() - startedMs) / 1_000).toFixed(1);
    t.diagnostic(
      `${seeds} seeds in ${seconds} s: ${events} events, ${answers} answers, ${tokens} tokens`,
    );
    t.diagnostic(coverage.render());
    const [first] = failed;
    if (first === undefined) return;
    const shorter = await shorten(loaded, first.choice, first.outcome);
    const story = storyOf(shorter, await runChoice(loaded, shorter));
    const commands = failed.map(
      ({ choice, outcome }) => `${commandOf(choice)}: ${outcome.failure?.slice(0, 200) ?? ''}`,
    );
    assert.fail([...commands, story].join('\n'));
  });
});
