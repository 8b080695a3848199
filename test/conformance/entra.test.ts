/**
 * The cases with tokens from Entra ID itself: its refusals, its failures, and the credentials for
 * it. They need only our own agent and the lab's Entra ID.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { describe, it } from 'node:test';
import { createEntraApplication } from '../../lab/fakes/entra/applications.ts';
import { eventually } from '../../lab/test-bed/eventually.ts';
import type { EntraFaults, EntraRequest } from '../../lab/fakes/entra/fake-entra.ts';
import {
  agentAccount,
  bindApplication,
  bindPod,
  credentialKinds,
  federatedTo,
  openEntraAgent,
  podAccount,
  putCertificate,
  putSecret,
  type EntraAgent,
  type EntraTestBed,
} from '../support/entra-agent.ts';
import { WireTap } from '../support/wire-tap.ts';
import { caseTitle } from './cases.ts';
import {
  askToken,
  from,
  identityOf,
  inMovedTime,
  MovedTime,
  skipElsewhere as skip,
  vault,
} from './own-agent.ts';
import { valuesOf, type RawReply } from '../support/raw-connection.ts';
import { assertRefused, assertToken, claimsOf } from './reply-rules.ts';

const minuteMs = 60_000;

/** One application for each kind of credential, named after the kind, and a pod bound to all. */
async function bindAllKinds(testBed: EntraTestBed): Promise<void> {
  bindPod(testBed.kube);
  for (const kind of credentialKinds) await bindApplication(testBed, kind, kind);
}

/** A request of the pod with the application's client ID. */
function askAs(agent: EntraAgent, name: string, resource = vault, more = ''): Promise<RawReply> {
  return askToken(from(agent), resource, `client_id=${clientIdOf(name)}${more}`);
}

function clientIdOf(name: string): string {
  return createEntraApplication(name).clientId;
}

function requestsOf(agent: EntraAgent, name: string): readonly EntraRequest[] {
  return agent.entra.requests().filter(({ clientId }) => clientId === clientIdOf(name));
}

function retryAfterOf(reply: RawReply): number {
  return Number(valuesOf(reply, 'Retry-After')[0]);
}

/** Entra ID's fields besides error and description, as read by clients. */
function assertDetails(reply: RawReply, code: number): void {
  const body = JSON.parse(reply.text) as Readonly<Record<string, unknown>>;
  assert.deepEqual(body['error_codes'], [code]);
  assert.match(String(body['correlation_id']), /^[0-9a-f-]{36}$/);
  assert.match(String(body['trace_id']), /^[0-9a-f-]{36}$/);
  assert.match(String(body['timestamp']), /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ$/);
}

/** No text appears in the reply or the log, in any of its possible spellings. */
function assertUntold(agent: EntraAgent, reply: RawReply, secrets: readonly string[]): void {
  const told = [reply.bytes.toString('latin1'), ...agent.log].join('\n');
  for (const secret of secrets) {
    for (const spelt of [
      secret,
      encodeURIComponent(secret),
      new URLSearchParams({ '': secret }).toString().slice(1),
      Buffer.from(secret).toString('base64'),
      JSON.stringify(secret).slice(1, -1),
    ]) {
      assert.ok(!told.includes(spelt), 'a secret leaked');
    }
  }
}

