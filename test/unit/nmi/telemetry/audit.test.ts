import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setImmediate as nextTurn, setTimeout as delay } from 'node:timers/promises';
import { createLogger } from '../../../../src/base/logger.ts';
import { StartError } from '../../../../src/base/start-error.ts';
import { systemClock } from '../../../../src/base/time/clock.ts';
import type { PodGrants } from '../../../../src/cache/index/grant-index.ts';
import { refuse } from '../../../../src/nmi/base/answers.ts';
import type { Grant } from '../../../../src/nmi/grants/grant.ts';
import { ResourceUses } from '../../../../src/nmi/grants/resource-uses.ts';
import type { RequestRecord } from '../../../../src/nmi/server/request-record.ts';
import type { UpstreamIdentity } from '../../../../src/nmi/sources/upstream-identity.ts';
import { AuditRecords } from '../../../../src/nmi/telemetry/audit/audit.ts';
import { openAudit } from '../../../../src/nmi/telemetry/audit/open-audit.ts';
import { openRecordFile } from '../../../../src/nmi/telemetry/audit/record-file.ts';
import {
  detailFields,
  identityFields,
  outcomeOf,
  renderRecord,
  versionsOf,
  whoseFields,
} from '../../../../src/nmi/telemetry/audit/record.ts';
import {
  createBinding,
  createException,
  createIdentity,
  createIdentityGrant,
  createPod,
} from '../../../support/cache-objects.ts';
import { HandClock } from '../../../support/hand-clock.ts';
import {
  createDecision,
  createGrant,
  createHit,
  createRecord,
  createRefusal,
  hostTokenRoute,
  podIp,
  routeTo,
} from '../../../support/request-records.ts';

function open() {
  const clock = new HandClock();
  const lines: string[] = [];
  const audit = new AuditRecords({
    clock,
    clusterState: {
      grants: { grantsOf: () => ({ kind: 'no-label' }) },
      owners: { deciding: () => undefined },
    },
    uses: new ResourceUses(clock),
    write: (line) => lines.push(line),
  });
  const take = (): readonly Record<string, unknown>[] =>
    lines.splice(0).map((line) => JSON.parse(line) as Record<string, unknown>);
  return { clock, audit, take };
}

