import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { bugReporter } from '../../../src/base/lines/bug-reporter.ts';
import { renderGlogLine } from '../../../src/base/lines/glog-text.ts';
import { LogBudget, type ReportOmitted } from '../../../src/base/lines/log-budget.ts';
import { LogOutput } from '../../../src/base/lines/log-output.ts';
import { OwnerBudgets } from '../../../src/base/lines/owner-budgets.ts';
import {
  loggableId,
  loggablePath,
  loggableResource,
  redactClientId,
} from '../../../src/base/log.ts';
import { createLogger } from '../../../src/base/logger.ts';
import { HandClock } from '../../support/hand-clock.ts';

describe('the logger', () => {
  it('writes lines in either format, and none below its level', () => {
    for (const format of ['json', 'text'] as const) {
      const lines: string[] = [];
      const log = createLogger({ format, level: 'info', write: (line) => lines.push(line) });
      log.debug({}, 'unseen');
      log.child({ component: 'c' }).warn({ x: 1 }, 'seen');
      assert.equal(lines.length, 1);
      assert.ok(lines[0]?.includes('seen') && lines[0].endsWith('\n'));
      assert.equal(lines[0]?.startsWith('W'), format === 'text');
    }
  });

  it('writes level and time into every line', () => {
    const lines: string[] = [];
    const log = createLogger({ format: 'json', level: 'trace', write: (line) => lines.push(line) });
    for (const level of ['debug', 'info', 'warn', 'error'] as const) {
      const beforeMs = Date.now();
      while (Date.now() === beforeMs);
      const startMs = Date.now();
      log[level]({ of: level }, 'message');
      const { time, ...rest } = JSON.parse(lines.pop() ?? '{}') as Record<string, unknown>;
      assert.deepEqual(rest, { level, of: level, msg: 'message' });
      const atMs = Date.parse(String(time));
      assert.ok(atMs >= startMs && atMs <= Date.now(), `written at ${String(time)}`);
    }
  });
});

describe('the text of a caller in a log line', () => {
  it('is a path of the metadata service, without segments that may be a token', () => {
    const deep = '/metadata/instance/network/interface/0/ipv4/ipAddress/0/publicIpAddress';
    for (const path of ['/metadata/versions', '/metadata/instance/', deep]) {
      assert.equal(loggablePath(path), path);
    }
    const token = `/metadata/instance/eyJhbGciOiJub25lIn0.${'x'.repeat(30)}.`;
    for (const odd of [token, '/metadata/"', `/metadata${'/x'.repeat(12)}`, '', 'metadata']) {
      assert.equal(loggablePath(odd), '[unusual]');
    }
  });

  it('is an id in the format of one', () => {
    const guid = '12345678-1234-abcd-ABCD-1234567890ab';
    const path = `/subscriptions/${guid}/resourceGroups/g_(1).x/providers/P/identities/i`;
    for (const id of [guid, path, path.slice(1)]) assert.equal(loggableId(id), id);
    const token = 'eyJ0eXAiOiJKV1QifQ.eyJhdWQiOiJ4In0.c2ln';
    const dashes = '-'.repeat(36);
    for (const odd of ['', token, `${guid}x`, dashes, `${path}?sig=x`, `/subscriptions/${guid}/`]) {
      assert.equal(loggableId(odd), '[unusual]');
    }
    assert.equal(loggableId(`/subscriptions${'/x'.repeat(13)}`), '[unusual]');
  });

  it('is a resource in the format of one, and a shortened client id', () => {
    for (const resource of [
      'https://vault.azure.net',
      'api://0000-x/.default',
      '00000003-0000-0000-c000-000000000000',
    ]) {
      assert.equal(loggableResource(resource), resource);
    }
    for (const odd of [
      'eyJ0eXAiOiJKV1QifQ.eyJhdWQiOiJ4In0.c2ln',
      'https://x?sig=secret',
      'https://user:pa%20ss@x',
      `https://${'x'.repeat(300)}`,
      '?https://vault.azure.net',
      'x 00000003-0000-0000-c000-000000000000',
      '00000003-0000-0000-c000-000000000000/secret',
    ]) {
      assert.equal(loggableResource(odd), '[unusual]');
    }
    assert.equal(redactClientId('12345678-1234'), '1234##### REDACTED #####1234');
    assert.equal(redactClientId('1234567'), '1234567');
    assert.equal(redactClientId('12345678'), '1234##### REDACTED #####5678');
  });
});

