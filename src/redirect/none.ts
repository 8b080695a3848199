/** No redirect: for loopback use, and for the lab. */
import type { Redirect, RedirectStatus } from './redirect.ts';

const off: RedirectStatus = { state: 'off', detail: 'no redirect', problems: [] };

export function noRedirect(): Redirect {
  return {
    mode: 'none',
    prepare: () => Promise.resolve(),
    install: () => Promise.resolve(off),
    verify: () => Promise.resolve(off),
    isFrontWhole: () => Promise.resolve(false),
    remove: () => Promise.resolve(),
  };
}
