/**
 * Files of other projects from the Go module proxy: manifests and definitions to which tests
 * compare ours. The repository contains only a version and a checksum of theirs.
 */
import { spawnSync } from 'node:child_process';
import type { Provided } from './go-programs.ts';

export interface GoModule {
  readonly path: string;
  readonly version: string;
  /** As in `go.sum`. */
  readonly sum: string;
}

/** The replaced project: its charts and its manifests. */
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

const timeoutMs = 300_000;

/** Its folder in Go's own cache. Throws if it is another module than the requested one. */
export function provideModule({ path, version, sum }: GoModule): Provided<string> {
  const { error, status, stdout } = spawnSync(
    'go',
    ['mod', 'download', '-json', `${path}@${version}`],
    {
      encoding: 'utf8',
      timeout: timeoutMs,
      // The checksum here is stronger than that of the public database.
      env: { ...process.env, GOFLAGS: '', GOSUMDB: 'off' },
    },
  );
  if (error !== undefined) return missing(path, `go cannot be run: ${error.message}`);
  const said = JSON.parse(stdout === '' ? '{}' : stdout) as Readonly<Record<string, string>>;
  if (status !== 0) return missing(path, `go cannot load it: ${said['Error'] ?? ''}`);
  if (said['Sum'] !== sum) throw new Error(`${path}@${version} is ${said['Sum'] ?? 'nothing'}`);
  return { name: path, programs: said['Dir'] ?? '', missing: undefined };
}

function missing(name: string, why: string): Provided<string> {
  return { name, programs: undefined, missing: `${name}: ${why}` };
}