describe('the report of a bug', () => {
  it('has the stack, in twenty lines of a minute, and then the number of the rest', () => {
    const lines: string[] = [];
    const clock = new HandClock();
    const log = createLogger({ format: 'json', level: 'info', write: (line) => lines.push(line) });
    const report = bugReporter(log, clock, 'request failed');
    const read = () => lines.splice(0).map((line) => JSON.parse(line) as Record<string, unknown>);
    report('no error');
    for (let count = 0; count < 30; count++) report(new RangeError('bug'));
    const [first, second, ...others] = read();
    assert.deepEqual([first?.['level'], first?.['err']], ['error', 'unknown']);
    assert.match(String(second?.['err']), /^RangeError: bug\n +at /);
    assert.equal(second?.['msg'], 'request failed');
    assert.equal(others.length, 18);
    clock.advance(60_000);
    assert.deepEqual(
      read().map(({ count, msg }) => [count, msg]),
      [[11, 'request failed, further ones']],
    );
  });
});

describe('log lines as text', () => {
  const time = '2026-11-25T01:02:03.456Z';
  const access = { method: 'GET', path: '/p', podIp: '10.0.0.1', status: 200, durationMs: 1.5 };
  for (const [what, fields, line] of [
    [
      'have the header that grep ^E relies on',
      { level: 'error', component: 'kube', code: 'GONE', msg: 'watch failed' },
      /^E1125 01:02:03\.456000 {6}42 kube:1\] watch failed code=GONE\n$/,
    ],
    [
      'begin a token decision with the access line of the replaced system',
      { level: 'info', msg: 'token request', ...access },
      /^I.*\] status \(200\) took 1500000 ns for req\.method=GET reg\.path=\/p req\.remote=10\.0\.0\.1 /,
    ],
    [
      'have the letter of an error for a refused request',
      { level: 'warn', status: 403, msg: 'token request' },
      /^E/,
    ],
    [
      'have that of a warning for a failed fetch',
      { level: 'warn', msg: 'token fetch failed' },
      /^W/,
    ],
    ['have a letter for a fatal error', { level: 'fatal', msg: 'm' }, /^F/],
    ['have that of information for another level', { level: 'unknown', msg: 'm' }, /^I/],
    ['have it for debugging, too', { level: 'debug', msg: 'm' }, /^I/],
    ['are no access lines without a duration', { msg: 'message', status: 200 }, /\] message /],
    ['are none without a status', { msg: 'message', durationMs: 1 }, /\] message /],
    ['are none by a text', { msg: 'message', status: '200', durationMs: 1 }, /\] message /],
    ['quote text that would break the line', { msg: 'm', a: 'x\ny z' }, /m a="x\\ny z"\n$/],
    [
      'name the agent when no part is named, and print other values as JSON',
      { level: 'info', msg: 'm', a: 1, b: { c: [null] }, d: true },
      / nmi:1\] m a=1 b=\{"c":\[null\]\} d=true\n$/,
    ],
    [
      'print no control character and no line break that JSON leaves unescaped',
      { msg: 'm', a: 'x\x7f\x85\u2028\u2029y' },
      / a="?x\?\?\?\?y"?\n$/,
    ],
  ] as const) {
    it(what, () => {
      assert.match(renderGlogLine(JSON.stringify({ time, ...fields }), 42), line);
    });
  }

  it('are left as they are if they are no JSON', () => {
    assert.equal(renderGlogLine('not json\n', 1), 'not json\n');
  });
});

function openBudget(maxKinds = 10) {
  const clock = new HandClock();
  const lines: string[] = [];
  const budget = new LogBudget({
    clock,
    maxKinds,
    onOthers: (count, details) => lines.push([`${count} of others`, ...details].join(' ')),
  });
  return {
    clock,
    lines,
    log: (kind: string, most = 1, detail?: string) => {
      const report: ReportOmitted = (count, details) =>
        lines.push([`${count} more ${kind}`, ...details].join(' '));
      if (budget.allows(kind, most, report, detail)) lines.push(kind);
    },
  };
}

