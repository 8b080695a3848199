import { Histogram } from '../core/histogram.ts';
import type { Figure } from '../core/results.ts';
import { createBinding, createIdentity, createPod, fillIndexes } from '../fixture/indexes.ts';
import { goalSize, type ClusterSize } from '../fixture/objects.ts';
import type { Context, Scenario } from './scenario.ts';

/** Per kind and round, plus as many uncounted ones before. */
const events = 4_000;

/** The cost of an event must not depend on these sizes. */
const sizes: readonly { readonly prefix: string; readonly size: ClusterSize }[] = [
  { prefix: 'small: ', size: { pods: 10, identities: 10, bindings: 20 } },
  { prefix: '', size: goalSize },
  { prefix: 'large: ', size: { pods: 1_000, identities: 100_000, bindings: 200_000 } },
];

export const indexUpdates: Scenario = {
  name: 'index-updates',
  title: 'What one watch event costs the indexes',
  isQuick: true,
  run: (context) =>
    Promise.resolve({
      figures: sizes.flatMap(({ prefix, size }) => measureSize(context, prefix, size)),
      notes: [
        '250 pods, 10,000 identities, 20,000 bindings; small: 10 pods, 10 identities, 20 bindings; large: 1,000 pods, 100,000 identities, 200,000 ' +
          'bindings.',
      ],
    }),
};

function measureSize(
  { options, say }: Context,
  prefix: string,
  size: ClusterSize,
): readonly Figure[] {
  const { pods, grants } = fillIndexes(size);
  // The objects are created before the timed part.
  const kinds: Readonly<Record<string, (event: number) => () => void>> = {
    // Each time with a label that another binding selects.
    pod: (event) => {
      const pod = createPod(event % size.pods, event % (size.bindings - size.pods - 1));
      return () => {
        pods.upsert(pod);
      };
    },
    // Identities that pods are bound to, a different one each time.
    identity: (event) => {
      const identity = createIdentity(event % size.pods, event % 9_999);
      return () => {
        grants.identities.upsert(identity);
      };
    },
    binding: (event) => {
      const index = event % size.pods;
      const binding = createBinding(index, (index + event) % size.identities);
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
      name: `${prefix}${kind} event, ${name}`,
      unit: 'µs',
      values: rounds.map((histogram) => histogram.percentileUs(share)),
    });
    figures.push(figure('p50', 0.5), figure('p99', 0.99));
    say(`${prefix}${kind}`);
  }
  return figures;
}
