/** One way to report requests. It is called after the answer, except for hits. */
import type { Pod } from '../../cache/index/objects.ts';
import type { ThrottleLimit } from '../callers/throttled-pods.ts';
import type { Hit, RequestRecord } from '../server/request-record.ts';

export interface Renderer {
  render(record: RequestRecord): void;
  /** For all hits like this one, which it does not report: what they share is rendered once. */
  hitsLike?(first: RequestRecord): (hit: Hit, durationMs: number) => void;
  throttled?(pod: Pod, limit: ThrottleLimit): void;
}
