import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  aadstsCodes,
  classifyEntraError,
  type EntraAnswer,
  type EntraReason,
} from '../../../../src/nmi/sources/entra/aadsts.ts';

interface Row {
  readonly reason: EntraReason;
  readonly codes: readonly number[];
  /** OAuth errors that may be relayed. */
  readonly errors: readonly (string | undefined)[];
  readonly cooldownMs: number;
}

const table: readonly Row[] = [
  {
    reason: 'resource_refused',
    codes: [500011, 50001, 500014, 650057, 70011, 28002, 700022, 700023, 90009, 901002],
    errors: ['invalid_resource', 'invalid_scope'],
    cooldownMs: 45_000,
  },
  {
    reason: 'identity_refused',
    codes: [700016, 70001, 7000112, 7000229, 90002, 90038, 900023, 900382, 900432],
    errors: ['unauthorized_client', 'invalid_request'],
    cooldownMs: 45_000,
  },
  {
    reason: 'credential_refused',
    codes: [
      7000215, 7000222, 70002, 7000218, 700027, 700030, 50012, 700024, 50013, 700229, 700231,
      700236,
    ],
    errors: ['invalid_client'],
    cooldownMs: 5_000,
  },
  {
    reason: 'federation_refused',
    codes: [70021, 70025, 700211, 700212, 700213, 7002138],
    errors: ['invalid_client'],
    cooldownMs: 250,
  },
  {
    reason: 'policy_refused',
    codes: [53003, 53004, 53011, 530032, 530034, 530035, 50005, 65001],
    errors: ['access_denied'],
    cooldownMs: 45_000,
  },
  {
    reason: 'upstream_throttled',
    codes: [50196, 90055],
    errors: [undefined],
    cooldownMs: 10_000,
  },
  {
    reason: 'upstream_down',
    codes: [90033, 90006, 90012, 90024, 90090, 90091, 50000, 90061],
    errors: [undefined],
    cooldownMs: 250,
  },
];

function answerOf(fields: object, status = 400, retryAfterS?: number): EntraAnswer {
  return { status, body: JSON.stringify(fields), retryAfterS };
}

describe('the table of codes', () => {
  it('has only codes that are tested here', () => {
    const tested = table.flatMap(({ codes }) => codes);
    assert.deepEqual([...aadstsCodes.keys()].sort(), [...tested].sort());
  });

  for (const { reason, codes, errors, cooldownMs } of table) {
    for (const code of codes) {
      it(`has ${code} as ${reason}`, () => {
        const description = `AADSTS${code}: Something. Trace ID: t`;
        const withCodes = answerOf({ error_codes: [code], error_description: 'text' });
        const withText = answerOf({ error_description: description });
        for (const answer of [withCodes, withText]) {
          const failure = classifyEntraError(answer, []);
          assert.equal(failure.reason, reason);
          assert.equal(failure.cooldownMs, cooldownMs);
          assert.ok(errors.includes(failure.error), String(failure.error));
        }
        assert.equal(classifyEntraError(withText, []).description, description);
      });
    }
  }
});

