/**
 * Sees for itself that what a pod dials comes here: at intervals somebody outside dials a path that
 * nobody can guess, and it must arrive at this very process.
 *
 * Rules that read back as wanted say what somebody wrote, not what the kernel does with it: a
 * datapath in front, a second agent or a rule in a table that nobody looks at are seen only this way.
 */
import { randomBytes } from 'node:crypto';
import type { Clock } from '../../cache/clock.ts';
import type { Attestation } from '../../redirect/redirect.ts';
import type { Dial, DialOutcome } from '../../redirect/self-dial.ts';
import { answerToken, refuse, type Answer } from '../base/answers.ts';
import type { Log } from '../base/log.ts';

/** `impossible`: this process may not make a place to dial from. Says nothing of the redirect. */
export type SelfTestResult = 'off' | 'pending' | 'passed' | 'failed' | 'impossible';
export const selfTestResults: readonly SelfTestResult[] = [
  'off',
  'pending',
  'passed',
  'failed',
  'impossible',
];

export interface SelfTestOptions {
  /** Undefined where nothing is redirected. */
  readonly dial: Dial | undefined;
  /** 0 for never. */
  readonly intervalMs: number;
  readonly clock: Clock;
  readonly log: Log;
}

/** The redirect may be under repair just then; a second failure is one. */
const failuresThatCount = 2;
const firstAfterMs = 5_000;
const nonceBytes = 16;

interface Verdict {
  readonly result: 'passed' | 'failed' | 'impossible';
  readonly why: string;
}

export class SelfTest implements AsyncDisposable {
  readonly #options: SelfTestOptions;
  readonly #dial: Dial | undefined;
  #result: SelfTestResult;
  #why = '';
  #failures = 0;
  /** What is awaited; undefined most of the time. */
  #nonce: string | undefined;
  #arrived: Attestation | undefined;
  #running: Promise<void> | undefined;
  #disarm: () => void = () => undefined;
  #isDisposed = false;

  constructor(options: SelfTestOptions) {
    this.#options = options;
    this.#dial = options.intervalMs === 0 ? undefined : options.dial;
    this.#result = this.#dial === undefined ? 'off' : 'pending';
  }

  get result(): SelfTestResult {
    return this.#result;
  }

  /** What was seen when it last failed, or undefined when it did not. */
  problem(): string | undefined {
    return this.#result === 'failed' ? this.#why : undefined;
  }

  /** Begins soon; the rest follows by itself. */
  start(): void {
    if (this.#dial === undefined) return;
    this.#arm(Math.min(firstAfterMs, this.#options.intervalMs));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isDisposed = true;
    this.#disarm();
    await this.#running;
  }

  /** The answer at the path of a nonce: as if there were nothing, for all but the awaited one. */
  answer(nonce: string, attestation: Attestation): Answer {
    if (this.#nonce === undefined || nonce !== this.#nonce) {
      return refuse('not_found', 'There is nothing at this path.');
    }
    this.#arrived = attestation;
    return answerToken('{"nmi":"here"}');
  }

  #arm(delayMs: number): void {
    if (this.#isDisposed) return;
    this.#disarm = this.#options.clock.schedule(delayMs, () => {
      this.#running = this.#testAndArm();
    });
  }

  async #testAndArm(): Promise<void> {
    const { intervalMs } = this.#options;
    if (this.#dial === undefined) return;
    this.#settle(await this.#test(this.#dial));
    this.#arm(this.#failures === 0 ? intervalMs : Math.min(firstAfterMs, intervalMs));
  }

  async #test(dial: Dial): Promise<Verdict> {
    this.#nonce = randomBytes(nonceBytes).toString('hex');
    this.#arrived = undefined;
    try {
      const outcome = await dial(`/metadata/nmi-self-test/${this.#nonce}`);
      return judge(outcome, this.#arrived);
    } finally {
      this.#nonce = undefined;
    }
  }

  #settle({ result, why }: Verdict): void {
    this.#failures = result === 'failed' ? this.#failures + 1 : 0;
    if (result === 'failed' && this.#failures < failuresThatCount) return;
    const isNews = result !== this.#result || why !== this.#why;
    this.#result = result;
    this.#why = why;
    if (!isNews) return;
    const { log } = this.#options;
    if (result === 'passed') log.info({ result }, 'redirect self-test');
    else log[result === 'failed' ? 'error' : 'warn']({ result, why }, 'redirect self-test');
  }
}

function judge(outcome: DialOutcome, arrived: Attestation | undefined): Verdict {
  switch (outcome.kind) {
    case 'impossible':
      return { result: 'impossible', why: outcome.why };
    case 'unanswered':
      return failed(`the metadata address cannot be reached from a pod: ${outcome.problem}`);
    case 'answered':
      if (arrived === undefined) {
        return failed(`somebody else answers at the metadata address (status ${outcome.status})`);
      }
      return judgeAttestation(outcome.cgroupId, arrived);
  }
}

function judgeAttestation(dialledFrom: bigint | undefined, arrived: Attestation): Verdict {
  if (arrived.kind === 'unattested') {
    return failed('a connection came without the programs’ record of who dialled');
  }
  const isRight = arrived.kind === 'by-address' || arrived.cgroupId === dialledFrom;
  return isRight
    ? { result: 'passed', why: '' }
    : failed('a connection came with the record of another cgroup');
}

function failed(why: string): Verdict {
  return { result: 'failed', why };
}
