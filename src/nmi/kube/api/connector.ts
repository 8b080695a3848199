/**
 * How connections to the API server are made: TCP with a deadline of its own, then TLS.
 *
 * 1. A SYN is answered by the server's kernel, however busy the server is, so one that is not
 *    answered soon is lost or blocked. Waiting for the kernel's own repetitions (after 1, 3 and
 *    7 s) would keep a node blind for seconds after a blocked network came back; a new attempt is
 *    what a repetition would have been.
 * 2. TLS is answered by the server itself, which may be overloaded, and gets much longer: clients
 *    that give up on a slow handshake only to begin another keep the server slow.
 */
import { connect as connectTcp, type Socket } from 'node:net';
import { buildConnector } from 'undici';
import type { Clock } from '../../../cache/clock.ts';
import type { AccessTls } from './credentials.ts';
import { KubeError } from './kube-error.ts';

export interface ConnectorOptions {
  readonly clock: Clock;
  readonly tls: AccessTls;
  /** For each address that is tried. */
  readonly tcpTimeoutMs: number;
  /** For the look-up of the name, and again for TLS. */
  readonly connectTimeoutMs: number;
}

/**
 * The kernel then finds a peer that vanished without a word in 20 s: 10 probes, 1 s apart, are
 * libuv's. Load balancers see traffic more often than their usual idle limits of minutes.
 */
const keepAliveIdleMs = 10_000;

export function createConnector(options: ConnectorOptions): buildConnector.connector {
  const { clock, tcpTimeoutMs, connectTimeoutMs } = options;
  const secure = buildConnector({
    ...options.tls,
    timeout: connectTimeoutMs,
    // A watch wants a socket of its own that dies with it.
    allowH2: false,
    keepAlive: true,
    keepAliveInitialDelay: keepAliveIdleMs,
  });

  return (target, callback) => {
    const isTls = target.protocol === 'https:';
    const tcp = connectTcp({
      host: target.hostname.replace(/^\[|\]$/g, ''),
      port: Number(target.port === '' ? (isTls ? 443 : 80) : target.port),
      keepAlive: true,
      keepAliveInitialDelay: keepAliveIdleMs,
      noDelay: true,
    });
    let disarm = endAfter(tcp, connectTimeoutMs, 'the name of the API server was not resolved');
    tcp.on('connectionAttempt', () => {
      disarm();
      disarm = endAfter(tcp, tcpTimeoutMs, 'the API server did not answer');
    });
    const onError = (error: Error): void => {
      disarm();
      callback(error, null);
    };
    tcp.once('error', onError);
    tcp.once('connect', () => {
      disarm();
      tcp.off('error', onError);
      if (isTls) secure({ ...target, httpSocket: tcp }, callback);
      else callback(null, tcp);
    });
  };

  function endAfter(tcp: Socket, ms: number, what: string): () => void {
    return clock.schedule(ms, () => {
      tcp.destroy(new KubeError('TIMEOUT', `${what} within ${ms} ms`));
    });
  }
}
