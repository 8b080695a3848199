/** Key files are opened on a thread: what it answers, what breaks it, and who waits for it. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { describe, it } from 'node:test';
import { Worker } from 'node:worker_threads';
import { KeyFileError } from '../../../../../../src/nmi/sources/entra/credentials/key-file-error.ts';
import {
  createKeyFileOpener,
  type KeyFileOpener,
} from '../../../../../../src/nmi/sources/entra/credentials/key-file-opener.ts';
import { makeCertificate, makeKey, pfxOf, withoutOpenssl } from './key-material.ts';

/** Must appear in no message. */
const canary = 'canary-password-7c1e';
const made = makeKey();
const nowWallMs = Date.now();
const validity = { fromWallMs: nowWallMs - 60_000, toWallMs: nowWallMs + 24 * 3_600_000 };
const pem = `${made.keyPem}${makeCertificate(made, { subject: 'x', ...validity }).pem}`;

/** "opened", or the code and the message. */
async function outcomeOf(
  open: KeyFileOpener,
  owner: string,
  bytes: Buffer | string = 'x',
  password = canary,
): Promise<string> {
  try {
    const file = { bytes: Buffer.from(bytes), passwords: [password], nowWallMs };
    const { privateKey, x5c, thumbprintSha256 } = await open(owner, file);
    assert.equal(privateKey, made.keyPem);
    assert.match(x5c, /^-----BEGIN CERTIFICATE-----/);
    assert.match(thumbprintSha256, /^[0-9a-f]{64}$/);
    return 'opened';
  } catch (error) {
    assert.ok(error instanceof KeyFileError, String(error));
    assert.ok(!error.message.includes(canary));
    return `${error.code}: ${error.message}`;
  }
}

/** Runs this code for each file. The default reports the password as if it were the problem. */
function startWith(
  code = `parentPort.postMessage({ code: 'UNSUITABLE', message: file.passwords[0] });`,
): Worker {
  const program = `
    const { parentPort } = require('node:worker_threads');
    parentPort.on('message', (file) => { ${code} });`;
  const resourceLimits = { maxOldGenerationSizeMb: 16, maxYoungGenerationSizeMb: 4 };
  return new Worker(program, { eval: true, resourceLimits });
}

describe('the key file worker', () => {
  it('opens files, or returns the reason why it cannot', async () => {
    const open = createKeyFileOpener({ timeoutMs: 60_000 });
    const outcomes = [pem, '', 'hello', pem].map((each) => outcomeOf(open, 'one', each));
    assert.deepEqual(await Promise.all(outcomes), [
      'opened',
      'MALFORMED: is empty',
      'MALFORMED: is neither PKCS#12 nor PEM',
      'opened',
    ]);
  });

  it('quotes nothing of a file that it cannot read', async () => {
    const folder = '../../../../../../src/nmi/sources/entra/credentials/';
    const worker = new Worker(new URL(`${folder}key-file-worker.ts`, import.meta.url));
    try {
      worker.postMessage({ bytes: 7, passwords: canary });
      const unread = { code: 'MALFORMED', message: 'cannot be read' };
      assert.deepEqual(await once(worker, 'message'), [unread]);
    } finally {
      await worker.terminate();
    }
  });

  const free = 'leaves the event loop free during 100,000 iterations of each of its derivations';
  it(free, { skip: withoutOpenssl }, async () => {
    const open = createKeyFileOpener({ timeoutMs: 60_000 });
    const bytes = pfxOf(pem, '-iter', '100000', '-passout', `pass:${canary}`);
    let rounds = 0;
    let isDone = false;
    const goRound = (): void => {
      rounds += 1;
      if (!isDone) setImmediate(goRound);
    };
    goRound();
    assert.equal(await outcomeOf(open, 'one', bytes), 'opened');
    isDone = true;
    // On the same thread there would be only a few.
    assert.ok(rounds > 1_000, `${rounds} rounds`);
    assert.match(await outcomeOf(open, 'one', bytes, 'other'), /^WRONG_PASSWORD: /);
  });
});

describe('a worker that', () => {
  const tooLong =
    'TOO_COSTLY: takes too much time to open; export it again with 10000 iterations or fewer';
  const unread = 'MALFORMED: cannot be read';
  // Strings, which the garbage collector does not search: this is quick even if a flag of the
  // process allows a worker a gigabyte.
  const filling = 'const all = []; for (;;) all.push(Buffer.alloc(1_000_000).toString("latin1"));';
  const replies = ['undefined', '1', '{}', '[{}]', '{ code: "X", message: "m" }', '{ x5c: 1 }'];
  for (const [title, code, problem, timeoutMs = 30_000] of [
    ['does not end', 'for (;;);', tooLong, 3_000],
    ['exits', 'process.exit(0);', tooLong, 3_000],
    ['fills its memory', filling, 'TOO_COSTLY: takes too much memory to open'],
    ['throws', 'throw new Error(file.passwords[0]);', unread],
    ...replies.map(
      (reply) => [`answers ${reply}`, `parentPort.postMessage(${reply});`, unread] as const,
    ),
  ] as const) {
    it(`${title} is replaced, and the next file gets another`, async () => {
      const codes: (string | undefined)[] = [code];
      const open = createKeyFileOpener({ timeoutMs, start: () => startWith(codes.shift()) });
      const outcomes = [outcomeOf(open, 'one'), outcomeOf(open, 'one', 'x', 'next')];
      assert.deepEqual(await Promise.all(outcomes), [problem, 'UNSUITABLE: next']);
    });
  }

  it('cannot be started leaves its file for another try', async () => {
    const open = createKeyFileOpener({
      start() {
        throw Object.assign(new Error('no thread'), { code: 'ERR_WORKER_INIT_FAILED' });
      },
    });
    assert.match(await outcomeOf(open, 'one'), /^BUSY: .* thread/);
  });
});

describe('waiting files', () => {
  it('are opened by one thread, with their owners in turn; then it ends', async () => {
    const workers: Worker[] = [];
    const start = () => {
      workers.push(startWith());
      return workers.at(-1)!;
    };
    const open = createKeyFileOpener({ start });
    const order: string[] = [];
    const opening = ['a1', 'a2', 'a3', 'b1', 'b2', 'c1'].map(async (name) => {
      assert.equal(await outcomeOf(open, name.slice(0, 1), 'x', name), `UNSUITABLE: ${name}`);
      order.push(name);
    });
    await Promise.all(opening);
    // The first one does not wait, so the second is the first waiting file of its owner.
    assert.deepEqual(order, ['a1', 'a2', 'b1', 'c1', 'a3', 'b2']);
    assert.equal(workers.length, 1);
    await once(workers[0]!, 'exit');
  });

  it('are limited in number for each owner', async () => {
    const open = createKeyFileOpener({ start: startWith, maxWaiting: 2 });
    // The first one is being opened, so it does not wait any more.
    const outcomes = ['one', 'one', 'one', 'one', 'two'].map((owner) =>
      outcomeOf(open, owner, 'x', 'y'),
    );
    const [answered, busy] = [
      'UNSUITABLE: y',
      'BUSY: waits behind too many others of its namespace',
    ];
    assert.deepEqual(await Promise.all(outcomes), [answered, answered, answered, busy, answered]);
  });
});