describe('the audit', () => {
  it('has one record of a decided request, with all details of the decision', () => {
    const { audit, take, clock } = open();
    audit.render(createRecord());
    const [record = {}, ...others] = take();
    assert.deepEqual(others, []);
    const { time, ...rest } = record;
    assert.equal(time, new Date(clock.wallMs()).toISOString());
    assert.deepEqual(rest, {
      level: 'info',
      component: 'audit',
      outcome: 'granted',
      status: 200,
      reason: 'ok',
      attestedBy: 'address',
      namespace: 'default',
      pod: 'p',
      uid: 'uid-p',
      serviceAccount: 'default',
      identity: 'default/i',
      identityType: 0,
      clientId: 'client-of-i',
      by: 'only',
      source: 'imds',
      versions: { 'Pod/p': '1', 'AzureIdentity/i': '1' },
      podIp,
      method: 'GET',
      resource: 'https://vault.azure.net',
      cache: 'miss',
      durationMs: 5,
      requestId: 'id',
      msg: 'token request',
    });
  });

  it('reports that the client has disconnected', () => {
    const { audit, take } = open();
    audit.render(createRecord({ isGone: true }));
    assert.equal(take()[0]?.['clientGone'], true);
  });

  it('has the same record of a hit', () => {
    const { audit, take } = open();
    const decision = createDecision({ cache: 'hit', fetchId: 'fetch' });
    const record = createRecord({ decision });
    audit.render(record);
    audit.hitsLike(record)(createHit(), 5.0004);
    const [parsed, hit] = take();
    assert.deepEqual(hit, parsed);
    assert.equal(hit?.['fetchId'], 'fetch');
  });

  it('has records of requests without a decision, with the pod of the connection', () => {
    const { audit, take } = open();
    const path = '/metadata/attested/document';
    const route = { kind: 'passthrough', area: 'attested', path, query: '' } as const;
    const refused = { kind: 'refused', reason: 'path_invalid' } as const;
    const blocked = refuse('metadata_blocked', 'no');
    audit.render(createRefusal(blocked, { route, decision: undefined }));
    audit.render(createRecord({ route, decision: undefined }));
    audit.render(
      createRefusal(refuse('path_invalid', 'no'), { route: refused, decision: undefined }),
    );
    assert.deepEqual(
      take().map(({ msg, outcome, reason, pod, path: of }) => [msg, outcome, reason, pod, of]),
      [
        ['metadata request', 'denied', 'metadata_blocked', 'p', path],
        ['metadata request', 'granted', 'ok', 'p', path],
        ['request refused', 'denied', 'path_invalid', 'p', undefined],
      ],
    );
  });

  it('reports that only the host process named the pod', () => {
    const { audit, take } = open();
    const grant = createGrant({ pod: createPod({ name: 'other' }) });
    audit.render(createRecord({ route: hostTokenRoute, decision: createDecision({ grant }) }));
    const unnamed = { decision: undefined, pod: undefined, callerPod: undefined };
    const hostOnly = refuse('host_only', 'no');
    audit.render(createRefusal(hostOnly, { route: hostTokenRoute, ...unnamed }));
    assert.deepEqual(
      take().map(({ attestedBy, pod }) => [attestedBy, pod]),
      [
        ['host process', 'other'],
        ['host process', undefined],
      ],
    );
  });

  it('has 600 records of a kind and then their number once a minute, separately for each pod', () => {
    const { audit, take, clock } = open();
    const write = audit.hitsLike(createRecord({ decision: createDecision({ cache: 'hit' }) }));
    for (let count = 0; count < 10_000; count++) write(createHit(), 1);
    assert.equal(take().length, 600);
    const grant = createGrant({ pod: createPod({ name: 'other' }) });
    audit.render(createRecord({ decision: createDecision({ grant }) }));
    const nothing = { kind: 'refused', reason: 'not_found' } as const;
    audit.render(createRefusal(refuse('not_found', 'no'), { route: nothing, decision: undefined }));
    assert.equal(take().length, 2);
    clock.advance(60_000);
    const [{ msg, pod, identity, count, outcome } = {}, ...others] = take();
    assert.deepEqual(
      [msg, pod, identity, count, outcome],
      ['further token requests', 'p', 'default/i', 9_400, 'granted'],
    );
    assert.deepEqual(others, []);
  });

  it('has a record of the first token of each identity and resource, whatever came before', () => {
    const { audit, take, clock } = open();
    const ask = (resource: string, over: Partial<RequestRecord> = {}) =>
      audit.render(createRecord({ decision: createDecision({ resource }), ...over }));
    for (let count = 0; count < 620; count++) ask('https://vault.azure.net');
    assert.equal(take().length, 600);
    const grant = createGrant({ upstream: { kind: 'client_id', value: 'other' } });
    ask('https://storage.azure.com');
    audit.render(createRecord({ decision: createDecision({ grant }) }));
    for (const resource of ['https://storage.azure.com', 'HTTPS://Storage.azure.com/'])
      ask(resource);
    assert.deepEqual(
      take().map(({ msg, resource }) => [msg, resource]),
      [
        ['token request', 'https://storage.azure.com'],
        ['token request', 'https://vault.azure.net'],
      ],
    );
    const refused = refuse('upstream_refused', 'no');
    for (let count = 0; count < 700; count++) {
      audit.render(
        createRefusal(refused, { decision: createDecision({ resource: `api://${count}` }) }),
      );
    }
    assert.equal(take().length, 600, 'a refused resource is no use');
    clock.advance(60_000);
    const refusedResources = Array.from({ length: 16 }, (_, index) => `api://${600 + index}`);
    assert.deepEqual(
      take().map(({ msg, count, resources }) => [msg, count, resources]),
      [
        [
          'further token requests',
          22,
          ['https://vault.azure.net', 'https://storage.azure.com', 'HTTPS://Storage.azure.com/'],
        ],
        ['further token requests', 100, [...refusedResources, 'others']],
      ],
    );
  });

  it('has the first use on the fast path too, and within further kinds', () => {
    const { audit, take, clock } = open();
    for (let kind = 0; kind < 64; kind++) {
      const grant = createGrant({ identity: createIdentity({ name: `i-${kind}` }) });
      audit.render(createRecord({ decision: createDecision({ grant }) }));
    }
    const grant = createGrant({ identity: createIdentity({ name: 'last' }) });
    const decision = createDecision({ grant, cache: 'hit', resource: 'https://storage.azure.com' });
    const write = audit.hitsLike(createRecord({ decision }));
    take();
    for (let count = 0; count < 3; count++) write(createHit(), 1);
    assert.deepEqual(
      take().map(({ identity, resource }) => [identity, resource]),
      [['default/last', 'https://storage.azure.com']],
    );
    clock.advance(60_000);
    assert.deepEqual(
      take().map(({ msg, caller, resources }) => [msg, caller, resources]),
      [['further requests', 'pod uid-p', ['https://storage.azure.com']]],
    );
  });
});

