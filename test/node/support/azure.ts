/** The metadata service and Entra ID of a test node, as a process in a separate namespace. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import type { ServerCertificate } from '../../../lab/fakes/authority.ts';
import type { EntraApplication } from '../../../lab/fakes/entra/applications.ts';
import type { EntraRequest } from '../../../lab/fakes/entra/fake-entra.ts';
import type { ImdsRequest } from '../../../lab/fakes/imds/fake-imds.ts';
import type { LabIdentity } from '../../../lab/fakes/token.ts';
import type { ApiAccess } from '../../cluster/support/api.ts';

export interface AzureStart {
  readonly identities: readonly LabIdentity[];
  readonly applications: readonly EntraApplication[];
  readonly entraTls: ServerCertificate;
  /** Where the keys of the cluster's issuer are read. */
  readonly api: ApiAccess;
  readonly issuer: string;
}

export interface AzureReport {
  readonly imds: readonly ImdsRequest[];
  readonly entra: readonly EntraRequest[];
}

export type ToAzure = { readonly start: AzureStart } | { readonly take: true };
export type FromAzure = 'ready' | AzureReport;

export interface Azure extends AsyncDisposable {
  /** The requests since the last call. */
  take(): Promise<AzureReport>;
}

const program = join(import.meta.dirname, 'azure-process.ts');

export async function startAzure(namespace: string, start: AzureStart): Promise<Azure> {
  const tie = ['setpriv', '--pdeathsig', 'KILL', '--', process.execPath, program];
  const child = spawn('nsenter', [`--net=${namespace}`, '--', ...tie], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  const ended = once(child, 'exit');

  async function ask(message: ToAzure): Promise<FromAzure> {
    const answered = once(child, 'message') as Promise<[FromAzure]>;
    child.send(message);
    const first = await Promise.race([answered, ended]);
    if (child.exitCode !== null) throw new Error(`Azure's side ended with ${child.exitCode}`);
    return first[0] as FromAzure;
  }

  await ask({ start });
  return {
    async take() {
      const report = await ask({ take: true });
      if (report === 'ready') throw new TypeError('a report was expected');
      return report;
    },
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL');
      await ended;
    },
  };
}
