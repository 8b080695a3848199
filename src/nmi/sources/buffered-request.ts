/** By undici's dispatch events: `request` makes a stream, an iterator and a signal of each. */
import type { Dispatcher } from 'undici';
import type { Clock } from '../../base/time/clock.ts';

export interface BufferedResponse {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}

export interface BufferedResponseBounds {
  readonly clock: Clock;
  /** From now until the end of the body, including the wait for a connection. */
  readonly timeoutMs: number;
  readonly maxBodyBytes: number;
}

/** Rejects with undici's error, or with an error that names the exceeded limit. */
export function sendBuffered(
  dispatcher: Dispatcher,
  request: Dispatcher.DispatchOptions,
  { clock, timeoutMs, maxBodyBytes }: BufferedResponseBounds,
): Promise<BufferedResponse> {
  const { promise, resolve, reject } = Promise.withResolvers<BufferedResponse>();
  const chunks: Buffer[] = [];
  let [status, bytes] = [0, 0];
  let headers: BufferedResponse['headers'] = {};
  let controller: Dispatcher.DispatchController | undefined;
  let brokenBy: Error | undefined;

  /** Closes the connection too, so that the rest of this answer is not read as another one. */
  const breakOff = (error: Error): void => {
    brokenBy = error;
    reject(error);
    controller?.abort(error);
  };
  const disarm = clock.schedule(timeoutMs, () => {
    breakOff(new DOMException('no whole answer in time', 'TimeoutError'));
  });
  dispatcher.dispatch(request, {
    onRequestStart(started) {
      controller = started;
      // The deadline may have passed before a connection was available.
      if (brokenBy !== undefined) started.abort(brokenBy);
    },
    onResponseStart(_, statusCode, fields) {
      status = statusCode;
      headers = fields;
    },
    onResponseData(_, chunk) {
      bytes += chunk.byteLength;
      if (bytes > maxBodyBytes) breakOff(new RangeError('upstream body too large'));
      else chunks.push(chunk);
    },
    onResponseEnd() {
      disarm();
      resolve({ status, headers, body: Buffer.concat(chunks).toString('utf8') });
    },
    onResponseError(_, error) {
      disarm();
      reject(error);
    },
  });
  return promise;
}
