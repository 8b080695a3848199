import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { describe, it } from 'node:test';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { rootCertificates } from 'node:tls';
import { readEntraCa } from '../../../../src/nmi/sources/entra/ca-file.ts';

async function readText(text: string): Promise<string | undefined> {
  const folder = await mkdtemp(join(tmpdir(), 'nmi-ca-'));
  try {
    const path = join(folder, 'ca.pem');
    await writeFile(path, text);
    return await readEntraCa(path);
  } finally {
    await rm(folder, { recursive: true });
  }
}

describe('CAs in addition to the built-in ones', () => {
  it('are the certificates of the file, or none without a file', async () => {
    const [one = '', other = ''] = rootCertificates.map((pem) => String(new X509Certificate(pem)));
    assert.equal(await readText(one), one);
    assert.equal(await readText(`# CA\n${one}\n${other}`), `${one}${other}`);
    assert.equal(await readEntraCa(''), undefined);
  });

  it('cannot come from a missing file, or one without a certificate', async () => {
    const refused = { name: 'StartError', code: 'CONFIG', message: /^--entra-ca-file .* PEM/ };
    const broken = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n';
    for (const text of [
      '',
      'no certificate',
      '-----BEGIN CERTIFICATE-----\nAA==\n',
      broken,
      `${rootCertificates[0] ?? ''}\n${broken}`,
    ]) {
      await assert.rejects(readText(text), refused);
    }
    await assert.rejects(readEntraCa('/nothing/there'), refused);
  });
});
