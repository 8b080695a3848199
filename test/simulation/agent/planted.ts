/** Faults that are planted into the text of the product, to see that each invariant fires. */
import type { Fault } from '../fault.ts';
import type { Kind } from './plan.ts';

export interface Planted extends Fault {
  /** Part of what the broken invariant reports. */
  readonly reports: RegExp;
  /** What makes it likelier; a long run finds it without. */
  readonly prefer: readonly Kind[];
  /** The first seed of a short run, if those before did not find it in November 2026; default 1. */
  readonly firstSeed?: number;
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
    firstSeed: 21,
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
    firstSeed: 10,
    edits: [
      {
        file: 'caller.ts',
        from: 'if (pod === undefined) return candidates.length === 0 ? unknown : otherCgroup;',
        to: "if (pod === undefined) return candidates[0] === undefined ? unknown : { kind: 'pod', pod: candidates[0] };",
      },
    ],
  },
  {
    name: 'owners-are-not-enforced',
    reports: tokenWithoutRight,
    prefer: [],
    edits: [
      {
        file: 'decide-grant.ts',
        from: 'if (entry === undefined) return decision;\n  const isYoung',
        to: 'if (true) return decision;\n  const isYoung',
      },
    ],
  },
  {
    name: 'a-deleted-object-stays',
    reports: tokenWithoutRight,
    prefer: [],
    edits: [
      { file: 'decoder.ts', from: '        drop(ref);\n        skipped', to: '        skipped' },
    ],
  },
  {
    name: 'a-list-does-not-remove-what-it-lacks',
    reports: tokenWithoutRight,
    prefer: ['expireVersions', 'bindingDeleted'],
    firstSeed: 21,
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
    name: 'a-fetch-has-no-deadline',
    reports: /has waited .* for an answer/,
    prefer: ['imdsHangs', 'kill'],
    edits: [
      {
        file: 'buffered-request.ts',
        from: 'clock.schedule(timeoutMs, ()',
        to: 'clock.schedule(1e9, ()',
      },
      {
        file: 'cache.ts',
        from: 'Math.min(waitMs, hasToken ? waitWithTokenMs : mostMs)',
        to: '1e9',
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
    name: 'a-silent-connection-stays-open',
    reports: /a silent connection .* is still open/,
    prefer: ['flood'],
    edits: [{ file: 'connection.ts', from: '    else options.onSilent();', to: '' }],
  },
  {
    name: 'the-younger-takes-the-redirect-before-it-listens',
    reports: /is refused/,
    prefer: ['update'],
    edits: [
      {
        file: 'slots.ts',
        from: 'if (own.listens && (isYounger(own, other) || !isOthers)) return own.port;',
        to: 'if (isYounger(own, other) || (own.listens && !isOthers)) return own.port;',
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
    firstSeed: 5,
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
    firstSeed: 13,
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
  {
    name: 'a-version-that-goes-back-is-not-noticed',
    reports: /got a token of|were not enough/,
    prefer: ['restored', 'bindingRestored'],
    edits: [
      {
        file: 'reflector.ts',
        from: 'if (version === undefined || !isBefore(newest, version)) return;',
        to: 'if (version === undefined || newest !== undefined) return;',
      },
    ],
  },
  {
    name: 'a-refused-installation-is-not-tried-again',
    reports: unserved,
    prefer: ['kernelRefuses'],
    edits: [
      {
        file: 'reconciler.ts',
        from: 'return Math.min(intervalMs, firstRetryMs',
        to: 'return Math.max(3_600_000, firstRetryMs',
      },
    ],
  },
  {
    name: 'nobody-takes-the-redirect-of-an-agent-that-has-ended',
    reports: /is refused|were not enough/,
    prefer: ['killPod', 'update'],
    edits: [
      {
        file: 'slots.ts',
        from: 'isOthers && other.isHeld && !own.listens ?',
        to: 'isOthers ?',
      },
    ],
  },
  {
    name: 'an-object-of-a-strange-shape-is-an-exception',
    reports: unserved,
    prefer: ['hostileObject'],
    edits: [
      {
        file: 'decoder.ts',
        from: 'if (!parsed.ok) return reject(parsed.ref, parsed.reason);',
        to: 'if (!parsed.ok) throw new TypeError(parsed.reason);',
      },
    ],
  },
];
