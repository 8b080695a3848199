/** Error answers of the Kubernetes API, with the real server's texts. Pure. */
import type { JsonRecord } from '../../../src/base/json-value.ts';
import { qualifiedName, type FakeResource } from './resources.ts';

export interface Refusal {
  readonly status: number;
  /** Absent from the few answers without a reason. */
  readonly reason?: string;
  readonly message: string;
  readonly details?: JsonRecord;
}

export const notAllowed: Refusal = {
  status: 405,
  reason: 'MethodNotAllowed',
  message: 'the server does not allow this method on the requested resource',
  details: {},
};

export const expiredContinue: Refusal = {
  status: 410,
  reason: 'Expired',
  message:
    'The provided continue parameter is too old to display a consistent list result. You can ' +
    'start a new list without the continue parameter.',
};

export function badRequest(message: string): Refusal {
  return { status: 400, reason: 'BadRequest', message };
}

/** By RBAC, for an action on no object that exists. */
export function forbidden(user: string, verb: string, resource: string, group: string): Refusal {
  const what = `cannot ${verb} resource "${resource}" in API group "${group}" at the cluster scope`;
  return { status: 403, reason: 'Forbidden', message: `forbidden: User "${user}" ${what}` };
}

export function notFound(resource: FakeResource, name: string): Refusal {
  const message = `${qualifiedName(resource)} "${name}" not found`;
  return { status: 404, reason: 'NotFound', message, details: detailsOf(resource, name) };
}

export function alreadyExists(resource: FakeResource, name: string): Refusal {
  const message = `${qualifiedName(resource)} "${name}" already exists`;
  return { status: 409, reason: 'AlreadyExists', message, details: detailsOf(resource, name) };
}

export function conflict(resource: FakeResource, name: string): Refusal {
  const message =
    `Operation cannot be fulfilled on ${qualifiedName(resource)} "${name}": the object has been ` +
    'modified; please apply your changes to the latest version and try again';
  return { status: 409, reason: 'Conflict', message, details: detailsOf(resource, name) };
}

export function unrecognized(kind: string, why: string): Refusal {
  return badRequest(`the object provided is unrecognized (must be of type ${kind}): ${why}`);
}

export function wrongPatchType(): Refusal {
  const message = '415: Unsupported Media Type';
  return { status: 415, reason: 'UnsupportedMediaType', message, details: {} };
}

/** Send with `Retry-After: 1`. */
export function tooLargeVersion(asked: string, current: number): Refusal {
  return {
    status: 504,
    reason: 'Timeout',
    message: `Timeout: Too large resource version: ${asked}, current: ${current}`,
    details: {
      causes: [{ reason: 'ResourceVersionTooLarge', message: 'Too large resource version' }],
      retryAfterSeconds: 1,
    },
  };
}

/** An invalid field of an object. */
export interface FieldProblem {
  readonly field: string;
  readonly value: unknown;
  readonly problem: string;
}

/** `type` is the kind with its group, as in `TokenRequest.authentication.k8s.io`. */
export function invalidField(
  type: { readonly kind: string; readonly group: string },
  name: string,
  { field, value, problem }: FieldProblem,
): Refusal {
  const message = `Invalid value: ${JSON.stringify(value)}: ${problem}`;
  return {
    status: 422,
    reason: 'Invalid',
    message: `${type.kind}.${type.group} "${name}" is invalid: ${field}: ${message}`,
    details: {
      ...(name === '' ? {} : { name }),
      ...type,
      causes: [{ reason: 'FieldValueInvalid', message, field }],
    },
  };
}

const reasonsByStatus: ReadonlyMap<number, string> = new Map([
  [400, 'BadRequest'],
  [401, 'Unauthorized'],
  [403, 'Forbidden'],
  [404, 'NotFound'],
  [409, 'Conflict'],
  [410, 'Expired'],
  [429, 'TooManyRequests'],
  [500, 'InternalError'],
  [503, 'ServiceUnavailable'],
  [504, 'Timeout'],
]);

/** Any other failure. */
export function failure(status: number, message: string): Refusal {
  const reason = reasonsByStatus.get(status);
  return { status, message, ...(reason === undefined ? {} : { reason }) };
}

/** The `Status` object for the response body. */
export function renderRefusal({ status, reason, message, details }: Refusal): JsonRecord {
  return {
    kind: 'Status',
    apiVersion: 'v1',
    metadata: {},
    status: 'Failure',
    message,
    ...(reason === undefined ? {} : { reason }),
    ...(details === undefined ? {} : { details }),
    code: status,
  };
}

function detailsOf({ group, plural }: FakeResource, name: string): JsonRecord {
  return { name, ...(group === '' ? {} : { group }), kind: plural };
}
