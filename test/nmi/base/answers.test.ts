import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { describe, it } from 'node:test';
import {
  answerToken,
  metadataHeaderMissing,
  refusals,
  refuse,
  type RefusalReason,
} from '../../../src/nmi/base/answers.ts';

const reasons = Object.keys(refusals) as RefusalReason[];

describe('the table of refusals', () => {
  it('has the exact 88 bytes of the metadata header refusal', () => {
    const answer = metadataHeaderMissing;
    assert.equal(answer.status, 400);
    assert.equal(Buffer.byteLength(answer.body), 88);
    assert.equal(
      answer.body,
      '{"error":"invalid_request","error_description":"Required metadata header not specified"}',
    );
  });

  for (const reason of reasons) {
    it(`gives ${reason} a status that clients handle correctly`, () => {
      if (reason === 'metadata_header_missing') return;
      const answer = refuse(reason, 'why');
      assert.ok(answer.status >= 400 && answer.status < 600 && answer.status !== 410);
      const isPassing = answer.status === 503 || answer.status === 429;
      assert.equal(answer.retryAfterS !== undefined, isPassing, 'Retry-After exactly on 429, 503');
      assert.ok((answer.retryAfterS ?? 1) >= 1, 'no client retries at once');
      const body = JSON.parse(answer.body) as Record<string, unknown>;
      assert.ok(typeof body['error'] === 'string' && body['error'] !== '');
      assert.equal(body['error_description'], `why (${reason})`);
    });
  }

  it('has the methods that are allowed, and ends the connection, where that is needed', () => {
    const plain = refuse('method_not_allowed', 'x');
    assert.deepEqual([plain.allow, plain.close], [undefined, undefined]);
    const full = refuse('method_not_allowed', 'x', { allow: 'GET', close: true });
    assert.deepEqual([full.allow, full.close], ['GET', true]);
  });

  it('has the wait of the upstream, but never less than the table', () => {
    assert.equal(refuse('upstream_throttled', 'x', { retryAfterS: 7 }).retryAfterS, 7);
    assert.equal(refuse('upstream_throttled', 'x', { retryAfterS: 1 }).retryAfterS, 5);
    assert.equal(refuse('no_binding_label', 'x', { retryAfterS: 7 }).retryAfterS, undefined);
  });

  it('has no unused reason', async () => {
    const root = new URL('../../../src/', import.meta.url);
    const names = await readdir(root, { recursive: true });
    const texts = await Promise.all(
      names
        .filter((name) => name.endsWith('.ts') && name !== 'nmi/base/answers.ts')
        .map((name) => readFile(new URL(name, root), 'utf8')),
    );
    const source = texts.join('\n');
    const unused = reasons.filter((reason) => !source.includes(`'${reason}'`));
    assert.deepEqual(unused, []);
  });

  it('never contains the word unreachable in a 403, whatever its source', () => {
    for (const reason of reasons) {
      if (reason === 'metadata_header_missing') continue;
      const { status, body } = refuse(reason, 'pod default/Unreachable-app is unreachable');
      assert.equal(/unreachable/i.test(body), status !== 403, reason);
      assert.match(body, /pod default\//);
    }
  });
});

describe('an answer with a token', () => {
  it('succeeds, with the body as it is', () => {
    assert.deepEqual(answerToken('{}'), { reason: 'ok', status: 200, body: '{}' });
  });
});
