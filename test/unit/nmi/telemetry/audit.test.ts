import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
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
import { renderRecord } from '../../../../src/nmi/telemetry/audit/record.ts';
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

type State = ConstructorParameters<typeof AuditRecords>[0]['clusterState'];

const clientId = '0a1b2c3d-0000-4000-8000-000000000001';
const identity = createIdentity({ name: 'i', clientId, resourceVersion: '12' });
const ofIdentity = createGrant({ identity, upstream: { kind: 'client_id', value: clientId } });
const ofNode = { ...ofIdentity, identity: undefined };

function refusedFor(facts: object): Grant {
  const base = { kind: 'refused', reason: 'selector_not_bound', isPending: false };
  return { ...base, pod: createGrant().pod, facts } as unknown as Grant;
}

function notBound(kind: string, value: string): Grant {
  const selector = { kind, value };
  return refusedFor({ about: 'choice', choice: { reason: 'selector_not_bound', selector } });
}

/** What grants and owners report of every pod. */
function knowing(ofPod: object = { kind: 'no-label' }, decides?: 'identity' | 'exception'): State {
  const grant = createIdentityGrant({ name: 'g', resourceVersion: '16' });
  return {
    grants: { grantsOf: () => ofPod as PodGrants },
    owners: {
      deciding: (_namespace: string, upstream?: UpstreamIdentity) =>
        decides === (upstream === undefined ? 'exception' : 'identity') ? grant : undefined,
    },
  };
}

function open(clusterState = knowing()) {
  const clock = new HandClock();
  const lines: string[] = [];
  const uses = new ResourceUses(clock);
  const write = (line: string) => lines.push(line);
  const audit = new AuditRecords({ clock, clusterState, uses, write });
  const take = (): readonly Record<string, unknown>[] =>
    lines.splice(0).map((line) => JSON.parse(line) as Record<string, unknown>);
  return { clock, audit, take };
}

/** The record of a request. */
function audited(over: Partial<RequestRecord>, clusterState?: State): Record<string, unknown> {
  const { audit, take } = open(clusterState);
  audit.render(createRecord(over));
  return take()[0] ?? {};
}

const ofGrant = (grant: Grant | undefined) => ({ decision: createDecision({ grant }) });

