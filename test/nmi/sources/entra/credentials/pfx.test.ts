import assert from 'node:assert/strict';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import forge from 'node-forge';
import {
  KeyFileError,
  type KeyFileErrorCode,
} from '../../../../../src/nmi/sources/entra/credentials/key-file-error.ts';
import { readPfx } from '../../../../../src/nmi/sources/entra/credentials/pfx.ts';
import { openKeyFiles, withoutLegacy, withoutOpenssl, type KeyFiles } from '../key-files.ts';

const { asn1 } = forge;
type Asn1 = forge.asn1.Asn1;

/** `-nomac` also turns off the encryption of the certificates, unless a later option sets it. */
const withoutMac = ['-nomac', '-certpbe', 'AES-256-CBC'];

function throwsWith(
  code: KeyFileErrorCode,
  bytes: Buffer,
  passwords: readonly string[],
  message = /./,
): void {
  assert.throws(
    () => readPfx(bytes, passwords),
    (error) => {
      assert.ok(error instanceof KeyFileError, String(error));
      assert.equal(error.code, code);
      assert.match(error.message, message);
      return true;
    },
  );
}

describe('a PKCS#12 file', { skip: withoutOpenssl }, () => {
  let files: KeyFiles;
  before(async () => {
    files = await openKeyFiles();
  });
  after(async () => {
    await files[Symbol.asyncDispose]();
  });

  /** The key, and all three certificates in any order. */
  function assertWhole(bytes: Buffer, passwords: readonly string[]): void {
    const { keys, certificates } = readPfx(bytes, passwords);
    assert.equal(keys.length, 1);
    const key = createPrivateKey({ key: keys[0]!, format: 'der', type: 'pkcs8' });
    assert.ok(key.equals(files.key));
    assert.deepEqual(certificates.map((der) => new X509Certificate(der).subject).sort(), [
      'CN=application',
      'CN=intermediate',
      'CN=root',
    ]);
    // To the byte: Entra ID identifies a certificate by its hash.
    assert.deepEqual(
      certificates.map(toHex).sort(),
      [files.leaf, files.intermediate, files.root].map((pem) => toHex(derOf(pem))).sort(),
    );
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
    { title: 'with a MAC by SHA-384', args: ['-macalg', 'sha384'] },
    {
      title: 'of 3DES and SHA-1',
      args: ['-certpbe', 'PBE-SHA1-3DES', '-keypbe', 'PBE-SHA1-3DES', '-macalg', 'sha1'],
    },
    { title: 'of RC2-40, 3DES and SHA-1', args: ['-legacy'], needsLegacy: true },
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
      assertWhole(await files.pfx(...args, '-passout', `pass:${password}`), [password]);
    });
  }

  it('is opened by the second password when the first is wrong', async () => {
    for (const args of [[], withoutMac]) {
      assertWhole(await files.pfx(...args, '-passout', 'pass:pw'), ['pw\n', 'pw']);
    }
  });

  it('that was protected with an absent password is read', async () => {
    const key = forge.pki.privateKeyFromPem(files.keyPem);
    const chain = [files.leaf, files.root, files.intermediate].map((pem) =>
      forge.pki.certificateFromPem(pem),
    );
    const absent = null as unknown as string;
    const bytes = encode(forge.pkcs12.toPkcs12Asn1(key, chain, absent));
    assertWhole(bytes, ['']);
  });

  it(
    'with another password is distinguished from a damaged one',
    { skip: withoutLegacy },
    async () => {
      for (const args of [[], ['-legacy'], withoutMac]) {
        const bytes = await files.pfx(...args, '-passout', 'pass:pw');
        for (const passwords of [['wrong', 'Pw'], ['']]) {
          throwsWith('WRONG_PASSWORD', bytes, passwords);
        }
        throwsWith('MALFORMED', bytes.subarray(0, -1), ['pw']);
        throwsWith('MALFORMED', Buffer.concat([bytes, Buffer.from('\n')]), ['pw']);
      }
    },
  );

  it('that is a certificate, or an empty list, is not taken for one with another password', () => {
    for (const bytes of [derOf(files.leaf), Buffer.from([0x30, 0])]) {
      throwsWith('MALFORMED', bytes, ['pw', ''], /^is damaged, or not PKCS#12$/);
    }
  });

  it('with exchanged contents does not open', async () => {
    const bytes = await files.pfx('-certpbe', 'NONE', '-keypbe', 'NONE', '-passout', 'pass:pw');
    const changed = Buffer.from(bytes);
    const at = changed.indexOf('application');
    changed.write('administrat', at);
    throwsWith('WRONG_PASSWORD', changed, ['pw']);
  });

  it(
    'with an unknown cipher or MAC is reported with its identifier, and the command for another one',
    { skip: withoutLegacy },
    async () => {
      const rare = [
        [['-keypbe', 'PBE-SHA1-RC4-128'], '1.2.840.113549.1.12.1.1'],
        [['-keypbe', 'PBE-SHA1-2DES'], '1.2.840.113549.1.12.1.4'],
        [['-certpbe', 'PBE-SHA1-RC2-128'], '1.2.840.113549.1.12.1.5'],
        [['-macalg', 'sha224'], '2.16.840.1.101.3.4.2.4'],
        [['-macalg', 'md5'], '1.2.840.113549.2.5'],
      ] as const;
      for (const [args, oid] of rare) {
        const file = await files.pfx('-legacy', ...args, '-passout', 'pass:pw');
        const says = `encryption ${oid.replaceAll('.', '\\.')}, .*: openssl pkcs12 -legacy -nodes -in `;
        throwsWith('UNSUPPORTED', file, ['pw'], new RegExp(says));
      }
    },
  );

  it('that contains a secret, a list or nested bags is reported with that', async () => {
    const open = await files.pfx(
      '-certpbe',
      'NONE',
      '-keypbe',
      'NONE',
      '-nomac',
      '-passout',
      'pass:',
    );
    for (const bag of [5, 6, 4]) {
      const changed = open
        .toString('latin1')
        .replace('\x0c\x0a\x01\x03', `\x0c\x0a\x01${String.fromCharCode(bag)}`);
      const says = new RegExp(`more than keys and certificates .*12\\.10\\.1\\.${bag}\\)`);
      throwsWith('UNSUPPORTED', Buffer.from(changed, 'latin1'), [''], says);
    }
  });

  it('that requires too much work is refused before the work', async () => {
    const costly = ['-iter', '1000001', '-passout', 'pass:pw'];
    const pools = await files.pfx(...costly, '-nomac');
    throwsWith('TOO_COSTLY', pools, ['pw'], /too many iterations/);
    const old = ['-iter', '600000', '-nomac', '-certpbe', 'PBE-SHA1-3DES', '-passout', 'pass:pw'];
    const own = await files.pfx(...old);
    throwsWith('TOO_COSTLY', own, ['pw'], /too many iterations/);
  });

  it('that claims 2^31 iterations, of its MAC or its key, does not open, before any work', async () => {
    const claimed = (node: Asn1): Asn1 => {
      const { tagClass, type, constructed, value } = node;
      if (typeof value !== 'string') {
        return asn1.create(tagClass, type, constructed, value.map(claimed));
      }
      // The key and the certificates are DER within such a string.
      if (type === asn1.Type.OCTETSTRING && value.startsWith('0\x82')) {
        const inner = encode(claimed(asn1.fromDer(value))).toString('latin1');
        return asn1.create(tagClass, type, false, inner);
      }
      const claim = type === asn1.Type.INTEGER && value === '\x08\0' ? '\0\x80\0\0\0' : value;
      return asn1.create(tagClass, type, constructed, claim);
    };
    const claim = (bytes: Buffer): Buffer =>
      encode(claimed(asn1.fromDer(bytes.toString('latin1'))));
    const startedMs = performance.now();
    const pfx = claim(await files.pfx('-iter', '2048', '-passout', 'pass:pw'));
    throwsWith('TOO_COSTLY', pfx, ['pw'], /too many iterations/);
    for (const scheme of ['aes-256-cbc', 'PBE-SHA1-3DES']) {
      const schemes = ['-certpbe', 'NONE', '-keypbe', scheme];
      const args = ['-iter', '2048', '-nomac', ...schemes, '-passout', 'pass:pw'];
      const locked = claim(await files.pfx(...args));
      assert.throws(() => readPfx(locked, ['pw']), { code: /^(?:TOO_COSTLY|WRONG_PASSWORD)$/ });
    }
    assert.ok(performance.now() - startedMs < 5_000);
  });

  it('with as many iterations as NSS writes is read', async () => {
    assertWhole(await files.pfx('-iter', '600000', '-nomaciter', '-passout', 'pass:pw'), ['pw']);
  });
});

