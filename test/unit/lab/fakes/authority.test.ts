import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { before, describe, it } from 'node:test';
import { connect, createSecureContext } from 'node:tls';
import { createLabAuthority, type LabAuthority } from '../../../../lab/fakes/authority.ts';
import { renderPfx } from '../../../../lab/fakes/pfx.ts';

let authority: LabAuthority;
before(async () => {
  authority = await createLabAuthority();
});

const noOpenssl = spawnSync('openssl', ['version']).status !== 0 && 'openssl is not installed';

/** The verdict of a TLS client of this host about the server: `ok`, or its error code. */
async function verifyChain(names: readonly string[], host: string, ca: string): Promise<string> {
  const server = createServer(await authority.issueServer(names));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const name = /^[\d.]+$/.test(host) ? {} : { servername: host };
  const socket = connect({ host: '127.0.0.1', port, ca, ...name });
  try {
    await once(socket, 'secureConnect');
    return 'ok';
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error);
  } finally {
    socket.destroy();
    server.close();
  }
}

describe('the lab authority', () => {
  it('issues servers that clients trust by address and by name, and under no other', async () => {
    const names = ['127.0.0.1', '::1', 'login.lab.example'];
    const { certificatePem: ca } = authority;
    for (const host of ['127.0.0.1', 'login.lab.example']) {
      assert.equal(await verifyChain(names, host, ca), 'ok');
    }
    const wrong = await verifyChain(['10.0.0.1', 'other.example'], '127.0.0.1', ca);
    assert.equal(wrong, 'ERR_TLS_CERT_ALTNAME_INVALID');
    const other = await createLabAuthority();
    assert.notEqual(await verifyChain(names, '127.0.0.1', other.certificatePem), 'ok');
  });

  it('issues client certificates that are signed by themselves or by it', async () => {
    const root = new X509Certificate(authority.certificatePem);
    const validity = { fromWallMs: Date.UTC(2020, 0, 1), toWallMs: Date.UTC(2021, 0, 1) };
    const organizations = ['system:masters'];
    for (const [options, subject, issuer, issuerPem] of [
      [{}, 'CN=web', 'CN=web', ''],
      [
        { signedBy: 'authority', organizations, validity },
        'CN=web\nO=system:masters',
        root.subject,
        authority.certificatePem,
      ],
    ] as const) {
      const made = await authority.issueClient('web', options);
      const parsed = new X509Certificate(made.certificatePem);
      assert.deepEqual(
        [parsed.subject, parsed.issuer, made.issuerPem],
        [subject, issuer, issuerPem],
      );
      assert.ok(parsed.verify(issuerPem === '' ? parsed.publicKey : root.publicKey));
      assert.ok(parsed.checkPrivateKey(createPrivateKey(made.keyPem)));
      assert.equal(made.thumbprintSha256, parsed.fingerprint256.replaceAll(':', ''));
      const isOld = parsed.validToDate.getTime() === validity.toWallMs;
      assert.equal(isOld, issuerPem !== '');
    }
  });

  it('satisfies a strict verifier', { skip: noOpenssl }, async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'lab-authority-'));
    t.after(() => rmSync(folder, { recursive: true, force: true }));
    const { cert } = await authority.issueServer(['127.0.0.1']);
    writeFileSync(join(folder, 'ca.pem'), authority.certificatePem);
    writeFileSync(join(folder, 'server.pem'), cert);
    const flags = ['verify', '-x509_strict', '-purpose', 'sslserver', '-verify_ip', '127.0.0.1'];
    const args = [...flags, '-CAfile', 'ca.pem', 'server.pem'];
    const { stdout, stderr } = spawnSync('openssl', args, { cwd: folder, encoding: 'utf8' });
    assert.equal(stdout, 'server.pem: OK\n', stderr);
  });
});

describe('PKCS#12 files', () => {
  for (const [ciphers, password, signedBy] of [
    ['modern', 'pässword', 'authority'],
    ['modern', '', 'itself'],
    ['legacy', 'pässword', 'authority'],
    ['legacy', '', 'itself'],
  ] as const) {
    const name = `${ciphers} ciphers, the password "${password}"`;
    it(`openssl reads key and certificates: ${name}`, { skip: noOpenssl }, async () => {
      const made = await authority.issueClient('web', { signedBy });
      const legacy = ciphers === 'legacy' ? ['-legacy'] : [];
      const args = ['pkcs12', '-nodes', '-info', '-passin', `pass:${password}`, ...legacy];
      const input = await renderPfx(made, { ciphers, password });
      const { status, stdout, stderr } = spawnSync('openssl', args, { input });
      const text = `${stdout.toString()}${stderr.toString()}`;
      assert.equal(status, 0, text);
      const blocks = (kind: string): readonly string[] =>
        text.match(new RegExp(`-----BEGIN ${kind}-----[^-]+-----END ${kind}-----`, 'g')) ?? [];
      const prints = (pems: readonly string[]) =>
        pems.map((pem) => new X509Certificate(pem).fingerprint256);
      const expected = [made.certificatePem, made.issuerPem].filter((pem) => pem !== '');
      assert.deepEqual(prints(blocks('CERTIFICATE')), prints(expected));
      const [key = ''] = blocks('PRIVATE KEY');
      assert.ok(createPrivateKey(key).equals(createPrivateKey(made.keyPem)));
      assert.match(text, ciphers === 'legacy' ? /MAC: sha1[^]*RC2/ : /MAC: sha256[^]*AES-256-CBC/);
    });
  }

  it('Node reads modern ones, with the right password only', async () => {
    const made = await authority.issueClient('web');
    const pfx = await renderPfx(made, { password: 'right' });
    createSecureContext({ pfx, passphrase: 'right' });
    assert.throws(() => createSecureContext({ pfx, passphrase: 'wrong' }), /mac verify failure/);
  });
});
