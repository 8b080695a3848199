import assert from 'node:assert/strict';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import forge from 'node-forge';
import {
  KeyFileError,
  type KeyFileErrorCode,
} from '../../../../../src/nmi/sources/entra/credentials/key-file-error.ts';
import { createStretching } from '../../../../../src/nmi/sources/entra/credentials/key-stretching.ts';
import { readPfx } from '../../../../../src/nmi/sources/entra/credentials/pfx.ts';
import { Turns } from '../../../../../src/nmi/sources/entra/credentials/turns.ts';
import { openKeyFiles, withoutLegacy, withoutOpenssl, type KeyFiles } from '../key-files.ts';

const { asn1 } = forge;
type Asn1 = forge.asn1.Asn1;

/** `-nomac` takes the encryption of the certificates away too, unless that is said after it. */
const withoutMac = ['-nomac', '-certpbe', 'AES-256-CBC'];

function rejectsWith(
  code: KeyFileErrorCode,
  bytes: Buffer,
  passwords: readonly string[],
  message = /./,
): Promise<void> {
  return assert.rejects(readPfx(bytes, passwords, new Turns()), (error) => {
    assert.ok(error instanceof KeyFileError, String(error));
    assert.equal(error.code, code);
    assert.match(error.message, message);
    return true;
  });
}