function toHex(bytes: Buffer): string {
  return bytes.toString('hex');
}

function derOf(pem: string): Buffer {
  return Buffer.from(forge.pem.decode(pem)[0]!.body, 'latin1');
}

function encode(node: Asn1): Buffer {
  return Buffer.from(asn1.toDer(node).getBytes(), 'latin1');
}

describe('the identifier of an unknown algorithm', () => {
  const { Class, Type } = asn1;
  const sequence = (...value: Asn1[]): Asn1 =>
    asn1.create(Class.UNIVERSAL, Type.SEQUENCE, true, value);

  /** A file that contains only a MAC with this algorithm. */
  function fileWithMac(oid: Buffer): Buffer {
    const algorithm = asn1.create(Class.UNIVERSAL, Type.OID, false, oid.toString('latin1'));
    const file = sequence(sequence(), sequence(), sequence(sequence(sequence(algorithm))));
    return Buffer.from(asn1.toDer(file).getBytes(), 'latin1');
  }

  it('is in the error when it is short, and left out when it is as long as the file', () => {
    const short = Buffer.from(asn1.oidToDer('1.2.3.4').getBytes(), 'latin1');
    throwsWith('UNSUPPORTED', fileWithMac(short), [''], /^uses the encryption 1\.2\.3\.4, which/);
    const long = Buffer.alloc(50_000, 1);
    throwsWith('UNSUPPORTED', fileWithMac(long), [''], /^uses the encryption, which/);
  });
});
