import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import type { RequestListener } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import {
  createAzureIdentity,
  createAzureIdentityBinding,
  createAzurePodIdentityException,
  createPodManifest,
} from '../../../lab/fakes/kube/manifests.ts';
import { askAgent } from '../../../src/cli/agent-socket.ts';
import { runCli } from '../../../src/cli/cli.ts';
import type { Io } from '../../../src/cli/io.ts';
import { explanationSchema } from '../../../src/nmi/explain/explanation.ts';
import { ask, tokenTarget } from '../../support/ask.ts';
import {
  bindApplication,
  bindPod,
  credentialKinds,
  type EntraAgent,
  type EntraTestBed,
  openEntraAgent,
  putSecret,
} from '../../support/entra-agent.ts';
import { identityA, identityB, idsOf } from '../../support/loopback-agent.ts';
import { beside, record } from './recorded-io.ts';

const vault = 'https://vault.azure.net';

const cli = (args: readonly string[], socketPath = '') =>
  record(
    (io) => runCli(['explain', ...args], io),
    socketPath === '' ? {} : { NMI_EXPLAIN_SOCKET: socketPath },
  );

describe('nmi explain beside an agent', () => {
  let folder: string;
  let path: string;
  let agent: EntraAgent;
  const clientIds = new Map<string, string>();
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'nmi-explain-'));
    path = join(folder, 'explain.sock');
    const own = { explainSocket: path, tuning: { bindingGraceMs: 0 } };
    const prepare = async (testBed: EntraTestBed) => {
      const { kube } = testBed;
      bindPod(kube);
      for (const kind of credentialKinds) {
        const application = await bindApplication(testBed, kind, kind.replace('_', '-'));
        clientIds.set(kind, application.clientId);
      }
      // The oldest, so the default.
      kube.apply(createAzureIdentity({ name: 'a', ...idsOf(identityA), createdAtWallMs: 0 }));
      kube.apply(createAzureIdentityBinding({ name: 'a', azureIdentity: 'a', selector: 'app' }));
      kube.apply(createAzureIdentity({ name: 'b', ...idsOf(identityB) }));
      kube.apply(createAzureIdentityBinding({ name: 'b', azureIdentity: 'b', selector: 'b' }));
      kube.apply(createAzureIdentity({ name: 'bad', clientId: 'no-guid' }));
      kube.apply(
        createAzureIdentityBinding({ name: 'bad', azureIdentity: 'bad', selector: 'bad' }),
      );
      kube.apply(createAzureIdentityBinding({ name: 'g', azureIdentity: 'gone', selector: 'g' }));
      for (const [name, ip, binding] of [
        ['unlabelled', '127.0.0.21', undefined],
        ['unbound', '127.0.0.22', 'unbound'],
        ['dangling', '127.0.0.23', 'g'],
        ['invalid', '127.0.0.24', 'bad'],
        ['twin-1', '127.0.0.25', 'b'],
        ['twin-2', '127.0.0.25', 'b'],
        ['throttled', '127.0.0.26', 'b'],
        ['excepted', '127.0.0.27', undefined],
      ] as const) {
        const labelled = binding === undefined ? {} : { binding };
        const labels = name === 'excepted' ? { labels: { app: 'addon' } } : {};
        kube.apply(
          createPodManifest({ name, nodeName: 'node-1', ips: [ip], ...labelled, ...labels }),
        );
      }
      kube.apply(createAzurePodIdentityException({ name: 'x', podLabels: { app: 'addon' } }));
    };
    agent = await openEntraAgent({}, prepare, own);
  });
  after(async () => {
    await agent[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  });

  const explained = async (...args: string[]) => {
    const { code, stdout, stderr } = await cli([...args, '--output=json'], path);
    assert.equal(code, 0, stderr);
    return JSON.parse(stdout) as {
      requests: { outcome: { kind: string; refusal?: Record<string, unknown> } }[];
    };
  };

  // The explanation and the actual answer, for every kind of refusal that a pod can cause.
  const cases: readonly (readonly [string, string, string?])[] = [
    ['unlabelled', '127.0.0.21'],
    ['unbound', '127.0.0.22'],
    ['dangling', '127.0.0.23'],
    ['invalid', '127.0.0.24'],
    ['twin-1', '127.0.0.25'],
    ['p', '127.0.0.11', 'nobody'],
    ['p', '127.0.0.11', idsOf(identityB).clientId],
  ];
  for (const [name, ip, clientId] of cases) {
    it(`reports for pod ${name}${clientId === undefined ? '' : ` with ${clientId}`} the actual answer`, async () => {
      const named = clientId === undefined ? [] : [`--client-id=${clientId}`];
      const told = await explained(`--pod=default/${name}`, `--resource=${vault}`, ...named);
      const query = clientId === undefined ? '' : `&client_id=${clientId}`;
      const reply = await ask(agent.client(ip), `${tokenTarget}${query}`);
      const outcome = told.requests.at(-1)?.outcome;
      assert.equal(outcome?.kind, 'refused');
      assert.notEqual(reply.status, 200);
      const { status, error, description, retryAfterS } = outcome.refusal ?? {};
      assert.deepEqual(
        { status, error, description, retryAfterS: String(retryAfterS) },
        {
          status: reply.status,
          error: reply.body['error'],
          description: reply.body['error_description'],
          retryAfterS: String(reply.headers.get('retry-after')),
        },
      );
    });
  }

  it('reports the same for a cached failure', async () => {
    const { clientId } = idsOf(identityB);
    await agent.imds.setFaults({ fail: { status: 429, retryAfterSec: 30 } });
    const first = await ask(agent.client('127.0.0.26'), tokenTarget);
    await agent.imds.setFaults({});
    assert.equal(first.status, 429);
    const told = await explained('--pod=default/throttled', `--resource=${vault}`);
    const { status, reason, description } = told.requests[0]?.outcome.refusal ?? {};
    assert.deepEqual({ status, reason }, { status: 429, reason: 'upstream_throttled' });
    const again = await ask(agent.client('127.0.0.26'), tokenTarget);
    assert.equal(description, again.body['error_description']);
    const { stdout } = await cli(['--pod=default/throttled'], path);
    assert.match(stdout, new RegExp(`AzureIdentity b, type 0, client id ${clientId}`));
    assert.match(
      stdout,
      /https:\/\/vault\.azure\.net: no token, no retry for \d+ s: upstream_throttled/,
    );
  });

  it('reports all pods in a table', async () => {
    const { code, stdout } = await cli([], path);
    assert.equal(code, 0);
    for (const line of [
      /^default\/p +127\.0\.0\.11 +app +a \(default\)$/m,
      /^default\/unlabelled +127\.0\.0\.21 +- +400 no_binding_label$/m,
      /^default\/twin-2 +127\.0\.0\.25 +b +503 pod_ambiguous$/m,
      /^default\/excepted +127\.0\.0\.27 +- +node \(exception x\)$/m,
      /^node node-1: no redirect; watches in step, API server contact \d+ s ago, asked as this node$/m,
    ]) {
      assert.match(stdout, line);
    }
  });

  it('reports nothing secret: no token, secret, certificate or assertion', async () => {
    const secrets = ['secret-of-secret', 'password-of-certificate'];
    const client = agent.client('127.0.0.11');
    const own = await ask(client, tokenTarget);
    const tokens = [String(own.body['access_token'])];
    for (const kind of credentialKinds) {
      const reply = await ask(client, `${tokenTarget}&client_id=${clientIds.get(kind) ?? ''}`);
      assert.equal(reply.status, 200, kind);
      tokens.push(String(reply.body['access_token']));
    }
    // A pod that puts its token into the resource field, and a secret that is refused.
    const target = tokenTarget.replace('https://vault.azure.net', tokens[0] ?? '');
    await ask(client, target);
    secrets.push(putSecret(agent.kube, 'secret', 'wrong-and-still-a-secret'));
    const other = tokenTarget.replace('vault.azure.net', 'other.example');
    await ask(client, `${other}&client_id=${clientIds.get('secret') ?? ''}`);

    const told: string[] = [];
    for (const output of ['text', 'json']) {
      for (const args of [[], ['--pod=default/p'], ['--pod=default/p', `--resource=${vault}`]]) {
        told.push((await cli([...args, `--output=${output}`], path)).stdout);
      }
    }
    const text = told.join('\n');
    assert.match(text, /fresh token/);
    assert.match(text, /\[unusual\]/);
    assert.match(text, /from chained, chain managed identity [-0-9a-f]{36}, tenant /);
    tokens.push(...agent.imds.issuedTokens(), ...agent.entra.issuedTokens());
    for (const secret of [...secrets, 'PRIVATE KEY']) assert.ok(!text.includes(secret), secret);
    for (const token of tokens) {
      assert.ok(token.startsWith('eyJ'), 'otherwise the next line finds nothing');
      assert.ok(!text.includes(token.split('.').at(-1) ?? token));
    }
    assert.ok(!text.includes('eyJ'));
  });

  it('fails for a missing pod', async () => {
    const { code, stdout } = await cli(['--pod=default/nobody'], path);
    assert.equal(code, 1);
    assert.match(stdout, /^Node node-1 has no running pod default\/nobody\.$/m);
  });

  it('reports an invalid question as a usage error', async () => {
    for (const [args, problem] of [
      [['--pod=p'], /NAMESPACE\/NAME/],
      [['--ip=10.0.0.1'], /unknown flag --ip/],
      [['--resource=r'], /one pod/],
      [['--output=yaml'], /allowed: text, json/],
      [['--nope=1'], /unknown flag --nope/],
      [['default/p'], /--pod NAMESPACE\/NAME/],
      [['--explain-socket=/x'], /unknown flag --explain-socket/],
      [['--pod'], /--pod has no value/],
    ] as const) {
      const { code, stdout, stderr } = await cli(args, path);
      assert.equal(code, 2, args.join(' '));
      assert.equal(stdout, '');
      assert.match(stderr, problem);
      assert.match(stderr, /^nmi(?: explain)?: [^\n]+\n$/);
    }
  });
});

