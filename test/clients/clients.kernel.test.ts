/**
 * Unmodified clients in a pod, through the real redirect. What is counted are requests that reached
 * the agent: a client whose own cache does not take an answer asks again each time.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { findFabricObstacle } from '../../src/lab/fabric.ts';
import { createLabIdentity } from '../../src/lab/lab-identity.ts';
import type { Outcome, Step } from './programs/job.ts';
import { openClientLab, type ClientLab, type ClientRun } from './support/client-lab.ts';
import {
  findCurl,
  installGoClient,
  installNpmClients,
  installPythonClients,
  type Installed,
} from './support/install.ts';

type IdKind = NonNullable<Step['id']>['kind'];

interface Client {
  readonly name: string;
  readonly installed: Installed;
  readonly command: readonly [program: string, ...args: readonly string[]];
  readonly ids: readonly IdKind[];
  /** Looks whether anything answers, without the `Metadata` header, before it first asks. */
  readonly probes: boolean;
  /** Keeps a token and gives it out again. */
  readonly caches: boolean;
  /** Asks again by itself after a 503. */
  readonly retries: boolean;
  /** Has a default credential chain; `vague`: its error is that of the chain's last member. */
  readonly chain?: 'clear' | 'vague';
}

const obstacle = findFabricObstacle();
const later: Installed = { missing: obstacle ?? '' };
const npm = obstacle === undefined ? installNpmClients() : later;
const python = obstacle === undefined ? installPythonClients() : later;
const go = obstacle === undefined ? installGoClient() : later;
const curl = obstacle === undefined ? findCurl() : later;

const everyId = ['client', 'resource', 'object'] as const;
const node = process.execPath;
const interpreter = join(folderOf(python), 'bin/python');

const clients: readonly Client[] = [
  {
    name: '@azure/identity',
    installed: npm,
    command: [node, program('azure-identity.ts'), folderOf(npm), '@azure/identity'],
    ids: everyId,
    probes: false,
    caches: true,
    retries: true,
    chain: 'clear',
  },
  {
    name: '@azure/identity 4.2',
    installed: npm,
    command: [node, program('azure-identity.ts'), folderOf(npm), 'identity-4.2'],
    ids: ['client', 'resource'],
    probes: true,
    caches: true,
    retries: true,
    chain: 'clear',
  },
  {
    name: '@azure/identity 2.0',
    installed: npm,
    command: [node, program('azure-identity.ts'), folderOf(npm), 'identity-2.0'],
    ids: ['client'],
    probes: true,
    caches: false,
    retries: true,
    chain: 'vague',
  },
  {
    name: '@azure/msal-node',
    installed: npm,
    command: [node, program('msal-node.ts'), folderOf(npm)],
    ids: everyId,
    probes: false,
    caches: true,
    retries: true,
  },
  {
    name: 'azure-identity for Python',
    installed: python,
    command: [interpreter, program('azure_identity_client.py')],
    ids: everyId,
    probes: false,
    caches: true,
    retries: true,
    chain: 'clear',
  },
  {
    name: 'msal for Python',
    installed: python,
    command: [interpreter, program('msal_client.py')],
    ids: everyId,
    probes: false,
    caches: true,
    retries: false,
  },
  {
    name: 'azidentity for Go',
    installed: go,
    command: [join(folderOf(go), 'client')],
    ids: everyId,
    probes: false,
    caches: true,
    retries: true,
    chain: 'clear',
  },
  {
    name: 'curl',
    installed: curl,
    command: [node, program('curl.ts')],
    ids: everyId,
    probes: false,
    caches: false,
    retries: false,
  },
];

