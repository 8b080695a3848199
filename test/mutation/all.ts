/** Every fault, in the order of the folders. */
import { base } from './faults/base.ts';
import { cache } from './faults/cache.ts';
import { grants } from './faults/grants.ts';
import { kube } from './faults/kube.ts';
import { kubectl } from './faults/kubectl.ts';
import { redirect } from './faults/redirect.ts';
import { server } from './faults/server.ts';
import { sources } from './faults/sources.ts';
import { tools } from './faults/tools.ts';
import { mutationsOf } from './mutation.ts';

export const allMutations = mutationsOf(
  cache,
  redirect,
  base,
  kube,
  sources,
  grants,
  server,
  tools,
  kubectl,
);
