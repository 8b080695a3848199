/**
 * V8's compiled code of all functions that run at a start of the agent, so that it compiles none.
 *
 * The cache that Node creates for a single executable contains only code that is compiled when the
 * script is loaded, but nearly all functions are compiled at their first call. So the bundle runs
 * here as an agent with the lab's fakes, and all code that it has compiled by the end is stored.
 * Measured at a start of the agent: 65 ms of compilation with Node's own cache, 25 ms with this one
 * (Node 26.10, 2 cores, November 2026). Compiling every function in advance costs no more at a
 * start and is the same each time, but leaves 12 MB more resident.
 *
 * The same bundle results in the same bytes, so that an image can be rebuilt and compared. These
 * made them differ: V8's hash seed, the order in which functions were compiled, machine code and
 * garbage collection, the kinds of numbers that were compared, which bytecode records, and whether the
 * first lists came before the agent looked for the first time whether it is ready.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Shown in stack traces, instead of a path of the building machine. */
const scriptName = 'nmi.cjs';
const slowTimerMs = 400;
const maxRuns = 6;

/** A program and its first arguments. */
export type Command = readonly [program: string, ...args: readonly string[]];

/** The bundle as one function, which the executable contains, compiles and calls. */
export function wrapBundle(script: string): string {
  return `(function (exports, require, module, __filename, __dirname) {${script}\n})`;
}

/** The executable's entry: the wrapped bundle and its compiled code are assets with these names. */
export function renderEntry(loader: string, bundleAsset: string, cacheAsset: string): string {
  return `
    const { getRawAsset } = require('node:sea');
    const { Script } = require('node:vm');
    const loader = { exports: {} };
    (function (exports, require, module) {${loader}
    })(loader.exports, require, loader);
    const source = loader.exports.programText(getRawAsset(${JSON.stringify(bundleAsset)}));
    const cachedData = Buffer.from(getRawAsset(${JSON.stringify(cacheAsset)}));
    const script = new Script(source, { filename: '${scriptName}', cachedData });
    if (script.cachedDataRejected) {
      process.stderr.write('nmi: compiled code was rejected, the start takes longer\\n');
    }
    script.runInThisContext()(exports, require, module, __filename, __dirname);`;
}

/** Garbage collection can drop compiled code, and machine code changes it. */
const learnFlags = [
  '--hash-seed=1',
  '--no-flush-bytecode',
  '--no-sparkplug',
  '--no-maglev',
  '--no-opt',
];

/**
 * Runs the script like the agent's process, until a message requests the compiled code. The clock
 * is frozen and slow timers never fire: which functions run, and with which kinds of numbers, must
 * not depend on the duration.
 */
const pupil = `
  const { readFileSync, writeFileSync } = require('node:fs');
  const { Script } = require('node:vm');
  const [scriptFile, cacheFile] = process.argv.splice(2, 2);
  const script = new Script(readFileSync(scriptFile, 'latin1'), { filename: '${scriptName}' });
  const [wallMs, monotonicMs] = [Date.now(), 1000.5];
  Date.now = () => wallMs;
  performance.now = () => monotonicMs;
  for (const name of ['setTimeout', 'setInterval']) {
    const start = globalThis[name];
    globalThis[name] = (work, delayMs, ...rest) =>
      start(work, delayMs < ${slowTimerMs} ? delayMs : 0x7fffffff, ...rest);
  }
  process.once('message', () => {
    writeFileSync(cacheFile, script.createCachedData());
    process.exit(0);
  });
  script.runInThisContext()(exports, require, module, __filename, __dirname);`;

/**
 * Reads compiled code and writes it again. The first run, with the same hash seed, numbers
 * functions in the order of the script instead of the order of their compilation. The second run,
 * with the flags of the product, ensures that a process of the product accepts the code.
 *
 * V8 writes a hash of its process's flags, including the seed, into bytes 12 to 15 (V8 14.6,
 * SerializedCodeData). Each process has another seed anyway: V8 rehashes the code that it reads.
 */
const rewriter = `
  const { readFileSync, writeFileSync } = require('node:fs');
  const { Script } = require('node:vm');
  const [scriptFile, cacheFile, again] = process.argv.slice(2);
  const source = readFileSync(scriptFile).latin1Slice();
  const cachedData = readFileSync(cacheFile);
  new Script('0').createCachedData().copy(cachedData, 12, 12, 16);
  const script = new Script(source, { filename: '${scriptName}', cachedData });
  if (script.cachedDataRejected !== false) process.exit(1);
  writeFileSync(cacheFile, again === 'again' ? script.createCachedData() : cachedData);`;

/**
 * @param wrapped result of `wrapBundle`.
 * @param node the command that runs the Node of the executable.
 * @param flags V8 flags of the executable: V8 refuses code of a process with other flags.
 * @throws Error if the bundle does not serve, or if a new process would refuse the code.
 */
export function makeCodeCache(
  wrapped: string,
  node: Command = [process.execPath],
  flags: readonly string[] = [],
): Buffer {
  const folder = mkdtempSync(join(tmpdir(), 'nmi-code-cache-'));
  try {
    const file = (name: string) => join(folder, name);
    writeFileSync(file('bundle.cjs'), wrapped);
    writeFileSync(file('pupil.cjs'), pupil);
    writeFileSync(file('rewriter.cjs'), rewriter);
    // A burst of load can change which functions run, even in two runs alike, so three runs must give the same result.
    const seen: Buffer[] = [];
    while (seen.length < maxRuns) {
      learn(folder, node);
      rewrite(folder, node, ['--hash-seed=1', '--no-flush-bytecode'], 'again');
      rewrite(folder, node, flags, 'as it is');
      const made = readFileSync(file('cache'));
      if (seen.filter((other) => other.equals(made)).length === 2) return made;
      seen.push(made);
    }
    throw new Error(`no three of ${maxRuns} runs compiled the same code`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function rewrite(folder: string, node: Command, flags: readonly string[], how: string): void {
  const [program, ...words] = node;
  const files = ['rewriter.cjs', 'bundle.cjs', 'cache'].map((name) => join(folder, name));
  const run = spawnSync(program, [...words, ...flags, ...files, how], { encoding: 'utf8' });
  if (run.status !== 0)
    throw new Error(`compiled code that was just made is refused ${run.stderr}`);
}

/** The lab starts it, lets it serve a token, and then sends it a message. */
function learn(folder: string, node: Command): void {
  const words = ['pupil.cjs', 'bundle.cjs', 'cache'].map((name) => join(folder, name));
  const lab = fileURLToPath(new URL('../lab/main.ts', import.meta.url));
  const run = spawnSync(process.execPath, [lab, 'once', folder, ...node, ...learnFlags, ...words], {
    encoding: 'utf8',
  });
  if (run.status !== 0) throw new Error(`the agent whose code is to be kept: ${run.stderr}`);
}
