/**
 * Events of the kubelet's WatchPods as those of a watch of the API server, with the few fields of a pod that
 * `parsePod` reads. Field numbers are those of k8s.io/api/core/v1 and apimachinery's meta/v1.
 *
 * The kubelet sends a static pod with its own UID, which is that of the cgroup, and no mirror pod; so annotations
 * are not read.
 */
import type { JsonRecord } from '../../../base/json-value.ts';
import { Message } from './protobuf.ts';

const eventTypes = ['UNSPECIFIED', 'ADDED', 'MODIFIED', 'DELETED', 'BOOKMARK'] as const;
/** For pods without one: static pods, and those that were deleted. It only has to exist. */
const noVersion = '0';
/** More labels than a pod may keep are not read: their number is the author's choice. */
const maxLabelChars = 20_000;
/** Seconds since the epoch that are dates, until the year 2242. */
const maxSeconds = 2 ** 33;

/** @throws KubeError `MALFORMED` */
export function readPodEvent(bytes: Buffer): {
  readonly type: string;
  readonly object: JsonRecord;
} {
  const event = new Message(bytes);
  const type = eventTypes[event.number(1)] ?? `of number ${event.number(1)}`;
  const pod = event.message(2);
  // The API server is asked for no pods that have ended. The kubelet keeps those of finished jobs.
  const hasEnded = /^(?:Succeeded|Failed)$/.test(pod.message(3).text(1));
  if (type !== 'BOOKMARK') return { type: hasEnded ? 'DELETED' : type, object: readPod(pod) };
  const annotations = { 'k8s.io/initial-events-end': 'true' };
  return { type, object: { metadata: { resourceVersion: noVersion, annotations } } };
}

function readPod(pod: Message): JsonRecord {
  const [metadata, spec, status] = [pod.message(1), pod.message(2), pod.message(3)];
  return {
    metadata: {
      name: metadata.text(1),
      namespace: metadata.text(3),
      uid: metadata.text(5),
      resourceVersion: metadata.text(6) || noVersion,
      // A static pod has no time of creation, only of its start.
      creationTimestamp: timeOf(metadata.message(8)) || timeOf(status.message(7)),
      deletionTimestamp: timeOf(metadata.message(9)),
      labels: labelsOf(metadata),
    },
    spec: { serviceAccountName: spec.text(8), hostNetwork: spec.number(11) === 1 },
    status: {
      phase: status.text(1),
      podIP: status.text(6),
      podIPs: Array.from(status.messages(12), (each) => ({ ip: each.text(1) })),
    },
  };
}

function labelsOf(metadata: Message): JsonRecord {
  const labels: Record<string, string> = {};
  // A label may have the name of a property that every object has.
  Object.setPrototypeOf(labels, null);
  let chars = 0;
  for (const entry of metadata.messages(11)) {
    const [key, value] = [entry.text(1), entry.text(2)];
    labels[key] = value;
    chars += key.length + value.length;
    if (chars > maxLabelChars) break;
  }
  return labels;
}

/** Empty for the zero time, which has no seconds. */
function timeOf(time: Message): string {
  const seconds = time.number(1);
  return seconds > 0 && seconds < maxSeconds ? new Date(seconds * 1000).toISOString() : '';
}
