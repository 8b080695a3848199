import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { before, describe, it } from 'node:test';
import { connect, createSecureContext } from 'node:tls';
import { createLabAuthority, type LabAuthority } from '../../../lab/fakes/authority.ts';
import { renderPfx, type PfxCiphers } from '../../../lab/fakes/pfx.ts';

let authority: LabAuthority;
before(async () => {
  authority = await createLabAuthority();
});

/** The verdict of a TLS client of this host about the server: `ok`, or its error code. */
async function verifyChain(names: readonly string[], host: string, ca: string): Promise<string> {
  const server = createServer(await authority.issueServer(names));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  assert.ok(typeof address === 'object' && address !== null);
  const name = /^[\d.]+$/.test(host) ? {} : { servername: host };
  const socket = connect({ host: '127.0.0.1', port: address.port, ca, ...name });
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
    const { certificatePem } = authority;
    assert.equal(await verifyChain(names, '127.0.0.1', certificatePem), 'ok');
    assert.equal(await verifyChain(names, 'login.lab.example', certificatePem), 'ok');
    const wrong = await verifyChain(['10.0.0.1', 'other.example'], '127.0.0.1', certificatePem);
    assert.equal(wrong, 'ERR_TLS_CERT_ALTNAME_INVALID');
    const other = await createLabAuthority();
    assert.notEqual(await verifyChain(names, '127.0.0.1', other.certificatePem), 'ok');
  });

  it('issues client certificates that are signed by themselves or by it', async () => {
    const own = await authority.issueClient('web');
    const issued = await authority.issueClient('web', {
      signedBy: 'authority',
      organizations: ['system:masters'],
      validity: { fromWallMs: Date.UTC(2020, 0, 1), toWallMs: Date.UTC(2021, 0, 1) },
    });
    const [one, other] = [own, issued].map((made) => new X509Certificate(made.certificatePem));
    const root = new X509Certificate(authority.certificatePem);
    assert.ok(one !== undefined && other !== undefined && root.ca);
    assert.ok(one.verify(one.publicKey) && other.verify(root.publicKey));
    assert.deepEqual([one.subject, other.subject], ['CN=web', 'CN=web\nO=system:masters']);
    assert.ok(other.checkIssued(root) && !one.checkIssued(root));
    assert.deepEqual([one.issuer, other.issuer], ['CN=web', root.subject]);
    assert.deepEqual([own.issuerPem, issued.issuerPem], ['', authority.certificatePem]);
    assert.equal(other.validToDate.toISOString(), '2021-01-01T00:00:00.000Z');
    assert.ok(one.validFromDate.getTime() < Date.now() && one.validToDate.getTime() > Date.now());
    for (const [made, parsed] of [
      [own, one],
      [issued, other],
    ] as const) {
      assert.ok(parsed.checkPrivateKey(createPrivateKey(made.keyPem)));
      assert.equal(made.thumbprintSha256, parsed.fingerprint256.replaceAll(':', ''));
      assert.match(made.thumbprintSha1, /^[0-9A-F]{40}$/);
    }
  });

  it('satisfies a strict verifier', (t) => {
    if (spawnSync('openssl', ['version']).status !== 0) {
      t.skip('there is no openssl');
      return;
    }
    return inFolder(async (folder) => {
      const { cert } = await authority.issueServer(['127.0.0.1']);
      writeFileSync(join(folder, 'ca.pem'), authority.certificatePem);
      writeFileSync(join(folder, 'server.pem'), cert);
      const flags = ['verify', '-x509_strict', '-purpose', 'sslserver', '-verify_ip', '127.0.0.1'];
      const args = [...flags, '-CAfile', 'ca.pem', 'server.pem'];
      const { stdout, stderr } = spawnSync('openssl', args, { cwd: folder, encoding: 'utf8' });
      assert.equal(stdout, 'server.pem: OK\n', stderr);
    });
  });
});

describe('PKCS#12 files', () => {
  const forms: readonly [string, PfxCiphers, string, 'itself' | 'authority'][] = [
    ['modern ciphers', 'modern', 'pässword', 'authority'],
    ['modern ciphers and the empty password', 'modern', '', 'itself'],
    ['legacy ciphers', 'legacy', 'pässword', 'authority'],
    ['legacy ciphers and the empty password', 'legacy', '', 'itself'],
  ];
  for (const [name, ciphers, password, signedBy] of forms) {
    it(`openssl reads key and certificates: ${name}`, async (t) => {
      if (spawnSync('openssl', ['version']).status !== 0) {
        t.skip('there is no openssl');
        return;
      }
      const made = await authority.issueClient('web', { signedBy });
      const pfx = await renderPfx(made, { ciphers, password });
      const run = (more: readonly string[]): { status: number | null; text: string } => {
        const args = ['pkcs12', '-nodes', '-passin', `pass:${password}`, ...more];
        const { status, stdout, stderr } = spawnSync('openssl', args, { input: pfx });
        return { status, text: `${stdout.toString()}${stderr.toString()}` };
      };
      const legacy = ciphers === 'legacy' ? ['-legacy'] : [];
      const { status, text } = run(legacy);
      assert.equal(status, 0, text);
      const certificates = text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g);
      assert.deepEqual(
        certificates?.map((pem) => new X509Certificate(pem).fingerprint256),
        [made.certificatePem, made.issuerPem]
          .filter((pem) => pem !== '')
          .map((pem) => new X509Certificate(pem).fingerprint256),
      );
      const [key = ''] =
        /-----BEGIN PRIVATE KEY-----[^-]+-----END PRIVATE KEY-----/.exec(text) ?? [];
      assert.ok(createPrivateKey(key).equals(createPrivateKey(made.keyPem)));
      const details = run([...legacy, '-info', '-noout']).text;
      assert.match(details, ciphers === 'legacy' ? /MAC: sha1/ : /MAC: sha256/);
      assert.match(details, ciphers === 'legacy' ? /RC2/ : /AES-256-CBC.*hmacWithSHA256/);
    });
  }

  it('Node reads modern ones, with the right password only', async () => {
    const made = await authority.issueClient('web');
    const pfx = await renderPfx(made, { password: 'right' });
    createSecureContext({ pfx, passphrase: 'right' });
    assert.throws(() => createSecureContext({ pfx, passphrase: 'wrong' }), /mac verify failure/);
  });
});

async function inFolder(work: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'lab-authority-'));
  try {
    await work(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
