import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { KubeError, type KubeErrorCode } from '../../../../src/nmi/kube/api/kube-error.ts';
import {
  defaultTiming,
  initialState,
  next,
  type Effect,
  type Phase,
  type ReflectorEvent,
  type ReflectorState,
} from '../../../../src/nmi/kube/watch/reflector-state.ts';

const chance = 0.5;

function step(
  state: ReflectorState,
  event: ReflectorEvent,
  nowMs: number,
  streamsLists = true,
): ReflectorState {
  return next(state, event, { timing: defaultTiming, nowMs, chance, streamsLists });
}

function failure(code: KubeErrorCode, status?: number, retryAfterMs?: number): ReflectorEvent {
  return { kind: 'failed', error: new KubeError(code, code, { status, retryAfterMs }) };
}

function renderPhase(phase: Phase): string {
  if (phase.kind === 'listing') return `listing by ${phase.by}`;
  return phase.kind === 'waiting' ? `waiting ${Math.round(phase.delayMs)}` : phase.kind;
}

function renderEffect(effect: Effect): string {
  if (effect.kind === 'log') return `${effect.level}: ${effect.message}`;
  return effect.kind === 'arm' ? `${effect.event.kind} in ${effect.delayMs}` : effect.kind;
}

const opened = { kind: 'opened' } as const;
const heard = { kind: 'heard' } as const;
const ended = { kind: 'ended' } as const;
const unmarked = { kind: 'unmarked' } as const;
const waited = { kind: 'waited' } as const;
const healthy = { kind: 'healthy' } as const;
const recovered = { kind: 'recovered' } as const;
const checkRequested = { kind: 'check-requested' } as const;
const checkDue = { kind: 'check-due' } as const;
const listed = (version: string): ReflectorEvent => ({ kind: 'listed', version });
const changed = (version: string): ReflectorEvent => ({ kind: 'changed', version });
const checked = (version: string): ReflectorEvent => ({ kind: 'checked', version });

interface Row {
  readonly atMs: number;
  readonly event: ReflectorEvent;
  readonly phase: string;
  /** The version to watch from. */
  readonly version: string | undefined;
  readonly effects?: readonly string[];
}

type Line = readonly [number, ReflectorEvent, string, string | undefined, ...string[]];

/** Runs the state machine through a timeline; returns its last state. */
function follow(lines: readonly Line[], streamsLists = true): ReflectorState {
  let state = initialState(0, streamsLists);
  for (const [atMs, event, phase, version, ...effects] of lines) {
    const row: Row = { atMs, event, phase, version, effects };
    state = step(state, event, atMs, streamsLists);
    const is: Row = {
      atMs,
      event,
      phase: renderPhase(state.phase),
      version: state.version,
      effects: state.effects.map(renderEffect),
    };
    assert.deepEqual(is, row);
  }
  return state;
}

const streamed: readonly Line[] = [
  [10, opened, 'listing by stream', undefined],
  [20, heard, 'listing by stream', undefined],
  [30, listed('7'), 'watching', '7', 'synced', 'healthy in 1000'],
];

