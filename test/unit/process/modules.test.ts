/**
 * The modules of the bundle that an agent for managed identities evaluates. A module costs memory
 * as long as the agent runs, and time at every start, so the expensive ones are loaded when needed.
 */
import { describe, it } from 'node:test';
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { bundle } from '../../../scripts/bundle.ts';
import { repositoryRoot } from '../../conventions/tree.ts';
import { eventually } from '../../../lab/test-bed/eventually.ts';
import { ask, tokenTarget } from '../../support/ask.ts';
import { openServices, type Services } from './agent-child.ts';

/** The bundler wraps modules that may be evaluated late; each wrapper has the name of its file. */
function withRecord(script: string, recordFile: string): string {
  let file = '';
  const lines = script.split('\n').map((line) => {
    file = /^\/\/ (\S+)$/.exec(line)?.[1] ?? file;
    const name = JSON.stringify(file);
    return line.replace(/^(var \S+ = )(__(?:commonJSMin|esmMin))\(/, `$1__recorded($2, ${name})(`);
  });
  return [
    'const __evaluated = [];',
    'const __recorded = (wrap, name) => (run) =>',
    '  wrap((...args) => (__evaluated.push(name), run(...args)));',
    `process.on('exit', () => process.getBuiltinModule('node:fs').writeFileSync(`,
    `  ${JSON.stringify(recordFile)}, JSON.stringify([...__evaluated, ...process.moduleLoadList])));`,
    ...lines,
  ].join('\n');
}

const stamp = { version: '1.2.3', commit: 'abc', date: '2026-01-02T03:04:05Z' };

/** Needed from the first token on: finding them shows that the record works. */
const needed = [
  /\/src\/nmi\/agent\.ts$|^src\/nmi\/agent\.ts$/,
  /\/undici\/lib\/dispatcher\/pool\.js$/,
  /\/prom-client\/lib\/counter\.js$/,
  /\/@kubernetes\/client-node\/dist\/config\.js$/,
  /\/pino\/pino\.js$/,
  /^NativeModule http$/,
];

const expensive = [
  /\/@azure\//,
  /\/node-forge\//,
  /\/@kubernetes\/client-node\/dist\/gen\/(?:models|apis)\//,
  /\/@opentelemetry\//,
  /\/(?:hpagent|jsonpath-plus|openid-client|oauth4webapi|socks|socks-proxy-agent)\//,
  /\/undici\/(?:index\.js|lib\/(?:web|mock|cache|interceptor)\/)/,
  /\/prom-client\/(?:index|lib\/(?:pushgateway|cluster|defaultMetrics))\.js$/,
  // The parser of flags is a separate package.
  /\/yargs\/(?:build\/lib\/yargs-factory|lib\/platform-shims\/|index)/,
  /\/(?:cliui|string-width|y18n)\//,
  /(?:^|\/)src\/cli\/(?:demo|explain)\.ts$/,
  /\/thread-stream\//,
  /^NativeModule (?:inspector|sqlite|repl|readline|test)$/,
];

/** What the bundle has evaluated when the work with it is done. */
async function evaluatedIn(
  testBed: Services,
  words: readonly string[],
  work: () => Promise<void>,
): Promise<readonly string[]> {
  const { script } = await bundle(join(repositoryRoot, 'src/main.ts'), stamp);
  const [program, record] = ['nmi.cjs', 'record.json'].map((name) => join(testBed.folder, name));
  assert.ok(program !== undefined && record !== undefined);
  writeFileSync(program, withRecord(script, record));
  const child = spawn(process.execPath, [program, ...words], {
    stdio: 'ignore',
    env: { KUBECONFIG: testBed.kubeconfig },
  });
  const exited = once(child, 'exit');
  try {
    await work();
  } finally {
    child.kill('SIGTERM');
    await exited;
  }
  return JSON.parse(readFileSync(record, 'utf8')) as string[];
}

describe('the modules of an agent that serves managed identities', { timeout: 600_000 }, () => {
  it('are those that it needs, once it has answered', async () => {
    await using testBed = await openServices();
    const evaluated = await evaluatedIn(testBed, testBed.flags, async () => {
      await testBed.untilReady();
      for (let count = 0; count < 2; count++) {
        assert.equal((await ask(testBed.pod, tokenTarget)).identity, 'a');
      }
      assert.equal((await testBed.page('metrics'))?.status, 200);
    });
    const found = (pattern: RegExp) => evaluated.filter((name) => pattern.test(name));
    for (const each of needed) assert.notDeepEqual(found(each), [], `none is ${each.source}`);
    for (const each of expensive) assert.deepEqual(found(each), [], `one is ${each.source}`);
  });

  it('are fewer still in the process that keeps the redirect', async () => {
    await using testBed = await openServices();
    const ports = [`--http-probe-port=${testBed.probePort}`, '--prometheus-port=0'];
    const words = ['redirect', 'run', '--redirect=none', ...ports];
    const evaluated = await evaluatedIn(testBed, words, () =>
      eventually(async () => assert.equal((await testBed.page('livez'))?.status, 200), 60_000),
    );
    assert.ok(evaluated.includes('src/nmi/redirect-daemon.ts'));
    // Cryptography takes 1.6 MB.
    const useless =
      /\/(?:undici|@kubernetes|@azure|node-forge)\/|^NativeModule (?:crypto|tls|zlib)$/;
    for (const each of [useless, ...expensive]) {
      assert.deepEqual(
        evaluated.filter((name) => each.test(name)),
        [],
      );
    }
  });
});
