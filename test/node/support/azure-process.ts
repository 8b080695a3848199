/** Azure's side of a test node, run inside its network namespace: the metadata service and Entra ID. */
import { once } from 'node:events';
import { createNodeIdentity } from '../../../lab/fakes/identity.ts';
import { fabricAddresses } from '../../../lab/fabric/fabric.ts';
import { openFakeEntra } from '../../../lab/fakes/entra/fake-entra.ts';
import { openFakeImds } from '../../../lab/fakes/imds/fake-imds.ts';
import type { PublishedKey } from '../../../lab/fakes/entra/assertions.ts';
import { openApi } from '../../cluster/support/api.ts';
import type { FromAzure, ToAzure } from './azure.ts';

const { azureIp, imdsIp, nodeIp } = fabricAddresses;

function reply(message: FromAzure): void {
  process.send?.(message);
}

// The parent has ended: no requests will follow.
process.once('disconnect', () => process.exit(0));
const [first] = (await once(process, 'message')) as [ToAzure];
if (!('start' in first)) throw new TypeError('the first message is not a start');
const { identities, applications, entraTls, api: access, issuer } = first.start;
const imds = await openFakeImds({
  host: imdsIp,
  port: 80,
  nodeIps: [nodeIp],
  systemAssigned: createNodeIdentity(),
  userAssigned: identities,
});
const entra = await openFakeEntra({ host: azureIp, port: 8443, tls: entraTls, applications });
const api = openApi(access);
entra.trustIssuer(issuer, async () => {
  const headers = { accept: 'application/jwk-set+json' };
  const { keys } = await api.expect('GET', '/openid/v1/jwks', undefined, { headers });
  return keys as readonly PublishedKey[];
});
process.on('message', () => {
  reply({ imds: imds.requests(), entra: entra.requests() });
  imds.clear();
  entra.clear();
});
reply('ready');