describe('a PKCS#12 file', { skip: withoutOpenssl }, () => {
  let files: KeyFiles;
  before(async () => {
    files = await openKeyFiles();
  });
  after(async () => {
    await files[Symbol.asyncDispose]();
  });

  /** The key, and all three certificates in whatever order. */
  async function assertWhole(bytes: Buffer, passwords: readonly string[]): Promise<void> {
    const { keys, certificates } = await readPfx(bytes, passwords, new Turns());
    assert.equal(keys.length, 1);
    const key = createPrivateKey({ key: keys[0]!, format: 'der', type: 'pkcs8' });
    assert.ok(key.equals(files.key));
    assert.deepEqual(certificates.map((der) => new X509Certificate(der).subject).sort(), [
      'CN=application',
      'CN=intermediate',
      'CN=root',
    ]);
  }

  const table: readonly {
    readonly title: string;
    readonly args: readonly string[];
    readonly password?: string;
    readonly needsLegacy?: true;
  }[] = [
    { title: 'of AES-256 and SHA-256', args: [] },
    {
      title: 'of AES-128, AES-192 and SHA-1',
      args: ['-certpbe', 'AES-128-CBC', '-keypbe', 'AES-192-CBC', '-macalg', 'sha1'],
    },
    {
      title: 'of 3DES in PBES2 and SHA-512',
      args: ['-certpbe', 'DES-EDE3-CBC', '-keypbe', 'DES-EDE3-CBC', '-macalg', 'sha512'],
    },
    { title: 'with a MAC by SHA-224', args: ['-macalg', 'sha224'] },
    { title: 'with a MAC by SHA-384', args: ['-macalg', 'sha384'] },
    {
      title: 'of 3DES and SHA-1',
      args: ['-certpbe', 'PBE-SHA1-3DES', '-keypbe', 'PBE-SHA1-3DES', '-macalg', 'sha1'],
    },
    { title: 'of RC2-40, 3DES and SHA-1', args: ['-legacy'], needsLegacy: true },
    {
      title: 'of RC2-128 and 3DES with two keys',
      args: ['-legacy', '-certpbe', 'PBE-SHA1-RC2-128', '-keypbe', 'PBE-SHA1-2DES'],
      needsLegacy: true,
    },
    { title: 'with an empty password', args: [], password: '' },
    {
      title: 'of old ciphers with an empty password',
      args: ['-legacy'],
      password: '',
      needsLegacy: true,
    },
    { title: 'with a password that is not ASCII', args: [], password: 'pässwörd € 🔑' },
    {
      title: 'of old ciphers with a password that is not ASCII',
      args: ['-legacy'],
      password: 'pässwörd € 🔑',
      needsLegacy: true,
    },
    { title: 'without a MAC', args: withoutMac },
    {
      title: 'of old ciphers without a MAC',
      args: ['-legacy', '-nomac', '-certpbe', 'PBE-SHA1-RC2-40'],
      needsLegacy: true,
    },
    { title: 'without encryption', args: ['-certpbe', 'NONE', '-keypbe', 'NONE'] },
    {
      title: 'without encryption or a MAC',
      args: ['-certpbe', 'NONE', '-keypbe', 'NONE', '-nomac'],
    },
    { title: 'with a MAC of one iteration', args: ['-nomaciter'] },
    {
      title: 'with names in it',
      args: ['-name', 'friendly', '-caname', 'other', '-CSP', 'some provider'],
    },
  ];
  for (const { title, args, password = 'correct horse', needsLegacy } of table) {
    it(`${title} is read`, { skip: needsLegacy === true && withoutLegacy }, async () => {
      await assertWhole(await files.pfx(...args, '-passout', `pass:${password}`), [password]);
    });
  }

  it('is opened by the second password when the first is wrong', async () => {
    for (const args of [[], withoutMac]) {
      await assertWhole(await files.pfx(...args, '-passout', 'pass:pw'), ['pw\n', 'pw']);
    }
  });

  it('that was protected by the absence of a password is read', async () => {
    const key = forge.pki.privateKeyFromPem(files.keyPem);
    const chain = [files.leaf, files.root, files.intermediate].map((pem) =>
      forge.pki.certificateFromPem(pem),
    );
    const absent = null as unknown as string;
    const bytes = encode(forge.pkcs12.toPkcs12Asn1(key, chain, absent));
    await assertWhole(bytes, ['']);
  });

  it('in BER, with open ends and cut strings, is read', async () => {
    const bytes = await files.pfx('-passout', 'pass:pw');
    const open = toOpenBer(asn1.fromDer(bytes.toString('latin1')), 3);
    assert.ok(open.includes('\x30\x80'));
    await assertWhole(Buffer.from(open, 'latin1'), ['pw']);
  });

  it('with another password is told from a damaged one', { skip: withoutLegacy }, async () => {
    for (const args of [[], ['-legacy'], withoutMac]) {
      const bytes = await files.pfx(...args, '-passout', 'pass:pw');
      for (const passwords of [['wrong', 'Pw'], ['']]) {
        await rejectsWith('WRONG_PASSWORD', bytes, passwords);
      }
      await rejectsWith('MALFORMED', bytes.subarray(0, -1), ['pw']);
      await rejectsWith('MALFORMED', Buffer.concat([bytes, Buffer.from('\n')]), ['pw']);
    }
  });

  it('whose contents were exchanged does not open', async () => {
    const bytes = await files.pfx('-certpbe', 'NONE', '-keypbe', 'NONE', '-passout', 'pass:pw');
    const changed = Buffer.from(bytes);
    const at = changed.indexOf('application');
    changed.write('administrat', at);
    await rejectsWith('WRONG_PASSWORD', changed, ['pw']);
  });

  it(
    'of a cipher that is not known is named by its identifier',
    { skip: withoutLegacy },
    async () => {
      const rc4 = await files.pfx('-legacy', '-keypbe', 'PBE-SHA1-RC4-128', '-passout', 'pass:pw');
      await rejectsWith(
        'UNSUPPORTED',
        rc4,
        ['pw'],
        /encryption 1\.2\.840\.113549\.1\.12\.1\.1, .*AES-256/,
      );
    },
  );

  it('that asks for too much work is refused before the work', async () => {
    const costly = ['-iter', '1000001', '-passout', 'pass:pw'];
    const pools = await files.pfx(...costly, '-nomac');
    await rejectsWith('TOO_COSTLY', pools, ['pw'], /too many iterations/);
    const old = ['-iter', '600000', '-nomac', '-certpbe', 'PBE-SHA1-3DES', '-passout', 'pass:pw'];
    const own = await files.pfx(...old);
    await rejectsWith('TOO_COSTLY', own, ['pw'], /too many iterations/);
  });

  it('with as many iterations as NSS writes is read', async () => {
    await assertWhole(await files.pfx('-iter', '600000', '-nomaciter', '-passout', 'pass:pw'), [
      'pw',
    ]);
  });
});

