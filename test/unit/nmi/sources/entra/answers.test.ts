import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  aadstsCodes,
  classifyEntraError,
  type EntraReason,
} from '../../../../../src/nmi/sources/entra/aadsts.ts';

/** Reason, its codes, the OAuth errors that may be relayed, and the cooldown in milliseconds. */
const table: readonly (readonly [EntraReason, string, readonly (string | undefined)[], number])[] =
  [
    [
      'resource_refused',
      '500011 50001 500014 650057 70011 28002 700022 700023 90009 901002',
      ['invalid_resource', 'invalid_scope'],
      45_000,
    ],
    [
      'identity_refused',
      '700016 70001 7000112 7000229 90002 90038 900023 900382 900432',
      ['unauthorized_client', 'invalid_request'],
      45_000,
    ],
    [
      'credential_refused',
      '7000215 7000222 70002 7000218 700027 700030 50012 700024 50013 700229 700231 700236',
      ['invalid_client'],
      5_000,
    ],
    ['federation_refused', '70021 70025 700211 700212 700213 7002138', ['invalid_client'], 250],
    [
      'policy_refused',
      '53003 53004 53011 530032 530034 530035 50005 65001',
      ['access_denied'],
      45_000,
    ],
    ['upstream_throttled', '50196 90055', [undefined], 10_000],
    ['upstream_down', '90033 90006 90012 90024 90090 90091 50000 90061', [undefined], 250],
  ];

function classify(
  fields: object | string,
  status = 400,
  retryAfterS?: number,
  sent: string[] = [],
) {
  const body = typeof fields === 'string' ? fields : JSON.stringify(fields);
  return classifyEntraError({ status, body, retryAfterS }, sent);
}

describe('the table of codes', () => {
  it('has only codes that are tested here', () => {
    const tested = table.flatMap(([, codes]) => codes.split(' ').map(Number));
    assert.deepEqual([...aadstsCodes.keys()].sort(), tested.sort());
  });

  for (const [reason, codes, errors, cooldownMs] of table) {
    it(`has the reason ${reason} for its codes, in the list or in the text`, () => {
      for (const code of codes.split(' ')) {
        const description = `AADSTS${code}: Something. Trace ID: t`;
        const byText = classify({ error_description: description });
        const byList = classify({ error_codes: [Number(code)], error_description: 'text' });
        assert.equal(byText.description, description);
        for (const failure of [byText, byList]) {
          assert.deepEqual([failure.reason, failure.cooldownMs], [reason, cooldownMs], code);
          assert.ok(errors.includes(failure.error), `${code} ${String(failure.error)}`);
        }
      }
    });
  }
});

