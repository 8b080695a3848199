/** The audit stream as a part of the agent. */
import { LogBudget } from '../../../base/lines/log-budget.ts';
import type { Clock } from '../../../base/time/clock.ts';
import type { Logger } from '../../../base/logger.ts';
import { samplesBy, type Part } from '../../base/part.ts';
import type { Config } from '../../config/config.ts';
import type { Renderer } from '../renderer.ts';
import { AuditRecords } from './audit.ts';
import type { AuditState } from './record.ts';
import { openRecordFile, type RecordFile } from './record-file.ts';

export interface Audit extends Required<Pick<Part, 'samples'>>, AsyncDisposable {
  renderer(clusterState: AuditState): Renderer;
}

export interface OpenAuditOptions {
  readonly config: Pick<Config, 'auditLog'>;
  /** Takes whole lines, newline included. Returns false if one was dropped. */
  readonly stdout: (line: string) => boolean;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Undefined if the audit is off. @throws StartError `CONFIG` for a file that cannot be written. */
export async function openAudit(options: OpenAuditOptions): Promise<Audit | undefined> {
  const { config, clock } = options;
  const log = options.log.child({ component: 'audit' });
  if (config.auditLog === '') return undefined;
  const records = { written: 0, dropped: 0 };
  const sink = await openSink(options, log, records);
  return {
    renderer: (clusterState) =>
      new AuditRecords({ write: (line) => sink.write(line), clusterState, clock }),
    samples: () => samplesBy('nmi_audit_records_total', 'outcome', records),
    [Symbol.asyncDispose]: () => sink[Symbol.asyncDispose](),
  };
}

async function openSink(
  { config, stdout, clock }: OpenAuditOptions,
  log: Logger,
  records: { written: number; dropped: number },
): Promise<RecordFile> {
  const path = config.auditLog;
  const onWritten = (count: number): void => {
    records.written += count;
  };
  if (path === 'stdout') {
    return {
      write: (line) => {
        if (stdout(line)) onWritten(1);
        else records.dropped += 1;
      },
      [Symbol.asyncDispose]: () => Promise.resolve(),
    };
  }
  const budget = new LogBudget({ clock, onOthers: () => undefined });
  return openRecordFile({
    path,
    clock,
    onWritten,
    onDropped: (count, code) => {
      records.dropped += count;
      const report = (): void =>
        log.error({ path, code, total: records.dropped }, 'audit records dropped');
      // The first at once, further ones once a minute.
      if (budget.allows(path, 1, report)) report();
    },
  });
}