describe('refusals of Entra ID', { skip }, () => {
  /** The older of the two codes has another OAuth error. */
  const errors = { 70021: 'invalid_request', 700213: 'invalid_client' };

  it(caseTitle(56), async () => {
    await using agent = await openEntraAgent({}, bindAllKinds);
    const resource = 'https://nobody.invalid';
    for (const kind of credentialKinds) {
      const says = /^AADSTS500011: The resource principal named https:\/\/nobody\.invalid was not /;
      const wanted = { status: 400, error: 'invalid_resource', says };
      const reply = await askAs(agent, kind, resource);
      assertRefused(reply, wanted);
      assertDetails(reply, 500011);
      assertRefused(await askAs(agent, kind, resource), wanted);
      assert.equal(requestsOf(agent, kind).length, 1, `${kind}: repeated at once`);
      assert.equal(identityOf(await askAs(agent, kind)), kind, 'other resources are not affected');
    }
  });

  it(caseTitle(57), async () => {
    using tap = new WireTap();
    const [wrong, expired] = ['wrong+/= Ä"canary', 'expired~canary-7'];
    await using agent = await openEntraAgent({}, async (testBed) => {
      const { kube } = testBed;
      await bindAllKinds(testBed);
      for (const [name, value] of [
        ['wrong', wrong],
        ['expired', expired],
      ] as const) {
        const secrets = name === 'wrong' ? [] : [{ value, expiresAtWallMs: 0 }];
        await bindApplication(testBed, 'secret', name, { application: { secrets } });
        putSecret(kube, name, value);
      }
      // A certificate that the application does not have, and subjects that it does not trust.
      await putCertificate(testBed, 'certificate');
      for (const kind of ['federated_pod', 'federated_node'] as const) {
        const untrusted = federatedTo({ namespace: 'default', name: 'untrusted' });
        testBed.entra.register(createEntraApplication(kind, untrusted));
      }
    });
    for (const [name, code, status] of [
      ['wrong', 7000215, 400],
      ['expired', 7000222, 400],
      ['certificate', 700027, 400],
      ['federated_pod', 700213, 503],
      ['federated_node', 700213, 503],
    ] as const) {
      tap.clear();
      const reply = await askAs(agent, name);
      assertRefused(reply, { status, says: new RegExp(`^AADSTS${code}: `) });
      assertDetails(reply, code);
      const sent = tap
        .forms()
        .flatMap((form) => [form.get('client_secret') ?? '', form.get('client_assertion') ?? ''])
        .filter((text) => text !== '');
      assert.ok(sent.length > 0, 'a credential was sent');
      assertUntold(agent, reply, sent);
    }
  });

  for (const kind of ['federated_pod', 'federated_node'] as const) {
    for (const code of [70021, 700213] as const) {
      it(`${caseTitle(58)}: ${code}, ${kind}`, async () => {
        using time = new MovedTime();
        const fits = kind === 'federated_pod' ? podAccount : agentAccount;
        const untrusted = federatedTo({ namespace: 'default', name: 'untrusted' });
        const application = code === 70021 ? { federatedCredentials: [] } : untrusted;
        await using agent = await openEntraAgent(inMovedTime, async (testBed) => {
          bindPod(testBed.kube);
          await bindApplication(testBed, kind, kind, { application });
        });
        const says = new RegExp(`^AADSTS${code}: `);
        const young = await askAs(agent, kind);
        assertRefused(young, { status: 503, says });
        assert.ok(retryAfterOf(young) <= 10, 'it may exist soon');

        time.pass(4 * minuteMs);
        for (let refusals = 4; refusals <= 8; refusals++) {
          assertRefused(await askAs(agent, kind), { status: 503, says });
          time.pass(11_000);
        }
        time.pass(minuteMs);
        const old = await askAs(agent, kind);
        assertRefused(old, { status: 400, error: errors[code], says });
        assertDetails(old, code);

        // A credential that was added meanwhile is used without a restart.
        agent.entra.register(createEntraApplication(kind, federatedTo(fits)));
        time.pass(10_000);
        assert.equal(identityOf(await askAs(agent, kind)), kind);
      });
    }
  }
});

