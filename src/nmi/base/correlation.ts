/**
 * Ids that a client gave its request, to match its own log or trace with the agent's. Only values
 * in the two standard formats count: a caller may send anything there, a secret included.
 */
import { isGuid } from '../../cache/index/identifiers.ts';

export interface Correlation {
  /** `x-ms-client-request-id`: a GUID in lower case. */
  readonly clientRequestId: string | undefined;
  /** The trace id of `traceparent` (W3C Trace Context): 32 hex digits. */
  readonly traceId: string | undefined;
}

/** The bytes of a request, and where the values of its headers with ids begin and end. */
export interface IdHeaders {
  readonly bytes: Buffer;
  readonly ids: readonly {
    /** In lower case. */
    readonly name: string;
    readonly from: number;
    readonly to: number;
  }[];
}

export interface ParsedHead {
  /** Every value of a header, in order. */
  headerValues(lowerCaseName: string): readonly string[];
}

const requestIdHeader = 'x-ms-client-request-id';
const traceHeader = 'traceparent';

export function correlationOf(head: ParsedHead): Correlation {
  return read((name) => head.headerValues(name)[0]);
}

/** The same for a request without a parsed head. */
export function correlationInBytes({ bytes, ids }: IdHeaders): Correlation {
  return read((wanted) => {
    const id = ids.find(({ name }) => name === wanted);
    return id === undefined ? undefined : bytes.toString('latin1', id.from, id.to);
  });
}

function read(valueOf: (name: string) => string | undefined): Correlation {
  const clientRequestId = valueOf(requestIdHeader)?.trim().toLowerCase();
  const trace = /^[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}$/.exec(
    valueOf(traceHeader)?.trim() ?? '',
  );
  return {
    clientRequestId: isGuid(clientRequestId ?? '') ? clientRequestId : undefined,
    traceId: trace?.[1],
  };
}
