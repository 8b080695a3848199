/** A listener on loopback that serves with only what the test provides. */
import { systemClock } from '../../src/base/time/clock.ts';
import { refuse } from '../../src/nmi/base/answers.ts';
import { FairTurns } from '../../src/nmi/server/fair-turns.ts';
import { Listener, type ListenerOptions } from '../../src/nmi/server/listener.ts';

export async function openBareListener(over: Partial<ListenerOptions> = {}): Promise<Listener> {
  const listener = bareListener(over);
  await listener.listen();
  return listener;
}

/** Before it listens. */
export function bareListener(over: Partial<ListenerOptions> = {}): Listener {
  return new Listener({
    host: '127.0.0.1',
    port: 0,
    clock: systemClock,
    limits: { total: 100, each: 100, eachWhenShort: 100 },
    attest: () => ({ kind: 'by-address' }),
    findCgroupUid: () => undefined,
    onConnection: () => undefined,
    onTooMany: () => undefined,
    handle: () => refuse('not_found', 'nothing'),
    turns: new FairTurns(() => systemClock.monotonicMs()),
    fastPath: undefined,
    onRefusal: () => undefined,
    onBug: (error) => {
      throw error;
    },
    ...over,
  });
}