describe('trouble of Entra ID', { skip }, () => {
  it(caseTitle(59), async () => {
    using time = new MovedTime();
    await using agent = await openEntraAgent(inMovedTime, async (testBed) => {
      await bindAllKinds(testBed);
      await bindApplication(testBed, 'secret', 'calm');
    });
    for (const loud of credentialKinds) {
      const before = requestsOf(agent, loud).length;
      const calls = () => requestsOf(agent, loud).length - before;
      // Far longer than the requests below take, even on a busy machine.
      agent.entra.setFaults({ fail: { status: 429, retryAfterSec: 57 } }, clientIdOf(loud));
      const askedMs = performance.now();
      const throttled = await askAs(agent, loud);
      const heldMs = performance.now();
      assertRefused(throttled, { status: 429 });
      assert.ok(retryAfterOf(throttled) >= 57, `Retry-After: ${retryAfterOf(throttled)}`);
      agent.entra.setFaults({}, clientIdOf(loud));

      const replies = await Promise.all(Array.from({ length: 20 }, () => askAs(agent, loud)));
      for (const reply of replies) assertRefused(reply, { status: 429 });
      time.passUntil(askedMs + 56_500);
      assertRefused(await askAs(agent, loud), { status: 429 });
      assert.equal(calls(), 1, `${loud}: requested within Retry-After`);
      const resource = `${vault}/beside-${loud}`;
      assert.equal(identityOf(await askAs(agent, 'calm', resource), resource), 'calm');
      assert.equal(identityOf(await askAs(agent, loud, resource), resource), loud);

      time.passUntil(heldMs + 57_100);
      assert.equal(identityOf(await askAs(agent, loud)), loud);
      assert.equal(calls(), 3);
    }
  });

  const troubles: Readonly<Record<string, EntraFaults>> = {
    '503': { fail: { status: 503 } },
    '503 with Retry-After': { fail: { status: 503, retryAfterSec: 3 } },
    'a timeout': { hang: true },
    'a reset': { reset: true },
    'a 502 of HTML': { fail: { status: 502 } },
    'a 504 of half a JSON': {
      fail: { status: 504, body: { type: 'application/json', text: '{"error":"ser' } },
    },
  };
  for (const [name, faults] of Object.entries(troubles)) {
    it(`${caseTitle(60)}: ${name}`, async () => {
      using time = new MovedTime();
      await using agent = await openEntraAgent(inMovedTime, bindAllKinds, {
        tuning: { entraTimeoutMs: 2_500 },
      });
      agent.entra.setFaults(faults);
      const replies = await Promise.all(credentialKinds.map((kind) => askAs(agent, kind)));
      for (const reply of replies) assertRefused(reply, { status: 503 });
      const longestS = Math.max(...replies.map(retryAfterOf));
      assert.ok(longestS <= 10, `Retry-After: ${longestS}`);
      agent.entra.setFaults({});
      time.pass(longestS * 1000);
      for (const kind of credentialKinds) assert.equal(identityOf(await askAs(agent, kind)), kind);
    });
  }

  it(caseTitle(61), async () => {
    using time = new MovedTime();
    await using agent = await openEntraAgent(inMovedTime, bindAllKinds, {
      tuning: { entraTimeoutMs: 2_500 },
    });
    const first = new Map<string, string | undefined>();
    for (const kind of credentialKinds) {
      first.set(kind, assertToken(await askAs(agent, kind), vault)['access_token']);
    }
    for (const faults of Object.values(troubles)) {
      agent.entra.setFaults(faults);
      // The fault is met by a refresh ahead or by a request for a new token; their order depends on
      // the machine.
      const before = credentialKinds.map((kind) => requestsOf(agent, kind).length);
      // Tokens live for an hour less a second; ten minutes of it are left at the end.
      time.pass(8 * minuteMs);
      for (const kind of credentialKinds) {
        const reply = await askAs(agent, kind);
        assert.equal(assertToken(reply, vault)['access_token'], first.get(kind), kind);
      }
      const met = (): readonly string[] =>
        credentialKinds.filter((kind, index) => {
          return requestsOf(agent, kind).length > (before[index] ?? 0);
        });
      // The fake does not count a request whose connection ended before it was fully read.
      const fewest = faults.reset === true ? 1 : credentialKinds.length;
      await eventually(async () => {
        // Also for requests that want a new one. On a busy machine these may join a fetch that the
        // trouble before has not ended yet.
        for (const kind of credentialKinds) {
          const reply = await askAs(agent, kind, vault, '&bypass_cache=true');
          assert.equal(assertToken(reply, vault)['access_token'], first.get(kind), kind);
        }
        assert.ok(met().length >= fewest, met().join());
      }, 20_000);
    }
  });
});

describe('a token that its resource has revoked', { skip }, () => {
  it(caseTitle(78), async () => {
    await using agent = await openEntraAgent({}, bindAllKinds);
    for (const kind of credentialKinds) {
      const bad = assertToken(await askAs(agent, kind), vault)['access_token'] ?? '';
      const hash = createHash('sha256').update(bad).digest('hex');
      const replies = await Promise.all(
        Array.from({ length: 20 }, () =>
          askAs(agent, kind, vault, `&token_sha256_to_refresh=${hash}`),
        ),
      );
      const tokens = new Set(
        replies.map((reply) => assertToken(reply, vault)['access_token'] ?? ''),
      );
      assert.ok(tokens.size === 1 && !tokens.has(bad), kind);
      assert.equal(requestsOf(agent, kind).length, 2, kind);
    }
  });
});

