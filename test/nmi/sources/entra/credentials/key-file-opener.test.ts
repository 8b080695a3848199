import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, describe, it } from 'node:test';
import { Worker } from 'node:worker_threads';
import {
  KeyFileError,
  type KeyFileErrorCode,
} from '../../../../../src/nmi/sources/entra/credentials/key-file-error.ts';
import {
  createKeyFileOpener,
  type KeyFileOpener,
} from '../../../../../src/nmi/sources/entra/credentials/key-file-opener.ts';
import type { KeyFile } from '../../../../../src/nmi/sources/entra/credentials/key-file.ts';
import { openKeyFiles, withoutOpenssl, type KeyFiles } from '../key-files.ts';

const password = 'canary-password-7c1e';

function fileOf(bytes: Uint8Array, passwords: readonly string[] = [password]): KeyFile {
  return { bytes, passwords, nowWallMs: Date.now() };
}

async function rejectsWith(
  code: KeyFileErrorCode,
  opening: Promise<unknown>,
  message = /./,
): Promise<void> {
  await assert.rejects(opening, (error) => {
    assert.ok(error instanceof KeyFileError, String(error));
    assert.equal(error.code, code);
    assert.match(error.message, message);
    assert.ok(!error.message.includes(password));
    return true;
  });
}

describe('the key file worker', { skip: withoutOpenssl }, () => {
  let files: KeyFiles;
  const open = createKeyFileOpener({ timeoutMs: 60_000 });
  before(async () => {
    files = await openKeyFiles();
  });
  after(async () => {
    await files[Symbol.asyncDispose]();
  });

  it('opens a file, and returns the reason when it cannot open another', async () => {
    const bytes = await files.pfx('-passout', `pass:${password}`);
    const [clientCredential] = await Promise.all([
      open('one', fileOf(bytes)),
      rejectsWith('WRONG_PASSWORD', open('one', fileOf(bytes, ['other'])), /another password/),
      rejectsWith('MALFORMED', open('two', fileOf(bytes.subarray(1))), /neither PKCS#12 nor PEM/),
    ]);
    assert.equal(clientCredential.privateKey, files.keyPem);
    assert.ok(clientCredential.x5c.startsWith(files.leaf.slice(0, 100)));
    assert.match(clientCredential.thumbprintSha256, /^[0-9a-f]{64}$/);
  });

  it('leaves the event loop free during 100,000 iterations of each of its derivations', async () => {
    const bytes = await files.pfx('-iter', '100000', '-passout', `pass:${password}`);
    let rounds = 0;
    let isDone = false;
    const goRound = (): void => {
      rounds += 1;
      if (!isDone) setImmediate(goRound);
    };
    goRound();
    const clientCredential = await open('one', fileOf(bytes));
    isDone = true;
    assert.equal(clientCredential.privateKey, files.keyPem);
    // On the same thread there would be only a few.
    assert.ok(rounds > 1_000, `${rounds} rounds`);
  });
});

describe('a worker that', () => {
  /** Runs `code` for its first file, and answers the others. */
  function openerWith(code: string, timeoutMs = 30_000): KeyFileOpener {
    let starts = 0;
    return createKeyFileOpener({
      timeoutMs,
      start() {
        starts += 1;
        return startWith(starts === 1 ? code : answer);
      },
    });
  }

  const cases: readonly {
    readonly title: string;
    readonly code: string;
    readonly timeoutMs?: number;
    readonly expected: readonly [KeyFileErrorCode, RegExp];
  }[] = [
    {
      title: 'does not end is terminated',
      code: 'for (;;);',
      timeoutMs: 3_000,
      expected: ['TOO_COSTLY', /too much time .* iterations/],
    },
    {
      title: 'exits is detected',
      code: 'process.exit(0);',
      timeoutMs: 3_000,
      expected: ['TOO_COSTLY', /too much time .* iterations/],
    },
    {
      title: 'fills its memory is terminated',
      // Strings, which the garbage collector does not search: this is quick even if a flag of the
      // process allows a worker a gigabyte.
      code: 'const all = []; for (;;) all.push(Buffer.alloc(1_000_000).toString("latin1"));',
      expected: ['TOO_COSTLY', /too much memory/],
    },
    {
      title: 'throws does not expose the error',
      code: 'throw new Error(file.passwords[0]);',
      expected: ['MALFORMED', /^cannot be read$/],
    },
    ...['undefined', '1', '{}', '[{}]', '{ code: "X", message: "m" }', '{ x5c: 1 }'].map(
      (reply) => ({
        title: `answers ${reply} is not trusted`,
        code: `parentPort.postMessage(${reply});`,
        expected: ['MALFORMED', /^cannot be read$/] as const,
      }),
    ),
  ];
  for (const { title, code, timeoutMs, expected } of cases) {
    it(`${title}, and the next file gets another`, async () => {
      const open = openerWith(code, timeoutMs);
      const broken = rejectsWith(expected[0], open('one', fileOf(Buffer.alloc(1))), expected[1]);
      const next = rejectsWith('UNSUITABLE', open('one', fileOf(Buffer.alloc(1), ['x'])), /^x$/);
      await Promise.all([broken, next]);
    });
  }

  it('cannot be started leaves its file for another try', async () => {
    const open = createKeyFileOpener({
      start() {
        throw Object.assign(new Error('no thread'), { code: 'ERR_WORKER_INIT_FAILED' });
      },
    });
    await rejectsWith('BUSY', open('one', fileOf(Buffer.alloc(1))), /thread/);
  });

  it('has no more to do ends, and one thread serves all waiting files', async () => {
    const workers: Worker[] = [];
    const open = createKeyFileOpener({
      start() {
        const worker = startWith(answer);
        workers.push(worker);
        return worker;
      },
    });
    const names = ['a', 'b', 'c'];
    await Promise.allSettled(names.map((name) => open('one', fileOf(Buffer.alloc(1), [name]))));
    assert.equal(workers.length, 1);
    await once(workers[0]!, 'exit');
  });
});

describe('waiting files', () => {
  it('are opened with their owners in turn', async () => {
    const open = createKeyFileOpener({ start: () => startWith(answer) });
    const order: string[] = [];
    const opening = ['a1', 'a2', 'a3', 'b1', 'b2', 'c1'].map(async (name) => {
      await assert.rejects(open(name.slice(0, 1), fileOf(Buffer.alloc(1), [name])));
      order.push(name);
    });
    await Promise.all(opening);
    // The first one does not wait, so the second is the first waiting file of its owner.
    assert.deepEqual(order, ['a1', 'a2', 'b1', 'c1', 'a3', 'b2']);
  });

  it('are limited in number for each owner', async () => {
    const open = createKeyFileOpener({ start: () => startWith(answer), maxWaiting: 2 });
    const codes = async (owner: string, name: string): Promise<KeyFileErrorCode | undefined> => {
      const outcome = await open(owner, fileOf(Buffer.alloc(1), [name])).catch(
        (error: unknown) => error,
      );
      return outcome instanceof KeyFileError ? outcome.code : undefined;
    };
    // The first one is being opened, so it does not wait any more.
    const told = await Promise.all([
      ...['1', '2', '3', '4'].map((name) => codes('one', name)),
      codes('two', '1'),
    ]);
    assert.deepEqual(told, ['UNSUITABLE', 'UNSUITABLE', 'UNSUITABLE', 'BUSY', 'UNSUITABLE']);
  });
});

/** Reports the first password as if it were the problem with the file. */
const answer = `parentPort.postMessage({ code: 'UNSUITABLE', message: file.passwords[0] });`;

function startWith(code: string): Worker {
  const program = `
    const { parentPort } = require('node:worker_threads');
    parentPort.on('message', (file) => { ${code} });`;
  const resourceLimits = { maxOldGenerationSizeMb: 16, maxYoungGenerationSizeMb: 4 };
  return new Worker(program, { eval: true, resourceLimits });
}
