/** `kubectl nmi identity revoke`: the agents drop the tokens that they have of an identity. */
import { asRecord, parseRecord, stringAt } from '../../../base/json-value.ts';
import { applyDefinitions } from '../../../nmi/diagnosis/object-codes.ts';
import { specOf, type RawObject } from '../../base/object.ts';
import { failedError, type ExitCode } from '../../base/plugin-error.ts';
import { identityResources } from '../../cluster/resources.ts';
import { valueOf } from '../../transport/kubectl.ts';
import { isOfNode } from '../../azure/federation.ts';
import { pin, type VerbContext } from '../context.ts';
import { asOurselves, carryOut, checkName, emptyPlan } from '../plan.ts';

const resource = identityResources.identities;

export async function revoke(
  unpinned: VerbContext,
  name: string,
  apply: boolean,
): Promise<ExitCode> {
  const context = await pin(unpinned);
  const { kubectl, namespace, io } = context;
  const read = async (): Promise<RawObject> =>
    valueOf(await kubectl.get(resource, namespace, checkName(name)), `get ${resource}`);
  const identity = await read();
  const title = `AzureIdentity ${namespace}/${name}`;
  const wordsAt = (wallMs: number): readonly string[] => [
    ...['patch', resource, name, `--namespace=${namespace}`, '--type=merge', asOurselves],
    `--patch=${JSON.stringify({ spec: { notBefore: timeOf(wallMs) } })}`,
  ];
  const notes = [
    'Agents drop the tokens that they have of it within a second of the change, and fetch new ones when pods ask.',
    ...(isOfNode(identity)
      ? [
          'Its tokens begin with one of the node: Azure itself may return the same token again for up to 24 hours. No agent keeps one, and that is all that is promised.',
        ]
      : []),
    'A token that a pod already has stays valid until it expires. Other AzureIdentities of the same client id keep theirs.',
    'A tool that applies the object from a file must not remove spec.notBefore.',
  ];
  let wallMs = io.wallMs();
  if (apply) {
    const tried = parseRecord(
      await kubectl.expect('change the object', [
        ...wordsAt(wallMs),
        ...['--dry-run=server', '--output=json', '--show-managed-fields'],
      ]),
    );
    checkKept(asRecord(tried?.['spec']), timeOf(wallMs), title);
    // Agents refuse a time in the future, and the clock of this machine may be ahead.
    wallMs = Math.min(wallMs, serverTimeOf(tried) ?? wallMs);
    if (timeOf(wallMs) === stringAt(specOf(identity), 'notBefore')) {
      // The same time again would change nothing, and agents would keep what they have fetched since.
      await io.sleep(1000);
      wallMs += 1000;
    }
  }
  const code = await carryOut(context, { ...emptyPlan, changes: [wordsAt(wallMs)], notes }, apply);
  if (apply) checkKept(specOf(await read()), timeOf(wallMs), title);
  return code;
}

/** Older definitions drop the field without a word. */
function checkKept(spec: RawObject | undefined, notBefore: string, title: string): void {
  if (stringAt(spec, 'notBefore') === notBefore) return;
  throw failedError(
    `${title} is not revoked: the cluster does not keep its spec.notBefore`,
    `Apply the definitions of this version, and repeat: ${applyDefinitions}. If they are of this version, something else changes the object.`,
  );
}

/** When the server says that it made the last change by this plugin. */
function serverTimeOf(object: RawObject | undefined): number | undefined {
  const fields = asRecord(object?.['metadata'])?.['managedFields'];
  const times = (Array.isArray(fields) ? fields : [])
    .map((each) => asRecord(each))
    .filter((each) => stringAt(each, 'manager') === 'kubectl-nmi')
    .map((each) => Date.parse(stringAt(each, 'time')));
  return times.filter((each) => !Number.isNaN(each)).toSorted((a, b) => b - a)[0];
}

/** In whole seconds, as Kubernetes writes times. */
function timeOf(wallMs: number): string {
  return new Date(Math.floor(wallMs / 1000) * 1000).toISOString().replace('.000Z', 'Z');
}
