/**
 * Secrets, assertions and tokens exist only where they are needed, for as long as they are needed:
 * in no log, metric, page or refusal, and not in memory once their source is removed.
 */
import assert from 'node:assert/strict';
import { createPrivateKey } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { createEntraApplication } from '../../../../lab/fakes/entra/applications.ts';
import { eventually } from '../../../../lab/test-bed/eventually.ts';
import type { EntraFaults } from '../../../../lab/fakes/entra/fake-entra.ts';
import { fakeResources } from '../../../../lab/fakes/kube/resources.ts';
import { renderPfx } from '../../../../lab/fakes/pfx.ts';
import { decodeLabToken } from '../../../../lab/fakes/token.ts';
import {
  createAzureIdentity,
  createAzureIdentityBinding,
  createSecret,
} from '../../../../lab/fakes/kube/manifests.ts';
import { systemClock } from '../../../../src/base/time/clock.ts';
import { createLogger } from '../../../../src/base/logger.ts';
import { openConditions } from '../../../../src/nmi/conditions/conditions.ts';
import { parseConfig } from '../../../../src/nmi/config/config.ts';
import {
  bindApplication,
  bindPod,
  federatedTo,
  putSecret,
  trusting,
  type BoundApplication,
  type CredentialKind,
  type EntraTestBed,
} from '../../../support/entra-agent.ts';
import { clientOf } from '../kube/kube-test-bed.ts';
import { identityA } from '../../../support/loopback-agent.ts';
import { readyIn } from '../../../support/ready-condition.ts';
import { Canaries, createCanary, reverse } from './canaries.ts';
import { assigned, openCanaryAgent, proxyPassword, type CanaryAgent } from './canary-agent.ts';

const vault = 'https://vault.azure.net';
const otherTenant = '7e570000-1ab0-4000-8000-0000000000aa';

/** Secret texts by name, which are searched for once the agent runs. */
interface Planted {
  readonly texts: Map<string, string>;
  readonly keys: Map<string, string>;
}

/** Applications with working tokens, and their kind of credential. */
const working = {
  secret: 'secret',
  rotated: 'secret',
  unbound: 'secret',
  pfx: 'certificate',
  pem: 'certificate',
  pod: 'federated_pod',
  bound: 'federated_binding',
  node: 'federated_node',
  chain: 'chained',
  agent: 'chained',
} as const satisfies Record<string, CredentialKind>;