describe('what Entra ID is sent', { skip }, () => {
  it(caseTitle(70), async () => {
    using tap = new WireTap();
    await using agent = await openEntraAgent({}, bindAllKinds);
    const scopes = {
      'https://vault.azure.net': 'https://vault.azure.net/.default',
      'https://management.azure.com/': 'https://management.azure.com//.default',
      'https://storage.azure.com//': 'https://storage.azure.com///.default',
      'HTTPS://Graph.Microsoft.Com': 'HTTPS://Graph.Microsoft.Com/.default',
      '00000003-0000-0000-c000-000000000000': '00000003-0000-0000-c000-000000000000/.default',
      'api://5a5a5a5a-0000-4000-8000-5a5a5a5a5a5a':
        'api://5a5a5a5a-0000-4000-8000-5a5a5a5a5a5a/.default',
      'api://contoso/app/.default': 'api://contoso/app/.default',
      'https://host.example/a?b=c&d=%20': 'https://host.example/a?b=c&d=%20/.default',
    };
    for (const kind of credentialKinds) {
      for (const [resource, scope] of Object.entries(scopes)) {
        tap.clear();
        const token = assertToken(await askAs(agent, kind, resource), resource);
        const [form, ...others] = tap.forms();
        assert.deepEqual(form?.getAll('scope'), [scope]);
        assert.deepEqual(form.getAll('grant_type'), ['client_credentials']);
        assert.equal(form.has('resource'), false);
        assert.deepEqual(others, []);
        assert.equal(claimsOf(token)['aud'], scope.slice(0, -'/.default'.length));
      }
    }
    assert.deepEqual(agent.entra.otherRequests(), [], 'no discovery request');
  });

  it(`${caseTitle(71)}: its audience and its pod`, async () => {
    const audience = 'api://AzureADTokenExchangeChina';
    using tap = new WireTap();
    let podUid: string | undefined;
    await using agent = await openEntraAgent({ cloud: 'china' }, async (testBed) => {
      podUid = bindPod(testBed.kube).metadata.uid;
      const pod = federatedTo(podAccount, audience);
      await bindApplication(testBed, 'federated_pod', 'pod', { application: pod });
      const node = federatedTo(agentAccount, audience);
      await bindApplication(testBed, 'federated_node', 'node', { application: node });
    });
    assert.ok(podUid !== undefined);
    for (const name of ['pod', 'node']) {
      tap.clear();
      assert.equal(identityOf(await askAs(agent, name)), name);
      const [spec, ...others] = tap.tokenRequests();
      assert.deepEqual(spec?.['audiences'], [audience]);
      assert.ok(Number(spec['expirationSeconds']) >= 600);
      const bound: unknown = { apiVersion: 'v1', kind: 'Pod', name: 'p', uid: podUid };
      // The agent's own pod is unknown in this test.
      assert.deepEqual(spec['boundObjectRef'], name === 'pod' ? bound : undefined);
      assert.deepEqual(others, []);
    }
  });

  for (const { grantedSec, usedSec } of [
    { grantedSec: 3600, usedSec: 3300 },
    { grantedSec: 600, usedSec: 300 },
  ]) {
    it(`${caseTitle(71)}: ${grantedSec} s`, async () => {
      using time = new MovedTime();
      using tap = new WireTap();
      await using agent = await openEntraAgent(inMovedTime, bindAllKinds);
      agent.kube.faults.maxTokenSec = grantedSec;
      for (const kind of ['federated_pod', 'federated_node'] as const) {
        tap.clear();
        const ask = async (resource: string): Promise<number> => {
          assert.equal(identityOf(await askAs(agent, kind, resource), resource), kind);
          return tap.tokenRequests().length;
        };
        const askedMs = performance.now();
        assert.equal(await ask(vault), 1);
        const madeMs = performance.now();
        for (let turn = 0; turn < 4; turn++) assert.equal(await ask(vault), 1, 'a cache hit');
        assert.equal(await ask(`${vault}/second`), 1, 'one assertion for two resources');
        time.passUntil(askedMs + (usedSec - 2) * 1000);
        assert.equal(await ask(`${vault}/third`), 1, 'kept within its life');
        time.passUntil(madeMs + (usedSec + 1) * 1000);
        assert.equal(await ask(`${vault}/fourth`), 2, 'not kept after its life');
        const assertions = tap.forms().map((form) => form.get('client_assertion'));
        assert.deepEqual(
          assertions.map((assertion) => assertion === assertions[0]),
          [true, true, true, false],
        );
      }
    });
  }

  it(`${caseTitle(72)}: secret`, async () => {
    await using agent = await openEntraAgent({}, bindAllKinds);
    assert.equal(identityOf(await askAs(agent, 'secret')), 'secret');
    for (const value of ['second', 'third']) {
      putSecret(agent.kube, 'secret', value);
      agent.entra.register(createEntraApplication('secret', { secrets: [{ value }] }));
      const resource = `${vault}/${value}`;
      assert.equal(identityOf(await askAs(agent, 'secret', resource), resource), 'secret');
    }
    assert.deepEqual(
      requestsOf(agent, 'secret').map(({ code }) => code),
      [undefined, 7000215, undefined, 7000215, undefined],
      'the cached credential is used first, and read again after a refusal',
    );
  });

  it(`${caseTitle(72)}: certificate`, async () => {
    await using agent = await openEntraAgent({}, bindAllKinds);
    assert.equal(identityOf(await askAs(agent, 'certificate')), 'certificate');
    for (const turn of ['second', 'third']) {
      const certificates = [await putCertificate(agent, 'certificate')];
      agent.entra.register(createEntraApplication('certificate', { certificates }));
      const resource = `${vault}/${turn}`;
      assert.equal(
        identityOf(await askAs(agent, 'certificate', resource), resource),
        'certificate',
      );
    }
    const refused = requestsOf(agent, 'certificate').filter(({ code }) => code !== undefined);
    assert.deepEqual(new Set(refused.map(({ code }) => code)), new Set([700027]));
  });
});
