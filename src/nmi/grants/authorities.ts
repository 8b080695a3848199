/** Where the tokens of an identity are got, by the operator's settings. Pure. */
import type { Config } from '../config/config.ts';
import { resolveAuthority } from '../sources/entra/clouds.ts';
import type { ResolveAuthority } from './resolve-upstream.ts';

export function authoritiesOf(
  config: Pick<Config, 'cloud' | 'entraAuthority' | 'authorityHosts' | 'federationAudience'>,
): ResolveAuthority {
  const { cloud, entraAuthority, federationAudience } = config;
  const own = URL.parse(entraAuthority)?.host;
  const allowedHosts = own === undefined ? config.authorityHosts : [...config.authorityHosts, own];
  return (adEndpoint) => {
    const named = adEndpoint === '' ? entraAuthority : adEndpoint;
    const resolved = resolveAuthority({ adEndpoint: named, cloud, allowedHosts });
    if (!resolved.ok || federationAudience === '') return resolved;
    return { ...resolved, audience: federationAudience };
  };
}
