/** Faults that are planted into the text of the product, to see that each invariant fires. */
import type { Fault } from './fault.ts';
import type { Kind } from './plan.ts';

export interface Planted extends Fault {
  /** Part of what the broken invariant reports. */
  readonly reports: RegExp;
  /** Kinds that a short run prefers, to be short; a long run finds it without. */
  readonly prefer: readonly Kind[];
}

const tokenWithoutRight = /got a token of/;
const unserved = /were not enough/;

export const planted: readonly Planted[] = [
  {
    name: 'a-decision-outlives-a-change-of-the-objects',
    reports: tokenWithoutRight,
    prefer: [],
    edits: [
      {
        file: 'decision-cache.ts',
        from: 'decision.generation === this.#currentGeneration() && nowMs - decision.madeAtMs < maxAgeMs',
        to: 'nowMs - decision.madeAtMs < 1e9',
      },
    ],
  },
  {
    name: 'rights-count-however-old-they-are',
    reports: tokenWithoutRight,
    prefer: ['silentWatches', 'bindingDeleted'],
    edits: [
      {
        file: 'cluster-state.ts',
        from: 'rightsProblem: () => ofRights.problem(),',
        to: 'rightsProblem: () => undefined,',
      },
      {
        file: 'staleness-limit.ts',
        from: 'if (restMs <= 0) watches',
        to: 'if (restMs <= -1e9) watches',
      },
    ],
  },
  {
    name: 'a-record-of-another-pod-does-not-count',
    reports: tokenWithoutRight,
    prefer: [],
    edits: [
      {
        file: 'caller.ts',
        from: 'if (pod === undefined) return candidates.length === 0 ? unknown : otherCgroup;',
        to: "if (pod === undefined) return candidates[0] === undefined ? unknown : { kind: 'pod', pod: candidates[0] };",
      },
    ],
  },
  {
    name: 'an-exception-stays-when-it-is-deleted',
    reports: tokenWithoutRight,
    prefer: [],
    edits: [
      {
        file: 'grant-index.ts',
        from: 'this.#exceptionsByLabel[change](key, exception);',
        to: 'this.#exceptionsByLabel.add(key, exception);',
      },
    ],
  },
  {
    name: 'a-token-is-served-after-its-end',
    reports: /has expired/,
    prefer: ['imdsHangs', 'imdsFails'],
    edits: [
      {
        file: 'cache.ts',
        from: 'if (entry.lifeMs(this.#clock.wallMs(), nowMs) < entry.floorMs) return undefined;',
        to: '',
      },
    ],
  },
  {
    name: 'a-connection-ends-when-its-client-sends-no-more',
    reports: /is owed/,
    prefer: ['rudeRequests'],
    edits: [
      {
        file: 'listener.ts',
        from: 'server.httpAllowHalfOpen = true;',
        to: 'server.httpAllowHalfOpen = false;',
      },
    ],
  },
  {
    name: 'a-list-does-not-remove-what-it-lacks',
    reports: tokenWithoutRight,
    prefer: ['expireVersions', 'bindingDeleted'],
    edits: [
      {
        file: 'decoder.ts',
        from: 'store.replace([...items.values()]);',
        to: 'for (const item of items.values()) store.upsert(item);',
      },
    ],
  },
  {
    name: 'an-agent-that-stops-opens-the-node',
    reports: /a packet of .* reaches the metadata service/,
    prefer: [],
    edits: [
      {
        file: 'reconciler.ts',
        from: '    await this.#running;\n',
        to: '    await this.#options.redirect.remove().catch(() => undefined);\n',
      },
    ],
  },
  {
    name: 'a-wait-for-an-object-never-ends',
    reports: /has waited .* for an answer/,
    prefer: [],
    edits: [
      {
        file: 'wait-for-object.ts',
        from: 'waiters.nextChange(leftMs)',
        to: 'waiters.nextChange(1e9)',
      },
      {
        file: 'wait-for-object.ts',
        from: 'if (leftMs <= 0 || exchange.isGone',
        to: 'if (exchange.isGone',
      },
    ],
  },
  {
    name: 'nobody-handles-that-a-connection-fails',
    reports: /nobody handled/,
    prefer: ['flood'],
    edits: [{ file: 'listener.ts', from: "socket.on('error', () => socket.destroy());", to: '' }],
  },
  {
    name: 'a-deadline-is-never-disarmed',
    reports: /has \d+ timers/,
    prefer: [],
    edits: [
      {
        file: 'buffered-request.ts',
        from: '    onResponseEnd() {\n      disarm();',
        to: '    onResponseEnd() {\n      for (let count = 0; count < 50; count += 1) clock.schedule(1e9, () => undefined);',
      },
    ],
  },
  {
    name: 'a-writer-writes-another-text-than-it-compares',
    reports: /the status of .* is written \d+ times/,
    prefer: ['conditionsUpdated'],
    edits: [
      {
        file: 'condition.ts',
        from: '      message,\n      observedGeneration',
        to: '      message: `${message} ${Math.random()}`,\n      observedGeneration',
      },
    ],
  },
  {
    name: 'an-expired-version-is-not-listed-again',
    reports: unserved,
    prefer: [],
    edits: [
      {
        file: 'retry-policy.ts',
        from: "['GONE', 'MALFORMED', 'INTERNAL']",
        to: "['MALFORMED', 'INTERNAL']",
      },
    ],
  },
];
