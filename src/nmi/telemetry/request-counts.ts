/** Token requests by namespace and AzureIdentity; names beyond a maximum are "other". */
import type { ObjectName } from '../../cache/index/object-name.ts';
import type { Reason } from '../base/answers.ts';
import { BoundedLabel } from './bounded-label.ts';
import type { Metrics } from './metrics.ts';

/** A node has 250 pods at most, unless that limit was raised. */
const maxNamespaces = 200;
const maxOfNamespace = 50;
const maxIdentities = 500;

/** No namespace has this name, and a scrape replaces an empty one with its own namespace. */
const noPod = '-';

/** Hits since the last scrape; incremented by its holder. */
export interface HitCount {
  hits: number;
}

type OfPod = { readonly namespace: string } | undefined;

interface Labels {
  readonly namespace: string;
  /** Empty if the token is not that of an AzureIdentity. */
  readonly identity: string;
}

/** @param byIdentity also fills `nmi_identity_token_requests_total`. */
export function createRequestCounts(metrics: Metrics, byIdentity: boolean) {
  const namespaces = new BoundedLabel(maxNamespaces);
  const identities = new Map<string, BoundedLabel>();
  const allIdentities = new BoundedLabel(maxIdentities);
  const hits = new Map<string, HitCount & { readonly labels: Labels }>();

  function inc({ namespace, identity }: Labels, reason: Reason, by: number): void {
    metrics.inc('nmi_token_requests_total', { namespace, reason }, by);
    if (identity === '') return;
    metrics.inc('nmi_identity_token_requests_total', { namespace, identity, reason }, by);
  }

  function labelsOf(pod: OfPod, identity: ObjectName | undefined): Labels {
    const label = pod === undefined ? noPod : namespaces.of(pod.namespace);
    if (!byIdentity || identity === undefined) return { namespace: label, identity: '' };
    const ofNamespace = identities.get(label) ?? new BoundedLabel(maxOfNamespace);
    identities.set(label, ofNamespace);
    const name = ofNamespace.of(identity.name);
    const isOther = name === 'other' || allIdentities.of(`${label}/${name}`) === 'other';
    return { namespace: label, identity: isOther ? 'other' : name };
  }

  metrics.onScrape(() => {
    for (const count of hits.values()) {
      inc(count.labels, 'ok', count.hits);
      metrics.inc('nmi_requests_total', { route: 'token', reason: 'ok' }, count.hits);
      metrics.inc('nmi_token_cache_requests_total', { outcome: 'hit' }, count.hits);
      count.hits = 0;
    }
  });
  return {
    ofHits(pod: OfPod, identity: ObjectName | undefined): HitCount {
      const labels = labelsOf(pod, identity);
      const key = `${labels.namespace} ${labels.identity}`;
      const known = hits.get(key) ?? { labels, hits: 0 };
      hits.set(key, known);
      return known;
    },
    add: (pod: OfPod, identity: ObjectName | undefined, reason: Reason) =>
      inc(labelsOf(pod, identity), reason, 1),
  };
}
