import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { clientTable } from './support/client-table.ts';

const read = (file: string) => readFileSync(join(import.meta.dirname, file), 'utf8');

describe('the table of clients', () => {
  const rows = clientTable().split('\n');

  it('has a row for every npm package that is installed to be tested', () => {
    const { dependencies } = JSON.parse(read('npm/package.json')) as {
      readonly dependencies: Readonly<Record<string, string>>;
    };
    const installed = Object.entries(dependencies).map(([name, version]) => {
      const [, real, pinned] = /^npm:(.+)@(.+)$/.exec(version) ?? [];
      return { name: real ?? name, version: pinned ?? version };
    });
    assert.equal(installed.length, 4);
    for (const { name, version } of installed) assertRow(`\`${name}\` | ${version} `);
  });

  it('has a row for every Azure module for Go that is required to be tested', () => {
    const [required = ''] = read('go/go.mod').split(')');
    const modules = [...required.matchAll(/\/([^/\s]+) v(\S+)$/gm)].filter(
      ([, name]) => name !== 'azcore',
    );
    assert.equal(modules.length, 2);
    for (const [, name = '', version = ''] of modules) assertRow(`\`${name}\` (Go) | ${version} `);
  });

  it('has a row for both Azure CLIs and both libraries for Python', () => {
    for (const [file, name, language] of [
      ['azure-cli.txt', 'azure-cli', ''],
      ['azure-cli-2.64.txt', 'azure-cli', ''],
      ['requirements.txt', 'azure-identity', ' (Python)'],
      ['requirements.txt', 'msal', ' (Python)'],
    ] as const) {
      const [, version = ''] =
        new RegExp(`^${name}==(.*)$`, 'm').exec(read(`python/${file}`)) ?? [];
      assertRow(`\`${name}\`${language} | ${version} `);
    }
  });

  function assertRow(start: string): void {
    assert.ok(
      rows.some((row) => row.startsWith(`| ${start}`)),
      `no row starts with ${start}: ${rows.join('\n')}`,
    );
  }
});
