import assert from 'node:assert/strict';
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

describe('authorities beside the built-in ones', () => {
  it('are the certificates of the file, or none where no file is named', async () => {
    const [pem = ''] = rootCertificates;
    assert.equal(await readText(pem), pem);
    assert.equal(await readEntraCa(''), undefined);
  });

  it('cannot be a file that is missing, or that has no certificate', async () => {
    const refused = { name: 'StartError', code: 'CONFIG', message: /^--entra-ca-file .* PEM/ };
    for (const text of ['', 'no certificate', '-----BEGIN CERTIFICATE-----\nAA==\n']) {
      await assert.rejects(readText(text), refused);
    }
    await assert.rejects(readEntraCa('/nothing/there'), refused);
  });
});