/** Every Secret contains a canary; those that the agent reads also have a key that is one. */
async function plant(testBed: EntraTestBed, { texts, keys }: Planted): Promise<void> {
  const { kube, entra, authority } = testBed;
  const text = (name: string): string => {
    const canary = createCanary();
    texts.set(name, canary);
    return canary;
  };
  const put = (name: string, data: Readonly<Record<string, string | Uint8Array>>) =>
    kube.apply(createSecret({ name, data }));
  const issue = async (name: string) => {
    const certificate = await authority.issueClient(name, { signedBy: 'authority' });
    keys.set(`key of ${name}`, certificate.keyPem);
    return certificate;
  };

  bindPod(kube);
  kube.apply(createAzureIdentity({ name: 'assigned', clientId: assigned.clientId }));
  kube.apply(
    createAzureIdentityBinding({ name: 'assigned', azureIdentity: 'assigned', selector: 'app' }),
  );
  for (const [name, kind] of Object.entries(working)) {
    if (kind !== 'certificate') await bindApplication(testBed, kind, name, ofAgent(name));
  }
  entra.register(blueprint);
  for (const name of ['secret', 'rotated', 'unbound']) {
    const value = text(`secret of ${name}`);
    putSecret(kube, name, value);
    entra.register(createEntraApplication(name, { secrets: [{ value }] }));
  }

  const pfx = await issue('pfx');
  const password = text('password of pfx');
  const legacy = await renderPfx(pfx, { ciphers: 'legacy', password });
  await bindCertified(testBed, 'pfx', pfx.certificatePem, { certificate: legacy, password });
  const pem = await issue('pem');
  await bindCertified(testBed, 'pem', pem.certificatePem, {
    certificate: `${pem.keyPem}${pem.certificatePem}${pem.issuerPem}`,
  });
  const sealed = await issue('sealed');
  const passphrase = text('password of sealed');
  const sealing = { type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase } as const;
  const sealedKey = createPrivateKey(sealed.keyPem).export(sealing);
  await bindCertified(testBed, 'sealed', sealed.certificatePem, {
    certificate: `${sealedKey}${sealed.certificatePem}`,
    password: passphrase,
  });

  for (const name of ['wrong', 'expired', 'missing', 'forbidden', 'unread', 'wide']) {
    const value = text(`secret of ${name}`);
    const secrets = { wide: [{ value }], expired: [{ value, expiresAtWallMs: 0 }] }[name] ?? [];
    const identity = name === 'wide' ? { auxiliaryTenantIds: [otherTenant] } : {};
    await bindApplication(testBed, 'secret', name, { application: { secrets }, identity });
    putSecret(kube, name, value);
    if (name === 'missing') kube.delete({ kind: 'Secret', name });
    const elsewhere = { name: 'wide-elsewhere', tenantId: otherTenant };
    if (name === 'wide')
      entra.register({ ...createEntraApplication(name, { secrets }), ...elsewhere });
  }
  await bindApplication(testBed, 'secret', 'crowded');
  put('crowded', { one: text('one of crowded'), other: text('other of crowded') });
  await bindApplication(testBed, 'secret', 'misshapen');
  const misshapen = createSecret({ name: 'misshapen', data: {} });
  kube.apply({ ...misshapen, data: { clientSecret: { nested: text('secret of misshapen') } } });
  for (const name of ['locked', 'broken', 'worded']) await bindCertified(testBed, name, '', {});
  const locked = await issue('locked');
  put('locked', {
    certificate: await renderPfx(locked, { password: text('password of locked') }),
    password: text('other password of locked'),
  });
  const broken = await renderPfx(await issue('broken'), { password: text('password of broken') });
  put('broken', {
    certificate: broken.subarray(0, broken.length - 100),
    password: texts.get('password of broken') ?? '',
  });
  put('worded', {
    certificate: `-----BEGIN PRIVATE KEY-----\n${text('text of worded')}\n-----END PRIVATE KEY-----\n`,
    password: text('password of worded'),
  });
  const untrusted = federatedTo({ namespace: 'default', name: 'untrusted' });
  await bindApplication(testBed, 'federated_pod', 'untrusted', { application: untrusted });
}

const blueprint = createEntraApplication('blueprint', trusting(identityA));

function ofAgent(name: string): BoundApplication {
  if (name !== 'agent') return {};
  const { tenantId, clientId } = blueprint;
  const application = { tenantID: tenantId, clientID: clientId };
  const identity = { application, agentIdentity: clientIdOf(name) };
  return { application: { blueprint: clientId }, identity };
}

async function bindCertified(
  testBed: EntraTestBed,
  name: string,
  certificatePem: string,
  data: Readonly<Record<string, string | Uint8Array>>,
): Promise<void> {
  const certificates = certificatePem === '' ? [] : [certificatePem];
  await bindApplication(testBed, 'certificate', name, { application: { certificates } });
  testBed.kube.apply(createSecret({ name, data }));
}

async function openPlanted(): Promise<{ agent: CanaryAgent; texts: Map<string, string> }> {
  const planted: Planted = { texts: new Map(), keys: new Map() };
  const agent = await openCanaryAgent((testBed) => plant(testBed, planted));
  for (const [name, text] of planted.texts) agent.canaries.addText(name, text);
  for (const [name, pem] of planted.keys) agent.canaries.addPrivateKey(name, pem);
  return { agent, texts: planted.texts };
}

