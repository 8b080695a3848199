/** The API server and the metadata service: the fakes of the lab, on a simulated machine of their own. */
import { createLabIdentity, createNodeIdentity } from '../../lab/fakes/identity.ts';
import type { FakeImds } from '../../lab/fakes/imds/fake-imds.ts';
import type { FakeKube } from '../../lab/fakes/kube/fake-kube.ts';
import type { Machine, Process } from './machine.ts';
import { metadata } from './kernel.ts';
import { clockOf } from './clock.ts';
import type { World } from './world.ts';

export const apiServer = { ip: '10.0.0.1', port: 6443 };
export const identities = ['a', 'b', 'c', 'd'].map((name) => createLabIdentity(name));

export interface Cloud {
  readonly kube: FakeKube;
  readonly imds: FakeImds;
  readonly process: Process;
  /** Runs in the process of the services, whose clock and randomness are those of the run. */
  readonly within: (work: () => void) => void;
}

export async function openLabCloud(world: World, machine: Machine): Promise<Cloud> {
  const { network, loaded, nodes } = world;
  network.place(apiServer.ip, machine);
  network.place(metadata.ip, machine);
  const opened = Promise.withResolvers<Cloud>();
  const process = world.start('cloud', machine, async () => {
    const clock = clockOf(process);
    const kube = await loaded.code.openFakeKube({
      host: apiServer.ip,
      port: apiServer.port,
      clock,
      bookmarkEveryMs: 5_000,
    });
    const imds = await loaded.code.openFakeImds({
      host: metadata.ip,
      port: metadata.port,
      nodeIps: nodes.map(({ ip }) => ip),
      systemAssigned: createNodeIdentity(),
      userAssigned: identities,
      clock,
    });
    opened.resolve({ kube, imds, process, within: (work) => process.enter(work) });
    return new Promise<number>(() => undefined);
  });
  return opened.promise;
}
