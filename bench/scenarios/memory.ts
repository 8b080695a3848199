import { setTimeout as delay } from 'node:timers/promises';
import type { Figure } from '../core/results.ts';
import { memoryOf, type Memory } from '../machine/memory.ts';
import { goalSize } from '../fixture/objects.ts';
import { loadOf, shapes } from '../fixture/rounds.ts';
import { callerOf, openFixture, type Fixture } from '../fixture/fixture.ts';
import type { Scenario } from './scenario.ts';

/** The agent returns memory once a minute: it has done so by then. */
const soonMs = 15_000;
const laterMs = 75_000;

export const memory: Scenario = {
  name: 'memory',
  title: 'Memory of the agent with 250 pods, 10,000 identities, 20,000 bindings',
  isQuick: true,
  run: async ({ options, executable, stack, say }) => {
    const { agentFlags, isQuick } = options;
    const loadMs = isQuick ? 1_000 : 5_000;
    const fixtures: Fixture[] = [];
    // Memory layout varies more between processes than between minutes.
    for (let process = 0; process < (isQuick ? 1 : 2); process++) {
      fixtures.push(stack.use(await openFixture({ executable, agentFlags, size: goalSize })));
    }
    const figures: Figure[] = [];
    const look = (when: string, found: readonly Memory[]): void => {
      const figure = (what: string, values: readonly number[]) => ({
        name: `${when}: ${what}`,
        unit: 'MB',
        values,
      });
      const [resident, own] = [
        found.map(({ rssMb }) => rssMb),
        found.map(({ privateMb }) => privateMb),
      ];
      figures.push(figure('resident', resident), figure('private', own));
      say(`${when}: ${own.map((mb) => mb.toFixed(1)).join(', ')} MB private`);
    };
    const lookAtAll = (when: string): void => {
      look(
        when,
        fixtures.map(({ agent }) => memoryOf(agent.pid)),
      );
    };
    lookAtAll('when ready');
    const loaded: Memory[] = [];
    const endedAtMs: number[] = [];
    for (const { host, port, agent, pods } of fixtures) {
      const subject = { name: 'agent', host, port, pids: [], callers: [callerOf(pods[0])] };
      await loadOf(subject, shapes.sixtyFour, loadMs);
      loaded.push(memoryOf(agent.pid));
      endedAtMs.push(performance.now());
    }
    look('right after full load', loaded);
    if (!isQuick) {
      for (const waitMs of [soonMs, laterMs]) {
        const found: Memory[] = [];
        for (const [index, { agent }] of fixtures.entries()) {
          const atMs = (endedAtMs[index] ?? 0) + waitMs;
          await delay(Math.max(0, atMs - performance.now()));
          found.push(memoryOf(agent.pid));
        }
        look(`${waitMs / 1000} s after it`, found);
      }
    }
    return {
      figures,
      notes: [
        `Of ${fixtures.length} agents, one after the other under full load of 64 connections for ` +
          `${loadMs / 1000} s. An agent gives spare memory back once a minute: 15 s after the load ` +
          'some have not yet, 75 s after it all have.',
      ],
    };
  },
};
