import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  parseNat,
  parseRule,
  renderRule,
  wantedChain,
} from '../../../src/redirect/iptables/rules.ts';
import { diffStraight, renderStraight } from '../../../src/redirect/iptables/straight-rules.ts';
import { listStraightPins, straightPinName } from '../../../src/redirect/ebpf/straight-way.ts';
import { DEFAULT_TARGET } from '../../../src/redirect/target.ts';

const pin = '/sys/fs/bpf/nmi/program_straight_7';
const foreign = ['-A PREROUTING -p udp -j ACCEPT', '-A PREROUTING -j OTHER'];

/** What the tool prints after a transaction on a table: enough of it for ours. */
function apply(save: readonly string[], script: string): readonly string[] {
  let lines = [...save];
  for (const line of script.split('\n')) {
    const declared = /^:(\S+) - /.exec(line)?.[1];
    const emptied = declared ?? /^-F (\S+)$/.exec(line)?.[1];
    if (emptied !== undefined) lines = lines.filter((each) => !each.startsWith(`-A ${emptied} `));
    if (declared !== undefined && !lines.includes(line)) lines.push(line);
    const deleted = /^-X (\S+)$/.exec(line)?.[1];
    if (deleted !== undefined) lines = lines.filter((each) => !each.startsWith(`:${deleted} `));
    if (line.startsWith('-A ')) lines.push(line);
    const inserted = /^-I PREROUTING 1 (.+)$/.exec(line)?.[1];
    if (inserted !== undefined) lines.unshift(`-A PREROUTING ${inserted}`);
    const taken = /^-D (.+)$/.exec(line)?.[1];
    if (taken !== undefined) lines.splice(lines.indexOf(`-A ${taken}`), 1);
  }
  return lines;
}

describe('the rules of the way straight', () => {
  const own = fc.constantFrom(
    ':nmi-straight - [0:0]',
    '-A PREROUTING -j nmi-straight',
    '-A nmi-straight -j ACCEPT',
    `-A nmi-straight -d 169.254.169.254/32 -j MARK --set-xmark 0x0/0x40`,
  );
  const table = fc.array(own, { maxLength: 6 }).map((lines) => {
    const needsChain = lines.some((line) => line.includes('nmi-straight'));
    const chain = needsChain ? [':nmi-straight - [0:0]'] : [];
    return [...chain, ...lines.filter((line) => !line.startsWith(':')), ...foreign];
  });

  it('come from any state in one transaction, go in one, and touch nobody else’s', () => {
    fc.assert(
      fc.property(table, fc.constantFrom(pin, undefined), (before, wanted) => {
        const text = before.join('\n');
        const transaction = renderStraight(text, DEFAULT_TARGET, wanted);
        const isRight = diffStraight(text, DEFAULT_TARGET, wanted).length === 0;
        assert.equal(transaction === undefined, isRight);
        const after = transaction === undefined ? before : apply(before, transaction.script);
        assert.deepEqual(diffStraight(after.join('\n'), DEFAULT_TARGET, wanted), []);
        assert.equal(renderStraight(after.join('\n'), DEFAULT_TARGET, wanted), undefined);
        assert.deepEqual(
          after.filter((line) => foreign.includes(line)),
          foreign,
        );
        if (wanted === undefined) assert.doesNotMatch(after.join('\n'), /nmi-straight/);
      }),
    );
  });

  it('take a bit that somebody else set away before they set it', () => {
    const script = renderStraight('', DEFAULT_TARGET, pin)?.script.split('\n') ?? [];
    assert.deepEqual(script, [
      '*raw',
      ':nmi-straight - [0:0]',
      '-A nmi-straight -d 169.254.169.254/32 -j MARK --set-xmark 0x0/0x40',
      `-A nmi-straight -d 169.254.169.254/32 -p tcp -m tcp --dport 80 -m bpf --object-pinned ${pin} -j MARK --set-xmark 0x40/0x40`,
      '-I PREROUTING 1 -j nmi-straight',
      'COMMIT',
      '',
    ]);
  });

  it('are others for another program', () => {
    const script = renderStraight('', DEFAULT_TARGET, pin)?.script ?? '';
    const save = apply([], script).join('\n');
    assert.deepEqual(diffStraight(save, DEFAULT_TARGET, '/sys/fs/bpf/nmi/program_straight_8'), [
      'rules of nmi-straight are others',
    ]);
  });

  it('come before the translation, and read back as rendered', () => {
    const rules = wantedChain(DEFAULT_TARGET, pin);
    assert.deepEqual(
      rules.map(({ kind }) => kind),
      ['straight', 'dnat', 'return'],
    );
    assert.deepEqual(rules.map(renderRule).map(parseRule), rules);
    const text = renderRule(rules[0] ?? { kind: 'return' });
    assert.equal(parseRule(text.replace('--dport 80', '--dport 080')).kind, 'other');
    assert.equal(parseNat(`*nat\n:aad-metadata - [0:0]\n-A aad-metadata ${text}`).chain.length, 1);
  });
});

describe('the pin of the program that rules ask', () => {
  it('is known by its name, the newest last', () => {
    const names = [
      'callers',
      straightPinName(10),
      'program_sockops',
      straightPinName(9),
      'straight',
    ];
    assert.deepEqual(listStraightPins(names), ['program_straight_9', 'program_straight_10']);
  });
});
