/** `curl.ts JOB`: a hand-written client that uses curl. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { runJob } from './job.ts';

const run = promisify(execFile);
const parameters = { client: 'client_id', resource: 'msi_res_id', object: 'object_id' } as const;

await runJob(({ id, resource }) => async () => {
  const query = new URLSearchParams({ 'api-version': '2018-02-01', resource });
  if (id !== undefined) query.set(parameters[id.kind], id.value);
  const { stdout } = await run('curl', [
    ...['--silent', '--show-error', '--max-time', '20', '--header', 'Metadata: true'],
    `http://169.254.169.254/metadata/identity/oauth2/token?${query.toString()}`,
  ]);
  const body = JSON.parse(stdout) as Readonly<Record<string, unknown>>;
  if (typeof body['access_token'] === 'string') return body['access_token'];
  throw new Error(`${String(body['error'])}: ${String(body['error_description'])}`);
});