describe('nmi explain without an agent', () => {
  let folder: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'nmi-explain-'));
  });
  after(() => rm(folder, { recursive: true, force: true }));

  it('reports that there is no socket, or no process behind it', async () => {
    const path = join(folder, 'none.sock');
    const none = await cli([], path);
    assert.equal(none.code, 69);
    assert.match(
      none.stderr,
      /no agent answers at .*none\.sock \(ENOENT\): it is not running here/,
    );
    await writeFile(path, '');
    const nobody = await cli([], path);
    assert.equal(nobody.code, 69);
    assert.match(nobody.stderr, /no agent answers at/);
  });

  it('reports that the socket is off, or what is wrong with its variable', async () => {
    for (const [value, problem] of [
      ['off', /NMI_EXPLAIN_SOCKET is off/],
      ['relative.sock', /NMI_EXPLAIN_SOCKET has the value "relative\.sock"; allowed: an absolute/],
    ] as const) {
      const { code, stderr } = await cli([], value);
      assert.equal(code, 2);
      assert.match(stderr, problem);
    }
  });

  it('prints no terminal control sequences in JSON', async () => {
    const path = join(folder, 'terminal.sock');
    // The one-byte control sequence introducer of ISO 6429, and the delete character.
    const problem = 'a\u009b2Jb\u007fc\u001b[2J\u2028';
    const explanation = { schema: explanationSchema, kind: 'no-pod', problem };
    const { stdout } = await beside(
      (_request, response) => response.end(JSON.stringify(explanation)),
      () => cli(['--pod=a/b', '--output=json'], path),
      path,
    );
    assert.match(stdout, /^[\n\x20-\x7e]+$/);
    assert.deepEqual(JSON.parse(stdout), explanation);
  });

  it('does not accept another program’s answer as an explanation', async () => {
    const path = join(folder, 'other.sock');
    for (const [status, body, problem] of [
      [200, '{"schema":99}', /another version/],
      [200, 'no JSON', /another version/],
      [404, '{}', /status 404/],
      [500, '{"problem":"it failed"}', /it failed/],
    ] as const) {
      const { code, stderr } = await beside(
        (_request, response) => response.writeHead(status).end(body),
        () => cli([], path),
        path,
      );
      assert.equal(code, 1, body);
      assert.match(stderr, problem);
    }
  });
});

