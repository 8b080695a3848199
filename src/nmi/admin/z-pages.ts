/**
 * `/statusz` and `/flagz` as Kubernetes components serve them (KEP-4827, KEP-4828): plain text for
 * a person, JSON of the same facts for `Accept: application/json`.
 *
 * Pods can reach the probe port, and its callers are not authenticated. So a page names no object
 * of the cluster and no text that an operator wrote, paths included: of such a flag it shows only
 * that it is set.
 */
import type { Clock } from '../../cache/clock.ts';
import { buildInfo } from '../base/build-info.ts';
import type { Part } from '../base/part.ts';
import { readiness } from '../base/readiness.ts';
import type { Config } from '../config/config.ts';
import { shownFlags } from '../config/shown-flags.ts';

export interface ZPage {
  readonly path: string;
  text(): string;
  /** A value that JSON can render. */
  json(): object;
}

export interface StatusOptions {
  /** Name of the process: `nmi`, or `nmi-redirect` for the kernel side alone. */
  readonly component: string;
  readonly clock: Clock;
  readonly parts: readonly Part[];
}

/** Pages of the probe port. */
const paths = ['/flagz', '/healthz', '/livez', '/readyz', '/statusz'] as const;
const apiVersion = 'config.k8s.io/v1alpha1';
const warning =
  'Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility ' +
  'guarantees and is for debugging purposes only.';

/** The time of this call counts as the start of the process. */
export function statusPage({ component, clock, parts }: StatusOptions): ZPage {
  const startedAtWallMs = clock.wallMs();
  const startedAtMs = clock.monotonicMs();
  const read = () => ({
    upS: Math.floor((clock.monotonicMs() - startedAtMs) / 1000),
    missing: Object.keys(readiness(parts).missing),
    redirect: redirectOf(parts),
  });
  return {
    path: '/statusz',
    text: () => {
      const { upS, missing, redirect } = read();
      return renderPage(component, 'statusz', [
        `Started: ${new Date(startedAtWallMs).toUTCString()}`,
        `Up: ${Math.floor(upS / 3600)} hr ${twoDigits((upS / 60) % 60)} min ${twoDigits(upS % 60)} sec`,
        `Node version: ${process.version}`,
        `Binary version: ${buildInfo.version}`,
        `Commit: ${buildInfo.commit}`,
        `Redirect: ${redirect}`,
        `Ready: ${missing.length === 0 ? 'true' : `false (${missing.join(', ')})`}`,
        `Paths: ${paths.join(' ')}`,
      ]);
    },
    json: () => {
      const { upS, missing, redirect } = read();
      return {
        kind: 'Statusz',
        apiVersion,
        metadata: { name: component },
        startTime: new Date(startedAtWallMs).toISOString().replace(/\.\d+Z$/, 'Z'),
        uptimeSeconds: upS,
        nodeVersion: process.version,
        binaryVersion: buildInfo.version,
        commit: buildInfo.commit,
        redirect,
        ready: missing.length === 0,
        unmetConditions: missing,
        paths,
      };
    },
  };
}

/** Flags with their effective values, from any source. */
export function flagsPage(component: string, config: Config): ZPage {
  const flags = shownFlags(config);
  return {
    path: '/flagz',
    text: () =>
      renderPage(
        component,
        'flagz',
        [...flags].map(([name, value]) => `${name}=${value}`),
      ),
    json: () => ({
      kind: 'Flagz',
      apiVersion,
      metadata: { name: component },
      flags: Object.fromEntries(flags),
    }),
  };
}

function redirectOf(parts: readonly Part[]): string {
  const samples = parts.flatMap((part) => part.samples?.() ?? []);
  const up = samples.find(({ metric }) => metric === 'nmi_redirect_up');
  // A kernel side without a redirect does not report this metric.
  if (up === undefined) return 'none';
  const mode = up.labels?.['mode'] ?? '';
  return up.value === 1 ? mode : `${mode} (not in place)`;
}

function renderPage(component: string, page: string, lines: readonly string[]): string {
  return ['', `${component} ${page}`, warning, '', ...lines, ''].join('\n');
}

function twoDigits(count: number): string {
  return String(Math.floor(count)).padStart(2, '0');
}