/** Also registers the tokens and assertions issued since. */
async function learn(agent: CanaryAgent): Promise<void> {
  const { canaries, entra, imds } = agent;
  for (const token of [...entra.issuedTokens(), ...imds.issuedTokens()]) {
    canaries.addToken(`token of ${decodeLabToken(token)?.lab_identity ?? ''}`, token);
  }
  const names = new Map(
    [...Object.keys(working), 'untrusted'].map((name) => [clientIdOf(name), name]),
  );
  for (const form of await agent.sent()) {
    const assertion = form.get('client_assertion');
    const name = names.get(form.get('client_id') ?? '') ?? '';
    if (assertion !== null) canaries.addToken(`assertion of ${name}`, assertion);
  }
}

function clientIdOf(name: string): string {
  return name === 'assigned' ? assigned.clientId : createEntraApplication(name).clientId;
}

/** A request of the pod, usually on a connection that stays open. */
async function ask(
  agent: CanaryAgent,
  name: string,
  resource = vault,
  connection: 'kept' | 'new' | 'own' = 'kept',
  headers: readonly string[] = [],
): Promise<{ readonly status: number; readonly body: string }> {
  const query = new URLSearchParams({ resource, client_id: clientIdOf(name) });
  const answer = await agent.pod.request({
    method: 'GET',
    target: `/metadata/identity/oauth2/token?api-version=2018-02-01&${query.toString()}`,
    headers: ['Metadata', 'true', ...headers],
    connection,
    timeoutMs: 20_000,
  });
  assert.ok(answer.outcome === 'answered', `${name}: no answer`);
  const head = answer.headers.map(([field, value]) => `${field}: ${value}`).join('\n');
  return { status: answer.status, body: `${head}\n\n${answer.body}` };
}

async function serve(agent: CanaryAgent, name: string, resource?: string): Promise<void> {
  const { status, body } = await ask(agent, name, resource);
  assert.equal(status, 200, `${name}: ${status}`);
  await learn(agent);
  const rest = body.replaceAll(/"access_token":"[^"]*"/g, '');
  assert.notEqual(rest, body);
  assert.deepEqual(agent.canaries.in(rest), [], `${name}: beside the token`);
}