const clientId = '0a1b2c3d-0000-4000-8000-000000000001';
const pod = createPod({ name: 'p', uid: 'u', resourceVersion: '11' });
const identity = createIdentity({ name: 'i', clientId, resourceVersion: '12' });
const granted: Grant = {
  kind: 'granted',
  pod,
  identity,
  by: 'only',
  upstream: { kind: 'client_id', value: clientId },
  auxiliary: [],
};

function refusedWith(facts: object): Grant {
  const base = { kind: 'refused', reason: 'selector_not_bound', isPending: false, pod };
  return { ...base, facts } as unknown as Grant;
}

function selectorNotBound(kind: string, value: string): Grant {
  const selector = { kind, value };
  return refusedWith({ about: 'choice', choice: { reason: 'selector_not_bound', selector } });
}

const identityGrant = createIdentityGrant({ name: 'g', resourceVersion: '16' });
const knowing = (ofPod: PodGrants | undefined, decides?: 'identity' | 'exception') => ({
  grants: { grantsOf: () => ofPod },
  owners: {
    deciding: (_namespace: string, upstream?: UpstreamIdentity) => {
      const isDecided = decides === (upstream === undefined ? 'exception' : 'identity');
      return isDecided ? identityGrant : undefined;
    },
  },
});

describe('an audit record', () => {
  it('is one line of ASCII, with bounded fields, and without empty ones', () => {
    const line = renderRecord(
      Date.UTC(2026, 0, 2),
      { pod: 'a"\n\u2028\x7f{}', empty: '', none: undefined, long: 'x'.repeat(300), count: 2 },
      'token request',
    );
    assert.match(line, /^[\x20-\x7e]+\n$/);
    assert.deepEqual(JSON.parse(line), {
      level: 'info',
      time: '2026-01-02T00:00:00.000Z',
      component: 'audit',
      pod: 'a"\n??{}',
      long: 'x'.repeat(256),
      count: 2,
      msg: 'token request',
    });
  });

  it('names the pod, its service account and how it was identified', () => {
    const of = (over: Partial<RequestRecord>) => {
      const fields = whoseFields(createRecord(over), knowing(undefined));
      return ['namespace', 'pod', 'serviceAccount', 'attestedBy'].map((name) => fields[name]);
    };
    assert.deepEqual(of({}), ['default', 'p', 'default', 'address']);
    const decision = createDecision({ grant: undefined });
    assert.deepEqual(
      of({ decision, pod: undefined, callerPod: undefined, identifiedBy: undefined }),
      [undefined, undefined, undefined, 'nothing'],
    );
    assert.equal(of({ route: hostTokenRoute })[3], 'host process');
    const uncertain = of({ pod: undefined, callerPod: pod });
    assert.equal(uncertain[1], 'p', 'the pod of the connection, even if it is not certain now');
  });

  it('has the path of a metadata request and the resource of a token request', () => {
    const route = routeTo('/metadata/instance');
    assert.deepEqual(detailFields(createRecord({ route, decision: undefined })), {
      path: '/metadata/instance',
      resource: undefined,
      cache: undefined,
    });
    const decision = createDecision({ resource: 'eyJhbGciOiJub25lIn0.e30.' });
    assert.deepEqual(detailFields(createRecord({ decision })), {
      path: undefined,
      resource: '[unusual]',
      cache: 'miss',
    });
    const none = createDecision({ resource: '', cache: 'none' });
    assert.equal(detailFields(createRecord({ decision: none }))['resource'], undefined);
    const long = routeTo(`/metadata/instance/${'e'.repeat(41)}`);
    assert.equal(detailFields(createRecord({ route: long }))['path'], '[unusual]');
  });

  it('distinguishes a decision of the agent from a failure', () => {
    const refused = selectorNotBound('client_id', clientId);
    assert.equal(outcomeOf(200, granted), 'granted');
    assert.equal(outcomeOf(400, refused), 'denied');
    assert.equal(outcomeOf(403, undefined), 'denied');
    assert.equal(outcomeOf(400, granted), 'failed');
    assert.equal(outcomeOf(503, refused), 'failed');
    assert.equal(outcomeOf(429, undefined), 'failed');
  });
});