describe('an answer of Entra ID', () => {
  it('keeps its own error if that fits the reason, and otherwise gets the error of the code', () => {
    for (const [code, error, relayed] of [
      [500011, 'invalid_resource', 'invalid_resource'],
      [500011, 'invalid_scope', 'invalid_scope'],
      [500011, 'invalid_request', 'invalid_resource'],
      [70011, 'invalid_grant', 'invalid_scope'],
      [90002, 'invalid_request', 'invalid_request'],
      [700016, 'unauthorized_client', 'unauthorized_client'],
      [7000215, 'unauthorized_client', 'invalid_client'],
      [53003, 'invalid_grant', 'access_denied'],
      [70021, 'invalid_request', 'invalid_request'],
      [90033, 'server_error', undefined],
    ] as const) {
      assert.equal(classify({ error, error_codes: [code] }).error, relayed, `${code} ${error}`);
    }
  });

  it('is classified by the first known code', () => {
    const listed = classify({ error_codes: [1, 'x', 500011, 7000215] });
    assert.equal(listed.reason, 'resource_refused');
    const both = { error_codes: [7], error_description: 'AADSTS8: see AADSTS700016: no' };
    assert.equal(classify(both).reason, 'identity_refused');
  });

  it('with an unknown code is classified by its error', () => {
    for (const [error, reason, relayed] of [
      ['invalid_resource', 'resource_refused', 'invalid_resource'],
      ['invalid_scope', 'resource_refused', 'invalid_scope'],
      ['invalid_target', 'resource_refused', 'invalid_resource'],
      ['unauthorized_client', 'identity_refused', 'unauthorized_client'],
      ['invalid_client', 'credential_refused', 'invalid_client'],
      ['access_denied', 'policy_refused', 'access_denied'],
      ['consent_required', 'policy_refused', 'access_denied'],
      ['interaction_required', 'policy_refused', 'access_denied'],
      ['server_error', 'upstream_down', undefined],
      ['temporarily_unavailable', 'upstream_down', undefined],
      ['invalid_grant', 'upstream_refused', 'invalid_grant'],
      ['<b>', 'upstream_refused', 'invalid_request'],
      ['', 'upstream_refused', 'invalid_request'],
    ] as const) {
      for (const status of [400, 401]) {
        const failure = classify({ error, error_codes: [123] }, status);
        assert.deepEqual([failure.reason, failure.error], [reason, relayed], error);
      }
    }
  });

  it('without a known error is classified by its status', () => {
    for (const [status, body, reason] of [
      [429, '', 'upstream_throttled'],
      [429, '{"error_codes":[500011]}', 'upstream_throttled'],
      [500, '{"error":"invalid_client","error_codes":[7000215]}', 'upstream_down'],
      [503, '{"error_codes":[90055]}', 'upstream_throttled'],
      [502, '<html>Bad Gateway</html>', 'upstream_down'],
      [504, '', 'upstream_down'],
      [302, '', 'upstream_down'],
      [200, '<html>log in to the hotel</html>', 'upstream_down'],
      [408, '{}', 'upstream_down'],
      [302, '{}', 'upstream_down'],
      [408, '{"error_codes":[500011]}', 'resource_refused'],
      [403, '<html>blocked</html>', 'upstream_down'],
      [400, '[]', 'upstream_down'],
      [404, '{}', 'upstream_refused'],
      [418, '{"error_codes":"no list"}', 'upstream_refused'],
    ] as const) {
      assert.equal(classify(body, status).reason, reason, `${status} ${body}`);
    }
  });

  it('has its status and its error as the description where it has no text', () => {
    for (const [body, description] of [
      ['{"error":"invalid_grant"}', 'Entra ID answered status 400 (invalid_grant)'],
      ['{"error":"<b>"}', 'Entra ID answered status 400'],
      ['<html>', 'Entra ID answered status 400 without JSON'],
    ] as const) {
      assert.equal(classify(body).description, description);
    }
  });

  it('contains how long to wait, within limits, and never in a refusal', () => {
    for (const [status, given, retryAfterS, cooldownMs] of [
      [429, 7, 7, 7_000],
      [429, undefined, 10, 10_000],
      [429, 0, 1, 1_000],
      [429, 3600, 3600, 3_600_000],
      [503, 120, 10, 1_000],
      [503, 0, 1, 1_000],
      [503, undefined, undefined, 250],
      [404, 30, undefined, 5_000],
    ] as const) {
      const failure = classify({}, status, given);
      assert.deepEqual([failure.retryAfterS, failure.cooldownMs], [retryAfterS, cooldownMs]);
    }
  });

  it('keeps codes, time and ids, and only existing ones', () => {
    const fields = {
      error: 'invalid_client',
      error_description: 'AADSTS7000215: Invalid client secret provided.\r\nTrace ID: t-1\r\n',
      error_codes: [7000215],
      timestamp: '2026-01-02 03:04:05Z',
      trace_id: 't-1',
      correlation_id: 'c-1',
      error_uri: 'https://login.microsoftonline.com/error?code=7000215',
    };
    const ids = { timestamp: fields.timestamp, traceId: 't-1', correlationId: 'c-1' };
    assert.deepEqual(classify(fields, 401), {
      reason: 'credential_refused',
      error: 'invalid_client',
      description: 'AADSTS7000215: Invalid client secret provided. Trace ID: t-1',
      details: { errorCodes: [7000215], ...ids },
      cooldownMs: 5_000,
    });
    assert.equal('details' in classify({ error: 'invalid_client' }), false);
    assert.equal(classify({ trace_id: 't-1' }).details?.traceId, 't-1');
    assert.deepEqual(classify({ error_codes: [7] }).details?.errorCodes, [7]);
  });

  it('is cut to one line and to length, and is whole at exactly the greatest length', () => {
    const wild = `a\u0000\u001b[31m\r\n\u2028\u202eb${'x'.repeat(5_000)}`;
    const codes = Array.from({ length: 99 }, (_, index) => index);
    const cut = classify({ error_description: wild, trace_id: wild, error_codes: codes });
    assert.match(cut.description, /^a \[31m bx+\.\.\.$/);
    assert.equal(cut.description.length, 2000);
    assert.equal(cut.details?.traceId.length, 100);
    assert.equal(cut.details.errorCodes.length, 20);
    const [text, id] = ['x'.repeat(2_000), 'y'.repeat(100)];
    const whole = classify({ error_description: text, trace_id: id });
    assert.deepEqual([whole.description, whole.details?.traceId], [text, id]);
  });

  it('is classified without throwing, whatever it contains', () => {
    const field = fc.oneof(fc.jsonValue(), fc.constantFrom('invalid_client', 'AADSTS70021: x'));
    const fields = fc.record(
      { error: field, error_description: field, error_codes: field, trace_id: field },
      { requiredKeys: [] },
    );
    fc.assert(
      fc.property(
        fc.integer({ min: 100, max: 599 }),
        fc.oneof(fc.string(), fc.json(), fields),
        (status, body) => {
          const { cooldownMs, description } = classify(body, status);
          assert.ok(cooldownMs > 0 && description.length <= 2000);
          assert.ok(description !== '' && !/[\r\n]/.test(description));
        },
      ),
    );
  });
});

describe('a credential that was sent', () => {
  const secret = 'p~Q8 ca/na+ry';
  const assertion = 'eyJhbGciOiJQUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJlLW9mLXRoZS1hc3NlcnRpb24';
  const fields = ['error', 'error_description', 'timestamp', 'trace_id', 'correlation_id'] as const;
  const withheld = 'Entra ID answered status 400; its text is withheld';
  for (const [name, text] of [
    ['as it is', secret],
    ['encoded', encodeURIComponent(secret)],
    ['as a form field', 'p%7EQ8+ca%2Fna%2Bry'],
    ['broken over lines', 'p~Q8\r\n ca/na\n+ry'],
    ['behind what is cut off', `${'x'.repeat(1_995)}${secret}`],
    ['of an assertion', assertion],
    ['of an assertion’s signature', 'c2lnbmF0dXJlLW9mLXRoZS1hc3NlcnRpb24'],
  ] as const) {
    it(`is not relayed ${name}, in any field`, () => {
      for (const field of fields) {
        const answer = { error_codes: [7000215], [field]: `got ${text}, sorry` };
        assert.deepEqual(classify(answer, 400, undefined, [secret, assertion]), {
          reason: 'credential_refused',
          error: 'invalid_client',
          description: withheld,
          cooldownMs: 5_000,
        });
      }
    });
  }

  it('is not relayed when it is the token of another pod', () => {
    const other = assertion.replace('eyJzdWIiOiJhIn0', 'eyJzdWIiOiJiIn0').slice(0, -9);
    for (const field of fields) {
      const failure = classify({ [field]: `got ${other}` }, 400, undefined, [secret]);
      assert.equal(failure.description, withheld);
      assert.ok(!JSON.stringify(failure).includes(other));
    }
  });

  it('does not hide an answer that does not contain it', () => {
    const answer = { error_description: 'AADSTS7000215: no' };
    const { description } = classify(answer, 400, undefined, [secret, '']);
    assert.equal(description, 'AADSTS7000215: no');
  });
});