describe('an answer of Entra ID', () => {
  it('keeps its own error if that fits the reason, and otherwise gets the error of the code', () => {
    const told = (code: number, error: string): string | undefined =>
      classifyEntraError(answerOf({ error, error_codes: [code] }), []).error;
    assert.equal(told(500011, 'invalid_resource'), 'invalid_resource');
    assert.equal(told(500011, 'invalid_scope'), 'invalid_scope');
    assert.equal(told(500011, 'invalid_request'), 'invalid_resource');
    assert.equal(told(70011, 'invalid_grant'), 'invalid_scope');
    assert.equal(told(90002, 'invalid_request'), 'invalid_request');
    assert.equal(told(700016, 'unauthorized_client'), 'unauthorized_client');
    assert.equal(told(7000215, 'unauthorized_client'), 'invalid_client');
    assert.equal(told(53003, 'invalid_grant'), 'access_denied');
    assert.equal(told(70021, 'invalid_request'), 'invalid_request');
    assert.equal(told(90033, 'server_error'), undefined);
  });

  it('is classified by the first known code', () => {
    const failure = classifyEntraError(answerOf({ error_codes: [1, 'x', 500011, 7000215] }), []);
    assert.equal(failure.reason, 'resource_refused');
    const both = { error_codes: [7], error_description: 'AADSTS8: see AADSTS700016: no' };
    assert.equal(classifyEntraError(answerOf(both), []).reason, 'identity_refused');
  });

  const byError: readonly (readonly [error: string, EntraReason, relayed: string | undefined])[] = [
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
  ];
  for (const [error, reason, relayed] of byError) {
    it(`with an unknown code and the error "${error}" is ${reason}`, () => {
      for (const status of [400, 401]) {
        const failure = classifyEntraError(answerOf({ error, error_codes: [123] }, status), []);
        assert.equal(failure.reason, reason);
        assert.equal(failure.error, relayed);
      }
    });
  }

  const byStatus: readonly (readonly [status: number, body: string, EntraReason])[] = [
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
  ];
  for (const [status, body, reason] of byStatus) {
    it(`of ${status} ${body} is ${reason}`, () => {
      assert.equal(classifyEntraError({ status, body, retryAfterS: undefined }, []).reason, reason);
    });
  }

  it('has its status and its error as the description where it has no text', () => {
    for (const [body, description] of [
      ['{"error":"invalid_grant"}', 'Entra ID answered status 400 (invalid_grant)'],
      ['{"error":"<b>"}', 'Entra ID answered status 400'],
      ['<html>', 'Entra ID answered status 400 without JSON'],
    ] as const) {
      const failure = classifyEntraError({ status: 400, body, retryAfterS: undefined }, []);
      assert.equal(failure.description, description);
    }
  });

  it('contains how long to wait, within limits', () => {
    const waits = (status: number, retryAfterS?: number): unknown => {
      const failure = classifyEntraError(answerOf({}, status, retryAfterS), []);
      return [failure.retryAfterS, failure.cooldownMs];
    };
    assert.deepEqual(waits(429, 7), [7, 7_000]);
    assert.deepEqual(waits(429), [10, 10_000]);
    assert.deepEqual(waits(429, 0), [1, 1_000]);
    assert.deepEqual(waits(429, 3600), [3600, 3_600_000]);
    assert.deepEqual(waits(503, 120), [10, 1_000]);
    assert.deepEqual(waits(503, 0), [1, 1_000]);
    assert.deepEqual(waits(503), [undefined, 250]);
    // Never in a refusal.
    assert.deepEqual(waits(404, 30), [undefined, 5_000]);
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
    assert.deepEqual(classifyEntraError(answerOf(fields, 401), []), {
      reason: 'credential_refused',
      error: 'invalid_client',
      description: 'AADSTS7000215: Invalid client secret provided. Trace ID: t-1',
      details: {
        errorCodes: [7000215],
        timestamp: '2026-01-02 03:04:05Z',
        traceId: 't-1',
        correlationId: 'c-1',
      },
      cooldownMs: 5_000,
    });
    assert.equal('details' in classifyEntraError(answerOf({ error: 'invalid_client' }), []), false);
    const only = (given: object) => classifyEntraError(answerOf(given), []).details;
    assert.equal(only({ trace_id: 't-1' })?.traceId, 't-1');
    assert.deepEqual(only({ error_codes: [7] })?.errorCodes, [7]);
  });

  it('is cut to length and to one line', () => {
    const wild = `a\u0000\u001b[31m\r\n\u2028\u202eb${'x'.repeat(5_000)}`;
    const failure = classifyEntraError(
      answerOf({
        error_description: wild,
        trace_id: wild,
        error_codes: Array.from({ length: 99 }, (_, index) => index),
      }),
      [],
    );
    assert.match(failure.description, /^a \[31m bx+\.\.\.$/);
    assert.equal(failure.description.length, 2000);
    assert.equal(failure.details?.traceId.length, 100);
    assert.equal(failure.details?.errorCodes.length, 20);
  });

  it('of exactly the greatest length is kept whole', () => {
    const [text, id] = ['x'.repeat(2_000), 'y'.repeat(100)];
    const failure = classifyEntraError(answerOf({ error_description: text, trace_id: id }), []);
    assert.deepEqual([failure.description, failure.details?.traceId], [text, id]);
  });

  it('is classified without throwing, whatever it contains', () => {
    const field = fc.oneof(fc.jsonValue(), fc.constantFrom('invalid_client', 'AADSTS70021: x'));
    const fields = fc.record(
      { error: field, error_description: field, error_codes: field, trace_id: field },
      { requiredKeys: [] },
    );
    const body = fc.oneof(
      fc.string(),
      fc.json(),
      fields.map((value) => JSON.stringify(value)),
    );
    fc.assert(
      fc.property(fc.integer({ min: 100, max: 599 }), body, (status, text) => {
        const failure = classifyEntraError({ status, body: text, retryAfterS: undefined }, []);
        assert.ok(failure.cooldownMs > 0 && failure.description.length <= 2000);
        assert.ok(failure.description !== '' && !/[\r\n]/.test(failure.description));
      }),
    );
  });
});

describe('a credential that was sent', () => {
  const secret = 'p~Q8 ca/na+ry';
  const assertion = 'eyJhbGciOiJQUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJlLW9mLXRoZS1hc3NlcnRpb24';
  const fields = ['error', 'error_description', 'timestamp', 'trace_id', 'correlation_id'] as const;
  const spellings: readonly (readonly [name: string, text: string])[] = [
    ['as it is', secret],
    ['encoded', encodeURIComponent(secret)],
    ['as a form field', 'p%7EQ8+ca%2Fna%2Bry'],
    ['broken over lines', 'p~Q8\r\n ca/na\n+ry'],
    ['behind what is cut off', `${'x'.repeat(1_995)}${secret}`],
    ['of an assertion', assertion],
    ['of an assertion’s signature', 'c2lnbmF0dXJlLW9mLXRoZS1hc3NlcnRpb24'],
  ];
  for (const [name, text] of spellings) {
    it(`is not relayed ${name}, in any field`, () => {
      for (const field of fields) {
        const answer = answerOf({ error_codes: [7000215], [field]: `got ${text}, sorry` });
        const failure = classifyEntraError(answer, [secret, assertion]);
        assert.deepEqual(failure, {
          reason: 'credential_refused',
          error: 'invalid_client',
          description: 'Entra ID answered status 400; its text is withheld',
          cooldownMs: 5_000,
        });
      }
    });
  }

  it('is not relayed when it is the token of another pod', () => {
    const other = assertion.replace('eyJzdWIiOiJhIn0', 'eyJzdWIiOiJiIn0').slice(0, -9);
    for (const field of fields) {
      const failure = classifyEntraError(answerOf({ [field]: `got ${other}` }), [secret]);
      assert.equal(failure.description, 'Entra ID answered status 400; its text is withheld');
      assert.ok(!JSON.stringify(failure).includes(other));
    }
  });

  it('does not hide an answer that does not contain it', () => {
    const answer = answerOf({ error_description: 'AADSTS7000215: no' });
    assert.equal(classifyEntraError(answer, [secret, '']).description, 'AADSTS7000215: no');
  });
});
