/** `msal-node.ts FOLDER JOB`: the managed identity client of @azure/msal-node. */
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { runJob } from './job.ts';

interface MsalNode {
  readonly ManagedIdentityApplication: new (configuration: {
    readonly managedIdentityIdParams?: Readonly<Record<string, string>>;
  }) => {
    acquireToken(request: { readonly resource: string }): Promise<{ readonly accessToken: string }>;
  };
}

const [folder = ''] = process.argv.slice(2);
const sdk = createRequire(join(folder, 'package.json'))('@azure/msal-node') as MsalNode;
const parameters = {
  client: 'userAssignedClientId',
  resource: 'userAssignedResourceId',
  object: 'userAssignedObjectId',
} as const;

await runJob(({ id, resource }) => {
  const application = new sdk.ManagedIdentityApplication(
    id === undefined ? {} : { managedIdentityIdParams: { [parameters[id.kind]]: id.value } },
  );
  return async () => (await application.acquireToken({ resource })).accessToken;
});