describe('clients in a pod, through the redirect', { skip: obstacle ?? false }, () => {
  const opened = new AsyncDisposableStack();
  let lab: ClientLab;
  before(async () => {
    lab = opened.use(await openClientLab());
  });
  after(() => opened.disposeAsync());

  for (const client of clients) {
    const { missing } = client.installed;
    if (missing !== undefined && obstacle === undefined) {
      process.stderr.write(`NOT TESTED: ${client.name}: ${missing}\n`);
    }
    describe(client.name, { skip: missing ?? false }, () => {
      const run = (steps: readonly Step[], how: Partial<ClientRun> = {}) =>
        runSteps(lab, client, steps, how);
      const { ids } = client;

      it(`gets its pod's default identity, and another by ${ids.join(', ')} id`, async () => {
        const steps = [undefined, ...ids].map((kind) => stepFor('managed', kind));
        const { outcomes, requests } = await run(steps);
        assert.deepEqual(
          outcomes,
          [{ identity: 'older' }, ...ids.map(() => ({ identity: 'newer' }))],
          'the wrong identities',
        );
        assert.deepEqual(requests, counted(client.probes ? steps.length : 0, steps.length));
      });

      const perFive = client.caches ? 1 : 5;
      it(`asks the agent ${perFive === 1 ? 'once' : 'each time'} for five tokens of one resource`, async () => {
        for (const resource of ['https://vault.azure.net', 'https://management.azure.com/']) {
          const { outcomes, requests } = await run([
            { ...stepFor('managed', undefined), resource, calls: 5 },
          ]);
          assert.equal(outcomes.length, 5);
          assert.ok(outcomes.every(({ identity }) => identity === 'older'));
          assert.deepEqual(requests, counted(client.probes ? 1 : 0, perFive), resource);
        }
      });

      if (client.chain !== undefined) {
        it('gets both identities by its default credential chain: a probe, a token', async () => {
          const steps = [stepFor('default', undefined), stepFor('default', 'client')];
          const { outcomes, requests } = await run(steps);
          assert.deepEqual(outcomes, [{ identity: 'older' }, { identity: 'newer' }]);
          assert.deepEqual(requests, counted(2, 2));
        });
      }

      it('is told why a pod without an identity gets nothing, and asks once', async () => {
        const chains = client.chain === undefined ? [] : (['default'] as const);
        for (const credential of ['managed', ...chains] as const) {
          const step = stepFor(credential, undefined);
          const { outcomes, requests } = await run([step], { pod: 'plain' });
          assert.equal(outcomes.length, 1);
          const failure = outcomes[0]?.failure ?? '';
          if (credential === 'managed' || client.chain === 'clear') {
            assert.match(failure, /Identity not found: pod default\/plain has no label/);
          } else {
            assert.notEqual(failure, '');
          }
          const probes = credential === 'default' || client.probes ? 1 : 0;
          assert.deepEqual(requests, counted(probes, 1, 'no_binding_label'));
        }
      });

      const means = client.retries ? 'by retries of its own' : 'when asked again';
      it(`recovers ${means} once the real service is back`, async () => {
        const resource = `https://${client.name.replaceAll(/[^a-z0-9]+/g, '-')}.lab`;
        const step = stepFor('managed', undefined);
        const patient = { ...step, resource, calls: 6, untilToken: true };
        const { outcomes, requests } = await run([patient], { outage: true });
        assert.deepEqual(outcomes.at(-1), { identity: 'older' }, JSON.stringify(outcomes));
        assert.equal(requests['token ok'], 1);
        assert.ok((requests['token upstream_down'] ?? 0) >= 1, 'the client met no outage');
        if (client.retries) {
          assert.equal(outcomes.length, 1, JSON.stringify(outcomes));
        } else {
          assert.match(outcomes[0]?.failure ?? '', /temporarily_unavailable: No token for the/);
        }
      });
    });
  }
});

describe('the table of clients in the README', () => {
  it('names every locked version', () => {
    const root = join(import.meta.dirname, '../..');
    const readme = readFileSync(join(root, 'README.md'), 'utf8');
    const [, section = ''] = /\n## Clients\n([\s\S]*?)\n## /.exec(readme) ?? [];
    const rows = section.split('\n').filter((line) => line.startsWith('|'));
    for (const [name, version] of lockedClients()) {
      const row = rows.find((line) => line.includes(`\`${name}\``) && line.includes(version));
      assert.notEqual(row, undefined, `no row for ${name} ${version}`);
    }
  });
});

function lockedClients(): readonly (readonly [name: string, version: string])[] {
  const read = (file: string) => readFileSync(join(import.meta.dirname, file), 'utf8');
  const { dependencies } = JSON.parse(read('npm/package.json')) as {
    readonly dependencies: Readonly<Record<string, string>>;
  };
  return [
    ...Object.entries(dependencies).map(([name, version]) => {
      const [, real, pinned] = /^npm:(.+)@(.+)$/.exec(version) ?? [];
      return [real ?? name, pinned ?? version] as const;
    }),
    ...[...read('python/requirements.txt').matchAll(/^(\S+)==(\S+)$/gm)].map(
      ([, name = '', version = '']) => [name, version] as const,
    ),
    ...[...read('go/go.mod').matchAll(/\/(azidentity) v(\S+)$/gm)].map(
      ([, name = '', version = '']) => [name, version] as const,
    ),
  ];
}

async function runSteps(
  lab: ClientLab,
  client: Client,
  steps: readonly Step[],
  how: Partial<ClientRun>,
) {
  const [command, ...args] = client.command;
  const job = JSON.stringify(steps);
  const done = await lab.run({ pod: 'app', command, args: [...args, job], ...how });
  assert.equal(done.code, 0, `${client.name} ended badly: ${done.stderr}`);
  assert.equal(done.leaks, 0, 'a pod got a token of the node');
  const { outcomes } = JSON.parse(done.stdout) as { readonly outcomes: readonly Outcome[] };
  return { outcomes, requests: done.requests };
}

function stepFor(credential: Step['credential'], kind: IdKind | undefined): Step {
  const step = { credential, resource: 'https://vault.azure.net', calls: 1 };
  if (kind === undefined) return step;
  const identity = createLabIdentity('newer');
  return { ...step, id: { kind, value: identity[`${kind}Id`] } };
}

function counted(probes: number, tokens: number, reason = 'ok'): Readonly<Record<string, number>> {
  return {
    ...(probes === 0 ? {} : { 'token metadata_header_missing': probes }),
    [`token ${reason}`]: tokens,
  };
}

function program(file: string): string {
  return join(import.meta.dirname, 'programs', file);
}

function folderOf(installed: Installed): string {
  return installed.missing === undefined ? installed.folder : '';
}
