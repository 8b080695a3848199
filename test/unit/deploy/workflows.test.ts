/** The workflows of a forge, which cannot run here: they parse, and the names in them exist. */
import assert from 'node:assert/strict';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { parse } from 'yaml';
import { lintWorkflow } from '../../../scripts/lint-workflows.ts';
import { kinds } from '../../runner/kinds.ts';
import { repositoryRoot } from '../../conventions/tree.ts';

interface Job {
  readonly permissions?: object;
  readonly steps: readonly { readonly uses?: string; readonly run?: string }[];
}

interface Workflow {
  readonly permissions: object;
  readonly jobs: Readonly<Record<string, Job>>;
}

/** Commands of workflows outside this project: of the runner, or installed by a step. */
const otherTools = new Set(['apt-get', 'cosign', 'gh', 'git', 'jq', 'skopeo']);

const read = (path: string): string => readFileSync(join(repositoryRoot, path), 'utf8');
const paths = globSync('.github/workflows/*.yml', { cwd: repositoryRoot });
const kindNames: ReadonlySet<string> = new Set(kinds.map(({ name }) => name));
const dev = read('dev');
const { scripts } = JSON.parse(read('package.json')) as {
  readonly scripts: Readonly<Record<string, string>>;
};

function problemOf(command: string): string | undefined {
  const [tool = '', verb = '', file = ''] = command.split(/\s+/);
  if (otherTools.has(tool)) return undefined;
  if (tool === 'npm' && verb === 'run') return file in scripts ? undefined : `no script ${file}`;
  if (tool !== './dev') return `no tool ${tool}`;
  if (!dev.includes(`\n  ${verb})`)) return `no ./dev ${verb}`;
  if (verb === 'test') {
    const unknown = command
      .split(/\s+/)
      .slice(2)
      .find((word) => !kindNames.has(word));
    return unknown === undefined ? undefined : `no kind of test ${unknown}`;
  }
  return verb !== 'node' || existsSync(join(repositoryRoot, file)) ? undefined : `no ${file}`;
}

assert.ok(paths.length > 0);

for (const path of paths) {
  describe(path, () => {
    const workflow = parse(read(path)) as Workflow;
    const steps = Object.values(workflow.jobs).flatMap((job) => job.steps);

    it('runs commands that exist, and pins actions by their commits', () => {
      const commands = steps.flatMap(({ run = '' }) => run.split('\n').filter(Boolean));
      assert.ok(commands.some((command) => command.startsWith('./dev ')));
      const problems = commands.flatMap((command) => problemOf(command) ?? []);
      assert.deepEqual(problems, []);
      const actions = steps.flatMap(({ uses }) => uses ?? []);
      assert.ok(actions.length > 0);
      for (const action of actions) assert.match(action, /^[\w-]+\/[\w-]+@[0-9a-f]{40}$/);
    });

    it('may write only in the job that publishes', () => {
      assert.deepEqual(workflow.permissions, { contents: 'read' });
      for (const [name, { permissions }] of Object.entries(workflow.jobs)) {
        assert.equal(permissions !== undefined, name === 'publish', name);
      }
    });
  });
}

describe('the check of workflows', () => {
  it('finds what does not exist, and knows nothing of machines', async () => {
    const text = (machine: string, job: string) =>
      `on: push\njobs:\n  a:\n    runs-on: ${machine}\n    steps: [{ run: ./dev }]\n  b:\n    needs: ${job}\n    runs-on: ${machine}\n    steps: [{ run: ./dev }]\n`;
    assert.deepEqual(await lintWorkflow('w.yml', text('new', 'a')), []);
    assert.match(String(await lintWorkflow('w.yml', text('new', 'c'))), /^w\.yml:6:3: .*"c"/);
  });

  it('passes jobs that together run every kind of test', () => {
    const commands = readFileSync(join(repositoryRoot, '.github/workflows/test.yml'), 'utf8');
    const named = [...commands.matchAll(/\.\/dev test (.+)$/gm)].flatMap(([, words = '']) =>
      words.split(' '),
    );
    // `unit` includes it.
    const wanted = kindNames.difference(new Set(['conformance']));
    assert.deepEqual(new Set(named), wanted);
  });
});
