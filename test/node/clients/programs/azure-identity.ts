/** `azure-identity.ts FOLDER PACKAGE JOB`: one of the installed versions of @azure/identity. */
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { runJob, type Step } from './job.ts';

interface TokenCredential {
  getToken(scope: string): Promise<{ readonly token: string } | null>;
}

interface AzureIdentity {
  readonly ManagedIdentityCredential: new (
    options?: string | Readonly<Record<string, string>>,
  ) => TokenCredential;
  readonly DefaultAzureCredential: new (
    options: Readonly<Record<string, string>>,
  ) => TokenCredential;
}

const [folder = '', name = ''] = process.argv.slice(2);
const sdk = createRequire(join(folder, 'package.json'))(name) as AzureIdentity;
const chainOptions = {
  client: 'managedIdentityClientId',
  resource: 'managedIdentityResourceId',
  object: 'managedIdentityObjectId',
} as const;

function openCredential({ credential, id }: Step): TokenCredential {
  if (credential === 'default') {
    return new sdk.DefaultAzureCredential(
      id === undefined ? {} : { [chainOptions[id.kind]]: id.value },
    );
  }
  if (id === undefined) return new sdk.ManagedIdentityCredential();
  // A plain string is the only form that every version accepts.
  if (id.kind === 'client') return new sdk.ManagedIdentityCredential(id.value);
  return new sdk.ManagedIdentityCredential({ [`${id.kind}Id`]: id.value });
}

await runJob((step) => {
  const credential = openCredential(step);
  return async () => {
    const got = await credential.getToken(`${step.resource}/.default`);
    if (got === null) throw new TypeError('getToken returned null');
    return got.token;
  };
});
