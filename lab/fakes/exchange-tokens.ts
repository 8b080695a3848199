/**
 * Tokens for the audience of token exchange, which are assertions themselves: the metadata service
 * and Entra ID issue them under one issuer and one key, which exists only in this process.
 */
import { generateKeyPairSync, sign, type KeyObject } from 'node:crypto';

export const exchangeAudience = 'api://AzureADTokenExchange';

const kid = 'lab-exchange';
let pair: { readonly privateKey: KeyObject; readonly publicKey: KeyObject } | undefined;

function keys(): NonNullable<typeof pair> {
  return (pair ??= generateKeyPairSync('rsa', { modulusLength: 2048 }));
}

/** Of the national clouds too, which have their own. */
export function isExchangeAudience(audience: string): boolean {
  return audience.startsWith(exchangeAudience);
}

export function exchangeIssuer(tenantId: string): string {
  return `https://login.microsoftonline.com/${tenantId}/v2.0`;
}

export function isExchangeIssuer(issuer: string): boolean {
  return /^https:\/\/login\.microsoftonline\.com\/[^/]+\/v2\.0$/.test(issuer);
}

export function signExchangeToken(claims: object): string {
  const signed = [{ typ: 'JWT', alg: 'RS256', kid }, claims]
    .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
    .join('.');
  const signature = sign('sha256', Buffer.from(signed), keys().privateKey).toString('base64url');
  return `${signed}.${signature}`;
}

export function exchangeKeys() {
  return [{ ...keys().publicKey.export({ format: 'jwk' }), kty: 'RSA', kid }];
}

/** The subject of a token that a blueprint got with `fmi_path`; the ids in the order of .NET. */
export function agentSubject(tenantId: string, blueprint: string, fmiPath: string): string {
  return `/eid1/c/pub/t/${encodeGuid(tenantId)}/a/${encodeGuid(blueprint)}/${fmiPath.toLowerCase()}`;
}

function encodeGuid(guid: string): string {
  const [first = '', second = '', third = '', ...rest] = guid.toLowerCase().split('-');
  const turned = [first, second, third].map((hex) => Buffer.from(hex, 'hex').reverse());
  return Buffer.concat([...turned, Buffer.from(rest.join(''), 'hex')]).toString('base64url');
}
