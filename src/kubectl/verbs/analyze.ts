/** `kubectl nmi analyze`: every finding of a namespace or a cluster, or what files would bring there. */
import { namespaceOf, type RawObject } from '../base/object.ts';
import { usageError, type ExitCode } from '../base/plugin-error.ts';
import { parseManifests } from '../cluster/manifests.ts';
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
import { applyTo, emptySnapshot, findingsOfChange, podsOf } from '../findings/applied.ts';
import { createContexts } from '../findings/contexts.ts';
import type { Scope } from '../transport/kubectl.ts';
import { severities, type Severity } from '../../nmi/diagnosis/codes.ts';
import { reaches, renderFindings, type Finding } from '../../nmi/diagnosis/finding.ts';
import {
  exitOf,
  namespaceFor,
  print,
  refuseUnknownNamespace,
  scopeOf,
  type VerbContext,
} from './context.ts';
import { failFlags, reportFlags, scopeFlags, switchFlag, type AddVerb } from './verb.ts';

export const addAnalyze: AddVerb = (parser, start) =>
  parser.command(
    'analyze',
    'report every finding in a namespace or a cluster (-A), or by files to apply (-f)',
    (verb) =>
      verb
        .option('filename', {
          alias: 'f',
          type: 'string',
          array: true,
          describe:
            'Manifests, or folders of them: what kubectl apply would bring; - is standard input.',
        })
        .option('files-only', switchFlag('Look at the files alone, and at no cluster.'))
        .option('threshold', {
          choices: severities,
          default: 'info' as const,
          describe: 'Show findings of this severity and above.',
        })
        .options({ ...failFlags, ...reportFlags, ...scopeFlags })
        .option('verbose', { ...switchFlag('Show why something was not checked.'), alias: 'v' })
        .example('$0 analyze -A', 'the whole cluster')
        .example('$0 analyze -f deploy -n shop', 'a step of CI before kubectl apply -R -f deploy')
        .example(
          'helm template . | $0 analyze -f - --files-only',
          'a step of CI without a cluster',
        ),
    (flags) =>
      start(flags, (context) => analyzeAll(context, { ...flags, files: flags.filename ?? [] })),
  );

interface AnalyzeFlags {
  readonly files: readonly string[];
  readonly filesOnly: boolean;
  readonly threshold: Severity;
  readonly verbose: boolean;
}

async function analyzeAll(context: VerbContext, flags: AnalyzeFlags): Promise<ExitCode> {
  const { files, filesOnly, threshold, verbose } = flags;
  if (filesOnly && files.length === 0) {
    throw usageError('--files-only needs files', 'Name them: kubectl nmi analyze -f FILE');
  }
  const { all, pods, unread, what } =
    files.length > 0
      ? await analyzeFiles(context, files, filesOnly)
      : await analyzeCluster(context);
  const findings = all.filter((each) => reaches([each], threshold));
  const value = { kind: 'Analysis', findings, unread, pods };
  print(context, value, () => [
    ...renderFindings(findings),
    ...(findings.length === 0 ? [] : ['']),
    `${summaryOf(findings)} of ${pods} pods${what}`,
    ...(verbose ? renderUnread(unread) : countUnread(unread)),
  ]);
  return exitOf(context, (limit) => reaches(all, limit));
}

interface Analysis {
  readonly all: readonly Finding[];
  readonly pods: number;
  readonly unread: readonly Unread[];
  /** After the number of pods. */
  readonly what: string;
}

async function analyzeCluster(context: VerbContext): Promise<Analysis> {
  const scope = await scopeOf(context);
  const [snapshot, nodes] = await Promise.all([
    readCluster(context, scope),
    context.kubectl.list('nodes', undefined),
  ]);
  const { pods } = snapshot;
  if (scope !== undefined && pods.length === 0) await refuseUnknownNamespace(context, scope);
  const unread = [...snapshot.unread];
  const known = valueOrUnread(nodes, 'list nodes', losses.nodes, unread);
  const all = examine({ ...snapshot, nodes: known }, context);
  return { all, pods: pods.length, unread, what: '' };
}

/** Of the cluster, what is in the namespaces of the files. */
async function analyzeFiles(
  context: VerbContext,
  files: readonly string[],
  isAlone: boolean,
): Promise<Analysis> {
  const { namespace = isAlone ? 'default' : await namespaceFor(context) } = context;
  const objects = await readObjects(context, files, namespace);
  const own = new Set(objects.map(namespaceOf).filter((each) => each !== ''));
  const [first = namespace, ...others] = own;
  const isWide = context.allNamespaces || others.length > 0;
  const cluster = isAlone
    ? emptySnapshot(objects)
    : await readCluster(context, isWide ? undefined : first);
  const after = examine(applyTo(cluster, objects, context.io.wallMs()), context);
  return {
    all: findingsOfChange(examine(cluster, context), after, objects),
    pods: podsOf(objects).length,
    unread: cluster.unread,
    what: isAlone
      ? ' in these files; what the cluster has beside them is not known'
      : ' in these files and what they change in the cluster',
  };
}

function examine(snapshot: Snapshot, { io }: VerbContext): readonly Finding[] {
  return analyze(snapshot, createContexts(snapshot, io.wallMs()));
}

function summaryOf(findings: readonly Finding[]): string {
  const counts = severities.map((severity) => {
    const count = findings.filter((each) => each.severity === severity).length;
    return `${count} ${severity}${count === 1 ? '' : 's'}`.replace(/infos?$/, 'info');
  });
  return counts.join(', ');
}

async function readCluster(context: VerbContext, scope: Scope): Promise<Snapshot> {
  const unread: Unread[] = [];
  const [snapshot, reports] = await Promise.all([
    readSnapshot(context, scope),
    readSourceReports(context.kubectl, scope, context.io.wallMs(), unread),
  ]);
  return { ...snapshot, reports, unread: [...snapshot.unread, ...unread] };
}

/** The endings of files that kubectl applies, of a folder. */
const manifestName = /\.(?:ya?ml|json)$/;

async function readObjects(
  { io }: VerbContext,
  files: readonly string[],
  namespace: string,
): Promise<readonly RawObject[]> {
  const texts = await Promise.all(
    files.map(async (file) => {
      const inner = file === '-' ? undefined : await io.listFolder(file);
      const paths = inner?.filter((each) => manifestName.test(each)).toSorted() ?? [file];
      if (paths.length === 0) {
        throw usageError(
          `folder ${file} has no file .yaml, .yml or .json`,
          'Name a folder of manifests.',
        );
      }
      return Promise.all(
        paths.map(async (path) => {
          const text = await io.readText(path);
          if (text !== undefined) return parseManifests(path, text, namespace);
          throw usageError(
            `file ${path} cannot be read`,
            'Name files or folders; - is standard input.',
          );
        }),
      );
    }),
  );
  return texts.flat(2);
}
