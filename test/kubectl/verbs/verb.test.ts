import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { play } from '../support/recorded-kubectl.ts';

describe('each verb and sub-verb', () => {
  it('has a help with examples of its own command line', async () => {
    const helpOf = async (words: readonly string[]) => (await play([...words, '--help'])).stdout;
    /** Words of the verbs below it; none for a verb that takes names itself. */
    const below = (help: string, above: readonly string[]) => {
      const [, commands = ''] = /^Commands:\n((?: .*\n)+)/m.exec(help) ?? [];
      const start = ['kubectl nmi', ...above].join(' ');
      const named = commands.matchAll(new RegExp(`^ {2}${start} ([a-z-]+)`, 'gm'));
      return [...named].map(([, name = '']) => [...above, name]);
    };
    const lacking: string[] = [];
    const visited: string[] = [];
    const visit = async (words: readonly string[]): Promise<void> => {
      const help = await helpOf(words);
      const verbs = below(help, words);
      for (const each of verbs) await visit(each);
      if (verbs.length > 0) return;
      visited.push(words.join(' '));
      const example = /^Examples:\n {2}kubectl nmi (.+)/m.exec(help)?.[1] ?? '';
      // yargs puts the name of the program into commands, and not into explanations of them.
      const isCommand = example.startsWith(words.join(' ')) && !help.includes('$0');
      if (!isCommand) lacking.push(words.join(' '));
    };
    await visit([]);
    assert.deepEqual(lacking, []);
    for (const words of ['explain', 'identity federate', 'migrate export-addon', 'sysdump']) {
      assert.ok(visited.includes(words), `${words} of ${visited.join(', ')}`);
    }
    assert.ok(visited.length >= 12, visited.join(', '));
  });
});