describe('the state of a reflector', () => {
  it('changes from a streamed list to its watch, and follows it', () => {
    const { contactAtMs, provenAtMs, lists, watches } = follow([
      ...streamed,
      [40, changed('8'), 'watching', '8'],
      [1030, healthy, 'watching', '8'],
      [9000, ended, 'opening', '8'],
      [9010, opened, 'watching', '8', 'healthy in 1000'],
    ]);
    assert.deepEqual([contactAtMs, provenAtMs, lists, watches], [9010, 9000, 1, 2]);
  });

  it('has its last failure and the start of the failures, until a watch is healthy', () => {
    assert.equal(initialState(0, true).contactAtMs, -Infinity, 'nothing received yet');
    const failed: readonly Line[] = [
      [20, failure('NETWORK'), 'waiting 130', undefined, 'warn: watch failed, retrying'],
      [200, waited, 'listing by stream', undefined],
      [210, failure('FORBIDDEN'), 'waiting 150', undefined, 'warn: watch failed, retrying'],
    ];
    const { failing } = follow(failed);
    assert.deepEqual(
      [failing?.code, failing?.sinceMs, failing?.isAbsence],
      ['FORBIDDEN', 20, false],
    );
    const after = follow([
      ...failed,
      [400, waited, 'listing by stream', undefined],
      [410, listed('7'), 'watching', '7', 'synced', 'healthy in 1000', 'notify-recovery'],
      [1410, healthy, 'watching', '7', 'info: watch recovered'],
    ]);
    assert.equal(after.failing, undefined);
  });

  it('changes from a paged list to a separate watch', () => {
    const by = 'listing by pages';
    follow(
      [
        [10, heard, by, undefined],
        [
          20,
          failure('GONE', 410),
          'waiting 1000',
          undefined,
          'info: watch version expired, listing again',
        ],
        [1020, waited, by, undefined],
        [1030, listed('7'), 'opening', '7', 'synced'],
        [1040, opened, 'watching', '7', 'healthy in 1000'],
      ],
      false,
    );
  });

  it('lists by pages once a stream was refused', () => {
    const refused = ['refuse-streams', 'info: the server streams no lists, listing page by page'];
    for (const event of [failure('SERVER', 422), failure('SERVER', 400), unmarked]) {
      follow([[10, event, 'listing by pages', undefined, ...refused]]);
    }
    follow([
      [10, opened, 'listing by stream', undefined],
      [20, failure('TIMEOUT'), 'listing by pages', undefined, ...refused],
    ]);
    // The stream was not even accepted.
    follow([[20, failure('TIMEOUT'), 'waiting 130', undefined, 'warn: watch failed, retrying']]);
  });

  it('lists by pages after two invalid streamed lists in a row', () => {
    const [first, second] = ['waiting 150', 'waiting 300'];
    const warning = 'warn: watch failed, retrying';
    const byStream = 'listing by stream';
    const bad = failure('MALFORMED');
    follow([
      [10, bad, first, undefined, warning],
      [200, waited, byStream, undefined],
      [210, listed('7'), 'watching', '7', 'synced', 'healthy in 1000'],
      [2000, healthy, 'watching', '7', 'info: watch recovered'],
      [2010, bad, first, undefined, warning],
      [2200, waited, byStream, undefined],
      [2210, bad, second, undefined, 'debug: watch still failing'],
      [2600, waited, byStream, undefined],
      [2610, bad, 'waiting 600', undefined, 'debug: watch still failing'],
      [4000, waited, 'listing by pages', undefined],
      [4010, listed('9'), 'opening', '9'],
      [4020, opened, 'watching', '9', 'healthy in 1000'],
    ]);
  });

  it('resumes after a failure, logs it once, and logs its end when the watch has been healthy', () => {
    const { failures, errors } = follow([
      ...streamed,
      [2000, failure('NETWORK'), 'waiting 150', '7', 'warn: watch failed, retrying'],
      [2150, waited, 'opening', '7'],
      [2150, failure('NETWORK'), 'waiting 300', '7', 'debug: watch still failing'],
      [2450, waited, 'opening', '7'],
      [2460, opened, 'watching', '7', 'healthy in 1000', 'notify-recovery'],
      [3460, healthy, 'watching', '7', 'info: watch recovered'],
    ]);
    assert.equal(failures.count, 0);
    assert.equal(errors.NETWORK, 2);
  });

  it('lists again when its version has expired', () => {
    const gone = 'info: watch version expired, listing again';
    const bug = 'error: exception in a watch handler, listing again';
    const failed = 'warn: watch failed, retrying';
    for (const [event, delayMs, message] of [
      [failure('GONE', 410), 1000, gone],
      [failure('MALFORMED'), 150, failed],
      [failure('SERVER', 400), 150, failed],
      [{ kind: 'failed', error: new Error('bug') }, 150, bug],
    ] as const) {
      follow([
        ...streamed,
        [50, event, `waiting ${delayMs}`, undefined, message],
        [50 + delayMs, waited, 'listing by stream', undefined],
        [4000, listed('9'), 'watching', '9', 'healthy in 1000'],
      ]);
    }
  });

  it('reads the version after a silence, and resumes if the server is not behind', () => {
    const silent = 'debug: watch is silent, opening another';
    for (const newest of ['7', '8', '', 'x']) {
      const { silences, errors } = follow([
        ...streamed,
        [90_000, failure('TIMEOUT'), 'checking', '7', silent],
        [90_010, checked(newest), 'opening', '7'],
      ]);
      assert.deepEqual([silences, errors.TIMEOUT], [1, 0]);
    }
  });

  it('lists everything again if the server is behind, because of a restored backup', () => {
    follow([
      [30, listed('1000'), 'watching', '1000', 'synced', 'healthy in 1000'],
      [40, failure('NETWORK'), 'waiting 150', '1000', 'warn: watch failed, retrying'],
      [190, waited, 'opening', '1000'],
      [200, opened, 'watching', '1000', 'healthy in 1000', 'notify-recovery'],
      [1200, healthy, 'watching', '1000', 'info: watch recovered'],
      [90_000, failure('TIMEOUT'), 'checking', '1000', 'debug: watch is silent, opening another'],
      [
        90_010,
        checked('999'),
        'listing by stream',
        undefined,
        'warn: API server resourceVersion went backwards, listing again',
      ],
      [90_020, listed('999'), 'watching', '999', 'healthy in 1000'],
    ]);
  });

  it('checks a watch on request, unless it receives something within the grace period', () => {
    const { silences } = follow([
      ...streamed,
      [6000, checkRequested, 'watching', '7', 'check-due in 300'],
      [6100, checkRequested, 'watching', '7'],
      [6200, changed('8'), 'watching', '8'],
      [6300, checkDue, 'watching', '8'],
      [10_999, checkRequested, 'watching', '8'],
      [11_000, checkRequested, 'watching', '8', 'check-due in 300'],
      [11_300, checkDue, 'checking', '8', 'debug: watch is silent, opening another'],
      [11_310, checked('8'), 'opening', '8'],
    ]);
    assert.equal(silences, 0);
  });

  it('logs a failure of a server or a network without a stack, and our own exception with it', () => {
    const errOf = (event: ReflectorEvent): unknown => {
      const [effect] = step(initialState(0, true), event, 0).effects;
      assert.ok(effect?.kind === 'log');
      return effect.fields['err'];
    };
    assert.equal(errOf(failure('NETWORK')), 'NETWORK');
    const bug = new RangeError('ours');
    assert.equal(errOf({ kind: 'failed', error: bug }), bug);
  });

  it('ends a wait in an outage early, but none that the server required', () => {
    const failed = 'warn: watch failed, retrying';
    for (const event of [recovered, checkRequested]) {
      follow([
        [10, failure('NETWORK'), 'waiting 140', undefined, failed],
        [20, event, 'listing by stream', undefined],
      ]);
      follow([
        [10, failure('SERVER', 503, 1000), 'waiting 1125', undefined, failed],
        [20, event, 'waiting 1125', undefined],
      ]);
      follow([
        [10, failure('FORBIDDEN', 403), 'waiting 150', undefined, failed],
        [20, event, 'waiting 150', undefined],
      ]);
    }
  });

  it('waits before the next watch when the server closes several in a row', () => {
    follow([
      ...streamed,
      [31, ended, 'opening', '7'],
      [32, opened, 'watching', '7', 'healthy in 1000'],
      [33, ended, 'opening', '7'],
      [34, opened, 'watching', '7', 'healthy in 1000'],
      [35, ended, 'waiting 150', '7'],
      [185, waited, 'opening', '7'],
      [186, opened, 'watching', '7', 'healthy in 1000'],
      [1186, healthy, 'watching', '7'],
      [1187, ended, 'opening', '7'],
    ]);
  });

  it('is synced when the server has no such collection, and checks for it once a minute', () => {
    const notThere: ReflectorEvent = {
      kind: 'absent',
      error: new KubeError('NOT_FOUND', 'not installed', { status: 404 }),
    };
    const said = 'warn: resource type is not available, taken as empty';
    const { lists, errors, provenAtMs } = follow([
      [10, notThere, 'waiting 45000', undefined, 'synced', said],
      [20, notThere, 'waiting 45000', undefined],
      [45_010, waited, 'listing by stream', undefined],
      [45_020, notThere, 'waiting 45000', undefined],
      [90_020, waited, 'listing by stream', undefined],
      [90_030, listed('3'), 'watching', '3', 'healthy in 1000'],
      [91_030, healthy, 'watching', '3', 'info: watch recovered'],
      [95_000, notThere, 'waiting 45000', undefined, said],
    ]);
    assert.deepEqual([lists, errors.NOT_FOUND, provenAtMs], [2, 0, 95_000]);
  });

  it('treats a list that ends too early as a failure', () => {
    const { lists, errors } = follow([
      [10, opened, 'listing by stream', undefined],
      [20, ended, 'waiting 150', undefined, 'warn: watch failed, retrying'],
    ]);
    assert.deepEqual([lists, errors.NETWORK], [0, 1]);
  });
});

