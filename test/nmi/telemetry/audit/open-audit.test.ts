import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { ResourceUses } from '../../../../src/nmi/grants/resource-uses.ts';
import { systemClock } from '../../../../src/base/time/clock.ts';
import { createLogger } from '../../../../src/base/logger.ts';
import { openAudit } from '../../../../src/nmi/telemetry/audit/open-audit.ts';
import { createRecord } from '../../../support/request-records.ts';

const clusterState = {
  grants: { grantsOf: () => undefined },
  owners: { deciding: () => undefined },
};

async function open(auditLog: string) {
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
    const { audit } = await open('');
    assert.equal(audit, undefined);
  });

  it('is written to standard output as JSON, whatever the log format, and is counted', async () => {
    const { handle, counts, printed, stopReading } = await open('stdout');
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
    const { audit, handle, counts, printed } = await open(path);
    handle();
    handle();
    await audit?.[Symbol.asyncDispose]();
    assert.equal((await readFile(path, 'utf8')).trimEnd().split('\n').length, 2);
    assert.deepEqual(counts()?.[0], ['written', 2]);
    assert.deepEqual(printed, []);
    await rm(folder, { recursive: true });
  });
});