describe('the identity in an audit record', () => {
  it('is that of the pod, with its client id in full', () => {
    assert.deepEqual(identityFields(granted), {
      identity: 'default/i',
      identityType: 0,
      clientId,
      by: 'only',
      source: 'imds',
    });
  });

  it('is the last one of a chain, with what came before', () => {
    const assertedBy = { kind: 'client_id', value: 'm' } as const;
    const upstream = {
      kind: 'entra',
      authority: 'https://e',
      tenantId: 't',
      clientId,
      credential: { kind: 'chained', assertedBy, audience: 'a' },
    } as const;
    const { chain, source } = identityFields({ ...granted, upstream });
    assert.deepEqual([chain, source], [['managed identity m'], 'chained']);
  });

  it('is that of the node for an excepted pod, with the id that the pod named', () => {
    const { requested, identity: name } = identityFields({
      ...granted,
      identity: undefined,
      by: 'exception e',
    });
    assert.deepEqual([name, requested], ['node', `client_id ${clientId}`]);
    const unnamed = { ...granted, identity: undefined, upstream: { kind: 'unnamed' } as const };
    assert.equal(identityFields(unnamed)['requested'], undefined);
  });

  it('is the refused one, if its id has the format of one', () => {
    const requestedOf = (grant: Grant) => identityFields(grant)['requested'];
    const resourceId =
      '/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i';
    assert.equal(requestedOf(selectorNotBound('client_id', clientId)), `client_id ${clientId}`);
    assert.equal(
      requestedOf(selectorNotBound('resource_id', resourceId)),
      `resource_id ${resourceId}`,
    );
    for (const odd of [
      'eyJhbGciOiJub25lIn0.e30.',
      `/subscriptions/${'x'.repeat(129)}`,
      '/subscriptions/s?x',
      `${clientId}x`,
    ]) {
      assert.equal(requestedOf(selectorNotBound('client_id', odd)), 'client_id [unusual]');
    }
    const byObjectId = (objectId: string) =>
      requestedOf({ kind: 'by-object-id', pod, candidates: [], objectId });
    assert.equal(byObjectId(clientId), `object_id ${clientId}`);
    assert.equal(byObjectId('eyjhbgcioijub25lin0.e30.'), 'object_id [unusual]');
    assert.deepEqual(identityFields(refusedWith({ about: 'resource', identity })), {
      identity: 'default/i',
    });
    assert.deepEqual(identityFields(undefined), {});
  });
});

describe('the versions in an audit record', () => {
  const binding = createBinding({ name: 'b', identityName: 'i', resourceVersion: '13' });
  const other = createBinding({ name: 'a', identityName: 'other', resourceVersion: '14' });
  const bound = { kind: 'bound', bindings: [other, binding] } as unknown as PodGrants;

  it('are those of the pod, its identity and the binding between them', () => {
    assert.deepEqual(versionsOf(pod, granted, knowing(bound)), {
      'Pod/p': '11',
      'AzureIdentity/i': '12',
      'AzureIdentityBinding/b': '13',
    });
  });

  it('are those of the pod and its exception', () => {
    const exception = createException({ name: 'e', resourceVersion: '15' });
    const excepted = { ...granted, identity: undefined };
    assert.deepEqual(versionsOf(pod, excepted, knowing({ kind: 'exception', exception })), {
      'Pod/p': '11',
      'AzurePodIdentityException/e': '15',
    });
  });

  it('include the grant of the cluster when grants decide', () => {
    const of = (grant: Grant, clusterState: ReturnType<typeof knowing>) =>
      versionsOf(pod, grant, clusterState)['AzureIdentityGrant/g'];
    assert.equal(of(granted, knowing(bound, 'identity')), '16');
    const exception = createException({ name: 'e' });
    const excepted = { ...granted, identity: undefined };
    assert.equal(of(excepted, knowing({ kind: 'exception', exception }, 'exception')), '16');
  });

  it('are those behind a refusal, as far as there are any', () => {
    const refused = refusedWith({ about: 'resource', identity });
    assert.deepEqual(Object.keys(versionsOf(pod, refused, knowing(bound, 'identity'))), [
      'Pod/p',
      'AzureIdentity/i',
      'AzureIdentityBinding/b',
    ]);
    const unlabelled = knowing({ kind: 'no-label' });
    assert.deepEqual(versionsOf(pod, undefined, unlabelled), { 'Pod/p': '11' });
    assert.deepEqual(versionsOf(undefined, undefined, unlabelled), {});
  });
});

const clusterState = {
  grants: { grantsOf: () => undefined },
  owners: { deciding: () => undefined },
};

