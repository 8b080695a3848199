/**
 * A container like a runtime makes it from the manifest, without a runtime: the files of the image
 * as a read-only root, the DaemonSet's mounts, arguments and capabilities, without bpf(2) unless
 * CAP_BPF is among these, the node's network, and a cgroup namespace with the container's part of
 * the tree at its usual place.
 */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { mkdirSync, writeFileSync } from 'node:fs';
import { parseAllDocuments } from 'yaml';
import { withoutBpf } from '../../../lab/fabric/without-bpf.ts';

interface Mount {
  readonly name: string;
  readonly mountPath: string;
  readonly readOnly?: boolean;
}

export interface Container {
  readonly name: string;
  /** Absent for a container with its own command. */
  readonly args?: readonly string[];
  readonly env?: readonly {
    readonly name: string;
    readonly value?: string;
    readonly valueFrom?: { readonly fieldRef: { readonly fieldPath: string } };
  }[];
  readonly securityContext: {
    readonly runAsUser: number;
    readonly allowPrivilegeEscalation: boolean;
    readonly readOnlyRootFilesystem: boolean;
    readonly capabilities: { readonly drop: readonly string[]; readonly add?: readonly string[] };
  };
  readonly volumeMounts: readonly Mount[];
}

export interface PodSpec {
  readonly initContainers?: readonly Container[];
  readonly containers: readonly Container[];
  readonly volumes: readonly {
    readonly name: string;
    /** Absent for an empty folder of the pod. */
    readonly hostPath?: { readonly path: string };
  }[];
}

/** The pod spec of the workload of a kind in a file below `deploy`. */
export async function readPodSpec(file: string, wanted = 'DaemonSet'): Promise<PodSpec> {
  const text = await readFile(join(import.meta.dirname, '../../../deploy', file), 'utf8');
  const objects = parseAllDocuments(text).map((document) => document.toJS() as Workload);
  const workload = objects.find(({ kind }) => kind === wanted);
  assert.ok(workload !== undefined);
  return workload.spec.template.spec;
}

interface Workload {
  readonly kind: string;
  readonly spec: { readonly template: { readonly spec: PodSpec } };
}

export interface ContainerOptions {
  readonly spec: PodSpec;
  readonly container: Container;
  /** Filled by `image-root.sh`; mount points are made in it. */
  readonly root: string;
  /** The cgroup that the kubelet made for the container. */
  readonly cgroup: string;
  /** The folder that replaces a path of the host, or, by its name, an empty folder of the pod. */
  readonly host: Readonly<Record<string, string>>;
  /** Folders outside the manifest; they have the same path inside. */
  readonly shared?: readonly string[];
  /** Replaces the capabilities of the manifest. */
  readonly capabilities?: readonly string[];
  /** Values of the pod's fields, by path, for the manifest's fieldRefs. */
  readonly fields?: Readonly<Record<string, string>>;
  /** Added to the environment of the manifest. */
  readonly environment: Readonly<Record<string, string>>;
  /** Appended to the arguments of the manifest. */
  readonly args: readonly string[];
}

/** Enters the cgroup first: its cgroup namespace begins there. */
const enter = `set -e
  echo $$ >"$1/cgroup.procs"
  exec unshare --mount --propagation private --cgroup sh -c "$2" sh "$@"`;

/** The mounts of every runtime, then those of the manifest, then the root itself, read-only. */
const contain = (binds: string, user: number) => `set -e
  root=$3 bounding=$4; shift 4
  mount --bind "$root" "$root"
  mount -t proc proc "$root/proc"
  mount --bind "$root/proc/sys" "$root/proc/sys"; mount -o remount,bind,ro "$root/proc/sys"
  mount -t sysfs -o ro sysfs "$root/sys"
  mount -t cgroup2 -o ro cgroup2 "$root/sys/fs/cgroup"
  mount -t tmpfs -o noexec,mode=755 dev "$root/dev"
  : >"$root/dev/null"; mount --bind /dev/null "$root/dev/null"
  mkdir "$root/dev/shm"; mount -t tmpfs -o noexec shm "$root/dev/shm"
  ${binds}
  mount -o remount,bind,ro "$root"
  exec setpriv --bounding-set="$bounding" --inh-caps=-all --no-new-privs -- \
    chroot ${user === 0 ? '' : `--userspec=${user}:${user} --groups=${user}`} "$root" "$@"`;

/** The command that starts it, in the network namespace of the node. */
export function containerCommand(options: ContainerOptions): readonly [string, ...string[]] {
  const { spec, container, root, cgroup, host, shared = [], environment } = options;
  const { securityContext } = container;
  assert.equal(securityContext.allowPrivilegeEscalation, false);
  assert.equal(securityContext.readOnlyRootFilesystem, true);
  assert.deepEqual(securityContext.capabilities.drop, ['ALL']);
  const binds = container.volumeMounts.map(({ name, mountPath, readOnly = false }) => {
    const path = spec.volumes.find((volume) => volume.name === name)?.hostPath?.path ?? name;
    const source = host[path];
    assert.ok(source !== undefined, `nothing replaces ${path}`);
    return { source, path: mountPath, readOnly };
  });
  const all = [...binds, ...shared.map((path) => ({ source: path, path, readOnly: false }))];
  for (const { source, path } of all) makeMountPoint(root, path, source.endsWith('/'));
  const lines = all.map(({ source, path, readOnly }) => {
    const bind = `mount --rbind '${source}' "$root${path}"`;
    return readOnly ? `${bind}; mount -o remount,bind,ro "$root${path}"` : bind;
  });
  const granted = options.capabilities ?? securityContext.capabilities.add ?? [];
  const user = securityContext.runAsUser;
  // chroot itself needs the last ones; a user other than root loses them there with all others.
  const ofChroot = user === 0 ? ['SYS_CHROOT'] : ['SYS_CHROOT', 'SETUID', 'SETGID'];
  const bounding = ['-all', ...[...granted, ...ofChroot].map((name) => `+${name.toLowerCase()}`)];
  const variables: Readonly<Record<string, string>> = {
    PATH: '/bin:/sbin:/usr/bin:/usr/sbin',
    ...manifestVariables(container, options.fields ?? {}),
    ...environment,
  };
  const args = [...(container.args ?? []), ...options.args].map((word) =>
    word.replaceAll(/\$\((\w+)\)/g, (_, name: string) => variables[name] ?? ''),
  );
  return [
    // The one rule of the manifest's seccomp profile that depends on a capability.
    ...(granted.includes('BPF') ? ([] as const) : ([withoutBpf] as const)),
    ...(['env', '-i', ...Object.entries(variables).map(([k, v]) => `${k}=${v}`)] as const),
    ...[
      'sh',
      '-c',
      enter,
      'sh',
      cgroup,
      contain(lines.join('\n  '), user),
      root,
      bounding.join(','),
    ],
    ...['nmi', ...args],
  ];
}

function manifestVariables(
  { env = [] }: Container,
  fields: Readonly<Record<string, string>>,
): Readonly<Record<string, string>> {
  return Object.fromEntries(
    env.map(({ name, value, valueFrom }) => {
      const text = value ?? fields[valueFrom?.fieldRef.fieldPath ?? ''];
      assert.ok(text !== undefined, `the variable ${name} has no value here`);
      return [name, text];
    }),
  );
}

/** Made before the root becomes read-only, as by a runtime. */
function makeMountPoint(root: string, path: string, isFolder: boolean): void {
  mkdirSync(join(root, isFolder ? path : join(path, '..')), { recursive: true });
  if (!isFolder) writeFileSync(join(root, path), '');
}
