/**
 * Tokens that nobody asked for before, one after the other, and the same question put to the
 * upstream itself, in turns and by the same client. `node bench/programs/misses.ts PLAN` prints the
 * pairs as JSON.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { Agent, request, type Dispatcher } from 'undici';
import type { MissPair, MissPlan } from '../load/miss-plan.ts';

const plan = JSON.parse(process.argv[2] ?? '{}') as MissPlan;
const { upstream, sourceIp } = plan;
const toAgent = new Agent({ allowH2: false, localAddress: sourceIp });
const toUpstream = new Agent({ allowH2: false, connect: { ca: plan.caPem } });
const headers = { metadata: 'true' };

function askAgent(number: number): Promise<Dispatcher.ResponseData> {
  const target = plan.agentTarget.replace('{n}', `${number}`);
  return request(`${plan.agentUrl}${target}`, { headers, dispatcher: toAgent });
}

function askUpstream(number: number): Promise<Dispatcher.ResponseData> {
  if (upstream.kind === 'imds') {
    const url = upstream.url.replace('{n}', `direct-${number}`);
    return request(url, { headers, dispatcher: toUpstream });
  }
  const { scope = '' } = upstream.form;
  const form = { ...upstream.form, scope: scope.replace('{n}', `direct-${number}`) };
  return request(upstream.url, {
    method: 'POST',
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    body: new URLSearchParams(form).toString(),
    dispatcher: toUpstream,
  });
}

/** Milliseconds until the whole answer is there. */
async function time(call: Promise<Dispatcher.ResponseData>): Promise<number> {
  const startedAtMs = performance.now();
  const { statusCode, body } = await call;
  const text = await body.text();
  if (statusCode !== 200 || !text.includes('"access_token"')) {
    throw new Error(`status ${statusCode}: ${text.slice(0, 300)}`);
  }
  return performance.now() - startedAtMs;
}

const pairs: MissPair[] = [];
// The first ones open the connections and load what is loaded when it is wanted.
const unmeasured = 3;
for (let number = 0; number < plan.misses + unmeasured; number++) {
  const agentMs = await time(askAgent(number));
  const directMs = await time(askUpstream(number));
  if (number >= unmeasured) pairs.push({ agentMs, directMs });
  await delay(plan.pauseMs);
}
process.stdout.write(`${JSON.stringify(pairs)}\n`, () => process.exit(0));
