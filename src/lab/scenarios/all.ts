/** Every scenario, in the order they run. */
import type { Scenario } from '../scenario.ts';
import { leak, oneIdentity } from './identities.ts';

export const scenarios: readonly Scenario[] = [oneIdentity, leak];