const codes: readonly KubeErrorCode[] = [
  ...(['NOT_FOUND', 'GONE', 'UNAUTHORIZED', 'FORBIDDEN', 'THROTTLED', 'SERVER'] as const),
  ...(['NETWORK', 'TIMEOUT', 'MALFORMED', 'CONFIG'] as const),
];
const version = fc.integer({ min: 1, max: 50 }).map(String);
const events: fc.Arbitrary<ReflectorEvent> = fc.oneof(
  fc.constantFrom(
    opened,
    heard,
    ended,
    unmarked,
    waited,
    healthy,
    recovered,
    checkRequested,
    checkDue,
  ),
  fc.oneof(version.map(listed), version.map(changed), version.map(checked)),
  fc.constant<ReflectorEvent>({ kind: 'failed', error: new Error('bug') }),
  fc
    .tuple(fc.constantFrom(...codes), fc.constantFrom(undefined, 400, 422, 500), fc.nat(400_000))
    .map(([code, status, ms]) => failure(code, status, ms > 300_000 ? undefined : ms)),
);
const histories = fc.array(fc.tuple(events, fc.integer({ min: 1, max: 90_000 })), {
  maxLength: 60,
});

/** The next event of a reflector that never fails. */
function success({ phase }: ReflectorState): ReflectorEvent {
  switch (phase.kind) {
    case 'listing':
      return listed('100');
    case 'opening':
      return opened;
    case 'checking':
      return checked('100');
    case 'waiting':
      return waited;
    case 'watching':
      return healthy;
  }
}

