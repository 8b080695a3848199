/** Federated credentials: which service account tokens Entra ID accepts for an identity. */
import { createHash } from 'node:crypto';
import { isGuid } from '../../cache/index/identifiers.ts';
import { asRecord, stringAt } from '../../base/json-value.ts';
import { nameOf, namespaceOf, specOf, type RawObject } from '../base/object.ts';
import { failedError } from '../base/plugin-error.ts';
import { azLine, renderAz, type AzLine } from './az.ts';
import { parseIdentityId } from './identity-id.ts';

/** Azure's limit for one identity or application. */
const maxCredentials = 20;

export interface Subject {
  readonly namespace: string;
  readonly serviceAccount: string;
}

export interface Federation {
  /** Empty if it is not known: then it is a managed identity or an application. */
  readonly resourceId: string;
  readonly clientId: string;
  readonly issuer: string;
  readonly audience: string;
}

export interface FederationPlan {
  /** None without `resourceId`: they are among the notes, for either kind. */
  readonly az: readonly AzLine[];
  readonly notes: readonly string[];
}

/** Of a chain by federation those of its blueprint; of another one those of its managed identity. */
export function idsOf(identity: RawObject): Pick<Federation, 'resourceId' | 'clientId'> {
  const spec = specOf(identity);
  const read = (key: string) => stringAt(spec, key).trim();
  if (isChain(identity) && read('federation') !== '') {
    return { resourceId: '', clientId: applicationIdOf(identity) };
  }
  return { resourceId: read('resourceID'), clientId: read('clientID') };
}

export function isChain(identity: RawObject): boolean {
  return specOf(identity)['type'] === 4;
}

/** Whether its tokens begin with one of the node's metadata service. */
export function isOfNode(identity: RawObject): boolean {
  const { type = 0, federation = '' } = specOf(identity);
  return type === 0 || (isChain(identity) && federation === '');
}

/** The client id that pods name. */
export function servedIdOf(identity: RawObject): string {
  if (!isChain(identity)) return idsOf(identity).clientId;
  return stringAt(specOf(identity), 'agentIdentity').trim() || applicationIdOf(identity);
}

function applicationIdOf(identity: RawObject): string {
  return stringAt(asRecord(specOf(identity)['application']), 'clientID').trim();
}

/** The credential by which an application trusts a managed identity; az alone knows its subject. */
export function planTrust(
  identity: RawObject,
  { authority, legAudience }: { readonly authority: string; readonly legAudience: string },
): readonly string[] {
  const { resourceId, clientId } = idsOf(identity);
  const trusted = isGuid(clientId) ? clientId : resourceId;
  const name = credentialName(`${namespaceOf(identity)}-${nameOf(identity)}`, trusted);
  const issuer = `${authority}/TENANT_OF_THE_IDENTITY/v2.0`;
  const credential = { name, issuer, subject: 'PRINCIPAL_ID', audiences: [legAudience] };
  const fields = '{PRINCIPAL_ID:principalId,TENANT_OF_THE_IDENTITY:tenantId}';
  const find = isGuid(clientId)
    ? `az identity list --query "[?clientId=='${clientId}'].${fields}"`
    : renderAz(azLine(['identity', 'show'], { ids: resourceId, query: fields }));
  return [
    `PRINCIPAL_ID and TENANT_OF_THE_IDENTITY: ${find}`,
    `The application has to be registered in that tenant: ${renderAz(createLine(applicationIdOf(identity), credential))}`,
  ];
}

export function subjectOf({ namespace, serviceAccount }: Subject): string {
  return `system:serviceaccount:${namespace}:${serviceAccount}`;
}

export function planFederation(
  federation: Federation,
  subjects: readonly Subject[],
): FederationPlan {
  const { resourceId, clientId } = federation;
  const tooMany =
    subjects.length > maxCredentials
      ? [
          `${subjects.length} service accounts, and Azure allows ${maxCredentials} federated credentials for an identity: share service accounts, or use federation: node.`,
        ]
      : [];
  if (resourceId !== '') {
    const id = parseIdentityId(resourceId);
    if (id === undefined) {
      throw failedError(
        'spec.resourceID of the AzureIdentity is no id of a user-assigned identity',
        'Correct it: az identity list --query "[].id" shows them; an application has none.',
      );
    }
    const { subscription, resourceGroup, name } = id;
    const flags = { subscription, 'resource-group': resourceGroup, 'identity-name': name };
    return { az: subjects.map((each) => managedLine(flags, federation, each)), notes: tooMany };
  }
  checkClientId(clientId);
  const unknown = { 'resource-group': 'RESOURCE_GROUP', 'identity-name': 'IDENTITY' };
  const find = `az identity list --query "[?clientId=='${clientId}'].id" --output tsv`;
  return {
    az: [],
    notes: [
      ...tooMany,
      `Azure has a managed identity or an application with the client id ${clientId}.`,
      `A managed identity (${find}):`,
      ...subjects.map((each) => `  ${renderAz(managedLine(unknown, federation, each))}`),
      'An application:',
      ...subjects.map((each) => `  ${renderAz(applicationLine(federation, each))}`),
    ],
  };
}

/** @throws PluginError */
export function checkClientId(clientId: string): void {
  if (isGuid(clientId)) return;
  throw failedError(
    'the client id of the AzureIdentity is missing or is no GUID',
    'Correct spec.clientID.',
  );
}

function managedLine(
  ofIdentity: Readonly<Record<string, string>>,
  { issuer, audience }: Federation,
  subject: Subject,
): AzLine {
  return azLine(['identity', 'federated-credential', 'create'], {
    name: nameFor(issuer, subject),
    ...ofIdentity,
    issuer,
    subject: subjectOf(subject),
    audiences: audience,
  });
}

function applicationLine({ clientId, issuer, audience }: Federation, subject: Subject): AzLine {
  const name = nameFor(issuer, subject);
  const credential = { name, issuer, subject: subjectOf(subject), audiences: [audience] };
  return createLine(clientId, credential);
}

function createLine(id: string, credential: object): AzLine {
  const parameters = JSON.stringify(credential);
  return azLine(['ad', 'app', 'federated-credential', 'create'], { id, parameters });
}

/** Azure's limit for the name of a credential is 120, of letters, digits, hyphens and underscores. */
const maxReadable = 100;

function nameFor(issuer: string, subject: Subject): string {
  const { namespace, serviceAccount } = subject;
  return credentialName(`${namespace}-${serviceAccount}`, `${issuer} ${subjectOf(subject)}`);
}

/** az replaces a credential of the same name, and other clusters have objects of the same names. */
function credentialName(title: string, trusted: string): string {
  const readable = title.replaceAll('.', '-').slice(0, maxReadable);
  const unique = createHash('sha256').update(trusted).digest('hex');
  return `${readable}-${unique.slice(0, 16)}`;
}
