/** A token endpoint over TLS that returns answers set by a test and records its requests. */
import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:https';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import forge from 'node-forge';

export interface Received {
  readonly method: string;
  readonly target: string;
  readonly headers: IncomingMessage['headers'];
  readonly form: URLSearchParams;
}

export type Answer = (response: ServerResponse, received: Received) => void;

export interface TokenServer extends AsyncDisposable {
  readonly port: number;
  readonly authority: string;
  readonly caPem: string;
  readonly received: readonly Received[];
  /** TCP connections so far. */
  readonly connections: number;
  /** The answers to the next requests, in order; the last one repeats. */
  answerWith(...answers: readonly Answer[]): void;
}

export interface TestCertificate {
  readonly certificatePem: string;
  readonly privateKeyPem: string;
  readonly thumbprintSha256: string;
}

export async function openTokenServer(): Promise<TokenServer> {
  const { certificatePem, privateKeyPem } = createCertificate();
  // It offers h2 without supporting it: a client that selects HTTP/2 fails.
  const ALPNProtocols = ['h2', 'http/1.1'];
  const server = createServer({ cert: certificatePem, key: privateKeyPem, ALPNProtocols });
  const received: Received[] = [];
  let connections = 0;
  let answers: readonly Answer[] = [];
  server.on('connection', () => connections++);
  server.on('request', (request: IncomingMessage, response: ServerResponse) => {
    void text(request).then((body) => {
      const { method = '', url = '', headers } = request;
      const seen = { method, target: url, headers, form: new URLSearchParams(body) };
      received.push(seen);
      const [answer, ...later] = answers;
      if (later.length > 0) answers = later;
      if (answer === undefined) response.writeHead(500).end();
      else answer(response, seen);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    port,
    authority: `https://localhost:${port}`,
    caPem: certificatePem,
    received,
    get connections() {
      return connections;
    },
    answerWith(...next) {
      answers = next;
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

export function json(
  status: number,
  body: object,
  headers: Readonly<Record<string, string>> = {},
): Answer {
  return (response) => {
    response.writeHead(status, { 'Content-Type': 'application/json', ...headers });
    response.end(JSON.stringify(body));
  };
}

export function raw(
  status: number,
  body: string,
  headers: Readonly<Record<string, string>> = {},
): Answer {
  return (response) => {
    response.writeHead(status, { 'Content-Type': 'text/html', ...headers }).end(body);
  };
}

/** An unsigned JWT. */
export function jwtOf(claims: object): string {
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  return `${part({ alg: 'RS256', typ: 'JWT' })}.${part(claims)}.c2lnbmF0dXJlLW9mLWEtdG9rZW4`;
}

/** Self-signed, for test servers and for clients. */
export function createCertificate(modulusLength = 2048): TestCertificate {
  const { privateKey: privateKeyPem } = generateKeyPairSync('rsa', {
    modulusLength,
    publicKeyEncoding: { type: 'spki', format: 'pem' },
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
  });
  const key = forge.pki.privateKeyFromPem(privateKeyPem);
  const certificate = forge.pki.createCertificate();
  certificate.publicKey = forge.pki.setRsaPublicKey(key.n, key.e);
  certificate.serialNumber = '01';
  certificate.validity.notBefore = new Date(Date.now() - 3_600_000);
  certificate.validity.notAfter = new Date(Date.now() + 24 * 3_600_000);
  const name = [{ name: 'commonName', value: 'entra.test' }];
  certificate.setSubject(name);
  certificate.setIssuer(name);
  certificate.setExtensions([
    { name: 'basicConstraints', cA: true },
    {
      name: 'subjectAltName',
      altNames: [
        { type: 2, value: 'localhost' },
        { type: 2, value: 'login.entra.test' },
        { type: 7, ip: '127.0.0.1' },
      ],
    },
  ]);
  certificate.sign(key, forge.md.sha256.create());
  const der = forge.asn1.toDer(forge.pki.certificateToAsn1(certificate)).getBytes();
  return {
    certificatePem: forge.pki.certificateToPem(certificate),
    privateKeyPem,
    thumbprintSha256: forge.md.sha256.create().update(der).digest().toHex(),
  };
}
