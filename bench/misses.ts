/**
 * What a miss costs beside its upstream: tokens that nobody asked for before, one after the other,
 * and the same question put to the upstream directly, in turns.
 */
import { request, type Dispatcher, Agent } from 'undici';
import type { EntraApplication } from '../src/lab/entra-applications.ts';
import type { LabIdentity } from '../src/lab/lab-token.ts';
import type { Surroundings } from '../src/lab/surroundings.ts';

export interface MissOptions {
  readonly around: Surroundings;
  readonly agentPort: number;
  readonly identity: LabIdentity;
  readonly application: EntraApplication;
  readonly secretValue: string;
}

const misses = 40;
/** Under the 20 a second that IMDS allows a node, or the agent makes them wait. */
const pauseMs = 60;
const tokenPath = '/metadata/identity/oauth2/token?api-version=2018-02-01';

/** @returns lines of a table. */
export async function measureMisses(options: MissOptions): Promise<readonly string[]> {
  const { around, agentPort, identity, application, secretValue } = options;
  const { imds, entra } = around;
  await using stack = new AsyncDisposableStack();
  const direct = stack.adopt(
    new Agent({
      allowH2: false,
      connect: { ca: around.authority.certificatePem },
    }),
    (agent) => agent.destroy(),
  );
  const metadata = { headers: { metadata: 'true' }, dispatcher: direct };
  const byAgent = (resource: string, clientId: string) =>
    request(
      `http://127.0.0.1:${agentPort}${tokenPath}&resource=${resource}&client_id=${clientId}`,
      metadata,
    );
  const upstreams = [
    {
      name: 'IMDS (type 0)',
      agent: (resource: string) => byAgent(resource, identity.clientId),
      itself: (resource: string) =>
        request(
          `http://127.0.0.1:${imds.port}${tokenPath}&resource=${resource}` +
            `&client_id=${identity.clientId}`,
          metadata,
        ),
    },
    {
      name: 'Entra ID, secret (type 1)',
      agent: (resource: string) => byAgent(resource, application.clientId),
      itself: (resource: string) =>
        request(`${entra.authority}/${application.tenantId}/oauth2/v2.0/token`, {
          method: 'POST',
          headers: { 'content-type': 'application/x-www-form-urlencoded' },
          body: new URLSearchParams({
            ...{ client_id: application.clientId, client_secret: secretValue },
            ...{ grant_type: 'client_credentials', scope: `${resource}/.default` },
          }).toString(),
          dispatcher: direct,
        }),
    },
  ];
  const lines = [
    '| a miss upstream of | by the agent p50 ms | upstream itself p50 ms | added p50 ms | added p95 ms |',
    '| --- | --- | --- | --- | --- |',
  ];
  for (const [which, { name, agent, itself }] of upstreams.entries()) {
    const pairs: { readonly agent: number; readonly itself: number }[] = [];
    for (let index = 0; index <= misses; index++) {
      const resource = `https://miss-${which}-${index}.example`;
      const pair = {
        agent: await time(agent(resource)),
        itself: await time(itself(`https://direct-${which}-${index}.example`)),
      };
      // The first opens the connections and loads what is loaded when it is wanted.
      if (index > 0) pairs.push(pair);
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
    const added = pairs.map((pair) => pair.agent - pair.itself);
    const cells = [
      at(
        pairs.map((pair) => pair.agent),
        0.5,
      ),
      at(
        pairs.map((pair) => pair.itself),
        0.5,
      ),
      at(added, 0.5),
      at(added, 0.95),
    ];
    lines.push(`| ${name} | ${cells.map((ms) => ms.toFixed(2)).join(' | ')} |`);
  }
  return lines;
}

async function time(call: Promise<Dispatcher.ResponseData>): Promise<number> {
  const startedAtMs = performance.now();
  const { statusCode, body } = await call;
  await body.text();
  if (statusCode !== 200) throw new Error(`status ${statusCode}`);
  return performance.now() - startedAtMs;
}

function at(numbers: readonly number[], share: number): number {
  return numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length * share)] ?? 0;
}
