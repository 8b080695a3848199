import assert from 'node:assert/strict';
import { posix } from 'node:path';
import { describe, it } from 'node:test';
import type { ObjectName } from '../../../../../../src/cache/index/object-name.ts';
import type { KubeClient } from '../../../../../../src/nmi/kube/api/client.ts';
import { KubeError } from '../../../../../../src/nmi/kube/api/kube-error.ts';
import {
  credentialKey,
  credentialKinds,
  kindsOfType,
  objectOf,
  openCredentials,
  openSecretCheck,
  secretOf,
  type EntraCredential,
} from '../../../../../../src/nmi/sources/entra/credentials/kinds.ts';
import { readSyntax } from '../../../../../conventions/syntax.ts';
import { repositoryFiles, typescriptIn, type SourceFile } from '../../../../../conventions/tree.ts';
import { HandClock } from '../../../../../support/hand-clock.ts';

const folder = 'src/nmi/sources/entra/credentials';
const secret = { namespace: 'team', name: 'opaque' };
const serviceAccount = { namespace: 'team', name: 'robot' };
const audience = 'api://AzureADTokenExchange';

/** A credential of each kind, its type and object, and what its client credential needs of the API server. */
const samples = {
  secret: {
    type: 1,
    object: secret,
    credential: { kind: 'secret', secret },
    asks: 'GET /api/v1/namespaces/team/secrets/opaque',
  },
  certificate: {
    type: 2,
    object: secret,
    credential: { kind: 'certificate', secret },
    asks: 'GET /api/v1/namespaces/team/secrets/opaque',
  },
  federated_pod: {
    type: 3,
    object: serviceAccount,
    credential: { kind: 'federated_pod', serviceAccount, audience },
    asks: 'POST as the node /api/v1/namespaces/team/serviceaccounts/robot/token',
  },
  federated_binding: {
    type: 3,
    object: serviceAccount,
    credential: { kind: 'federated_binding', serviceAccount, audience: 'api://AKSIdentityBinding' },
    asks: 'POST as the node /api/v1/namespaces/team/serviceaccounts/robot/token',
  },
  federated_node: {
    type: 3,
    object: undefined,
    credential: { kind: 'federated_node', audience },
    asks: 'POST /apis/authentication.k8s.io/v1/selfsubjectreviews',
  },
  chained: {
    type: 4,
    object: undefined,
    credential: { kind: 'chained', assertedBy: { kind: 'client_id', value: 'm' }, audience },
    asks: undefined,
  },
} as const satisfies {
  [K in EntraCredential['kind']]: {
    readonly type: number;
    readonly object: ObjectName | undefined;
    readonly credential: EntraCredential & { readonly kind: K };
    /** Undefined for a token, which comes with the request. */
    readonly asks: string | undefined;
  };
};
const credentials: readonly EntraCredential[] = Object.values(samples).map(
  (each) => each.credential,
);

/** @param read the answer of the API server to every request. */
function openBy(
  read: (request: string) => Promise<unknown>,
  isNeeded: (credential: EntraCredential) => boolean = () => true,
) {
  const clock = new HandClock();
  const clientCredentials = openCredentials({
    client: {
      getJson: (path: string) => read(`GET ${path}`),
      postJson: (path: string) => read(`POST ${path}`),
    } as Partial<KubeClient> as KubeClient,
    tokenClient: { postJson: (path) => read(`POST as the node ${path}`) },
    clock,
    livePodOf: () => ({ name: 'web', uid: 'u1' }),
    isNeeded,
    onCertificate: () => undefined,
  });
  const get = (credential: EntraCredential) =>
    clientCredentials.get(credential, AbortSignal.timeout(5_000));
  return { clock, clientCredentials, get };
}

describe('the kinds of credentials', () => {
  it('each have their own name, and share a type with others that do', () => {
    const words = credentialKinds.map(({ kind }) => kind);
    assert.deepEqual(words.toSorted(), Object.keys(samples).toSorted());
    for (const one of credentialKinds) {
      const sameType = credentialKinds.filter(({ type }) => type === one.type);
      assert.deepEqual(
        new Set(sameType.map(({ typeTitle }) => typeTitle)),
        new Set([one.typeTitle]),
      );
    }
  });

  it('belong to the types of AzureIdentity', () => {
    for (const type of [0, 1, 2, 3, 4, 5, 9]) {
      const expected = Object.entries(samples).filter(([, sample]) => sample.type === type);
      assert.deepEqual(
        kindsOfType(type).map(({ kind }) => kind),
        expected.map(([kind]) => kind),
      );
    }
  });

  it('have different keys, and the objects that they depend on', () => {
    assert.equal(new Set(credentials.map(credentialKey)).size, credentials.length);
    assert.deepEqual(
      credentials.map(objectOf),
      Object.values(samples).map(({ object }) => object),
    );
    assert.deepEqual(
      credentials.map(secretOf),
      Object.values(samples).map(({ object }) => (object === secret ? secret : undefined)),
    );
  });

  for (const { credential, asks } of Object.values(samples)) {
    if (asks === undefined) continue;
    it(`${credential.kind} is obtained from the answer of ${asks}`, async () => {
      const asked: string[] = [];
      const { clientCredentials, get } = openBy((request) => {
        asked.push(request);
        return Promise.reject(new KubeError('FORBIDDEN', 'no', { status: 403 }));
      });
      const result = await get(credential);
      clientCredentials[Symbol.dispose]();
      assert.ok(!result.ok && result.failure.reason === 'credential_invalid');
      assert.deepEqual(asked, [asks]);
    });
  }
});

