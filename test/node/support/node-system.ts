/** The parts of a test node: its system, programs and images. Made once, kept in `.cache`. */
import { spawnSync } from 'node:child_process';
import type { Provided } from '../../cluster/support/go-programs.ts';
import { findFabricObstacle } from '../../../lab/fabric/fabric.ts';
import { findMissingTool, makeDebianSystem } from '../../support/debian-system.ts';
import { provideCached } from './cached.ts';
import { provideImages } from './images.ts';
import { provideNodePrograms, type NodePrograms } from './node-programs.ts';

export interface NodeSystem {
  /** Folder of the Debian system. */
  readonly root: string;
  readonly programs: NodePrograms;
  /** Archives of images. */
  readonly images: readonly string[];
}

const release = 'trixie';
const packages = [
  ...['systemd', 'systemd-sysv', 'dbus', 'kmod', 'procps', 'util-linux', 'mount', 'netbase'],
  ...['containerd', 'runc', 'containernetworking-plugins', 'jq'],
  ...['iptables', 'nftables', 'conntrack', 'iproute2', 'ethtool', 'socat'],
];

/** Without its requirements there is no test bed, which is not a failure. */
export function provideNodeSystem(): Provided<NodeSystem> {
  const name = 'a real node';
  const obstacle = findObstacle();
  if (obstacle !== undefined) return { name, programs: undefined, missing: obstacle };
  const { programs, missing } = provideNodePrograms();
  if (programs === undefined) return { name, programs, missing };
  const root = provideSystem();
  return { name, missing: undefined, programs: { root, programs, images: provideImages() } };
}

function provideSystem(): string {
  return provideCached('system', [release, ...packages], (root) => {
    makeDebianSystem({ release, root, variant: 'minbase', packages });
  });
}

function findObstacle(): string | undefined {
  const fabric = findFabricObstacle();
  if (fabric !== undefined) return fabric;
  const tool = findMissingTool('buildah', 'mmdebstrap', 'unshare', 'gcc');
  if (tool !== undefined) return `${tool} is not installed (apt-get install mmdebstrap buildah)`;
  const { status, stderr } = spawnSync(
    'unshare',
    ['--mount', '--pid', '--cgroup', '--fork', 'true'],
    {
      encoding: 'utf8',
    },
  );
  return status === 0 ? undefined : `no namespaces can be made: ${stderr.trim()}`;
}
