/** Who issues the cluster's service account tokens, as Entra ID must know it. */
import { parseRecord, stringAt } from '../../base/json-value.ts';
import { failedError } from '../base/plugin-error.ts';
import type { Kubectl } from '../transport/kubectl.ts';

/** @throws PluginError */
export async function readIssuer(kubectl: Kubectl): Promise<string> {
  const text = await kubectl.expect('read the issuer of service account tokens', [
    'get',
    '--raw=/.well-known/openid-configuration',
  ]);
  const issuer = stringAt(parseRecord(text), 'issuer');
  if (/^https:\/\/[\x21-\x7e]+$/.test(issuer)) return issuer;
  throw failedError(
    'the cluster has no issuer that Entra ID could read',
    'For AKS: az aks update --enable-oidc-issuer',
  );
}
