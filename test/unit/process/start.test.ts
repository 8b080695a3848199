import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { freePort } from '../../../lab/fabric/free-ports.ts';
import { ask, tokenTarget } from '../../support/ask.ts';
import { nodeName, openServices, startNmi } from './agent-child.ts';

const usage = 2;
const unavailable = 69;
const config = 78;

describe('the agent process at its start', { timeout: 600_000 }, () => {
  it('ends with 2 on wrong flags and lists all of them, each with what is allowed', async () => {
    const wrong = ['--nmi-port=NaN', '--operation-mode=standard', '--no-such-flag=1'];
    const child = startNmi([...wrong, '--prometheus-port=-1'], { NMI_METADATA_PORT: '0' });
    assert.equal(await child.exited, usage);
    assert.equal(child.stdout(), '');
    const lines = child.stderr().trimEnd().split('\n');
    for (const name of [
      ...['--nmi-port', '--operation-mode', '--prometheus-port', '--node'],
      'NMI_METADATA_PORT',
    ]) {
      const line = lines.find((text) => text.includes(`${name} `));
      assert.match(line ?? '', /; allowed: ./, `${name} in:\n${child.stderr()}`);
    }
    assert.ok(lines.includes('nmi: unknown flag --no-such-flag; see nmi --help'), child.stderr());
    assert.equal(lines.length, 6);
  });

  it('ends with 78 without a usable Kubernetes configuration, and names the file', async () => {
    await using testBed = await openServices();
    const [missing, broken] = ['missing', 'broken'].map((name) => join(testBed.folder, name));
    assert.ok(missing !== undefined && broken !== undefined);
    await writeFile(broken, 'apiVersion: v1\nclusters: 7\n');
    for (const [env, says] of [
      [{}, 'KUBERNETES_SERVICE_HOST'],
      [{ KUBECONFIG: missing }, missing],
      [{ KUBECONFIG: broken }, broken],
    ] as const) {
      const child = testBed.start(testBed.flags, env);
      assert.equal(await child.exited, config, child.stdout());
      assert.ok(child.stdout().includes(says), child.stdout());
      assert.match(child.stderr(), /^nmi: cannot start: no usable Kubernetes .* \(CONFIG\)\n$/);
    }
  });

  it('ends with 69 when it cannot listen, and names the address and the flag', async () => {
    await using testBed = await openServices();
    for (const [port, flag] of [
      [testBed.listenPort, '--nmi-port'],
      [testBed.probePort, '--http-probe-port'],
    ] as const) {
      await using holder = createServer();
      holder.listen(port, port === testBed.listenPort ? '127.0.0.1' : undefined);
      await once(holder, 'listening');
      const child = testBed.start();
      assert.equal(await child.exited, unavailable, child.stdout());
      const line = child.stdout().trimEnd().split('\n').at(-1) ?? '';
      for (const part of [String(port), flag, 'in use']) assert.ok(line.includes(part), line);
    }
    // 192.0.2.0/24 is reserved for documentation: no machine has it.
    const child = testBed.start([...testBed.flags, '--nmi-listen-address=192.0.2.7']);
    assert.equal(await child.exited, unavailable);
    assert.match(child.stdout(), /192\.0\.2\.7:\d+.*--nmi-listen-address/);
  });

  it('starts with the arguments of the replaced system’s manifest', async () => {
    await using testBed = await openServices();
    const child = testBed.start(
      [
        ...[`--node=${nodeName}`, '--operation-mode=managed', '--forceNamespaced'],
        ...[`--http-probe-port=${testBed.probePort}`, '--enableScaleFeatures=true'],
        '--metadata-header-required=true',
      ],
      {
        KUBECONFIG: testBed.kubeconfig,
        HOST_IP: '10.224.0.4',
        NODE_NAME: nodeName,
        FORCENAMESPACED: 'true',
        // Further flags for a manifest on loopback.
        NMI_REDIRECT: 'none',
        NMI_LISTEN_ADDRESS: '127.0.0.1',
        NMI_NMI_PORT: String(testBed.listenPort),
        NMI_METADATA_IP: '127.0.0.1',
        NMI_METADATA_PORT: String(testBed.imds.port),
        NMI_PROMETHEUS_PORT: '0',
      },
    );
    await testBed.untilReady();
    assert.deepEqual(await testBed.page('healthz'), { status: 200, text: 'Active' });
    assert.equal((await ask(testBed.pod, tokenTarget)).identity, 'a');
    const warnings = child.stdout().match(/"warning":"[^"]*"/g) ?? [];
    assert.match(warnings.join('\n'), /^"warning":"--enableScaleFeatures has no effect[^\n]*$/);
    child.signal('SIGTERM');
    assert.equal(await child.exited, 0);
  });

  it('refuses a kubenet node with 78, unless that is allowed, and no other', async () => {
    await using testBed = await openServices();
    const [kubenet, empty] = ['kubelet', 'empty'].map((name) => join(testBed.folder, name));
    assert.ok(kubenet !== undefined && empty !== undefined);
    await writeFile(kubenet, 'KUBELET_FLAGS=--v=2 --network-plugin=kubenet --node-ip=10.0.0.4\n');
    await writeFile(empty, '');
    const start = (file: string, ...more: readonly string[]) =>
      testBed.start([...testBed.flags, `--kubelet-config=${file}`, ...more]);
    const refused = start(kubenet);
    assert.equal(await refused.exited, config);
    assert.match(refused.stderr(), /AAD Pod Identity is not supported for Kubenet/);
    assert.match(refused.stderr(), /--allow-network-plugin-kubenet/);
    assert.ok(refused.stderr().includes(kubenet));
    for (const [file, ...more] of [
      [kubenet, '--allow-network-plugin-kubenet'],
      [empty],
      [join(testBed.folder, 'none')],
    ] as const) {
      const child = start(file, ...more);
      await testBed.untilReady();
      child.signal('SIGTERM');
      assert.equal(await child.exited, 0);
    }
  });

  it('runs without the Kubernetes API, alive but not ready, and answers pods to retry', async () => {
    await using testBed = await openServices();
    const nobody = join(testBed.folder, 'nobody');
    const port = await freePort();
    const text = testBed.kube.kubeconfig().replaceAll(`:${testBed.kube.port}`, `:${port}`);
    await writeFile(nobody, text);
    const child = testBed.start(testBed.flags, { KUBECONFIG: nobody });
    await child.untilPrinted(/"msg":"listening"/);
    const { status, headers, body } = await ask(testBed.pod, tokenTarget);
    assert.deepEqual([status, headers.get('retry-after')], [503, '1']);
    const says = /^The agent has not read the pods of this node: .+\. Retry\./;
    assert.match(String(body['error_description']), says);
    assert.equal((await testBed.page('livez'))?.status, 200);
    const ready = await testBed.page('readyz');
    assert.equal(ready?.status, 503);
    assert.match(ready.text, /"watches":"[^"]*pods/);
    assert.deepEqual(testBed.imds.requests(), []);
    child.signal('SIGTERM');
    assert.equal(await child.exited, 0, child.stdout());
  });
});
