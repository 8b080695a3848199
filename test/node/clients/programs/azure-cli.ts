/**
 * `azure-cli.ts FOLDER STYLE ARM_URL CA_FILE JOB`: the Azure CLI, one process for each command. The
 * first call of each step signs in. STYLE is how an ID is given: `kind` by `--client-id` and
 * similar flags, `username` without its kind.
 */
import { execFile } from 'node:child_process';
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { runJob, type Step } from './job.ts';

type Cli = (...args: readonly string[]) => Promise<string>;

const run = promisify(execFile);
const [folder = '', style = '', armUrl = '', caFile = ''] = process.argv.slice(2);
// Named so that the next lab removes it if this process is killed.
const home = mkdtempSync(join(tmpdir(), `nmi-lab-${process.pid}-`));
process.once('exit', () => {
  rmSync(home, { recursive: true, force: true });
});

function openCli(config: string): Cli {
  cpSync(join(folder, 'seed'), config, { recursive: true });
  // As `az cloud register` and `az cloud set` write them.
  writeFileSync(
    join(config, 'clouds.config'),
    [
      '[Lab]',
      `endpoint_resource_manager = ${armUrl}`,
      'endpoint_active_directory = https://login.microsoftonline.com',
      'endpoint_active_directory_resource_id = https://management.core.windows.net/',
      '',
    ].join('\n'),
  );
  writeFileSync(
    join(config, 'config'),
    '[cloud]\nname = Lab\n[core]\ncollect_telemetry = no\nsurvey_message = no\n',
  );
  const env = {
    ...process.env,
    HOME: home,
    AZURE_CONFIG_DIR: config,
    AZURE_CORE_COLLECT_TELEMETRY: 'no',
    REQUESTS_CA_BUNDLE: caFile,
  };
  // The same as the script `az`, whose first line breaks when its folder is renamed.
  const python = join(folder, 'bin/python');
  return async (...args) => {
    try {
      return (await run(python, ['-m', 'azure.cli', ...args], { env })).stdout;
    } catch (error) {
      const said = error instanceof Error && 'stderr' in error ? String(error.stderr) : '';
      throw said === '' ? error : new Error(said.trim(), { cause: error });
    }
  };
}

async function signIn(az: Cli, { id, needsSubscription }: Step): Promise<void> {
  const named =
    id === undefined ? [] : [style === 'kind' ? `--${id.kind}-id` : '--username', id.value];
  const content = needsSubscription === true ? [] : ['--allow-no-subscriptions'];
  await az('login', '--identity', ...named, ...content);
}

let steps = 0;

await runJob((step) => {
  steps += 1;
  const az = openCli(join(home, String(steps)));
  let isSignedIn = false;
  return async () => {
    if (!isSignedIn) await signIn(az, step);
    isSignedIn = true;
    const printed = await az('account', 'get-access-token', '--resource', step.resource);
    const { accessToken } = JSON.parse(printed) as { readonly accessToken: string };
    return accessToken;
  };
});
