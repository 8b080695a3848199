/** The parts of the Kubernetes client that need no server. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { backoffMs } from '../../../../src/nmi/kube/api/backoff.ts';
import { outcomeOfFailure } from '../../../../src/nmi/kube/api/call-outcome.ts';
import { createJsonLines, OverlongLine } from '../../../../src/nmi/kube/api/json-lines.ts';
import {
  KubeError,
  kubeErrorOfFailure,
  kubeErrorOfStatus,
} from '../../../../src/nmi/kube/api/kube-error.ts';
import { NodeImpersonation } from '../../../../src/nmi/kube/api/node-impersonation.ts';
import { readWatchEvent, versionOf } from '../../../../src/nmi/kube/api/watch-event.ts';
import { flatten, readWatchChunks } from '../../../../src/nmi/kube/api/watch-stream.ts';
import { keptLog } from './kube-test-bed.ts';

describe('the back-off', () => {
  it('doubles up to its cap, half of it random, or is what the server requires', () => {
    const backoff = { baseMs: 100, capMs: 1000 };
    const rows: readonly [failures: number, random: number, delayMs: number, asked?: number][] = [
      [1, 1, 100],
      [2, 1, 200],
      [3, 1, 400],
      [4, 1, 800],
      [5, 1, 1000],
      [400, 1, 1000],
      [Number.MAX_SAFE_INTEGER, 1, 1000],
      [1, 0, 50],
      [2, 0, 100],
      [5, 0, 500],
      // Plus up to a quarter, and within a limit.
      [1, 0, 3000, 3000],
      [1, 1, 3750, 3000],
      [400, 0, 500, 500],
      [5, 0, 100, 10],
      [1, 0, 100, 1],
      [1, 0, 300_000, 86_400_000],
    ];
    for (const [failures, random, delayMs, asked] of rows) {
      assert.equal(backoffMs(backoff, failures, random, asked), delayMs, `${failures}, ${random}`);
    }
  });
});

describe('a failed call', () => {
  it('has a code by its status, and the text and the wait of the server', () => {
    const impersonation = 'User "u" cannot impersonate resource "users" in API group ""';
    for (const [status, code, message = 'said'] of [
      [401, 'UNAUTHORIZED'],
      [403, 'FORBIDDEN'],
      [404, 'NOT_FOUND'],
      [410, 'GONE'],
      [429, 'THROTTLED'],
      [500, 'SERVER'],
      [409, 'SERVER'],
      [403, 'IMPERSONATION', impersonation],
      [500, 'SERVER', impersonation],
      // Of a node's authorizer that is behind.
      [403, 'SERVER', "x is forbidden: no relationship found between node 'n' and this object"],
      [
        403,
        'SERVER',
        'the UID in the bound object reference (u) does not match the UID in record.',
      ],
    ] as const) {
      assert.equal(kubeErrorOfStatus(status, message).code, code, `${status} ${message}`);
    }
    const error = kubeErrorOfStatus(429, 'x'.repeat(600), 1_500);
    const { status, retryAfterMs, message, name } = error;
    assert.deepEqual([status, retryAfterMs, message.length, name], [429, 1_500, 512, 'KubeError']);
  });

  it('has a code by the failure of the HTTP client, whose text and cause it keeps', () => {
    for (const [code, expected] of [
      ['ETIMEDOUT', 'TIMEOUT'],
      ['UND_ERR_CONNECT_TIMEOUT', 'TIMEOUT'],
      ['UND_ERR_HEADERS_TIMEOUT', 'TIMEOUT'],
      ['UND_ERR_BODY_TIMEOUT', 'TIMEOUT'],
      ['UND_ERR_INVALID_ARG', 'CONFIG'],
      ['UND_ERR_RES_EXCEEDED_MAX_SIZE', 'MALFORMED'],
      ['ECONNREFUSED', 'NETWORK'],
    ] as const) {
      const failure = Object.assign(new Error('text'), { code });
      const { code: found, message, cause } = kubeErrorOfFailure(failure);
      assert.deepEqual([found, message, cause], [expected, 'text', failure]);
    }
    const unnamed = Object.assign(new Error(''), { code: 'EPIPE' });
    assert.equal(kubeErrorOfFailure(unnamed).message, 'EPIPE');
    assert.equal(kubeErrorOfFailure('odd').message, 'odd');
    const known = new KubeError('GONE', 'old');
    assert.equal(kubeErrorOfFailure(known), known);
  });

  it('is forbidden or transient, with a short reason; another error is thrown again', () => {
    const unavailable = { kind: 'unavailable', retryAfterMs: undefined };
    for (const [failure, outcome] of [
      [new KubeError('FORBIDDEN', 'no', { status: 403 }), { kind: 'forbidden', said: 'no' }],
      [new KubeError('SERVER', 'x', { status: 502 }), { ...unavailable, problem: 'status 502' }],
      [new KubeError('SERVER', 'x'), { ...unavailable, problem: 'status 0' }],
      [new KubeError('NETWORK', 'x'), { ...unavailable, problem: 'NETWORK' }],
      [
        new KubeError('THROTTLED', 'busy', { status: 429, retryAfterMs: 9 }),
        { kind: 'unavailable', problem: 'THROTTLED', retryAfterMs: 9 },
      ],
    ] as const) {
      assert.deepEqual(outcomeOfFailure(failure), outcome);
    }
    const bug = new TypeError('bug');
    assert.throws(() => outcomeOfFailure(bug), bug);
  });
});

describe('the splitter of a watch stream', () => {
  const bytesOf = (text: string): Uint8Array[] =>
    Array.from(Buffer.from(text), (byte) => Uint8Array.of(byte));

  function decode(chunks: readonly Uint8Array[], maxLineBytes = 1_000_000): unknown[] {
    const lines = createJsonLines(maxLineBytes);
    const values = chunks.flatMap((chunk) => [...lines.push(chunk)]);
    assert.equal(lines.pendingBytes, 0);
    return values;
  }

  it('returns the same values for any chunks, also single bytes', () => {
    const json = fc.jsonValue({ stringUnit: 'binary' });
    const cuts = fc.array(fc.nat(4000), { maxLength: 30 });
    fc.assert(
      fc.property(fc.array(json, { maxLength: 5 }), cuts, (values, places) => {
        const text = values.map((value) => `${JSON.stringify(value)}\n`).join('');
        const bytes = Buffer.from(text);
        const expected = JSON.parse(JSON.stringify(values)) as unknown;
        const edges = [0, ...places.map((place) => place % (bytes.length + 1)), bytes.length];
        edges.sort((one, other) => one - other);
        const chunks = edges.slice(1).map((edge, at) => bytes.subarray(edges[at], edge));
        assert.deepEqual(decode(chunks), expected);
        assert.deepEqual(decode(bytesOf(text)), expected);
      }),
    );
    assert.deepEqual(decode(bytesOf('{"name":"für 🦀"}\n')), [{ name: 'für 🦀' }]);
    assert.deepEqual(decode([Buffer.from('\n{"a":1}\r\n\r\n{"a":2}\n')]), [{ a: 1 }, { a: 2 }]);
  });

  it('returns the values before an invalid line, then fails', () => {
    const lines = createJsonLines(100);
    const seen: unknown[] = [];
    const read = (): void => {
      for (const value of lines.push(Buffer.from('{"a":1}\nnonsense\n{"a":2}\n'))) {
        seen.push(value);
      }
    };
    assert.throws(read, { name: 'KubeError', code: 'MALFORMED' });
    assert.deepEqual(seen, [{ a: 1 }]);
  });

  it('accepts a line of exactly its limit, and only the beginning of a longer one', () => {
    const line = JSON.stringify('x'.repeat(98));
    assert.deepEqual(decode([Buffer.from(`${line}\n`)], 100), ['x'.repeat(98)]);
    const around = `{"a":1}\n${line}\n{"a":2}\n`;
    for (const chunks of [[Buffer.from(around)], bytesOf(around)]) {
      assert.deepEqual(decode(chunks, 99), [{ a: 1 }, new OverlongLine(line), { a: 2 }]);
    }
  });

  it('keeps 4 kB of a line that is too long, and the size of an unfinished one', () => {
    const lines = createJsonLines(10_000);
    for (let count = 0; count < 100; count++) {
      const part = Buffer.alloc(6_000, count === 0 ? 'x' : 'y');
      assert.deepEqual([...lines.push(part)], []);
      assert.ok(lines.pendingBytes > 0);
    }
    const after = [...lines.push(Buffer.from('\n1\n{"b"'))];
    assert.deepEqual(after, [new OverlongLine('x'.repeat(4_096)), 1]);
    assert.equal(lines.pendingBytes, 4);
  });
});

describe('the body of a watch', () => {
  async function* bodyOf(...texts: readonly string[]): AsyncGenerator<Uint8Array> {
    for (const text of texts) yield Buffer.from(text);
  }

  /** The values of the stream, and its end. */
  async function read(body: AsyncIterable<Uint8Array>, take = Infinity) {
    const values: unknown[] = [];
    let chunks = 0;
    let error: unknown;
    try {
      for await (const value of flatten(readWatchChunks(body, () => chunks++))) {
        values.push(value);
        if (values.length >= take) break;
      }
    } catch (failure) {
      error = failure;
    }
    return { values, chunks, error };
  }

  it('consists of the values of its lines, and is cut if it ends within one', async () => {
    const whole = await read(bodyOf('{"a":1}\n{"a"', ':2}\n'));
    assert.deepEqual(whole, { values: [{ a: 1 }, { a: 2 }], chunks: 2, error: undefined });
    const { values, error } = await read(bodyOf('{"a":1}\n{"a"'));
    assert.deepEqual(values, [{ a: 1 }]);
    assert.match(String(error), /KubeError: the stream was cut in an event/);
  });

  it('fails with its error, after the values before', async () => {
    async function* breaking(): AsyncGenerator<Uint8Array> {
      yield Buffer.from('{"a":1}\n');
      throw new RangeError('reset');
    }
    const { values, error } = await read(breaking());
    assert.deepEqual(values, [{ a: 1 }]);
    assert.match(String(error), /RangeError: reset/);
  });

  it('is closed when its reader stops, and when a line is invalid', async () => {
    let ended = 0;
    async function* endless(text: string): AsyncGenerator<Uint8Array> {
      try {
        for (;;) yield Buffer.from(text);
      } finally {
        ended++;
      }
    }
    const { values } = await read(endless('{"a":1}\n{"a":2}\n'), 3);
    assert.deepEqual([values.length, ended], [3, 1]);
    const broken = await read(endless('{"a":1}\nno JSON\n'));
    assert.deepEqual(broken.values, [{ a: 1 }]);
    assert.ok(broken.error !== undefined);
    assert.equal(ended, 2);
  });

  it('lets other work run while it arrives as fast as it is read', async () => {
    let turns = 0;
    const timer = setInterval(() => turns++, 0);
    const line = `${JSON.stringify({ a: 'x'.repeat(20_000) })}\n`;
    const { values } = await read(bodyOf(...Array.from({ length: 1_500 }, () => line)));
    clearInterval(timer);
    assert.equal(values.length, 1_500);
    assert.ok(turns > 0, 'never');
  });
});

