/**
 * Four pods that request tokens without pause on new connections: with an identity and without, each with a
 * network of its own and on the host network (`host`, and `driver` as an add-on of the node). Their results are read from the node's
 * disk, so that they survive every failure of the node.
 */
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { eventually } from '../../../lab/test-bed/eventually.ts';
import { clientPod } from './client-pods.ts';
import type { TestNode } from './node.ts';

const loadPods = ['bound', 'unbound', 'host', 'driver'] as const;
export type LoadPod = (typeof loadPods)[number];

/** The results of one pod. */
export interface Seen {
  /** Requests by status or error, and by the token's identity: `200 app`, `ECONNREFUSED`. */
  readonly outcomes: Readonly<Record<string, number>>;
  /** The longest time in which no request got a final answer: a status below 500. */
  readonly silentMs: number;
}

export type LoadReport = Readonly<Record<LoadPod, Seen>>;

interface Line {
  readonly at: number;
  readonly tookMs: number;
  readonly outcome: string;
  readonly identity?: string;
}

export interface Load {
  /**
   * The pods' results from the start of `work` until each has a final answer again after its end.
   * Fails if one has none for `recoveryMs`.
   */
  during(work: () => Promise<unknown>, recoveryMs?: number): Promise<LoadReport>;
  /** Results since a moment, in milliseconds since the epoch. */
  since(startMs: number): LoadReport;
}

const folder = '/var/lib/load';

/** Between two looks for an answer. */
const pauseMs = 100;

/** @param everyMs each pod's pause between two requests: half a processor is busy with pauses of 20 ms. */
export async function startLoad(node: TestNode, everyMs = 20): Promise<Load> {
  const at = node.machine.state('load');
  mkdirSync(at, { recursive: true });
  await node.apply(
    ...loadPods.map((name) => {
      const isBound = name === 'bound' || name === 'host';
      const labels = isBound ? { aadpodidbinding: 'app' } : {};
      const spec = { hostNetwork: name === 'host' || name === 'driver' };
      return loadPod(name, labels, spec, everyMs);
    }),
  );

  const readers = new Map(loadPods.map((name) => [name, openLines(join(at, name))]));
  const read = (name: LoadPod): readonly Line[] => readers.get(name)?.() ?? [];
  const since = (startMs: number): LoadReport => {
    const reports = loadPods.map((name) => [name, summarize(read(name), startMs)] as const);
    return Object.fromEntries(reports) as LoadReport;
  };
  const hasAnswerAfter = (startMs: number): void => {
    for (const name of loadPods) {
      const found = read(name).some((line) => line.at > startMs && isFinal(line));
      assert.ok(found, `pod load-${name} has no answer: ${JSON.stringify(since(startMs)[name])}`);
    }
  };

  await eventually(
    () => {
      hasAnswerAfter(0);
    },
    60_000,
    pauseMs,
  );
  return {
    since,
    async during(work, recoveryMs = 60_000) {
      const startMs = Date.now();
      await work();
      const endMs = Date.now();
      await eventually(
        () => {
          hasAnswerAfter(endMs);
        },
        recoveryMs,
        pauseMs,
      );
      return since(startMs);
    },
  };
}

function loadPod(
  name: string,
  labels: Readonly<Record<string, string>>,
  spec: object,
  everyMs: number,
): object {
  const volume = { name: 'load', hostPath: { path: folder } };
  return clientPod({
    name: `load-${name}`,
    args: ['load', `${folder}/${name}`, String(everyMs)],
    labels,
    spec: { restartPolicy: 'Always', volumes: [volume], ...spec },
    container: { volumeMounts: [{ name: 'load', mountPath: folder }] },
  });
}

/** A static pod that requests tokens, started by the kubelet at each boot; by default without an identity. */
export function startStaticLoad(
  node: TestNode,
  name = 'static',
  labels: Readonly<Record<string, string>> = {},
): { since(startMs: number): Seen } {
  const file = `/etc/kubernetes/manifests/load-${name}.yaml`;
  node.machine.write(file, JSON.stringify(loadPod(name, labels, {}, 20)));
  const read = openLines(join(node.machine.state('load'), name));
  return { since: (startMs) => summarize(read(), startMs) };
}

/** Reads all lines of a growing file; each is parsed once. */
function openLines(path: string): () => readonly Line[] {
  const lines: Line[] = [];
  let rest = '';
  let bytes = 0;
  return () => {
    const more = readFileSync(path).subarray(bytes);
    bytes += more.length;
    const texts = (rest + more.toString('latin1')).split('\n');
    rest = texts.pop() ?? '';
    // After a power cut a line may be incomplete.
    for (const text of texts) if (text.endsWith('}')) lines.push(JSON.parse(text) as Line);
    return lines;
  };
}

function isFinal({ outcome }: Line): boolean {
  return /^[1-4]\d\d$/.test(outcome);
}

function summarize(lines: readonly Line[], startMs: number): Seen {
  const outcomes: Record<string, number> = {};
  let [silentMs, lastMs] = [0, startMs];
  for (const line of lines) {
    const endMs = line.at + line.tookMs;
    if (endMs < startMs) continue;
    const key = line.identity === undefined ? line.outcome : `${line.outcome} ${line.identity}`;
    outcomes[key] = (outcomes[key] ?? 0) + 1;
    silentMs = Math.max(silentMs, endMs - lastMs);
    if (isFinal(line)) lastMs = endMs;
  }
  return { outcomes, silentMs };
}

/**
 * No pod got a token of another identity than its own; the one on the host network may get those of
 * `host`.
 */
export function assertClosed(report: LoadReport, host: readonly string[]): void {
  const identities = (name: LoadPod): readonly string[] =>
    Object.keys(report[name].outcomes).flatMap((key) => /^\d+ (.+)$/.exec(key)?.[1] ?? []);
  const others = {
    bound: identities('bound').filter((identity) => identity !== 'app'),
    unbound: identities('unbound'),
    host: identities('host').filter((identity) => !host.includes(identity)),
    driver: identities('driver').filter((identity) => identity !== 'node'),
  };
  const none = { bound: [], unbound: [], host: [], driver: [] };
  assert.deepEqual(others, none, JSON.stringify(report));
  // SDKs treat it as final.
  assert.equal(report.bound.outcomes['403'], undefined, JSON.stringify(report));
}

/** The node's own pods read the metadata service whatever happens to the agent. */
export function assertIndependent({ driver }: LoadReport): void {
  assert.deepEqual(Object.keys(driver.outcomes), ['200 node'], JSON.stringify(driver));
}

/** One line for a test's report. */
export function describeLoad(report: LoadReport): string {
  return loadPods
    .map((name) => {
      const { outcomes, silentMs } = report[name];
      const counts = Object.entries(outcomes).map(([key, count]) => `${count} × ${key}`);
      return `${name}: ${silentMs} ms without an answer (${counts.join(', ')})`;
    })
    .join('; ');
}
