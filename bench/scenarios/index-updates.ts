import { Histogram } from '../core/histogram.ts';
import type { Figure } from '../core/results.ts';
import { createBinding, createIdentity, createPod, fillIndexes } from '../stand/indexes.ts';
import { goalSize } from '../stand/objects.ts';
import type { Scenario } from './scenario.ts';

/** Of each kind and round, and as many before that nobody counts. */
const events = 4_000;

export const indexUpdates: Scenario = {
  name: 'index-updates',
  title: 'What one watch event costs the indexes, 250 pods, 10,000 identities, 20,000 bindings',
  isQuick: true,
  run: ({ options, say }) => {
    const { pods, grants } = fillIndexes(goalSize);
    // What is put in is made before anybody looks at the time.
    const kinds: Readonly<Record<string, (event: number) => () => void>> = {
      pod: (event) => {
        const pod = createPod(event % goalSize.pods, event);
        return () => {
          pods.upsert(pod);
        };
      },
      // Those that pods are bound to, each time another.
      identity: (event) => {
        const identity = createIdentity(event % goalSize.pods, event % 9_999);
        return () => {
          grants.identities.upsert(identity);
        };
      },
      binding: (event) => {
        const index = event % goalSize.pods;
        const binding = createBinding(index, (index + event) % goalSize.identities);
        return () => {
          grants.bindings.upsert(binding);
        };
      },
    };
    const figures: Figure[] = [];
    for (const [kind, prepare] of Object.entries(kinds)) {
      const rounds = Array.from({ length: options.rounds + 1 }, (_, round) => {
        const histogram = new Histogram();
        for (let event = 0; event < events; event++) {
          const apply = prepare(round * events + event + 1);
          const startedAtMs = performance.now();
          apply();
          histogram.recordMs(performance.now() - startedAtMs);
        }
        return histogram;
      }).slice(1);
      const figure = (name: string, share: number) => ({
        ...{ name: `${kind} event, ${name}`, unit: 'µs' },
        values: rounds.map((histogram) => histogram.percentileUs(share)),
      });
      figures.push(figure('p50', 0.5), figure('p99', 0.99));
      say(kind);
    }
    return Promise.resolve({ figures });
  },
};
