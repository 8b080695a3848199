/** Federated credentials: which service account tokens Entra ID accepts for an identity. */
import { createHash } from 'node:crypto';
import { stringAt } from '../../base/json-value.ts';
import { isGuid, normaliseClientId } from '../../cache/index/identifiers.ts';
import type { Io } from '../base/io.ts';
import { recordsOf, textsAt } from '../base/object.ts';
import { failedError } from '../base/plugin-error.ts';
import { azLine, readAz, renderAz, type AzLine } from './az.ts';
import { parseIdentityId } from './identity-id.ts';

/** Azure's limit for one identity or application. */
export const maxCredentials = 20;

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

export function subjectOf({ namespace, serviceAccount }: Subject): string {
  return `system:serviceaccount:${namespace}:${serviceAccount}`;
}

/** The lines that Azure needs, without a look at what it has. @throws PluginError */
export function planFederation(
  federation: Federation,
  subjects: readonly Subject[],
): FederationPlan {
  const wanted = subjects.map((subject) => toCredential(federation, subject));
  if (federation.resourceId !== '') {
    const owner = ownerOf(federation.resourceId);
    return { az: wanted.map((each) => createLine(owner, each)), notes: [sharedNames] };
  }
  const application = applicationOf(federation.clientId);
  const find = `az identity list --query "[?clientId=='${federation.clientId}'].id" --output tsv`;
  return {
    az: [],
    notes: [
      `Azure has a managed identity or an application with the client id ${federation.clientId}; --run finds out which.`,
      `A managed identity (${find}):`,
      ...wanted.map((each) => `  ${renderManaged(each)}`),
      'An application:',
      ...wanted.map((each) => `  ${renderAz(createLine(application, each))}`),
      sharedNames,
    ],
  };
}

const sharedNames =
  'az replaces a credential of a managed identity that has the same name. If another cluster uses this identity, give --run, which looks first.';

/** The lines for what Azure lacks, as the user that az is logged in as. @throws PluginError */
export async function findFederation(
  io: Io,
  federation: Federation,
  subjects: readonly Subject[],
): Promise<FederationPlan> {
  const owner =
    federation.resourceId === ''
      ? await findOwner(io, federation.clientId)
      : ownerOf(federation.resourceId);
  const existing = await listCredentials(io, owner);
  const missing = subjects
    .map((subject) => toCredential(federation, subject))
    .filter((each) => !existing.some((other) => isSame(each, other)));
  const total = existing.length + missing.length;
  if (total > maxCredentials) {
    throw failedError(
      `the identity would have ${total} federated credentials, and Azure allows ${maxCredentials}`,
      'Share service accounts, or use spec.federation node.',
    );
  }
  return {
    az: missing.map((each) => createLine(owner, withFreeName(each, existing))),
    notes: [`${subjects.length - missing.length} of ${subjects.length} credentials exist already.`],
  };
}

/** Flags that name the identity or application; the commands of both differ. */
interface Owner {
  readonly command: readonly string[];
  readonly flags: Readonly<Record<string, string>>;
  readonly isApplication: boolean;
}

function applicationOf(clientId: string): Owner {
  if (!isGuid(clientId)) {
    throw failedError(
      'the client id of the AzureIdentity is missing or is no GUID',
      'Correct spec.clientID.',
    );
  }
  const command = ['ad', 'app', 'federated-credential'];
  return { command, flags: { id: clientId }, isApplication: true };
}

function ownerOf(resourceId: string): Owner {
  const id = parseIdentityId(resourceId);
  if (id === undefined) {
    throw failedError(
      'spec.resourceID of the AzureIdentity is no id of a user-assigned identity',
      'Correct it: az identity list --query "[].id" shows them; an application has none.',
    );
  }
  const { subscription, resourceGroup, name } = id;
  const flags = { subscription, 'resource-group': resourceGroup, 'identity-name': name };
  return { command: ['identity', 'federated-credential'], flags, isApplication: false };
}

/** A managed identity, as in the quick start, has only its client id in an object of type 3. */
async function findOwner(io: Io, clientId: string): Promise<Owner> {
  const application = applicationOf(clientId);
  const all = await readAz(io, azLine(['identity', 'list'], {}));
  const found = recordsOf(all).find(
    (each) => normaliseClientId(stringAt(each, 'clientId')) === normaliseClientId(clientId),
  );
  return found === undefined ? application : ownerOf(stringAt(found, 'id'));
}

interface Credential {
  readonly name: string;
  readonly issuer: string;
  readonly subject: string;
  readonly audience: string;
}

function toCredential({ issuer, audience }: Federation, subject: Subject): Credential {
  return { name: credentialName(subject), issuer, subject: subjectOf(subject), audience };
}

function isSame(one: Credential, other: Credential): boolean {
  return (
    one.issuer === other.issuer && one.subject === other.subject && one.audience === other.audience
  );
}

async function listCredentials(io: Io, owner: Owner): Promise<readonly Credential[]> {
  const found = await readAz(io, azLine([...owner.command, 'list'], owner.flags));
  return recordsOf(found).map((each) => ({
    name: stringAt(each, 'name'),
    issuer: stringAt(each, 'issuer'),
    subject: stringAt(each, 'subject'),
    audience: textsAt(each, 'audiences').join(','),
  }));
}

/** Another cluster's credential may have the name, since it has the same service accounts. */
function withFreeName(wanted: Credential, existing: readonly Credential[]): Credential {
  if (existing.every(({ name }) => name.toLowerCase() !== wanted.name.toLowerCase())) return wanted;
  return { ...wanted, name: shorten(wanted.name, `${wanted.issuer} ${wanted.subject}`) };
}

function createLine(owner: Owner, { name, issuer, subject, audience }: Credential): AzLine {
  const command = [...owner.command, 'create'];
  if (owner.isApplication) {
    const parameters = JSON.stringify({ name, issuer, subject, audiences: [audience] });
    return azLine(command, { ...owner.flags, parameters });
  }
  return azLine(command, { name, ...owner.flags, issuer, subject, audiences: audience });
}

/** For an identity whose resource id is not known. */
function renderManaged(credential: Credential): string {
  const flags = { 'resource-group': 'RESOURCE_GROUP', 'identity-name': 'IDENTITY' };
  const command = ['identity', 'federated-credential'];
  return renderAz(createLine({ command, flags, isApplication: false }, credential));
}

/** Azure's limit for the name of a credential. */
const maxNameLength = 120;

/**
 * Each subject has a name of its own: Azure would replace the credential of another subject with
 * the same name. Names consist of letters, digits, hyphens and underscores. No name of Kubernetes
 * contains an underscore: one ends a namespace with a hyphen, two are a dot, and three precede the
 * hash in a name that would be too long, or that is taken.
 */
function credentialName(subject: Subject): string {
  const { namespace, serviceAccount } = subject;
  const separator = namespace.includes('-') ? '_' : '-';
  const name = `${namespace}${separator}${serviceAccount.replaceAll('.', '__')}`;
  return name.length <= maxNameLength ? name : shorten(name, subjectOf(subject));
}

function shorten(name: string, unique: string): string {
  const hash = createHash('sha256').update(unique).digest('hex').slice(0, 32);
  const end = `___${hash}`;
  return `${name.slice(0, maxNameLength - end.length)}${end}`;
}
