import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  diffNat,
  isAbsent,
  parseNat,
  redirectedPort,
  renderInstall,
  renderRemove,
  unlimitedChain,
  wantedChain,
} from '../../../src/redirect/iptables/rules.ts';
import type { RedirectTarget } from '../../../src/redirect/redirect.ts';
import { defaultTarget } from '../../../src/redirect/target.ts';

const port = fc.integer({ min: 1, max: 65534 });
const target: fc.Arbitrary<RedirectTarget> = fc.record({
  metadataIp: fc.ipV4(),
  metadataPort: port,
  listenIp: fc.ipV4(),
  listenPort: port,
});

/** Rules of other tools, an old agent, or an accident. */
const preroutingRule = fc.constantFrom(
  '-j nmi-metadata',
  '-m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
  '-p tcp -j ACCEPT',
  '-s 10.0.0.0/8 -m comment --comment nmi-metadata -j KUBE-SERVICES',
);
const ownRule = fc.oneof(
  fc.constantFrom('-j RETURN', '-p udp -j ACCEPT'),
  target.map((some) => wantedChain(some)[0] ?? ''),
  fc.constant(wantedChain(defaultTarget)[0] ?? ''),
);

interface Table {
  readonly chains: readonly string[];
  readonly rules: readonly string[];
}

const table: fc.Arbitrary<Table> = fc
  .record({
    prerouting: fc.array(preroutingRule, { maxLength: 5 }),
    own: fc.option(fc.array(ownRule, { maxLength: 4 }), { nil: undefined }),
    conditional: fc.boolean(),
  })
  .map(({ prerouting, own, conditional }) => ({
    chains: ['PREROUTING', 'KUBE-SERVICES', ...(own === undefined ? [] : ['nmi-metadata'])],
    rules: [
      ...prerouting
        .filter((rule) => own !== undefined || rule !== '-j nmi-metadata')
        .map((rule) => `-A PREROUTING ${rule}`),
      '-A KUBE-SERVICES -d 10.96.0.1/32 -j RETURN',
      ...(conditional && own !== undefined ? ['-A KUBE-SERVICES -p udp -j nmi-metadata'] : []),
      ...(own ?? []).map((rule) => `-A nmi-metadata ${rule}`),
    ],
  }));

function print({ chains, rules }: Table): string {
  const declarations = chains.map(
    (name) => `:${name} ${name === 'PREROUTING' ? 'ACCEPT' : '-'} [3:180]`,
  );
  return ['# Generated', '*nat', ...declarations, ...rules, 'COMMIT', '# Completed', ''].join('\n');
}

/** What `iptables-restore --noflush` does with a transaction, refusals included. */
function apply(before: Table, script: string): Table {
  let chains = [...before.chains];
  let rules = [...before.rules];
  const lines = script.split('\n');
  assert.equal(lines[0], '*nat');
  assert.deepEqual(lines.slice(-2), ['COMMIT', '']);
  for (const line of lines.slice(1, -2)) {
    const declared = /^:(\S+) - \[0:0\]$/.exec(line)?.[1];
    const flushed = /^-F (\S+)$/.exec(line)?.[1] ?? declared;
    const deleted = /^-D (.+)$/.exec(line)?.[1];
    const inserted = /^-I PREROUTING 1 (.+)$/.exec(line)?.[1];
    const dropped = /^-X (\S+)$/.exec(line)?.[1];
    if (declared !== undefined && !chains.includes(declared)) chains.push(declared);
    if (flushed !== undefined) {
      assert.ok(chains.includes(flushed), `no chain ${flushed}`);
      rules = rules.filter((rule) => !rule.startsWith(`-A ${flushed} `));
    } else if (deleted !== undefined) {
      const index = rules.indexOf(`-A ${deleted}`);
      assert.notEqual(index, -1, `no rule ${deleted}`);
      rules.splice(index, 1);
    } else if (inserted !== undefined) rules.unshift(`-A PREROUTING ${inserted}`);
    else if (dropped !== undefined) {
      assert.ok(!rules.some((rule) => rule.endsWith(`-j ${dropped}`)), 'chain is in use');
      assert.ok(!rules.some((rule) => rule.startsWith(`-A ${dropped} `)), 'chain is not empty');
      chains = chains.filter((name) => name !== dropped);
    } else if (line.startsWith('-A ')) rules.push(line);
    else assert.fail(`cannot apply ${line}`);
  }
  return { chains, rules };
}

function foreign({ rules }: Table): readonly string[] {
  return rules.filter(
    (rule) => !rule.startsWith('-A nmi-metadata ') && rule !== '-A PREROUTING -j nmi-metadata',
  );
}

