/** The parser of answers that the load program relies on. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { createLabIdentity } from '../../lab/fakes/identity.ts';
import { createTokenSigner } from '../../lab/fakes/token.ts';
import { AnswerScan } from '../../bench/load/answer-scan.ts';
import { AnswerCheck } from '../../bench/load/answer-check.ts';

function answerOf(status: number, body: string, framing: 'length' | 'small letters' | 'chunks') {
  const line = `HTTP/1.1 ${status} Whatever\r\nX-Other: 1`;
  if (framing === 'length') return `${line}\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
  if (framing === 'small letters') return `${line}\r\ncontent-length:${body.length}\r\n\r\n${body}`;
  const half = Math.floor(body.length / 2);
  const chunks = [body.slice(0, half), body.slice(half)]
    .filter((part) => part !== '')
    .map((part) => `${part.length.toString(16)}\r\n${part}\r\n`);
  return `${line}\r\nTransfer-Encoding: chunked\r\n\r\n${chunks.join('')}0\r\n\r\n`;
}

const framings = ['length', 'small letters', 'chunks'] as const;

function tokenAnswer(name: string): string {
  const identity = createLabIdentity(name);
  const token = createTokenSigner()({
    identity,
    audience: 'https://a.example',
    tenantId: 't',
    issuedAtWallMs: 0,
    lifetimeMs: 1000,
  });
  return JSON.stringify({ access_token: token, expires_in: '1' });
}

describe('the reader of answers', () => {
  it('finds status, end and body with any framing, and never too early', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 100, max: 599 }),
        fc.stringMatching(/^[ -~]{0,300}$/),
        fc.constantFrom(...framings),
        (status, body, framing) => {
          const whole = Buffer.from(answerOf(status, body, framing), 'latin1');
          const scan = new AnswerScan();
          for (let length = 0; length < whole.length; length++) {
            assert.ok(!scan.scan(whole.subarray(0, length), length), `whole at ${length}`);
          }
          assert.ok(scan.scan(Buffer.concat([whole, whole]), whole.length * 2));
          assert.equal(scan.status, status);
          assert.equal(scan.total, whole.length);
          assert.equal(scan.body(whole).toString('latin1'), body);
        },
      ),
      { numRuns: 50 },
    );
  });

  it('ignores the rest of an earlier answer in the buffer', () => {
    const scan = new AnswerScan();
    const old = Buffer.from(answerOf(200, 'body', 'length'), 'latin1');
    assert.ok(!scan.scan(old, 10));
  });
});

describe('the check of answers', () => {
  const caller = { target: '/', expect: { kind: 'identity', name: 'mine' } } as const;
  const verdictOf = (check: AnswerCheck, status: number, body: string) => {
    const scan = new AnswerScan();
    const bytes = Buffer.from(answerOf(status, body, 'length'), 'latin1');
    assert.ok(scan.scan(bytes, bytes.length));
    return check.check(bytes, scan, 0);
  };

  it('accepts only tokens of the identity, before and after it has seen one', () => {
    const check = new AnswerCheck(caller);
    for (let time = 0; time < 2; time++) {
      assert.equal(verdictOf(check, 200, tokenAnswer('other')), 'foreign');
      assert.equal(verdictOf(check, 200, tokenAnswer('mine')), 'right');
      assert.equal(verdictOf(check, 500, tokenAnswer('mine')), 'wrong');
      assert.equal(verdictOf(check, 200, '{"access_token":"x"}'), 'wrong');
      assert.equal(verdictOf(check, 200, 'x'.repeat(2000)), 'wrong');
    }
  });

  it('accepts the expected statuses', () => {
    const check = new AnswerCheck({ target: '/', expect: { kind: 'status', statuses: [429] } });
    assert.equal(verdictOf(check, 429, ''), 'right');
    assert.equal(verdictOf(check, 200, ''), 'wrong');
  });
});
