/** The names in the certificate that the API server presents. */
import { TLSSocket } from 'node:tls';
import type { Clock } from '../../../base/time/clock.ts';
import { connectTimeouts, type ApiServer } from './client.ts';
import { createConnector } from './connector.ts';
import { KubeError } from './kube-error.ts';

/** Host names only. Rejects if the certificate is not trusted, and for a server without TLS. */
export function readServerNames(
  { origin, tls }: ApiServer,
  clock: Clock,
): Promise<readonly string[]> {
  const { hostname, host, protocol, port } = new URL(origin);
  const connect = createConnector({
    clock,
    tls: { ...tls, rejectUnauthorized: true },
    ...connectTimeouts,
  });
  return new Promise((resolve, reject) => {
    connect({ hostname, host, protocol, port }, (error, socket) => {
      const certificate = socket instanceof TLSSocket ? socket.getPeerX509Certificate() : undefined;
      socket?.destroy();
      if (certificate === undefined) {
        reject(error ?? new KubeError('CONFIG', 'the API server presents no certificate'));
        return;
      }
      const names = (certificate.subjectAltName ?? '').matchAll(/(?:^|, )DNS:([^,"]+)/g);
      resolve(Array.from(names, ([, name = '']) => name));
    });
  });
}
