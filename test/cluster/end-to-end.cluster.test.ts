/**
 * From `kubectl apply` to a token in a pod: a real API server, the agent with the permissions of
 * the manifests, the real redirect in network namespaces; only Azure is a fake.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { openFabric } from '../../lab/fabric/fabric.ts';
import { listFabricNamespaces } from '../../lab/fabric/namespaces.ts';
import { fabricSkip } from '../lab/support/fabric-pod.ts';
import { whyNoPrograms } from '../kernel/redirect/cgroup-fixture.ts';
import { provideHelm } from './support/binaries.ts';
import { versionsFor } from './support/on-clusters.ts';

const inner = join(import.meta.dirname, 'support/end-to-end-inner.ts');
const limitMs = 150_000;

const redirects = whyNoPrograms() === false ? ['iptables', 'ebpf'] : ['iptables'];

describe('the agent, installed by the README', () => {
  for (const { name, programs, missing } of versionsFor('long')) {
    const skip = missing ?? provideHelm().missing ?? fabricSkip;
    it(`serves pods by ${redirects.join(' and by ')} (${name})`, { skip }, async () => {
      assert.ok(programs !== undefined);
      let prefix = '';
      {
        await using fabric = await openFabric({ name: 'cluster' });
        ({ prefix } = fabric);
        const child = fabric.exec('azure', process.execPath, [
          ...[inner, prefix, programs.version, ...redirects],
        ]);
        let printed = '';
        for (const stream of [child.stdout, child.stderr]) {
          stream?.setEncoding('utf8').on('data', (text: string) => (printed += text));
        }
        const late = setTimeout(() => child.kill('SIGKILL'), limitMs);
        const [code] = (await once(child, 'close')) as [number | null];
        clearTimeout(late);
        assert.equal(code, 0, printed);
        for (const redirect of redirects)
          assert.match(printed, new RegExp(`^${redirect}: held$`, 'm'));
      }
      assert.deepEqual(listFabricNamespaces(prefix), []);
    });
  }
});
