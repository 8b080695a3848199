import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  KubeError,
  kubeErrorOfFailure,
  kubeErrorOfStatus,
} from '../../../../src/nmi/kube/api/kube-error.ts';

describe('an unsuccessful answer', () => {
  it('has a code by its status, and the text and the wait of the server', () => {
    const codes = [401, 403, 404, 410, 429, 500, 409].map(
      (status) => kubeErrorOfStatus(status, 'said').code,
    );
    assert.deepEqual(codes, [
      'UNAUTHORIZED',
      'FORBIDDEN',
      'NOT_FOUND',
      'GONE',
      'THROTTLED',
      'SERVER',
      'SERVER',
    ]);
    const codeOf = (message: string, status = 403) => kubeErrorOfStatus(status, message).code;
    assert.equal(
      codeOf('User "u" cannot impersonate resource "users" in API group ""'),
      'IMPERSONATION',
    );
    assert.equal(codeOf('User "u" cannot impersonate resource "users"', 500), 'SERVER');
    assert.equal(
      codeOf("x is forbidden: no relationship found between node 'n' and this object"),
      'SERVER',
    );
    assert.equal(
      codeOf('the UID in the bound object reference (u) does not match the UID in record.'),
      'SERVER',
    );
    const error = kubeErrorOfStatus(429, 'x'.repeat(600), 1_500);
    assert.deepEqual(
      [error.status, error.retryAfterMs, error.message.length, error.name],
      [429, 1_500, 512, 'KubeError'],
    );
  });
});

describe('a failure of the HTTP client', () => {
  const codeOf = (code: string) =>
    kubeErrorOfFailure(Object.assign(new Error('text'), { code })).code;

  it('has a code by its type', () => {
    for (const code of [
      'ETIMEDOUT',
      'UND_ERR_CONNECT_TIMEOUT',
      'UND_ERR_HEADERS_TIMEOUT',
      'UND_ERR_BODY_TIMEOUT',
    ]) {
      assert.equal(codeOf(code), 'TIMEOUT');
    }
    assert.equal(codeOf('UND_ERR_INVALID_ARG'), 'CONFIG');
    assert.equal(codeOf('UND_ERR_RES_EXCEEDED_MAX_SIZE'), 'MALFORMED');
    assert.equal(codeOf('ECONNREFUSED'), 'NETWORK');
  });

  it('keeps its text and its cause, and is unchanged if it already is one', () => {
    const failure = new Error('text');
    assert.equal(kubeErrorOfFailure(failure).message, 'text');
    assert.equal(kubeErrorOfFailure(failure).cause, failure);
    const unnamed = Object.assign(new Error(''), { code: 'EPIPE' });
    assert.equal(kubeErrorOfFailure(unnamed).message, 'EPIPE');
    assert.equal(kubeErrorOfFailure('odd').message, 'odd');
    const known = new KubeError('GONE', 'old');
    assert.equal(kubeErrorOfFailure(known), known);
  });
});
