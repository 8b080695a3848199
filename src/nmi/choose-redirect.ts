/** The redirect a configuration asks for. `auto` is iptables, the one mode there is so far. */
import { openAddressRedirect } from '../redirect/address.ts';
import { openIptablesRedirect } from '../redirect/iptables.ts';
import { noRedirect } from '../redirect/none.ts';
import type { Redirect } from '../redirect/redirect.ts';
import type { Config } from './config.ts';

export function chooseRedirect(config: Config): Redirect {
  const { metadataIp, metadataPort, listenIp, listenPort } = config;
  if (config.redirect === 'none') return noRedirect();
  if (config.redirect === 'address') {
    const target = { metadataIp, metadataPort };
    return openAddressRedirect({ target, force: config.forceAddress });
  }
  return openIptablesRedirect({
    target: { metadataIp, metadataPort, listenIp, listenPort },
    backend: config.iptablesBackend,
    guard: config.metadataGuard,
  });
}
