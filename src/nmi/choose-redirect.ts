/** The redirect a configuration asks for. `auto` is iptables, the one mode there is so far. */
import { openIptablesRedirect } from '../redirect/iptables.ts';
import { noRedirect } from '../redirect/none.ts';
import type { Redirect } from '../redirect/redirect.ts';
import type { Config } from './config.ts';

export function chooseRedirect(config: Config): Redirect {
  if (config.redirect === 'none') return noRedirect();
  return openIptablesRedirect({
    target: {
      metadataIp: config.metadataIp,
      metadataPort: config.metadataPort,
      listenIp: config.listenIp,
      listenPort: config.listenPort,
    },
    backend: config.iptablesBackend,
    guard: config.metadataGuard,
  });
}
