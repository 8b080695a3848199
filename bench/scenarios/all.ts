import { against } from './against.ts';
import { attestation } from './attestation.ts';
import { churn } from './churn.ts';
import { coldStart } from './cold-start.ts';
import { expiry } from './expiry.ts';
import { fleet } from './fleet.ts';
import { growth } from './growth.ts';
import { hit } from './hit.ts';
import { idle } from './idle.ts';
import { indexUpdates } from './index-updates.ts';
import { memory } from './memory.ts';
import { micro } from './micro.ts';
import { miss } from './miss.ts';
import { mix } from './mix.ts';
import { newConnections } from './new-connections.ts';
import { outage } from './outage.ts';
import { redirects } from './redirects.ts';
import { restart } from './restart.ts';
import type { Scenario } from './scenario.ts';
import { soak } from './soak.ts';
import { stampede } from './stampede.ts';
import { throttled } from './throttled.ts';

/** In the order of runs and reports. */
export const scenarios: readonly Scenario[] = [
  ...[
    hit,
    newConnections,
    redirects,
    attestation,
    mix,
    churn,
    miss,
    expiry,
    stampede,
    throttled,
    restart,
    outage,
  ],
  ...[coldStart, memory, idle, growth, indexUpdates, micro, soak, fleet, against],
];
