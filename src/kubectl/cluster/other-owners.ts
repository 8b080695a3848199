/** Programs and objects that manage an object beside the people who use kubectl. */
import { asRecord, parseRecord, stringAt } from '../../base/json-value.ts';
import { metadataOf, recordsAt } from '../base/object.ts';
import { failedError } from '../base/plugin-error.ts';
import type { Kubectl } from '../transport/kubectl.ts';
import { classifyFailure, toPluginError } from '../transport/kubectl-failure.ts';

/** Such a program would undo our edit, or its next release would fail on it. */
export interface NamedObject {
  readonly resource: string;
  readonly namespace: string;
  readonly name: string;
}

/** As kubectl calls itself, whatever its verb, and this plugin. */
const byHand = /^kubectl(?:-|$)|^before-first-apply$/;

/** @throws PluginError if a program like Helm or Argo CD wrote its spec, or an object owns it. */
export async function refuseOtherOwners(
  kubectl: Kubectl,
  { resource, namespace, name }: NamedObject,
): Promise<void> {
  const run = await kubectl.run([
    ...['get', resource, '--namespace', namespace, '--output=json', '--show-managed-fields'],
    ...['--', name],
  ]);
  const what = `get ${resource} ${namespace}/${name}`;
  if (run.code !== 0) throw toPluginError(classifyFailure(run), what);
  const metadata = metadataOf(parseRecord(run.stdout) ?? {});
  const managers = recordsAt(metadata, 'managedFields')
    .filter((each) => asRecord(asRecord(each['fieldsV1'])?.['f:spec']) !== undefined)
    .map((each) => stringAt(each, 'manager'))
    .filter((manager) => !byHand.test(manager));
  const owners = recordsAt(metadata, 'ownerReferences').map(
    (each) => `${stringAt(each, 'kind')} ${stringAt(each, 'name')}`,
  );
  const [owner] = [...owners, ...managers];
  if (owner === undefined) return;
  throw failedError(
    `${resource} ${namespace}/${name} is managed by ${owner}, and nothing was changed`,
    'Change it where it is declared, or with kubectl.',
  );
}
