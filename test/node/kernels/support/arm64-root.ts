/**
 * The folders of an arm64 machine: Debian's programs, this repository, and the product built for arm64.
 * Nothing of it runs on this machine except the compilers.
 */
import { copyFileSync, mkdirSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { buildStamp, makeExecutable, repositoryRoot } from '../../../../scripts/build.ts';
import { prepareBuilder } from '../../../../scripts/image/builder.ts';
import { unpackDebian } from '../../../../scripts/image/debian-tree.ts';
import { nativeProducts } from '../../../../scripts/native.ts';
import type { Kernel } from './debian-kernels.ts';
import type { SharedFolder } from './machine.ts';

export interface Arm64Root {
  readonly shared: readonly SharedFolder[];
  /** The folder of Node's executable. */
  readonly nodeFolder: string;
}

const architecture = 'arm64';
/** Not that of all tests: the product in it is this clone's. */
const cache = join(repositoryRoot, '.cache/kernels');
/** Programs of the lab and of `guest-main.sh`, and libraries of Node. */
const packages = [
  ...['base-files', 'bash', 'coreutils', 'findutils', 'grep', 'hostname', 'kmod', 'mount', 'sed'],
  ...['iproute2', 'iptables', 'procps', 'util-linux', 'libatomic1', 'libstdc++6'],
];
/** Made by the packages' scripts on an installed system. */
const links: readonly (readonly [path: string, target: string])[] = [
  ['usr/bin/sh', 'bash'],
  ...['iptables', 'iptables-save', 'iptables-restore'].map(
    (name) => [`usr/sbin/${name}`, 'xtables-nft-multi'] as const,
  ),
];

/** @throws Error with the output of apt, npm or the compilers. */
export async function makeArm64Root({ modules }: Kernel): Promise<Arm64Root> {
  const { folder } = unpackDebian({
    folder: join(cache, 'root-arm64'),
    architectures: [architecture],
    packages,
  });
  for (const [path, target] of links) {
    rmSync(join(folder, path), { force: true });
    symlinkSync(target, join(folder, path));
  }
  // Of the machine's initramfs, of this repository, and of the tests' cache.
  for (const name of ['host', 'over', 'new', repositoryRoot, modules]) {
    mkdirSync(join(folder, name), { recursive: true });
  }
  const builder = prepareBuilder(architecture);
  const dist = join(cache, 'dist-arm64');
  rmSync(dist, { recursive: true, force: true });
  mkdirSync(join(dist, 'native'), { recursive: true });
  await makeExecutable(dist, builder, buildStamp());
  for (const name of nativeProducts) {
    copyFileSync(join(builder.native, name), join(dist, 'native', name));
  }
  const lab = join(repositoryRoot, 'lab');
  builder.compile(join(lab, 'frames/native'), ['frames.node'], join(dist, 'lab'));
  builder.compile(join(lab, 'fabric/native'), ['without-bpf'], join(dist, 'lab/fabric'));
  builder.compile(join(lab, 'pods/native'), ['forward', 'connect-storm'], join(dist, 'lab/pods'));
  return {
    shared: [
      { source: folder, target: '' },
      { source: repositoryRoot, target: repositoryRoot },
      { source: dist, target: join(repositoryRoot, 'dist') },
      { source: modules, target: modules },
    ],
    nodeFolder: join(builder.node, '..'),
  };
}
