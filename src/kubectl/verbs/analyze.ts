/** `kubectl nmi analyze`: every finding of a namespace, a cluster or of files. */
import { usageError, type ExitCode } from '../base/plugin-error.ts';
import { commonConfig, defaultConfig } from '../cluster/agents.ts';
import { createClusterState } from '../cluster/cluster-state.ts';
import { parseManifests, snapshotOf } from '../cluster/manifests.ts';
import { readSnapshot, type Snapshot } from '../cluster/snapshot.ts';
import { analyze, suppress } from '../findings/analyze.ts';
import { severities, type Severity } from '../../nmi/diagnosis/codes.ts';
import { reaches, renderFindings, type Finding } from '../../nmi/diagnosis/finding.ts';
import { exitOf, print, refuseUnknownNamespace, scopeOf, type VerbContext } from './context.ts';
import { renderUnread } from './explain.ts';
import type { AddVerb } from './verb.ts';

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
          describe: 'Least severity that is shown and counts for --exit-code.',
        })
        .option('suppress', {
          type: 'string',
          array: true,
          default: [],
          describe: 'CODE, or "CODE=KIND NAMESPACE/NAME", to leave out; repeatable.',
        })
        .example('$0 analyze -A', 'the whole cluster')
        .example(
          '$0 analyze -f app.yaml --exit-code --threshold warning',
          'a step of CI before kubectl apply',
        ),
    (flags) =>
      start(flags, (context) => {
        const { filename: files = [], threshold, suppress: suppressions } = flags;
        return analyzeAll(context, { files, threshold, suppressions });
      }),
  );

interface AnalyzeFlags {
  readonly files: readonly string[];
  readonly threshold: Severity;
  readonly suppressions: readonly string[];
}

async function analyzeAll(context: VerbContext, flags: AnalyzeFlags): Promise<ExitCode> {
  const snapshot =
    flags.files.length > 0 ? await readFiles(context, flags.files) : await readCluster(context);
  const config = commonConfig(snapshot.agents) ?? defaultConfig;
  const view = createClusterState(snapshot, config, context.io.wallMs());
  const all = suppress(analyze({ snapshot, view, config }), flags.suppressions);
  const findings = all.filter((each) => reaches([each], flags.threshold));
  const value = { kind: 'Analysis', findings, unread: snapshot.unread, pods: snapshot.pods.length };
  print(context, value, () => [
    ...renderFindings(findings),
    ...(findings.length === 0 ? [] : ['']),
    `${summaryOf(findings)} of ${snapshot.pods.length} pods, ${snapshot.identities.length} identities, ${snapshot.bindings.length} bindings, ${snapshot.exceptions.length} exceptions`,
    ...renderUnread(snapshot.unread),
  ]);
  return exitOf(context, findings.length === 0);
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
  const snapshot = await readSnapshot(context, scope);
  if (scope !== undefined && snapshot.pods.length === 0)
    await refuseUnknownNamespace(context, scope);
  return snapshot;
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
