/** The changes that a verb plans, as YAML for kubectl. Nothing is overwritten. */
import { isDeepStrictEqual } from 'node:util';
import type { Options } from 'yargs';
import { asRecord } from '../../base/json-value.ts';
import { renderAz, type AzLine } from '../azure/az.ts';
import { renderReport, renderYaml, shellWord, toLine } from '../base/output.ts';
import { exitCodes } from '../base/io.ts';
import { failedError, usageError, type ExitCode } from '../base/plugin-error.ts';
import type { RawObject } from '../base/object.ts';
import { identityResources } from '../cluster/resources.ts';
import { classifyFailure, toPluginError } from '../transport/kubectl-failure.ts';
import { valueOf } from '../transport/kubectl.ts';
import { kubectlCommand, type PinnedContext } from './context.ts';
import { reportFlags, switchFlag } from './verb.ts';

export interface Plan {
  readonly objects: readonly object[];
  /** Words after `kubectl`: changes of objects that have other owners too. */
  readonly changes: readonly (readonly string[])[];
  readonly az: readonly AzLine[];
  readonly notes: readonly string[];
}

export const planFlags = {
  ...reportFlags,
  apply: switchFlag('Change the objects in the cluster after showing what changes.'),
} as const satisfies Readonly<Record<string, Options>>;

export const emptyPlan: Plan = { objects: [], changes: [], az: [], notes: [] };

export const asOurselves = '--field-manager=kubectl-nmi';

const createWords = ['create', '--filename=-', asOurselves];

export async function carryOut(
  context: PinnedContext,
  planned: Plan,
  apply: boolean,
): Promise<ExitCode> {
  const { io, output } = context;
  const plan = apply ? planned : await judge(context, planned);
  if (output === 'text') io.stdout(renderPlan(context, plan));
  if (apply) await applyAll(context, plan);
  if (output !== 'text') {
    const { changes, ...rest } = plan;
    const value = { target: context.target, ...rest, kubectl: changes, done: apply };
    io.stdout(renderReport(output, value, () => []));
  }
  return exitCodes.ok;
}

/** The API server refuses what it would refuse with `--apply`. Who may not create the objects can hand them on. */
async function judge({ kubectl }: PinnedContext, plan: Plan): Promise<Plan> {
  const { objects, notes } = plan;
  if (objects.length === 0) return plan;
  const run = await kubectl.run([...createWords, '--dry-run=server'], {
    input: renderYaml(objects),
  });
  if (run.code === 0) return plan;
  const failure = classifyFailure(run);
  if (failure.kind !== 'forbidden') throw toPluginError(failure, 'create the objects');
  return { ...plan, notes: [...notes, `Not checked by the API server: ${failure.detail}`] };
}

function renderPlan(context: PinnedContext, { objects, changes, az, notes }: Plan): string {
  const program = kubectlCommand(context);
  const comments = [
    ...notes,
    // A change may need what these lines make.
    ...az.map(renderAz),
    ...changes.map((words) => `${program} ${words.map(shellWord).join(' ')}`),
  ];
  const toComments = (lines: readonly string[]) =>
    lines.map((line) => `# ${toLine(line)}\n`).join('');
  const isEmpty = objects.length + az.length + changes.length === 0;
  const head = isEmpty ? '' : toComments([`In ${context.target}:`]);
  return `${head}${objects.length === 0 ? '' : renderYaml(objects)}${toComments(comments)}`;
}

async function applyAll(
  { kubectl, io, output }: PinnedContext,
  { objects, changes }: Plan,
): Promise<void> {
  // Standard output of other formats must contain only the document.
  const report = output === 'text' ? io.stdout : io.stderr;
  if (objects.length > 0) {
    report(await kubectl.expect('create the objects', createWords, renderYaml(objects)));
  }
  for (const words of changes) report(await kubectl.expect(words.join(' '), words));
}

const resources = {
  AzureIdentity: identityResources.identities,
  AzureIdentityBinding: identityResources.bindings,
  AzurePodIdentityException: identityResources.exceptions,
} as const;

/** Only a note if it is there already. @throws PluginError if it has another spec. */
export async function unlessThere(
  context: PinnedContext,
  kind: keyof typeof resources,
  name: string,
  spec: object,
): Promise<Pick<Plan, 'objects' | 'notes'>> {
  const { kubectl, namespace } = context;
  const resource = resources[kind];
  const metadata = { name: checkName(name), namespace };
  const made = { apiVersion: 'aadpodidentity.k8s.io/v1', kind, metadata, spec };
  const read = await kubectl.get(resource, namespace, name);
  // Who may not read it may still create it; the server refuses what exists.
  if (!read.ok && (read.failure.kind === 'not-found' || read.failure.kind === 'forbidden')) {
    return { objects: [made], notes: [] };
  }
  const present: RawObject = asRecord(valueOf(read, `get ${resource}`)['spec']) ?? {};
  const wanted: RawObject = { ...spec };
  const keys = new Set([...Object.keys(wanted), ...Object.keys(present)]);
  const key = [...keys].find((each) => !isDeepStrictEqual(present[each], wanted[each]));
  const title = `${kind} ${namespace}/${name}`;
  if (key === undefined) return { objects: [], notes: [`${title} is there already.`] };
  const show = (value: unknown) => (value === undefined ? 'not set' : JSON.stringify(value));
  throw failedError(
    `${title} exists; its spec.${key} is ${show(present[key])}, and would be ${show(wanted[key])}`,
    `Choose another name, or change it yourself: ${kubectlCommand(context)} -n ${namespace} edit ${resource} ${name}`,
  );
}

export function checkName(name: string): string {
  if (/^[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?$/.test(name)) return name;
  throw usageError(
    `"${name}" cannot be the name of an object`,
    'Use lower case letters, digits, hyphens and dots.',
  );
}
