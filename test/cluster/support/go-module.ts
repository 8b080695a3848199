/**
 * Modules of other projects from the Go module proxy: programs that tests build, and manifests and
 * definitions to which tests compare ours. The repository has only their versions and checksums.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Provided } from './go-programs.ts';

export interface GoModule {
  readonly path: string;
  readonly version: string;
  /** As in `go.sum`. */
  readonly sum: string;
}

/** The replaced project: its charts, its manifests and its NMI. */
export const aadPodIdentity: GoModule = {
  path: 'github.com/Azure/aad-pod-identity',
  version: 'v1.8.17',
  sum: 'h1:fJ4eGIJs8MO0Y1BN35mwkDcmdVfITuFVsiUBlwng+L8=',
};

/** The definitions of PodMonitor and ServiceMonitor. */
export const prometheusOperator: GoModule = {
  path: 'github.com/prometheus-operator/prometheus-operator',
  version: 'v0.85.0',
  sum: 'h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=',
};

/** The definition of ConstraintTemplate. */
export const constraintFramework: GoModule = {
  path: 'github.com/open-policy-agent/frameworks/constraint',
  version: 'v0.0.0-20260616163050-e1eaa1bf6d62',
  sum: 'h1:2YhLEut4c/JkPCvgtH3pp0nuS5xNJoQ0kSmTUiyUZl8=',
};

/** As `go mod download` reports it. */
export interface Downloaded {
  readonly Path: string;
  readonly Version: string;
  readonly Dir: string;
  readonly Sum: string;
  readonly GoModSum: string;
  readonly Error?: string;
}

const timeoutMs = 300_000;

export interface Downloads {
  readonly modules: readonly Downloaded[];
  /** Why there are none. */
  readonly missing?: string;
}

/** Folders in Go's own cache; the caller compares their checksums. */
export function download(names: readonly string[]): Downloads {
  const { error, status, stdout } = spawnSync('go', ['mod', 'download', '-json', ...names], {
    // In a folder without a module.
    cwd: '/',
    encoding: 'utf8',
    timeout: timeoutMs,
    // The checksum here is stronger than that of the public database.
    env: { ...process.env, GOFLAGS: '', GOSUMDB: 'off' },
  });
  if (error !== undefined) return { modules: [], missing: `go cannot be run: ${error.message}` };
  const modules = (stdout === '' ? '{}' : stdout)
    .split(/(?<=^\}\n)(?=.)/m)
    .map((text) => JSON.parse(text) as Downloaded);
  if (status === 0) return { modules };
  const why = modules.map((each) => each.Error ?? '').join(' ');
  return { modules: [], missing: `go cannot load it: ${why}` };
}

/** Its folder in Go's own cache. Throws if it is another module than the requested one. */
export function provideModule({ path, version, sum }: GoModule): Provided<string> {
  const { modules, missing } = download([`${path}@${version}`]);
  if (missing !== undefined) {
    return { name: path, programs: undefined, missing: `${path}: ${missing}` };
  }
  const [module] = modules;
  if (module?.Sum !== sum) throw new Error(`${path}@${version} is ${module?.Sum ?? 'nothing'}`);
  return { name: path, programs: module.Dir, missing: undefined };
}

/** The four definitions as clusters with aad-pod-identity 1.8 have them. */
export function readOldDefinitions(): string {
  const { programs, missing } = provideModule(aadPodIdentity);
  if (missing !== undefined) throw new Error(missing);
  return readFileSync(join(programs, 'charts/aad-pod-identity/crds/crd.yaml'), 'utf8');
}
