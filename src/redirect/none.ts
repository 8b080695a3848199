/** No redirect: for loopback use, and for the lab. */
import type { Redirect, RedirectStatus } from './redirect.ts';

const OFF: RedirectStatus = { state: 'off', detail: 'no redirect', problems: [] };

/** A redirect that changes nothing and reports that there is none. */
export function noRedirect(): Redirect {
  return {
    mode: 'none',
    prepare: () => Promise.resolve(),
    install: () => Promise.resolve(OFF),
    verify: () => Promise.resolve(OFF),
    remove: () => Promise.resolve(),
    attest: () => ({ kind: 'by-address' }),
  };
}