async function askSocket(answer?: RequestListener) {
  const folder = await mkdtemp(join(tmpdir(), 'nmi-socket-'));
  const path = join(folder, 'explain.sock');
  let stderr = '';
  const io: Io = {
    environment: { NMI_EXPLAIN_SOCKET: path },
    stdout: () => assert.fail('nothing is to be printed'),
    stderr: (text) => (stderr += text),
    stop: new AbortController().signal,
  };
  try {
    const asking = () => askAgent(io, 'verb', '/x?y');
    const reply = await (answer === undefined ? asking() : beside(answer, asking, path));
    return { reply, stderr };
  } finally {
    await rm(folder, { recursive: true });
  }
}

describe('a request to the local agent', () => {
  it('returns the answer unchanged', async () => {
    const { reply, stderr } = await askSocket((request, response) => {
      response.statusCode = 404;
      response.end(request.url);
    });
    assert.ok(typeof reply === 'object');
    assert.deepEqual([reply.status, reply.body, stderr], [404, '/x?y', '']);
  });

  it('reports that there is no socket', async () => {
    const { reply, stderr } = await askSocket();
    assert.equal(reply, 69);
    assert.match(
      stderr,
      /^nmi verb: no agent answers at .* \(ENOENT\): .* has another NMI_EXPLAIN_SOCKET\n$/,
    );
  });

  it('reports after 10 s that the agent did not answer', async (t) => {
    const late = new AbortController();
    const timeout = t.mock.method(AbortSignal, 'timeout', () => late.signal);
    const outcome = await askSocket(() => late.abort());
    assert.deepEqual(timeout.mock.calls[0]?.arguments, [10_000]);
    const stderr = 'nmi verb: the agent did not answer (ABORT_ERR)\n';
    assert.deepEqual(outcome, { reply: 1, stderr });
  });

  it('reports that the answer broke off', async () => {
    const outcome = await askSocket((request) => request.socket.destroy());
    const stderr = 'nmi verb: the agent did not answer (ECONNRESET)\n';
    assert.deepEqual(outcome, { reply: 1, stderr });
  });
});
