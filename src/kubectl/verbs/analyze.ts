/** `kubectl nmi analyze`: every finding of a namespace, a cluster or of files. */
import { usageError, type ExitCode } from '../base/plugin-error.ts';
import { parseManifests, snapshotOf } from '../cluster/manifests.ts';
import { readSnapshot, type Snapshot } from '../cluster/snapshot.ts';
import { readSourceReports } from '../cluster/source-reports.ts';
import {
  countUnread,
  losses,
  renderUnread,
  valueOrUnread,
  type Unread,
} from '../cluster/unread.ts';
import { analyze } from '../findings/analyze.ts';
import { createContexts } from '../findings/contexts.ts';
import { severities, type Severity } from '../../nmi/diagnosis/codes.ts';
import { reaches, renderFindings, type Finding } from '../../nmi/diagnosis/finding.ts';
import { exitOf, print, refuseUnknownNamespace, scopeOf, type VerbContext } from './context.ts';
import { failFlags, reportFlags, scopeFlags, switchFlag, type AddVerb } from './verb.ts';

export const addAnalyze: AddVerb = (parser, start) =>
  parser.command(
    'analyze',
    'report every finding in a namespace, a cluster (-A) or files (-f)',
    (verb) =>
      verb
        .option('filename', {
          alias: 'f',
          type: 'string',
          array: true,
          describe: 'Manifests to look at instead of the cluster; - is standard input.',
        })
        .option('threshold', {
          choices: severities,
          default: 'info' as const,
          describe: 'Show findings of this severity and above.',
        })
        .options({ ...failFlags, ...reportFlags, ...scopeFlags })
        .option('verbose', { ...switchFlag('Show why something was not checked.'), alias: 'v' })
        .example('$0 analyze -A', 'the whole cluster')
        .example('$0 analyze -f app.yaml --fail-on warning', 'a step of CI before kubectl apply'),
    (flags) =>
      start(flags, (context) => analyzeAll(context, { ...flags, files: flags.filename ?? [] })),
  );

interface AnalyzeFlags {
  readonly files: readonly string[];
  readonly threshold: Severity;
  readonly verbose: boolean;
}

async function analyzeAll(context: VerbContext, flags: AnalyzeFlags): Promise<ExitCode> {
  const { threshold, verbose } = flags;
  const snapshot =
    flags.files.length > 0 ? await readFiles(context, flags.files) : await readCluster(context);
  const contexts = createContexts(snapshot, context.io.wallMs());
  const findings = analyze(snapshot, contexts).filter((each) => reaches([each], threshold));
  const { unread } = snapshot;
  const value = { kind: 'Analysis', findings, unread, pods: snapshot.pods.length };
  print(context, value, () => [
    ...renderFindings(findings),
    ...(findings.length === 0 ? [] : ['']),
    `${summaryOf(findings)} of ${snapshot.pods.length} pods${flags.files.length > 0 ? ' in these files; what the cluster has beside them is not known' : ''}`,
    ...(verbose ? renderUnread(unread) : countUnread(unread)),
  ]);
  return exitOf(context, (limit) => reaches(findings, limit));
}

function summaryOf(findings: readonly Finding[]): string {
  const counts = severities.map((severity) => {
    const count = findings.filter((each) => each.severity === severity).length;
    return `${count} ${severity}${count === 1 ? '' : 's'}`.replace(/infos?$/, 'info');
  });
  return counts.join(', ');
}

async function readCluster(context: VerbContext): Promise<Snapshot> {
  const scope = await scopeOf(context);
  const unread: Unread[] = [];
  const [snapshot, nodes, reports] = await Promise.all([
    readSnapshot(context, scope),
    context.kubectl.list('nodes', undefined),
    readSourceReports(context.kubectl, scope, context.io.wallMs(), unread),
  ]);
  if (scope !== undefined && snapshot.pods.length === 0)
    await refuseUnknownNamespace(context, scope);
  unread.unshift(...snapshot.unread);
  const known = valueOrUnread(nodes, 'list nodes', losses.nodes, unread);
  return { ...snapshot, nodes: known, reports, unread };
}

async function readFiles(
  { io, namespace = 'default' }: VerbContext,
  files: readonly string[],
): Promise<Snapshot> {
  const texts = await Promise.all(
    files.map(async (file) => {
      const text = await io.readText(file);
      if (text !== undefined) return parseManifests(file, text, namespace);
      throw usageError(
        `file ${file} cannot be read`,
        'Name files, not folders; - is standard input.',
      );
    }),
  );
  return snapshotOf(texts.flat());
}