describe('the audit', () => {
  it('has one record of a decided request, with all details, and the same one of a hit', () => {
    const { audit, take, clock } = open();
    const decision = createDecision({ cache: 'hit', fetchId: 'fetch' });
    const request = createRecord({ decision });
    audit.render(request);
    audit.hitsLike(request)(createHit(), 5.0004);
    const [record = {}, hit, ...others] = take();
    assert.deepEqual([hit, others], [record, []]);
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
      cache: 'hit',
      durationMs: 5,
      requestId: 'id',
      fetchId: 'fetch',
      msg: 'token request',
    });
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
    const [{ msg, pod, identity: of, count, outcome } = {}, ...others] = take();
    assert.deepEqual(
      [msg, pod, of, count, outcome, others],
      ['further token requests', 'p', 'default/i', 9_400, 'granted', []],
    );
  });

  it('has a record of the first token of each identity and resource, whatever came before', () => {
    const { audit, take, clock } = open();
    const ask = (resource: string, over: Partial<RequestRecord> = {}) =>
      audit.render(createRecord({ decision: createDecision({ resource }), ...over }));
    for (let count = 0; count < 620; count++) ask('https://vault.azure.net');
    assert.equal(take().length, 600);
    const grant = createGrant({ upstream: { kind: 'client_id', value: 'other' } });
    ask('https://storage.azure.com');
    audit.render(createRecord(ofGrant(grant)));
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
      const decision = createDecision({ resource: `api://${count}` });
      audit.render(createRefusal(refused, { decision }));
    }
    assert.equal(take().length, 600, 'a refused resource is no use');
    clock.advance(60_000);
    const resources = ['vault.azure.net', 'storage.azure.com'].map((host) => `https://${host}`);
    const refusedResources = Array.from({ length: 16 }, (_, index) => `api://${600 + index}`);
    assert.deepEqual(
      take().map(({ msg, count, resources: of }) => [msg, count, of]),
      [
        ['further token requests', 22, [...resources, 'HTTPS://Storage.azure.com/']],
        ['further token requests', 100, [...refusedResources, 'others']],
      ],
    );
  });

  it('has the first use on the fast path too, and within further kinds', () => {
    const { audit, take, clock } = open();
    const named = (name: string) => createGrant({ identity: createIdentity({ name }) });
    for (let kind = 0; kind < 64; kind++) audit.render(createRecord(ofGrant(named(`i-${kind}`))));
    const resource = 'https://storage.azure.com';
    const decision = createDecision({ grant: named('last'), cache: 'hit', resource });
    const write = audit.hitsLike(createRecord({ decision }));
    take();
    for (let count = 0; count < 3; count++) write(createHit(), 1);
    const [hit = {}, ...others] = take();
    assert.deepEqual([hit['identity'], hit['resource'], others], ['default/last', resource, []]);
    clock.advance(60_000);
    assert.deepEqual(
      take().map(({ msg, caller, resources }) => [msg, caller, resources]),
      [['further requests', 'pod uid-p', [resource]]],
    );
  });
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

  const path = '/metadata/attested/document';
  const none = { decision: undefined, pod: undefined, callerPod: undefined };
  const unknown = { ...none, identifiedBy: undefined };
  const metadata = { route: routeTo(path), decision: undefined };
  const unrouted = { kind: 'refused', reason: 'path_invalid' } as const;
  const other = createGrant({ pod: createPod({ name: 'other' }) });
  const rows: readonly (readonly [string, Partial<RequestRecord>, Record<string, unknown>])[] = [
    ['of a client that has disconnected', { isGone: true }, { clientGone: true }],
    ['of one that has not', {}, { clientGone: undefined }],
    ['of a metadata request', metadata, { msg: 'metadata request', pod: 'p', path }],
    [
      'of a refused one',
      { ...metadata, ...refuse('metadata_blocked', 'no') },
      { outcome: 'denied', path, resource: undefined },
    ],
    [
      'of another path',
      { ...metadata, status: 400, route: unrouted },
      { msg: 'request refused', outcome: 'denied', path: undefined },
    ],
    [
      'of a long path',
      { ...metadata, route: routeTo(`/metadata/instance/${'e'.repeat(41)}`) },
      { path: '[unusual]' },
    ],
    [
      'of a pod that only the host process named',
      { route: hostTokenRoute, pod: other.pod, ...ofGrant(other) },
      { attestedBy: 'host process', pod: 'other' },
    ],
    ['of a host process', { ...none, route: hostTokenRoute }, { attestedBy: 'host process' }],
    ['of nobody', unknown, { attestedBy: 'nothing', pod: undefined }],
    ['of a pod that is not certain now', { pod: undefined }, { pod: 'p' }],
    ['of a granted token that failed', { status: 400 }, { outcome: 'failed' }],
    [
      'of a refusal',
      { status: 400, ...ofGrant(notBound('client_id', 'x')) },
      { outcome: 'denied' },
    ],
    [
      'of a refusal for now',
      { status: 503, ...ofGrant(notBound('client_id', 'x')) },
      { outcome: 'failed' },
    ],
    ['of too many', { ...none, status: 429 }, { outcome: 'failed' }],
    [
      'of an odd resource',
      { decision: createDecision({ resource: 'eyJhbGciOiJub25lIn0.e30.' }) },
      { resource: '[unusual]' },
    ],
    [
      'without a resource',
      { decision: createDecision({ resource: '', cache: 'none' }) },
      { resource: undefined },
    ],
  ];
  for (const [what, over, expected] of rows) {
    it(`${what} has what applies`, () => {
      const record = audited(over);
      const found = Object.fromEntries(Object.keys(expected).map((name) => [name, record[name]]));
      assert.deepEqual(found, expected);
    });
  }

  it('of a chain has the last identity, with what came before', () => {
    const assertedBy = { kind: 'client_id', value: 'm' } as const;
    const credential = { kind: 'chained', assertedBy, audience: 'a' } as const;
    const authority = 'https://e';
    const upstream = { kind: 'entra', authority, tenantId: 't', clientId, credential } as const;
    const { chain, source } = audited(ofGrant({ ...ofIdentity, upstream }));
    assert.deepEqual([chain, source], [['managed identity m'], 'chained']);
  });

  it('has the node for an excepted pod, and the id that was requested, if it looks like one', () => {
    const arm =
      '/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssigned';
    const byObjectId = (objectId: string): Grant => {
      return { kind: 'by-object-id', pod: ofIdentity.pod, candidates: [], objectId };
    };
    for (const [grant, name, requested] of [
      [{ ...ofNode, by: 'exception e' }, 'node', `client_id ${clientId}`],
      [{ ...ofNode, upstream: { kind: 'unnamed' } }, 'node', undefined],
      [notBound('client_id', clientId), undefined, `client_id ${clientId}`],
      [notBound('resource_id', arm), undefined, `resource_id ${arm}`],
      [notBound('client_id', 'eyJhbGciOiJub25lIn0.e30.'), undefined, 'client_id [unusual]'],
      [
        notBound('client_id', `/subscriptions/${'x'.repeat(129)}`),
        undefined,
        'client_id [unusual]',
      ],
      [notBound('client_id', '/subscriptions/s?x'), undefined, 'client_id [unusual]'],
      [notBound('client_id', `${clientId}x`), undefined, 'client_id [unusual]'],
      [byObjectId(clientId), undefined, `object_id ${clientId}`],
      [byObjectId('eyjhbgcioijub25lin0.e30.'), undefined, 'object_id [unusual]'],
      [refusedFor({ about: 'resource', identity }), 'default/i', undefined],
      [undefined, undefined, undefined],
    ] as const) {
      const record = audited(ofGrant(grant));
      assert.deepEqual([record['identity'], record['requested']], [name, requested]);
    }
  });

  it('has the versions of the objects behind the decision, as far as there are any', () => {
    const binding = createBinding({ name: 'b', identityName: 'i', resourceVersion: '13' });
    const ofOther = createBinding({ name: 'a', identityName: 'other' });
    const bound = { kind: 'bound', bindings: [ofOther, binding] };
    const exception = createException({ name: 'e', resourceVersion: '15' });
    const excepted = { kind: 'exception', exception };
    const pod = { 'Pod/p': '1' };
    const ofBinding = { ...pod, 'AzureIdentity/i': '12', 'AzureIdentityBinding/b': '13' };
    const ofException = { ...pod, 'AzurePodIdentityException/e': '15' };
    const ofGrantor = { 'AzureIdentityGrant/g': '16' };
    for (const [grant, state, versions] of [
      [ofIdentity, knowing(bound), ofBinding],
      [ofIdentity, knowing(bound, 'identity'), { ...ofBinding, ...ofGrantor }],
      [ofNode, knowing(excepted), ofException],
      [ofNode, knowing(excepted, 'exception'), { ...ofException, ...ofGrantor }],
      [refusedFor({ about: 'resource', identity }), knowing(bound, 'identity'), ofBinding],
      [undefined, knowing(), pod],
    ] as const) {
      assert.deepEqual(
        audited({ ...ofGrant(grant), callerPod: ofIdentity.pod }, state)['versions'],
        versions,
      );
    }
    assert.deepEqual(audited(unknown)['versions'], {});
  });
});

async function openFrom(auditLog: string) {
  const printed: string[] = [];
  const log = createLogger({ format: 'text', level: 'error', write: () => undefined });
  let isRead = true;
  const stdout = (line: string): boolean => {
    if (isRead) printed.push(line);
    return isRead;
  };
  const audit = await openAudit({ config: { auditLog }, stdout, clock: systemClock, log });
  const renderer = audit?.renderer(knowing(), new ResourceUses(systemClock));
  const handle = (): void => renderer?.render(createRecord());
  const counts = () => audit?.samples().map(({ labels, value }) => [labels?.['outcome'], value]);
  const stopReading = (): void => {
    isRead = false;
  };
  return { audit, handle, counts, printed, stopReading };
}

describe('the audit stream', () => {
  it('is written to standard output as JSON, whatever the log format, and is counted', async () => {
    assert.equal((await openFrom('')).audit, undefined, 'it is off by default');
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
