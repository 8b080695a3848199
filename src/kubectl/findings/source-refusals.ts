/** Whether the source of an identity refuses it, by the reports of agents. Pure. */
import { stringAt } from '../../base/json-value.ts';
import { scaleSetOf } from '../../nmi/base/scale-set.ts';
import { createFinding, type Finding } from '../../nmi/diagnosis/finding.ts';
import { metadataOf, namespaceOf, specOf, titleOf, type RawObject } from '../base/object.ts';
import {
  reportKey,
  type SourceRefusalCode,
  type SourceReport,
  type SourceReports,
} from '../cluster/source-reports.ts';

export interface SourceRefusal {
  readonly code: SourceRefusalCode;
  /** An error if it counts for the pod. */
  readonly finding: Finding;
  /** Until when the pod gets cached tokens. */
  readonly cachedUntil: string | undefined;
}

type Refusal = SourceReport & { readonly code: SourceRefusalCode };

/**
 * The latest refusal that no later acceptance ends. @param identity the AzureIdentity that the pod
 * gets; undefined for an application without one.
 */
export function sourceRefusalOf(
  pod: RawObject,
  identity: RawObject | undefined,
  reports: SourceReports = new Map(),
): SourceRefusal | undefined {
  const node = stringAt(specOf(pod), 'nodeName');
  const uid = identity === undefined ? '' : uidOf(identity);
  const reported = (kind: 'Pod' | 'AzureIdentity', of: string) =>
    reports.get(reportKey(kind, namespaceOf(pod), of)) ?? [];
  const ofIdentity = reported('AzureIdentity', uid);
  const standing = (among: readonly SourceReport[]) =>
    among
      .filter(isRefusal)
      .filter((each) => !ofIdentity.some((other) => ends(other, each)))
      .toSorted((one, other) => other.atWallMs - one.atWallMs);
  const shared = standing(ofIdentity);
  const [refused] = standing(
    reported('Pod', uidOf(pod)).filter(
      (each) => each.identityUid === uid && !ofResource.has(each.code),
    ),
  );
  // A report about the identity comes before one about the pod, so that its pods share one finding.
  const here = shared.find((each) => !isElsewhere(each, node)) ?? refused;
  const report = here ?? shared[0];
  if (report === undefined) return undefined;
  const isMild = report !== here || report.code.endsWith('_pending') || ofResource.has(report.code);
  const finding = createFinding(report.code, {
    object: identity === undefined ? `Pod ${titleOf(pod)}` : `AzureIdentity ${titleOf(identity)}`,
    text: textOf(report),
    ...(report.fix === undefined ? {} : { fix: report.fix }),
    ...(isMild ? { severity: 'warning' } : {}),
  });
  const { code } = report;
  return { code, finding, cachedUntil: refused === undefined ? report.cachedUntil : undefined };
}

/** A pod may request a resource that there is not; others get their tokens. */
const ofResource: ReadonlySet<SourceReport['code']> = new Set([
  'resource_refused',
  'upstream_refused',
]);

function isRefusal(report: SourceReport): report is Refusal {
  return report.code !== 'accepted';
}

function ends(other: SourceReport, refusal: Refusal): boolean {
  if (other.code !== 'accepted' || other.atWallMs <= refusal.atWallMs) return false;
  return !isElsewhere(refusal, other.node);
}

/** Azure assigns identities to scale sets, and the way to an upstream is that of one node: others may be served. */
function isElsewhere({ code, node: refused }: Refusal, node: string): boolean {
  if (code === 'upstream_down') return refused !== node;
  return code === 'identity_not_assigned' && scaleSetOf(refused) !== scaleSetOf(node);
}

function textOf({ atWallMs, node, text }: Refusal): string {
  const at = new Date(atWallMs).toISOString().replace(/\.\d+/, '');
  return `The agent of node ${node} reported at ${at}: ${text}`;
}

function uidOf(object: RawObject): string {
  return stringAt(metadataOf(object), 'uid');
}
