/** The same cases with every request parsed and answered by `node:http`. */
import { parseTarget } from './target.ts';

// Another implementation has already been tested, and has no fast path.
if (parseTarget(process.env) === undefined) {
  process.env['NMI_FAST_PATH'] = 'false';
  await import('./wire.test.ts');
  await import('./test-bed.test.ts');
  await import('./entra.test.ts');
}
