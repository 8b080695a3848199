/** Who issues the cluster's service account tokens, as Entra ID must know it. */
import { parseRecord, stringAt } from '../../base/json-value.ts';
import { failedError } from '../base/plugin-error.ts';
import { cloudOf } from '../../nmi/sources/entra/clouds.ts';
import type { Kubectl } from '../transport/kubectl.ts';
import { commonConfig, defaultConfig, type AgentView } from './agents.ts';

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

/** Where federated credentials are accepted. @param agents that are verified. */
export function cloudOfAgents(agents: readonly AgentView[]) {
  const { cloud, entraAudience } = commonConfig(agents) ?? defaultConfig;
  const { authority, audience } = cloudOf(cloud);
  const text =
    'No verified agent shows its options: the audience is assumed to be the default one.';
  const notes = agents.length === 0 ? [text] : [];
  return { authority, audience: entraAudience || audience, legAudience: audience, notes };
}

/** @param agents that are verified. @throws PluginError */
export async function readCredentialTarget(kubectl: Kubectl, agents: readonly AgentView[]) {
  return { issuer: await readIssuer(kubectl), ...cloudOfAgents(agents) };
}