describe('the rules of the redirect', () => {
  it('have the text of the system that we replace, with our target', () => {
    assert.deepEqual(wantedChain(defaultTarget).slice(2), [
      '! -s 127.0.0.1/32 -d 169.254.169.254/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 169.254.25.79:2579',
      '-j RETURN',
    ]);
  });

  it('drop the connects of one source beyond the rate, before the others', () => {
    const [tooFast, tooFastDirect, ...others] = wantedChain(defaultTarget);
    assert.deepEqual(unlimitedChain(defaultTarget), [...others, '-j RETURN']);
    const limit =
      '-m hashlimit --hashlimit-above 1000/sec --hashlimit-burst 512 --hashlimit-mode srcip ' +
      '--hashlimit-name nmi-metadata -j DNAT --to-destination 0.0.0.0';
    assert.equal(tooFast, others[0]?.replace(/-j DNAT.*/, limit));
    const direct = '-d 169.254.25.79/32 -p tcp -m tcp --dport 2579:2580';
    assert.equal(tooFastDirect, `${direct} ${limit}`);
    assert.deepEqual(wantedChain(defaultTarget, true), [tooFast, ...others]);
  });

  it('lead to the port of one of both agents, and are limited at both', () => {
    const empty = { hasChain: true, jumps: [1], otherReferences: [] };
    for (const chainOf of [
      (at?: number) => wantedChain(defaultTarget, false, at),
      (at?: number) => wantedChain(defaultTarget, true, at),
      (at?: number) => unlimitedChain(defaultTarget, at),
    ]) {
      assert.deepEqual(chainOf(), chainOf(2579));
      const changed = chainOf(2580).filter((rule) => !chainOf(2579).includes(rule));
      assert.equal(
        changed.join(),
        chainOf(2579)
          .at(chainOf().indexOf('-j RETURN') - 1)
          ?.replace('2579', '2580'),
      );
      for (const at of [2579, 2580]) {
        assert.equal(redirectedPort({ ...empty, chain: chainOf(at) }, defaultTarget), at);
      }
      for (const chain of [chainOf(2581), []]) {
        assert.equal(redirectedPort({ ...empty, chain }, defaultTarget), undefined);
      }
    }
  });

  it('are the same where the tool prints the size of the table behind the limit', () => {
    const printed = wantedChain(defaultTarget).map((rule) =>
      rule.replace(' -j DNAT', ' --hashlimit-htable-expire 10000 -j DNAT'),
    );
    const rules = [
      '-A PREROUTING -j nmi-metadata',
      ...printed.map((rule) => `-A nmi-metadata ${rule}`),
    ];
    const state = parseNat(print({ chains: ['PREROUTING', 'nmi-metadata'], rules }));
    assert.deepEqual(diffNat(state, wantedChain(defaultTarget)), []);
    assert.notDeepEqual(diffNat(state, unlimitedChain(defaultTarget)), []);
  });

  it('never throw, whatever the tool prints', () => {
    const line = fc.oneof(
      fc.string(),
      preroutingRule,
      ownRule,
      fc.constantFrom('*nat', '*', ':nmi-metadata ', '-A nmi-metadata '),
    );
    fc.assert(
      fc.property(fc.array(line), target, (lines, some) => {
        const state = parseNat(lines.join('\n'));
        diffNat(state, wantedChain(some));
        renderInstall(state, wantedChain(some));
        renderRemove(state);
      }),
    );
  });

  it('count only rules of table nat', () => {
    const other = print({
      chains: ['PREROUTING', 'nmi-metadata'],
      rules: ['-A PREROUTING -j nmi-metadata'],
    });
    assert.equal(parseNat(other.replace('*nat', '*mangle')).hasChain, false);
    assert.deepEqual(parseNat(other.replace('*nat', '*mangle') + other).jumps, [1]);
  });

  it('do not count a comment of the tool', () => {
    assert.deepEqual(parseNat('*nat\n# Warning: -j nmi-metadata\nCOMMIT\n').otherReferences, []);
  });
});

