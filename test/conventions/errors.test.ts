import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { checkErrorTexts, errorTextsOf } from './errors.ts';
import { repositoryFiles, typescriptIn } from './tree.ts';

const errors = typescriptIn(repositoryFiles(), 'src', 'lab').flatMap((file) => errorTextsOf(file));

describe('errors', () => {
  it('name an object, and a remedy where they end a program', () => {
    assert.ok(errors.length > 150, `${errors.length} errors found`);
    assert.deepEqual(checkErrorTexts(errors), []);
  });

  it('without them are reported', () => {
    const text = `
      throw new StartError('CONFIG', 'it was not readable', 'try again later', error);
      throw new PluginError(exitCodes.usage, \`\${name} is told\`, 'that is all');
      throw new RedirectError('BUSY', 'install', 'something ' + 'changed', error);
      throw new StartError('CONFIG', 'no file', 'name one with --file');`;
    assert.deepEqual(checkErrorTexts(errorTextsOf({ path: 'src/a.ts', text })), [
      'src/a.ts:2: "try again later" names no flag, file, command or object',
      'src/a.ts:2: "it was not readable" names no object',
      'src/a.ts:3: "that is all" is no next step',
      'src/a.ts:3: "is told"; write: gets, is logged',
      'src/a.ts:4: "install" is no step with a verb and an object',
      'src/a.ts:4: "something changed" names no object',
    ]);
  });
});
