import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import type { KeyFile } from '../../../../../src/nmi/sources/entra/credentials/key-file.ts';
import { makeCertificate, makeKey } from '../forged-certificates.ts';

const program = new URL(
  '../../../../../src/nmi/sources/entra/credentials/key-file-worker.ts',
  import.meta.url,
);

async function answersTo(files: readonly unknown[]): Promise<readonly Record<string, unknown>[]> {
  const worker = new Worker(program);
  try {
    const answers: Record<string, unknown>[] = [];
    for (const file of files) {
      worker.postMessage(file);
      const [answer] = (await once(worker, 'message')) as [Record<string, unknown>];
      answers.push(answer);
    }
    return answers;
  } finally {
    await worker.terminate();
  }
}

describe('the worker program', () => {
  it('answers the files in order: with a client credential, or the reason why there is none', async () => {
    const made = makeKey();
    const certificate = makeCertificate(made, { subject: 'x', fromWallMs: 0, toWallMs: 4e12 });
    const file = (text: string): KeyFile => ({
      bytes: Buffer.from(text),
      passwords: [],
      nowWallMs: 1e12,
    });
    const [good, empty, odd, again] = await answersTo([
      file(`${made.keyPem}${certificate.pem}`),
      file(''),
      { bytes: 7, passwords: 'secret' },
      file(''),
    ]);
    assert.match(String(good?.['x5c']), /^-----BEGIN CERTIFICATE-----/);
    assert.deepEqual(empty, { code: 'MALFORMED', message: 'is empty' });
    assert.deepEqual(odd, { code: 'MALFORMED', message: 'cannot be read' }, 'quotes nothing');
    assert.deepEqual(again, empty);
  });
});
