/**
 * Entra ID's refusals, as data: status, OAuth code and text of each AADSTS number that the lab can
 * return. Codes without a known real body have a likely status and a short text.
 */

interface Refusal {
  readonly status: number;
  readonly error: string;
  /** `{name}` is replaced by a detail of the request. */
  readonly text: string;
  readonly suberror?: string;
}

function refusal(status: number, error: string, text: string, suberror?: string): Refusal {
  return { status, error, text, ...(suberror === undefined ? {} : { suberror }) };
}

const federationHelp = 'https://learn.microsoft.com/entra/workload-id/workload-identity-federation';
const wrongTenant =
  'This can happen if the application has not been installed by the administrator of the tenant or ' +
  'consented to by any user in the tenant. You may have sent your authentication request to the ' +
  'wrong tenant.';
const blocked =
  'Access has been blocked by Conditional Access policies. The access policy does not allow token issuance.';
const busy = 'temporarily_unavailable';

const refusals = {
  // The request.
  900561: refusal(
    400,
    'invalid_request',
    'The endpoint only accepts POST requests. Received a {method} request.',
  ),
  900144: refusal(
    400,
    'invalid_request',
    "The request body must contain the following parameter: '{parameter}'.",
  ),
  901002: refusal(400, 'invalid_request', "The 'resource' request parameter is not supported."),
  90009: refusal(
    400,
    'invalid_request',
    'Application is requesting a token for itself. This scenario is supported only if resource is specified using the GUID based App Identifier.',
  ),
  70003: refusal(
    400,
    'unsupported_grant_type',
    "The app requested an unsupported grant type '{grantType}'.",
  ),
  // Resource and scope.
  500011: refusal(
    400,
    'invalid_resource',
    `The resource principal named {resource} was not found in the tenant named {tenantId}. ${wrongTenant}`,
  ),
  50001: refusal(
    400,
    'invalid_resource',
    'The resource principal named {resource} was not found in the tenant named {tenantId}.',
  ),
  500014: refusal(
    400,
    'invalid_resource',
    "The service principal for resource '{resource}' is disabled.",
  ),
  650057: refusal(
    400,
    'invalid_resource',
    "Invalid resource. The client has requested access to a resource which is not listed in the requested permissions in the client's application registration.",
  ),
  70011: refusal(
    400,
    'invalid_scope',
    "The provided request must include a 'scope' input parameter. The provided value for the input parameter 'scope' is not valid. The scope {scope} is not valid.",
  ),
  1002012: refusal(
    400,
    'invalid_scope',
    'The provided value for scope {scope} is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI).',
  ),
  28002: refusal(
    400,
    'invalid_scope',
    'Provided value for the input parameter scope {scope} is not valid when requesting an access token.',
  ),
  700022: refusal(
    400,
    'invalid_scope',
    'The provided value for the input parameter scope is not valid because it contains more than one resource.',
  ),
  // Application and tenant.
  700016: refusal(
    400,
    'unauthorized_client',
    `Application with identifier '{clientId}' was not found in the directory '{tenantId}'. ${wrongTenant}`,
  ),
  70001: refusal(
    400,
    'unauthorized_client',
    "Application with identifier '{clientId}' was not found in the directory '{tenantId}'.",
  ),
  7000112: refusal(400, 'unauthorized_client', "Application '{clientId}' is disabled."),
  90002: refusal(
    400,
    'invalid_request',
    "Tenant '{tenantId}' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud. Check with your subscription administrator, this may happen if there are no active subscriptions for the tenant.",
  ),
  90038: refusal(
    400,
    'invalid_request',
    "Tenant '{tenantId}' request is being redirected to the National Cloud.",
  ),
  900382: refusal(
    400,
    'invalid_request',
    'Confidential Client is not supported in Cross Cloud request.',
  ),
  900432: refusal(
    400,
    'invalid_request',
    'Confidential Client is not supported in Cross Cloud request.',
  ),
  // Secret and certificate.
  7000215: refusal(
    401,
    'invalid_client',
    "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '{clientId}'.",
  ),
  7000222: refusal(
    401,
    'invalid_client',
    "The provided client secret keys for app '{clientId}' are expired. Visit the Azure portal to create new keys for your app: https://aka.ms/NewClientSecret, or consider using certificate credentials for added security: https://aka.ms/certCreds.",
  ),
  7000218: refusal(
    401,
    'invalid_client',
    "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.",
  ),
  70002: refusal(401, 'invalid_client', 'Error validating credentials.'),
  700021: refusal(
    401,
    'invalid_client',
    "Client assertion application identifier doesn't match 'client_id' parameter.",
  ),
  700023: refusal(
    401,
    'invalid_client',
    'Client assertion audience claim does not match Realm issuer.',
  ),
  700024: refusal(
    401,
    'invalid_client',
    'Client assertion is not within its valid time range. Current time: {now}, assertion valid from {validFrom}, expiry time of assertion {validTo}.',
  ),
  700027: refusal(
    401,
    'invalid_client',
    "The certificate with identifier used to sign the client assertion is not registered on application. [Reason - {reason}, Thumbprint of key used by client: '{thumbprint}']",
  ),
  700030: refusal(
    401,
    'invalid_client',
    "Invalid certificate - subject name in certificate isn't authorized.",
  ),
  50012: refusal(401, 'invalid_client', 'Client assertion contains an invalid signature.'),
  50013: refusal(
    401,
    'invalid_client',
    'Assertion failed signature validation. [Reason - The provided signature value did not match the expected signature value.]',
  ),
  50027: refusal(400, 'invalid_request', 'JWT token is invalid or malformed.'),
  700229: refusal(
    401,
    'invalid_client',
    'Only app tokens can be used as Federated Identity Credentials for AADI issuer.',
  ),
  700231: refusal(
    401,
    'invalid_client',
    'Token obtained using another federated identity credential may not be used as federated identity credential.',
  ),
  700236: refusal(
    401,
    'invalid_client',
    "Entra ID tokens issued by issuer '{issuer}' may not be used for federated identity credential flows for applications or managed identities registered in this tenant.",
  ),
  // Federation. 70021 is the older code; its status differs from that of its successors.
  70021: refusal(
    400,
    'invalid_request',
    `No matching federated identity record found for presented assertion. Assertion Issuer: '{issuer}'. Assertion Subject: '{subject}'. Assertion Audience: '{audience}'. ${federationHelp}`,
  ),
  700211: refusal(
    401,
    'invalid_client',
    `No matching federated identity record found for presented assertion issuer '{issuer}'. Check your federated identity credential Subject, Audience and Issuer against the presented assertion. ${federationHelp}`,
  ),
  700212: refusal(
    401,
    'invalid_client',
    `No matching federated identity record found for presented assertion audience '{audience}'. Check your federated identity credential Subject, Audience and Issuer against the presented assertion. ${federationHelp}`,
  ),
  700213: refusal(
    401,
    'invalid_client',
    `No matching federated identity record found for presented assertion subject '{subject}'. Check your federated identity credential Subject, Audience and Issuer against the presented assertion. ${federationHelp}`,
  ),
  7000272: refusal(
    401,
    'invalid_client',
    "The certificate with identifier {keyId} used to sign the federated credential could not be found in the metadata of identity provider {issuer}. Please validate that your Identity Provider's metadata exposes the key used to sign the incoming token.",
  ),
  // Policy.
  53003: refusal(400, 'interaction_required', blocked, 'message_only'),
  53004: refusal(400, 'interaction_required', 'Proof up is blocked due to security risk.'),
  53011: refusal(400, 'interaction_required', 'User blocked due to risk on home tenant.'),
  530032: refusal(400, 'interaction_required', 'Blocked by security policy.'),
  530034: refusal(
    400,
    'interaction_required',
    'A delegated administrator was blocked from accessing the tenant due to account risk.',
  ),
  530035: refusal(400, 'interaction_required', 'Access has been blocked by security defaults.'),
  50005: refusal(
    400,
    'interaction_required',
    'Conditional Access: the device platform is not supported.',
  ),
  65001: refusal(
    400,
    'invalid_grant',
    "The user or administrator has not consented to use the application with ID '{clientId}'.",
    'consent_required',
  ),
  // Throttled.
  50196: refusal(
    400,
    'invalid_grant',
    'The server terminated an operation because it encountered a client request loop.',
  ),
  90055: refusal(429, busy, 'The request was throttled: too many requests for the tenant.'),
  // Transient.
  50000: refusal(
    500,
    'server_error',
    'There was an error issuing a token or an issue with our sign-in service.',
  ),
  90006: refusal(503, busy, 'The service is temporarily unavailable.'),
  90012: refusal(503, busy, 'The request has timed out.'),
  90024: refusal(503, busy, 'A transient error has occurred. Please try again.'),
  90033: refusal(503, busy, 'A transient error has occurred. Please try again.'),
  90061: refusal(503, busy, 'Request to External OIDC endpoint failed.'),
  90090: refusal(503, busy, 'The service is temporarily unavailable.'),
  90091: refusal(503, busy, 'The service is temporarily unavailable.'),
} as const satisfies Readonly<Record<number, Refusal>>;

