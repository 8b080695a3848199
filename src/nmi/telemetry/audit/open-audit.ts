/** The audit stream as a part of the agent. */
import { LogBudget } from '../../../base/lines/log-budget.ts';
import type { Clock } from '../../../base/time/clock.ts';
import type { Logger } from '../../../base/logger.ts';
import { samplesBy, type Part } from '../../base/part.ts';
import type { Config } from '../../config/config.ts';
import type { Renderer } from '../renderer.ts';
import { AuditRecords, type AuditOptions } from './audit.ts';
import type { AuditState } from './record.ts';
import { openRecordFile, type RecordFile } from './record-file.ts';

export interface Audit extends Required<Pick<Part, 'samples'>>, AsyncDisposable {
  renderer(clusterState: AuditState, uses: AuditOptions['uses']): Renderer;
}

export interface OpenAuditOptions {
  readonly config: Pick<Config, 'auditLog'>;
  /** Takes whole lines, newline included. Returns false if one was dropped. */
  readonly stdout: (line: string) => boolean;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Undefined if the audit is off. @throws StartError `CONFIG` for a file that cannot be written. */
export async function openAudit({
  config,
  stdout,
  clock,
  log: parent,
}: OpenAuditOptions): Promise<Audit | undefined> {
  const path = config.auditLog;
  if (path === '') return undefined;
  const log = parent.child({ component: 'audit' });
  const records = { written: 0, dropped: 0 };
  const onWritten = (count: number): void => {
    records.written += count;
  };
  const budget = new LogBudget({ clock, onOthers: () => undefined });
  const onDropped = (count: number, code: string): void => {
    records.dropped += count;
    const report = (): void =>
      log.error({ path, code, total: records.dropped }, 'audit records dropped');
    // The first at once, further ones once a minute.
    if (budget.allows(path, 1, report)) report();
  };
  const sink: RecordFile =
    path === 'stdout'
      ? {
          write: (line) => {
            if (stdout(line)) onWritten(1);
            else records.dropped += 1;
          },
          [Symbol.asyncDispose]: () => Promise.resolve(),
        }
      : await openRecordFile({ path, clock, onWritten, onDropped });
  return {
    renderer: (clusterState, uses) =>
      new AuditRecords({ write: (line) => sink.write(line), clusterState, uses, clock }),
    samples: () => samplesBy('nmi_audit_records_total', 'outcome', records),
    [Symbol.asyncDispose]: () => sink[Symbol.asyncDispose](),
  };
}
