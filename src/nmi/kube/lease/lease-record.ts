/** The fields of a coordination.k8s.io Lease that an election needs. Pure. */
import { asRecord, stringAt } from '../../base/json-value.ts';

export interface LeaseRecord {
  /** Version of the object, to detect a write of another agent in between. */
  readonly version: string;
  /** Empty without a holder. */
  readonly holder: string;
  /** How often the holder has changed. */
  readonly transitions: number;
  /** As written by the holder; empty when absent. */
  readonly acquireTime: string;
}

/** Undefined if the body is not a Lease. A field that is absent or has the wrong type is empty. */
export function parseLease(body: unknown): LeaseRecord | undefined {
  const object = asRecord(body);
  const version = stringAt(asRecord(object?.['metadata']), 'resourceVersion');
  if (version === '') return undefined;
  const spec = asRecord(object?.['spec']);
  const transitions = spec?.['leaseTransitions'];
  return {
    version,
    holder: stringAt(spec, 'holderIdentity'),
    transitions: typeof transitions === 'number' ? transitions : 0,
    acquireTime: stringAt(spec, 'acquireTime'),
  };
}

export interface LeaseContent {
  readonly namespace: string;
  readonly name: string;
  /** Empty to release the Lease. */
  readonly holder: string;
  readonly durationMs: number;
  readonly nowWallMs: number;
}

/** The object to write. @param known the stored Lease; undefined for a Lease that is created. */
export function renderLease(content: LeaseContent, known: LeaseRecord | undefined): object {
  const { namespace, name, holder, durationMs, nowWallMs } = content;
  const now = microTime(nowWallMs);
  const isSameHolder = known?.holder === holder;
  const version = known === undefined ? {} : { resourceVersion: known.version };
  // A release is not yet a change of holder.
  const isOther = known !== undefined && !isSameHolder && holder !== '';
  return {
    apiVersion: 'coordination.k8s.io/v1',
    kind: 'Lease',
    metadata: { namespace, name, ...version },
    spec: {
      holderIdentity: holder,
      leaseDurationSeconds: Math.max(1, Math.round(durationMs / 1000)),
      acquireTime: isSameHolder && known.acquireTime !== '' ? known.acquireTime : now,
      renewTime: now,
      leaseTransitions: (known?.transitions ?? 0) + (isOther ? 1 : 0),
    },
  };
}

/** Kubernetes accepts exactly six digits after the point. */
function microTime(wallMs: number): string {
  return new Date(wallMs).toISOString().replace('Z', '000Z');
}
