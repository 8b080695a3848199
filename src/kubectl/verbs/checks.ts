/** The checks of `kubectl nmi doctor`: how they read, and how what they found is told. */
import { renderTable } from '../../base/printable.ts';
import {
  reaches,
  renderFindings,
  sortFindings,
  type Finding,
} from '../../nmi/diagnosis/finding.ts';
import type { RawObject } from '../base/object.ts';
import type { ExitCode } from '../base/plugin-error.ts';
import type { AgentView } from '../cluster/agents.ts';
import { readAgents } from '../cluster/trusted-agents.ts';
import {
  describeUnread,
  mergeCauses,
  renderUnread,
  valueOrUnread,
  type Unread,
} from '../cluster/unread.ts';
import type { Read } from '../transport/kubectl.ts';
import type { KubectlFailure } from '../transport/kubectl-failure.ts';
import { exitOf, print, type VerbContext } from './context.ts';

/** What a check reads with. */
export interface Look extends VerbContext {
  /** In all namespaces. Undefined without the right, which is then open. */
  readonly list: (resource: string) => Promise<readonly RawObject[] | undefined>;
  readonly agents: () => Promise<readonly AgentView[] | undefined>;
  /** Notes what the check does not know. */
  readonly open: (what: string, why: string | KubectlFailure) => void;
}

/** What a check found. */
export interface Judged {
  readonly result: string;
  readonly findings?: readonly Finding[];
}

export interface Check {
  readonly title: string;
  /** Undefined: there is nothing to tell. */
  readonly run: (look: Look) => Promise<Judged | undefined>;
  /** The installation; undefined is both. */
  readonly when: 'before' | 'after' | undefined;
}

/** @param read undefined is what the user may not see: it is not judged. */
export function check<T>(
  title: string,
  read: (look: Look) => Promise<T | undefined>,
  judge: (facts: T) => Judged | undefined,
  when?: Check['when'],
): Check {
  const run = async (look: Look) => {
    const facts = await read(look);
    return facts === undefined ? { result: '' } : judge(facts);
  };
  return { title, run, when };
}

/** @param first alone: without a server there is nothing to read. */
export async function examine(context: VerbContext, first: Check, others: readonly Check[]) {
  const { kubectl } = context;
  const lists = new Map<string, Promise<Read<readonly RawObject[]>>>();
  let agents: Promise<Read<readonly AgentView[]>> | undefined;
  const run = async ({ title, run: runCheck }: Check) => {
    const unread: Unread[] = [];
    const judged = await runCheck({
      ...context,
      list: async (resource) => {
        const listing = lists.get(resource) ?? kubectl.list(resource, undefined);
        lists.set(resource, listing);
        return valueOrUnread(await listing, `list ${resource}`, title, unread);
      },
      agents: async () => {
        const read = await (agents ??= readAgents(context));
        return valueOrUnread(read, 'list pods of the agents', title, unread);
      },
      open: (what, why) => {
        const isText = typeof why === 'string';
        unread.push(isText ? { what, why, loses: title } : describeUnread(what, why, title));
      },
    });
    if (judged === undefined) return [];
    const { result, findings = [] } = judged;
    const worst = (['error', 'warning'] as const).find((each) => reaches(findings, each));
    const mark = worst ?? (unread.length > 0 ? 'not checked' : 'ok');
    return [{ title, mark, result, findings: sortFindings(findings), unread }];
  };
  return [await run(first), ...(await Promise.all(others.map(run)))].flat();
}

export function report(
  context: VerbContext,
  checked: Awaited<ReturnType<typeof examine>>,
): ExitCode {
  const findings = sortFindings(checked.flatMap((each) => each.findings));
  const unread = mergeCauses(checked.flatMap((each) => each.unread));
  const shown = checked.map(({ title, mark, result }) => ({ check: title, mark, result }));
  print(context, { kind: 'Diagnosis', checks: shown, findings, unread }, () => {
    const rows = checked.map(({ mark, title, result }) => [mark, title, result]);
    const [head = '', ...lines] = renderTable(['MARK', 'CHECK', 'RESULT'], rows);
    const body = checked.flatMap(({ findings: own }, at) => [
      lines[at] ?? '',
      ...renderFindings(causesOf(own)).map((line) => `  ${line}`),
    ]);
    return [head, ...body, ...renderUnread(unread)];
  });
  return exitOf(context, (limit) => reaches(findings, limit));
}

/** What objects share is told once: their fixes differ in the name only. JSON has each of them. */
function causesOf(findings: readonly Finding[]): readonly Finding[] {
  const most = 10;
  const causeOf = ({ code, severity, fix, object }: Finding) =>
    `${code} ${severity} ${fix.replaceAll(object.replace(/^.*[ /]/, ''), '')}`;
  return [...Map.groupBy(findings, causeOf).values()].flatMap(([first, ...others]) => {
    if (first === undefined) return [];
    const texts = others.map(({ object, text }) =>
      object === first.object ? text : `${object}: ${text}`,
    );
    const more = texts.length > most ? [`${texts.length - most} more: see -o json`] : [];
    return [{ ...first, details: [...first.details, ...texts.slice(0, most), ...more] }];
  });
}
