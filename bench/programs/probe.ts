/** Probes both containers of a node like the kubelet: a new connection each, as often as the manifests say. */
import { get } from 'node:http';
import { nodePorts } from '../fixture/fabric-plan.ts';

const periodMs = 5_000;

for (const port of [nodePorts.probe, nodePorts.redirectProbe]) {
  for (const page of ['livez', 'readyz']) {
    setInterval(() => {
      get({ host: '127.0.0.1', port, path: `/${page}`, agent: false }, (answer) => answer.resume());
    }, periodMs);
  }
}