async function openFrom(auditLog: string) {
  const printed: string[] = [];
  const log = createLogger({ format: 'text', level: 'error', write: () => undefined });
  let isRead = true;
  const stdout = (line: string): boolean => {
    if (isRead) printed.push(line);
    return isRead;
  };
  const audit = await openAudit({ config: { auditLog }, stdout, clock: systemClock, log });
  const renderer = audit?.renderer(clusterState, new ResourceUses(systemClock));
  const handle = (): void => renderer?.render(createRecord());
  const counts = () => audit?.samples().map(({ labels, value }) => [labels?.['outcome'], value]);
  const stopReading = (): void => {
    isRead = false;
  };
  return { audit, handle, counts, printed, stopReading };
}

describe('the audit stream', () => {
  it('is off by default, and then no code runs for it', async () => {
    const { audit } = await openFrom('');
    assert.equal(audit, undefined);
  });

  it('is written to standard output as JSON, whatever the log format, and is counted', async () => {
    const { handle, counts, printed, stopReading } = await openFrom('stdout');
    handle();
    assert.equal((JSON.parse(printed[0] ?? '') as { msg: string }).msg, 'token request');
    assert.deepEqual(counts(), [
      ['written', 1],
      ['dropped', 0],
    ]);
    stopReading();
    handle();
    assert.deepEqual(counts()?.[1], ['dropped', 1]);
  });

  it('is written to a file, which is complete when the agent ends', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'nmi-audit-'));
    const path = join(folder, 'audit.log');
    const { audit, handle, counts, printed } = await openFrom(path);
    handle();
    handle();
    await audit?.[Symbol.asyncDispose]();
    assert.equal((await readFile(path, 'utf8')).trimEnd().split('\n').length, 2);
    assert.deepEqual(counts()?.[0], ['written', 2]);
    assert.deepEqual(printed, []);
    await rm(folder, { recursive: true });
  });
});

