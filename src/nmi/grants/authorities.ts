/** The authority that issues the tokens of an identity, from the operator's settings. Pure. */
import type { Config } from '../config/config.ts';
import { resolveAuthority } from '../sources/entra/clouds.ts';
import type { ResolveAuthority } from './resolve-upstream.ts';

export function authoritiesOf(
  config: Pick<Config, 'cloud' | 'entraAuthorities' | 'entraAudience'>,
): ResolveAuthority {
  const { cloud, entraAuthorities, entraAudience } = config;
  const [own = ''] = entraAuthorities;
  const allowedHosts = entraAuthorities.map((origin) => new URL(origin).host);
  return (adEndpoint) => {
    const named = adEndpoint === '' ? own : adEndpoint;
    const resolved = resolveAuthority({ adEndpoint: named, cloud, allowedHosts });
    if (!resolved.ok || entraAudience === '') return resolved;
    return { ...resolved, accountAudience: entraAudience };
  };
}
