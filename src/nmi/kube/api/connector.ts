/**
 * Connects to the API server: TCP with its own timeout, then TLS.
 *
 * 1. The server's kernel answers a SYN even if the server is busy, so a SYN without a prompt answer
 *    is lost or blocked. Waiting for the kernel's retransmissions (after 1, 3 and 7 s) would delay
 *    a node by seconds after the end of a network outage; a new attempt replaces them.
 * 2. The server itself answers TLS and may be overloaded, so TLS gets a much longer timeout:
 *    clients that abort a slow handshake and begin another keep the server slow.
 */
import { connect as connectTcp, type Socket } from 'node:net';
import { buildConnector } from 'undici';
import type { Clock } from '../../../base/time/clock.ts';
import type { AccessTls } from './credentials.ts';
import { KubeError } from './kube-error.ts';

export interface ConnectorOptions {
  readonly clock: Clock;
  readonly tls: AccessTls;
  /** For each address that is tried. */
  readonly tcpTimeoutMs: number;
  /** For the name lookup, and again for TLS. */
  readonly connectTimeoutMs: number;
}

/**
 * With it the kernel detects a vanished peer in 20 s (libuv sends 10 probes, 1 s apart), and the
 * traffic keeps load balancers from closing an idle connection after minutes.
 */
const keepAliveIdleMs = 10_000;

export function createConnector(options: ConnectorOptions): buildConnector.connector {
  const { clock, tcpTimeoutMs, connectTimeoutMs } = options;
  const secure = buildConnector({
    ...options.tls,
    timeout: connectTimeoutMs,
    // A watch needs its own socket, which is closed with it.
    allowH2: false,
    keepAlive: true,
    keepAliveInitialDelay: keepAliveIdleMs,
  });

  return (target, callback) => {
    const isTls = target.protocol === 'https:';
    // An IPv6 address in brackets is in no certificate.
    const hostname = target.hostname.replace(/^\[|\]$/g, '');
    const tcp = connectTcp({
      host: hostname,
      port: Number(target.port === '' ? (isTls ? 443 : 80) : target.port),
      keepAlive: true,
      keepAliveInitialDelay: keepAliveIdleMs,
      // No mutation: only a real network shows the delay.
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
      if (isTls) secure({ ...target, hostname, httpSocket: tcp }, callback);
      else callback(null, tcp);
    });
  };

  function endAfter(tcp: Socket, ms: number, what: string): () => void {
    return clock.schedule(ms, () => {
      tcp.destroy(new KubeError('TIMEOUT', `${what} within ${ms} ms`));
    });
  }
}
