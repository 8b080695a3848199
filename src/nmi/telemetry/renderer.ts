/** One way to report requests. It is called after the answer, except for hits. */
import type { Pod } from '../../cache/index/objects.ts';
import type { ThrottleLimit } from '../callers/throttled-pods.ts';
import type { Hit, RequestRecord } from '../server/request-record.ts';

export interface Renderer {
  render(record: RequestRecord): void;
  /**
   * The renderer of all hits of one decision from one address: what they have in common is looked
   * up and rendered once. @param first one of them, which this call does not report.
   */
  hitsLike?(first: RequestRecord): (hit: Hit, durationMs: number) => void;
  throttled?(pod: Pod, limit: ThrottleLimit): void;
}
