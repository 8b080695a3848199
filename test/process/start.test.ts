import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { ask, tokenTarget } from '../support/ask.ts';
import { freePort } from '../../lab/fabric/free-ports.ts';
import { nodeName, openServices, startNmi } from './agent-child.ts';

const usage = 2;
const unavailable = 69;
const config = 78;

describe('the agent process at its start', { timeout: 600_000 }, () => {
  it('ends with 2 on wrong flags and lists all of them, each with what is allowed', async () => {
    const child = startNmi(
      ['--nmi-port=NaN', '--operation-mode=standard', '--no-such-flag=1', '--prometheus-port=-1'],
      { NMI_METADATA_PORT: '0' },
    );
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

  it('ends with 78 without any Kubernetes configuration, and reports where it looked', async () => {
    await using testBed = await openServices();
    const child = testBed.start(testBed.flags, {});
    assert.equal(await child.exited, config);
    assert.match(child.stdout(), /KUBERNETES_SERVICE_HOST/);
  });

  it('ends with 78 on a missing or invalid kubeconfig, and names the file', async () => {
    await using testBed = await openServices();
    const missing = join(testBed.folder, 'missing');
    const broken = join(testBed.folder, 'broken');
    await writeFile(broken, 'apiVersion: v1\nclusters: 7\n');
    for (const path of [missing, broken]) {
      const child = testBed.start(testBed.flags, { KUBECONFIG: path });
      assert.equal(await child.exited, config, child.stdout());
      assert.ok(child.stdout().includes(path), child.stdout());
      assert.match(child.stderr(), /^nmi: cannot start: no usable Kubernetes .* \(CONFIG\)\n$/);
    }
  });

  it('ends with 69 when its port is taken, and names the port and the flag', async () => {
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
      assert.ok(line.includes(String(port)) && line.includes(flag), line);
      assert.match(line, /in use/);
    }
  });

  it('ends with 69 when the node does not have the listen address', async () => {
    await using testBed = await openServices();
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
    const warnings = child.stdout().match(/"warning":"[^"]*"/g);
    assert.equal(warnings?.length, 1, child.stdout());
    assert.match(warnings[0], /--enableScaleFeatures has no effect/);
    child.signal('SIGTERM');
    assert.equal(await child.exited, 0);
  });

  it('refuses a kubenet node with 78 and starts there when that is allowed', async () => {
    await using testBed = await openServices();
    const kubelet = join(testBed.folder, 'kubelet');
    await writeFile(kubelet, 'KUBELET_FLAGS=--v=2 --network-plugin=kubenet --node-ip=10.0.0.4\n');
    const flags = [...testBed.flags, `--kubelet-config=${kubelet}`];
    const refused = testBed.start(flags);
    assert.equal(await refused.exited, config);
    assert.match(refused.stderr(), /AAD Pod Identity is not supported for Kubenet/);
    assert.ok(refused.stderr().includes(kubelet));
    assert.match(refused.stderr(), /--allow-network-plugin-kubenet/);
    const allowed = testBed.start([...flags, '--allow-network-plugin-kubenet']);
    await testBed.untilReady();
    assert.ok(allowed.pid > 0);
  });

  it('starts where the kubelet’s file is missing or empty', async () => {
    await using testBed = await openServices();
    const empty = join(testBed.folder, 'empty');
    await writeFile(empty, '');
    for (const path of [empty, join(testBed.folder, 'none')]) {
      const child = testBed.start([...testBed.flags, `--kubelet-config=${path}`]);
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
    const reply = await ask(testBed.pod, tokenTarget);
    assert.equal(reply.status, 503);
    assert.equal(reply.headers.get('retry-after'), '1');
    assert.match(
      String(reply.body['error_description']),
      /^The agent has not read the pods of this node: .+\. Retry\./,
    );
    assert.equal((await testBed.page('livez'))?.status, 200);
    const ready = await testBed.page('readyz');
    assert.equal(ready?.status, 503);
    assert.match(ready.text, /"watches":"[^"]*pods/);
    assert.deepEqual(testBed.imds.requests(), []);
    child.signal('SIGTERM');
    assert.equal(await child.exited, 0, child.stdout());
  });
});
