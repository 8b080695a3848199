import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { renderHelp, renderOverview } from '../../src/cli/help.ts';
import { verbs, type Verb } from '../../src/cli/verbs.ts';

function verbOf(name: string): Verb {
  const verb = verbs[name];
  assert.ok(verb !== undefined);
  return verb;
}

describe('help', () => {
  it('of the program has the verbs, examples and further reading', () => {
    const text = renderOverview();
    for (const name of Object.keys(verbs)) assert.ok(text.includes(`\n  ${name} `), name);
    const [, rows = ''] = /^Verbs:\n((?: .*\n)+)/m.exec(text) ?? [];
    for (const row of rows.trimEnd().split('\n')) assert.match(row, /^.{13} [A-Z]/);
    assert.match(text, /docs\/flags\.md/);
    for (const name of ['run', 'explain', 'redirect']) {
      const [first = ''] = verbOf(name).examples;
      assert.ok(text.includes(`\n  ${first}\n`), name);
    }
  });

  it('of the agent has flags by group with their variables, and variables without a flag', async () => {
    const text = await renderHelp('run', verbOf('run'), undefined);
    for (const part of ['Kubernetes:', '--node', '[NMI_NODE]', 'Also --forceNamespaced']) {
      assert.ok(text.includes(part), part);
    }
    assert.match(text, /^ {2}NMI_CGROUP_ROOT /m);
    assert.ok(!text.includes('\n  NMI_NODE '), 'it has a flag');
    assert.match(text, /\[default: 169\.254\.25\.79\]/);
    assert.ok(!text.includes('Takes text'));
    const [, flags = ''] = text.split('Kubernetes:');
    const [rows = ''] = flags.split('Environment variables');
    const longest = Math.max(...rows.split('\n').map((line) => line.length));
    assert.ok(longest > 90 && longest <= 100, `without a terminal, ${longest}`);
    assert.ok(!/--version|--help/.test(text));
    assert.match(text, /^ {2}NMI_CGROUP_ROOT {6}\S/m);
  });

  it('of a verb with actions lists them, and of an action has its own examples', async () => {
    const redirect = verbOf('redirect');
    const whole = await renderHelp('redirect', redirect, undefined);
    assert.match(whole, /^Usage: nmi redirect ACTION \[FLAGS\]$/m);
    assert.match(whole, /^ {2}remove {6}Remove the redirect\. This opens the node/m);
    const verify = await renderHelp('redirect', redirect, 'verify');
    assert.match(verify, /^Read the redirect back/);
    assert.match(verify, /^Usage: nmi redirect verify \[FLAGS\]$/m);
    assert.match(verify, /^Examples:\n {2}nmi redirect verify\n\n/m);
    assert.ok(!verify.includes('Actions:'));
  });

  it('of the redirect has the variables that its process reads, and no others', async () => {
    const variablesOf = async (name: string) => {
      const text = await renderHelp(name, verbOf(name), undefined);
      return [...text.matchAll(/^ {2}(NMI_\w+)/gm)].map(([, variable]) => variable);
    };
    const [agents, own] = [await variablesOf('run'), await variablesOf('redirect')];
    assert.ok(own.includes('NMI_SLOT_FOLDER') && !own.includes('NMI_EXPLAIN_SOCKET'), own.join());
    assert.ok(agents.includes('NMI_EXPLAIN_SOCKET') && own.every((each) => agents.includes(each)));
    assert.deepEqual(await variablesOf('demo'), []);
  });

  it('fits the terminal, and no line is longer than 120 characters', async () => {
    for (const [columns, longest] of [
      [70, 70],
      [500, 120],
    ] as const) {
      const text = await renderHelp('explain', verbOf('explain'), undefined, columns);
      const [, flags = ''] = text.split('Options:');
      const lengths = flags.split('\n').map((line) => line.length);
      assert.ok(Math.max(...lengths) <= longest, `${columns}: ${Math.max(...lengths)}`);
    }
  });
});
