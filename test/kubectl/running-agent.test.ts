/**
 * Verbs that query a running agent: the whole agent on loopback, and a kubectl with exec, logs and
 * proxied pages that reach it.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { runCli } from '../../src/cli/cli.ts';
import type { ProgramRun } from '../../src/kubectl/base/io.ts';
import { twoFreePorts } from '../../lab/fabric/free-ports.ts';
import {
  bindPodToA,
  identityA,
  openLoopbackAgent,
  type LoopbackAgent,
} from '../support/loopback-agent.ts';
import {
  createAgentPod,
  createBinding,
  createIdentity,
  createPod,
  failed,
  kinds,
  ok,
  play,
  type Recorded,
} from './support/recorded-kubectl.ts';

const target =
  '/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net';

describe('kubectl nmi beside a running agent', () => {
  let agent: LoopbackAgent;
  let folder: string;
  let testBed: Recorded;
  let socket: string;
  const run = (...words: readonly string[]) => play([...words, '-n', 'default'], testBed);

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'nmi-test-'));
    socket = join(folder, 'explain.sock');
    const [metricsPort] = await twoFreePorts();
    agent = await openLoopbackAgent({ 'prometheus-port': String(metricsPort) }, bindPodToA, {
      explainSocket: socket,
    });
    const labels = { aadpodidbinding: 'app' };
    const args = [`--http-probe-port=${agent.adminPort}`, `--prometheus-port=${metricsPort}`];
    const namespace = 'default';
    testBed = {
      objects: {
        nodes: [{ metadata: { name: 'node-1' } }],
        pods: [
          createPod('p', { namespace, labels, ip: '127.0.0.11' }),
          createAgentPod('node-1', { args }),
        ],
        [kinds.identities]: [
          createIdentity('a', { type: 0, clientID: identityA.clientId }, { namespace }),
        ],
        [kinds.bindings]: [
          createBinding('a', { azureIdentity: 'a', selector: 'app' }, { namespace }),
        ],
      },
      other: (_program, words) => reach(words),
    };
    for (const userAgent of ['azsdk-python-identity/1.12.0 Python/3.11', 'azsdk-go-azidentity/x']) {
      const answer = await agent.client('127.0.0.11').request({
        method: 'GET',
        target,
        headers: ['Metadata', 'true', 'User-Agent', userAgent],
        connection: 'own',
        timeoutMs: 5_000,
      });
      assert.ok(answer.outcome === 'answered' && answer.status === 200);
    }
  });
  after(async () => {
    await agent[Symbol.asyncDispose]();
    await rm(folder, { recursive: true });
  });

  /** Replaces exec, logs and the API server proxy of kubectl. */
  async function reach(words: readonly string[]): Promise<ProgramRun> {
    const [verb = '', ...rest] = words;
    const program = rest.indexOf('nmi');
    if (verb === 'exec' && program >= 0) {
      let [stdout, stderr] = ['', ''];
      const code = await runCli(rest.slice(program + 1), {
        environment: { NMI_EXPLAIN_SOCKET: socket },
        stdout: (text) => (stdout += text),
        stderr: (text) => (stderr += text),
        stop: new AbortController().signal,
      });
      return { code, stdout, stderr };
    }
    if (verb === 'logs') return ok(rest.includes('--previous') ? '' : agent.log.join(''));
    if (rest[0]?.includes('openid-configuration') === true)
      return ok('{"issuer":"https://oidc.example/"}');
    const [, port, page = ''] = /:(\d+)\/proxy\/(\w+)$/.exec(rest[0] ?? '') ?? [];
    if (verb !== 'get' || port === undefined) return failed(`error: unknown command "${verb}"`);
    const response = await fetch(`http://127.0.0.1:${port}/${page}`);
    const text = await response.text();
    return response.ok ? ok(text) : failed(`Error from server (NotFound): ${text}`);
  }

  it('sysdump has its pages, log and metrics', async () => {
    const { code, stdout: text } = await run('sysdump');
    assert.equal(code, 0);
    for (const part of [
      /nodeVersion: v26/,
      /azsdk-python-identity\/1\.12\.0/,
      /redirect: none/,
      /token request/,
      /nmi_build_info/,
    ]) {
      assert.match(text, part);
    }
    assert.doesNotMatch(text, /eyJ/);
  });
});
