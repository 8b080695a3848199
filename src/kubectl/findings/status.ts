/** What `nmi conditions` found that most users may not read: Secrets, its options, grants. Pure. */
import { type Finding, oneFinding } from '../../nmi/diagnosis/finding.ts';
import { isCode } from '../../nmi/diagnosis/codes.ts';
import { stringAt, type JsonRecord } from '../../base/json-value.ts';
import { conditionOf, metadataOf, titleOf, type RawObject } from '../base/object.ts';

/** @param isDecided by options and grants; then only Secrets count: the status may be seconds behind. */
export function findingsOfStatus(identity: RawObject, isDecided: boolean): readonly Finding[] {
  const ready = readyOf(identity);
  const code = stringAt(ready, 'reason');
  if (ready?.['status'] !== 'False' || !isCode(code)) return [];
  if (isDecided && !code.startsWith('credential_')) return [];
  const object = `AzureIdentity ${titleOf(identity)}`;
  const text = `Its status is not ready: ${stringAt(ready, 'message')}`;
  return oneFinding(code, { object, text });
}

/** Whether `nmi conditions` has found the identity, its Secret included, without fault. */
export function isReadyByStatus(identity: RawObject): boolean {
  return readyOf(identity)?.['status'] === 'True';
}

/** Undefined if the condition is about an older spec. */
function readyOf(identity: RawObject): JsonRecord | undefined {
  const ready = conditionOf(identity, 'Ready');
  return ready?.['observedGeneration'] === metadataOf(identity)['generation'] ? ready : undefined;
}