describe('keys stretched as PKCS#12 does', () => {
  it('let the event loop go round once for every thousand iterations', async () => {
    let rounds = 0;
    let isDone = false;
    const goRound = (): void => {
      rounds += 1;
      if (!isDone) setImmediate(goRound);
    };
    goRound();
    await createStretching(new Turns()).pkcs12({
      hashName: 'sha1',
      password: Buffer.alloc(0),
      salt: Buffer.alloc(8),
      rounds: 20_001,
      length: 20,
      purpose: 1,
    });
    isDone = true;
    assert.ok(rounds >= 20, `${rounds} rounds`);
  });

  it('are those of another implementation', async () => {
    for (const [hashName, md] of [
      ['sha1', forge.md.sha1],
      ['sha256', forge.md.sha256],
      ['sha512', forge.md.sha512],
    ] as const) {
      for (const password of ['', 'pw', 'x'.repeat(100)]) {
        for (const [rounds, length] of [
          [1, 8],
          [1001, 100],
          [2048, 24],
        ] as const) {
          const salt = Buffer.from('salt and more');
          const theirs = generateKey(password, salt, rounds, length, md.create());
          const ours = await createStretching(new Turns()).pkcs12({
            hashName,
            password: Buffer.from(`${password}\0`, 'utf16le').swap16(),
            salt,
            rounds,
            length,
            purpose: 1,
          });
          assert.equal(ours.toString('hex'), theirs, `${hashName} ${rounds} ${length}`);
        }
      }
    }
  });
});

describe('turns', () => {
  it('go to each of many in the order they asked, one at a time', async () => {
    const turns = new Turns();
    const seen: string[] = [];
    const work = async (name: string): Promise<void> => {
      for (let piece = 0; piece < 3; piece += 1) {
        await turns.take(async () => {
          seen.push(`${name}${piece} begins`);
          await Promise.resolve();
          seen.push(`${name}${piece} ends`);
        });
      }
    };
    await Promise.all([work('a'), work('b')]);
    const order = ['a0', 'b0', 'a1', 'b1', 'a2', 'b2'];
    assert.deepEqual(
      seen,
      order.flatMap((piece) => [`${piece} begins`, `${piece} ends`]),
    );
  });

  it('go on after a piece that failed', async () => {
    const turns = new Turns();
    const failing = turns.take(() => {
      throw new RangeError('on purpose');
    });
    const next = turns.take(() => 'done');
    await assert.rejects(failing, RangeError);
    assert.equal(await next, 'done');
  });
});

function encode(node: Asn1): Buffer {
  return Buffer.from(asn1.toDer(node).getBytes(), 'latin1');
}

/** Indefinite lengths down to a depth, and strings there in pieces, as some writers of PKCS#12 do. */
function toOpenBer({ tagClass, type, constructed, value }: Asn1, depth: number): string {
  const tag = tagClass | type | 0x20;
  if (depth < 0) return encode(asn1.create(tagClass, type, constructed, value)).toString('latin1');
  if (typeof value !== 'string') {
    const inner = value.map((child) => toOpenBer(child, depth - 1)).join('');
    return `${String.fromCharCode(tag, 0x80)}${inner}\0\0`;
  }
  const plain = asn1.create(tagClass, type, false, value);
  if (type !== asn1.Type.OCTETSTRING) return encode(plain).toString('latin1');
  const pieces = [value.slice(0, 5), value.slice(5)].map((piece) =>
    encode(asn1.create(tagClass, type, false, piece)).toString('latin1'),
  );
  return `${String.fromCharCode(tag, 0x80)}${pieces.join('')}\0\0`;
}

/** The library's own, which its types do not tell completely. */
function generateKey(
  password: string,
  salt: Buffer,
  rounds: number,
  length: number,
  md: forge.md.MessageDigest,
): string {
  const library = forge.pkcs12 as unknown as {
    generateKey(
      password: string,
      salt: forge.util.ByteStringBuffer,
      id: number,
      rounds: number,
      length: number,
      md: forge.md.MessageDigest,
    ): forge.util.ByteStringBuffer;
  };
  const saltBuffer = forge.util.createBuffer(salt.toString('latin1'));
  return library.generateKey(password, saltBuffer, 1, rounds, length, md).toHex();
}