async function openFile() {
  await using opening = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), 'nmi-audit-'));
  opening.defer(() => rm(folder, { recursive: true, force: true }));
  const path = join(folder, 'audit.log');
  const clock = new HandClock();
  const dropped: string[] = [];
  let written = 0;
  const file = opening.use(
    await openRecordFile({
      path,
      clock,
      onDropped: (count, code) => dropped.push(`${count} ${code}`),
      onWritten: (count) => (written += count),
    }),
  );
  const owned = opening.move();
  async function until(condition: () => boolean): Promise<void> {
    for (let tries = 0; !condition(); tries++) {
      assert.ok(tries < 500, 'nothing was written in 5 s');
      await delay(10);
    }
  }
  return {
    folder,
    path,
    clock,
    file,
    dropped,
    /** Writes lines, and waits until each was written or dropped. */
    write: async (...lines: readonly string[]) => {
      const target = written + dropped.length + 1;
      for (const line of lines) file.write(line);
      await until(() => written + dropped.length >= target);
    },
    written: () => written,
    until,
    /** Lets the check of the file run that is due each second. */
    check: async () => {
      clock.advance(1_000);
      await until(() => clock.armed.includes(1_000));
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

async function refusalOf(path: string): Promise<StartError> {
  const nothing = (): void => undefined;
  const opening = openRecordFile({
    path,
    clock: new HandClock(),
    onDropped: nothing,
    onWritten: nothing,
  });
  const error: unknown = await opening.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof StartError, String(error));
  return error;
}

describe('the file of audit records', () => {
  it('gets all lines in order, after its previous content, readable only by its owner', async () => {
    await using opened = await openFile();
    const lines = Array.from({ length: 1_000 }, (_, index) => `line ${index}\n`);
    for (const line of lines.slice(0, 500)) opened.file.write(line);
    await opened.until(() => opened.written() > 0);
    for (const line of lines.slice(500)) opened.file.write(line);
    await opened.until(() => opened.written() === 1_000);
    assert.equal(await readFile(opened.path, 'utf8'), lines.join(''));
    assert.equal((await stat(opened.path)).mode & 0o777, 0o600);
    assert.deepEqual(opened.dropped, []);
  });

  it('contains everything that was written before it is closed', async () => {
    const opened = await openFile();
    const copy = join(tmpdir(), `nmi-audit-${process.pid}.copy`);
    for (let index = 0; index < 100; index++) opened.file.write(`${index}\n`);
    await opened.file[Symbol.asyncDispose]();
    assert.equal(opened.written(), 100);
    await rename(opened.path, copy);
    assert.equal((await readFile(copy, 'utf8')).split('\n').length, 101);
    await rm(copy);
    await opened[Symbol.asyncDispose]();
  });

  it('is reopened within a second after it was renamed or deleted', async () => {
    await using opened = await openFile();
    const { path, check, write } = opened;
    await write('first\n');
    await rename(path, `${path}.1`);
    await write('before the second is over\n');
    await check();
    await write('second\n');
    assert.equal(await readFile(`${path}.1`, 'utf8'), 'first\nbefore the second is over\n');
    assert.equal(await readFile(path, 'utf8'), 'second\n');
    await rm(path);
    await check();
    await write('third\n');
    assert.equal(await readFile(path, 'utf8'), 'third\n');
    // The state after logrotate's copytruncate.
    await writeFile(path, '');
    await write('fourth\n');
    assert.equal(await readFile(path, 'utf8'), 'fourth\n');
  });

  it('counts lost lines while it cannot be reopened, and continues when it can', async () => {
    await using opened = await openFile();
    const { path, folder, check, write, dropped } = opened;
    await rename(folder, `${folder}.away`);
    await check();
    await write('lost\n');
    assert.deepEqual(dropped, ['1 ENOENT']);
    await mkdir(folder);
    await write('lost before the next look\n');
    await check();
    await write('kept\n');
    assert.equal(await readFile(path, 'utf8'), 'kept\n');
    assert.deepEqual(dropped, ['1 ENOENT', '1 ENOENT']);
    await rm(`${folder}.away`, { recursive: true });
  });

  it('keeps a megabyte of waiting lines at most', async () => {
    await using opened = await openFile();
    const line = `${'x'.repeat(1_023)}\n`;
    for (let count = 0; count < 1_030; count++) opened.file.write(line);
    assert.deepEqual(
      opened.dropped,
      Array.from({ length: 6 }, () => '1 QUEUE_FULL'),
    );
    await opened.until(() => opened.written() === 1_024);
    await opened.write(line);
    assert.equal(opened.written(), 1_025);
  });

  it('counts the lines of a write that has not ended as waiting', async () => {
    await using opened = await openFile();
    opened.file.write(`${'x'.repeat(1024 * 1024 - 1)}\n`);
    // The write begins in this turn. Its end is not seen before the next one.
    await nextTurn();
    opened.file.write('y\n');
    assert.deepEqual(opened.dropped, ['1 QUEUE_FULL']);
    await opened.until(() => opened.written() === 1);
  });

  it('is a regular file: no folder, no link, no device, no pipe', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'nmi-audit-'));
    const link = join(folder, 'link');
    const pipe = join(folder, 'pipe');
    await symlink(join(folder, 'elsewhere'), link);
    assert.equal(spawnSync('mkfifo', [pipe]).status, 0);
    for (const [path, code] of [
      [folder, 'EISDIR'],
      [link, 'ELOOP'],
      ['/dev/null', 'NO_REGULAR_FILE'],
      [pipe, 'ENXIO'],
      [join(folder, 'none', 'audit.log'), 'ENOENT'],
    ] as const) {
      const { code: kind, message } = await refusalOf(path);
      assert.equal(kind, 'CONFIG');
      assert.ok(message.includes(path) && message.includes(code), message);
      assert.match(message, /--audit-log takes a file on a volume/);
    }
    await rm(folder, { recursive: true });
  });

  const program = join(import.meta.dirname, 'full-disk.ts');
  const script = 'mount -t tmpfs -o size=16k tmpfs "$1" && exec "$2" "$3" "$1"';
  const canMount = spawnSync('unshare', ['-rm', 'true']).status === 0;

  it(
    'keeps lines while the disk is full, reports it, and continues',
    { skip: !canMount && 'this user cannot mount' },
    async () => {
      const folder = await mkdtemp(join(tmpdir(), 'nmi-audit-'));
      const args = ['-rm', 'sh', '-c', script, 'sh', folder, process.execPath, program];
      const { stdout, stderr } = spawnSync('unshare', args, { encoding: 'utf8', timeout: 30_000 });
      await rm(folder, { recursive: true });
      assert.equal(stderr, '');
      const { sent, written, dropped, codes, whole, broken } = JSON.parse(stdout) as {
        readonly [name: string]: unknown;
      };
      assert.deepEqual(codes, ['ENOSPC']);
      assert.deepEqual([written, dropped, whole, broken], [sent, 0, sent, 0]);
    },
  );
});
