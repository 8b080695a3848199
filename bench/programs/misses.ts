/**
 * Requests for tokens not requested before, one after another, with equal requests to the upstream
 * itself and to a bare proxy, alternating and by the same client. `node bench/programs/misses.ts
 * PLAN` prints the times as JSON.
 */
import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { Agent, request, type Dispatcher } from 'undici';
import type { MissPlan, MissTimes } from '../load/miss-plan.ts';
import { sdkHeaders } from '../load/request.ts';
import { inTurn } from '../fixture/rounds.ts';

const plan = JSON.parse(process.argv[2] ?? '{}') as MissPlan;
const { upstream, sourceIp } = plan;
const toAgent = new Agent({ allowH2: false, localAddress: sourceIp });
const toUpstream = new Agent({ allowH2: false, connect: { ca: plan.caPem } });

function headers(): Record<string, string> {
  return { ...Object.fromEntries(sdkHeaders), 'x-ms-client-request-id': randomUUID() };
}

function askAgent(number: number): Promise<Dispatcher.ResponseData> {
  const target = plan.agentTarget.replace('{n}', `${number}`);
  return request(`${plan.agentUrl}${target}`, { headers: headers(), dispatcher: toAgent });
}

/** @param way a name of the path, so that each path requests its own tokens. */
function askUpstream(url: string, way: string, number: number): Promise<Dispatcher.ResponseData> {
  const fill = (text: string): string => text.replace('{n}', `${way}-${number}`);
  const target = `${url}${fill(upstream.target)}`;
  if (upstream.form === undefined) {
    return request(target, { headers: headers(), dispatcher: toUpstream });
  }
  const { scope = '' } = upstream.form;
  return request(target, {
    method: 'POST',
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    body: new URLSearchParams({ ...upstream.form, scope: fill(scope) }).toString(),
    dispatcher: toUpstream,
  });
}

/** Milliseconds until the whole answer has arrived. */
async function time(ask: () => Promise<Dispatcher.ResponseData>): Promise<number> {
  const startedAtMs = performance.now();
  const { statusCode, body } = await ask();
  const text = await body.text();
  const tookMs = performance.now() - startedAtMs;
  if (statusCode !== 200 || !text.includes('"access_token"')) {
    throw new Error(`status ${statusCode}: ${text.slice(0, 300)}`);
  }
  // After each request, so that all have the same pause before them.
  await delay(plan.pauseMs);
  return tookMs;
}

const times: MissTimes[] = [];
// The first ones open the connections and load lazily loaded code.
const unmeasured = 3;
for (let number = 0; number < plan.misses + unmeasured; number++) {
  const took: Record<keyof MissTimes, number> = { agentMs: 0, proxyMs: 0, directMs: 0 };
  const ways: readonly (readonly [keyof MissTimes, () => Promise<Dispatcher.ResponseData>])[] = [
    ['agentMs', () => askAgent(number)],
    ['proxyMs', () => askUpstream(plan.proxyUrl, 'proxy', number)],
    ['directMs', () => askUpstream(upstream.url, 'direct', number)],
  ];
  for (const [way, ask] of inTurn(ways, number)) took[way] = await time(ask);
  if (number >= unmeasured) times.push(took);
}
process.stdout.write(`${JSON.stringify(times)}\n`, () => process.exit(0));
