import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  createHost,
  failureOf,
  missingTool,
  outputOf,
  type ToolResult,
} from '../../../src/redirect/host/command.ts';

const host = createHost({ timeoutMs: 10_000 });
const node = process.execPath;

describe('running a tool', () => {
  it('returns its output and exit code', async () => {
    const result = await host.run(node, [
      '-e',
      'console.log(1); console.error(2); process.exit(7)',
    ]);
    assert.deepEqual(result, { kind: 'exited', exitCode: 7, stdout: '1\n', stderr: '2\n' });
  });

  it('writes its input', async () => {
    const result = await host.run(node, ['-e', 'process.stdin.pipe(process.stdout)'], {
      input: '*nat\n',
    });
    assert.equal(outputOf('echo', node, result), '*nat\n');
  });

  it('survives a tool that does not read its input', async () => {
    const result = await host.run('true', [], { input: 'x'.repeat(1 << 20) });
    assert.equal(result.kind, 'exited');
  });

  it('kills a tool that does not end', async () => {
    const quick = createHost({ timeoutMs: 150 });
    const startMs = performance.now();
    const result = await quick.run('sleep', ['60']);
    assert.deepEqual(result, { kind: 'failed', code: 'TIMEOUT', why: 'did not end in 150 ms' });
    assert.equal(failureOf('wait', 'sleep', result)?.code, 'TIMEOUT');
    assert.ok(performance.now() - startMs < 10_000);
  });

  it('ends a tool that floods its output', async () => {
    const result = await host.run('yes', [], { maxBytes: 4096 });
    assert.match(
      String(failureOf('read', 'yes', result)),
      /^RedirectError: read: yes was ended by .*MAXBUFFER/,
    );
  });

  it('reports a tool that is ended, or may not be executed', async () => {
    const killed = await host.run(node, ['-e', 'process.kill(process.pid, "SIGTERM")']);
    assert.equal(
      String(failureOf('end', 'node', killed)),
      'RedirectError: end: node was ended by SIGTERM',
    );
    const file = await host.run('/proc/self/status', []);
    assert.equal(failureOf('start', 'status', file)?.code, 'NOT_PERMITTED');
  });

  it('reports a missing tool', async () => {
    const result = await host.run('nmi-no-such-tool', []);
    assert.deepEqual(result, missingTool);
    assert.throws(() => outputOf('probe', 'nmi-no-such-tool', result), {
      name: 'RedirectError',
      code: 'TOOL_MISSING',
      step: 'probe',
    });
  });

  it('gives a tool the C locale, sbin, and nothing secret', async () => {
    const bare = createHost({
      timeoutMs: 10_000,
      env: { PATH: '/usr/bin:/bin', LANG: 'de_DE', SECRET: 'x', XTABLES_LOCKFILE: '/tmp/lock' },
    });
    const printed = outputOf('env', 'env', await bare.run('env', []));
    assert.deepEqual(printed.trim().split('\n').toSorted(), [
      'LC_ALL=C',
      'PATH=/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin',
      'XTABLES_LOCKFILE=/tmp/lock',
    ]);
  });

  it('reads a file, and an absent one as nothing', async () => {
    assert.match((await host.read('/proc/self/status')) ?? '', /^Name:/);
    assert.equal(await host.read('/proc/nmi-no-such-file'), undefined);
  });
});

describe('the output of a tool becomes a code', () => {
  const exited = (exitCode: number, stderr: string): ToolResult => ({
    kind: 'exited',
    exitCode,
    stdout: '',
    stderr,
  });
  const cases: readonly (readonly [string, ToolResult, string | undefined])[] = [
    ['ip', exited(0, 'a warning'), undefined],
    ['iptables-restore', exited(4, 'Another app is currently holding the xtables lock.'), 'BUSY'],
    ['iptables-restore', exited(4, ''), 'BUSY'],
    [
      'iptables-nft-save',
      exited(
        4,
        'iptables-nft-save v1.8.9 (nf_tables): Could not fetch rule set generation id: Permission denied (you must be root)',
      ),
      'NOT_PERMITTED',
    ],
    ['ip', exited(2, 'RTNETLINK answers: Operation not permitted'), 'NOT_PERMITTED'],
    ['ip', exited(2, 'RTNETLINK answers: Operation not supported'), 'UNSUPPORTED'],
    ['ip', exited(2, 'Error: Unknown device type.'), 'UNSUPPORTED'],
    ['ip', exited(2, 'RTNETLINK answers: File exists'), 'BUSY'],
    ['ip', exited(4, 'something else'), 'TOOL_FAILED'],
    [
      'iptables-legacy-restore',
      exited(
        3,
        "can't initialize iptables table `nat': Table does not exist (do you need to insmod?)",
      ),
      'UNSUPPORTED',
    ],
    // No modprobe in the image, modprobe without permission, modprobe without a file: iptables
    // 1.8.9.
    [
      'iptables-legacy-save',
      exited(
        1,
        'iptables-legacy-save v1.8.9 (legacy): Cannot initialize: iptables who? (do you need to insmod?)\nPerhaps iptables or your kernel needs to be upgraded.',
      ),
      'UNSUPPORTED',
    ],
    [
      'iptables-legacy-restore',
      exited(
        1,
        "modprobe: ERROR: could not insert 'ip_tables': Operation not permitted\niptables-legacy-restore v1.8.9 (legacy): Cannot initialize: iptables who? (do you need to insmod?)",
      ),
      'UNSUPPORTED',
    ],
    // A kernel without nf_tables.
    [
      'iptables-nft-save',
      exited(
        4,
        'iptables-nft-save v1.8.9 (nf_tables): Could not fetch rule set generation id: Invalid argument',
      ),
      'UNSUPPORTED',
    ],
    ['iptables-legacy-restore', exited(1, 'iptables-restore: line 4 failed'), 'TOOL_FAILED'],
    // Its exit code for a kernel of another version, whatever it prints.
    ['iptables-legacy-restore', exited(3, 'xtables version mismatch'), 'UNSUPPORTED'],
    ['ip', exited(3, 'something else'), 'TOOL_FAILED'],
    ['ip', { kind: 'failed', code: 'TIMEOUT', why: 'did not end' }, 'TIMEOUT'],
  ];
  for (const [tool, result, code] of cases) {
    const told = result.kind === 'exited' ? `${result.exitCode} "${result.stderr}"` : result.why;
    it(`${tool}: ${told} is ${code ?? 'success'}`, () => {
      assert.equal(failureOf('step', tool, result)?.code, code);
    });
  }

  it('keeps the reason and drops the line that only announces a version', () => {
    const stderr = 'iptables-nft-restore v1.8.9 (nf_tables): \nline 2: CHAIN_DEL failed\n';
    const failure = failureOf('write rules', 'iptables-nft-restore', exited(1, stderr));
    assert.equal(
      failure?.message,
      'write rules: iptables-nft-restore exited with 1: line 2: CHAIN_DEL failed',
    );
  });
});