export type EntraCode = keyof typeof refusals;

export type EntraDetails = Readonly<Record<string, string>>;

/** Fields of every refusal besides its code. */
export interface EntraTrace {
  readonly traceId: string;
  readonly correlationId: string;
  readonly nowWallMs: number;
  /** Host and port of the request. */
  readonly host: string;
}

export interface RenderedRefusal {
  readonly status: number;
  readonly body: string;
}

export function renderRefusal(
  code: EntraCode,
  details: EntraDetails,
  trace: EntraTrace,
): RenderedRefusal {
  const { status, error, text, suberror }: Refusal = refusals[code];
  const timestamp = renderTimestamp(trace.nowWallMs);
  const description =
    `AADSTS${code}: ${text.replace(/\{(\w+)\}/g, (_all, name: string) => details[name] ?? '')} ` +
    `Trace ID: ${trace.traceId} Correlation ID: ${trace.correlationId} Timestamp: ${timestamp}`;
  return {
    status,
    body: JSON.stringify({
      error,
      error_description: description,
      error_codes: [code],
      timestamp,
      trace_id: trace.traceId,
      correlation_id: trace.correlationId,
      error_uri: `https://${trace.host}/error?code=${code}`,
      ...(suberror === undefined ? {} : { suberror }),
    }),
  };
}

function renderTimestamp(wallMs: number): string {
  return new Date(wallMs)
    .toISOString()
    .replace('T', ' ')
    .replace(/\.\d+Z$/, 'Z');
}
