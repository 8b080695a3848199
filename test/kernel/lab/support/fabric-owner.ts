/** A process that owns a fabric, prints its prefix and a child's pid, and then ends by an error. */
import { once } from 'node:events';

import { openFabric } from '../../../../lab/fabric/fabric.ts';

const fabric = await openFabric();
await fabric.addPod('web');
const child = fabric.exec('web', 'sh', ['-c', 'echo up; exec sleep 600']);
if (child.stdout !== null) await once(child.stdout, 'data');
console.log(`${fabric.prefix} ${String(child.pid)}`);
if (process.argv[2] === 'throw') {
  setImmediate(() => {
    throw new Error('on purpose');
  });
}
