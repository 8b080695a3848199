/** A Prometheus as a child process that scrapes an agent of the tests, with the alert rules. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { alertsPath } from './queries.ts';
import { freePort } from '../../../../lab/fabric/free-ports.ts';

export interface Prometheus extends AsyncDisposable {
  /** An answer of its API. */
  get(path: string): Promise<unknown>;
}

/**
 * Scrapes an agent twice a second.
 * @param folder of its files.
 * @param target host and port.
 */
export async function openPrometheus(folder: string, target: string): Promise<Prometheus> {
  const port = await freePort();
  const config = join(folder, 'prometheus.json');
  await writeFile(
    config,
    JSON.stringify({
      global: { scrape_interval: '500ms', scrape_timeout: '500ms', evaluation_interval: '200ms' },
      rule_files: [alertsPath],
      scrape_configs: [{ job_name: 'nmi', static_configs: [{ targets: [target] }] }],
    }),
  );
  const child = spawn(
    'prometheus',
    [
      ...[`--config.file=${config}`, `--storage.tsdb.path=${join(folder, 'tsdb')}`],
      ...[`--web.listen-address=127.0.0.1:${port}`, '--log.level=error'],
    ],
    { stdio: ['ignore', 'ignore', 'inherit'] },
  );
  const exited = once(child, 'exit');
  const get = async (path: string) => {
    const response = await fetch(`http://127.0.0.1:${port}/api/v1/${path}`);
    const body = (await response.json()) as { status: string; error?: string; data?: unknown };
    assert.equal(body.status, 'success', `${decodeURIComponent(path)}: ${body.error ?? ''}`);
    return body.data;
  };
  return {
    get,
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGKILL');
      await exited;
    },
  };
}

/** One result per series. */
export async function query(prometheus: Prometheus, text: string): Promise<readonly unknown[]> {
  const data = await prometheus.get(`query?query=${encodeURIComponent(text)}`);
  return (data as { readonly result: readonly unknown[] }).result;
}

/** A busy machine takes many seconds to start Prometheus. */
const untilMs = 60_000;

export async function until(holds: () => Promise<boolean>): Promise<void> {
  const deadlineMs = performance.now() + untilMs;
  while (!(await holds().catch(() => false))) {
    assert.ok(performance.now() < deadlineMs, 'Prometheus did not get this far in a minute');
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