describe('a line of a watch', () => {
  const object = { metadata: { name: 'p', resourceVersion: '7' } };

  it('is a change or a deletion of an object, at a version', () => {
    for (const [type, kind] of [
      ['ADDED', 'changed'],
      ['MODIFIED', 'changed'],
      ['DELETED', 'deleted'],
    ] as const) {
      assert.deepEqual(readWatchEvent({ type, object }), { kind, object, version: '7' });
    }
    for (const other of [undefined, {}, { metadata: 7 }, { metadata: {} }]) {
      assert.equal(versionOf(other), '');
    }
  });

  it('that is too long identifies its object by its beginning', () => {
    // In the order of a server: the fields with text of the pod's author come later.
    const head = '"object":{"kind":"Pod","apiVersion":"v1","metadata":{';
    const names = '"name":"big","namespace":"shop","uid":"u-1","resourceVersion":"7"';
    const rest = ',"generation":1,"annotations":{"name":"other';
    const ref = { name: 'big', namespace: 'shop', uid: 'u-1' };
    const changed = { kind: 'overlong', ref, version: '7' };
    const deleted = { metadata: { ...ref, resourceVersion: '7' } };
    const unknown = { kind: 'overlong', ref: undefined, version: '' };
    for (const [text, event] of [
      [`{"type":"ADDED",${head}${names}${rest}`, changed],
      [`{"type":"MODIFIED",${head}${names}${rest}`, changed],
      [
        `{"type":"DELETED",${head}${names}${rest}`,
        { kind: 'deleted', object: deleted, version: '7' },
      ],
      ['', unknown],
      ['xxxx', unknown],
      [`{"type":"ADDED",${head}"annotations":{${names}}`, unknown],
      [`{"type":"ADDED",${head}"name":"big"${rest},${names}`, unknown],
      [`{"type":"ADDED","object":{"spec":{"metadata":{${names},"generation":1`, unknown],
      [`{"type":"DELETED",${head}"annotations":{`, unknown],
    ] as const) {
      assert.deepEqual(readWatchEvent(new OverlongLine(text)), event, text);
    }
  });

  it('is a bookmark, which can end a list', () => {
    for (const [annotations, endsList] of [
      [undefined, false],
      [{ 'k8s.io/initial-events-end': 'false' }, false],
      [{ 'k8s.io/initial-events-end': 'true' }, true],
    ] as const) {
      const mark = {
        type: 'BOOKMARK',
        object: { metadata: { resourceVersion: '9', annotations } },
      };
      assert.deepEqual(readWatchEvent(mark), { kind: 'bookmark', version: '9', endsList });
    }
  });

  it('is an error with the status in it, or because it is invalid', () => {
    const told = (fields: object) => ({ type: 'ERROR', object: fields });
    const noObject = (type: string) => `MALFORMED: a watch event of type "${type}" has no object`;
    for (const [raw, text, details = []] of [
      [told({ code: 410, message: 'too old' }), 'GONE: too old'],
      [told({ code: 403, reason: 'Forbidden' }), 'FORBIDDEN: Forbidden'],
      [told({}), 'SERVER: the server ended the watch'],
      [
        told({ code: 429, message: 'x', details: { retryAfterSeconds: 3 } }),
        ...(['THROTTLED: x', [429, 3_000]] as const),
      ],
      [
        told({ code: '429', message: 'x', details: { retryAfterSeconds: '3' } }),
        ...(['SERVER: x', [500, undefined]] as const),
      ],
      [null, noObject('')],
      [7, noObject('')],
      [{}, noObject('')],
      [{ type: 'ADDED' }, noObject('ADDED')],
      [{ type: 'ADDED', object: [] }, noObject('ADDED')],
      [
        { type: 'ADDED', object: {} },
        'MALFORMED: a watch event of type "ADDED" has no resourceVersion',
      ],
      [{ type: 'X'.repeat(99), object }, `MALFORMED: unknown watch event type "${'X'.repeat(32)}"`],
    ] as const) {
      const event = readWatchEvent(raw);
      assert.ok(event.kind === 'error');
      const { code, message, status, retryAfterMs } = event.error;
      assert.equal(`${code}: ${message}`, text);
      if (details.length > 0) assert.deepEqual([status, retryAfterMs], details);
    }
  });
});

