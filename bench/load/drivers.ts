/** When each request is sent: closed loop, open loop, or all at once. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Tally } from './tally.ts';
import { Lane, type LaneEvents } from './lane.ts';
import type { LoadPlan } from './plan.ts';

/** Pause of a closed loop after a failure, such as an absent server. */
const pauseAfterFailureMs = 5;
/** For shorter waits a timer is too coarse. */
const spinMs = 1.5;
const defaultPatienceMs = 15_000;

export interface Span {
  readonly startMs: number;
  readonly untilMs: number;
}

/** Returns when the last answer has come, or 15 s after the last request was due. */
export async function drive(plan: LoadPlan, tally: Tally, span: Span): Promise<void> {
  if (plan.kind === 'burst') await burst(plan, tally, span);
  else if (plan.ratePerSec === undefined) await closedLoop(plan, tally, span);
  else await openLoop(plan, tally, span, plan.ratePerSec);
}

function openLanes(plan: LoadPlan, events: LaneEvents): readonly Lane[] {
  return Array.from({ length: plan.connections }, (_, index) => {
    const caller = plan.callers[index % plan.callers.length];
    if (caller === undefined) throw new TypeError('a load without callers');
    return new Lane(plan, caller, events);
  });
}

/** Counts, then reports the lane as free. */
function counting(tally: Tally, free: (lane: Lane, hasFailed: boolean) => void): LaneEvents {
  return {
    answered: (lane, dueAtMs, verdict, status) => {
      if (verdict === 'right') tally.right(dueAtMs, performance.now());
      else tally.wrong(dueAtMs, `${verdict}, status ${status}`, verdict === 'foreign');
      free(lane, false);
    },
    failed: (lane, dueAtMs, why) => {
      tally.wrong(dueAtMs, why, false);
      free(lane, true);
    },
  };
}

interface Ending {
  readonly plan: LoadPlan;
  readonly tally: Tally;
  readonly span: Span;
  readonly lanes: readonly Lane[];
  /** Due times of requests without a free connection. */
  readonly unsent?: () => readonly number[];
}

/** Requests without an answer at the end count as failures. */
async function settled(done: Promise<void>, ending: Ending): Promise<void> {
  const { plan, tally, span, lanes, unsent = () => [] } = ending;
  const waitMs = span.untilMs - performance.now() + (plan.patienceMs ?? defaultPatienceMs);
  const late = new AbortController();
  await Promise.race([
    done,
    delay(waitMs, undefined, { signal: late.signal }).catch(() => undefined),
  ]);
  late.abort();
  for (const lane of lanes) {
    if (!lane.isIdle) tally.wrong(span.startMs, 'no answer', false);
    lane.close();
  }
  for (const dueAtMs of unsent()) tally.wrong(dueAtMs, 'not sent', false);
}

async function closedLoop(plan: LoadPlan, tally: Tally, span: Span): Promise<void> {
  const ended = Promise.withResolvers<void>();
  let running = plan.connections;
  const next = (lane: Lane): void => {
    const nowMs = performance.now();
    if (nowMs < span.untilMs) {
      lane.send(nowMs);
      return;
    }
    running -= 1;
    if (running === 0) ended.resolve();
  };
  const lanes = openLanes(
    plan,
    counting(tally, (lane, hasFailed) => {
      if (hasFailed) setTimeout(next, pauseAfterFailureMs, lane);
      else next(lane);
    }),
  );
  if (plan.kind === 'keep') await Promise.all(lanes.map((lane) => lane.open()));
  for (const lane of lanes) next(lane);
  await settled(ended.promise, { plan, tally, span, lanes });
}

/**
 * Each request is due at its own time; without a free connection it waits, and the wait is part of
 * its latency.
 */
async function openLoop(plan: LoadPlan, tally: Tally, span: Span, perSec: number): Promise<void> {
  const ended = Promise.withResolvers<void>();
  const everyMs = 1000 / perSec;
  const waiting: number[] = [];
  let head = 0;
  let sent = 0;
  let outstanding = 0;
  let hasEnded = false;
  const endIfDone = (): void => {
    if (hasEnded && outstanding === 0 && head === waiting.length) ended.resolve();
  };
  const idle: Lane[] = [];
  const lanes = openLanes(
    plan,
    counting(tally, (lane) => {
      outstanding -= 1;
      idle.push(lane);
      pump();
      endIfDone();
    }),
  );
  const pump = (): void => {
    while (head < waiting.length) {
      // The longest-idle lane; else one or two of them would do all the work.
      const lane = idle.shift();
      if (lane === undefined) return;
      outstanding += 1;
      lane.send(waiting[head++] ?? 0);
    }
    waiting.length = 0;
    head = 0;
  };
  if (plan.kind === 'keep') await Promise.all(lanes.map((lane) => lane.open()));
  idle.push(...lanes);
  const startMs = performance.now();
  const step = (): void => {
    const nowMs = performance.now();
    let dueAtMs = startMs + sent * everyMs;
    for (; dueAtMs <= nowMs && dueAtMs < span.untilMs; dueAtMs = startMs + sent * everyMs) {
      waiting.push(dueAtMs);
      sent += 1;
    }
    pump();
    if (dueAtMs >= span.untilMs) {
      hasEnded = true;
      endIfDone();
    } else if (plan.isSleepy === true) setTimeout(step, dueAtMs - nowMs);
    else if (dueAtMs - nowMs > spinMs) setTimeout(step, dueAtMs - nowMs - spinMs);
    else setImmediate(step);
  };
  step();
  await settled(ended.promise, { plan, tally, span, lanes, unsent: () => waiting.slice(head) });
}

async function burst(plan: LoadPlan, tally: Tally, span: Span): Promise<void> {
  const ended = Promise.withResolvers<void>();
  let left = plan.connections;
  const lanes = openLanes(
    plan,
    counting(tally, () => {
      left -= 1;
      if (left === 0) ended.resolve();
    }),
  );
  await Promise.all(lanes.map((lane) => lane.open()));
  const nowMs = performance.now();
  for (const lane of lanes) lane.send(nowMs);
  await settled(ended.promise, { plan, tally, span, lanes });
}
