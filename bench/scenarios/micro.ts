import { do_not_optimize as use, measure } from 'mitata';
import { chooseIdentity } from '../../src/nmi/grants/choose-identity.ts';
import { parseRoute } from '../../src/nmi/server/route.ts';
import { parseTokenQuery } from '../../src/nmi/server/token-query.ts';
import type { Figure } from '../core/results.ts';
import { fillCache } from '../fixture/cached-tokens.ts';
import { createPod, fillIndexes } from '../fixture/indexes.ts';
import { goalSize } from '../fixture/objects.ts';
import { defaultTarget } from '../fixture/fixture.ts';
import type { Scenario } from './scenario.ts';

const policy = { strict: false, graceMs: 60_000, hostNetwork: 'serve' } as const;

export const micro: Scenario = {
  name: 'micro',
  title: 'The steps of a request, each alone, in process',
  isQuick: true,
  run: async ({ options, say }) => {
    const { pods, grants } = fillIndexes(goalSize);
    const { uid, ips } = createPod(1);
    const [ip = ''] = ips;
    const podGrants = grants.grantsOf(uid);
    if (podGrants?.kind !== 'bound') throw new TypeError('the pod is not bound');
    const { cache, keys } = await fillCache(1_000);
    using _closed = cache;
    const [key = ''] = keys;
    const rendered = cache.peek(key);
    if (rendered === undefined) throw new TypeError('the token is not cached');
    const query = defaultTarget.slice(defaultTarget.indexOf('?') + 1);
    const nowMs = Date.now();
    let life = 0;
    const lives = [createPod(1, 1), createPod(1, 2)];
    // The results are used, or the compiler would remove the work.
    const steps: Readonly<Record<string, () => unknown>> = {
      'route scan': () => parseRoute(defaultTarget),
      'query of the request': () => parseTokenQuery(query),
      'pod by address': () => pods.byIp(ip),
      'grants of a pod': () => grants.grantsOf(uid),
      grant: () => chooseIdentity(podGrants, { kind: 'none' }, policy, nowMs),
      'cache hit': () => cache.peek(key),
      'render an answer': () => rendered.body(nowMs),
      'index update, pod event': () => {
        life += 1;
        const other = lives[life % lives.length];
        if (other !== undefined) pods.upsert(other);
      },
    };
    const figures: Figure[] = [];
    for (const [name, step] of Object.entries(steps)) {
      const values: number[] = [];
      for (let round = 0; round < options.rounds; round++) {
        const { avg } = await measure(() => use(step()), { min_cpu_time: 50e6 });
        values.push(avg);
      }
      figures.push({ name, unit: 'ns', values });
      say(name);
    }
    return { figures };
  },
};
