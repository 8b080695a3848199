import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { loadCredentials } from '../../../../src/nmi/kube/api/credentials.ts';
import { KubeError } from '../../../../src/nmi/kube/api/kube-error.ts';
import { temporaryDir } from './kube-test-bed.ts';

const nowhere = { environment: {}, serviceAccountDir: '/nonexistent' };
const inPod = { KUBERNETES_SERVICE_HOST: '10.0.0.1', KUBERNETES_SERVICE_PORT: '443' };

function isConfigError(pattern: RegExp): (error: unknown) => boolean {
  return (error) =>
    error instanceof KubeError && error.code === 'CONFIG' && pattern.test(error.message);
}

function kubeconfig(cluster: string, user: string): string {
  return `
apiVersion: v1
kind: Config
clusters: [{ name: c, cluster: { ${cluster} } }]
users: [{ name: u, user: { ${user} } }]
contexts: [{ name: x, context: { cluster: c, user: u } }]
current-context: x
`;
}

describe('credentials inside a pod', () => {
  it('fail with a code when the variables or the service account are missing', async () => {
    assert.throws(() => loadCredentials(nowhere), isConfigError(/KUBERNETES_SERVICE_HOST/));
    const noPort = { KUBERNETES_SERVICE_HOST: '10.0.0.1' };
    assert.throws(
      () => loadCredentials({ ...nowhere, environment: noPort }),
      isConfigError(/KUBERNETES_SERVICE_PORT/),
    );
    assert.throws(
      () => loadCredentials({ ...nowhere, environment: inPod }),
      isConfigError(/nonexistent\/token/),
    );
    await using dir = await temporaryDir();
    await writeFile(join(dir.path, 'token'), 't');
    assert.throws(
      () => loadCredentials({ environment: inPod, serviceAccountDir: dir.path }),
      isConfigError(/ca\.crt/),
    );
  });

  it('are the token, trimmed, and the CA; a forgotten token is read again', async () => {
    await using dir = await temporaryDir();
    await writeFile(join(dir.path, 'token'), 'first\n');
    await writeFile(join(dir.path, 'ca.crt'), 'CA');
    const credentials = loadCredentials({ environment: inPod, serviceAccountDir: dir.path });
    const before = await credentials.current();
    assert.equal(before.origin, 'https://10.0.0.1');
    assert.equal(before.headers['authorization'], 'Bearer first');
    assert.equal(String(before.tls.ca), 'CA');
    assert.notEqual(before.tls.rejectUnauthorized, false, 'the server is verified');

    await writeFile(join(dir.path, 'token'), 'second');
    assert.equal((await credentials.current()).headers['authorization'], 'Bearer first');
    credentials.forget();
    const after = await credentials.current();
    assert.equal(after.headers['authorization'], 'Bearer second');
    assert.equal(after.fingerprint, before.fingerprint);
  });

  it('have another fingerprint when the CA file changes, without a reset', async () => {
    await using dir = await temporaryDir();
    await writeFile(join(dir.path, 'token'), 't');
    await writeFile(join(dir.path, 'ca.crt'), 'old');
    const credentials = loadCredentials({ environment: inPod, serviceAccountDir: dir.path });
    const { fingerprint } = await credentials.current();
    assert.equal((await credentials.current()).fingerprint, fingerprint);
    await writeFile(join(dir.path, 'ca.crt'), 'new');
    assert.notEqual((await credentials.current()).fingerprint, fingerprint);
  });

  it('put an IPv6 service address in brackets', async () => {
    await using dir = await temporaryDir();
    for (const file of ['token', 'ca.crt']) await writeFile(join(dir.path, file), 'x');
    const environment = { ...inPod, KUBERNETES_SERVICE_HOST: 'fd00::1' };
    const credentials = loadCredentials({ environment, serviceAccountDir: dir.path });
    assert.equal((await credentials.current()).origin, 'https://[fd00::1]');
  });
});

describe('credentials from a kubeconfig', () => {
  async function load(...texts: readonly string[]) {
    await using dir = await temporaryDir();
    const paths = texts.map((_, at) => join(dir.path, `config-${at}`));
    for (const [at, text] of texts.entries()) await writeFile(paths[at]!, text);
    return await loadCredentials({ ...nowhere, kubeconfigPath: paths.join(':') }).current();
  }

  it('contain server, path prefix, token and TLS settings', async () => {
    const access = await load(
      kubeconfig(
        'server: "https://api.example:6443/k8s/c1/", tls-server-name: other, insecure-skip-tls-verify: true',
        'token: " secret\\n", as: someone, client-certificate-data: Q0VSVA==, client-key-data: S0VZ',
      ),
    );
    assert.equal(access.origin, 'https://api.example:6443');
    assert.equal(access.pathPrefix, '/k8s/c1');
    assert.equal(access.headers['authorization'], 'Bearer  secret');
    assert.equal(access.headers['impersonate-user'], 'someone');
    assert.equal(access.tls.servername, 'other');
    assert.equal(access.tls.rejectUnauthorized, false);
    assert.equal(String(access.tls.cert), 'CERT');
    assert.equal(String(access.tls.key), 'KEY');
  });

  it('verify the server unless configured otherwise', async () => {
    const access = await load(kubeconfig('server: "https://api.example"', ''));
    assert.equal(access.tls.rejectUnauthorized, undefined);
    assert.equal(access.pathPrefix, '');
    assert.deepEqual(access.headers, {});
  });

  it('work for plain http without the insecure switch, and with user and password', async () => {
    const access = await load(
      kubeconfig('server: "http://127.0.0.1:8001"', 'username: a, password: b'),
    );
    assert.equal(access.origin, 'http://127.0.0.1:8001');
    assert.equal(access.headers['authorization'], 'Basic YTpi');
  });

  it('fail with a code for files that cannot be used', async () => {
    const gone = { ...nowhere, kubeconfigPath: '/nonexistent/config' };
    assert.throws(() => loadCredentials(gone), isConfigError(/nonexistent\/config/));
    await assert.rejects(load('{}'), isConfigError(/current context/));
    await assert.rejects(load('{'), isConfigError(/cannot use/));
    const whole = kubeconfig('server: "https://a"', '');
    for (const part of ['name: c,', 'name: u,']) {
      const halved = whole.replace(part, 'name: other,');
      await assert.rejects(load(halved), isConfigError(/current context/));
    }
    await assert.rejects(
      load(kubeconfig('server: "https://a", proxy-url: "http://p"', '')),
      isConfigError(/proxy-url/),
    );
    await assert.rejects(load(kubeconfig('server: "ftp://a"', '')), isConfigError(/http or https/));
    await assert.rejects(
      load(kubeconfig('server: "https://a", certificate-authority: gone.crt', '')),
      isConfigError(/gone\.crt/),
    );
  });
});
