/** A small version of the lab's two processes: outer by default, inner when called with `inner`. */
import { openFakeImds } from '../../../../lab/fakes/imds/fake-imds.ts';
import { attachFabric } from '../../../../lab/fabric/fabric.ts';
import { superviseLab } from '../../../../lab/fabric/supervise.ts';

const [verb, prefix = '', innerBehaviour] = process.argv.slice(2);

if (verb === 'inner') {
  const fabric = attachFabric(prefix);
  await fabric.addPod('web');
  fabric.exec('web', 'sleep', ['600']);
  await openFakeImds({ host: '169.254.169.254', port: 80, nodeIps: [], systemAssigned: undefined });
  process.on('SIGTERM', () => {
    if (innerBehaviour !== 'deaf') process.exit(0);
  });
  console.log(`${prefix} ${String(process.pid)}`);
  if (innerBehaviour === 'exit') process.exit(3);
} else {
  const stop = new AbortController();
  process.on('SIGINT', () => {
    stop.abort();
  });
  process.exit(
    await superviseLab({
      args: [verb ?? ''],
      stop: stop.signal,
      graceMs: 300,
      command: [process.execPath, import.meta.filename],
    }),
  );
}