/** @returns the output of the agent, log and audit stream, since the last call. */
async function assertUntold(agent: CanaryAgent): Promise<string> {
  await learn(agent);
  const { canaries } = agent;
  const printed = agent.takePrinted();
  assert.deepEqual(canaries.in(printed), [], 'in the log or the audit stream');
  for (const path of ['metrics', 'readyz', 'healthz']) {
    assert.deepEqual(canaries.in((await agent.page(path)).text), [], path);
  }
  const { store } = agent.kube;
  const events = store.list(resourceOf('Event'));
  assert.deepEqual(canaries.in(JSON.stringify(events)), [], 'in an Event');
  const statuses = ['AzureIdentity', 'AzureIdentityBinding'].flatMap((kind) =>
    store.list(resourceOf(kind)).map(({ status }) => status),
  );
  assert.deepEqual(canaries.in(JSON.stringify(statuses)), [], 'in a condition');
  for (const query of ['', ...Object.keys(working).map(explainQuery)]) {
    const explained = await agent.explain(query);
    assert.match(explained, /^\{/);
    assert.deepEqual(canaries.in(explained), [], `explained: ${query}`);
  }
  return printed;
}

function explainQuery(name: string): string {
  return `pod=default/p&client_id=${clientIdOf(name)}`;
}

function namesOf(found: ReadonlyMap<string, string>, beginning: string): readonly string[] {
  return [...found.keys()].filter((name) => name.startsWith(beginning)).sort();
}

describe('a search for canaries', { timeout: 60_000 }, () => {
  it('finds them in every encoding, and nothing without them', () => {
    const canary = createCanary();
    const canaries = new Canaries();
    canaries.addText('it', canary);
    for (const told of [
      `Basic ${Buffer.from(`user:${canary}`).toString('base64')}`,
      Buffer.from(`x${canary}`).toString('base64url'),
      Buffer.from(canary).toString('hex'),
      reverse(canary),
      `{"error":"${canary.slice(0, canary.length - 3)}`,
      encodeURIComponent(` ${canary}`),
      Buffer.from(canary, 'utf16le').toString('latin1'),
    ]) {
      assert.notDeepEqual(canaries.in(`before ${told} after`), [], told);
    }
    assert.deepEqual(canaries.in(`before ${createCanary()} after`), []);
  });
});

// A search of the heap takes a minute beside eight busy processes.
describe('secrets, assertions and tokens', { timeout: 900_000 }, () => {
  let agent: CanaryAgent;
  let texts: ReadonlyMap<string, string>;

  before(async () => {
    ({ agent, texts } = await openPlanted());
  });
  after(() => agent[Symbol.asyncDispose]());

  const textOf = (name: string): string => {
    const text = texts.get(name);
    assert.ok(text !== undefined, name);
    return text;
  };

  /** A refusal that contains no canary. */
  async function assertRefusal(
    name: string,
    resource: string,
    what: string,
    connection?: 'new',
  ): Promise<void> {
    const { status, body } = await ask(agent, name, resource, connection);
    assert.ok([400, 429, 503].includes(status), `${what}: ${status}`);
    await learn(agent);
    assert.deepEqual(agent.canaries.in(body), [], what);
  }

  it('do not leak when the API server issues no token', async () => {
    const { faults } = agent.kube;
    for (const [name, account] of [
      ['pod', 'robot'],
      ['node', 'nmi'],
    ] as const) {
      for (const status of [400, 401, 403, 404, 409, 422, 429, 500]) {
        faults.failNext(2, status, { containing: `/serviceaccounts/${account}/token` });
        await assertRefusal(name, `${vault}/${name}/${status}`, `${name}, ${status}`);
        faults.clear();
      }
    }
    await assertUntold(agent);
  });

  it('do not leak in normal operation', async () => {
    for (const name of ['assigned', 'wide', ...Object.keys(working)]) {
      await serve(agent, name);
      await serve(agent, name);
    }
    const { host } = new URL(agent.entra.authority);
    assert.deepEqual([...agent.proxy.asked], [host], 'only Entra ID through the proxy');
    const printed = await assertUntold(agent);
    assert.match(printed, /"component":"audit".*"outcome":"granted".*"msg":"token request"/);
  });

  it('do not leak when Entra ID refuses them', async () => {
    for (const name of ['wrong', 'expired', 'untrusted']) {
      await assertRefusal(name, vault, name);
      await assertRefusal(name, vault, `${name}, from memory`);
    }
    await assertUntold(agent);
  });

  it('do not leak when the API server refuses an exchange', async () => {
    const { identityBindings } = agent;
    for (const status of [200, 400, 401, 403, 404, 500]) {
      const body = JSON.stringify({ kind: 'Status', message: 'no' });
      identityBindings.fault = { status, type: 'application/json', body };
      await assertRefusal('bound', `${vault}/bound/${status}`, `bound, ${status}`);
    }
    identityBindings.fault = undefined;
    await assertUntold(agent);
  });

  it('do not leak when a Secret is unusable', async () => {
    const { faults } = agent.kube;
    faults.failNext(9, 403, { containing: '/secrets/forbidden' });
    faults.failNext(9, 500, { containing: '/secrets/unread' });
    for (const name of [
      ...['crowded', 'misshapen', 'locked', 'broken', 'worded', 'sealed'],
      ...['missing', 'forbidden', 'unread'],
    ]) {
      await assertRefusal(name, vault, name);
    }
    faults.clear();
    await assertUntold(agent);
  });

  it('do not leak when Entra ID fails', async () => {
    const troubles: Readonly<Record<string, EntraFaults>> = {
      '401': { fail: { status: 401 } },
      '429': { fail: { status: 429, retryAfterSec: 1 } },
      '500': { fail: { status: 500 } },
      '503': { fail: { status: 503 } },
      'a reset': { reset: true },
      'a timeout': { hang: true },
    };
    for (const [trouble, faults] of Object.entries(troubles)) {
      agent.entra.setFaults(faults);
      const names = ['secret', 'pfx', 'pod', 'node', 'agent'];
      const refuse = (name: string, connection?: 'new') =>
        assertRefusal(name, `${vault}/${trouble}`, `${name}, ${trouble}`, connection);
      if (faults.hang === true) await Promise.all(names.map((name) => refuse(name, 'new')));
      else for (const name of names) await refuse(name);
    }
    agent.entra.setFaults({});
    for (const status of [407, 502]) {
      agent.proxy.refuseWith = status;
      agent.proxy.cut();
      await assertRefusal('secret', `${vault}/proxy/${status}`, `a proxy with ${status}`);
    }
    agent.proxy.refuseWith = undefined;
    for (const fail of [{ status: 500 }, { status: 429, retryAfterSec: 1 }]) {
      await agent.imds.setFaults({ fail, paths: 'token' });
      await assertRefusal('assigned', `${vault}/${fail.status}`, `IMDS with ${fail.status}`);
    }
    await agent.imds.setFaults({});
    await assertUntold(agent);
  });

  it('do not leak when a server sends them back', async () => {
    agent.entra.setFaults({});
    const sentOf = async (name: string): Promise<string> => {
      await serve(agent, name, `${vault}/before`);
      const forms = await agent.sent();
      const last = forms.findLast((form) => form.get('client_id') === clientIdOf(name));
      return last?.get('client_assertion') ?? '';
    };
    const [token = ''] = agent.entra.issuedTokens();
    const expired = createExpiredToken(token);
    agent.canaries.addToken('expired token', expired);
    for (const [name, told] of [
      ['secret', textOf('secret of secret')],
      ['pod', await sentOf('pod')],
      ['agent', await sentOf('agent')],
    ] as const) {
      assert.ok(told !== '');
      const half = told.length / 2;
      const broken = `${told.slice(0, half)}\r\n${told.slice(half)}`;
      const trace = { trace_id: told, correlation_id: told, timestamp: told };
      const client = (error_description: string) => ({
        error: 'invalid_client',
        error_description,
      });
      const bodies = {
        'in the description': client(`AADSTS1: ${told} is bad`),
        'as all of it': client(told),
        'in two lines': client(broken),
        'as the error': { error: told, error_description: 'AADSTS1: bad' },
        'in a trace': { error: 'invalid_client', ...trace },
        'with a token': { ...client('AADSTS1'), access_token: token },
        'for a token': { access_token: told },
        'with an expired token': { access_token: expired, token_type: 'Bearer' },
      };
      for (const [how, body] of Object.entries(bodies)) {
        for (const status of [200, 400, 401, 500]) {
          // A valid token is accepted from any sender.
          if (status === 200 && /^(?:for|with) a token/.test(how)) continue;
          const text = JSON.stringify(body);
          agent.entra.setFaults({ fail: { status, body: { type: 'application/json', text } } });
          const resource = `${vault}/${how.replaceAll(' ', '-')}/${status}`;
          await assertRefusal(name, resource, `${name}, ${how}`);
        }
      }
      for (const text of [told, `<html>${told}</html>`, `{"error_description":"${told}`]) {
        agent.entra.setFaults({ fail: { status: 502, body: { type: 'text/html', text } } });
        await assertRefusal(name, `${vault}/text/${text.length}`, `${name}, no JSON`);
      }
      agent.entra.setFaults({});
    }
    await assertUntold(agent);
  });

  it('are not logged when a caller uses one as a resource, or as its User-Agent', async () => {
    const token = createExpiredToken(agent.entra.issuedTokens()[0] ?? '');
    agent.canaries.addToken('resource of a caller', token);
    assert.equal((await ask(agent, 'secret', `${token} and more`)).status, 400);
    const secret = textOf('secret of secret');
    for (const userAgent of [secret, `azsdk-js-identity/4.2.1${secret} azsdk-js-${secret}/1`]) {
      await ask(agent, 'wide', vault, 'own', ['User-Agent', userAgent]);
    }
    await assertUntold(agent);
  });

  it('are not in the Events of the refusals so far, on the pod and on its identities', async () => {
    await eventually(() => {
      const kinds = agent.kube.store
        .list(resourceOf('Event'))
        .map(({ regarding }) => (regarding as { readonly kind: string }).kind);
      assert.ok(kinds.filter((kind) => kind === 'Pod').length >= 5, kinds.join(' '));
      assert.ok(kinds.includes('AzureIdentity'));
    });
    await assertUntold(agent);
  });

  it('are not in a condition, of usable identities and of others', async () => {
    const { store } = agent.kube;
    const ready = () =>
      store
        .list(resourceOf('AzureIdentity'))
        // Its Secret cannot be read, so there is no judgment.
        .filter(({ metadata }) => metadata.name !== 'misshapen')
        .map(({ status }) => readyIn(status));
    agent.kube.apply(
      createAzureIdentity({ name: 'odd', clientId: clientIdOf('wide'), type: 1, tenantId: 'x y' }),
    );
    await using client = await clientOf(agent.kube);
    const flags = {
      'entra-authority': agent.entra.authority,
      'max-watch-events-per-sec': '1000000',
    };
    const parsed = parseConfig({ node: 'unnamed', ...flags }, {});
    assert.ok(parsed.ok);
    const lines: string[] = [];
    await using _ = openConditions({
      client,
      config: parsed.config,
      clock: systemClock,
      random: Math.random,
      log: createLogger({ format: 'json', level: 'trace', write: (line) => lines.push(line) }),
    });
    await eventually(() => {
      assert.ok(!ready().includes(' '), 'some have no condition yet');
    }, 120_000);
    assert.ok(ready().includes('True ok') && ready().includes('False identity_invalid'));
    await assertUntold(agent);
    assert.deepEqual(agent.canaries.in(lines.join('')), [], 'in the log');
  });

  it('are in memory while they are needed, and old ones are not', async () => {
    agent.entra.setFaults({});
    const secret = createCanary();
    agent.canaries.addText('new secret of rotated', secret);
    putSecret(agent.kube, 'rotated', secret);
    agent.entra.register(createEntraApplication('rotated', { secrets: [{ value: secret }] }));
    agent.kube.delete({ kind: 'AzureIdentityBinding', name: 'unbound' });
    await agent.pass(61_000);
    const bound = Object.keys(working).filter((name) => name !== 'unbound');
    const served = ['assigned', 'wide', ...bound];
    for (const name of served) await serve(agent, name, `${vault}/live`);
    await assertUntold(agent);

    const found = await agent.findInHeap();
    assert.deepEqual(
      namesOf(found, 'token of '),
      [...served, 'wide-elsewhere', 'blueprint', 'a'].map((name) => `token of ${name}`).sort(),
    );
    for (const name of ['secret of secret', 'new secret of rotated', 'secret of wide']) {
      assert.ok(found.has(name), `${name} is kept for a minute`);
    }
    for (const name of ['pfx', 'pem']) {
      assert.notDeepEqual(namesOf(found, `key of ${name}`), [], `its key is kept for a minute`);
    }
    for (const name of ['pod', 'bound', 'node', 'chain', 'agent']) {
      assert.ok(found.has(`assertion of ${name}`), name);
    }
    for (const name of ['rotated', 'unbound', 'missing', 'wrong', 'expired']) {
      assert.equal(found.get(`secret of ${name}`), undefined, name);
    }
    for (const name of ['pfx', 'pem']) {
      assert.equal(found.get(`assertion of ${name}`), undefined, name);
    }
    assert.deepEqual(
      [...found].filter(([name]) => /^(?:other )?password of/.test(name)),
      [],
    );
  });

  it('are removed from memory as soon as no identity needs them, and others are kept', async () => {
    const { kube } = agent;
    kube.delete({ kind: 'AzureIdentityBinding', name: 'secret' });
    // The credential of both is a token of the pod's service account.
    for (const name of ['pfx', 'node', 'pod', 'bound', 'untrusted', 'chain', 'agent']) {
      kube.delete({ kind: 'AzureIdentity', name });
    }
    const gone = ['secret', 'pfx', 'node', 'pod', 'bound', 'chain', 'agent'];
    for (const name of gone) {
      await eventually(async () => {
        assert.equal((await ask(agent, name)).status, 400, name);
      });
    }
    // Credentials are kept for a minute, and the searches before may have taken longer.
    for (const name of ['rotated', 'wide', 'pem']) await serve(agent, name, `${vault}/kept`);
    const found = await agent.findInHeap();
    for (const name of [...gone, 'blueprint', 'a']) {
      const left = [...found.keys()].filter((each) => each.split(',')[0]?.endsWith(` of ${name}`));
      assert.deepEqual(left, [], name);
    }
    for (const name of ['new secret of rotated', 'secret of wide', 'token of rotated']) {
      assert.ok(found.has(name), `${name} is still needed`);
    }
    assert.notDeepEqual(namesOf(found, 'key of pem'), []);
  });

  it('are removed from memory when their source is deleted', async () => {
    const { kube } = agent;
    for (const kind of ['Secret', 'AzureIdentity', 'AzureIdentityBinding']) {
      for (const { metadata } of kube.store.list(resourceOf(kind))) {
        kube.delete({ kind, name: metadata.name });
      }
    }
    kube.delete({ kind: 'Pod', name: 'p' });
    await eventually(async () => {
      assert.match((await agent.page('metrics')).text, /^nmi_token_cache_entries 0$/m);
    });
    // At once: no time has passed by the agent's clock.
    const found = await agent.findInHeap();
    assert.deepEqual(
      [...found].filter(([name]) => !isOfProxy(name)),
      [],
    );
    // The proxy password is in the configuration of the process; finding it shows that the search
    // works.
    assert.ok([...found.keys()].some(isOfProxy));
    await assertUntold(agent);
  });

  it('are removed from its buffers too', async () => {
    // A buffer is freed by garbage collection, which takes traffic, and up to nine collections (November 2026):
    // each search is one.
    const [searches, changesEach] = [20, 10];
    let left: readonly string[] = [];
    for (let change = 1; change <= searches * changesEach; change += 1) {
      const annotations = { long: String(change).padEnd(60_000, 'x') };
      const long = createAzureIdentity({ name: 'long', clientId: clientIdOf('long') });
      agent.kube.apply({ ...long, metadata: { ...long.metadata, annotations } });
      await eventually(async () => {
        const { text } = await agent.page('metrics');
        assert.match(text, /^nmi_index_objects\{kind="identities"\} 1$/m);
      });
      if (change % changesEach !== 0) continue;
      left = (await agent.findInBuffers()).filter((name) => !isOfProxy(name));
      if (left.length === 0) break;
    }
    assert.deepEqual(left, []);
  });
});

/** With other claims, which no recipient verifies. */
function createExpiredToken(token: string): string {
  const [header = '', , signature = ''] = token.split('.');
  const claims = { ...decodeLabToken(token), exp: 1_700_000_000, uti: createCanary() };
  const payload = Buffer.from(JSON.stringify(claims)).toString('base64url');
  return `${header}.${payload}.${reverse(signature)}`;
}

function isOfProxy(name: string): boolean {
  return name.startsWith(proxyPassword);
}

function resourceOf(kind: string) {
  const resource = fakeResources.find((each) => each.kind === kind);
  assert.ok(resource !== undefined);
  return resource;
}

describe('a crash', { timeout: 300_000 }, () => {
  for (const how of ['exception', 'rejection'] as const) {
    it(`does not print them: ${how}`, async () => {
      const { agent } = await openPlanted();
      await using _ = agent;
      for (const name of ['assigned', 'secret', 'pfx', 'pod', 'agent']) await serve(agent, name);
      await agent.armCrash(how);
      await assert.rejects(ask(agent, 'secret', `${vault}/crash`));
      assert.equal(await agent.exited, 70);
      await learn(agent);
      const printed = agent.takePrinted();
      assert.match(printed, how === 'exception' ? /nmi: bug: Error: on purpose/ : /nmi: bug: /);
      assert.deepEqual(agent.canaries.in(printed), []);
    });
  }
});
