/**
 * Input and output of a client program: its last argument is a job as JSON, its output is one line
 * of JSON with identities and failures and never a token.
 */
import { setTimeout as delay } from 'node:timers/promises';

export interface Step {
  /** The managed identity client of the library, or its default credential chain. */
  readonly credential: 'managed' | 'default';
  readonly id?: { readonly kind: 'client' | 'resource' | 'object'; readonly value: string };
  readonly resource: string;
  /** Sequential calls on one credential object. */
  readonly calls: number;
  /** Stops at the first token, and waits a second after a failure. */
  readonly untilToken?: boolean;
  /** Azure CLI only: signs in only if the identity has access to a subscription. */
  readonly needsSubscription?: boolean;
}

/** Result of one call: exactly one of the two is set. */
export interface Outcome {
  readonly identity?: string;
  readonly failure?: string;
}

export type TokenCall = () => Promise<string>;

/** Runs the job of the command line and prints the outcomes. */
export async function runJob(open: (step: Step) => TokenCall): Promise<void> {
  const steps = JSON.parse(process.argv.at(-1) ?? '') as readonly Step[];
  const outcomes: Outcome[] = [];
  for (const step of steps) {
    const call = open(step);
    for (let left = step.calls; left > 0; left -= 1) {
      const outcome = await tryCall(call);
      outcomes.push(outcome);
      if (step.untilToken !== true) continue;
      if (outcome.identity !== undefined) break;
      await delay(1_000);
    }
  }
  process.stdout.write(`${JSON.stringify({ outcomes })}\n`);
  // Sockets that a client library keeps open would keep this process running.
  process.exit(0);
}

async function tryCall(call: TokenCall): Promise<Outcome> {
  try {
    return { identity: identityOf(await call()) };
  } catch (error) {
    return { failure: error instanceof Error ? `${error.name}: ${error.message}` : 'unknown' };
  }
}

function identityOf(token: string): string {
  const [, payload = ''] = token.split('.');
  const claims = JSON.parse(Buffer.from(payload, 'base64url').toString()) as {
    readonly lab_identity?: unknown;
  };
  if (typeof claims.lab_identity !== 'string') throw new TypeError('not a token of the lab');
  return claims.lab_identity;
}
