import assert from 'node:assert/strict';
import { readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { decodeLabToken } from '../../../lab/fakes/token.ts';
import { eventually } from '../../../lab/test-bed/eventually.ts';
import { ask, tokenTarget } from '../../support/ask.ts';
import { openServices } from './agent-child.ts';

/** The log of a complete short run with one granted and one refused request, and the token. */
async function liveShortly(flags: readonly string[]): Promise<{ log: string; token: string }> {
  await using testBed = await openServices();
  const child = testBed.start([...testBed.flags, ...flags]);
  await testBed.untilReady();
  const granted = await ask(testBed.pod, tokenTarget);
  assert.equal(granted.identity, 'a');
  const refused = await ask(testBed.pod, `${tokenTarget}&client_id=unknown`);
  assert.equal(refused.status, 400);
  child.signal('SIGTERM');
  assert.equal(await child.exited, 0);
  assert.equal(child.stderr(), '');
  return { log: child.stdout(), token: String(granted.body['access_token']) };
}

const linesOf = (text: string): readonly Record<string, unknown>[] =>
  text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);

function assertNoSecret(log: string, token: string): void {
  assert.ok(decodeLabToken(token) !== undefined, 'the test must have a token');
  for (const part of token.split('.')) assert.ok(!log.includes(part), 'a token is in the log');
}

describe('the log of the agent process', { timeout: 600_000 }, () => {
  it('is JSON, one object per line, with one line for each token decision', async () => {
    const { log, token } = await liveShortly([]);
    assert.ok(log.endsWith('\n'));
    const lines = linesOf(log);
    for (const { level, time, msg } of lines) {
      assert.match(String(level), /^(?:error|warn|info)$/);
      assert.ok(!Number.isNaN(Date.parse(String(time))));
      assert.equal(typeof msg, 'string');
    }
    const decisions = lines.filter((line) => 'reason' in line && 'requestId' in line);
    const decided = decisions.map(({ namespace, pod, reason, status, durationMs }) =>
      [namespace, pod, reason, status, typeof durationMs].join(' '),
    );
    assert.deepEqual(decided, [
      'default p ok 200 number',
      'default p selector_not_bound 400 number',
    ]);
    assertNoSecret(log, token);
  });

  it('looks like the log of the replaced system with --log-format=text', async () => {
    const { log, token } = await liveShortly(['--log-format=text']);
    for (const line of log.trimEnd().split('\n')) {
      assert.match(line, /^[IWEF]\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ [\w.-]+:\d+\] \S/);
    }
    assert.match(log, /\] status \(200\) took \d+ ns for req\.method=GET reg\.path=\/metadata\//);
    assert.match(log, /^E.*\] status \(400\) took \d+ ns .* req\.remote=127\.0\.0\.11/m);
    assertNoSecret(log, token);
  });

  it('has a record of each request in the audit stream, without secrets and complete at the end', async () => {
    await using testBed = await openServices();
    const path = join(testBed.folder, 'audit.log');
    const child = testBed.start([...testBed.flags, `--audit-log=${path}`]);
    await testBed.untilReady();
    const granted = await ask(testBed.pod, tokenTarget);
    await rename(path, `${path}.1`);
    await delay(1_100);
    const token = String(granted.body['access_token']);
    for (const target of [
      tokenTarget,
      `${tokenTarget}&client_id=unknown`,
      `${tokenTarget}&object_id=${token}`,
      '/metadata/attested',
    ]) {
      await ask(testBed.pod, target);
    }
    child.signal('SIGTERM');
    assert.equal(await child.exited, 0);
    const [before = '', after = ''] = await Promise.all(
      [`${path}.1`, path].map((file) => readFile(file, 'utf8')),
    );
    const records = linesOf(`${before}${after}`);
    const written = records.map(({ outcome, reason, cache, requested }) =>
      [outcome, reason, cache, requested].join(' ').trim(),
    );
    assert.deepEqual(written, [
      'granted ok miss',
      'granted ok hit',
      'denied selector_not_bound none client_id [unusual]',
      'denied selector_not_bound none object_id [unusual]',
      'denied metadata_blocked',
    ]);
    for (const { pod, serviceAccount, attestedBy, requestId } of records) {
      assert.deepEqual([pod, serviceAccount, attestedBy], ['p', 'default', 'address']);
      assert.match(String(requestId), /^[0-9a-f-]{36}$/);
    }
    const [{ identity, versions, fetchId } = {}, hit] = records;
    assert.equal(identity, 'default/a');
    // One id connects both requests with the fetch, and with the request upstream.
    const [fetched] = testBed.imds
      .requests()
      .filter(({ headers }) => headers['metadata'] === 'true');
    assert.equal(fetched?.headers['x-ms-client-request-id'], fetchId);
    assert.equal(hit?.['fetchId'], fetchId);
    assert.ok(child.stdout().includes(`"fetchId":"${String(fetchId)}"`), 'in the log too');
    assert.deepEqual(Object.keys(versions ?? {}), [
      'Pod/p',
      'AzureIdentity/a',
      'AzureIdentityBinding/a',
    ]);
    assertNoSecret(`${before}${after}`, token);
  });

  it('has one line on an audit file that cannot be opened, and the process ends with 78', async () => {
    await using testBed = await openServices();
    const path = join(testBed.folder, 'none', 'audit.log');
    const child = testBed.start([...testBed.flags, `--audit-log=${path}`]);
    assert.equal(await child.exited, 78);
    const last = child.stdout().trimEnd().split('\n').at(-1) ?? '';
    assert.match(last, /"agent cannot start"/);
    assert.ok(last.includes(`${path} cannot be opened for writing (ENOENT)`), last);
    assert.equal(child.stderr().trimEnd().split('\n').length, 1, 'no stack trace');
    assert.ok(child.stderr().includes(path), child.stderr());
  });

  it('keeps 2 MiB at most of what nobody reads, and counts the rest', async () => {
    await using testBed = await openServices();
    const child = testBed.start([...testBed.flags, '--log-level=debug', '--audit-log=stdout']);
    await testBed.untilReady();
    child.read(false);
    const requests = 10_000;
    const connections = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];
    const askOften = async (connection: string): Promise<void> => {
      for (let sent = 0; sent < requests / connections.length; sent++) {
        assert.equal((await ask(testBed.pod, tokenTarget, { connection })).status, 200);
      }
    };
    await Promise.all(connections.map(askOften));
    child.read(true);
    const dropped = /"count":(\d+),"msg":"standard output was not read, lines dropped"/;
    await eventually(async () => {
      await ask(testBed.pod, `${tokenTarget}&client_id=unknown`);
      assert.match(child.stdout(), dropped);
    });
    const handled = child.stdout().split('"request handled"').length - 1;
    const [, count = ''] = dropped.exec(child.stdout()) ?? [];
    assert.ok(handled + Number(count) >= requests, `${handled} lines, ${count} dropped`);
    const length = child.stdout().length;
    // The pipe and the reader have room for some hundred kilobytes.
    assert.ok(length < 2 * 1024 * 1024, `${length} characters were kept`);
    child.signal('SIGTERM');
    assert.equal(await child.exited, 0);
  });

  it('has only errors with --log-level=error', async () => {
    const { log } = await liveShortly(['--log-level=error']);
    assert.equal(log, '');
  });
});
