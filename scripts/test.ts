/**
 * Runs the tests: `node scripts/test.ts [all|unit|cluster|conformance|debian|kernel|kernels|lab|node|FILE...]`.
 * `all` checks the sources first, and tries two other kernels; `kernels` tries all of them. The last thing
 * printed is the summary of Node's test runner.
 */
import { spawnSync } from 'node:child_process';
import { globSync } from 'node:fs';
import { join } from 'node:path';
import { freshExecutable } from './build.ts';
import { checkSources } from './check.ts';
import { prepareBinaries } from '../test/cluster/support/binaries.ts';
import { provideNodeSystem } from '../test/node/support/node-system.ts';
import { hasNodePrograms } from '../test/node/support/node-programs.ts';
import { isCluster, isDebian, isExclusive, isLab, isLong, isNode, isVm } from './test-kinds.ts';

const root = join(import.meta.dirname, '..');

const [kind = 'all', ...more] = process.argv.slice(2);

/** Timeout of a file, so that a hang ends as a failure that shows the file. */
const timeoutMs = kind === 'kernels' ? 10_800_000 : 1_200_000;

if (kind === 'all' && !(await checkSources())) {
  process.stderr.write('the sources did not pass the checks above; no test was run\n');
  process.exit(1);
}
await freshExecutable();
const selected = select(kind, more);
if (selected.some(isCluster)) prepareBinaries();
if (selected.some(isNode)) prepareNodeSystem();
process.exit(runTests(selected));

function select(wanted: string, others: readonly string[]): readonly string[] {
  const files = globSync('test/**/*.test.ts', { cwd: root }).sort();
  const canBoot = wanted === 'all' && canBootNode();
  switch (wanted) {
    case 'all':
      return files.filter((file) => !isLong(file) && (!isNode(file) || canBoot));
    case 'unit':
      return files.filter((file) => !isExclusive(file));
    case 'cluster':
      return files.filter(isCluster);
    case 'conformance':
      return files.filter((file) => file.startsWith('test/conformance/'));
    case 'debian':
      return files.filter(isDebian);
    case 'kernel':
      return files.filter(
        (file) =>
          isExclusive(file) && ![isLab, isCluster, isDebian, isNode, isVm].some((is) => is(file)),
      );
    case 'kernels':
      return files.filter(isVm);
    case 'lab':
      return files.filter(isLab);
    case 'node':
      return files.filter(isNode);
    default:
      return [wanted, ...others];
  }
}

/** Building a kubelet takes longer than all other tests, so only an explicit run builds it. */
function canBootNode(): boolean {
  if (hasNodePrograms()) return true;
  process.stderr.write('SKIPPED: all tests on a real node: run `npm run test:node` once\n');
  return false;
}

/** Runs before all tests, since it may take longer than a test's timeout. */
function prepareNodeSystem(): void {
  const { name, missing } = provideNodeSystem();
  if (missing !== undefined) process.stderr.write(`SKIPPED: all tests on ${name}: ${missing}\n`);
}

function runTests(files: readonly string[]): number {
  if (files.length === 0) {
    process.stderr.write('there is no such test\n');
    return 1;
  }
  const options = [
    '--test',
    '--test-reporter=spec',
    '--test-concurrency=2',
    `--test-timeout=${timeoutMs}`,
    `--import=${join(root, 'scripts/take-turns.ts')}`,
  ];
  const environment = kind === 'kernels' ? { TEST_KERNELS: 'all' } : {};
  const run = spawnSync(process.execPath, [...options, ...files], {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, ...environment },
  });
  return run.status ?? 1;
}
