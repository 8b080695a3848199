import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join, posix } from 'node:path';
import { describe, it } from 'node:test';
import { options } from '../../src/nmi/config/options.ts';
import { readSyntax } from './syntax.ts';
import { repositoryFiles, repositoryRoot, typescriptIn } from './tree.ts';

const text = readFileSync(join(repositoryRoot, 'CONTRIBUTING.md'), 'utf8');
const files = repositoryFiles();

/** The files of the product and the lab that import a path. */
function importersOf(target: string): readonly string[] {
  return typescriptIn(files, 'src', 'lab')
    .filter((file) =>
      readSyntax(file).imports.some(
        ({ specifier }) => posix.join(posix.dirname(file.path), specifier) === target,
      ),
    )
    .map(({ path }) => path);
}

describe('the recipes of CONTRIBUTING.md', () => {
  it('name files and folders that exist', () => {
    const named = [...text.matchAll(/`((?:src|lab|test)\/[\w./-]+)`/g)].map(
      ([, path = '']) => path,
    );
    assert.ok(named.length > 20);
    assert.deepEqual(
      named.filter((path) => !existsSync(join(repositoryRoot, path))),
      [],
    );
  });

  it('name commands that exist', () => {
    const scripts = readFileSync(join(repositoryRoot, 'package.json'), 'utf8');
    for (const [, script = ''] of text.matchAll(/`npm run ([\w:]+)`/g)) {
      assert.ok(scripts.includes(`"${script}":`), script);
    }
  });

  it('have no option that nobody reads', () => {
    const read = new Set(
      typescriptIn(files, 'src').flatMap(({ text: code }) => [
        ...[...code.matchAll(/\bconfig\??\.(\w+)/g)].map(([, name = '']) => name),
        ...[...code.matchAll(/const \{([^}]+)\} = [\w.#]*\bconfig;/g)].flatMap(
          ([, names = '']) => names.match(/\w+/g) ?? [],
        ),
      ]),
    );
    const unread = options.filter(({ key }) => !read.has(key));
    // They have one value only.
    assert.deepEqual(
      unread.map(({ name }) => name),
      ['operation-mode', 'force-namespaced'],
    );
  });

  it('need no other file for an option: only its reader and the command line use the table', () => {
    assert.deepEqual(importersOf('src/nmi/config/options.ts').toSorted(), [
      'src/cli/help.ts',
      'src/cli/verbs.ts',
      'src/nmi/config/config.ts',
      'src/nmi/config/shown-flags.ts',
    ]);
    // Neither names single options, except for checks that depend on several.
    const known = new Set([
      'http-probe-port',
      'prometheus-port',
      'prometheus-address',
      'metadata-port',
      'nmi-port',
    ]);
    for (const path of ['src/cli/verbs.ts', 'src/nmi/config/config.ts']) {
      const code = files.find((file) => file.path === path)?.text ?? '';
      const named = options.filter(({ name }) => code.includes(`'${name}'`) && !known.has(name));
      // Words that are both a verb and an option: "run" has a flag of that name, or a field.
      assert.deepEqual(
        named.map(({ name }) => name).filter((name) => name !== 'redirect' && name !== 'node'),
        [],
        path,
      );
    }
  });
});
