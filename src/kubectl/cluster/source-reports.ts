/**
 * What agents reported about the sources of identities, as Events: refusals, which no object shows,
 * and acceptances. Everybody who may write Events in a namespace can write the same there, so an
 * Event of a namespace counts for its objects only, and never makes a refused pod granted.
 */
import { asRecord, stringAt } from '../../base/json-value.ts';
import type { RefusalReason } from '../../nmi/base/answers.ts';
import { eventReasonOf, reportingController } from '../../nmi/kube/events/event.ts';
import { metadataOf, namespaceOf, type RawObject } from '../base/object.ts';
import { shellWord, toLine } from '../base/output.ts';
import type { Kubectl, Scope } from '../transport/kubectl.ts';
import { losses, valueOrUnread, type Unread } from './unread.ts';

/** Of a permanent refusal, or of one that may become so. */
const refusalCodes = [
  'identity_not_assigned',
  'identity_refused',
  'credential_refused',
  'credential_invalid',
  'credential_missing',
  'credential_pending',
  'federation_refused',
  'federation_pending',
  'policy_refused',
  'resource_refused',
  'upstream_refused',
  'upstream_down',
] as const satisfies readonly RefusalReason[];

export type SourceRefusalCode = (typeof refusalCodes)[number];

export interface SourceReport {
  readonly code: SourceRefusalCode | 'accepted';
  readonly atWallMs: number;
  readonly node: string;
  /** Of the AzureIdentity that an Event about a pod names; empty if it names none. */
  readonly identityUid: string;
  /** Until when cached tokens are valid; undefined if none are. */
  readonly cachedUntil: string | undefined;
  /** One short line. */
  readonly text: string;
  /** Undefined: nothing more exact than what the code table says. */
  readonly fix: string | undefined;
}

/** By the object that they are about. */
export type SourceReports = ReadonlyMap<string, readonly SourceReport[]>;

const reportedMs = 3_600_000;
/** What is not final has passed by then, or another report follows. */
const pendingMs = 300_000;
/** Most Events that are read. */
const maxEvents = 5_000;
/** The API server refuses longer notes of Events. */
const maxNote = 1_024;
const maxText = 300;
const cachedPattern = /Cached tokens are valid until (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)\./;

const codes: ReadonlyMap<string, SourceReport['code']> = new Map([
  ['IdentityAccepted', 'accepted'],
  ...refusalCodes.map((code) => [eventReasonOf(code), code] as const),
]);

export function reportKey(kind: 'Pod' | 'AzureIdentity', namespace: string, uid: string): string {
  return `${namespace}/${kind}/${uid}`;
}

/** By one call: the server selects them. Undefined if the user may not. */
export async function readSourceReports(
  kubectl: Kubectl,
  scope: Scope,
  nowWallMs: number,
  unread: Unread[],
): Promise<SourceReports | undefined> {
  const fieldSelector = `reportingComponent=${reportingController}`;
  const read = await kubectl.list('events', scope, { fieldSelector, limit: String(maxEvents) });
  const where = scope === undefined ? '-A' : `-n ${shellWord(scope)}`;
  const what = `list events (kubectl get events ${where} --field-selector=${fieldSelector})`;
  const events = valueOrUnread(read, what, losses.refusals, unread);
  if (events === undefined) return undefined;
  if (events.length >= maxEvents) {
    const why = `there are more than ${maxEvents}; -n reads those of one namespace`;
    unread.push({ what: 'read all Events of the agents', why, loses: losses.refusals });
  }
  return sourceReportsOf(events, nowWallMs);
}

export function sourceReportsOf(events: readonly RawObject[], nowWallMs: number): SourceReports {
  const reports = events.slice(0, maxEvents).flatMap((event) => {
    const report = parseReport(event, nowWallMs);
    const { kind, uid } = referenceAt(event, 'involvedObject');
    const isBrief =
      report?.code.endsWith('_pending') || (report?.code === 'upstream_down' && kind === 'Pod');
    const lastsMs = isBrief ? pendingMs : reportedMs;
    const isRecent = report !== undefined && report.atWallMs > nowWallMs - lastsMs;
    if (!isRecent || (kind !== 'Pod' && kind !== 'AzureIdentity')) return [];
    return [{ key: reportKey(kind, namespaceOf(event), uid), report }];
  });
  const groups = Map.groupBy(reports, ({ key }) => key);
  return new Map([...groups].map(([key, each]) => [key, each.map(({ report }) => report)]));
}

function parseReport(event: RawObject, nowWallMs: number): SourceReport | undefined {
  const code = codes.get(stringAt(event, 'reason'));
  if (code === undefined || event['reportingComponent'] !== reportingController) return undefined;
  if (event['type'] !== (code === 'accepted' ? 'Normal' : 'Warning')) return undefined;
  const atWallMs = timeOf(event);
  if (Number.isNaN(atWallMs)) return undefined;
  const note = stringAt(event, 'message').slice(0, maxNote);
  const [text = '', fix] = note.split(' Fix: ');
  const [, cachedUntil = ''] = cachedPattern.exec(note) ?? [];
  const related = referenceAt(event, 'related');
  return {
    code,
    atWallMs,
    node: toLine(stringAt(event, 'reportingInstance').slice(0, maxText)),
    identityUid: related.kind === 'AzureIdentity' ? related.uid : '',
    cachedUntil: Date.parse(cachedUntil) > nowWallMs ? cachedUntil : undefined,
    text: toLine(text.slice(0, maxText)),
    fix: code === 'upstream_down' && fix !== undefined ? toLine(fix.slice(0, maxText)) : undefined,
  };
}

/** The writer's own time may be a while before that of the server, and never after it. */
function timeOf(event: RawObject): number {
  const created = Date.parse(stringAt(metadataOf(event), 'creationTimestamp')) + 1_000;
  const written = Date.parse(stringAt(event, 'eventTime'));
  return Math.min(created, written);
}

function referenceAt(event: RawObject, key: string) {
  const reference = asRecord(event[key]);
  return { kind: stringAt(reference, 'kind'), uid: stringAt(reference, 'uid') };
}