describe('a paged list with an expired snapshot', () => {
  it('is repeated in one piece, and by pages again after that', () => {
    const first = initialState(0, false);
    assert.ok(!first.isUnpaged);
    const expired = step(first, failure('GONE', 410), 10, false);
    assert.ok(expired.isUnpaged);
    const failed = step(step(expired, waited, 20, false), failure('SERVER', 500), 30, false);
    assert.ok(failed.isUnpaged, 'another failure in between');
    const whole = step(step(failed, waited, 40, false), listed('7'), 50, false);
    assert.ok(!whole.isUnpaged);
    const other = step(step(initialState(0, false), failure('SERVER', 500), 10, false), waited, 20);
    assert.ok(!other.isUnpaged);
  });
});

describe('the state of a reflector, after any events in any order', () => {
  /** Calls `look` for each step. */
  function live(
    history: readonly (readonly [ReflectorEvent, number])[],
    streamsLists: boolean,
    look: (before: ReflectorState, event: ReflectorEvent, after: ReflectorState) => void,
  ): ReflectorState {
    let nowMs = 0;
    let state = initialState(nowMs, streamsLists);
    for (const [event, passedMs] of history) {
      nowMs += passedMs;
      const after = step(state, event, nowMs, streamsLists);
      look(state, event, after);
      state = after;
    }
    return state;
  }

  /** `begin` is called for each history. */
  function hold(begin: () => Parameters<typeof live>[2]): void {
    fc.assert(
      fc.property(histories, fc.boolean(), (history, streamsLists) => {
        live(history, streamsLists, begin());
      }),
      { numRuns: 2000 },
    );
  }

  it('is synced only by a complete list, once', () => {
    hold(() => (before, event, after) => {
      const isListed = event.kind === 'listed' && before.phase.kind === 'listing';
      assert.equal(after.lists, before.lists + (isListed ? 1 : 0));
      const isSynced = after.effects.some(({ kind }) => kind === 'synced');
      assert.equal(isSynced, isListed && before.lists === 0);
    });
  });

  it('watches from a version of a complete list or of a later event', () => {
    hold(() => (before, event, after) => {
      const watches = ['opening', 'watching', 'checking'].includes(after.phase.kind);
      assert.ok(!watches || after.version !== undefined);
      if (after.version === before.version || after.version === undefined) return;
      const from = event.kind === 'listed' ? 'listing' : 'watching';
      assert.ok('version' in event && event.version === after.version);
      assert.equal(before.phase.kind, from);
    });
  });

  it('lists again after an expiry or an older version, whatever happens in between', () => {
    hold(() => {
      let isOwed = false;
      return (before, event, after) => {
        const isFailed = event.kind === 'failed' && before.phase.kind !== 'waiting';
        const code = isFailed && event.error instanceof KubeError ? event.error.code : undefined;
        const isBehind =
          event.kind === 'checked' &&
          before.phase.kind === 'checking' &&
          Number(event.version) < Number(before.version);
        const isRefusedStream = before.phase.kind === 'listing' && after.phase.kind === 'listing';
        if (isBehind || (code === 'GONE' && !isRefusedStream)) isOwed = true;
        if (after.lists > before.lists) isOwed = false;
        assert.ok(!isOwed || after.version === undefined, 'it would watch without a list');
      };
    });
  });

  it('waits for a limited time, confirms nothing by a failure, and counts each', () => {
    hold(() => (before, event, after) => {
      const { phase } = after;
      if (phase.kind === 'waiting') assert.ok(phase.delayMs >= 0 && phase.delayMs <= 375_000);
      const total = ({ errors }: ReflectorState): number =>
        Object.values(errors).reduce((sum, count) => sum + count, 0);
      assert.ok(total(after) - total(before) <= 1);
      if (event.kind === 'failed') assert.equal(after.provenAtMs, before.provenAtMs);
      assert.ok(after.provenAtMs >= before.provenAtMs);
    });
  });

  it('is watching after a few successes, with a list if one is needed', () => {
    fc.assert(
      fc.property(histories, fc.boolean(), (history, streamsLists) => {
        const reached = live(history, streamsLists, () => undefined);
        let state = reached;
        for (let count = 0; count < 4 && state.phase.kind !== 'watching'; count += 1) {
          state = step(state, success(state), 1e9, streamsLists);
        }
        assert.equal(state.phase.kind, 'watching');
        if (reached.version === undefined) assert.equal(state.lists, reached.lists + 1);
      }),
      { numRuns: 2000 },
    );
  });

  it('is checked only once in a while, for any number of requests', () => {
    hold(() => {
      let lastMs = -Infinity;
      return (_before, event, after) => {
        const isArmed = after.effects.some(
          (effect) => effect.kind === 'arm' && effect.event.kind === 'check-due',
        );
        if (event.kind !== 'check-requested' || !isArmed) return;
        assert.ok(after.checkAtMs - lastMs >= defaultTiming.checkEveryMs);
        lastMs = after.checkAtMs;
      };
    });
  });
});
