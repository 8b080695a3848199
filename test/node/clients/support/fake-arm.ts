/**
 * Azure Resource Manager as far as a sign-in needs it, over TLS: it lists the subscriptions of the
 * identity in the token. Only the identity `older` has a role, in one subscription.
 */
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createLabAuthority } from '../../../../lab/fakes/authority.ts';
import { labSubscriptionId } from '../../../../lab/fakes/identity.ts';
import { decodeLabToken } from '../../../../lab/fakes/token.ts';

export interface FakeArm extends AsyncDisposable {
  readonly url: string;
  /** A file with the CA to trust. */
  readonly caFile: string;
}

/** The audience of tokens for it. */
const armResource = 'https://management.core.windows.net/';

/** @throws the errors of `listen`. */
export async function openFakeArm(host: string): Promise<FakeArm> {
  await using opening = new AsyncDisposableStack();
  const authority = await createLabAuthority();
  const certificate = await authority.issueServer([host]);
  // Named so that the next lab removes it if this one is killed.
  const folder = await mkdtemp(join(tmpdir(), `nmi-lab-${process.pid}-`));
  opening.defer(() => rm(folder, { recursive: true, force: true }));
  const caFile = join(folder, 'arm.pem');
  await writeFile(caFile, authority.certificatePem);
  const server = createServer({ ...certificate }, (request, response) => {
    request.resume();
    const { status, body } = answer(request.url ?? '', request.headers.authorization ?? '');
    response.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify(body));
  });
  opening.defer(async () => {
    const closed = once(server, 'close');
    server.close();
    server.closeAllConnections();
    await closed;
  });
  server.listen(0, host);
  await once(server, 'listening');
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  const owned = opening.move();
  return {
    url: `https://${host}:${port}`,
    caFile,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

function answer(target: string, authorization: string): { status: number; body: object } {
  const claims = decodeLabToken(authorization.replace(/^Bearer /, ''));
  if (claims?.aud !== armResource) {
    return { status: 401, body: { error: { code: 'InvalidAuthenticationToken', message: '' } } };
  }
  if (!target.startsWith('/subscriptions?api-version=')) {
    return { status: 404, body: { error: { code: 'NotFound', message: target } } };
  }
  if (claims.lab_identity !== 'older') return { status: 200, body: { value: [] } };
  const subscription = {
    id: `/subscriptions/${labSubscriptionId}`,
    subscriptionId: labSubscriptionId,
    tenantId: claims.tid,
    displayName: `subscription of ${claims.lab_identity}`,
    state: 'Enabled',
  };
  return { status: 200, body: { value: [subscription] } };
}