describe('the credentials', () => {
  it('are kept while an identity needs one of their kind, and not after their disposal', async () => {
    const judged: unknown[] = [];
    let [isNeeded, reads] = [true, 0];
    const data = { clientSecret: Buffer.from('canary').toString('base64') };
    const { clock, clientCredentials, get } = openBy(
      () => {
        reads += 1;
        return Promise.resolve({ data });
      },
      (each) => {
        judged.push(each);
        return isNeeded;
      },
    );
    const { credential } = samples.secret;
    for (let turn = 0; turn < 2; turn++) await get(credential);
    assert.equal(reads, 1);
    isNeeded = false;
    clientCredentials.dropUnneeded();
    isNeeded = true;
    await get(credential);
    assert.equal(reads, 2);
    for (const each of judged) assert.equal(each, credential);
    await get(samples.certificate.credential);
    assert.equal(clock.armed.length, 2);
    clientCredentials[Symbol.dispose]();
    assert.deepEqual(clock.armed, []);
  });
});

describe('the check of a Secret', () => {
  const checkBy = (getJson: () => Promise<unknown>, kind: 'secret' | 'certificate') => {
    const client = { getJson } as unknown as KubeClient;
    return openSecretCheck({ client, clock: new HandClock() })({ kind, secret });
  };
  const check = (data: object, kind: 'secret' | 'certificate' = 'secret') =>
    checkBy(() => Promise.resolve({ kind: 'Secret', data }), kind);
  const base64 = (text: string) => Buffer.from(text).toString('base64');

  it('judges its keys as the agents do', async () => {
    const password = { clientSecret: base64('x') };
    for (const [data, kind, expected] of [
      [password, 'secret', /^usable: $/],
      [{ a: base64('x'), b: base64('y') }, 'secret', /^unusable: .* has no key "clientSecret"/],
      [{}, 'secret', /^unusable: Secret team\/opaque has no data/],
      [password, 'certificate', /^unusable: .* has neither a key "certificate" nor/],
      [{ certificate: base64('x') }, 'certificate', /^unusable: key "certificate" of Secret team/],
    ] as const) {
      const found = await check(data, kind);
      assert.match(`${found.kind}: ${'problem' in found ? found.problem : ''}`, expected);
    }
  });

  it('reports one that is missing or not to be read, and whether to ask again', async () => {
    for (const [code, expected] of [
      ['NOT_FOUND', 'missing'],
      ['FORBIDDEN', 'unusable'],
      ['NETWORK', undefined],
      ['THROTTLED', 3_000],
    ] as const) {
      const options = code === 'THROTTLED' ? { retryAfterMs: 3_000 } : {};
      const found = await checkBy(() => Promise.reject(new KubeError(code, '', options)), 'secret');
      assert.equal(found.kind === 'unavailable' ? found.retryAfterMs : found.kind, expected);
    }
  });
});

/**
 * A new kind needs only its file and one line of the list, as long as no other code names a kind.
 */
describe('the list of credential kinds', () => {
  const files = typescriptIn(repositoryFiles(), 'src');

  it('names no kind itself, and neither does anything outside its folder', () => {
    const quoted = credentialKinds.map(({ kind }) => new RegExp(`['"\`]${kind}['"\`]`));
    const knowing = files.filter(
      ({ path, text }) =>
        (path === `${folder}/kinds.ts` || !path.startsWith(`${folder}/`)) &&
        quoted.some((pattern) => pattern.test(text)),
    );
    assert.deepEqual(
      knowing.map(({ path }) => path),
      [],
    );
  });

  it('is, with the interface, all that others import from the folder', () => {
    const taken = files
      .filter(({ path }) => !path.startsWith(`${folder}/`))
      .flatMap(targetsOf)
      .filter((target) => target.startsWith(`${folder}/`));
    assert.deepEqual([...new Set(taken)].toSorted(), [
      `${folder}/descriptor.ts`,
      `${folder}/kinds.ts`,
    ]);
  });
});

function targetsOf(file: SourceFile): readonly string[] {
  return readSyntax(file)
    .specifiers.filter((specifier) => specifier.startsWith('.'))
    .map((specifier) => posix.join(posix.dirname(file.path), specifier));
}
