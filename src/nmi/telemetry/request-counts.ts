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

export class RequestCounts {
  readonly #metrics: Metrics;
  readonly #byIdentity: boolean;
  readonly #namespaces = new BoundedLabel(maxNamespaces);
  readonly #identities = new Map<string, BoundedLabel>();
  readonly #allIdentities = new BoundedLabel(maxIdentities);
  readonly #hits = new Map<string, HitCount & { readonly labels: Labels }>();

  /** @param byIdentity also fills `nmi_identity_token_requests_total`. */
  constructor(metrics: Metrics, byIdentity: boolean) {
    this.#metrics = metrics;
    this.#byIdentity = byIdentity;
    metrics.onScrape(() => {
      for (const count of this.#hits.values()) {
        this.#inc(count.labels, 'ok', count.hits);
        metrics.inc('nmi_requests_total', { route: 'token', reason: 'ok' }, count.hits);
        metrics.inc('nmi_token_cache_requests_total', { outcome: 'hit' }, count.hits);
        count.hits = 0;
      }
    });
  }

  ofHits(pod: OfPod, identity: ObjectName | undefined): HitCount {
    const labels = this.#labelsOf(pod, identity);
    const key = `${labels.namespace} ${labels.identity}`;
    const known = this.#hits.get(key) ?? { labels, hits: 0 };
    this.#hits.set(key, known);
    return known;
  }

  add(pod: OfPod, identity: ObjectName | undefined, reason: Reason): void {
    this.#inc(this.#labelsOf(pod, identity), reason, 1);
  }

  #inc({ namespace, identity }: Labels, reason: Reason, by: number): void {
    this.#metrics.inc('nmi_token_requests_total', { namespace, reason }, by);
    if (identity === '') return;
    const labels = { namespace, identity, reason };
    this.#metrics.inc('nmi_identity_token_requests_total', labels, by);
  }

  #labelsOf(pod: OfPod, identity: ObjectName | undefined): Labels {
    const label = pod === undefined ? noPod : this.#namespaces.of(pod.namespace);
    if (!this.#byIdentity || identity === undefined) return { namespace: label, identity: '' };
    const ofNamespace = this.#identities.get(label) ?? new BoundedLabel(maxOfNamespace);
    this.#identities.set(label, ofNamespace);
    const name = ofNamespace.of(identity.name);
    const isOther = name === 'other' || this.#allIdentities.of(`${label}/${name}`) === 'other';
    return { namespace: label, identity: isOther ? 'other' : name };
  }
}
