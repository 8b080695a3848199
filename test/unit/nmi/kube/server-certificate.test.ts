import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createLabAuthority } from '../../../../lab/fakes/authority.ts';
import { openFakeKube } from '../../../../lab/fakes/kube/fake-kube.ts';
import { systemClock } from '../../../../src/base/time/clock.ts';
import { readServerNames } from '../../../../src/nmi/kube/api/server-certificate.ts';

describe('the names of the API server', () => {
  it('are the host names in its certificate, if that is trusted', async () => {
    const authority = await createLabAuthority();
    const names = ['127.0.0.1', 'kubernetes', 'hcp-kubernetes.c1.svc.cluster.local'];
    await using kube = await openFakeKube({ tls: await authority.issueServer(names) });
    const read = (ca: string | undefined, servername?: string) =>
      readServerNames({ origin: kube.url, fingerprint: '', tls: { ca, servername } }, systemClock);
    const ca = authority.certificatePem;
    assert.deepEqual(await read(ca), names.slice(1));
    assert.deepEqual(await read(ca, 'kubernetes'), names.slice(1), 'by its name');
    await assert.rejects(read(ca, 'other'), { code: 'ERR_TLS_CERT_ALTNAME_INVALID' });
    const other = (await createLabAuthority()).certificatePem;
    for (const untrusted of [other, undefined]) {
      await assert.rejects(read(untrusted), /certificate|self-signed|verify/i);
    }
    assert.deepEqual(kube.requests, []);
  });

  it('are read at an IPv6 address too', async () => {
    const authority = await createLabAuthority();
    const tls = await authority.issueServer(['::1', 'kubernetes']);
    await using kube = await openFakeKube({ host: '::1', tls });
    const server = { origin: kube.url, fingerprint: '', tls: { ca: authority.certificatePem } };
    assert.deepEqual(await readServerNames(server, systemClock), ['kubernetes']);
  });

  it('are unknown without TLS, and without a server', async () => {
    const kube = await openFakeKube();
    const server = { origin: kube.url, fingerprint: '', tls: {} };
    await assert.rejects(readServerNames(server, systemClock), { code: 'CONFIG' });
    await kube[Symbol.asyncDispose]();
    await assert.rejects(readServerNames(server, systemClock), { code: 'ECONNREFUSED' });
  });
});