describe('one transaction', () => {
  it('leads from any state to the wanted one, after which nothing is left to do', () => {
    fc.assert(
      fc.property(table, target, (before, some) => {
        const transaction = renderInstall(parseNat(print(before)), wantedChain(some));
        const after = transaction === undefined ? before : apply(before, transaction.script);
        const state = parseNat(print(after));
        assert.deepEqual(diffNat(state, wantedChain(some)), []);
        assert.equal(renderInstall(state, wantedChain(some)), undefined);
        assert.deepEqual(state.jumps, [1]);
        assert.deepEqual(state.chain, wantedChain(some));
      }),
    );
  });

  it('leaves every rule of others unchanged and in its place', () => {
    fc.assert(
      fc.property(table, target, (before, some) => {
        const installed = renderInstall(parseNat(print(before)), wantedChain(some));
        const after = installed === undefined ? before : apply(before, installed.script);
        assert.deepEqual(foreign(after), foreign(before));
        const removed = renderRemove(parseNat(print(after)));
        assert.ok(removed !== undefined);
        assert.deepEqual(foreign(apply(after, removed.script)), foreign(before));
      }),
    );
  });

  it('removes everything of ours, once', () => {
    fc.assert(
      fc.property(table, (before) => {
        const state = parseNat(print(before));
        const transaction = renderRemove(state);
        const after = transaction === undefined ? before : apply(before, transaction.script);
        const left = parseNat(print(after));
        assert.equal(renderRemove(left), undefined);
        assert.deepEqual(left.jumps, []);
        assert.deepEqual(left.chain, []);
        assert.equal(left.hasChain, state.otherReferences.length > 0);
      }),
    );
  });

  it('is needed exactly when a difference is reported', () => {
    fc.assert(
      fc.property(table, target, (before, some) => {
        const state = parseNat(print(before));
        assert.equal(
          renderInstall(state, wantedChain(some)) === undefined,
          diffNat(state, wantedChain(some)).length === 0,
        );
      }),
    );
  });
});

describe('a difference is reported as a short sentence', () => {
  const [limit = '', direct = '', dnat = '', end = ''] = wantedChain(defaultTarget).map(
    (rule) => `-A nmi-metadata ${rule}`,
  );
  const jump = '-A PREROUTING -j nmi-metadata';
  const accept = '-A PREROUTING -p tcp -j ACCEPT';
  const chains = ['PREROUTING', 'nmi-metadata'];
  const cases: readonly (readonly [string, Table, readonly string[]])[] = [
    ['nothing wrong', { chains, rules: [jump, accept, limit, direct, dnat, end] }, []],
    [
      'an empty table',
      { chains: ['PREROUTING'], rules: [] },
      ['chain nmi-metadata missing', 'jump to nmi-metadata missing from PREROUTING'],
    ],
    [
      'a jump below others',
      { chains, rules: [accept, accept, jump, limit, direct, dnat, end] },
      ['jump is at position 3, not first'],
    ],
    [
      'two jumps',
      { chains, rules: [jump, jump, limit, direct, dnat, end] },
      ['jump stands 2 times, not once'],
    ],
    [
      'an addition',
      { chains, rules: [jump, limit, direct, dnat, end, '-A nmi-metadata -p udp -j ACCEPT'] },
      ['unexpected rule: -p udp -j ACCEPT'],
    ],
    [
      'the wrong order',
      { chains, rules: [jump, end, limit, direct, dnat] },
      ['rules of nmi-metadata are repeated or out of order'],
    ],
    [
      'a repetition',
      { chains, rules: [jump, limit, direct, dnat, dnat, end] },
      ['rules of nmi-metadata are repeated or out of order'],
    ],
    [
      'missing limits',
      { chains, rules: [jump, dnat, end] },
      [limit, direct].map((rule) => `rule missing: ${rule.replace('-A nmi-metadata ', '')}`),
    ],
    ['a missing rule', { chains, rules: [jump, limit, direct, dnat] }, ['rule missing: -j RETURN']],
    [
      'a flood',
      {
        chains,
        rules: [
          jump,
          limit,
          direct,
          dnat,
          end,
          ...Array.from({ length: 9 }, (_, n) => `-A nmi-metadata -p ${n} -j DROP`),
        ],
      },
      Array.from({ length: 5 }, (_, n) => `unexpected rule: -p ${n} -j DROP`),
    ],
  ];
  for (const [name, state, expected] of cases) {
    it(name, () => {
      assert.deepEqual(diffNat(parseNat(print(state)), wantedChain(defaultTarget)), expected);
    });
  }
});

describe('the changes of an installation', () => {
  it('are named by what was there', () => {
    const chain = wantedChain(defaultTarget);
    const state = { hasChain: true, chain, jumps: [1], otherReferences: [] };
    const cases = [
      [{ ...state, hasChain: false, chain: [], jumps: [] }, 'chain nmi-metadata made, jump added'],
      [{ ...state, chain: ['-j RETURN'] }, 'chain nmi-metadata rewritten'],
      [{ ...state, jumps: [] }, 'jump added'],
      [{ ...state, jumps: [2] }, 'jump moved to the first place, once'],
      [{ ...state, jumps: [1, 3] }, 'jump moved to the first place, once'],
      [state, undefined],
    ] as const;
    for (const [before, changes] of cases) {
      assert.equal(renderInstall(before, wantedChain(defaultTarget))?.changes.join(', '), changes);
    }
  });

  it('do not count what stands before the table', () => {
    assert.ok(isAbsent(parseNat(':nmi-metadata - [0:0]\n-A PREROUTING -j nmi-metadata\n*nat\n')));
  });
});
