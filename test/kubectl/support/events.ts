/** Events of agents, as `/api/v1` has them. */
import { metadataOf, namespaceOf, type RawObject } from '../../../src/kubectl/base/object.ts';
import { nowWallMs } from './recorded-kubectl.ts';

export interface EventFields {
  readonly reason: string;
  readonly note?: string;
  readonly agoMs?: number;
  readonly node?: string;
  readonly related?: RawObject;
  readonly changes?: object;
}

let made = 0;

export function createEvent(
  about: RawObject,
  { reason, note = '', agoMs = 60_000, node = 'node-1', related, changes = {} }: EventFields,
): RawObject {
  const at = new Date(nowWallMs - agoMs).toISOString();
  const referenceOf = (object: RawObject) => ({
    kind: object['kind'],
    namespace: namespaceOf(object),
    name: metadataOf(object)['name'],
    uid: metadataOf(object)['uid'],
  });
  made += 1;
  return {
    apiVersion: 'v1',
    kind: 'Event',
    metadata: {
      name: `event.${made}`,
      namespace: namespaceOf(about),
      creationTimestamp: at.replace(/\.\d+/, ''),
    },
    eventTime: at.replace('Z', '000Z'),
    reportingComponent: 'entra-pod-identity/nmi',
    reportingInstance: node,
    type: reason === 'IdentityAccepted' ? 'Normal' : 'Warning',
    reason,
    message: note,
    involvedObject: referenceOf(about),
    ...(related === undefined ? {} : { related: referenceOf(related) }),
    ...changes,
  };
}
