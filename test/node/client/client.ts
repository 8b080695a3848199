/**
 * The program in the pods of a test node: `idle`, `ask`, `ask-and-idle` or `load FILE [MILLISECONDS]`. Every
 * answer is one line of JSON that names the token's identity, never the token.
 */
import { appendFileSync } from 'node:fs';
import { get } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { findTokenIdentity } from '../../../lab/fakes/token.ts';

/** One request on a new connection. */
interface Line {
  /** When it was sent, in milliseconds since the epoch. */
  readonly at: number;
  readonly tookMs: number;
  /** A status, or an error code. */
  readonly outcome: string;
  /** The token's identity, by its name in the lab. */
  readonly identity?: string;
  /** Error text of a refusal. */
  readonly error?: string;
}

const timeoutMs = 5_000;
const path =
  '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net';

async function ask(): Promise<Line> {
  const at = Date.now();
  const startedMs = performance.now();
  const answered = Promise.withResolvers<Omit<Line, 'at' | 'tookMs'>>();
  const request = get(
    { host: '169.254.169.254', port: 80, path, headers: { Metadata: 'true' }, agent: false },
    (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (text: string) => (body += text));
      response.on('end', () => {
        const identity = findTokenIdentity(body);
        const outcome = String(response.statusCode);
        if (identity !== undefined) answered.resolve({ outcome, identity });
        else answered.resolve({ outcome, error: body.slice(0, 400) });
      });
      response.on('error', (error: NodeJS.ErrnoException) => {
        answered.resolve({ outcome: error.code ?? error.message });
      });
    },
  );
  request.on('error', (error: NodeJS.ErrnoException) => {
    answered.resolve({ outcome: error.code ?? error.message });
  });
  const late = setTimeout(() => {
    answered.resolve({ outcome: 'TIMEOUT' });
    request.destroy();
  }, timeoutMs);
  const answer = await answered.promise;
  clearTimeout(late);
  return { at, tookMs: Math.round(performance.now() - startedMs), ...answer };
}

async function load(file: string, everyMs: number): Promise<never> {
  for (;;) {
    const { error: _, ...line } = await ask();
    appendFileSync(file, `${JSON.stringify(line)}\n`);
    await delay(everyMs);
  }
}

// Process 1 has no default handling of signals.
process.on('SIGTERM', () => process.exit(0));
const [verb = 'idle', file = '', everyMs = '20'] = process.argv.slice(2);
if (verb === 'load') await load(file, Number(everyMs));
if (verb !== 'idle') console.log(JSON.stringify(await ask()));
if (verb !== 'ask') await delay(2 ** 31 - 1);
