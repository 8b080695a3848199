/**
 * Exchanges a client credential for a token. MSAL builds the request, signatures included, but
 * never gets the answer: it hides `refresh_in`, `Retry-After` and most error codes. A fresh
 * application per fetch (1 to 2 ms) keeps no credential, and no throttle of its own.
 */
import type * as Msal from '@azure/msal-node';
import type { Clock } from '../../../base/time/clock.ts';
import { parseRecord } from '../../../base/json-value.ts';
import { networkCode } from '../../../base/network-code.ts';
import { failed, type SourceFailure, type SourceResult, type TokenRequest } from '../source.ts';
import { entraDown, entraId, classifyEntraError, type EntraAnswer } from './aadsts.ts';
import type { EntraIdentity } from './entra-identity.ts';
import { parseEntraToken } from '../token-fields.ts';
import { EntraNetworkError, type EntraNetwork } from './network.ts';
import type { ClientCredential } from './credentials/descriptor.ts';

/** Its correlation id is sent as `client-request-id`. */
export interface ExchangeRequest extends Pick<
  TokenRequest<EntraIdentity>,
  'identity' | 'resource' | 'correlationId'
> {
  readonly clientCredential: ClientCredential;
}

/** Rejects only with the signal's reason. */
export type Exchange = (request: ExchangeRequest, signal: AbortSignal) => Promise<SourceResult>;

export interface ExchangeOptions {
  readonly network: Pick<EntraNetwork, 'postForm'>;
  readonly clock: Clock;
}

/** What one fetch sent and received; MSAL exposes neither. */
interface Exchanged {
  form: string | undefined;
  answer: EntraAnswer | undefined;
  error: unknown;
}

export function createExchange({ network, clock }: ExchangeOptions): Exchange {
  return async (request, signal) => {
    const exchanged: Exchanged = { form: undefined, answer: undefined, error: undefined };
    // Loading takes 30 to 65 ms of one core and 8 MB, only in agents with such identities.
    const msal = await import('@azure/msal-node');
    const { promise: heard, resolve: onHeard } = Promise.withResolvers<undefined>();
    const client = createNetworkClient(tokenEndpointOf(request), async (url, form, headers) => {
      exchanged.form = form;
      try {
        exchanged.answer = await network.postForm(url, form, headers, signal);
      } catch (error) {
        exchanged.error = error;
      }
      onHeard(undefined);
    });
    const failure = await Promise.race([send(msal, request, client), heard]);
    signal.throwIfAborted();
    const { answer, error, form } = exchanged;
    if (answer?.status === 200) {
      const { identity, resource } = request;
      const requested = { clientId: identity.clientId, resource };
      const parsed = parseEntraToken(answer.body, requested, clock.wallMs(), answer.clockAheadMs);
      if (parsed.ok) return parsed;
      const isRefusal = parseRecord(answer.body)?.['error'] !== undefined;
      const { server = entraId } = answer;
      if (!isRefusal) return failed(entraDown(`${server} answered ${parsed.problem}`));
    }
    if (answer !== undefined) return failed(classifyEntraError(answer, secretsIn(form)));
    if (error instanceof EntraNetworkError)
      return failed(error.failure ?? entraDown(error.message));
    return failed(unsent(failure));
  };
}

/** @returns MSAL's error if nothing was sent; else the promise does not settle. */
async function send(
  msal: typeof Msal,
  request: ExchangeRequest,
  networkClient: Msal.INetworkModule,
): Promise<unknown> {
  const { agentIdentity } = request.identity;
  try {
    const application = createApplication(msal, request, networkClient);
    await application.acquireTokenByClientCredential({
      scopes: [scopeOf(request.resource)],
      skipCache: true,
      correlationId: request.correlationId,
      ...(agentIdentity === undefined ? {} : { fmiPath: agentIdentity }),
    });
    return undefined;
  } catch (error) {
    return error;
  }
}

function createApplication(
  { ConfidentialClientApplication, LogLevel }: typeof Msal,
  request: ExchangeRequest,
  networkClient: Msal.INetworkModule,
): Msal.ConfidentialClientApplication {
  const { authority, clientId } = request.identity;
  const base = baseOf(request);
  return new ConfidentialClientApplication({
    auth: {
      clientId,
      authority: base,
      // The certificate chain is sent too: applications may trust an issuer instead.
      ...request.clientCredential,
      // Both are needed; otherwise MSAL requests this information over the network.
      knownAuthorities: [new URL(authority).host],
      authorityMetadata: JSON.stringify({
        issuer: `${base}/v2.0`,
        authorization_endpoint: `${base}/oauth2/v2.0/authorize`,
        token_endpoint: tokenEndpointOf(request),
        jwks_uri: `${base}/discovery/v2.0/keys`,
      }),
    },
    system: {
      networkClient,
      disableInternalRetries: true,
      loggerOptions: {
        loggerCallback: () => undefined,
        logLevel: LogLevel.Error,
        piiLoggingEnabled: false,
      },
    },
  });
}

/**
 * The network for MSAL, which never gets an answer: it would copy tokens into a store; a 429, a 5xx
 * or a `Retry-After` would arm its throttle, and a body that is not an object would break it.
 * Nothing references the waiting MSAL, so it is garbage-collected.
 */
function createNetworkClient(
  endpoint: string,
  post: (url: string, form: string, headers: Readonly<Record<string, string>>) => Promise<void>,
): Msal.INetworkModule {
  return {
    sendGetRequestAsync: () => Promise.reject(new TypeError('there is nothing to discover')),
    async sendPostRequestAsync(url, { headers = {}, body = '' } = {}) {
      if (url.split('?')[0] !== endpoint) throw new TypeError('this is not the token endpoint');
      await post(url, body, headers);
      return new Promise<never>(() => undefined);
    },
  };
}

/**
 * Entra ID takes the part before the last slash of a scope as the audience, so
 * `https://management.azure.com/` becomes `https://management.azure.com//.default`.
 */
export function scopeOf(resource: string): string {
  return resource.endsWith('/.default') ? resource : `${resource}/.default`;
}

function baseOf({ identity }: ExchangeRequest): string {
  return `${identity.authority}/${encodeURIComponent(identity.tenantId)}`;
}

function tokenEndpointOf(request: ExchangeRequest): string {
  return `${baseOf(request)}/oauth2/v2.0/token`;
}

function secretsIn(form: string | undefined): readonly string[] {
  const fields = new URLSearchParams(form);
  return ['client_secret', 'client_assertion'].flatMap((name) => fields.getAll(name));
}

/** Nothing was sent: the credential is unsuitable, for example because its key is weak. */
function unsent(error: unknown): SourceFailure {
  const word =
    error instanceof Error && 'errorCode' in error ? String(error.errorCode) : networkCode(error);
  return {
    reason: 'credential_invalid',
    error: 'invalid_client',
    description: `the credential cannot be used for a request to Entra ID (${word})`,
    cooldownMs: 5_000,
  };
}