describe('lines with a number that others control', () => {
  it('are written at first, and counted once a minute while they continue', () => {
    const { clock, lines, log } = openBudget();
    for (let count = 0; count < 5_000; count++) log('a', 2);
    log('b');
    assert.deepEqual(lines.splice(0), ['a', 'a', 'b']);
    clock.advance(60_000);
    assert.deepEqual(lines.splice(0), ['4998 more a']);
    for (let count = 0; count < 7; count++) log('a', 2);
    assert.deepEqual(lines.splice(0), []);
    clock.advance(60_000);
    assert.deepEqual(lines.splice(0), ['7 more a']);
  });

  it('are written again after a quiet minute, and no timer is left by then', () => {
    const { clock, lines, log } = openBudget();
    log('a');
    log('a');
    clock.advance(60_000);
    clock.advance(60_000);
    assert.deepEqual(clock.armed, []);
    lines.length = 0;
    log('a');
    log('a');
    clock.advance(60_000);
    assert.deepEqual(lines, ['a', '1 more a']);
  });

  it('are reported with 16 different details at most', () => {
    const { clock, lines, log } = openBudget(1);
    for (const detail of ['written', 'x', 'x', 'y']) log('a', 1, detail);
    log('b', 1, 'z');
    clock.advance(60_000);
    assert.deepEqual(lines.splice(0), ['a', '3 more a x y', '1 of others z']);
    for (let count = 0; count < 18; count++) log('a', 1, `d${count}`);
    clock.advance(60_000);
    const shown = Array.from({ length: 16 }, (_, index) => `d${index}`);
    assert.deepEqual(lines, [`18 more a ${shown.join(' ')} others`]);
  });

  it('are distinguished up to a limit', () => {
    const { clock, lines, log } = openBudget(2);
    for (const kind of ['a', 'b', 'c', 'd', 'a']) log(kind);
    assert.deepEqual(lines.splice(0), ['a', 'b']);
    clock.advance(60_000);
    assert.deepEqual(lines, ['1 more a', '2 of others']);
  });
});

const mebibyte = 1024 * 1024;

function open(hasQueue = true) {
  const written: string[] = [];
  const state = { waitingBytes: 0 };
  const output: LogOutput = new LogOutput({
    write: (line) => written.push(line),
    waitingBytes: hasQueue ? () => state.waitingBytes : undefined,
    onDropped: (count) => output.write(`${count} dropped`),
  });
  return { output, written, state };
}

describe('the output of log lines', () => {
  it('drops lines while more than 2 MiB wait, and reports their number before the next one', () => {
    const { output, written, state } = open();
    state.waitingBytes = 2 * mebibyte;
    assert.ok(output.write('a'));
    state.waitingBytes += 1;
    assert.deepEqual([output.write('b'), output.write('c')], [false, false]);
    state.waitingBytes = mebibyte + 1;
    assert.ok(!output.write('d'), 'half of it is still there');
    state.waitingBytes = mebibyte;
    assert.ok(output.write('e'));
    assert.ok(output.write('f'));
    assert.deepEqual(written, ['a', '3 dropped', 'e', 'f']);
  });

  it('writes all lines where nothing ever waits', () => {
    const { output, written } = open(false);
    assert.ok(output.write('a'));
    assert.deepEqual(written, ['a']);
  });
});

function openBudgets() {
  const clock = new HandClock();
  const reports: string[] = [];
  const budgets = new OwnerBudgets({
    clock,
    onOthers: (owner, count) => reports.push(`${owner} others ${count}`),
  });
  const allows = (owner: string, kind: string) =>
    budgets.of(owner).allows(kind, 1, (count) => reports.push(`${owner} ${kind} ${count}`));
  return { clock, reports, allows };
}

describe('budgets of lines by owner', () => {
  it('count further kinds of an owner together, and leave the budget of the others', () => {
    const { clock, reports, allows } = openBudgets();
    for (let kind = 0; kind < 64; kind++) assert.ok(allows('a', `kind ${kind}`));
    assert.ok(!allows('a', 'kind 7'));
    assert.deepEqual(
      [allows('a', 'new'), allows('a', 'newer'), allows('b', 'new')],
      [false, false, true],
    );
    clock.advance(60_000);
    assert.deepEqual(reports, ['a kind 7 1', 'a others 2']);
  });

  it('have a total of lines for each owner, besides the first one of each kind', () => {
    const clock = new HandClock();
    const budgets = new OwnerBudgets({ clock, maxLines: 3, onOthers: () => undefined });
    const written = (owner: string, kind: string) =>
      [1, 2, 3, 4].filter(() => budgets.of(owner).allows(kind, 3, () => undefined)).length;
    for (let minute = 0; minute < 2; minute++) {
      assert.deepEqual([written('a', `w${minute}`), written('a', `x${minute}`)], [3, 2]);
      assert.deepEqual([written('a', `y${minute}`), written('b', `w${minute}`)], [1, 3]);
      clock.advance(60_000);
    }
  });

  it('drop owners without counts, and group those beyond 512', () => {
    const { clock, allows } = openBudgets();
    for (let owner = 0; owner < 512; owner++) allows(`owner ${owner}`, 'x');
    assert.deepEqual([allows('late', 'x'), allows('later', 'x')], [true, false]);
    clock.advance(60_000);
    clock.advance(60_000);
    assert.deepEqual([allows('late', 'x'), allows('later', 'x')], [true, true]);
  });
});