describe('calls in the name of the node', () => {
  const node = 'system:node:node-a';
  const cannotImpersonate = new KubeError('IMPERSONATION', 'no', { status: 403 });
  const forbidden = new KubeError('FORBIDDEN', 'no', { status: 403 });
  const down = new KubeError('NETWORK', 'reset');

  /** What the server refuses to the node and to the account itself, and who is asked then. */
  const rows: readonly [
    title: string,
    calls: readonly [ofNode: KubeError | undefined, ofAccount: KubeError | undefined, as: string][],
    value: number | undefined,
  ][] = [
    [
      'are made so where the server allows it',
      [
        [undefined, undefined, 'node'],
        [undefined, undefined, 'node'],
      ],
      1,
    ],
    [
      'are made as the account where it does not, without asking again',
      [
        [cannotImpersonate, undefined, 'node account'],
        [cannotImpersonate, undefined, 'account'],
      ],
      0,
    ],
    [
      'are not made as the account for any other refusal',
      [[forbidden, undefined, 'node']],
      undefined,
    ],
    ['are not made as the account for any failure', [[down, undefined, 'node']], undefined],
    [
      'are tried again once the account itself is refused',
      [
        [cannotImpersonate, undefined, 'node account'],
        [undefined, forbidden, 'account'],
        [undefined, forbidden, 'node'],
      ],
      1,
    ],
    [
      'stay with the account while its calls fail otherwise',
      [
        [cannotImpersonate, undefined, 'node account'],
        [cannotImpersonate, down, 'account'],
        [cannotImpersonate, down, 'account'],
      ],
      0,
    ],
    [
      'fail with the account’s refusal if neither is allowed',
      [[cannotImpersonate, forbidden, 'node account']],
      undefined,
    ],
  ];
  for (const [title, calls, value] of rows) {
    it(title, async () => {
      const log = keptLog();
      const names = new NodeImpersonation({ node: 'node-a', purpose: 'tokens', log });
      for (const [ofNode, ofAccount, expected] of calls) {
        const asked: string[] = [];
        const call = names.call(async (user = '') => {
          assert.ok(user === '' || user === node);
          asked.push(user === '' ? 'account' : 'node');
          const error = user === '' ? ofAccount : ofNode;
          if (error !== undefined) throw error;
          return `for ${user}`;
        });
        const last = expected.endsWith('node') ? ofNode : ofAccount;
        if (last !== undefined) await assert.rejects(call, last);
        else assert.equal(await call, expected.endsWith('node') ? `for ${node}` : 'for ');
        assert.equal(asked.join(' '), expected);
      }
      const sample = { metric: 'nmi_acts_as_node', labels: { purpose: 'tokens' }, value };
      assert.deepEqual(names.samples(), value === undefined ? [] : [sample]);
      assert.ok(log.lines.length < calls.length, 'a change of the name is logged once');
    });
  }
});
